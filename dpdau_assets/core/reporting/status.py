"""Where the store stands today, on one screen: what is published, what waits, what is overdue, what is spent.

For operators. It only reads, and takes no lock: it can be asked while anything else goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from dpdau_assets.core.dates import month_of
from dpdau_assets.core.erasure import retention
from dpdau_assets.core.erasure.requests import WaitingDay, waiting_days
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Mart, Store
from dpdau_assets.core.privacy.schedule import METRICS, due_on
from dpdau_assets.core.publication.due import due
from dpdau_assets.core.publication.runs import RESTATEMENT, Step
from dpdau_assets.core.reporting.answers import budget_answer, charged_months
from dpdau_assets.core.reporting.checks import CHECKS, answer
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.state import touched
from dpdau_assets.core.state.rebuilding import days_behind

_CHARGED_MONTHS = 2  # of each metric, the newest


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
        ready: numbers that can be published now, by day; months that can be restated, by their first day.
        unmarked: days whose number is due and that upstream has not declared complete.
        refused: why numbers that are due will not come; "" if all will.
        behind: days whose state or sketch is to be built anew.
        overdue: what the watched checks found, in sentences: publication, restatement, erasures, retention.
        purged_through, purge_due: the last day that is gone, and the last that a purge lets go of now.
    """

    today: date
    published: tuple[PublishedSeries, ...]
    ready: tuple[Step, ...]
    unmarked: tuple[date, ...]
    refused: str
    behind: tuple[date, ...]
    erasures: tuple[WaitingDay, ...]
    overdue: tuple[str, ...]
    spent: tuple[SpentMonth, ...]
    purged_through: date | None
    purge_due: date | None

    @property
    def ready_days(self) -> list[date]:
        """Days of which a first number can be published now."""
        return sorted({step.day for step in self.ready if step.day and step.kind != RESTATEMENT})

    @property
    def ready_months(self) -> list[date]:
        """Months that can be restated now."""
        return [step.day for step in self.ready if step.day and step.kind == RESTATEMENT]


def status(store: Store, mart: Mart) -> Status:
    """Everything that an operator looks for first."""
    numbers_due = due(store)
    return Status(
        today=store.clock.today(),
        published=tuple(_published(metric, store.settings, store.accountant) for metric in METRICS),
        ready=numbers_due.numbers,
        unmarked=numbers_due.unmarked,
        refused=numbers_due.refused,
        behind=tuple(sorted({*days_behind(store), *(day for day, _ in touched.days_to_rebuild(store))})),
        erasures=tuple(waiting_days(store.clock, store.erasures)),
        overdue=tuple(_overdue(store, mart)),
        spent=tuple(_spent(store.settings, store.accountant)),
        purged_through=store.accountant.purged_through(),
        purge_due=retention.due_through(store.settings, store.accountant)
        if store.settings.retention_days is not None
        else None,
    )


def _published(metric: Metric, settings: Settings, accountant: Ledger) -> PublishedSeries:
    days = [release.key.day for release in accountant.releases(metric)]
    if not days:
        return PublishedSeries(metric, None, None, None, None)
    last = max(days)
    following = date.fromordinal(last.toordinal() + 1)
    return PublishedSeries(metric, last, due_on(settings, last), following, due_on(settings, following))


def _overdue(store: Store, mart: Mart) -> Iterable[str]:
    for check in CHECKS:
        if check.watched and not (verdict := answer(check, store, mart)).passed:
            yield verdict.sentence


def _spent(settings: Settings, accountant: Ledger) -> Iterable[SpentMonth]:
    """The months of the last published days, and one before where it was charged."""
    for metric in METRICS:
        releases = accountant.releases(metric)
        last = max((month_of(release.key.day) for release in releases), default=date.min)
        for month in [day for day in charged_months(releases) if day <= last][-_CHARGED_MONTHS:]:
            budget = budget_answer(metric, month, settings, accountant)
            yield SpentMonth(
                metric, month, budget["epsilon_spent"], budget["charged"]["epsilon"], budget["epsilon_cap"]
            )
