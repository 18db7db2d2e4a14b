"""The jobs: those over assets, and those of ops that publish, rebuild, take in, verify and purge."""

from dataclasses import dataclass, fields
from datetime import date
from typing import Any

import dagster as dg

from dpdau_assets.core.erasure import receipts, retention
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Clock, Erasures, Events, State
from dpdau_assets.core.publication import completeness
from dpdau_assets.core.publication.ingest import in_whole_per_cent
from dpdau_assets.orchestration import names
from dpdau_assets.orchestration.bulk import (
    build_due_numbers,
    build_many_days,
    build_missing_days,
    build_numbers,
    build_refresh,
)
from dpdau_assets.orchestration.private import Job
from dpdau_assets.orchestration.project import ASSETS, Project
from dpdau_assets.orchestration.recorder import ANSWERED_IN_RUNS, check_keys
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once

IN_ORDER = {"dpdau/publication": "in order"}
"""dagster.yaml admits one run with this tag at a time, first in first out: so a stream's days follow one another."""

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""A run in one of these was launched and is not over."""


@dataclass(frozen=True)
class Jobs:
    """The project's jobs, as schedules and sensors ask for them."""

    state: Job
    rebuild: dg.JobDefinition
    dau: Job
    mau: Job
    restatement: Job
    reports: Job
    publishing: dg.JobDefinition
    numbers: dg.JobDefinition
    checks: Job
    landed: dg.JobDefinition
    verification: dg.JobDefinition
    purge: dg.JobDefinition

    def all(self) -> list[Any]:
        return [getattr(self, job.name) for job in fields(self)]


def build_jobs(project: Project) -> Jobs:
    """Every job; each step of a run follows the one before it in one process, where the store is open already."""
    return Jobs(
        state=_asset_job(
            project,
            names.BUILD_STATE,
            _building(project, "erasures", "activity", "day_sketch"),
            "Fold the inbox into a day's state and sketch, with every erasure applied.",
        ),
        rebuild=_rebuild(project),
        dau=_asset_job(
            project,
            names.PUBLISH_DAU,
            _building(project, "dau_release"),
            "A day's published DAU; its state must be there.",
            IN_ORDER,
        ),
        mau=_asset_job(
            project,
            names.PUBLISH_MAU,
            _building(project, "mau_release"),
            "A day's published MAU; its 30 days of state must be there, and the day before be published.",
            IN_ORDER,
        ),
        restatement=_asset_job(
            project,
            names.RESTATE_DAU,
            _building(project, "dau_restatement"),
            "Every DAU of a month once more, on the month's public day: erased users gone, late events in.",
            IN_ORDER,
        ),
        reports=_asset_job(
            project,
            names.REFRESH_MART,
            _building(project, "active_users", "budget_report", "report"),
            "The mart, the budget report, and the files for readers and operators.",
        ),
        publishing=_publishing(project),
        numbers=_numbers(project),
        checks=_asset_job(
            project,
            names.CHECK_STORE,
            _whole_store(project),
            "For CI: exits with 1 if an erasure is overdue, somebody is left, or the ledger cannot be believed.",
        ),
        landed=_landed(project),
        verification=_verification(project),
        purge=_purge(project),
    )


# --- Jobs over assets --------------------------------------------------------------------------------------------


def _asset_job(
    project: Project, name: str, selection: dg.AssetSelection, description: str, tags: dict[str, str] | None = None
) -> Job:
    return dg.define_asset_job(
        project.name(name),
        selection=selection,
        tags=tags,
        description=description,
        executor_def=dg.in_process_executor,
    )


def _building(project: Project, *assets: str) -> dg.AssetSelection:
    """Assets, and of their checks those that their own steps answer: others would be asked again on every day."""
    selection = dg.AssetSelection.assets(*map(project.asset, assets)).without_checks()
    answered = check_keys(project, assets)
    return selection | dg.AssetSelection.checks(*answered) if answered else selection


def _whole_store(project: Project) -> dg.AssetSelection:
    """Every check of ours but those of a single partition, which the run that makes it answers."""
    return dg.AssetSelection.checks_for_assets(*map(project.asset, ASSETS)) - dg.AssetSelection.checks(
        *check_keys(project, ANSWERED_IN_RUNS)
    )


# --- Jobs of ops -------------------------------------------------------------------------------------------------


