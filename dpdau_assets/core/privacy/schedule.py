"""The budget calendar: everything a configuration will publish, priced before the first release.

A number is charged to every month that it reads, a restated one to its own month. Nothing here reads data: which
releases there are, and when, follows from the settings alone.

Owns the rule: A number bears its scheduled day, and a month is restated once, on its public day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import takewhile

from dpdau_assets.core.dates import (
    days_between,
    first_window_end,
    month_days,
    month_end,
    month_of,
    months_from,
    next_month,
)
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.privacy import mechanisms
from dpdau_assets.core.privacy.accounting import Budget, Cost, cost, epsilon_of, fits
from dpdau_assets.core.privacy.mechanisms import Gaussian, Laplace, Mechanism, SharedNoise, Stream
from dpdau_assets.core.settings import Metric, Settings

METRICS: tuple[Metric, ...] = ("dau", "mau")


@dataclass(frozen=True)
class ScheduledRelease:
    """One release to come. `due_on` is the day on which it is published; revision 0 is the first publication."""

    metric: Metric
    day: date
    revision: int
    due_on: date


@dataclass(frozen=True)
class MonthPlan:
    """Every release that will be charged to one month of one metric, in order of publication."""

    metric: Metric
    month: date
    releases: tuple[ScheduledRelease, ...]


@dataclass(frozen=True)
class Refusal:
    """The first release that a cap will not admit, in epsilon at the configured delta.

    Attributes:
        day: the day that the refused number is of; with `revision` 1 it is the restatement that is refused.
        month: the month whose cap is hit.
        charged: what the month will be charged for the releases before it.
        asked: what it would cost alone.
        needed: what a whole month of 31 days will be charged.
    """

    metric: Metric
    day: date
    revision: int
    due_on: date
    month: date
    charged: float
    asked: float
    cap: float
    needed: float

    def __str__(self) -> str:
        what = "the restatement of" if self.revision else "the number of"
        return (
            f"{what} {self.day} does not fit: {self.metric} of {self.month:%Y-%m} is charged epsilon "
            f"{self.charged:.4g} by then, asks {self.asked:.4g} more, and its cap is {self.cap:.4g} "
            f"(a month of 31 days asks {self.needed:.4g})"
        )


# --- What will be published --------------------------------------------------------------------------------------


def schedule(settings: Settings, first_day: date) -> Iterator[MonthPlan]:
    """The plans of both metrics for the month of `first_day` and all after it, without end.

    `first_day` is the first day whose DAU is published; MAU begins there too, or when its first window is whole. A MAU
    number stands in the plan of each month that it reads.
    """
    for month in months_from(month_of(first_day)):
        for metric in METRICS:
            yield month_plan(settings, metric, month, first_day)


def month_plan(settings: Settings, metric: Metric, month: date, first_day: date) -> MonthPlan:
    """What will be charged to this month when publication begins with `first_day`."""
    if metric == "dau":
        return MonthPlan(metric, month, _dau_releases(settings, max(month, first_day), month))
    first = max(month, first_day, first_window_end(settings.start_date, settings.mau_window_days))
    last = first_window_end(month_end(month), settings.mau_window_days)  # the last window that reads the month
    return MonthPlan(metric, month, tuple(_first_time(settings, "mau", day) for day in days_between(first, last)))


def releases_planned(settings: Settings, metric: Metric, month: date, first_day: date) -> int:
    """How many numbers this month will be charged for, with publication of the metric begun on `first_day`.

    A month of DAU counts as a whole one even when its first days are not published.
    """
    if metric == "dau":
        return numbers_of_month(settings, month)
    return len(month_plan(settings, metric, month, first_day).releases)


def numbers_of_month(settings: Settings, month: date) -> int:
    """R: every day of the month once, and once more for each restatement."""
    return month_days(month) * (1 + settings.restatements_per_month)


def restatement_due_on(settings: Settings, month: date) -> date:
    """The day on which every number of the month is released again."""
    return next_month(month).replace(day=settings.restatement_day)


def due_on(settings: Settings, day: date) -> date:
    """The day on which the number of `day` is first published."""
    return day + timedelta(days=1 + settings.grace_days)


def shortest_retention(settings: Settings) -> int:
    """Days that windows and the restatement of a whole month need, counted from the last published day."""
    until_restated = (
        mechanisms.LONGEST_MONTH + settings.restatement_day
        if settings.restatements_per_month
        else mechanisms.LONGEST_MONTH
    )
    return max(settings.mau_window_days, until_restated)


def _dau_releases(settings: Settings, first: date, month: date) -> tuple[ScheduledRelease, ...]:
    days = days_between(first, month_end(month))
    restated_on = restatement_due_on(settings, month)
    again = [
        ScheduledRelease("dau", day, revision + 1, restated_on)
        for revision in range(settings.restatements_per_month)
        for day in days
    ]
    return (*(_first_time(settings, "dau", day) for day in days), *again)


def _first_time(settings: Settings, metric: Metric, day: date) -> ScheduledRelease:
    return ScheduledRelease(metric, day, 0, due_on(settings, day))


# --- What it will cost -------------------------------------------------------------------------------------------


def mechanism_for(settings: Settings, metric: Metric, month: date) -> Mechanism:
    """The configured mechanism: of the whole month if its noise is shared, of the whole stream, or of one release.

    Raises BadSetting for a name that is no mechanism.
    """
    name, cap, each = settings.mechanism(metric), float(settings.cap(metric)), settings.epsilon_each(metric)
    if name == SharedNoise.name:
        return mechanisms.shared_noise(numbers_of_month(settings, month), cap, settings.delta)
    if name == Stream.name:
        return mechanisms.stream(settings.window_days(metric), cap, settings.delta)
    if name == Gaussian.name:
        return mechanisms.independent_gaussian(float(each), settings.delta)
    if name == Laplace.name:
        return Laplace(each)
    raise BadSetting(f"{metric.upper()}_MECHANISM={name}: not a mechanism.", "Set gaussian, laplace or the default.")


def first_refusal(settings: Settings) -> Refusal | None:
    """The first release, in order of publication, that its month's cap will not admit; None when all fit for ever."""
    refusals = [refusal for metric in METRICS if (refusal := _first_refusal(settings, metric))]
    return min(refusals, key=lambda refusal: refusal.due_on, default=None)


