"""What runs by the calendar. What publishes or destroys is off until somebody switches it on."""

from datetime import timedelta

import dagster as dg

from dpdau_assets.core.budget.planning import restatement_due
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Clock, Events
from dpdau_assets.core.privacy.schedule import due_on
from dpdau_assets.core.publication.due import Due, due
from dpdau_assets.orchestration.jobs import IN_ORDER, UNDER_WAY, Jobs
from dpdau_assets.orchestration.names import CHECK_STORE_NIGHTLY, PUBLISH_DUE_HOURLY
from dpdau_assets.orchestration.project import Project

_OFF = dg.DefaultScheduleStatus.STOPPED
_ON = dg.DefaultScheduleStatus.RUNNING


def build_schedules(project: Project, jobs: Jobs) -> list[dg.ScheduleDefinition]:
    """The restatement where there is one, and the purge where RETENTION_DAYS is set."""
    settings = project.settings
    restatement = [build_restate_monthly(project, jobs)] if settings.restatements_per_month else []
    retention = [build_retention_daily(project, jobs)] if settings.retention_days is not None else []
    return [build_publish_due_hourly(project, jobs), *restatement, *retention, build_check_store_nightly(project, jobs)]


def build_publish_due_hourly(project: Project, jobs: Jobs) -> dg.ScheduleDefinition:
    """Every hour, whatever is due and complete, in order; after downtime that is more than a day.

    A day that upstream has not declared complete is waited for, and those after it with it; the check
    `published_on_time` says so.
    """

    @dg.schedule(
        name=project.name(PUBLISH_DUE_HOURLY),
        job=jobs.publishing,
        cron_schedule="5 * * * *",
        execution_timezone=project.settings.timezone,
        default_status=_OFF,
        description="Publishes DAU and MAU of every day that is due and declared complete.",
    )
    @project.asking
    def publish_due_hourly(
        context: dg.ScheduleEvaluationContext,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        events: dg.ResourceParam[Events],
    ) -> dg.RunRequest | dg.SkipReason:
        under_way = [dg.DagsterRunStatus.NOT_STARTED, *UNDER_WAY]  # what was made and not launched will be
        if context.instance.get_runs(dg.RunsFilter(tags=IN_ORDER, statuses=under_way), limit=1):
            return dg.SkipReason("Publication is under way.")
        waiting = due(project.store(clock=clock, accountant=accountant, events=events))
        if not waiting.numbers:
            return dg.SkipReason(_why_nothing(waiting))
        return dg.RunRequest(f"publish/{context.scheduled_execution_time:%Y-%m-%dT%H%z}")

    return publish_due_hourly


def _why_nothing(waiting: Due) -> str:
    if waiting.unmarked:
        return f"{waiting.unmarked[0]} is not declared complete: `dpdau complete`, or its _SUCCESS file."
    return waiting.refused or "Everything that is due is published."


def build_restate_monthly(project: Project, jobs: Jobs) -> dg.ScheduleDefinition:
    """At noon from RESTATEMENT_DAY on, until the month before is restated; not while numbers of it are missing."""

    @dg.schedule(
        name=project.name("restate_monthly"),
        job=jobs.restatement,
        cron_schedule=f"0 12 {project.settings.restatement_day}-31 * *",
        execution_timezone=project.settings.timezone,
        default_status=_OFF,
        description="Restates the month before.",
    )
    @project.asking
    def restate_monthly(
        context: dg.ScheduleEvaluationContext, accountant: dg.ResourceParam[Ledger]
    ) -> dg.RunRequest | dg.SkipReason:
        today = context.scheduled_execution_time.date()
        month = month_of(month_of(today) - timedelta(days=1))
        if month in accountant.restated():
            return dg.SkipReason(f"{month:%Y-%m} is restated.")
        public_day = restatement_due(month, accountant.mechanism_runs(), project.settings)
        published = [release.key.day for release in accountant.releases("dau")]
        if public_day is None or due_on(project.settings, max(published)) < public_day:
            return dg.SkipReason(f"Publication has not come to the day on which {month:%Y-%m} is restated.")
        return dg.RunRequest(run_key=f"{month}/{today}", partition_key=month.isoformat())

    return restate_monthly


def build_retention_daily(project: Project, jobs: Jobs) -> dg.ScheduleDefinition:
    """Every night; where nothing is due it does nothing, and while a number is missing it fails and says which."""
    return dg.ScheduleDefinition(
        name=project.name("retention_daily"),
        job=jobs.purge,
        cron_schedule="30 3 * * *",
        execution_timezone=project.settings.timezone,
        default_status=_OFF,
        description="Purges what is past retention.",
    )


def build_check_store_nightly(project: Project, jobs: Jobs) -> dg.ScheduleDefinition:
    """Every night, and on from the start, since it only reads: a check that blocks fails the run, which is told."""
    return dg.ScheduleDefinition(
        name=project.name(CHECK_STORE_NIGHTLY),
        job=jobs.checks,
        cron_schedule="30 4 * * *",
        execution_timezone=project.settings.timezone,
        default_status=_ON,
        description="Reads the ledger and the live files back, by every check of the store.",
    )
