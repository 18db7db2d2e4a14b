"""What a report holds, as plain values: the series, the promise, the budget, and what operators see beside them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Protocol

from dpdau_assets.core.dates import month_of
from dpdau_assets.core.erasure.requests import WaitingDay
from dpdau_assets.core.facts import (
    ReportPaths,
)
from dpdau_assets.core.privacy.compositions import UserMonths
from dpdau_assets.core.reporting.answer_model import CapOverride
from dpdau_assets.core.settings import Metric


@dataclass(frozen=True)
class Number:
    """One published number, in users: as drawn, and for display the same and its 95 % bounds, none below 0.

    `upper_95` is None where the sketch is full and nothing bounds the number from above. `due_on` is the public day on
    which it is due, whenever it came out.
    """

    revision: int
    noisy_value: float
    estimate: float
    lower_95: float
    upper_95: float | None
    due_on: date


@dataclass(frozen=True)
class Day:
    """A published day and its numbers, in order of revision; one at least."""

    day: date
    numbers: tuple[Number, ...]

    @property
    def as_published(self) -> Number:
        """What came out first."""
        return self.numbers[0]

    @property
    def latest(self) -> Number:
        """What holds by now: the restated number, if there is one."""
        return self.numbers[-1]

    @property
    def is_restated(self) -> bool:
        """Whether a restatement followed the first number."""
        return len(self.numbers) > 1


@dataclass(frozen=True)
class Series:
    """All published days of one metric, in order; days without a number are not there."""

    metric: Metric
    window_days: int
    days: tuple[Day, ...]

    @property
    def last(self) -> Day | None:
        """The last published day."""
        return self.days[-1] if self.days else None

    @property
    def months(self) -> tuple[tuple[date, tuple[Day, ...]], ...]:
        """The days by calendar month."""
        return tuple((month, tuple(days)) for month, days in groupby(self.days, key=lambda day: month_of(day.day)))


@dataclass(frozen=True)
class MetricPromise:
    """What one metric promises a user-month, over all numbers ever published.

    Attributes:
        epsilon, delta: the largest that any month has, of those with a published number and those to come.
        mechanisms: names, of every number that is out; as configured before the first.
        counted_by: how users are counted: the exact set, or a sketch with its public parameters.
        noise_std, half_width_95: the largest of a published number's noise, from public constants alone. In users if
            `in_users`, else in the units of the sketch's statistic.
    """

    metric: Metric
    epsilon: float
    delta: float
    mechanisms: tuple[str, ...]
    counted_by: tuple[str, ...]
    noise_std: float
    half_width_95: float
    in_users: bool


@dataclass(frozen=True)
class Promise:
    """What all numbers promise together, and by which calendar they come out.

    Attributes:
        epsilon, delta: of both metrics together.
        composed: whether that is by composition of the noise; else the metrics' own are added up.
        user_months: what several months of one user cost together; empty where it is not `composed`.
        restatement_day: the day of the next month on which a month of DAU is released again, None for never.
        due_after_days: a number is due so many days after the day that it is of.
    """

    metrics: tuple[MetricPromise, ...]
    epsilon: float
    delta: float
    composed: bool
    user_months: tuple[UserMonths, ...]
    timezone: str
    restatement_day: int | None
    due_after_days: int


@dataclass(frozen=True)
class BudgetMonth:
    """One month of one metric, in epsilon at `delta`.

    Attributes:
        spent: what the published numbers have cost so far.
        charged: all that is charged to the month, mechanism runs whole; this is held to the cap.
        overrides: every decision that changed the cap, in order.
    """

    metric: Metric
    month: date
    spent: float
    charged: float
    cap: float
    delta: float
    releases_made: int
    releases_planned: int
    overrides: tuple[CapOverride, ...]

    @property
    def is_beyond_cap(self) -> bool:
        """Whether more was charged than the cap, as only a restore may that charges what was lost."""
        return self.charged > self.cap * (1 + 1e-9)


@dataclass(frozen=True)
class CheckLine:
    """What a check guards, and what it found, in a sentence."""

    name: str
    description: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class ForOperators:
    """What readers are not shown."""

    made_on: date
    waiting: tuple[WaitingDay, ...]
    checks: tuple[CheckLine, ...]
    weak_secret: str | None = None


@dataclass(frozen=True)
class Report:
    """Everything that the file shows. `as_of` is the last due day of a published number, None before the first."""

    as_of: date | None
    series: tuple[Series, ...]
    promise: Promise
    budget: tuple[BudgetMonth, ...]
    version: str
    for_operators: ForOperators | None = None


class Reports(Protocol):
    """The files in which people read what was published, and how operation stands."""

    def replace(self, readers: Report, operators: Report) -> ReportPaths:
        """Write both anew; each is replaced by rename. Raises BadInput where no file can be written."""
        ...