def _first_refusal(settings: Settings, metric: Metric) -> Refusal | None:
    refusals = (_refusal_in(settings, plan) for plan in _deciding_months(settings, metric))
    return min((refusal for refusal in refusals if refusal), key=lambda refusal: refusal.due_on, default=None)


def _deciding_months(settings: Settings, metric: Metric) -> Iterator[MonthPlan]:
    """The plans up to and including the first whole month of 31 days: what fits there fits every month that follows.

    A month's charges are counted by its length alone (31 + 29 windows of 30 days read a month of 31, whatever its
    neighbours are; the window of 1 March that reads three months counts once in each), and all cost the same. So no
    later month asks more, and a refusal in a later one would come later than the one found here. A shorter month is
    always followed by one of 31 days, so this ends soon; leap years decide nothing.
    """
    first_release = first_window_end(settings.start_date, settings.window_days(metric))
    first_month = month_of(settings.start_date)
    last = next(m for m in months_from(first_month) if m >= first_release and month_days(m) == mechanisms.LONGEST_MONTH)
    for month in takewhile(lambda month: month <= last, months_from(first_month)):
        yield month_plan(settings, metric, month, settings.start_date)


def _refusal_in(settings: Settings, plan: MonthPlan) -> Refusal | None:
    budget = Budget(settings.cap(plan.metric), settings.delta)
    mechanism = mechanism_for(settings, plan.metric, plan.month)
    each = cost(mechanism)
    whole = isinstance(mechanism, SharedNoise | Stream)  # charged once, with the first number
    charges = min(1, len(plan.releases)) if whole else len(plan.releases)
    admitted = _how_many_fit(each, budget, charges)
    if admitted == charges:
        return None
    refused = plan.releases[admitted]
    return Refusal(
        metric=plan.metric,
        day=refused.day,
        revision=refused.revision,
        due_on=refused.due_on,
        month=plan.month,
        charged=epsilon_of(each.times(admitted), settings.delta),
        asked=epsilon_of(each, settings.delta),
        cap=float(budget.epsilon),
        needed=epsilon_of(each.times(1 if whole else _charges_of_longest_month(settings, plan.metric)), settings.delta),
    )


def _how_many_fit(each: Cost, budget: Budget, charges: int) -> int:
    """The largest number of equal charges, up to `charges`, that the cap admits; counted by halving, not one by one."""
    fitting, refused = 0, charges + 1
    while refused - fitting > 1:
        middle = (fitting + refused) // 2
        fitting, refused = (middle, refused) if fits(each.times(middle), budget) else (fitting, middle)
    return fitting


def _charges_of_longest_month(settings: Settings, metric: Metric) -> int:
    if metric == "dau":
        return mechanisms.LONGEST_MONTH * (1 + settings.restatements_per_month)
    return mechanisms.longest_interval(settings.mau_window_days)
