"""Numbers that somebody asks for, as `dpdau run` does: all of them in one run, each told to Dagster as by its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.runs import DAU, MAU, RESTATEMENT, Step, plan_run
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.bulk import Numbers
from dpdau_assets.orchestration.names import PUBLISH_DAU, PUBLISH_MAU, PUBLISH_NUMBERS
from dpdau_assets.orchestration.running import run_steps
from dpdau_tests.conftest import SECRET, put
from dpdau_tests.dagster.world import World, stop_the_clock
from resources.settings_env import read_settings
from resources.store import open_store

FIRST, LAST = date(2025, 1, 28), date(2025, 2, 6)
DAYS = days_between(FIRST, LAST)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    values = {
        "DATA_DIR": tmp_path / "data",
        "HASH_SALT_SECRET": SECRET,
        "START_DATE": FIRST,
        "MAU_WINDOW_DAYS": 3,
        "MAU_MECHANISM": "gaussian",
        "EPSILON_MAU": "0.25",
        "RESTATEMENT_DAY": 3,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    stop_the_clock(monkeypatch, date(2025, 2, 9))
    store = open_store(read_settings())
    put(store, [(f"user {n}", day) for day in DAYS for n in range(4)])
    return store


def partitions_told(asset: str, instance: dg.DagsterInstance) -> list[str]:
    records = instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
    return [str(record.partition_key) for record in reversed(records)]


def runs_of(job: str, instance: dg.DagsterInstance) -> int:
    return len(instance.get_runs(dg.RunsFilter(job_name=job)))


def test_a_range_of_days_is_published_in_one_run_in_order_and_told_number_by_number(
    store: Store, instance: dg.DagsterInstance
) -> None:
    done: list[Step] = []
    wanted = plan_run(FIRST, LAST, store)
    run_steps(wanted, build_definitions(store.settings), instance, done.append)
    assert done == wanted and {step.kind for step in wanted} >= {DAU, MAU, RESTATEMENT}
    assert runs_of(PUBLISH_NUMBERS, instance) == 1 and not runs_of(PUBLISH_DAU, instance)
    assert partitions_told("dau_release", instance) == [str(day) for day in DAYS]
    assert partitions_told("mau_release", instance) == [str(day) for day in DAYS[2:]]
    assert partitions_told("dau_restatement", instance) == ["2025-01-01"]
    numbers = [(release.key.metric, release.key.day, release.key.revision) for release in store.accountant.releases()]
    assert numbers[:4] == [("dau", DAYS[0], 0), ("dau", DAYS[1], 0), ("dau", DAYS[2], 0), ("mau", DAYS[2], 0)]
    assert sum(revision for _, _, revision in numbers) == 4, "January is restated on the way"


def test_what_was_published_before_a_refusal_is_out_and_told_and_the_refusal_is_raised_itself(
    store: Store, instance: dg.DagsterInstance
) -> None:
    definitions, done = build_definitions(store.settings), list[Step]()
    run_steps(plan_run(FIRST, DAYS[0], store), definitions, instance, lambda _: None)
    with pytest.raises(Refused, match=f"There is no state for {DAYS[1]}"):
        run_steps([Step(DAU, DAYS[0]), Step(DAU, DAYS[1]), Step(DAU, DAYS[2])], definitions, instance, done.append)
    assert done == [Step(DAU, DAYS[0])]
    answers = {str(DAYS[0]): True, str(DAYS[1]): False}
    assert answered("dau_release", "within_budget", instance) == answers, "of the third nothing was asked"


def in_range(first: date, last: date) -> dict[str, str]:
    """The tags of a run over a range of partitions, as a backfill launches it."""
    return {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}


@pytest.fixture
def world(store: Store, instance: dg.DagsterInstance) -> World:
    """All days are built."""
    world = World(store, instance)
    world.build_at_once(DAYS)
    return world


def test_a_backfill_of_a_metric_is_one_run_in_which_each_day_is_told_by_itself(world: World) -> None:
    graph = world.definitions.resolve_asset_graph()
    for asset in ("dau_release", "mau_release"):
        assert graph.get(dg.AssetKey(asset)).backfill_policy == dg.BackfillPolicy.single_run()
    assert world.execute(PUBLISH_DAU, tags=in_range(DAYS[0], DAYS[-1])).success
    assert world.execute(PUBLISH_MAU, tags=in_range(DAYS[2], DAYS[-1])).success
    assert partitions_told("dau_release", world.instance) == [str(day) for day in DAYS]
    assert partitions_told("mau_release", world.instance) == [str(day) for day in DAYS[2:]]
    assert world.stale("dau_release", DAYS) == world.stale("mau_release", DAYS[2:]) == set()
    records = world.instance.fetch_materializations(dg.AssetKey("dau_release"), limit=100).records
    shown = {record.partition_key: record.asset_materialization for record in records}
    for release in world.store.accountant.releases("dau"):
        event = shown[str(release.key.day)]
        assert event and event.metadata["noisy_value"].value == release.noisy_value
        assert (event.tags or {})["dagster/data_version"] == "revision-0"
    for asset, days in (("dau_release", DAYS), ("mau_release", DAYS[2:])):
        for check in ("within_budget", "noise_is_private"):
            assert answered(asset, check, world.instance) == dict.fromkeys(map(str, days), True)


def test_a_backfill_that_meets_a_refusal_has_told_what_is_out_and_fails_with_the_refusal(world: World) -> None:
    done = world.execute(PUBLISH_MAU, tags=in_range(DAYS[2], DAYS[5]))
    assert done.success
    again = world.execute(PUBLISH_MAU, tags=in_range(DAYS[4], date(2025, 2, 8)))
    (failure,) = [event.step_failure_data for event in again.all_events if event.is_step_failure]
    assert failure.error and "There is no state for 2025-02-07" in str(failure.error)
    assert partitions_told("mau_release", world.instance) == [
        *map(str, DAYS[2:6]),
        *map(str, DAYS[4:]),
    ], "what was out is told again"
    passed = answered("mau_release", "within_budget", world.instance)
    assert passed == {**dict.fromkeys(map(str, DAYS[2:]), True), "2025-02-07": False}


def answered(asset: str, check: str, instance: dg.DagsterInstance) -> dict[str | None, bool]:
    """The last answer to the check, by partition."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    found = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    events = [record.event.dagster_event for record in reversed(found) if record.event and record.event.dagster_event]
    given = [event for event in events if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION]
    evaluations = [event.asset_check_evaluation_data for event in given]
    return {evaluation.partition: evaluation.passed for evaluation in evaluations}


