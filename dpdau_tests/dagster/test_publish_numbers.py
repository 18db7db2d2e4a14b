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
from dpdau_assets.orchestration.jobs import run_steps
from dpdau_assets.orchestration.names import PUBLISH_DAU, PUBLISH_NUMBERS
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
    key = dg.AssetCheckKey(dg.AssetKey("dau_release"), "within_budget")
    found = instance.event_log_storage.get_asset_check_execution_history(key, limit=9)
    passed = {record.event.dagster_event.event_specific_data.partition: record for record in found if record.event}
    assert passed.keys() == {str(day) for day in DAYS[:2]}, "of the third nothing was asked"


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
