"""What readers are told, alike at every edge: published numbers and what they have cost.

Asking costs nothing: everything here reads what was published.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime

from dpdau_assets.core.budget.numbers import interval
from dpdau_assets.core.budget.planning import budget_of
from dpdau_assets.core.budget.prospects import prospect
from dpdau_assets.core.budget.published_runs import PublishedRuns
from dpdau_assets.core.budget.sketch_choice import estimator_of
from dpdau_assets.core.dates import month_of, months_read
from dpdau_assets.core.erasure.requests import deadline, overdue
from dpdau_assets.core.errors import NotPublished, Refused
from dpdau_assets.core.facts import Erasure, Release, ReleaseKey
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.ports.store import Clock, Erasures, StoreView
from dpdau_assets.core.privacy.compositions import BudgetSummary, budget_report, budget_summary
from dpdau_assets.core.privacy.cost_so_far import Published
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.schedule import METRICS, releases_planned
from dpdau_assets.core.reporting.answer_model import (
    CapOverride,
    MonthlyBudget,
    PublishedNumber,
    PublishedRange,
    RequestStanding,
)
from dpdau_assets.core.restored import MartRow
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import parameters_of, public_parameters


def latest_number(
    metric: Metric, day: date, window_days: int, revision: int | None, store: StoreView
) -> PublishedNumber:
    """The number of this revision, or the latest one. Raises NotPublished as `latest_release` does."""
    with store.snapshot() as snapshot:
        release = latest_release(metric, day, window_days, revision, snapshot)
        return release_answer(release, snapshot.settings, snapshot.accountant)


def latest_row(metric: Metric, day: date, window_days: int, revision: int | None, store: StoreView) -> MartRow:
    """The number of this revision, or the latest one, as the mart shows it. Raises NotPublished as `latest_release`
    does, and Refused as `mart_rows` does.
    """
    with store.snapshot() as snapshot:
        release = latest_release(metric, day, window_days, revision, snapshot)
        (row,) = _rows([release], snapshot.accountant)
        return row


def latest_release(metric: Metric, day: date, window_days: int, revision: int | None, store: StoreView) -> Release:
    """The release of this revision, or the latest one.

    Raises NotPublished, saying what makes it and when it is due, or that nothing ever does, and why. For machines it
    has `never`, a short `why`, and `due` for one that comes later; where `why` is "no_budget" also the fields of the
    refusal, see `Prospect`.
    """
    with store.snapshot() as snapshot:
        same_day = [
            release
            for release in snapshot.accountant.releases(metric)
            if release.key.day == day and release.key.window_days == window_days
        ]
        wanted = [release for release in same_day if revision in (None, release.key.revision)]
        if wanted:
            return wanted[-1]
        raise _not_published(ReleaseKey(metric, window_days, day, revision or 0), revision, snapshot)


def _not_published(key: ReleaseKey, revision: int | None, store: StoreView) -> NotPublished:
    expected = prospect(key, store)
    which = "" if revision is None else f" as revision {revision}"
    never, because = (
        ", and never will be" if expected.never else "",
        f": {expected.because}" if expected.because else "",
    )
    fields = {
        **expected.refusal,
        "metric": key.metric,
        "day": key.day.isoformat(),
        "never": expected.never,
        "why": expected.why,
        **({} if expected.due is None else {"due": expected.due.isoformat()}),
    }
    return NotPublished(
        f"{key.metric} of {key.day} (window {key.window_days} days) is not published{which}{never}{because}".rstrip(".")
        + ".",
        expected.remedy,
        **fields,
    )


def last_published_month(metric: Metric, accountant: LedgerView) -> date:
    """The month of the last published day. Raises NotPublished when there is none."""
    days = [release.key.day for release in accountant.releases(metric)]
    if not days:
        raise NotPublished(f"No {metric} is published yet.", "`dpdau run --from DAY --to DAY` publishes.")
    return month_of(max(days))


def run_answer(first: date, last: date, accountant: LedgerView) -> PublishedRange:
    """How far a range of days has come by now."""
    with accountant.snapshot() as ledger:
        inside = [release.key for release in ledger.releases() if first <= release.key.day <= last]
        return PublishedRange(
            days=(last - first).days + 1,
            published={metric: sum(key.metric == metric and not key.revision for key in inside) for metric in METRICS},
            restated=sum(key.revision > 0 for key in inside),
        )


def release_answer(release: Release, settings: Settings, accountant: LedgerView) -> PublishedNumber:
    """One release, with what its month had cost when it came out."""
    with accountant.snapshot() as ledger:
        key, run = release.key, _mechanism_runs(ledger)[release.run]
        month, shown = month_of(key.day), interval(release, run)
        return PublishedNumber(
            key=key,
            noisy_value=shown.noisy_value,
            estimate=shown.estimate,
            lower_95=shown.lower_95,
            upper_95=shown.upper_95,
            noisy_statistic=shown.noisy_statistic,
            half_width=release.half_width,
            delta=budget_of(key.metric, month, ledger, settings).delta,
            mechanism=release.mechanism,
            mechanism_run=run.name,
            sketch_impl=release.sketch_impl,
            sketch_parameters=public_parameters(estimator_of(run)),
            budget=_summary(key.metric, month, settings, ledger, until=release),
            overrides=override_rows(key.metric, month, ledger),
            published_at=datetime.fromisoformat(release.published_at),
            private=release.private,
            version=release.version,
        )


def budget_answer(metric: Metric, month: date, settings: Settings, accountant: LedgerView) -> MonthlyBudget:
    """One month of one metric, from all of its numbers and all that it is charged."""
    with accountant.snapshot() as ledger:
        published = _published(metric, month, ledger.releases(metric), ledger)
        charges = ledger.charges(metric, month)
        return MonthlyBudget(
            metric=metric,
            month=month,
            summary=_summary(metric, month, settings, ledger),
            report=budget_report(metric, published, month, charges, _with_caps_of(month, settings, ledger)),
            overrides=override_rows(metric, month, ledger),
        )


def override_rows(metric: Metric, month: date, accountant: LedgerView) -> tuple[CapOverride, ...]:
    """Every decision that changed the month's cap, in order."""
    return tuple(
        CapOverride(float(override.epsilon), override.who, override.why, override.made_on)
        for override in accountant.overrides()
        if (override.metric, override.month) == (metric, month) and override.epsilon is not None
    )


