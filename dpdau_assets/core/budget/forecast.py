"""The budget calendar of a living ledger: a dry run of every release to come, on a draft of the ledger.

Each number is planned and entered by the code that will do it when its day comes, so what is refused here is what will
be refused then. Only facts and charges are read; nothing is written, drawn or sealed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import TypeVar

from dpdau_assets.core.budget.dry_run import DryRunLedger
from dpdau_assets.core.budget.planning import Plan, budget_of, enter, plan, restatement_due_under
from dpdau_assets.core.dates import (
    days_between,
    first_window_end,
    month_end,
    month_of,
    months_from,
    months_read,
)
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.privacy.accounting import Charge, Cost, cost, epsilon_of, rho, total
from dpdau_assets.core.privacy.cost_so_far import cost_so_far
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import LONGEST_MONTH, Mechanism, Stream, half_width_95, noise_std
from dpdau_assets.core.privacy.schedule import METRICS, ScheduledRelease, due_on, mechanism_for
from dpdau_assets.core.settings import Metric, Settings


@dataclass(frozen=True)
class RefusedRelease:
    """A number that will be refused, the months that it reads, and the error.

    A restatement is refused whole, for its first number that does not fit; `numbers` is how many are lost with it.
    """

    release: ScheduledRelease
    months: tuple[date, ...]
    numbers: int
    error: Refused


@dataclass(frozen=True)
class PlannedRelease:
    """A number that will come out, and the months that it reads."""

    release: ScheduledRelease
    months: tuple[date, ...]
    run: MechanismRun


_Number = TypeVar("_Number", PlannedRelease, RefusedRelease)


@dataclass(frozen=True)
class NewStream:
    """A stream that will begin where the metric has one already: the months that both read are charged for both."""

    run: str
    metric: Metric
    first_day: date
    months_charged_twice: tuple[date, ...]


@dataclass(frozen=True)
class MonthForecast:
    """One month of one metric, seen from every number that reads it; costs are in epsilon at the configured delta.

    Attributes:
        cap: on record, or as configured where nothing is.
        published: how many numbers are out by now.
        charged_now: what is charged by now.
        first_numbers, restatements: how many are to come.
        refused: how many would have come.
        first_due, last_due: when the first and the last of those to come are due; None without any.
        charged: all charges, those to come included.
        mu2: the same as μ²; of pure epsilon, twice its ρ.
        spent: what the numbers themselves will have cost once they are out; at most `charged`.
        headroom: what is left of the cap.
        mechanism, std, half_width_95: of the noise of the last number to come, in users, or in the units of a
            sketch's statistic; None without any.
    """

    metric: Metric
    month: date
    cap: float
    published: int
    charged_now: float
    first_numbers: int
    restatements: int
    refused: int
    first_due: date | None
    last_due: date | None
    charged: float
    mu2: float
    spent: float
    headroom: float
    mechanism: str | None
    std: float | None
    half_width_95: float | None


@dataclass(frozen=True)
class Forecast:
    """The coming months in order, and every number that will be refused, in order of due days."""

    delta: float
    months: tuple[MonthForecast, ...]
    refused: tuple[RefusedRelease, ...]
    new_streams: tuple[NewStream, ...]


def forecast(ledger: LedgerView, settings: Settings, months: int, first_day: date | None = None) -> Forecast:
    """What publication will bring under these settings, from where it stands, in so many months and earlier open ones.

    A metric goes on with the day after its last published one; else it begins at START_DATE, MAU with its first whole
    window. Neither does so before `first_day`. Months count from the later of the two. When a day is refused, those
    after it are tried all the same.
    """
    with ledger.snapshot() as snapshot:
        draft = DryRunLedger(snapshot, settings)
        firsts: dict[Metric, date] = {metric: _next_day(metric, draft, settings, first_day) for metric in METRICS}
        *_, last_month = islice(months_from(month_of(max(firsts.values()))), months)
        planned, refused = _walk(_due(firsts, _last_day(last_month, settings), draft, settings), draft, settings)
        seen = {(month, number.release.metric) for number in [*planned, *refused] for month in number.months}
        return Forecast(
            delta=settings.delta,
            months=tuple(
                _month_forecast(
                    metric,
                    month,
                    _reading(metric, month, planned),
                    _reading(metric, month, refused),
                    draft,
                    settings,
                )
                for month, metric in sorted(seen)
                if month <= last_month
            ),
            refused=tuple(refused),
            new_streams=tuple(_new_stream(stream, draft) for stream in draft.begun_anew()),
        )


def coming(ledger: LedgerView, settings: Settings, last: date) -> list[PlannedRelease | RefusedRelease]:
    """Every number of the days up to `last` that is not out yet, in order of due days: planned, or refused and why.

    As `forecast` walks it; a restatement stands there number by number. Raises ParameterNotSet as a release would.
    """
    with ledger.snapshot() as snapshot:
        draft = DryRunLedger(snapshot, settings)
        firsts: dict[Metric, date] = {metric: _next_day(metric, draft, settings, None) for metric in METRICS}
        planned, refused = _walk(_due(firsts, last, draft, settings), draft, settings)
        return sorted(
            [*planned, *refused],
            key=lambda number: (number.release.due_on, number.release.revision, number.release.metric),
        )


# --- What is due -------------------------------------------------------------------------------------------------


def _next_day(metric: Metric, ledger: DryRunLedger, settings: Settings, first_day: date | None) -> date:
    published = ledger.days(metric)
    first = first_window_end(settings.start_date, settings.window_days(metric))
    going_on = published[-1] + timedelta(days=1) if published else first
    return max(going_on, first_day or going_on)


def _last_day(last_month: date, settings: Settings) -> date:
    """With its number, everything is out that can tell something of the month: windows, filters and restatement."""
    mechanism = mechanism_for(settings, "mau", last_month)
    filtered = len(mechanism.filter) - 1 if isinstance(mechanism, Stream) else 0
    return month_end(last_month) + timedelta(days=max(settings.mau_window_days - 1 + filtered, LONGEST_MONTH))


def _due(firsts: Mapping[Metric, date], last: date, ledger: DryRunLedger, settings: Settings) -> list[ScheduledRelease]:
    """Releases in order of due days. A restatement stands there once, with its month for a day."""
    first_numbers = [
        ScheduledRelease(metric, day, 0, due_on(settings, day))
        for metric in METRICS
        for day in days_between(firsts[metric], last)
    ]
    restatements = _restatements(days_between(firsts["dau"], last), ledger, settings)
    due = [*first_numbers, *(release for release in restatements if release.due_on <= due_on(settings, last))]
    return sorted(due, key=lambda release: (release.due_on, release.revision, release.metric, release.day))


def _restatements(days: list[date], ledger: DryRunLedger, settings: Settings) -> Iterator[ScheduledRelease]:
    for month in {month_of(day) for day in [*ledger.days("dau"), *days]} - ledger.restated():
        due_day = restatement_due_under(
            ledger.parameters(month), month, settings
        )  # fixed with the month's first number
        if due_day is not None:
            yield ScheduledRelease("dau", month, 1, due_day)


# --- The walk ----------------------------------------------------------------------------------------------------


def _walk(
    due: Iterable[ScheduledRelease], ledger: DryRunLedger, settings: Settings
) -> tuple[list[PlannedRelease], list[RefusedRelease]]:
    """Publish on the draft, each first number by itself and each restatement whole."""
    planned: list[PlannedRelease] = []
    refused: list[RefusedRelease] = []
    for release in due:
        key = ReleaseKey(release.metric, settings.window_days(release.metric), release.day)
        keys = ledger.restatement(release.day) if release.revision else [key]
        outcome = _publish(keys, release.due_on, ledger, settings)
        if isinstance(outcome, RefusedRelease):
            refused.append(outcome)
        else:
            planned += outcome
    return planned, refused


def _publish(
    keys: Sequence[ReleaseKey], due_day: date, ledger: DryRunLedger, settings: Settings
) -> list[PlannedRelease] | RefusedRelease:
    entered: list[tuple[ReleaseKey, Plan]] = []
    for key in keys:
        try:
            planned = plan(key, ledger, settings)
        except Refused as error:
            for earlier in entered:
                ledger.withdraw(*earlier)
            return RefusedRelease(_planned(key, due_day), _months(key), len(keys), error)
        enter(planned, ledger)
        ledger.publish(key, planned.run.name)
        entered.append((key, planned))
    return [PlannedRelease(_planned(key, due_day), _months(key), planned.run) for key, planned in entered]


def _planned(key: ReleaseKey, due_day: date) -> ScheduledRelease:
    return ScheduledRelease(key.metric, key.day, key.revision, due_day)


def _months(key: ReleaseKey) -> tuple[date, ...]:
    return tuple(months_read(key.day, key.window_days))


# --- What it comes to --------------------------------------------------------------------------------------------


def _month_forecast(
    metric: Metric,
    month: date,
    to_come: Sequence[PlannedRelease],
    refused: Sequence[RefusedRelease],
    ledger: DryRunLedger,
    settings: Settings,
) -> MonthForecast:
    """The forecast of the numbers that read the month, given in order of due days."""
    restatements = sum(planned.release.revision > 0 for planned in to_come)
    published = ledger.published(metric, month)  # on the draft, so with those to come
    charged_now = _cost_of(ledger.charged_by_now(metric, month))
    charged = _cost_of(ledger.charges(metric, month))
    epsilon_charged = epsilon_of(charged, settings.delta)
    cap = float(budget_of(metric, month, ledger, settings).epsilon)
    last = to_come[-1] if to_come else None
    return MonthForecast(
        metric=metric,
        month=month,
        cap=cap,
        published=sum(by_run.releases for by_run in published) - len(to_come),
        charged_now=epsilon_of(charged_now, settings.delta),
        first_numbers=len(to_come) - restatements,
        restatements=restatements,
        refused=sum(refusal.numbers for refusal in refused),
        first_due=to_come[0].release.due_on if to_come else None,
        last_due=last.release.due_on if last else None,
        charged=epsilon_charged,
        mu2=2 * rho(charged),
        spent=epsilon_of(cost_so_far(published, month), settings.delta),
        headroom=cap - epsilon_charged,
        mechanism=last.run.mechanism.name if last else None,
        std=noise_std(*_noise(last)) if last else None,
        half_width_95=half_width_95(*_noise(last)) if last else None,
    )


def _reading(metric: Metric, month: date, numbers: Iterable[_Number]) -> list[_Number]:
    """Which of these numbers of the metric read the month, in their order."""
    return [number for number in numbers if number.release.metric == metric and month in number.months]


def _cost_of(charges: Iterable[Charge]) -> Cost:
    return total(cost(charge.mechanism) for charge in charges)


def _noise(planned: PlannedRelease) -> tuple[Mechanism, int]:
    """The number's mechanism, and its day of the run, the first being 1."""
    return planned.run.mechanism, (planned.release.day - planned.run.first_day).days + 1


def _new_stream(stream: MechanismRun, ledger: DryRunLedger) -> NewStream:
    """Only months that its first window reads can have been read by the one before."""
    twice = [
        month
        for month in months_read(stream.first_day, stream.window_days)
        if any(charge.run != stream.name for charge in ledger.charges(stream.metric, month))
    ]
    return NewStream(stream.name, stream.metric, stream.first_day, tuple(twice))
