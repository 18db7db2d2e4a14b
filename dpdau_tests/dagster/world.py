"""A store and a Dagster instance together, with the sensor's ticks and the runs it asks for, in this process."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster_duckdb import DuckDBResource

from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import Alert
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.reporting.digest import Digest
from dpdau_assets.core.security_events import SecurityEvent
from dpdau_assets.core.settings import Settings
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.jobs import Jobs, build_jobs
from dpdau_assets.orchestration.names import REBUILD_DAYS
from dpdau_assets.orchestration.project import Project
from resources.dagster_instance import is_switched_on
from resources.published.mart_duckdb import MartFiles
from resources.published.report_html import ReportFiles
from sensors.attempts import TASK


@cache
def _definitions(settings: Settings) -> dg.Definitions:
    return build_definitions(settings)


def definitions_under(settings: Settings) -> dg.Definitions:
    """The project under these settings, built once for all stores that have them: where they lie plays no part."""
    return _definitions(replace(settings, data_dir=Settings.data_dir, landing_dir=None))


def project_under(settings: Settings) -> tuple[Project, Jobs]:
    """What schedules and sensors are built with, where a test wants one alone."""
    project = Project(settings, is_switched_on)
    return project, build_jobs(project)


def resources_of(store: Store) -> dict[str, Any]:
    """The parts of a store in place of those that Dagster would open; nobody is told anything."""
    return {
        "accountant": store.accountant,
        "erasure_ledger": store.erasures,
        "events": store.events,
        "state": store.state,
        "sketches": store.state.sketches,
        "noise": store.noise,
        "clock": store.clock,
        "duckdb": DuckDBResource(database=":memory:"),
        "mart": MartFiles(store.settings.data_dir / "mart"),
        "reports": ReportFiles(store.settings.data_dir / "report"),
        "alerts": KeptAlerts(),
    }


def asked_of(schedule: dg.ScheduleDefinition, store: Store) -> dict[str, Any]:
    """The resources that the schedule asks for."""
    return {name: resource for name, resource in resources_of(store).items() if name in schedule.required_resource_keys}


class KeptAlerts:
    """The ports Alerts and Digests, for as long as nobody but the test is to be told."""

    def __init__(self) -> None:
        self.sent: list[Alert] = []
        self.names: list[str | None] = []
        self.noted: Counter[SecurityEvent] = Counter()
        self.digests: list[Digest] = []

    def send(self, alert: Alert, once: str | None = None) -> None:
        self.sent.append(alert)
        self.names.append(once)

    def note(self, events: Mapping[SecurityEvent, int]) -> None:
        self.noted.update(events)

    def deliver(self) -> None:
        """Everything has arrived."""

    def digest(self, digest: Digest) -> bool:
        self.digests.append(digest)
        return True


@dataclass
class World:
    """The daemon's part played by hand, for one sensor: `cursor` is what it would have kept."""

    store: Store
    instance: dg.DagsterInstance
    cursor: str | None = None
    sensor: str = "erasure_sensor"
    alerts: KeptAlerts = field(default_factory=KeptAlerts)
    definitions: dg.Definitions = field(init=False)

    def __post_init__(self) -> None:
        self.definitions = definitions_under(self.store.settings)

    def build(self, days: Iterable[date], job: str = "build_state") -> None:
        for day in days:
            self.execute(job, day.isoformat())

    def build_at_once(self, days: Iterable[date]) -> None:
        """In one run, which tells Dagster of each day."""
        wanted = {"days": [day.isoformat() for day in days]}
        assert self.execute(REBUILD_DAYS, config={"ops": {"build_many_days": {"config": wanted}}}).success

    @property
    def resources(self) -> dict[str, Any]:
        """In place of those that read the environment."""
        return {**resources_of(self.store), "alerts": self.alerts}

    def execute(
        self,
        job: str,
        partition: str | None = None,
        tags: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
        ops: list[str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run the job, or these ops of it alone."""
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        return self.definitions.resolve_job_def(job).execute_in_process(
            partition_key=partition,
            tags=tags,
            instance=self.instance,
            resources=self.resources,
            op_selection=ops,
            raise_on_error=False,
            run_config={**(config or {}), **quiet},
        )

    def ask(self, asset: str, check: str) -> dg.ExecuteInProcessResult:
        """Run check_store with this check of the asset alone."""
        return self.execute("check_store", ops=[f"{asset}_{check}"])

    def evaluate(self) -> dg.SensorResult:
        """What a tick would do, and nothing done."""
        (sensor,) = (candidate for candidate in self.definitions.sensors or () if candidate.name == self.sensor)
        context = dg.build_sensor_context(
            self.instance, self.cursor, resources=self.resources, definitions=self.definitions
        )
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def tell(self, result: dg.SensorResult) -> None:
        """Write the tick's events, as the daemon does before it launches anything."""
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)

    def launch(self, wanted: dg.RunRequest) -> bool | None:
        """Run it unless its key was used before; None then, else whether it succeeded."""
        assert wanted.run_key and wanted.job_name
        if self.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": wanted.run_key})):
            return None
        tags = {**wanted.tags, "dagster/run_key": wanted.run_key}
        return self.execute(wanted.job_name, wanted.partition_key, tags, dict(wanted.run_config or {})).success

    def tick(self) -> list[dg.RunRequest]:
        """A whole tick, as far as the requests."""
        result = self.evaluate()
        self.tell(result)
        self.cursor = result.cursor
        return list(result.run_requests or [])

    def run_until_idle(self) -> list[str]:
        """Tick and run until nothing is asked for any more; the keys of all runs."""
        keys: list[str] = []
        for _ in range(20):
            wanted = self.tick()
            if not wanted:
                return keys
            for asked in wanted:
                self.launch(asked)
                keys.append(asked.run_key or "")
        raise AssertionError(f"the sensor does not come to rest: {keys}")

    def stale(self, asset: str, days: Iterable[date]) -> set[date]:
        graph = self.definitions.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(self.instance, graph, LoadingContextForTest(self.instance))
        key = dg.AssetKey(asset)
        return {day for day in days if resolver.get_status(key, day.isoformat()) == StaleStatus.STALE}

    def versions(self) -> dict[tuple[str, str], str]:
        """The newest data version of every partition of the state."""
        return {
            (asset, str(event.partition)): (event.tags or {})["dagster/data_version"]
            for asset in ("activity", "day_sketch")
            for record in reversed(self.instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records)
            if (event := record.asset_materialization)
        }

    def last_check(self, asset: str, name: str) -> dg.AssetCheckEvaluation | None:
        records = self.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey(asset), name), limit=1
        )
        event = records[0].event.dagster_event if records and records[0].event else None
        return event.asset_check_evaluation_data if event else None  # type: ignore[union-attr]

    def runs_for(self, task: str) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs(dg.RunsFilter(tags={TASK: task})))


