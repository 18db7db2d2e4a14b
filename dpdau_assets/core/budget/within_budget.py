"""Whether a number keeps within the budget of every month whose data it reads, and where publication can go on.

It follows from the ledger, the settings and the calendar alone: the same whoever was active, and for a number that is
out as for one that is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from itertools import islice

from dpdau_assets.core.budget.dry_run import DryRunLedger
from dpdau_assets.core.budget.planning import budget_of, require_open, require_room
from dpdau_assets.core.budget.published_runs import PublishedRuns
from dpdau_assets.core.dates import first_window_end, month_of, months_from, months_read
from dpdau_assets.core.errors import BadSetting, BudgetRefused, Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.ledger import BudgetReader, LedgerSnapshot, LedgerView
from dpdau_assets.core.privacy.accounting import Budget, cost, epsilon_of, fits, total
from dpdau_assets.core.privacy.cost_so_far import cost_so_far
from dpdau_assets.core.settings import Metric, Settings

MONTHS_TRIED = 13
"""A window of the longest kind reads fewer months than this: beyond them nothing is charged that keeps a day out."""


@dataclass(frozen=True)
class MonthBudget:
    """How one month of a metric stands, in epsilon at the δ of its cap.

    Attributes:
        spent: what the numbers that are out have cost by now; at most `charged`.
        charged: what is held to the cap: every mechanism that some number has begun, whole.
        is_within: whether the cap holds what was charged, exactly and not to the digits shown.
    """

    month: date
    spent: float
    charged: float
    cap: float
    is_within: bool

    @property
    def left(self) -> float:
        """What another mechanism could still be charged."""
        return max(0.0, self.cap - self.charged)


@dataclass(frozen=True)
class Spent:
    """What the numbers of a month have cost, and the month's cap; in epsilon at the cap's δ."""

    epsilon: float
    cap: float

    @property
    def remaining(self) -> float:
        """What is left of the cap."""
        return max(0.0, self.cap - self.epsilon)


@dataclass(frozen=True)
class WithinBudget:
    """How a number stands with the budget.

    Attributes:
        key: of a restatement, revision 1 of the month's first day.
        months: every month that it reads, in order.
        next_day: the next day whose number the budget admits; None for a restatement, or if no day is found.
        refusal: why there is no number; None for one that is out.
    """

    key: ReleaseKey
    months: tuple[MonthBudget, ...]
    next_day: date | None
    refusal: Refused | None = None

    @property
    def passed(self) -> bool:
        """Whether the number is out, and no month that it reads was charged more than its cap."""
        return self.refusal is None and all(month.is_within for month in self.months)

    @property
    def tightest(self) -> MonthBudget:
        """The month that refuses it; else the one with least left, of several the last."""
        refusing = self.refusal.fields.get("month") if isinstance(self.refusal, BudgetRefused) else None
        named = [month for month in self.months if f"{month.month:%Y-%m}" == refusing]
        return min(named or reversed(self.months), key=lambda month: month.left)

    @property
    def sentence(self) -> str:
        """For operators: why it is refused and what to do, or how its tightest month stands."""
        if self.refusal:
            return f"{self.refusal.reason} {self.refusal.remedy}"
        month = self.tightest
        following = f" The next day that fits is {self.next_day}." if self.next_day else ""
        return (
            f"{self.key.metric} of {month.month:%Y-%m} is charged epsilon {month.charged:.4g} of its cap "
            f"{month.cap:.4g}; the numbers that are out have cost {month.spent:.4g}.{following}"
        )


def within_budget(
    key: ReleaseKey, accountant: LedgerView, settings: Settings, refusal: Refused | None = None
) -> WithinBudget:
    """How the number of this key stands, which is out, or was refused for this reason."""
    with accountant.snapshot() as ledger:
        return BudgetStandings(ledger, settings).of(key, refusal)


class BudgetStandings:
    """How numbers stand with the budget at one moment of the ledger; what they have in common is computed once."""

    def __init__(self, ledger: LedgerSnapshot, settings: Settings) -> None:
        self._draft = cache(lambda metric: DryRunLedger(ledger, settings, metric))
        self._month = cache(lambda metric, month: _month_budget(metric, month, self._draft(metric), settings))
        self._fitting = cache(lambda key: next_day_that_fits(key, self._draft(key.metric), settings))

    def of(self, key: ReleaseKey, refusal: Refused | None = None) -> WithinBudget:
        """The standing of this key, which is out, or was refused for this reason."""
        months = tuple(self._month(key.metric, month) for month in months_read(key.day, key.window_days))
        return WithinBudget(key, months, self._next_day(key, refusal), refusal)

    def _next_day(self, key: ReleaseKey, refusal: Refused | None) -> date | None:
        named = refusal.fields.get("next_day") if refusal else None
        if named:
            return date.fromisoformat(str(named))
        if key.revision or not (refusal is None or isinstance(refusal, BudgetRefused)):
            return None
        last = self._draft(key.metric).last_day(key.metric, key.window_days) or key.day
        return self._fitting(replace(key, day=max(last, key.day)))  # the same for all days that are out


def spent_by_then(wanted: Collection[ReleaseKey], ledger: LedgerView, settings: Settings) -> dict[ReleaseKey, Spent]:
    """What the month of each of these numbers had cost when it came out, itself included."""
    spent: dict[ReleaseKey, Spent] = {}
    published, runs = PublishedRuns(), {run.name: run for run in ledger.mechanism_runs()}
    budget = cache(lambda metric, month: budget_of(metric, month, ledger, settings))
    for release in ledger.releases():
        key, month = release.key, month_of(release.key.day)
        published.add(key, release.run)
        if key in wanted:
            here: Budget = budget(key.metric, month)
            price = cost_so_far(published.reading(key.metric, month, runs), month)
            spent[key] = Spent(epsilon_of(price, here.delta), float(here.epsilon))
    return spent


def next_day_that_fits(key: ReleaseKey, ledger: BudgetReader, settings: Settings) -> date | None:
    """The first day after this one, and after all that are published, that the budget admits as things stand.

    None if there is none in the months that are tried: a stream whose own next day is refused never goes on.
    """
    last = ledger.last_day(key.metric, key.window_days) or key.day
    days = (replace(key, day=day, revision=0) for day in _days_to_try(max(last, key.day), key.window_days))
    return next((asked.day for asked in days if _fits(asked, ledger, settings)), None)


def _days_to_try(day: date, window_days: int) -> list[date]:
    """The next day; then each on which a window reads other months than the day before: no other fits first."""
    following = day + timedelta(days=1)
    months = list(islice(months_from(months_read(following, window_days)[0]), MONTHS_TRIED))
    turns = {turn for month in months for turn in (month, first_window_end(month, window_days))}
    return [following, *sorted(turn for turn in turns if turn > following)]


def _fits(key: ReleaseKey, ledger: BudgetReader, settings: Settings) -> bool:
    try:
        require_open(key, ledger)
        require_room(key, ledger, settings)
    except (Refused, BadSetting):
        return False
    return True


def _month_budget(metric: Metric, month: date, ledger: DryRunLedger, settings: Settings) -> MonthBudget:
    budget = budget_of(metric, month, ledger, settings)
    charged = total(cost(charge.mechanism) for charge in ledger.charges(metric, month))
    spent = cost_so_far(ledger.published(metric, month), month)
    return MonthBudget(
        month=month,
        spent=epsilon_of(spent, budget.delta),
        charged=epsilon_of(charged, budget.delta),
        cap=float(budget.epsilon),
        is_within=fits(charged, budget),
    )
