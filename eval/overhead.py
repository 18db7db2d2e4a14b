"""What Dagster costs: `python -m eval.overhead` prints it, of one run on one machine.

A year is published from a full inbox in one run, and taken apart into Dagster, SQLite and our own work; then single
partitions, in this process and under the daemon; then the way from an erasure to fresh days.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from sqlalchemy.engine.default import DefaultDialect

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication import release
from dpdau_assets.core.publication.completeness import complete
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.publication.runs import BUILD, Step
from dpdau_assets.orchestration import bulk, publishing
from dpdau_assets.orchestration.names import BUILD_STATE, PUBLISH_DAU, REBUILD_DAYS
from eval.simulate import DEFAULT_SEED, generate_synthetic
from resources.reading.event_files import event_file

FIRST_DAY, DAYS = date(2025, 1, 1), 365
USERS, EVENTS = 20_000, 2_000_000
SINGLE = 20  # partitions of the single-day measures
PROJECT = Path(__file__).parents[1]
PATIENCE_SECONDS = 600


def main() -> None:
    """Print every measure, one line each."""
    with tempfile.TemporaryDirectory() as folder:
        configure(Path(folder))
        store, instance = open_all(Path(folder))
        days = days_between(FIRST_DAY, FIRST_DAY + timedelta(days=DAYS - 1))
        fill(Path(folder), days, store)
        year(store, instance)
        one_process(days[:SINGLE], instance)
        with daemon(Path(folder)):
            separate_runs(days[:SINGLE], instance)
            sensor_to_fresh(days[10:13], store)


# --- The store ---------------------------------------------------------------------------------------------------


def configure(folder: Path) -> None:
    """Through the environment, which runs in other processes read too."""
    os.environ.update(
        DATA_DIR=str(folder / "data"),
        DAGSTER_HOME=str(folder / "dagster_home"),
        START_DATE=str(FIRST_DAY),
        HASH_SALT_SECRET=secrets.token_hex(32),
    )


def open_all(folder: Path) -> tuple[Store, dg.DagsterInstance]:
    """The store, and a Dagster instance with the settings that the project ships."""
    from resources.dagster_instance import open_run
    from resources.settings_env import read_settings
    from resources.store import open_store

    return open_store(read_settings()), open_run(folder / "dagster_home")


def fill(folder: Path, days: list[date], store: Store) -> None:
    """A year of events in the inbox, and every day declared complete."""
    file = folder / "events.parquet"
    generate_synthetic(file, days=DAYS, users=USERS, events=EVENTS, first_day=FIRST_DAY, seed=DEFAULT_SEED)
    ingest([event_file(file)], store)
    for day in days:
        complete(day, store)


# --- A year in one run -------------------------------------------------------------------------------------------


@dataclass
class Stopwatch:
    """Seconds by what they were spent on; work inside other work counts as its own."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _inside: list[float] = field(default_factory=list)

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self.seconds[what] += took - self._inside.pop()
            if self._inside:
                self._inside[-1] += took

    def timed(self, function: Callable[..., Any], what: Callable[..., str]) -> Callable[..., Any]:
        def measured(*arguments: Any, **named: Any) -> Any:
            with self.on(what(*arguments)):
                return function(*arguments, **named)

        return measured


def year(store: Store, instance: dg.DagsterInstance) -> None:
    """The job publish_due, once, on everything."""
    from dpdau_assets.definitions import defs

    job = defs.resolve_job_def("publish_due")
    with taken_apart() as watch, watch.on("Dagster, without its SQLite"):
        done = job.execute_in_process(instance=instance)
    assert done.success
    numbers, whole = len(store.accountant.releases()), sum(watch.seconds.values())
    print(f"{DAYS} days, {EVENTS:,} events, {numbers} numbers, from a full inbox: {whole:.0f} s, of which")
    for what, seconds in sorted(watch.seconds.items(), key=lambda part: -part[1]):
        print(f"  {what:40} {seconds:7.1f} s {seconds / whole:6.0%}")


