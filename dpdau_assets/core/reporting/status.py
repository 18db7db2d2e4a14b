"""Where the store stands today, on one screen: what is published, what waits, what is overdue, what is spent.

For operators. It only reads, and takes no lock: it can be asked while anything else goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import cast

from dpdau_assets.core.dates import month_of
from dpdau_assets.core.erasure import retention
from dpdau_assets.core.erasure.requests import waiting_days
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.ports.store import Mart, Store, StoreView
from dpdau_assets.core.privacy.schedule import METRICS, due_on
from dpdau_assets.core.publication.completeness import without_marker
from dpdau_assets.core.publication.due import due
from dpdau_assets.core.publication.runs import RESTATEMENT
from dpdau_assets.core.reporting.answer_model import PublishedSeries, SpentMonth, Status
from dpdau_assets.core.reporting.answers import budget_answer, charged_months
from dpdau_assets.core.reporting.checks import CHECKS, answer
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.state.rebuilding import days_behind

_CHARGED_MONTHS = 2  # of each metric, the newest


def status(store: StoreView, mart: Mart) -> Status:
    """Everything that an operator looks for first. All that it says of the ledger is of one moment."""
    with store.snapshot() as snapshot:
        return _status(snapshot, mart)


def _status(store: StoreView, mart: Mart) -> Status:
    numbers_due, settings, ledger = due(store), store.settings, store.accountant
    only_asked = cast(Store, store)  # by the checks below, which take a Store and write nothing
    return Status(
        today=store.clock.today(),
        published=tuple(_published(metric, settings, ledger) for metric in METRICS),
        ready_days=tuple(sorted({step.day for step in numbers_due.numbers if step.day and step.kind != RESTATEMENT})),
        ready_months=tuple(step.day for step in numbers_due.numbers if step.day and step.kind == RESTATEMENT),
        unmarked=numbers_due.unmarked,
        without_marker=_without_marker(store),
        refused=numbers_due.refused,
        behind=tuple(sorted(days_behind(store))),
        erasures=tuple(waiting_days(store.clock, store.erasures)),
        overdue=tuple(_overdue(only_asked, mart)),
        spent=tuple(spent_months(settings, ledger)),
        purged_through=ledger.purged_through(),
        purge_due=None if settings.retention_days is None else retention.due_through(settings, ledger),
    )


def _published(metric: Metric, settings: Settings, accountant: LedgerView) -> PublishedSeries:
    days = [release.key.day for release in accountant.releases(metric)]
    if not days:
        return PublishedSeries(metric, None, None, None, None)
    last = max(days)
    following = date.fromordinal(last.toordinal() + 1)
    return PublishedSeries(metric, last, due_on(settings, last), following, due_on(settings, following))


def _without_marker(store: StoreView) -> tuple[date, ...]:
    """Nothing of a LANDING_DIR that is not there: it may be on the machine that takes in what lands alone."""
    try:
        return tuple(without_marker(store))
    except BadSetting:
        return ()


def _overdue(store: Store, mart: Mart) -> Iterable[str]:
    for check in CHECKS:
        if check.watched and not (verdict := answer(check, store, mart)).passed:
            yield verdict.sentence


def spent_months(settings: Settings, accountant: LedgerView) -> Iterable[SpentMonth]:
    """The month of each metric's last published day, and one before where it was charged."""
    for metric in METRICS:
        releases = accountant.releases(metric)
        last = max((month_of(release.key.day) for release in releases), default=date.min)
        for month in [day for day in charged_months(releases) if day <= last][-_CHARGED_MONTHS:]:
            budget = budget_answer(metric, month, settings, accountant)
            summary, charged = budget.summary, budget.report.charged
            yield SpentMonth(metric, month, summary.epsilon_spent, charged.epsilon, summary.epsilon_cap)
