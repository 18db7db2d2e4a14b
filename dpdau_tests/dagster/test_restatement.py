"""`dau_restatement` through Dagster: a month once more, once, on its schedule and in a run of days."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.publication.runs import DAU, REPORTS, RESTATEMENT, Step, building
from dpdau_assets.core.settings import Settings
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.names import PUBLISH_DAU, RESTATE_DAU
from dpdau_assets.orchestration.running import run_steps
from dpdau_assets.orchestration.schedules import build_restate_monthly
from dpdau_tests.conftest import SECRET, prepare, put
from dpdau_tests.dagster.world import World, asked_of, erase, project_under, stop_the_clock
from resources.settings_env import read_settings
from resources.store import open_store

MONTH = date(2025, 1, 1)
PUBLISHED = [date(2025, 1, 30), date(2025, 1, 31)]


def test_a_month_is_restated_through_dagster_and_again_changes_nothing(
    make_store: Callable[..., Store], instance: dg.DagsterInstance
) -> None:
    store = make_store(today=date(2025, 3, 1))
    put(store, [(f"user {n}", day) for day in PUBLISHED for n in range(5)])
    world = World(store, instance)
    days = [*PUBLISHED, *days_between(date(2025, 2, 1), date(2025, 2, 3))]
    world.build_at_once(days)
    for day in days:
        publish("dau", day, store)
    erase(store, "user 1")
    assert world.execute(RESTATE_DAU, "2025-01-01").success
    once = store.accountant.releases()
    assert world.execute(RESTATE_DAU, "2025-01-01").success
    record = instance.fetch_materializations(dg.AssetKey("dau_restatement"), limit=1).records[0]
    assert [release.key.day for release in once if release.key.revision] == PUBLISHED
    assert store.accountant.releases() == once
    assert record.partition_key == "2025-01-01"


def test_a_month_that_is_not_due_fails_and_says_when(
    make_store: Callable[..., Store], instance: dg.DagsterInstance
) -> None:
    store = make_store(today=date(2025, 3, 1))
    put(store, [("someone", PUBLISHED[0])])
    world = World(store, instance)
    world.build(PUBLISHED[:1])
    world.build(PUBLISHED[:1], PUBLISH_DAU)
    done = world.execute(RESTATE_DAU, "2025-01-01")
    (failure,) = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    assert not done.success
    assert failure.error and "restated on 2025-02-05" in str(failure.error)


def test_a_run_of_steps_restates_and_the_mart_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    values = {"DATA_DIR": tmp_path / "data", "HASH_SALT_SECRET": SECRET, "RESTATEMENT_DAY": 2, "GRACE_DAYS": 0}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    stop_the_clock(monkeypatch, date(2025, 2, 3))
    store = open_store(read_settings())
    put(store, [("someone", PUBLISHED[1])])
    days = [PUBLISHED[1], date(2025, 2, 1)]
    wanted = [*building(days), *(Step(DAU, day) for day in days), Step(RESTATEMENT, MONTH), Step(REPORTS, None)]
    run_steps(wanted, build_definitions(store.settings), instance, lambda _: None)
    assert [release.key.revision for release in store.accountant.releases()] == [0, 0, 1]
    assert (store.settings.data_dir / "mart" / "active_users.csv").exists()


@pytest.mark.parametrize("start", [date(2025, 1, 1), date(2025, 1, 17)])
def test_a_month_depends_on_exactly_its_days(start: date) -> None:
    definitions = build_definitions(Settings(start_date=start))
    graph = definitions.resolve_asset_graph()
    node = graph.get(dg.AssetKey("dau_restatement"))
    assert node.partitions_def is not None and node.partitions_def.get_first_partition_key() == "2025-01-01"
    for parent in ("dau_release", "day_sketch"):
        days = graph.get(dg.AssetKey(parent)).partitions_def
        assert days is not None
        upstream = node.partition_mappings[dg.AssetKey(parent)].get_upstream_mapped_partitions_result_for_partitions(
            node.partitions_def.subset_with_partition_keys(["2025-01-01"]), node.partitions_def, days
        )
        assert sorted(upstream.partitions_subset.get_partition_keys()) == [
            str(day) for day in days_between(start, date(2025, 1, 31))
        ]


def test_the_schedule_asks_for_the_month_before_each_noon_until_it_is_restated(
    make_store: Callable[..., Store],
) -> None:
    store = make_store()
    schedule = build_restate_monthly(*project_under(Settings(restatement_day=7, timezone="Asia/Kolkata")))
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 12 7-31 * *", "Asia/Kolkata")

    def asked(day: int) -> dg.RunRequest | dg.SkipReason:
        noon = datetime(2025, 2, day, 12, tzinfo=UTC)
        return schedule(dg.build_schedule_context(scheduled_execution_time=noon, resources=asked_of(schedule, store)))

    assert isinstance(asked(7), dg.SkipReason)  # nothing is published, and the numbers come first
    days = days_between(PUBLISHED[0], date(2025, 2, 5))
    prepare(store, days)
    for day in days:
        publish("dau", day, store)
    for day in (7, 8):
        wanted = asked(day)
        assert isinstance(wanted, dg.RunRequest)
        assert (wanted.partition_key, wanted.run_key) == ("2025-01-01", f"2025-01-01/2025-02-{day:02}")
    restate(MONTH, store)
    assert isinstance(asked(9), dg.SkipReason)
