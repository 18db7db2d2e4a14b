"""The partitions that assets share, made from the settings: days, and the days on which a MAU window is whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import dagster as dg

from dpdau_assets.core.settings import Settings
from dpdau_assets.core.windows import first_window_end


@dataclass(frozen=True)
class Calendar:
    """`mau_days` starts window_days - 1 later than `days`: were it the same, day 2 would get a window of two days."""

    days: dg.DailyPartitionsDefinition
    mau_days: dg.DailyPartitionsDefinition
    window_days: int

    @property
    def window(self) -> dg.TimeWindowPartitionMapping:
        """From a MAU day to the days that its window reads."""
        return dg.TimeWindowPartitionMapping(start_offset=1 - self.window_days, end_offset=0)

    @property
    def day_before(self) -> dg.TimeWindowPartitionMapping:
        """From a day to the one that must be published first."""
        return dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)


def day_of(context: dg.AssetExecutionContext) -> date:
    """The one day of this run. Dagster raises an error in a run over a range, which would report one day as many."""
    return date.fromisoformat(context.partition_key)


def calendar_of(settings: Settings) -> Calendar:
    """The project's partitions."""
    first_mau_day = first_window_end(settings.start_date, settings.mau_window_days)
    return Calendar(
        days=dg.DailyPartitionsDefinition(settings.start_date.isoformat(), timezone=settings.timezone),
        mau_days=dg.DailyPartitionsDefinition(first_mau_day.isoformat(), timezone=settings.timezone),
        window_days=settings.mau_window_days,
    )
