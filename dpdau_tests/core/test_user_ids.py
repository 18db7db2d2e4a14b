"""Who a row is about: ids of every type, and one spelling for those that a store wants to be one."""

from __future__ import annotations

import sys
import unicodedata
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.user_ids import NORMALIZATIONS, WHITE_SPACE, id_text, normalize

ALL = NORMALIZATIONS
HOW = st.lists(st.sampled_from(NORMALIZATIONS), unique=True).map(tuple)
IDS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from(" \t\u3000aAÀÅıİßẞſΣςσ\u0301\u0345\u0308\u0323ᾳᾼΐ\u1e9eﬁǅ\u1100\u1161\u212b\u2000")
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("101.0", "101.0"),
        ("", ""),
        (0, "0"),
        (-7, "-7"),
        (2**127, str(2**127)),
        (101.0, "101"),
        (-0.0, "0"),
        (2.0**53 - 1, "9007199254740991"),
        (Decimal("101.00"), "101"),
        (Decimal("12345678901234567890123456789012345678"), "12345678901234567890123456789012345678"),
        (UUID("ED3A868A-2E94-4CE6-B372-466B4A5DD0D0"), "ed3a868a-2e94-4ce6-b372-466b4a5dd0d0"),
        ("é".encode(), "é"),
    ],
)
def test_an_id_of_any_type_is_its_canonical_text(value: object, text: str) -> None:
    assert id_text(value) == text


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        1.5,
        Decimal("1.5"),
        Decimal("NaN"),
        Decimal("Infinity"),
        float("nan"),
        float("inf"),
        -float("inf"),
        2.0**53,
        -1e300,
        b"\xff",
        [],
        ["u"],
        {"u": 1},
    ],
)
def test_what_may_have_been_another_id_or_is_no_id_has_no_text(value: object) -> None:
    assert id_text(value) is None


@given(st.integers())
def test_an_integer_id_is_its_decimal_digits(number: int) -> None:
    assert id_text(number) == f"{number:d}"
    assert id_text(float(number)) in (None, f"{number:d}")


@given(IDS, HOW)
def test_normalising_again_changes_nothing(user_id: str, how: tuple) -> None:
    once = normalize(user_id, how)
    assert normalize(once, how) == once == normalize(user_id, how[::-1])


@given(IDS)
def test_without_a_setting_an_id_stays_as_it_came(user_id: str) -> None:
    assert normalize(user_id, ()) == user_id


@given(IDS, HOW)
def test_each_way_of_normalising_does_what_it_says(user_id: str, how: tuple) -> None:
    spelled = normalize(user_id, how)
    assert "trim" not in how or spelled == spelled.strip()
    assert "nfc" not in how or unicodedata.is_normalized("NFC", spelled)
    assert "casefold" not in how or spelled == normalize(spelled.casefold(), how)


@given(IDS)
def test_normal_forms_case_and_space_around_an_id_name_nobody_else(user_id: str) -> None:
    others = [unicodedata.normalize(form, user_id) for form in ("NFC", "NFD")] + [f" {user_id}\u3000"]
    assert {normalize(other, ALL) for other in others} == {normalize(user_id, ALL)}
    folded = unicodedata.normalize("NFD", user_id).casefold()
    assert normalize(folded, ALL) == normalize(user_id, ALL)


@pytest.mark.parametrize(
    ("user_id", "how", "spelled"),
    [
        ("Jose\u0301", ("nfc",), "Jos\u00e9"),
        ("\xa0Bob@example.org\n", ("trim",), "Bob@example.org"),
        ("Bob@Example.org", ("casefold",), "bob@example.org"),
        ("Straße", ("casefold",), "strasse"),
        (" ", ("trim",), ""),
        (" A ", ("nfc", "casefold"), " a "),
    ],
)
def test_spellings_become_one(user_id: str, how: tuple, spelled: str) -> None:
    assert normalize(user_id, how) == spelled


def test_white_space_is_what_python_strips() -> None:
    assert set(WHITE_SPACE) == {chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()}
    assert len(set(WHITE_SPACE)) == len(WHITE_SPACE)
