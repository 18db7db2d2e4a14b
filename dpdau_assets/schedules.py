"""What runs by the calendar. All of it is off until somebody switches it on: it publishes, or it destroys."""

from datetime import timedelta

import dagster as dg

from dpdau_assets.core.ports import Outside
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.windows import month_of
from dpdau_assets.jobs import PURGE, RESTATEMENT

_OFF = dg.DefaultScheduleStatus.STOPPED


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The restatement where there is one, and the purge where RETENTION_DAYS is set."""
    restatement = [build_monthly_restatement(settings)] if settings.restatements_per_month else []
    return restatement + ([build_daily_purge(settings)] if settings.retention_days is not None else [])


def build_monthly_restatement(settings: Settings) -> dg.ScheduleDefinition:
    """At noon from RESTATEMENT_DAY on, until the month before is restated; refused while numbers of it are missing."""

    @dg.schedule(
        name="monthly_restatement", job=RESTATEMENT, cron_schedule=f"0 12 {settings.restatement_day}-31 * *",
        execution_timezone=settings.timezone, default_status=_OFF, description="Restates the month before.",
    )  # fmt: skip
    def monthly_restatement(
        context: dg.ScheduleEvaluationContext, outside: dg.ResourceParam[Outside]
    ) -> dg.RunRequest | dg.SkipReason:
        today = context.scheduled_execution_time.date()
        month = month_of(month_of(today) - timedelta(days=1))
        if month in outside.ledger.restated():
            return dg.SkipReason(f"{month:%Y-%m} is restated.")
        return dg.RunRequest(run_key=f"{month}/{today}", partition_key=month.isoformat())

    return monthly_restatement


def build_daily_purge(settings: Settings) -> dg.ScheduleDefinition:
    """Every night; where nothing is due it does nothing, and while a number is missing it fails and says which."""
    return dg.ScheduleDefinition(
        name="daily_purge", job=PURGE, cron_schedule="30 3 * * *", execution_timezone=settings.timezone,
        default_status=_OFF, description="Purges what is past retention.",
    )  # fmt: skip
