"""What is to be published by now: the calendar's numbers, in order, up to the first day that is not complete.

Nothing here reads data: it follows from the clock, the ledger and what upstream has declared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from dpdau_assets.core.completeness import is_declared
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.outlook import Foreseen, Made, coming
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.runs import DAU, MAU, RESTATEMENT, Step
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.windows import month_of, window


@dataclass(frozen=True)
class Due:
    """What can be published now, and what cannot.

    Attributes:
        missing: days that the numbers read and that were never built.
        numbers: releases and restatements, in order.
        unmarked: days whose number is due and that upstream has not declared complete, in order.
        refused: why numbers that are due will not come, in words; "" if all will.
    """

    missing: tuple[date, ...]
    numbers: tuple[Step, ...]
    unmarked: tuple[date, ...]
    refused: str


def due(outside: Outside) -> Due:
    """Everything that is due today and was not published, whatever has kept it from being: downtime, or upstream."""
    declared = is_declared(outside)
    try:
        numbers = coming(outside.ledger, outside.settings, last_due(outside))
    except DpdauError as error:  # nothing says how to count, say: a person has to decide that
        return Due((), (), (), str(error))
    made = [one for one in numbers if isinstance(one, Made)]
    ready = list(_ready(made, declared, outside.settings))
    unmarked = _unmarked(made, declared, outside.settings)
    return Due(_missing(ready, outside), _steps(ready), unmarked, _why_refused(numbers))


def last_due(outside: Outside) -> date:
    """The last day whose number is due today: GRACE_DAYS whole days lie between the two."""
    return outside.clock.today() - timedelta(days=1 + outside.settings.grace_days)


def late(found: Due, outside: Outside) -> list[date]:
    """Days of which a number was due before today and could have come: complete, and not published."""
    days = {step.day for step in found.numbers if step.job in (DAU, MAU) and step.day}
    return sorted(day for day in days if day < last_due(outside))


def _ready(numbers: list[Made], declared: frozenset[date], settings: Settings) -> Iterator[Made]:
    """Up to the first number that reads a day which is not declared: none is published out of turn."""
    for one in numbers:
        if not declared.issuperset(_days_read(one, settings)):
            return
        yield one


def _unmarked(numbers: list[Made], declared: frozenset[date], settings: Settings) -> tuple[date, ...]:
    return tuple(sorted({day for one in numbers for day in _days_read(one, settings)} - declared))


def _days_read(one: Made | Foreseen, settings: Settings) -> list[date]:
    """Restated numbers read days that are published, and so declared."""
    release = one.release
    return [] if release.revision else window(release.day, settings.window_days(release.metric))


def _missing(numbers: list[Made], outside: Outside) -> tuple[date, ...]:
    read = {day for one in numbers for day in _days_read(one, outside.settings)}
    return tuple(sorted(read - outside.ledger.processed()))


def _steps(numbers: list[Made]) -> tuple[Step, ...]:
    return tuple(dict.fromkeys(_step(one) for one in numbers))  # of a restated month one, whatever numbers it has


def _step(one: Made) -> Step:
    release = one.release
    if release.revision:
        return Step(RESTATEMENT, month_of(release.day))
    return Step(DAU if release.metric == "dau" else MAU, release.day)


def _why_refused(numbers: list[Made | Foreseen]) -> str:
    refused = [one for one in numbers if isinstance(one, Foreseen)]
    if not refused:
        return ""
    first = refused[0]
    others = f" So are {len(refused) - 1} more." if len(refused) > 1 else ""
    return f"{first.release.metric} of {first.release.day} is refused: {first.error.reason}{others}"
