"""Dagster's log over connections that are kept: the file is Dagster's own, and so is what it answers."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import event

from dpdau_assets.orchestration.private import ConsolidatedSqliteEventLogStorage
from resources import dagster_event_log
from resources.dagster_event_log import EventLog
from resources.dagster_instance import open_run

DAYS = [f"2025-01-{day:02}" for day in range(1, 6)]
ASSET = dg.AssetKey("an_asset")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))  # which dagster.yaml names
    return tmp_path / "home"


def tell(home: Path, days: list[str]) -> None:
    with open_run(home) as instance:
        for day in days:
            instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=day, tags={"day": day}))


def test_the_instance_of_a_home_that_dpdau_makes_keeps_its_log_so(home: Path) -> None:
    with open_run(home) as instance:
        assert type(instance.event_log_storage) is EventLog


def test_dagsters_own_class_reads_the_same_events_from_the_same_file(home: Path) -> None:
    tell(home, DAYS)
    ours, theirs = EventLog(str(home)), ConsolidatedSqliteEventLogStorage(str(home))
    for log in (ours, theirs):
        found = log.fetch_materializations(ASSET, limit=10).records
        assert [record.partition_key for record in found] == DAYS[::-1]
        assert log.get_materialized_partitions(ASSET) == set(DAYS)
    ours.dispose()


def test_an_event_opens_the_file_no_more_often_than_connections_are_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    real = dagster_event_log.create_engine

    def counting(*what: object, **named: object) -> object:
        engine = real(*what, **named)  # type: ignore[arg-type]
        event.listen(engine, "connect", lambda *_: opened.append(None))
        return engine

    monkeypatch.setattr(dagster_event_log, "create_engine", counting)
    tell(home, DAYS)
    assert 1 <= len(opened) <= 2


def test_a_forked_process_tells_over_a_connection_of_its_own_and_nothing_is_lost(home: Path) -> None:
    with open_run(home) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=DAYS[0]))
        forked = multiprocessing.get_context("fork").Process(target=_tell_and_leave, args=(instance, DAYS[1]))
        forked.start()
        instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=DAYS[2]))
        forked.join(60)
        assert forked.exitcode == 0
        assert instance.get_materialized_partitions(ASSET) == set(DAYS[:3])


def _tell_and_leave(instance: dg.DagsterInstance, day: str) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=day))
