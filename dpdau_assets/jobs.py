"""The jobs, and the one loop that runs many of them in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from dpdau_assets.core import runs
from dpdau_assets.core.runs import Step

STATE = dg.define_asset_job(
    runs.STATE, selection=["activity", "day_sketch"], description="Fold the inbox into a day's state and sketch."
)
DAU = dg.define_asset_job(
    runs.DAU,
    selection=["activity", "day_sketch", "dau_release"],
    description="A day's state, sketch and published DAU.",
)
MAU = dg.define_asset_job(
    runs.MAU,
    selection=["mau_release"],
    tags={"dpdau/stream": "mau"},  # dagster.yaml admits one at a time: a stream's days follow one another
    description="A day's published MAU; its 30 days of state must be there, and the day before be published.",
)
REPORTS = dg.define_asset_job(
    runs.REPORTS, selection=["active_users", "budget_report"], description="The mart and the budget report."
)
ALL = (STATE, DAU, MAU, REPORTS)


def run_steps(
    wanted: list[Step], definitions: dg.Definitions, instance: dg.DagsterInstance, done: Callable[[Step], None]
) -> None:
    """Execute each step as a Dagster run in this process; the first failure is raised as it is."""
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
