"""Numbers, budgets, labels and operation as the OpenAPI document describes them; `schemas` has the rest."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from dpdau_assets.api.schemas import Month, Schema, not_always
from dpdau_assets.core.settings import Metric

Mechanism = Literal["gaussian_shared", "gaussian_stream", "gaussian", "laplace"]
SketchParameters = dict[str, float]


# --- Numbers -----------------------------------------------------------------------------------------------------


class Override(Schema):
    """A decision on record that gave a month another cap."""

    epsilon_cap: float
    who: str
    why: str
    made_on: date


class NumberComparison(Schema):
    """The numbers' cost by other ways of adding up: nothing is stopped or charged by any of these."""

    rdp_curve: dict[str, float] = Field(description="Order of Rényi DP to epsilon.")
    advanced_epsilon: float
    advanced_delta: float
    meaning: dict[str, str]


class BudgetSummary(Schema):
    """One month of one metric, in epsilon."""

    epsilon_cap: float
    epsilon_spent: float = Field(description="What the numbers that are out have cost.")
    epsilon_remaining: float
    releases_made: int
    releases_planned: int
    comparison: NumberComparison


class _Shown(Schema):
    """What a number and a row have in common."""

    metric: Metric
    day: date = Field(description="The last day of the window that was counted.")
    window_days: int
    revision: int = Field(description="0; 1 for the number of a restated month.")
    noisy_value: float = Field(description="As drawn, in users; may be below 0. Average and compare this one.")
    estimate: float = Field(description="For display, in users; never below 0.")
    lower_95: float
    upper_95: float | None = Field(description="Null where a sketch is full.")
    noisy_statistic: float = Field(description="What the noise was added to.")
    half_width: float = Field(description="95 % of that noise lies within it.")


class _Counted(Schema):
    """How a number was counted."""

    mechanism: Mechanism
    mechanism_run: str
    sketch_impl: str
    sketch_parameters: SketchParameters
    privacy_unit: Literal["user-month"]
    published_at: AwareDatetime = Field(description="The day on which it was due, whenever it came out.")
    version: str


class Row(_Counted, _Shown):
    """A published number, as the mart has it."""


class Number(_Counted, _Shown):
    """A published number, how it was made, and what its month had cost when it came out."""

    epsilon_used: float
    delta: float
    budget_remaining: float
    budget: BudgetSummary
    overrides: list[Override]
    private: bool


class Composition(Schema):
    """What the numbers have cost by one way of adding up."""

    name: str
    epsilon: float
    delta: float
    order: int | None
    meaning: str
    used_for_admission: bool


class BudgetComparison(NumberComparison):
    """The numbers' cost by other ways of adding up, all of them valid."""

    compositions: list[Composition]


class Guarantee(Schema):
    """An epsilon and a delta, and what they cover."""

    epsilon: float
    delta: float
    meaning: str


class UserMonths(Schema):
    """What some months of one user cost together at most."""

    months: int
    epsilon: float
    joint_epsilon: float
    delta: float


class Budget(Schema):
    """One month of one metric: what its numbers have cost, what is charged, and what stands beside it."""

    metric: Metric
    month: Month
    epsilon_cap: float
    epsilon_spent: float
    epsilon_remaining: float
    releases_made: int
    releases_planned: int
    comparison: BudgetComparison
    charged: Guarantee
    joint: Guarantee
    user_months: list[UserMonths]
    overrides: list[Override]


# --- The label ---------------------------------------------------------------------------------------------------


class Registry(Schema):
    """Which schema the records follow."""

    repository: str
    commit: str
    schema_: str = Field(alias="schema")


class PrivacyParameters(Schema):
    """The bound of one user-month. Without delta all noise is pure."""

    epsilon: float
    delta: float = not_always()
    rho: float


class MetricFacts(PrivacyParameters):
    """What one metric promises, as bare numbers."""

    privacy_unit: Literal["user-month"]
    mechanism: dict[str, Any] = Field(description="Kind, version and parameters of the noise.")
    window_days: int
    numbers_that_read_a_month: int
    largest_change_of_a_count: int
    largest_number_of_bit_flips: int | None
    noise_std: float
    half_width_95: float
    sketch: str
    sketch_parameters: SketchParameters