@pytest.mark.parametrize("step", ["dau 2025-02-09", "mau 9999-12-31"])
def test_of_steps_of_which_one_has_not_ended_none_is_done_and_nothing_is_told(
    step: str, make_store: Callable[..., Store], instance: dg.DagsterInstance
) -> None:
    store = make_store(today=date(2025, 2, 9), start_date=FIRST)
    put(store, [("someone", DAYS[0])])
    world = World(store, instance)
    world.build_at_once(DAYS[:1])
    config = {"ops": {"publish_these_numbers": {"config": {"steps": [f"dau {DAYS[0]}", step]}}}}
    done = world.execute(PUBLISH_NUMBERS, config=config)
    (failure,) = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    assert failure.error and "has not ended yet" in str(failure.error)
    assert store.accountant.releases() == [] and partitions_told("dau_release", instance) == []


@pytest.mark.parametrize(
    "text", ["dau", "wau 2025-01-28", "dau 28 January", "restatement", "restatement 2025-01-15", "", "DAU 2025-01-28"]
)
def test_a_text_that_is_no_step_is_refused_and_repeated(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        Numbers(steps=["dau 2025-01-28", text]).in_order()
    assert refused.value.reason == f"{text!r} is no step of a publication."
    assert Numbers(steps=["mau 2025-01-30"]).in_order() == [Step(MAU, date(2025, 1, 30))]


def test_the_job_publishes_what_its_configuration_says(
    make_store: Callable[..., Store], instance: dg.DagsterInstance
) -> None:
    store = make_store(today=date(2025, 2, 9), start_date=FIRST)
    put(store, [("someone", day) for day in DAYS])
    world = World(store, instance)
    world.build_at_once(DAYS[:2])
    config = {"ops": {"publish_these_numbers": {"config": {"steps": [f"dau {DAYS[1]}"]}}}}
    assert world.execute(PUBLISH_NUMBERS, config=config).success
    assert [release.key.day for release in store.accountant.releases()] == [DAYS[1]]