@contextmanager
def taken_apart() -> Iterator[Stopwatch]:
    """Everything of ours that the job calls, and every statement and commit on a database, has its own part."""
    watch, places = Stopwatch(), []

    def replace(owner: Any, name: str, what: Callable[..., str]) -> None:
        places.append((owner, name, getattr(owner, name)))
        setattr(owner, name, watch.timed(getattr(owner, name), what))

    ours = {
        (bulk, "build_days"): "state and sketches",
        (bulk, "days_behind"): "state and sketches",
        (bulk, "mark_reported"): "state and sketches",
        (bulk, "due"): "what is due",
        (release, "plan_together"): "plans of numbers",
        (release, "read_statistics"): "statistics of numbers",
        (release, "commit"): "numbers charged, drawn and stored",
        (publishing, "records_of"): "metadata and checks of numbers",
        (bulk, "refresh_mart"): "mart, reports",
        (bulk, "refresh_budget_report"): "mart, reports",
        (bulk, "refresh_report"): "mart, reports",
    }
    for (owner, name), what in ours.items():
        replace(owner, name, lambda *_, what=what: f"dpdau: {what}")
    for name in ("do_execute", "do_executemany"):
        replace(DefaultDialect, name, lambda _, cursor, *__: _database(cursor.connection))
    replace(DefaultDialect, "do_commit", lambda _, connection: _database(connection.driver_connection))
    try:
        yield watch
    finally:
        for owner, name, before in reversed(places):
            setattr(owner, name, before)


def _database(connection: Any) -> str:
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    return "SQLite: the ledger" if file.endswith("ledger.sqlite") else "SQLite: Dagster's log"


# --- Single partitions -------------------------------------------------------------------------------------------


def one_process(days: list[date], instance: dg.DagsterInstance) -> None:
    """A run a day, executed in this process; of the release the stored number comes back, so that is Dagster alone."""
    from dpdau_assets.definitions import defs
    from dpdau_assets.orchestration.running import run_steps

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    for job in (PUBLISH_DAU, BUILD_STATE):
        began, one_day = time.perf_counter(), defs.resolve_job_def(job)
        for day in days:
            one_day.execute_in_process(partition_key=str(day), instance=instance, run_config=quiet)
        print(f"{job}, a run a day in one process: {(time.perf_counter() - began) / len(days):.2f} s a day")
    began = time.perf_counter()
    run_steps([Step(BUILD, days=tuple(days))], defs, instance, lambda _: None)
    print(f"{REBUILD_DAYS}, all days in one run: {(time.perf_counter() - began) / len(days):.2f} s a day")


@contextmanager
def daemon(folder: Path) -> Iterator[None]:
    """Dagster's daemon, as it runs beside the UI."""
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-w", str(PROJECT / "workspace.yaml")]
    with (folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def separate_runs(days: list[date], instance: dg.DagsterInstance) -> None:
    """A backfill: a process a run, launched by the daemon, two at a time."""
    known = {run.run_id for run in instance.get_runs()}
    command = [
        str(Path(sys.executable).with_name("dagster")),
        "job",
        "backfill",
        "--noprompt",
        "-j",
        BUILD_STATE,
        "-w",
        str(PROJECT / "workspace.yaml"),
        "--partitions",
        ",".join(map(str, days)),
    ]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)

    def finished() -> bool:
        runs = [run for run in instance.get_runs(dg.RunsFilter(job_name=BUILD_STATE)) if run.run_id not in known]
        return len(runs) == len(days) and all(run.is_finished for run in runs)

    wait_until("the backfill", finished)
    records = [
        record for record in instance.get_run_records(limit=2 * len(days)) if record.dagster_run.run_id not in known
    ]
    records = [record for record in records if record.dagster_run.job_name == BUILD_STATE]
    whole = max(record.end_time or 0 for record in records) - min(
        record.create_timestamp.timestamp() for record in records
    )
    each = [(record.end_time or 0) - (record.start_time or 0) for record in records]
    inside = sum(each) / len(each)
    print(f"{BUILD_STATE}, a process a run under the daemon: {whole / len(days):.2f} s a day, of a run {inside:.2f} s")


def sensor_to_fresh(days: list[date], store: Store) -> None:
    """From a request to rebuilt days, and to receipts."""
    began = time.perf_counter()
    request([Event("user-0000000000", "-", days[-1], tuple(days))], store)
    marked = wait_until("marks", lambda: bool(store.state.rebuilds.behind()))
    fresh = wait_until("fresh days", lambda: not store.state.rebuilds.behind())
    verified = wait_until(
        "the receipt", lambda: {erasure.state for erasure in store.erasures.ledger.erasures()} == {"verified"}
    )
    told = ", ".join(
        f"{what} after {at - began:.1f} s"
        for what, at in (("marked", marked), ("fresh", fresh), ("verified", verified))
    )
    print(f"an erasure under the daemon: {told}")


def wait_until(what: str, ready: Callable[[], bool]) -> float:
    """When it came."""
    began = time.perf_counter()
    while not ready():
        if time.perf_counter() - began > PATIENCE_SECONDS:
            raise TimeoutError(f"{what} did not come in {PATIENCE_SECONDS} s")
        time.sleep(0.1)
    return time.perf_counter()


if __name__ == "__main__":
    main()