def budget_rows(settings: Settings, accountant: LedgerView) -> list[MonthlyBudget]:
    """Every month that a published number was charged to, by metric."""
    with accountant.snapshot() as ledger:
        return [
            budget_answer(metric, month, settings, ledger)
            for metric in METRICS
            for month in charged_months(ledger.releases(metric))
        ]


def mart_rows(accountant: LedgerView) -> list[MartRow]:
    """One row a release, in order of metric, window, day and revision.

    Raises Refused for a number that was drawn from predictable noise.
    """
    with accountant.snapshot() as ledger:
        return _rows(sorted(ledger.releases(), key=lambda release: release.key), ledger)


def series(
    metric: Metric,
    first: date,
    last: date,
    settings: Settings,
    accountant: LedgerView,
    *,
    as_published: bool = False,
) -> list[MartRow]:
    """One row a published day of a range, in order: its latest number, or the one that came out first."""
    with accountant.snapshot() as ledger:
        window_days = settings.window_days(metric)
        by_day = {
            release.key.day: release
            for release in sorted(ledger.releases(metric), key=lambda release: release.key)
            if release.key.window_days == window_days
            and first <= release.key.day <= last
            and not (as_published and release.key.revision)
        }
        return _rows(by_day.values(), ledger)


def erasure_rows(requests: Iterable[Erasure], clock: Clock, erasures: Erasures) -> list[RequestStanding]:
    """One row an erasure request, in order: where it stands and until when it has to be done, not whose it is."""
    late = {erasure.receipt for erasure in overdue(clock, erasures)}
    return [RequestStanding(erasure, deadline(erasure), erasure.receipt in late) for erasure in requests]


def charged_months(releases: Iterable[Release]) -> list[date]:
    """Every month whose data these releases read."""
    return sorted({month for release in releases for month in months_read(release.key.day, release.key.window_days)})


def _summary(
    metric: Metric, month: date, settings: Settings, accountant: LedgerView, until: Release | None = None
) -> BudgetSummary:
    """From all of the month's numbers, or from those published up to `until`."""
    releases = _up_to(until, accountant.releases(metric))
    first_day = min((release.key.day for release in releases), default=month)
    planned = releases_planned(settings, metric, month, first_day)
    published = _published(metric, month, releases, accountant)
    budget = budget_of(metric, month, accountant, settings)
    return budget_summary(published, month, budget, planned, settings)


def _with_caps_of(month: date, settings: Settings, accountant: LedgerView) -> Settings:
    """The settings as if every month had this one's caps."""
    dau, mau = (budget_of(metric, month, accountant, settings).epsilon for metric in METRICS)
    return replace(settings, dau_budget_total=dau, mau_budget_total=mau)


def _published(metric: Metric, month: date, releases: list[Release], accountant: LedgerView) -> list[Published]:
    """What is public of every mechanism run of which some number reads the month."""
    published = PublishedRuns()
    for release in releases:
        published.add(release.key, release.run)
    return published.reading(metric, month, _mechanism_runs(accountant))


def _up_to(last: Release | None, releases: list[Release]) -> list[Release]:
    """What was published before it, and itself; everything for None."""
    return releases if last is None else releases[: releases.index(last) + 1]


def _mechanism_runs(accountant: LedgerView) -> dict[str, MechanismRun]:
    return {run.name: run for run in accountant.mechanism_runs()}


def _rows(releases: Iterable[Release], accountant: LedgerView) -> list[MartRow]:
    runs = _mechanism_runs(accountant)
    return [_mart_row(release, runs[release.run]) for release in releases]


def _mart_row(release: Release, run: MechanismRun) -> MartRow:
    if not release.private:
        raise Refused(
            f"{release.key.metric} of {release.key.day} was drawn from predictable noise.",
            "Such a store is for tests; publish from one whose noise is private.",
        )
    shown = interval(release, run)
    return MartRow(
        key=release.key,
        noisy_value=shown.noisy_value,
        estimate=shown.estimate,
        lower_95=shown.lower_95,
        upper_95=shown.upper_95,
        noisy_statistic=shown.noisy_statistic,
        half_width=release.half_width,
        mechanism=release.mechanism,
        mechanism_run=run.name,
        parameters=parameters_of(estimator_of(run)),
        published_at=datetime.fromisoformat(release.published_at),
        version=release.version,
    )
