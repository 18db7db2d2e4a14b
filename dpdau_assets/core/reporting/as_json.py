"""The public form of what is answered: plain values for JSON, and the mart's columns. Names outside are given here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date
from fractions import Fraction
from functools import singledispatch
from typing import Any, TypeAlias

from dpdau_assets.core.budget.forecast import Forecast, MonthForecast, NewStream, RefusedRelease
from dpdau_assets.core.privacy.compositions import COMPOSITIONS
from dpdau_assets.core.reporting.answer_model import (
    MonthlyBudget,
    PublishedNumber,
    PublishedRange,
    RequestStanding,
    Status,
)
from dpdau_assets.core.restored import MartRow
from dpdau_assets.core.sketches import estimator_from, public_parameters

Json: TypeAlias = dict[str, Any]

PRIVACY_UNIT = "user-month"
_OUTSIDE = {"due_on": "slot", "first_due": "first_slot", "last_due": "last_slot", "run": "instance"}
"""The fields that have another name outside."""


@singledispatch
def as_json(value: Any) -> Any:
    """What `json.dumps` takes: days as YYYY-MM-DD, a result as an object with the public names, in their order.

    A result without a form of its own has its fields, by their names. Raises TypeError for what is no result.
    """
    if is_dataclass(value):
        return _fields(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} has no form in JSON.")


def _fields(result: Any) -> Json:
    return {_OUTSIDE.get(field.name, field.name): as_json(getattr(result, field.name)) for field in fields(result)}


@as_json.register
def _(value: date) -> str:
    return value.isoformat()


@as_json.register
def _(value: Fraction) -> float:
    return float(value)


@as_json.register(list)
@as_json.register(tuple)
def _(value: Sequence[Any]) -> list[Any]:
    return [as_json(part) for part in value]


@as_json.register
def _(value: Mapping) -> Json:  # type: ignore[type-arg]
    return {str(name): as_json(part) for name, part in value.items()}


# --- Numbers -----------------------------------------------------------------------------------------------------


@as_json.register
def _(number: PublishedNumber) -> Json:
    key, budget = number.key, as_json(number.budget)
    return {
        "metric": key.metric,
        "day": as_json(key.day),
        "window_days": key.window_days,
        "revision": key.revision,
        "noisy_value": number.noisy_value,
        "estimate": number.estimate,
        "lower_95": number.lower_95,
        "upper_95": number.upper_95,
        "noisy_statistic": number.noisy_statistic,
        "half_width": number.half_width,
        "epsilon_used": number.epsilon_used,
        "delta": number.delta,
        "mechanism": number.mechanism,
        "mechanism_run": number.mechanism_run,
        "sketch_impl": number.sketch_impl,
        "sketch_parameters": as_json(number.sketch_parameters),
        "privacy_unit": PRIVACY_UNIT,
        "budget_remaining": number.budget_remaining,
        "budget": budget,
        "overrides": as_json(number.overrides),
        "published_at": as_json(number.published_at),
        "private": number.private,
        "version": number.version,
    }


@as_json.register
def _(row: MartRow) -> Json:
    return as_json(columns_of(row))


def columns_of(row: MartRow) -> Json:
    """The row as the mart's columns, in their order; days and times as they are."""
    key = row.key
    return {
        "metric": key.metric,
        "day": key.day,
        "window_days": key.window_days,
        "revision": key.revision,
        "noisy_value": row.noisy_value,
        "estimate": row.estimate,
        "lower_95": row.lower_95,
        "upper_95": row.upper_95,
        "noisy_statistic": row.noisy_statistic,
        "half_width": row.half_width,
        "mechanism": row.mechanism,
        "mechanism_run": row.mechanism_run,
        "sketch_impl": row.parameters["sketch_impl"],
        "sketch_parameters": as_json(public_parameters(estimator_from(row.parameters))),
        "privacy_unit": PRIVACY_UNIT,
        "published_at": row.published_at,
        "version": row.version,
    }


@as_json.register
def _(published: PublishedRange) -> Json:
    by_metric = {f"{metric}_published": count for metric, count in published.published.items()}
    return {"days": published.days, **by_metric, "restated": published.restated}


# --- Budget ------------------------------------------------------------------------------------------------------


@as_json.register
def _(budget: MonthlyBudget) -> Json:
    """What the report's compositions say only compares, and stands with the others that do."""
    summary, report = as_json(budget.summary), as_json(budget.report)
    comparison = summary["comparison"]
    comparison["compositions"] = report.pop("compositions")
    comparison["meaning"]["compositions"] = COMPOSITIONS
    month = {"metric": budget.metric, "month": _month(budget.month)}
    return {**month, **summary, **report, "overrides": as_json(budget.overrides)}


@as_json.register
def _(forecast: Forecast) -> Json:
    """The first refusal, and how many numbers are refused in all."""
    return {
        "fits": not forecast.refused,
        "first_refusal": as_json(forecast.refused[0]) if forecast.refused else None,
        "numbers_refused": sum(refused.numbers for refused in forecast.refused),
        "new_streams": as_json(forecast.new_streams),
        "delta": forecast.delta,
        "months": as_json(forecast.months),
    }


@as_json.register
def _(month: MonthForecast) -> Json:
    return {**_fields(month), "month": _month(month.month)}


@as_json.register
def _(stream: NewStream) -> Json:
    return {**_fields(stream), "months_charged_twice": [_month(month) for month in stream.months_charged_twice]}


@as_json.register
def _(refused: RefusedRelease) -> Json:
    error = refused.error
    what = {**as_json(refused.release), "numbers": refused.numbers}
    return {**what, "reason": error.reason, "remedy": error.remedy, **as_json(error.fields)}


def _month(month: date) -> str:
    return f"{month:%Y-%m}"


# --- Operation ---------------------------------------------------------------------------------------------------


@as_json.register
def _(request: RequestStanding) -> Json:
    erasure = request.erasure
    return {
        "receipt": erasure.receipt,
        "batch": erasure.batch,
        "state": erasure.state,
        "scope": {"through": as_json(erasure.through), "days": as_json(erasure.days)},
        "received_on": as_json(erasure.received_on),
        "deadline": as_json(request.deadline),
        "overdue": request.is_overdue,
    }


@as_json.register
def _(status: Status) -> Json:
    return {
        "today": as_json(status.today),
        "published": as_json(status.published),
        "unmarked": _span(status.unmarked),
        "refused": status.refused,
        "behind": _span(status.behind),
        "erasures": as_json(status.erasures),
        "overdue": as_json(status.overdue),
        "spent": as_json(status.spent),
        "purged_through": as_json(status.purged_through),
        "purge_due": as_json(status.purge_due),
        "ready": _span(status.ready_days),
        "months_to_restate": as_json(status.ready_months),
        "without_marker": _span(status.without_marker),
    }


def _span(days: Sequence[date]) -> Json:
    """How many days, from which to which: a store that stood still for years has thousands."""
    first, last = min(days, default=None), max(days, default=None)
    return {"days": len(days), "first": as_json(first), "last": as_json(last)}
