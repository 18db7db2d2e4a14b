"""Which master secrets are refused: by bits, by characters that differ, and by repetition."""

from __future__ import annotations

import secrets
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.secret_strength import alphabet_size, require_strong, weakness
from dpdau_tests.support.master_secret import NEW_SECRET, SECRET

PIECE = "7f3a9c1e5b2d8064"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0123", 10),
        ("0a", 16),
        ("0A", 16),
        ("0aA", 62),
        ("0g", 36),
        ("abc", 16),
        ("xyz", 26),
        ("XYZ", 26),
        ("aB", 52),
        ("a-z", 59),
        ("-", 33),
        ("é", 100),
        ("0é", 110),
        ("a\t", 126),
    ],
)
def test_an_alphabet_is_as_large_as_the_kinds_of_characters_that_stand_there(text: str, size: int) -> None:
    assert alphabet_size(text) == size


def test_thirty_two_random_hex_digits_pass_and_thirty_two_digits_do_not() -> None:
    assert weakness("9c41f07be2d8a6350b7e1c94d2f8a063") is None
    assert str(weakness("93718240569182736450918273645091")).startswith("below 128 bits")
    assert weakness("937182405691827364509182736450917351682") is None, "39 digits have 129.6"


@pytest.mark.parametrize("size", [16, 24, 32])
def test_what_openssl_and_python_make_passes(size: int) -> None:
    assert all(weakness(secrets.token_hex(size)) is None for _ in range(200))
    assert all(weakness(secrets.token_urlsafe(24)) is None for _ in range(200))


@pytest.mark.parametrize(
    "text", ["a" * 31 + "b", "a" * 30 + "Zz", "ab" * 15 + "ba", "0000111100001111000011110000111f"]
)
def test_a_long_text_of_few_characters_is_not_believed(text: str) -> None:
    assert weakness(text) is not None


@pytest.mark.parametrize(
    "text", ["x" * 40, PIECE * 2, PIECE * 3, PIECE * 2 + PIECE[:5], PIECE + PIECE[:15], "correct horse staple " * 2]
)
def test_a_piece_that_is_written_again_and_again_is_refused_even_if_the_last_is_cut_short(text: str) -> None:
    assert weakness(text + ("" if len(text) > 31 else PIECE[15:] + PIECE)) is not None


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), st.integers(2, 6), st.integers(0, 19))
def test_every_repetition_is_refused(piece: str, times: int, cut: int) -> None:
    assert weakness(piece * times + piece[:cut]) is not None


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_what_passes_has_its_bits_and_the_error_shows_nothing_of_the_secret(text: str) -> None:
    if weakness(text) is None:
        assert len(text) * log2(alphabet_size(text)) >= 128 and len(text) * log2(len(set(text))) >= 96
        require_strong(text)
        return
    with pytest.raises(BadSetting, match="HASH_SALT_SECRET") as raised:
        require_strong(text)
    said = str(raised.value)
    assert len(text) < 8 or text not in said
    assert str(len(text)) not in said.replace("128", "").replace("-hex 32", "") or len(text) < 10


def test_the_secrets_of_the_tests_are_strong() -> None:
    assert weakness(SECRET) is None and weakness(NEW_SECRET) is None


@pytest.mark.parametrize(
    "text",
    [
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "00112233445566778899aabbccddeeff",
        "zyxwvutsrqponmlkjihgfedcba9876543210",
        "0123456789abcdef0123456789ABCDEFGHIJ",
    ],
)
def test_characters_in_their_order_are_refused(text: str) -> None:
    assert weakness(text) == "mostly characters in their order"


def test_random_digits_the_worst_alphabet_are_not_taken_for_characters_in_their_order() -> None:
    assert all(weakness("".join(secrets.choice("0123456789") for _ in range(40))) is None for _ in range(2_000))
