"""The partitions that assets share, made from the settings: days, days on which a MAU window is whole, and months."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import dagster as dg

from dpdau_assets.core.dates import first_window_end, month_of
from dpdau_assets.core.settings import Settings


@dataclass(frozen=True)
class Calendar:
    """`mau_days` starts window_days - 1 later than `days`: were it the same, day 2 would get a window of two days."""

    days: dg.DailyPartitionsDefinition
    mau_days: dg.DailyPartitionsDefinition
    months: dg.MonthlyPartitionsDefinition
    window_days: int

    @property
    def window(self) -> dg.TimeWindowPartitionMapping:
        """From a MAU day to the days that its window reads."""
        return dg.TimeWindowPartitionMapping(start_offset=1 - self.window_days, end_offset=0)

    @property
    def day_before(self) -> dg.TimeWindowPartitionMapping:
        """From a day to the one that must be published first."""
        return dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)

    @property
    def days_of_month(self) -> dg.TimeWindowPartitionMapping:
        """From a month to its days; the first month may begin before the first day does."""
        return dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)


def day_of(context: dg.AssetExecutionContext) -> date:
    """The one day of this run, of a month its first. Dagster raises an error in a run over a range of partitions."""
    return date.fromisoformat(context.partition_key)


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """Every day of this run, in order: one, or those of a backfill."""
    return sorted(map(date.fromisoformat, context.partition_keys))


def calendar_of(settings: Settings) -> Calendar:
    """The project's partitions."""
    first_mau_day = first_window_end(settings.start_date, settings.mau_window_days)
    return Calendar(
        days=dg.DailyPartitionsDefinition(settings.start_date.isoformat(), timezone=settings.timezone),
        mau_days=dg.DailyPartitionsDefinition(first_mau_day.isoformat(), timezone=settings.timezone),
        months=dg.MonthlyPartitionsDefinition(
            month_of(settings.start_date).isoformat(), fmt="%Y-%m-%d", timezone=settings.timezone
        ),
        window_days=settings.mau_window_days,
    )
