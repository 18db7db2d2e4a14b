"""What the report for people says, as plain data: published numbers, what they promise, and what they have cost.

The readers' report holds nothing that depends on one person's data but through the noisy values, and no time but
scheduled slots: for the same published numbers it is the same report. The operators' one adds what waits and what the
checks found, and is not for readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime
from fractions import Fraction
from itertools import groupby

from dpdau_assets.core.budget.sketch_choice import configured, estimator_of
from dpdau_assets.core.erasure.requests import waiting_days
from dpdau_assets.core.ports.store import Mart, Store
from dpdau_assets.core.privacy.compositions import joint_epsilon, user_months
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Laplace, Mechanism, half_width_95, noise_std
from dpdau_assets.core.privacy.schedule import METRICS, mechanism_for
from dpdau_assets.core.reporting.answers import Answer, budget_answer, charged_months, mart_rows
from dpdau_assets.core.reporting.checks import CHECKS, ask_all
from dpdau_assets.core.reporting.report_model import (
    BudgetMonth,
    CapOverride,
    CheckLine,
    Day,
    ForOperators,
    MetricPromise,
    Number,
    Promise,
    Report,
    Series,
)
from dpdau_assets.core.secret_strength import warning
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import parameters_of
from dpdau_assets.core.sketches.base import Estimator
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.version import VERSION

_LONG_MONTH = date(2025, 1, 1)  # any month of 31 days: the most numbers, and the most noise
_STEADY_DAY = 1000  # a stream's noise has its steady width long before


def readers_report(outside: Store) -> Report:
    """For the published zone. Raises Refused for a number that was drawn from predictable noise."""
    series = tuple(_series(metric, mart_rows(outside), outside.settings) for metric in METRICS)
    slots = [number.due_on for one in series for day in one.days for number in day.numbers]
    budget = tuple(_budget(outside))
    return Report(max(slots, default=None), series, _promise(budget, outside), budget, VERSION)


def operators_report(outside: Store, checks: Sequence[CheckLine]) -> Report:
    """The same, with the erasures that wait and the checks: for operators and the privacy officer, never for readers.

    Raises Refused as `readers_report` does.
    """
    weak = warning(outside.settings.hash_salt_secret)
    added = ForOperators(outside.clock.today(), tuple(waiting_days(outside)), tuple(checks), weak)
    return replace(readers_report(outside), for_operators=added)


def check_lines(outside: Store, mart: Mart) -> list[CheckLine]:
    """Every check of the store, asked now: it reads all that is kept."""
    found = ask_all(outside, mart)
    return [CheckLine(one.name, one.guards, found[one.name].passed, found[one.name].sentence) for one in CHECKS]


# --- Numbers -----------------------------------------------------------------------------------------------------


def _series(metric: Metric, rows: Iterable[Answer], settings: Settings) -> Series:
    """The rows come in order of window, day and revision; a living store has one window a metric."""
    window_days = settings.window_days(metric)
    mine = (row for row in rows if (row["metric"], row["window_days"]) == (metric, window_days))
    days = (Day(day, tuple(_number(row) for row in found)) for day, found in groupby(mine, key=lambda row: row["day"]))
    return Series(metric, window_days, tuple(days))


def _number(row: Answer) -> Number:
    shown = {name: row[name] for name in ("revision", "noisy_value", "estimate", "lower_95", "upper_95")}
    return Number(**shown, due_on=datetime.fromisoformat(row["published_at"]).date())


# --- Budget ------------------------------------------------------------------------------------------------------


def _budget(outside: Store) -> Iterable[BudgetMonth]:
    """Every month that a number was charged to, and every month that an override speaks of."""
    overrides = outside.accountant.overrides()
    for metric in METRICS:
        decided = {one.month for one in overrides if one.metric == metric and one.month and one.epsilon is not None}
        for month in sorted({*charged_months(outside.accountant.releases(metric)), *decided}):
            yield _budget_month(metric, month, outside)


def _budget_month(metric: Metric, month: date, outside: Store) -> BudgetMonth:
    answer = budget_answer(metric, month, outside)
    return BudgetMonth(
        metric=metric,
        month=month,
        spent=answer["epsilon_spent"],
        charged=answer["charged"]["epsilon"],
        cap=answer["epsilon_cap"],
        delta=outside.accountant.delta(metric, month) or outside.settings.delta,
        releases_made=answer["releases_made"],
        releases_planned=answer["releases_planned"],
        overrides=tuple(CapOverride(**one) for one in answer["overrides"]),
    )


# --- Promise -----------------------------------------------------------------------------------------------------


def _promise(budget: Sequence[BudgetMonth], outside: Store) -> Promise:
    terms = _settings_charged_most(budget, outside.settings)
    used = {metric: _used(metric, outside) for metric in METRICS}
    metrics = tuple(_metric_promise(metric, used[metric], terms, outside) for metric in METRICS)
    # Of numbers by another mechanism than is configured, the formulas for both together do not speak.
    composed = all(one.mechanisms == (terms.mechanism(one.metric),) for one in metrics)
    deltas = [one.delta for one in metrics]
    return Promise(
        metrics=metrics,
        epsilon=joint_epsilon(terms) if composed else sum(one.epsilon for one in metrics),
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
        metric: [settings.cap(metric), *(_bound(one) for one in budget if one.metric == metric)] for metric in METRICS
    }
    delta = max([settings.delta, *(one.delta for one in budget)])
    return replace(settings, dau_budget_total=max(caps["dau"]), mau_budget_total=max(caps["mau"]), delta=delta)


def _bound(one: BudgetMonth) -> Fraction:
    return Fraction(str(one.charged if one.is_beyond_cap else one.cap))


def _used(metric: Metric, outside: Store) -> list[MechanismRun]:
    """The instances of which a number is published, in the order in which they were opened."""
    names = {release.run for release in outside.accountant.releases(metric)}
    return [one for one in outside.accountant.mechanism_runs() if one.name in names]


def _metric_promise(metric: Metric, used: Sequence[MechanismRun], terms: Settings, outside: Store) -> MetricPromise:
    noises = dict.fromkeys(one.mechanism for one in used) or {_configured_noise(metric, outside.settings): None}
    estimators = dict.fromkeys(estimator_of(one) for one in used) or {configured(metric, outside.settings): None}
    return MetricPromise(
        metric=metric,
        epsilon=float(terms.cap(metric)),
        delta=0.0 if all(isinstance(one, Laplace) for one in noises) else terms.delta,
        mechanisms=tuple(dict.fromkeys(one.name for one in noises)),
        counted_by=tuple(dict.fromkeys(_in_words(one, outside.settings) for one in estimators)),
        noise_std=max(noise_std(one, _STEADY_DAY) for one in noises),
        half_width_95=max(half_width_95(one, _STEADY_DAY) for one in noises),
        in_users=all(isinstance(one, ExactEstimator) for one in estimators),
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
