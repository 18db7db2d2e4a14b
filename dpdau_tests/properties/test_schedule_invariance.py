"""What is published and when, what it is charged and what is refused: the same with and without any one person.

Only noisy values may depend on her, on what she asked to be erased, and on when: all else is told to everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from random import Random
from typing import TypeVar

import pytest

from dpdau_assets.core.dates import days_between, month_of
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.erasure.retention import purge
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.publication.runs import (
    BUILD,
    DAU,
    MAU,
    RESTATEMENT,
    Step,
    plan_run,
)
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.activity import process_days
from dpdau_assets.core.state.day_sketch import refresh
from dpdau_assets.core.state.limits import first_day, last_day
from dpdau_tests.conftest import SECRET, FixedClock, put, silent
from dpdau_tests.support.fast_folder import fast_folder
from dpdau_tests.support.lengths import LENGTH, at_length, chance
from resources.store import open_store

START = date(2025, 1, 24)
FIRST_MAU = date(2025, 2, 22)
OTHERS = [(f"user {n % 7}", START + timedelta(days=n * n % 71)) for n in range(120)]


@dataclass(frozen=True)
class Schedule:
    """Each time, what was not published yet is published up to one of these days; what is before `first` never is."""

    first: date
    up_to: tuple[date, ...]
    retention_days: int
    restated_through: date
    steps: int  # of publication, at least
    settles: bool = False  # each time, after the steps

    @property
    def last(self) -> date:
        return self.up_to[-1]


LONG = {"first": date(2025, 1, 27), "retention_days": 45, "restated_through": date(2025, 3, 31), "steps": 110}
LAST = date(2025, 4, 4)  # by then January, February and March are restated
SCHEDULES = {
    "a month's end day by day": Schedule(
        date(2025, 2, 24), tuple(days_between(date(2025, 2, 24), date(2025, 3, 4))), 31, date(2025, 2, 28), 28
    ),
    "day by day": Schedule(up_to=tuple(days_between(date(2025, 1, 27), LAST)), **LONG),
    "in ranges": Schedule(
        up_to=(date(2025, 2, 1), date(2025, 2, 2), date(2025, 2, 25), date(2025, 3, 20), LAST), settles=True, **LONG
    ),
}

Answer = TypeVar("Answer")


# --- One person --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """To be erased through a day, or of listed days, after so many steps of publication."""

    through: date
    listed: tuple[date, ...]
    at_step: int


@dataclass(frozen=True)
class Person:
    """Her active days, each with the number of steps after which it is known, and what she asks for."""

    active: tuple[tuple[date, int], ...] = ()
    asked: Asked | None = None


NOBODY = Person()


def after(days: int) -> date:
    return START + timedelta(days=days)


def somebody(schedule: Schedule, random: Random) -> Person:
    """Some days are known at once, others later; three of four persons ask for something."""

    def days(most: int) -> list[date]:
        return [after(random.randint(0, (schedule.last - START).days + 2)) for _ in range(random.randint(0, most))]

    def step() -> int:
        return random.randrange(schedule.steps)

    active = tuple((day, step() if random.random() < 0.5 else 0) for day in [START, *days(24)])
    through, listed = max(days(2), default=START), tuple(sorted({*days(3)}))
    return Person(active, Asked(through, listed, step()) if random.random() < 0.75 else None)


def erased_between(schedule: Schedule) -> tuple[Person, Person]:
    """One who comes all the time, and the same one if she is erased on the way."""
    active = tuple((after(days), 0) for days in range(5, (schedule.last - START).days, 5))
    return Person(active), Person(active, Asked(after(30), (), schedule.steps // 2))


# --- What everyone is told ---------------------------------------------------------------------------------------


@dataclass
class Publication:
    """A store that one person more may be in, and all that its publication by schedule tells: `trace` and numbers."""

    store: Store
    person: Person
    schedule: Schedule
    trace: list[object] = field(default_factory=list)
    numbers: dict[ReleaseKey, float] = field(default_factory=dict)
    steps: int = 0

    def publish_up_to(self, last: date, first: date) -> None:
        """All of these days, some days later; then, not every time, what is refused."""
        self.store = replace(self.store, clock=FixedClock(last + timedelta(days=4)))
        self.put((user, day) for user, day in OTHERS)
        for step in self.traced("plan", lambda: plan_run(first, last, self.store)) or ():
            self.hear_of_her()
            self.traced(step, lambda step=step: execute(step, self.store))
            self.steps += 1
        if first < last or last.day % 7 == 0 or last == self.schedule.last:
            for asked, act in impossible(last, self.schedule.first, self.store):
                self.traced(asked, act)
        self.traced("purge", lambda: purge(self.store))

    def hear_of_her(self) -> None:
        """Whatever of her has come to be known, on a day that is accepted by now."""
        self.put(("her", day) for day, at_step in self.person.active if at_step <= self.steps)
        if (asked := self.person.asked) and asked.at_step == self.steps:
            tomorrow = last_day(self.store.clock)
            listed = tuple(sorted({min(day, tomorrow) for day in asked.listed}))
            request([Event("her", "-", listed[-1] if listed else min(asked.through, tomorrow), listed)], self.store)

    def put(self, rows: Iterator[tuple[str, date]]) -> None:
        """Ingest those of them that are not refused as too early or too late."""
        first, last = first_day(self.store.settings, self.store.accountant), last_day(self.store.clock)
        put(self.store, [(user, day) for user, day in rows if first <= day <= last])

    def traced(self, asked: object, act: Callable[[], Answer]) -> Answer | None:
        """Do it, and note all that whoever asked gets to know but noisy values."""
        answer = None
        try:
            answer = act()
            self.trace.append((asked, without_numbers(answer)))
        except DpdauError as refusal:
            self.trace.append((asked, type(refusal).__name__, str(refusal), refusal.fields))
        return answer

    def close(self) -> None:
        """Add what the ledger says in the end."""
        ledger, months = self.store.accountant, [date(2024, 12, 1), *(date(2025, month, 1) for month in range(1, 7))]
        self.numbers = {release.key: release.noisy_value for release in ledger.releases()}
        self.trace += [without_numbers(ledger.releases()), ledger.mechanism_runs(), ledger.restated()]
        self.trace += [(metric, month, ledger.charges(metric, month)) for metric in ("dau", "mau") for month in months]
        self.trace += [ledger.sealed(), ledger.processed(), ledger.purged_through()]


def execute(step: Step, store: Store) -> object:
    """What the step's job calls in core."""
    match step:
        case Step(job, None, days) if job == BUILD:
            process_days(days, store)
            refresh(days, store)
        case Step(job, date() as day) if job in (DAU, MAU):
            return publish(step.metric, day, store)
        case Step(job, date() as month) if job == RESTATEMENT:
            return restate(month, store)
    return None


