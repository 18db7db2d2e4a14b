"""What the report for people says, as plain data: published numbers, what they promise, and what they have cost.

The readers' report holds nothing that depends on one person's data but through the noisy values, and no time but
scheduled days: for the same published numbers it is the same report. The operators' one adds what waits and what the
checks found, and is not for readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from fractions import Fraction

from dpdau_assets.core.budget.sketch_choice import configured, estimator_of
from dpdau_assets.core.erasure.requests import waiting_days
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.ports.store import Mart, Store
from dpdau_assets.core.privacy.compositions import user_months
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Laplace
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.reporting.answers import budget_answer, charged_months, mart_rows
from dpdau_assets.core.reporting.checks import CHECKS, ask_all
from dpdau_assets.core.reporting.promise import (
    configured_mechanism,
    due_after_days,
    user_month_bound,
    widest_noise,
    with_largest,
)
from dpdau_assets.core.reporting.report_model import (
    BudgetMonth,
    CheckLine,
    ForOperators,
    MetricPromise,
    Promise,
    Report,
)
from dpdau_assets.core.reporting.series import series_of
from dpdau_assets.core.secret_strength import warning
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import parameters_of
from dpdau_assets.core.sketches.base import Estimator
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.version import VERSION


def readers_report(settings: Settings, accountant: LedgerView) -> Report:
    """For the published zone. Raises Refused for a number that was drawn from predictable noise."""
    with accountant.snapshot() as ledger:
        rows = mart_rows(ledger)
        series = tuple(series_of(metric, settings.window_days(metric), rows) for metric in METRICS)
        due_days = [number.due_on for metric_series in series for day in metric_series.days for number in day.numbers]
        budget = tuple(_budget(settings, ledger))
        return Report(max(due_days, default=None), series, _promise(budget, settings, ledger), budget, VERSION)


def operators_report(store: Store, checks: Sequence[CheckLine]) -> Report:
    """The report with the erasures that wait and the checks: for operators and the privacy officer, never for readers.

    Raises Refused as `readers_report` does.
    """
    weak = warning(store.settings.hash_salt_secret)
    added = ForOperators(store.clock.today(), tuple(waiting_days(store.clock, store.erasures)), tuple(checks), weak)
    return replace(readers_report(store.settings, store.accountant), for_operators=added)


def check_lines(store: Store, mart: Mart) -> list[CheckLine]:
    """Every check of the store, asked now: it reads all that is kept."""
    verdicts = ask_all(store, mart)
    return [
        CheckLine(check.name, check.guards, verdicts[check.name].passed, verdicts[check.name].sentence)
        for check in CHECKS
    ]


# --- Budget ------------------------------------------------------------------------------------------------------


def _budget(settings: Settings, accountant: LedgerView) -> Iterable[BudgetMonth]:
    """Every month that a number was charged to, and every month that an override speaks of."""
    overrides = accountant.overrides()
    for metric in METRICS:
        decided = {
            override.month
            for override in overrides
            if override.metric == metric and override.month and override.epsilon is not None
        }
        for month in sorted({*charged_months(accountant.releases(metric)), *decided}):
            yield _budget_month(metric, month, settings, accountant)


def _budget_month(metric: Metric, month: date, settings: Settings, accountant: LedgerView) -> BudgetMonth:
    budget = budget_answer(metric, month, settings, accountant)
    return BudgetMonth(
        metric=metric,
        month=month,
        spent=budget.summary.epsilon_spent,
        charged=budget.report.charged.epsilon,
        cap=budget.summary.epsilon_cap,
        delta=accountant.delta(metric, month) or settings.delta,
        releases_made=budget.summary.releases_made,
        releases_planned=budget.summary.releases_planned,
        overrides=budget.overrides,
    )


# --- Promise -----------------------------------------------------------------------------------------------------


def _promise(budget: Sequence[BudgetMonth], settings: Settings, accountant: LedgerView) -> Promise:
    largest = _settings_charged_most(budget, settings)
    metrics = tuple(_metric_promise(metric, _used(metric, accountant), largest, settings) for metric in METRICS)
    # The formulas for both together do not speak of numbers by another mechanism than is configured.
    composed = all(promise.mechanisms == (largest.mechanism(promise.metric),) for promise in metrics)
    both = user_month_bound(METRICS, largest)
    return Promise(
        metrics=metrics,
        epsilon=both.epsilon if composed else sum(promise.epsilon for promise in metrics),
        delta=both.delta if composed else sum(promise.delta for promise in metrics),
        composed=composed,
        user_months=tuple(user_months("dau", largest)) if composed else (),
        timezone=largest.timezone,
        restatement_day=largest.restatement_day if largest.restatements_per_month else None,
        due_after_days=due_after_days(largest),
    )


def _settings_charged_most(budget: Sequence[BudgetMonth], settings: Settings) -> Settings:
    """The settings with the largest caps and δ on record: no month promises less than these."""
    caps: dict[Metric, list[Fraction]] = {
        metric: [_bound(month) for month in budget if month.metric == metric] for metric in METRICS
    }
    return with_largest(settings, caps, (month.delta for month in budget))


def _bound(month: BudgetMonth) -> Fraction:
    return Fraction(str(month.charged if month.is_beyond_cap else month.cap))


def _used(metric: Metric, accountant: LedgerView) -> list[MechanismRun]:
    """The mechanism runs of which a number is published, in the order in which they were opened."""
    names = {release.run for release in accountant.releases(metric)}
    return [run for run in accountant.mechanism_runs() if run.name in names]


def _metric_promise(
    metric: Metric, used: Sequence[MechanismRun], largest: Settings, settings: Settings
) -> MetricPromise:
    mechanisms = dict.fromkeys(run.mechanism for run in used) or {configured_mechanism(metric, settings): None}
    estimators = dict.fromkeys(estimator_of(run) for run in used) or {configured(metric, settings): None}
    noise = widest_noise(mechanisms)
    return MetricPromise(
        metric=metric,
        epsilon=user_month_bound((metric,), largest).epsilon,
        delta=0.0 if all(isinstance(mechanism, Laplace) for mechanism in mechanisms) else largest.delta,
        mechanisms=tuple(dict.fromkeys(mechanism.name for mechanism in mechanisms)),
        counted_by=tuple(dict.fromkeys(_in_words(estimator, settings) for estimator in estimators)),
        noise_std=noise.std,
        half_width_95=noise.half_width_95,
        in_users=all(isinstance(estimator, ExactEstimator) for estimator in estimators),
    )


def _in_words(estimator: Estimator | None, settings: Settings) -> str:
    """The kind and its parameters; None is a kind whose parameters follow the last published number."""
    if estimator is None:
        return settings.sketch_impl
    parameters = parameters_of(estimator)
    kind = parameters.pop("sketch_impl")
    return ", ".join([kind, *(f"{name} {value}" for name, value in sorted(parameters.items()))])
