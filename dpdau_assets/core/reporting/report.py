"""What the report for people says, as plain data: published numbers, what they promise, and what they have cost.

The readers' report holds nothing that depends on one person's data but through the noisy values, and no time but
scheduled slots: for the same published numbers it is the same report. The operators' one adds what waits and what the
checks found, and is not for readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from fractions import Fraction

from dpdau_assets.core.budget.sketch_choice import configured, estimator_of
from dpdau_assets.core.erasure.requests import waiting_days
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Mart, Store
from dpdau_assets.core.privacy.compositions import joint_epsilon, user_months
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Laplace, Mechanism, half_width_95, noise_std
from dpdau_assets.core.privacy.schedule import METRICS, mechanism_for
from dpdau_assets.core.reporting.answers import budget_answer, charged_months, mart_rows
from dpdau_assets.core.reporting.checks import CHECKS, ask_all
from dpdau_assets.core.reporting.report_model import (
    BudgetMonth,
    CapOverride,
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

_LONG_MONTH = date(2025, 1, 1)  # any month of 31 days: the most numbers, and the most noise
_STEADY_DAY = 1000  # a stream's noise has its steady width long before


def readers_report(settings: Settings, accountant: Ledger) -> Report:
    """For the published zone. Raises Refused for a number that was drawn from predictable noise."""
    rows = mart_rows(accountant)
    series = tuple(series_of(metric, settings.window_days(metric), rows) for metric in METRICS)
    slots = [number.due_on for one in series for day in one.days for number in day.numbers]
    budget = tuple(_budget(settings, accountant))
    return Report(max(slots, default=None), series, _promise(budget, settings, accountant), budget, VERSION)


def operators_report(store: Store, checks: Sequence[CheckLine]) -> Report:
    """The report with the erasures that wait and the checks: for operators and the privacy officer, never for readers

    Raises Refused as `readers_report` does.
    """
    weak = warning(store.settings.hash_salt_secret)
    added = ForOperators(store.clock.today(), tuple(waiting_days(store.clock, store.erasures)), tuple(checks), weak)
    return replace(readers_report(store.settings, store.accountant), for_operators=added)


def check_lines(store: Store, mart: Mart) -> list[CheckLine]:
    """Every check of the store, asked now: it reads all that is kept."""
    found = ask_all(store, mart)
    return [
        CheckLine(check.name, check.guards, found[check.name].passed, found[check.name].sentence) for check in CHECKS
    ]


# --- Budget ------------------------------------------------------------------------------------------------------


def _budget(settings: Settings, accountant: Ledger) -> Iterable[BudgetMonth]:
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


def _budget_month(metric: Metric, month: date, settings: Settings, accountant: Ledger) -> BudgetMonth:
    answer = budget_answer(metric, month, settings, accountant)
    return BudgetMonth(
        metric=metric,
        month=month,
        spent=answer["epsilon_spent"],
        charged=answer["charged"]["epsilon"],
        cap=answer["epsilon_cap"],
        delta=accountant.delta(metric, month) or settings.delta,
        releases_made=answer["releases_made"],
        releases_planned=answer["releases_planned"],
        overrides=tuple(CapOverride(**one) for one in answer["overrides"]),
    )


# --- Promise -----------------------------------------------------------------------------------------------------


def _promise(budget: Sequence[BudgetMonth], settings: Settings, accountant: Ledger) -> Promise:
    terms = _settings_charged_most(budget, settings)
    used = {metric: _used(metric, accountant) for metric in METRICS}
    metrics = tuple(_metric_promise(metric, used[metric], terms, settings) for metric in METRICS)
    # Of numbers by another mechanism than is configured, the formulas for both together do not speak.
    composed = all(promise.mechanisms == (terms.mechanism(promise.metric),) for promise in metrics)
    deltas = [promise.delta for promise in metrics]
    return Promise(
        metrics=metrics,
        epsilon=joint_epsilon(terms) if composed else sum(promise.epsilon for promise in metrics),
        delta=max(deltas) if composed else sum(deltas),
        composed=composed,
        user_months=tuple(user_months("dau", terms)) if composed else (),
        timezone=terms.timezone,
        restatement_day=terms.restatement_day if terms.restatements_per_month else None,
        due_after_days=1 + terms.grace_days,
    )


def _settings_charged_most(budget: Sequence[BudgetMonth], settings: Settings) -> Settings:
    """The settings with the largest caps and δ on record: no month promises less than these."""
    caps = {
        metric: [
            settings.cap(metric),
            *(_bound(budget_month) for budget_month in budget if budget_month.metric == metric),
        ]
        for metric in METRICS
    }
    delta = max([settings.delta, *(budget_month.delta for budget_month in budget)])
    return replace(settings, dau_budget_total=max(caps["dau"]), mau_budget_total=max(caps["mau"]), delta=delta)


def _bound(one: BudgetMonth) -> Fraction:
    return Fraction(str(one.charged if one.is_beyond_cap else one.cap))


def _used(metric: Metric, accountant: Ledger) -> list[MechanismRun]:
    """The instances of which a number is published, in the order in which they were opened."""
    names = {release.run for release in accountant.releases(metric)}
    return [run for run in accountant.mechanism_runs() if run.name in names]


def _metric_promise(metric: Metric, used: Sequence[MechanismRun], terms: Settings, settings: Settings) -> MetricPromise:
    noises = dict.fromkeys(run.mechanism for run in used) or {_configured_noise(metric, settings): None}
    estimators = dict.fromkeys(estimator_of(run) for run in used) or {configured(metric, settings): None}
    return MetricPromise(
        metric=metric,
        epsilon=float(terms.cap(metric)),
        delta=0.0 if all(isinstance(mechanism, Laplace) for mechanism in noises) else terms.delta,
        mechanisms=tuple(dict.fromkeys(mechanism.name for mechanism in noises)),
        counted_by=tuple(dict.fromkeys(_in_words(estimator, settings) for estimator in estimators)),
        noise_std=max(noise_std(mechanism, _STEADY_DAY) for mechanism in noises),
        half_width_95=max(half_width_95(mechanism, _STEADY_DAY) for mechanism in noises),
        in_users=all(isinstance(estimator, ExactEstimator) for estimator in estimators),
    )


def _configured_noise(metric: Metric, settings: Settings) -> Mechanism:
    return mechanism_for(settings, metric, _LONG_MONTH)


def _in_words(estimator: Estimator | None, settings: Settings) -> str:
    """The kind and its parameters; None is a kind whose parameters follow the last published number."""
    if estimator is None:
        return settings.sketch_impl
    terms = parameters_of(estimator)
    return ", ".join([terms.pop("sketch_impl"), *(f"{name} {value}" for name, value in sorted(terms.items()))])


# --- For operators -----------------------------------------------------------------------------------------------
