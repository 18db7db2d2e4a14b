"""Real event logs with erasures: the state and every number equal references that were counted without our code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, timedelta
from random import Random

import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.erasure.retention import purge
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.state.activity import process_days
from dpdau_tests.conftest import FixedClock, prepare, put, silent
from dpdau_tests.eval.asof_reference import (
    Activity,
    dau_asof,
    effect_of_hold_out,
    end_of_month,
    mau_asof,
    read_activity,
)
from dpdau_tests.eval.logs import (
    COLLEGE,
    ERASURES,
    OULAD,
    counted,
    erasures_of,
    ingest_days,
    reference_of,
)
from dpdau_tests.support.lengths import LENGTH, at_length

Make = Callable[..., Store]
every_erasure = pytest.mark.parametrize(
    ("name", "which"),
    [pytest.param(*found, marks=pytest.mark.slow if found == (OULAD, "real") else ()) for found in ERASURES],
)

SMALL_ERASURES = [(OULAD, "seed7"), (COLLEGE, "seed7")]
days_of_every_erasure = pytest.mark.parametrize(
    ("name", "which"),
    [
        pytest.param(*found, marks=pytest.mark.slow if found != (OULAD, "seed7") else ())
        for found in (ERASURES if LENGTH == "soak" else SMALL_ERASURES)
    ],
)
"""In `make test` of one log, that is bundled and not all of whose days are needed."""

BUSY_DAYS = {
    (OULAD, "seed7"): (date(2014, 8, 1), date(2014, 9, 5) if LENGTH == "test" else date(2014, 10, 31)),
    (OULAD, "real"): (date(2013, 8, 1), date(2013, 10, 31)),
    (COLLEGE, "seed7"): (date(2004, 5, 1), date(2004, 7, 31)),
}
"""A range of each log with many people erased that begins with a month and has another one's end in it."""


# --- The reference itself ----------------------------------------------------------------------------------------


@every_erasure
def test_without_the_rule_the_second_count_is_the_reference(name: str, which: str) -> None:
    dau, mau = reference_of(name, f"_erased_{which}_asof")
    assert dau_asof(read_activity(name, which)) == dau
    assert mau_asof(read_activity(name, which), hold_out=False) == mau


@pytest.mark.also_long
@every_erasure
def test_with_the_rule_the_second_count_is_what_its_words_say(name: str, which: str) -> None:
    log = read_activity(name, which)
    mau = mau_asof(log, hold_out=True)
    for day in Random(7).sample(log.days[29:], at_length(test=3, ci=12, soak=12)):
        assert mau[day] == sum(is_counted(user, day, log) for user in log.active)


def is_counted(user: str, end: date, log: Activity) -> bool:
    """Subtracted from each day up to the end of the month of any erasure that is known by then."""
    seen = {day for day in log.active[user] if end - timedelta(days=29) <= day <= end}
    known = [erased for erased in log.erased.get(user, []) if erased <= end]
    return any(all(day > end_of_month(erased) for erased in known) for day in seen)


@pytest.mark.parametrize(
    ("name", "which", "days", "most"), [(OULAD, "seed7", 832, 9), (OULAD, "real", 828, 227), (COLLEGE, "seed7", 128, 5)]
)
def test_what_the_rule_takes_off_mau_is_what_the_docs_say(name: str, which: str, days: int, most: int) -> None:
    found = effect_of_hold_out(name, which)
    assert (found.days, found.most) == (days, most)


# --- All at once -------------------------------------------------------------------------------------------------


@pytest.mark.also_long
@days_of_every_erasure
def test_after_all_erasures_the_state_equals_the_reference(make_store: Make, name: str, which: str) -> None:
    """All days are compared in a soak, and some otherwise; who was erased before them is not asked for."""
    dau, mau = reference_of(name, f"_erased_{which}")
    days = sorted(dau)
    if LENGTH != "soak":
        days = days_between(*BUSY_DAYS[name, which])
    store = make_store(start_date=days[0])
    ingest_days(name, days, store)
    prepare(store, days)
    people = [(user, day) for user, day in erasures_of(name, which) if day >= days[0]]
    erase(people, store)
    settled = apply_and_verify(store)
    assert counted(days, store) == ({day: dau[day] for day in days}, {day: mau[day] for day in days[29:]})
    assert settled.unverified == ()
    assert settled.verified == len(people) == len(store.erasures.ledger.erasures(["verified"]))
    assert len(store.erasures.ledger.erasures()) == settled.verified


# --- Day by day --------------------------------------------------------------------------------------------------


@pytest.mark.also_long
@days_of_every_erasure
def test_many_erased_people_leave_the_numbers_of_their_day(make_store: Make, name: str, which: str) -> None:
    first, last = BUSY_DAYS[name, which]
    store = make_store(start_date=first)
    assert sum(first <= day <= last for _, day in erasures_of(name, which)) > 25
    check_day_by_day(store, name, which, days_between(first, last))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "which"), ERASURES if LENGTH == "soak" else [(COLLEGE, "seed7")])
def test_every_number_of_a_whole_log_is_without_those_erased_by_then(make_store: Make, name: str, which: str) -> None:
    """With retention, so that it ends: each erasure reads all the state there is."""
    days = read_activity(name, which).days[: at_length(ci=75, soak=10_000)]
    store = make_store(start_date=days[0], retention_days=31, restatements_per_month=0)
    check_day_by_day(store, name, which, days)
    assert store.accountant.purged_through() == days[-1] - timedelta(days=31)


def check_day_by_day(store: Store, name: str, which: str, days: list[date]) -> None:
    """Each day is built and published on the next one, after its own erasures were asked for.

    The store begins with the first of these days. It is that of the log, or of a month: nobody is held out into it.
    """
    log, people = read_activity(name, which), defaultdict(list)
    for user, day in erasures_of(name, which):
        people[day].append((user, day))
    dau, mau = {}, {}
    for day in days:
        today = silent(replace(store, clock=FixedClock(day + timedelta(days=1))))
        if day == days[0] or day.day == 1:
            put_month(day, log, store)
        process_days([day], today)
        erase(people[day], today)
        dau[day] = publish("dau", day, today).noisy_value
        if day >= days[29]:
            mau[day] = round(publish("mau", day, today).noisy_value, 3)
        if store.settings.retention_days:
            purge(today)
    expected = mau_asof(log, hold_out=True)
    assert dau == {day: reference_of(name, f"_erased_{which}_asof")[0][day] for day in days}
    assert mau == {day: expected[day] for day in days[29:]}


def put_month(first: date, log: Activity, store: Store) -> None:
    """Ingest the month's events from its first day that the store knows on."""
    last = end_of_month(first)
    rows = ((user, day) for user, days in log.active.items() for day in days if first <= day <= last)
    put(replace(store, clock=FixedClock(last)), rows)


def erase(people: Iterable[tuple[str, date]], store: Store) -> None:
    """Confirmed: on some days more ask than the guard lets through."""
    request([Event(user, "-", day) for user, day in people], store, confirmed=True)
