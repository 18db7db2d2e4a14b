"""Who is let in by a text, which keys there may be, and what must not be the environment's key."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import date, timedelta
from hmac import compare_digest

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpdau_assets.core import api_keys
from dpdau_assets.core.api_keys import (
    LONGEST,
    MOST_VALID,
    SCOPES,
    SERVICE,
    ApiKey,
    authenticate,
    hash_of,
    in_order,
    require_usable,
    service_key,
    with_new,
    with_revoked,
)
from dpdau_assets.core.errors import BadInput, BadSetting, Refused

TODAY = date(2025, 3, 31)
DAY = timedelta(days=1)
TEXT = "Ee-k1hHKaSL0-dVgF9HzUKYUCVR33ywFNStkRbFyivQ"
OTHER = "mB0u2cRr1sUq0Jm4bW8x_5vGJQy9Hc7nKQ3tE6zYdLw"


def key_of(text: str, number: int = 1, name: str = "shop", expires_on: date | None = None) -> ApiKey:
    return ApiKey(f"{number:08x}", name, hash_of(text), frozenset({"ingest"}), TODAY, expires_on)


KEYS = (key_of(TEXT, 1), key_of(OTHER, 2, name="dashboard"))

presented = st.one_of(
    st.text(),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=43, max_size=43),
    st.builds(lambda at, new: TEXT[:at] + new + TEXT[at + 1 :], st.integers(0, 42), st.characters(codec="ascii")),
    st.integers(0, 42).map(lambda end: TEXT[:end]),
    st.text(min_size=1).map(lambda more: TEXT + more),
    st.sampled_from([TEXT.lower(), TEXT.swapcase(), f" {TEXT}", f"{TEXT}=", f"{TEXT}\n", TEXT + OTHER]),
)


@given(presented)
@example(hash_of(TEXT))
@example("")
@example("x" * 1_000_000)
def test_any_text_other_than_the_key_itself_is_unknown(text: str) -> None:
    assert authenticate(text, KEYS, TODAY) == (KEYS[0] if text == TEXT else KEYS[1] if text == OTHER else "unknown")


def test_each_key_lets_its_own_in_and_nothing_does_where_there_is_none() -> None:
    assert [authenticate(text, KEYS, TODAY) for text in (TEXT, OTHER)] == list(KEYS)
    assert authenticate(TEXT, (), TODAY) == "unknown"


@given(st.integers(-1000, 1000))
def test_a_key_is_valid_through_its_last_day_and_then_expired(days: int) -> None:
    key = key_of(TEXT, expires_on=TODAY)
    assert authenticate(TEXT, [key], TODAY + days * DAY) == (key if days <= 0 else "expired")


def test_a_revoked_key_is_refused_at_once_as_if_it_had_never_been() -> None:
    after, ids = with_revoked(KEYS, "shop", TODAY)
    assert ids == (KEYS[0].id,) and after[1:] == KEYS[1:]
    assert after[0] == replace(KEYS[0], sha256=None, revoked_on=TODAY) and after[0].state(TODAY) == "revoked"
    assert authenticate(TEXT, after, TODAY) == "unknown"
    expired = key_of(TEXT, expires_on=TODAY - DAY)
    assert authenticate(TEXT, with_revoked([expired], "shop", TODAY)[0], TODAY) == "unknown"


@pytest.mark.parametrize("text", [TEXT, OTHER, "unknown to all", ""])
def test_every_living_key_is_compared_in_constant_time_whichever_it_is(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def noted(here: str, there: str) -> bool:
        compared.append(there)
        return compare_digest(here, there)

    monkeypatch.setattr(api_keys, "compare_digest", noted)
    authenticate(text, KEYS, TODAY)
    assert compared == ([key.sha256 for key in KEYS] if text else []), "an empty text is no key, whichever there are"


def test_a_valid_key_goes_before_an_expired_one_of_the_same_text() -> None:
    expired, valid = key_of(TEXT, 1, expires_on=TODAY - DAY), key_of(TEXT, 2)
    assert authenticate(TEXT, [expired, valid], TODAY) == authenticate(TEXT, [valid, expired], TODAY) == valid


def test_a_keys_representation_does_not_show_its_hash() -> None:
    assert hash_of(TEXT) not in repr(KEYS) and KEYS[0].id in repr(KEYS)


# --- Which keys there may be ---------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 40))
def test_however_keys_are_made_and_revoked_two_of_a_name_are_valid_at_most(data: st.DataObject, steps: int) -> None:
    keys: tuple[ApiKey, ...] = ()
    revoked: set[str] = set()
    today = TODAY
    for number in range(steps):
        step = data.draw(st.sampled_from(["new", "new", "revoke", "later"]))
        if step == "later":
            today += DAY
        elif step == "revoke" and keys:
            named = data.draw(st.sampled_from([part for key in keys for part in (key.name, key.id)]))
            living = {key.id for key in keys if named in (key.name, key.id) and key.revoked_on is None}
            keys, ids = with_revoked(keys, named, today)
            assert set(ids) == living
            revoked |= living
        elif step == "new":
            name = data.draw(st.sampled_from(["shop", "dashboard"]))
            lasts = data.draw(st.sampled_from([None, 0, 2]))
            last = None if lasts is None else today + lasts * DAY
            new = replace(key_of(f"key {number}", number, name, last), created_on=today)
            valid = [key for key in keys if key.name == name and key.state(today) == "valid"]
            if len(valid) < MOST_VALID:
                keys = with_new(keys, new)
                assert keys[-1] == new
            else:
                with pytest.raises(Refused, match=f"`dpdau api-key revoke {valid[0].id}`"):
                    with_new(keys, new)
        for name in ("shop", "dashboard"):
            assert sum(key.name == name and key.state(today) == "valid" for key in keys) <= MOST_VALID
        assert {key.id for key in keys if key.state(today) == "revoked"} == revoked
        assert all((key.sha256 is None) == (key.id in revoked) for key in keys)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "é", "a\n", "../x", KEYS[1].id])
def test_a_name_that_no_key_has_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="no name for a key"):
        with_new(KEYS, key_of("new", 3, name))


def test_a_key_without_a_scope_with_an_unknown_one_or_with_a_last_day_that_is_over_is_refused() -> None:
    new = key_of("new", 3)
    for scopes in (frozenset(), frozenset({"read", "root"})):
        with pytest.raises(BadInput, match="ingest, erase, read, admin"):
            with_new(KEYS, replace(new, scopes=scopes))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="2025-03-30, is over"):
        with_new(KEYS, replace(new, expires_on=TODAY - DAY))
    assert with_new(KEYS, replace(new, expires_on=TODAY))[-1].state(TODAY) == "valid"


def test_a_key_that_is_pasted_where_its_name_belongs_is_not_repeated() -> None:
    with pytest.raises(BadInput) as raised:
        with_revoked(KEYS, TEXT, TODAY)
    assert TEXT not in str(raised.value) and TEXT not in repr(raised.value.fields)


def test_scopes_are_shown_in_one_order() -> None:
    assert in_order(["admin", "read", "ingest", "read"]) == ["ingest", "read", "admin"]
    assert in_order(reversed(SCOPES)) == list(SCOPES) == ["ingest", "erase", "read", "admin"]


# --- The environment's key -----------------------------------------------------------------------------------------


def test_the_environments_key_has_all_scopes_and_lets_in_its_own_text_alone() -> None:
    key = service_key(TEXT)
    assert authenticate(TEXT, [*KEYS[1:], key], TODAY) == key
    assert (key.id, key.name, key.scopes, key.state(date.max)) == (SERVICE, SERVICE, frozenset(SCOPES), "valid")
    assert authenticate(OTHER, [key], TODAY) == "unknown"


@given(st.integers())
def test_what_openssl_and_python_make_is_usable(_: int) -> None:
    for text in (secrets.token_urlsafe(32), secrets.token_urlsafe(24), secrets.token_hex(32), secrets.token_hex(16)):
        require_usable(text)


@pytest.mark.parametrize(
    "placeholder",
    [
        "{{SERVICE_API" + "_KEY}}",  # no placeholder of this repository
        "{{ a-rather-long-name-of-a-variable }}",
        "${SERVICE_KEY_THAT_WAS_NOT_FILLED_IN}",
        "changeme",
        "Change-Me-Before-You-Deploy-This-1234567",
        "CHANGE_THIS_7f3a9c1e5b2d8064aa01",
        "your-api-key",
        "YOUR_SERVICE_KEY_GOES_IN_HERE_0123456789",
        "your-token-9c41f07be2d8a6350b7e1c94d2f8a063",
        "example",
        "Example-9c41f07be2d8a6350b7e1c94d2f8a063",
        "<the key that operations handed to you>",
        "<9c41f07be2d8a6350b7e1c94d2f8a063>",
        "replace-with-what-openssl-rand-made-for-you",
        "my-super-Secret-token-for-the-dashboards-42",
        "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
    ],
)
def test_a_placeholder_is_no_key(placeholder: str) -> None:
    require_said(placeholder, "placeholder")


def test_a_word_in_the_prefix_of_a_random_key_makes_it_no_placeholder() -> None:
    require_usable("dpdau-api-key-9c41f07be2d8a6350b7e1c94d2f8a063")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (TEXT[:31], "shorter than 32"),
        ("", "shorter than 32"),
        (TEXT * 6, "more than 256"),
        (f"{TEXT}é", "a header can carry"),
        (f"{TEXT}\n", "a header can carry"),
        (f"{TEXT} {OTHER}", "a header can carry"),
        ("93718240569182736450918273645091", "below 128 bits"),
        ("a" * 40, "too few different"),
        (TEXT[:20] * 2, "again and again"),
    ],
)
def test_what_can_be_guessed_or_cannot_be_sent_is_no_key(text: str, rule: str) -> None:
    require_said(text, rule)


@given(st.text(max_size=LONGEST + 20))
def test_what_is_usable_can_be_presented_and_what_is_not_is_not_shown(text: str) -> None:
    try:
        require_usable(text)
    except BadSetting as error:
        assert error.reason.startswith("SERVICE_API_KEY=...: ") and (len(text) < 8 or text not in str(error))
    else:
        assert authenticate(text, [service_key(text)], TODAY) == service_key(text)


def require_said(text: str, rule: str) -> None:
    with pytest.raises(BadSetting, match=rule) as raised:
        require_usable(text)
    said = str(raised.value)
    assert "SERVICE_API_KEY=..." in said and "openssl rand -hex 32" in said
    assert not text or text not in said.replace("placeholder", "")
