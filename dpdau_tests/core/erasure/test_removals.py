"""One rule for every way in: which days of a request are taken, which are passed over, and what alone is bad input."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core import events
from dpdau_assets.core.erasure.requests import keyed
from dpdau_assets.core.events import Event, Limits, Row, validate
from dpdau_assets.core.facts import EpochKey
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.limits import first_day
from dpdau_tests.support.lengths import at_length
from resources.reading.erasure_files import request_of

START, TOMORROW = date(2025, 3, 1), date(2025, 6, 30)
days = st.dates(START - timedelta(days=3), TOMORROW + timedelta(days=3)).map(date.isoformat)
listings = st.lists(days | days | st.sampled_from(["soon", "2025-02-30", "1999-01-01"]), max_size=4)


class AnySalts:
    """A key for every epoch."""

    def epoch_keys(self, epochs: set[int]) -> dict[int, EpochKey]:
        return {epoch: EpochKey(epoch, hashlib.sha256(b"%d" % epoch).digest()) for epoch in epochs}

    def shredded_through(self) -> None:
        return None

    def lost(self) -> frozenset[int]:
        return frozenset()


def store_with(purged: date | None) -> SimpleNamespace:
    accountant = SimpleNamespace(purged_through=lambda: purged)
    state = SimpleNamespace(salts=AnySalts())
    return SimpleNamespace(settings=Settings(start_date=START), accountant=accountant, state=state)


def limits_of(store: SimpleNamespace) -> Limits:
    return Limits(first_day(store.settings, store.accountant), TOMORROW, ZoneInfo("UTC"))  # type: ignore[arg-type]


def read(text: str) -> date | None:
    return events.calendar_day(text)


@pytest.mark.also_long
@settings(max_examples=at_length(test=60, ci=300, soak=3_000), deadline=None)
@given(listings, days, st.none() | st.dates(START, date(2025, 5, 1)))
def test_whatever_days_are_listed_those_that_can_hold_something_are_taken_and_the_others_named(
    listed: list[str], own: str, purged: date | None
) -> None:
    store = store_with(purged)
    first = first_day(store.settings, store.accountant)  # type: ignore[arg-type]
    verdict = validate(Row("u", "-", min(own, str(TOMORROW)), days=tuple(listed)), limits_of(store))
    if not listed or None in map(read, listed):
        assert verdict == events.BAD_LIST
        return
    if max(listed) > str(TOMORROW):
        assert verdict == events.LIST_TOO_LATE
        return
    assert isinstance(verdict, Event)
    (removal,) = keyed([verdict], store)  # type: ignore[arg-type]
    asked = sorted({date.fromisoformat(day) for day in listed})
    assert removal.days == tuple(asked) and removal.through == asked[-1]
    assert removal.taken == tuple(day for day in asked if day >= first)
    assert removal.passed_over == tuple(day for day in asked if day < first)
    assert bool(removal.keys) == bool(removal.taken)
    assert request_of({"user_id": "u", "days": listed}, limits_of(store)) == verdict, "as in a file, or as --days"


@pytest.mark.also_long
@settings(max_examples=at_length(test=40, ci=200, soak=2_000), deadline=None)
@given(st.none() | days | st.sampled_from(["soon", "1999-01-01"]), st.none() | st.dates(START, date(2025, 5, 1)))
def test_whatever_the_through_day_is_it_is_taken_passed_over_or_after_tomorrow(
    through: str | None, purged: date | None
) -> None:
    store = store_with(purged)
    verdict = validate(Row("u", "-", through), limits_of(store))
    if through == "soon":
        assert verdict == events.BAD_DAY
        return
    day = TOMORROW if through is None else date.fromisoformat(through)
    if day > TOMORROW:
        assert verdict == events.TOO_LATE
        return
    assert isinstance(verdict, Event)
    (removal,) = keyed([verdict], store)  # type: ignore[arg-type]
    can_hold = day >= first_day(store.settings, store.accountant)  # type: ignore[arg-type]
    assert (removal.through, removal.days) == (day, ())
    assert (removal.taken, removal.passed_over) == (((day,), ()) if can_hold else ((), (day,)))
    assert bool(removal.keys) == can_hold
    assert request_of({"user_id": "u", "through": through}, limits_of(store)) == verdict
