"""What answers hold, as frozen values: numbers, budgets, erasures, and how a store stands. `as_json` gives them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction

from dpdau_assets.core.erasure.requests import WaitingDay
from dpdau_assets.core.facts import Erasure, ReleaseKey
from dpdau_assets.core.privacy.compositions import BudgetReport, BudgetSummary
from dpdau_assets.core.settings import Metric


@dataclass(frozen=True)
class CapOverride:
    """A decision that gave a month another cap: by whom, why and when."""

    epsilon_cap: float
    who: str
    why: str
    made_on: date


@dataclass(frozen=True)
class PublishedNumber:
    """A published number, how it was made, and what its month had cost.

    Attributes:
        noisy_value: as drawn, in users.
        estimate, lower_95, upper_95: the number and its 95 % interval for display, in users. None where the sketch is
            full and nothing bounds the number from above.
        noisy_statistic: what the noise was added to; the number itself with the exact set.
        half_width: 95 % of the noise lies within it; in units of `noisy_statistic`.
        delta: at which the month's cap holds.
        mechanism, mechanism_run: the kind of noise, and the run of it that the number is of.
        sketch_parameters: how users are counted, by public name.
        budget: of its month when it came out, itself included.
        overrides: of its month's cap, also those made after it came out.
        published_at: midnight, in TIMEZONE, of the day on which it was due.
        private: whether its noise cannot be predicted.
    """

    key: ReleaseKey
    noisy_value: float
    estimate: float
    lower_95: float
    upper_95: float | None
    noisy_statistic: float
    half_width: float
    delta: float
    mechanism: str
    mechanism_run: str
    sketch_impl: str
    sketch_parameters: Mapping[str, int | Fraction]
    budget: BudgetSummary
    overrides: tuple[CapOverride, ...]
    published_at: datetime
    private: bool
    version: str

    @property
    def epsilon_used(self) -> float:
        """What the month had cost when the number came out, itself included."""
        return self.budget.epsilon_spent

    @property
    def budget_remaining(self) -> float:
        """What was left of the month's cap then, in epsilon."""
        return self.budget.epsilon_remaining


@dataclass(frozen=True)
class MonthlyBudget:
    """One month of one metric: the summary that a number shows too, what stands beside it, and who changed the cap."""

    metric: Metric
    month: date
    summary: BudgetSummary
    report: BudgetReport
    overrides: tuple[CapOverride, ...]


@dataclass(frozen=True)
class PublishedRange:
    """How many days a range has, of how many of them each metric is published, and how many numbers are restated."""

    days: int
    published: Mapping[Metric, int]
    restated: int


@dataclass(frozen=True)
class DeclaredDays:
    """Days that were declared complete."""

    complete: tuple[date, ...]


@dataclass(frozen=True)
class WithdrawnDays:
    """Days whose declaration was taken back."""

    withdrawn: tuple[date, ...]


@dataclass(frozen=True)
class RequestStanding:
    """Where an erasure request stands, and until when it has to be done."""

    erasure: Erasure
    deadline: date
    is_overdue: bool


# --- How a store stands ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishedSeries:
    """How far a metric has come; all None before its first number.

    Attributes:
        slot: when the last number was due.
        next_day, next_slot: the day after it, and when that is due.
    """

    metric: Metric
    last_day: date | None
    slot: date | None
    next_day: date | None
    next_slot: date | None


@dataclass(frozen=True)
class SpentMonth:
    """One month of one metric, in epsilon."""

    metric: Metric
    month: date
    spent: float
    charged: float
    cap: float


@dataclass(frozen=True)
class Status:
    """How a store stands on one day, by the clock.

    Attributes:
        ready_days: days of which a first number can be published now.
        ready_months: months that can be restated now, by their first day.
        unmarked: days whose number is due and that upstream has not declared complete.
        without_marker: days that files landed for in LANDING_DIR, and whose folder no _SUCCESS makes complete.
        refused: why numbers that are due will not come; "" if all will.
        behind: days whose state or sketch is to be built anew.
        overdue: what the watched checks found, in sentences: publication, restatement, erasures, retention.
        purged_through, purge_due: the last day that is gone, and the last that a purge lets go of now.
    """

    today: date
    published: tuple[PublishedSeries, ...]
    ready_days: tuple[date, ...]
    ready_months: tuple[date, ...]
    unmarked: tuple[date, ...]
    without_marker: tuple[date, ...]
    refused: str
    behind: tuple[date, ...]
    erasures: tuple[WaitingDay, ...]
    overdue: tuple[str, ...]
    spent: tuple[SpentMonth, ...]
    purged_through: date | None
    purge_due: date | None
