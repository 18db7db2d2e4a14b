"""The daily digest: what one message after publication says. It has nothing that mart or operators' report do not show.

It is for operators. The newest number of each metric with its interval; how that differs from the day before and from
the week before, where the difference is larger than noise alone would make it; and what needs somebody, in the words of
the checks. It knows no clock: for the same published numbers and verdicts it is the same digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

from dpdau_assets.core.budget.sketch_choice import estimator_of
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.privacy.changes import NoiseOf, change_half_width_95
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import noise_width
from dpdau_assets.core.reporting.answers import mart_rows
from dpdau_assets.core.reporting.checks import CHECKS
from dpdau_assets.core.reporting.report_model import Number, Report, Series
from dpdau_assets.core.restored import MartRow
from dpdau_assets.core.settings import Metric
from dpdau_assets.core.sketches.exact import ExactEstimator

COMPARED_DAYS_BEFORE = (1, 7)

_UNDER_WAY = frozenset(check.name for check in CHECKS if check.waiting)


@dataclass(frozen=True)
class Change:
    """How a number differs from an earlier one, in users, both as first published.

    `half_width_95` is how far noise alone, and with a sampled sketch its error, would move the difference in 95 of 100
    cases if nothing had changed.
    """

    against: date
    days_before: int
    difference: float
    half_width_95: float

    @property
    def exceeds_noise(self) -> bool:
        """Whether the difference is larger than `half_width_95`."""
        return abs(self.difference) > self.half_width_95


@dataclass(frozen=True)
class NewestNumber:
    """The last published day of a metric: its number, the changes that exceed their noise, and how many were tried."""

    metric: Metric
    window_days: int
    day: date
    number: Number
    changes: tuple[Change, ...]
    compared: int


@dataclass(frozen=True)
class Digest:
    """What the message says.

    Attributes:
        as_of: the last due day of a published number.
        restated: the months whose DAU was released once more on that day, by their first day.
        needs: what somebody has to look at, a sentence each; checks of work that is under way are not among them.
    """

    as_of: date
    numbers: tuple[NewestNumber, ...]
    restated: tuple[date, ...]
    needs: tuple[str, ...]

    @property
    def key(self) -> str:
        """What it tells of: no two messages have the same, whatever the checks say meanwhile."""
        days = [f"{newest.metric} {newest.day}" for newest in self.numbers]
        return ", ".join([str(self.as_of), *days, *map(str, self.restated)])


class Digests(Protocol):
    """Where operators are told once a day what was published."""

    def digest(self, digest: Digest) -> bool:
        """Keep it for whoever is to have it; False if one of exactly these days was kept before. Raises DpdauError."""
        ...


def digest_of(report: Report, ledger: LedgerView) -> Digest | None:
    """The digest of the operators' report, whose numbers this ledger holds; None before the first number.

    Raises Refused for a number that was drawn from predictable noise.
    """
    if report.as_of is None:
        return None
    with ledger.snapshot() as snapshot:
        rows = [row for row in mart_rows(snapshot) if not row.key.revision]
        runs = {run.name: run for run in snapshot.mechanism_runs()}
    return Digest(
        as_of=report.as_of,
        numbers=tuple(newest for series in report.series if (newest := _newest(series, rows, runs))),
        restated=tuple(sorted(_restated(report))),
        needs=tuple(_needs(report)),
    )


def _newest(series: Series, rows: list[MartRow], runs: Mapping[str, MechanismRun]) -> NewestNumber | None:
    last = series.last
    if last is None:
        return None
    published = {row.key.day: row for row in rows if _series_key(row) == (series.metric, series.window_days)}
    before = [(days, published.get(last.day - timedelta(days=days))) for days in COMPARED_DAYS_BEFORE]
    changes = [
        change
        for days, earlier in before
        if earlier is not None and (change := change_between(earlier, published[last.day], runs, days))
    ]
    return NewestNumber(
        series.metric,
        series.window_days,
        last.day,
        last.latest,
        tuple(change for change in changes if change.exceeds_noise),
        len(changes),
    )


def _series_key(row: MartRow) -> tuple[Metric, int]:
    """Which series the row is of."""
    return row.key.metric, row.key.window_days


def change_between(
    earlier: MartRow, later: MartRow, runs: Mapping[str, MechanismRun], days_before: int
) -> Change | None:
    """The change between two numbers of one series; None where a full sketch bounds one of them on no side.

    Sampled people of two days have people in common, and how many is data: so the errors of two sketches are added up,
    which is enough whatever they have in common.
    """
    if all(isinstance(estimator_of(runs[row.mechanism_run]), ExactEstimator) for row in (earlier, later)):
        half_width: float | None = change_half_width_95(_noise_of(earlier, runs), _noise_of(later, runs))
    else:
        errors = [_error(row, runs) for row in (earlier, later)]
        half_width = None if None in errors else sum(error for error in errors if error is not None)
    if half_width is None:
        return None
    return Change(earlier.key.day, days_before, later.noisy_value - earlier.noisy_value, half_width)


def _noise_of(row: MartRow, runs: Mapping[str, MechanismRun]) -> NoiseOf:
    run = runs[row.mechanism_run]
    return NoiseOf(run.mechanism, run.name, (row.key.day - run.first_day).days + 1)


def _error(row: MartRow, runs: Mapping[str, MechanismRun]) -> float | None:
    """The larger side of the number's interval, before it is clamped at 0 for display."""
    run = runs[row.mechanism_run]
    lower, upper = estimator_of(run).interval(row.noisy_statistic, noise_width(run.mechanism, row.half_width))
    return None if upper is None else max(upper - row.noisy_value, row.noisy_value - lower)


def _restated(report: Report) -> set[date]:
    return {
        month_of(day.day)
        for series in report.series
        for day in series.days
        if day.is_restated and day.latest.due_on == report.as_of
    }


def _needs(report: Report) -> Iterator[str]:
    if report.for_operators is None:
        return
    for check in report.for_operators.checks:
        if not check.passed and check.name not in _UNDER_WAY:
            yield f"{check.name}: {check.sentence}"
    if report.for_operators.weak_secret:
        yield report.for_operators.weak_secret
