"""The jobs, and the one loop that materialises a range of days in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg

from dpdau_assets.core.settings import Settings
from dpdau_assets.core.windows import days_between, first_window_end

STATE = dg.define_asset_job(
    "build_state", selection=["activity", "day_sketch"], description="Fold the inbox into a day's state and sketch."
)
DAU = dg.define_asset_job(
    "publish_dau",
    selection=["activity", "day_sketch", "dau_release"],
    description="A day's state, sketch and published DAU.",
)
MAU = dg.define_asset_job("publish_mau", selection=["mau_release"], description="A day's published MAU.")
REPORTS = dg.define_asset_job(
    "refresh_mart", selection=["active_users", "budget_report"], description="The mart and the budget report."
)
ALL = (STATE, DAU, MAU, REPORTS)


@dataclass(frozen=True)
class Step:
    """One run: a job and, but for the reports, its day."""

    job: str
    day: date | None

    @property
    def title(self) -> str:
        """For a progress bar."""
        return f"{self.job} {self.day or ''}"


def steps(first: date, last: date, settings: Settings) -> Iterator[Step]:
    """Every run that publishes these days: first the state that the first window reaches back to, then day by day."""
    first_mau_day = first_window_end(settings.start_date, settings.mau_window_days)
    reach = max(settings.start_date, first - timedelta(days=settings.mau_window_days - 1))
    for day in days_between(reach, first - timedelta(days=1)):
        yield Step(STATE.name, day)
    for day in days_between(first, last):
        yield Step(DAU.name, day)
        if day >= first_mau_day:
            yield Step(MAU.name, day)
    yield Step(REPORTS.name, None)


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
