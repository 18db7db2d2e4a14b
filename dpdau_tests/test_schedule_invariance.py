"""What is published and when, what it is charged and what is refused: the same with and without any one person.

Only noisy values may depend on her, on what she asked to be erased, and on when: all else is told to everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.activity import process_days
from dpdau_assets.core.day_sketch import refresh
from dpdau_assets.core.erasure import request
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ingest import first_day, last_day
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.receipts import settle
from dpdau_assets.core.release import publish, restate
from dpdau_assets.core.retention import purge
from dpdau_assets.core.runs import BUILD, DAU, MAU, RESTATEMENT, Step, plan_run
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.windows import days_between, month_of
from dpdau_tests.conftest import SECRET, FixedClock, put, silent
from dpdau_tests.fast_folder import fast_folder
from resources.store import open_store

START = date(2025, 1, 24)
FIRST_PUBLISHED = date(2025, 1, 27)  # the days before it stay without a number
FIRST_MAU = date(2025, 2, 22)
LAST = date(2025, 4, 4)  # by then January, February and March are restated
OTHERS = [(f"user {n % 7}", START + timedelta(days=n * n % 71)) for n in range(120)]

SCHEDULES = {
    "day by day": tuple(days_between(FIRST_PUBLISHED, LAST)),
    "in ranges": (date(2025, 2, 1), date(2025, 2, 2), date(2025, 2, 25), date(2025, 3, 20), LAST),
}
"""Each time, what was not published yet is published up to one of these days."""

STEPS = 110  # of either, at least

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


def persons() -> st.SearchStrategy[Person]:
    day, step = st.integers(0, 72).map(after), st.integers(0, STEPS - 1)
    listed = st.sets(day, max_size=3).map(lambda days: tuple(sorted(days)))
    active = st.lists(st.tuples(day, step | st.just(0)), min_size=1, max_size=25).map(tuple)
    return st.builds(Person, active, st.none() | st.builds(Asked, day, listed, step))


# --- What everyone is told ---------------------------------------------------------------------------------------


@dataclass
class Publication:
    """A store that one person more may be in, and all that its publication by schedule tells: `trace` and numbers."""

    outside: Outside
    person: Person
    trace: list[object] = field(default_factory=list)
    numbers: dict[ReleaseKey, float] = field(default_factory=dict)
    steps: int = 0

    def publish_up_to(self, last: date, first: date) -> None:
        """All of these days, some days later; then, not every time, what is refused."""
        self.outside = replace(self.outside, clock=FixedClock(last + timedelta(days=4)))
        self.put((user, day) for user, day in OTHERS)
        for step in self.told("plan", lambda: plan_run(first, last, self.outside)) or ():
            self.hear_of_her()
            self.told(step, lambda step=step: execute(step, self.outside))
            self.steps += 1
        for asked, act in impossible(last, self.outside) if first < last or last.day % 7 == 0 else ():
            self.told(asked, act)
        self.told("purge", lambda: purge(self.outside))

    def hear_of_her(self) -> None:
        """Whatever of her has come to be known, on a day that is accepted by now."""
        self.put(("her", day) for day, at_step in self.person.active if at_step <= self.steps)
        if (asked := self.person.asked) and asked.at_step == self.steps:
            tomorrow = last_day(self.outside.clock)
            listed = tuple(sorted({min(day, tomorrow) for day in asked.listed}))
            request([Event("her", "-", listed[-1] if listed else min(asked.through, tomorrow), listed)], self.outside)

    def put(self, rows: Iterator[tuple[str, date]]) -> None:
        """Ingest those of them that are not refused as too early or too late."""
        first, last = first_day(self.outside), last_day(self.outside.clock)
        put(self.outside, [(user, day) for user, day in rows if first <= day <= last])

    def told(self, asked: object, act: Callable[[], Answer]) -> Answer | None:
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
        ledger, months = self.outside.ledger, [date(2024, 12, 1), *(date(2025, month, 1) for month in range(1, 7))]
        self.numbers = {found.key: found.noisy_value for found in ledger.releases()}
        self.trace += [without_numbers(ledger.releases()), ledger.instances(), ledger.restated()]
        self.trace += [(metric, month, ledger.charges(metric, month)) for metric in ("dau", "mau") for month in months]
        self.trace += [ledger.sealed(), ledger.processed(), ledger.purged_through()]


def execute(step: Step, outside: Outside) -> object:
    """What the step's job calls in core."""
    match step:
        case Step(job, None, days) if job == BUILD:
            process_days(days, outside)
            refresh(days, outside)
        case Step(job, date() as day) if job in (DAU, MAU):
            return publish(step.metric, day, outside)
        case Step(job, date() as month) if job == RESTATEMENT:
            return restate(month, outside)
    return None