def stop_the_clock(patch: pytest.MonkeyPatch, today: date) -> None:
    """Set the clock of every store that is opened by its settings, which else had years of days that are due."""
    patch.setattr("resources.store.SystemClock.today", lambda clock: today)


def erase(store: Store, *users: str, through: date | None = None, days: tuple[date, ...] = ()) -> list[str]:
    """Ask, as the edges do; the receipts."""
    day = max(days) if days else through or store.clock.today() - timedelta(days=1)
    return list(request([Event(user, "-", day, days) for user in users], store).receipts)


# --- What an instance in memory holds ----------------------------------------------------------------------------


def keep_instance(instance: dg.DagsterInstance, folder: Path) -> None:
    """Write all runs and events to this folder."""
    for name, held in _databases(instance).items():
        with closing(sqlite3.connect(folder / name)) as file:
            held.backup(file)


def replace_instance(instance: dg.DagsterInstance, folder: Path) -> None:
    """Put what was kept in this folder in place of all runs and events."""
    for name, held in _databases(instance).items():
        with closing(sqlite3.connect(folder / name)) as file:
            file.backup(held)


def _databases(instance: dg.DagsterInstance) -> dict[str, sqlite3.Connection]:
    """The two that an ephemeral instance has; nothing public tells of them."""
    storages: dict[str, Any] = {"runs.sqlite": instance.run_storage, "events.sqlite": instance.event_log_storage}
    return {name: storage._held_conn.connection.driver_connection for name, storage in storages.items()}
