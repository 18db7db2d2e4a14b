"""The jobs, and the one loop that runs many of them in this process."""

import warnings
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

import dagster as dg

from dpdau_assets.core.erasure import receipts, retention
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication import completeness
from dpdau_assets.core.publication.ingest import in_whole_per_cent
from dpdau_assets.core.publication.runs import Step
from dpdau_assets.orchestration import names
from dpdau_assets.orchestration.bulk import (
    REBUILD,
    build_many_days,
    build_missing_days,
    publish_due_numbers,
    refresh_reports,
)
from dpdau_assets.orchestration.recorder import ANSWERED_IN_RUNS, check_keys
from dpdau_assets.orchestration.retries import SAFE, cause_of, refusals_fail_at_once


def _building(*assets: str) -> dg.AssetSelection:
    """These assets, and of their checks those that their own steps answer: others would be asked again on every day."""
    built = dg.AssetSelection.assets(*assets).without_checks()
    answered = check_keys(assets)
    return built | dg.AssetSelection.checks(*answered) if answered else built


IN_ORDER = {"dpdau/publication": "in order"}
"""dagster.yaml admits one run with this tag at a time, first in first out: so a stream's days follow one another."""

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""A run in one of these was launched and is not over."""

STATE = dg.define_asset_job(
    names.BUILD_STATE,
    selection=_building("erasures", "activity", "day_sketch"),
    description="Fold the inbox into a day's state and sketch, with every erasure applied.",
)
DAU = dg.define_asset_job(
    names.PUBLISH_DAU,
    selection=_building("dau_release"),
    tags=IN_ORDER,
    description="A day's published DAU; its state must be there.",
)
MAU = dg.define_asset_job(
    names.PUBLISH_MAU,
    selection=_building("mau_release"),
    tags=IN_ORDER,
    description="A day's published MAU; its 30 days of state must be there, and the day before be published.",
)
RESTATEMENT = dg.define_asset_job(
    names.RESTATE_DAU,
    selection=_building("dau_restatement"),
    tags=IN_ORDER,
    description="Every DAU of a month once more, on the month's public day: erased users gone, late events in.",
)
REPORTS = dg.define_asset_job(
    names.REFRESH_MART,
    selection=_building("active_users", "budget_report", "report"),
    description="The mart, the budget report, and the files for readers and operators.",
)
CHECKS = dg.define_asset_job(
    names.CHECK_STORE,
    selection=dg.AssetSelection.all_asset_checks() - dg.AssetSelection.checks(*check_keys(ANSWERED_IN_RUNS)),
    description="For CI: exits with 1 if an erasure is overdue, somebody is left, or the ledger cannot be believed.",
)


@dg.job(
    name=names.PUBLISH_DUE,
    tags=IN_ORDER,
    description="Build what is missing, publish every number that is due and complete, refresh mart and reports.",
)
def PUBLISHING() -> None:
    refresh_reports(published=publish_due_numbers(built=build_missing_days()))


ALL = (STATE, REBUILD, DAU, MAU, RESTATEMENT, REPORTS)


NOT_TAKEN, NEW_LINE = "What landed could not be taken in.", "\n  "
"""How a refused landing is told: a line a folder, so that an alert tells each once."""


class Landed(dg.Config):
    """Days (YYYY-MM-DD) whose folders in LANDING_DIR are finished."""

    days: list[str]


@dg.op(pool="state", retry_policy=SAFE)
def take_landed_days(context: dg.OpExecutionContext, config: Landed, outside: dg.ResourceParam[Store]) -> None:
    """Take in what landed for each day, and declare it complete; a day that fails does not hold up the others."""
    with refusals_fail_at_once():
        taken = completeness.take_all_landed([date.fromisoformat(day) for day in config.days], outside)
        for day, share in taken.elsewhere.items():
            context.log.warning(f"In day={day}, {in_whole_per_cent(share)} of the events are of other days.")
        if taken.refused:
            raise Refused(
                f"{NOT_TAKEN}{''.join(f'{NEW_LINE}{day}: {why}' for day, why in taken.refused.items())}\n",
                "`dpdau ingest --from` its folder names the file.",
            )


@dg.op(pool="state", retry_policy=SAFE)
def settle_erasures(outside: dg.ResourceParam[Store]) -> None:
    """Apply what was received, read everything back, write receipts; fails while something is left of anybody."""
    with refusals_fail_at_once():
        done = receipts.apply_and_verify(outside)
        if done.unverified or done.broken:
            raise Refused(
                "Something is left of an erased person.",
                "`dpdau receipt` says where; what this project did not write, remove by hand.",
            )


@dg.op(pool="state", retry_policy=SAFE)
def purge_state(outside: dg.ResourceParam[Store]) -> None:
    """Unlink what is past retention."""
    with refusals_fail_at_once():
        retention.purge(outside)


@dg.job(name="take_landed", description="Take in the files that landed for these days, and declare the days complete.")
def LANDED() -> None:
    take_landed_days()


@dg.job(name="verify_erasures", description="Apply all erasures, read everything back, and write the receipts.")
def VERIFICATION() -> None:
    settle_erasures()


@dg.job(name="purge_expired", description="Purge days past RETENTION_DAYS that no planned release needs.")
def PURGE() -> None:
    purge_state()


UPKEEP = (PUBLISHING, CHECKS, LANDED, VERIFICATION, PURGE)


def run_steps(
    wanted: list[Step], definitions: dg.Definitions, instance: dg.DagsterInstance, done: Callable[[Step], None]
) -> None:
    """Execute each step as a Dagster run in this process; the first failure is raised as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # resolving a sensor copies a young part of it
        jobs = {job.name: definitions.resolve_job_def(job.name) for job in ALL}
    for step in wanted:
        config = _building_config(step.days) if step.days else {}
        try:
            jobs[names.JOB_OF[step.kind]].execute_in_process(
                partition_key=step.day.isoformat() if step.day else None,
                instance=instance,
                run_config={**config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        except dg.Failure as failure:
            raise cause_of(failure) from None
        done(step)


def _building_config(days: Iterable[date]) -> dict[str, Any]:
    """Which days a run in bulk builds."""
    return {"ops": {build_many_days.name: {"config": {"days": [day.isoformat() for day in days]}}}}
