"""Published numbers as series: what charts, the report and the mart draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.reporting.report_model import Day, Number, Series
from dpdau_assets.core.restored import MartRow
from dpdau_assets.core.settings import Metric


def series_of(metric: Metric, window_days: int, rows: Iterable[MartRow]) -> Series:
    """One metric with one window. Rows come in order of metric, window, day and revision, as `mart_rows` gives them."""
    mine = (row for row in rows if (row.key.metric, row.key.window_days) == (metric, window_days))
    days = (Day(day, tuple(map(_number, same_day))) for day, same_day in groupby(mine, key=lambda row: row.key.day))
    return Series(metric, window_days, tuple(days))


def all_series(rows: Sequence[MartRow]) -> list[Series]:
    """Every series that the rows have, DAU first."""
    windows = sorted({(METRICS.index(row.key.metric), row.key.window_days) for row in rows})
    return [series_of(METRICS[metric], window_days, rows) for metric, window_days in windows]


def _number(row: MartRow) -> Number:
    return Number(
        row.key.revision, row.noisy_value, row.estimate, row.lower_95, row.upper_95, due_on=row.published_at.date()
    )
