"""What is to be published by now: the calendar's numbers, in order, up to the first day that is not complete.

Nothing here reads data: it follows from the clock, the ledger and what upstream has declared.

Owns the rule: What is due follows from public things alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import takewhile

from dpdau_assets.core.budget.forecast import PlannedRelease, RefusedRelease, coming
from dpdau_assets.core.dates import month_of, window
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.ports.store import Clock, StoreView
from dpdau_assets.core.publication.completeness import is_declared
from dpdau_assets.core.publication.runs import DAU, MAU, RESTATEMENT, Step
from dpdau_assets.core.settings import Settings


@dataclass(frozen=True)
class Due:
    """What can be published now, and what cannot.

    Attributes:
        missing: days that the numbers read and that were never built.
        numbers: releases and restatements, in order.
        built: those of them, from the first on, that read no missing day.
        unmarked: days whose number is due and that upstream has not declared complete, in order.
        refused: why numbers that are due will not come, in words; "" if all will.
        refusals: these numbers, in order of due days.
    """

    missing: tuple[date, ...]
    numbers: tuple[Step, ...]
    built: tuple[Step, ...]
    unmarked: tuple[date, ...]
    refused: str
    refusals: tuple[RefusedRelease, ...] = ()


def due(store: StoreView) -> Due:
    """Everything that is due today and was not published, whatever has kept it from being: downtime, or upstream."""
    with store.snapshot() as snapshot:
        return _due(snapshot)


def _due(store: StoreView) -> Due:
    declared = is_declared(store.events, store.accountant)
    try:
        numbers = coming(store.accountant, store.settings, last_due(store.settings, store.clock))
    except DpdauError as error:  # nothing says how to count, say: a person has to decide that
        return Due((), (), (), (), str(error))
    planned = [number for number in numbers if isinstance(number, PlannedRelease)]
    refusals = tuple(number for number in numbers if isinstance(number, RefusedRelease))
    complete = list(_reading_only(declared, planned, store.settings))
    processed = store.accountant.processed()
    return Due(
        missing=tuple(sorted(_all_read(complete, store.settings) - processed)),
        numbers=_steps(complete),
        built=_steps(_reading_only(processed, complete, store.settings)),
        unmarked=tuple(sorted(_all_read(planned, store.settings) - declared)),
        refused=_why_refused(refusals),
        refusals=refusals,
    )


def last_due(settings: Settings, clock: Clock) -> date:
    """The last day whose number is due today: GRACE_DAYS whole days lie between the two."""
    return clock.today() - timedelta(days=1 + settings.grace_days)


def overdue_days(waiting: Due, settings: Settings, clock: Clock) -> list[date]:
    """Days of which a number was due before today and could have come: complete, and not published."""
    days = {step.day for step in waiting.numbers if step.kind in (DAU, MAU) and step.day}
    return sorted(day for day in days if day < last_due(settings, clock))


def _reading_only(days: Set[date], numbers: Iterable[PlannedRelease], settings: Settings) -> Iterator[PlannedRelease]:
    """Up to the first number that reads another day: none is published out of turn."""
    return takewhile(lambda planned: days >= set(_days_read(planned, settings)), numbers)


def _all_read(numbers: Iterable[PlannedRelease], settings: Settings) -> set[date]:
    return {day for planned in numbers for day in _days_read(planned, settings)}


def _days_read(number: PlannedRelease | RefusedRelease, settings: Settings) -> list[date]:
    """Restated numbers read days that are published, and so declared."""
    release = number.release
    return [] if release.revision else window(release.day, settings.window_days(release.metric))


def _steps(numbers: Iterable[PlannedRelease]) -> tuple[Step, ...]:
    # A restated month has one step, whatever numbers it has.
    return tuple(dict.fromkeys(_step(planned) for planned in numbers))


def _step(planned: PlannedRelease) -> Step:
    release = planned.release
    if release.revision:
        return Step(RESTATEMENT, month_of(release.day))
    return Step(DAU if release.metric == "dau" else MAU, release.day)


def _why_refused(refusals: Sequence[RefusedRelease]) -> str:
    if not refusals:
        return ""
    first = refusals[0]
    others = f" So are {len(refusals) - 1} more." if len(refusals) > 1 else ""
    return f"{first.release.metric} of {first.release.day} is refused: {first.error.reason}{others}"