class JointFacts(PrivacyParameters):
    """What both metrics promise together, as bare numbers."""

    privacy_unit: Literal["user-month"]


class Facts(Schema):
    """One for each data set that was asked for."""

    dau: MetricFacts = not_always()
    mau: MetricFacts = not_always()
    dau_and_mau: JointFacts = not_always()


class LabelRecord(Schema):
    """A record of OpenDP's registry, whose schema says what `deployment` holds."""

    url_slug: str
    status: Literal["Draft"]
    tier: int
    deployment: dict[str, Any]


class Records(Schema):
    """One for each data set that was asked for."""

    dau: LabelRecord = not_always()
    mau: LabelRecord = not_always()
    dau_and_mau: LabelRecord = not_always()


class Label(Schema):
    """What the published data sets promise, for machines."""

    registry: Registry
    records: Records
    facts: Facts


# --- Operation ---------------------------------------------------------------------------------------------------


class FirstRefusal(Schema):
    """The first number that will be refused, and why."""

    metric: Metric
    day: date
    revision: int
    slot: date = Field(description="When it would be due.")
    numbers: int = Field(description="How many are refused with it.")
    reason: str
    remedy: str
    month: Month = not_always()
    charged: float = not_always()
    asked: float = not_always()
    together: float = not_always()
    cap: float = not_always()
    delta: float = not_always()
    next_day: date = not_always()
    changed: list[str] = not_always()


class NewStream(Schema):
    """A stream of noise that will begin where the metric has one already."""

    instance: str
    metric: Metric
    first_day: date
    months_charged_twice: list[Month]


class MonthForecast(Schema):
    """One month of one metric, seen from every number that reads it; costs in epsilon."""

    metric: Metric
    month: Month
    cap: float
    published: int
    charged_now: float
    first_numbers: int
    restatements: int
    refused: int
    first_slot: date | None
    last_slot: date | None
    charged: float
    mu2: float
    spent: float
    headroom: float
    mechanism: Mechanism | None
    std: float | None
    half_width_95: float | None


class Plan(Schema):
    """What publication will bring, and the first refusal."""

    changed: dict[str, str] = Field(description="Settings that were tried; none over HTTP.")
    fits: bool
    first_refusal: FirstRefusal | None
    numbers_refused: int
    new_streams: list[NewStream]
    delta: float
    months: list[MonthForecast]


class PublishedSeries(Schema):
    """How far a metric has come; null before its first number."""

    metric: Metric
    last_day: date | None
    slot: date | None
    next_day: date | None
    next_slot: date | None


class Span(Schema):
    """How many days, from which to which."""

    days: int
    first: date | None
    last: date | None


class WaitingDay(Schema):
    """A day on which erasure requests came that are not verified yet; how many is not said."""

    received_on: date
    age_days: int
    deadline: date
    is_overdue: bool


class SpentMonth(Schema):
    """One month of one metric, in epsilon."""

    metric: Metric
    month: date = Field(description="Its first day.")
    spent: float
    charged: float
    cap: float


class Status(Schema):
    """How the store stands today."""

    today: date
    published: list[PublishedSeries]
    unmarked: Span = Field(description="Days that are due and that nobody has declared complete.")
    refused: str = Field(description="Why numbers that are due will not come; empty if all will.")
    behind: Span = Field(description="Days that are to be built anew.")
    erasures: list[WaitingDay]
    overdue: list[str]
    spent: list[SpentMonth]
    purged_through: date | None
    purge_due: date | None
    ready: Span = Field(description="Days of which a number can be published now.")
    months_to_restate: list[date]
    without_marker: Span = Field(description="Days with event files in LANDING_DIR that no _SUCCESS makes complete.")


class DeclaredDays(Schema):
    """Days that were declared complete."""

    complete: list[date]


class WithdrawnDays(Schema):
    """Days whose declaration was taken back."""

    withdrawn: list[date]