def impossible(last: date, outside: Outside) -> Iterator[tuple[str, Callable[[], object]]]:
    """What must be refused once this day is published, and says so to whoever asks."""
    one_day = timedelta(days=1)
    hasty = replace(outside, settings=replace(outside.settings, retention_days=10))
    yield "a day without state", lambda: publish("dau", last + 3 * one_day, outside)
    yield "a sketch of a day without state", lambda: refresh([last + 3 * one_day], outside)
    yield "a day that has not ended", lambda: publish("dau", outside.clock.today(), outside)
    yield "a MAU before the first one", lambda: publish("mau", FIRST_MAU - one_day, outside)
    yield "a run of a day that has not ended", lambda: plan_run(last + one_day, outside.clock.today(), outside)
    yield "a month that is not over", lambda: restate(month_of(last), outside)
    yield "a month without numbers", lambda: restate(date(2024, 12, 1), outside)
    if last >= FIRST_MAU:
        yield "a run that leaves a gap", lambda: plan_run(last + 2 * one_day, last + 2 * one_day, outside)
        yield "state ahead of publication", lambda: process_days([last + one_day, last + 2 * one_day], outside)
        yield "a MAU out of order", lambda: publish("mau", last + 2 * one_day, outside)
        yield "a purge too early", lambda: purge(hasty)
    if date(2025, 1, 1) in outside.ledger.restated():
        yield "a day that was left out of a restated month", lambda: publish("dau", FIRST_PUBLISHED - one_day, outside)


def without_numbers(answer: object) -> object:
    match answer:
        case Release():
            return replace(answer, noisy_value=0.0)
        case list():
            return [without_numbers(one) for one in answer]
    return answer


def publication(schedule: str, person: Person) -> Publication:
    """The whole of it, in a store of its own."""
    with fast_folder() as folder:
        chosen = Settings(data_dir=folder, hash_salt_secret=SECRET, start_date=START, retention_days=45)
        found = Publication(silent(open_store(chosen)), person)
        first = FIRST_PUBLISHED
        for last in SCHEDULES[schedule]:
            found.publish_up_to(last, first)
            first = last + timedelta(days=1)
            if schedule == "in ranges":
                settle(found.outside)
        found.close()
        open_store.cache_clear()
    return found


@cache
def without_her(schedule: str) -> Publication:
    return publication(schedule, NOBODY)


# --- The same for everyone ---------------------------------------------------------------------------------------


every_schedule = pytest.mark.parametrize(
    "schedule",
    [pytest.param(name, marks=() if name == "day by day" else pytest.mark.slow) for name in sorted(SCHEDULES)],
)


@every_schedule
@settings(max_examples=5, deadline=None)
@given(her=persons())
def test_all_but_the_noisy_values_is_the_same_with_and_without_her(schedule: str, her: Person) -> None:
    with_her = publication(schedule, her)
    assert with_her.trace == without_her(schedule).trace


@pytest.mark.slow
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_it_is_the_numbers_that_she_changes(schedule: str) -> None:
    active = tuple((after(days), 0) for days in (5, 20, 21, 40, 60))
    erased = Person(active, Asked(after(21), (), 20))
    numbers = [publication(schedule, person).numbers for person in (Person(active), erased)]
    numbers.append(without_her(schedule).numbers)
    assert numbers[0].keys() == numbers[1].keys() == numbers[2].keys()
    assert all(a != b for n, a in enumerate(numbers) for b in numbers[:n])


@every_schedule
def test_the_publication_is_whole_and_all_kinds_of_refusal_occur(schedule: str) -> None:
    """So that the comparison is of something."""
    found = without_her(schedule)
    assert found.steps >= STEPS
    by_kind = {(key.metric, key.revision): key.day for key in sorted(found.numbers)}
    assert by_kind == {("dau", 0): LAST, ("dau", 1): date(2025, 3, 31), ("mau", 0): LAST}
    told = [one for one in found.trace if isinstance(one, tuple)]
    refused = {one[0] for one in told if "Refused" in one}
    assert len(refused) == 11 and all(isinstance(one, str) for one in refused)  # no step of the schedule
    assert (LAST - timedelta(days=45)) in [one[1] for one in told if one[0] == "purge"]