def impossible(last: date, first_published: date, store: Store) -> Iterator[tuple[str, Callable[[], object]]]:
    """What must be refused once this day is published, and says so to whoever asks."""
    one_day = timedelta(days=1)
    hasty = replace(store, settings=replace(store.settings, retention_days=10))
    yield "a day without state", lambda: publish("dau", last + 3 * one_day, store)
    yield "a sketch of a day without state", lambda: refresh([last + 3 * one_day], store)
    yield "a day that has not ended", lambda: publish("dau", store.clock.today(), store)
    yield "a MAU before the first one", lambda: publish("mau", FIRST_MAU - one_day, store)
    yield "a run of a day that has not ended", lambda: plan_run(last + one_day, store.clock.today(), store)
    yield "a month that is not over", lambda: restate(month_of(last), store)
    yield "a month without numbers", lambda: restate(date(2024, 12, 1), store)
    if last >= FIRST_MAU:
        yield "a run that leaves a gap", lambda: plan_run(last + 2 * one_day, last + 2 * one_day, store)
        yield "state ahead of publication", lambda: process_days([last + one_day, last + 2 * one_day], store)
        yield "a MAU out of order", lambda: publish("mau", last + 2 * one_day, store)
        yield "a purge too early", lambda: purge(hasty)
    if month_of(first_published) in store.accountant.restated():
        yield "a day that was left out of a restated month", lambda: publish("dau", first_published - one_day, store)


def without_numbers(answer: object) -> object:
    match answer:
        case Release():
            return replace(answer, noisy_value=0.0)
        case list():
            return [without_numbers(part) for part in answer]
    return answer


def publication(schedule: Schedule, person: Person) -> Publication:
    """The whole of it, in a store of its own."""
    with fast_folder() as folder:
        keeping = schedule.retention_days
        chosen = Settings(data_dir=folder, hash_salt_secret=SECRET, start_date=START, retention_days=keeping)
        published = Publication(silent(open_store(chosen)), person, schedule)
        first = schedule.first
        for last in schedule.up_to:
            published.publish_up_to(last, first)
            first = last + timedelta(days=1)
            if schedule.settles:
                apply_and_verify(published.store)
        published.close()
        open_store.cache_clear()
    return published


@cache
def without_her(schedule: Schedule) -> Publication:
    return publication(schedule, NOBODY)


# --- The same for everyone ---------------------------------------------------------------------------------------


every_schedule = pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(schedule, id=name, marks=pytest.mark.slow if schedule.last == LAST else ())
        for name, schedule in SCHEDULES.items()
    ],
)


@every_schedule
def test_all_but_the_noisy_values_is_the_same_with_and_without_her(schedule: Schedule) -> None:
    random = chance(f"of whom publication must not depend, until {schedule.last}")
    for _ in range(at_length(test=1, ci=1, soak=10)):
        her = somebody(schedule, random)
        assert publication(schedule, her).trace == without_her(schedule).trace, her


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(schedule, id=name, marks=pytest.mark.slow if schedule.last == LAST else ())
        for name, schedule in SCHEDULES.items()
        if schedule.last != LAST or LENGTH == "soak"
    ],
)
def test_it_is_the_numbers_that_she_changes(schedule: Schedule) -> None:
    publications = [*(publication(schedule, person) for person in erased_between(schedule)), without_her(schedule)]
    numbers = [published.numbers for published in publications]
    assert publications[0].trace == publications[1].trace == publications[2].trace
    assert numbers[0].keys() == numbers[1].keys() == numbers[2].keys()
    assert all(a != b for n, a in enumerate(numbers) for b in numbers[:n])


@every_schedule
def test_the_publication_is_whole_and_all_kinds_of_refusal_occur(schedule: Schedule) -> None:
    """A comparison of publications is one of something."""
    published = without_her(schedule)
    assert published.steps >= schedule.steps
    by_kind = {(key.metric, key.revision): key.day for key in sorted(published.numbers)}
    assert by_kind == {("dau", 0): schedule.last, ("dau", 1): schedule.restated_through, ("mau", 0): schedule.last}
    told = [step for step in published.trace if isinstance(step, tuple)]
    refused = {step[0] for step in told if "Refused" in step}
    assert len(refused) == 11 and all(isinstance(step, str) for step in refused)  # no step of the schedule
    kept = timedelta(days=schedule.retention_days)
    assert (schedule.last - kept) in [step[1] for step in told if step[0] == "purge"]