def _rebuild(project: Project) -> dg.JobDefinition:
    build_all = build_many_days(project)

    @dg.job(
        name=project.name(names.REBUILD_DAYS),
        executor_def=dg.in_process_executor,
        description="Fold the inbox and build every day that arrivals, erasures or a declaration ask for, in one run.",
    )
    def rebuild() -> None:
        build_all()

    return rebuild


def _publishing(project: Project) -> dg.JobDefinition:
    build, publish, refresh = build_missing_days(project), build_due_numbers(project), build_refresh(project)

    @dg.job(
        name=project.name(names.PUBLISH_DUE),
        tags=IN_ORDER,
        executor_def=dg.in_process_executor,
        description="Build what is missing, publish every number that is due and complete, refresh mart and reports.",
    )
    def publishing() -> None:
        refresh(published=publish(built=build()))

    return publishing


def _numbers(project: Project) -> dg.JobDefinition:
    publish_these = build_numbers(project)

    @dg.job(
        name=project.name(names.PUBLISH_NUMBERS),
        tags=IN_ORDER,
        executor_def=dg.in_process_executor,
        description="Publish the numbers that it is told, in order, in one run: what `dpdau run` does.",
    )
    def numbers() -> None:
        publish_these()

    return numbers


NOT_TAKEN, NEW_LINE = "What landed could not be taken in.", "\n  "
"""How a refused landing is told: a line a folder, so that an alert tells each once."""

TAKE_LANDED = "take_landed_days"
"""The op of the job that takes in what landed."""


class Landed(dg.Config):
    """Days (YYYY-MM-DD) whose folders in LANDING_DIR are finished."""

    days: list[str]


def _landed(project: Project) -> dg.JobDefinition:
    @dg.op(name=project.name(TAKE_LANDED), pool=project.name("state"), retry_policy=SAFE)
    @project.asking
    def take_landed_days(
        context: dg.OpExecutionContext,
        config: Landed,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
    ) -> None:
        """Take in what landed for each day, and declare it complete; a day that fails does not hold up the others."""
        store = project.store(
            clock=clock, accountant=accountant, erasure_ledger=erasure_ledger, events=events, state=state
        )
        with refusals_fail_at_once():
            taken = completeness.take_all_landed([date.fromisoformat(day) for day in config.days], store)
            for day, share in taken.elsewhere.items():
                context.log.warning(f"In day={day}, {in_whole_per_cent(share)} of the events are of other days.")
            if taken.refused:
                raise Refused(
                    f"{NOT_TAKEN}{''.join(f'{NEW_LINE}{day}: {why}' for day, why in taken.refused.items())}\n",
                    "`dpdau ingest --from` its folder names the file.",
                )

    @dg.job(
        name=project.name("take_landed"),
        executor_def=dg.in_process_executor,
        description="Take in the files that landed for these days, and declare the days complete.",
    )
    def landed() -> None:
        take_landed_days()

    return landed


def _verification(project: Project) -> dg.JobDefinition:
    @dg.op(name=project.name("settle_erasures"), pool=project.name("state"), retry_policy=SAFE)
    @project.asking
    def settle_erasures(
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
    ) -> None:
        """Apply what was received, read everything back, write receipts; fails while something is left of anybody."""
        store = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
        )
        with refusals_fail_at_once():
            done = receipts.apply_and_verify(store)
            if done.unverified or done.broken:
                raise Refused(
                    "Something is left of an erased person.",
                    "`dpdau receipt` says where; what this project did not write, remove by hand.",
                )

    @dg.job(
        name=project.name("verify_erasures"),
        executor_def=dg.in_process_executor,
        description="Apply all erasures, read everything back, and write the receipts.",
    )
    def verification() -> None:
        settle_erasures()

    return verification


def _purge(project: Project) -> dg.JobDefinition:
    @dg.op(name=project.name("purge_state"), pool=project.name("state"), retry_policy=SAFE)
    @project.asking
    def purge_state(
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
    ) -> None:
        """Unlink what is past retention."""
        store = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
        )
        with refusals_fail_at_once():
            retention.purge(store)

    @dg.job(
        name=project.name("purge_expired"),
        executor_def=dg.in_process_executor,
        description="Purge days past RETENTION_DAYS that no planned release needs.",
    )
    def purge() -> None:
        purge_state()

    return purge
