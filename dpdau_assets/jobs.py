"""The jobs, and the one loop that runs many of them in this process."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from dpdau_assets.core import receipts, retention, runs
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.runs import Step

_APPLIED = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("activity"), "erasures_applied"))


def _building(*assets: str) -> dg.AssetSelection:
    """These assets without the checks of the whole store, which would be asked again on every day."""
    built = dg.AssetSelection.assets(*assets).without_checks()
    return built | _APPLIED if "activity" in assets else built


STATE = dg.define_asset_job(
    runs.STATE,
    selection=_building("erasures", "activity", "day_sketch"),
    description="Fold the inbox into a day's state and sketch, with every erasure applied.",
)
DAU = dg.define_asset_job(
    runs.DAU,
    selection=_building("erasures", "activity", "day_sketch", "dau_release"),
    description="A day's state, sketch and published DAU.",
)
MAU = dg.define_asset_job(
    runs.MAU,
    selection=["mau_release"],
    tags={"dpdau/stream": "mau"},  # dagster.yaml admits one at a time: a stream's days follow one another
    description="A day's published MAU; its 30 days of state must be there, and the day before be published.",
)
RESTATEMENT = dg.define_asset_job(
    runs.RESTATEMENT,
    selection=["dau_restatement"],
    description="Every DAU of a month once more, on the month's public day: erased users gone, late events in.",
)
REPORTS = dg.define_asset_job(
    runs.REPORTS, selection=_building("active_users", "budget_report"), description="The mart and the budget report."
)
CHECKS = dg.define_asset_job(
    "check_store",
    selection=dg.AssetSelection.all_asset_checks() - _APPLIED,
    description="For CI: exits with 1 if an erasure is overdue, somebody is left, or the ledger cannot be believed.",
)
ALL = (STATE, DAU, MAU, RESTATEMENT, REPORTS)


@dg.op(pool="state")
def settle_erasures(outside: dg.ResourceParam[Outside]) -> None:
    """Apply what was received, read everything back, write receipts; fails while something is left of anybody."""
    if receipts.settle(outside).unverified:
        raise Refused(
            "Something is left of an erased person.",
            "`dpdau receipt` says where; what this project did not write, remove by hand.",
        )


@dg.op(pool="state")
def purge_state(outside: dg.ResourceParam[Outside]) -> None:
    """Unlink what is past retention."""
    retention.purge(outside)


@dg.job(name="verify_erasures", description="Apply all erasures, read everything back, and write the receipts.")
def VERIFICATION() -> None:
    settle_erasures()


@dg.job(name="purge_expired", description="Purge days past RETENTION_DAYS that no planned release needs.")
def PURGE() -> None:
    purge_state()


UPKEEP = (CHECKS, VERIFICATION, PURGE)


def run_steps(
    wanted: list[Step], definitions: dg.Definitions, instance: dg.DagsterInstance, done: Callable[[Step], None]
) -> None:
    """Execute each step as a Dagster run in this process; the first failure is raised as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # resolving a sensor copies a young part of it
        jobs = {job.name: definitions.resolve_job_def(job.name) for job in ALL}
    for step in wanted:
        jobs[step.job].execute_in_process(
            partition_key=step.day.isoformat() if step.day else None,
            instance=instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        done(step)


def shipped_configuration() -> Path:
    """The project's dagster.yaml: at the top of a checkout, beside this module once installed from a wheel."""
    installed = Path(__file__).with_name("dagster.yaml")
    return installed if installed.exists() else Path(__file__).resolve().parents[1] / "dagster.yaml"


def open_instance(home: Path) -> dg.DagsterInstance:
    """The Dagster instance of this DAGSTER_HOME, with the settings that dpdau ships where it has none of its own."""
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copy(shipped_configuration(), home / "dagster.yaml")
    return dg.DagsterInstance.from_config(str(home))
