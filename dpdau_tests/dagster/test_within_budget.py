"""The checks that a run answers for the partition that it made: what Dagster keeps of numbers and of refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import dagster as dg
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BudgetRefused
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete_all, is_declared
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.publication.runs import DAU, Step
from dpdau_assets.core.reporting.checks import CHECKS
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.day_sketch import is_fresh
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.metadata import ALLOWED
from dpdau_assets.orchestration.names import CHECK_STORE, PUBLISH_DAU, PUBLISH_DUE, PUBLISH_MAU, RESTATE_DAU
from dpdau_assets.orchestration.recorder import ANSWERED_IN_RUNS, NOISE_IS_PRIVATE, WITHIN_BUDGET, check_keys
from dpdau_assets.orchestration.running import run_steps
from dpdau_tests.conftest import SECRET, FixedClock, Silent, prepare, put
from dpdau_tests.dagster.world import World, erase, project_under, stop_the_clock
from resources.settings_env import read_settings
from resources.store import open_store

MakeStore = Callable[..., Store]
JANUARY = days_between(date(2025, 1, 1), date(2025, 1, 12))
TENTH, ELEVENTH = JANUARY[9], JANUARY[10]
TODAY = date(2025, 1, 14)


def twelve_days(store: Store) -> None:
    put(store, [(f"user {n}", day) for day in JANUARY for n in range(3)])
    complete_all(JANUARY, store)
    prepare(store, JANUARY)


def with_ten_days_a_month(store: Store) -> Store:
    """Under settings that would not be loaded: independent noise, of which a month's cap holds ten days."""
    settings = replace(store.settings, dau_mechanism="laplace", epsilon_dau=Fraction(3, 10))
    return replace(store, settings=settings)


@pytest.fixture
def world(make_store: MakeStore, instance: dg.DagsterInstance) -> World:
    """Twelve days are built and nothing is published."""
    return World(with_ten_days_a_month(make_store(today=TODAY, recipe=twelve_days)), instance)


def answers(world: World, asset: str, day: date, check: str = WITHIN_BUDGET) -> list[dg.AssetCheckEvaluation]:
    """What Dagster has stored of the check for this partition, newest first; what was only planned is not among it."""
    records = world.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(asset), check), limit=1000
    )
    evaluations = (record.evaluation for record in records if record.status.value != "PLANNED")
    return [evaluation for evaluation in evaluations if evaluation and evaluation.partition == str(day)]


def storage_id(world: World, asset: str, day: date) -> int:
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[str(day)])
    return world.instance.fetch_materializations(wanted, limit=1).records[0].storage_id


def texts(answer: dg.AssetCheckEvaluation) -> dict[str, object]:
    return {name: value.value for name, value in answer.metadata.items()}


# --- By the assets' own steps -------------------------------------------------------------------------------------


def test_a_published_number_passes_and_shows_what_its_month_has_spent_of_its_cap(world: World) -> None:
    assert world.execute(PUBLISH_DAU, str(JANUARY[0])).success
    (answer,) = answers(world, "dau_release", JANUARY[0])
    shown = texts(answer)
    assert answer.passed and not answer.blocking
    assert (shown["month"], shown["epsilon_charged"], shown["epsilon_cap"]) == ("2025-01", 0.3, 3.0)
    assert (shown["epsilon_left"], shown["next_day"]) == (2.7, "2025-01-02")
    assert shown["months_read"] == "2025-01: 0.300 spent, 0.300 of 3.000 charged"
    assert answer.target_materialization_data is not None
    assert answer.target_materialization_data.storage_id == storage_id(world, "dau_release", JANUARY[0])
    assert answer.metadata.keys() <= ALLOWED


def test_a_number_that_was_published_before_shows_the_check_again_and_stays(world: World) -> None:
    release = publish("dau", JANUARY[0], world.store)
    for _ in range(2):
        assert world.execute(PUBLISH_DAU, str(JANUARY[0])).success
    assert [answer.passed for answer in answers(world, "dau_release", JANUARY[0])] == [True, True]
    assert world.store.accountant.releases() == [release]


def test_a_refused_number_fails_its_check_with_the_reason_and_its_run(world: World) -> None:
    for day in JANUARY[:10]:
        publish("dau", day, world.store)
    done = world.execute(PUBLISH_DAU, str(ELEVENTH))
    (answer,) = answers(world, "dau_release", ELEVENTH)
    assert not done.success and not answer.passed and answer.severity == dg.AssetCheckSeverity.ERROR
    assert str(answer.description).startswith("dau of 2025-01 is charged epsilon 3 of its cap 3; this release asks 0.3")
    shown = texts(answer)
    assert (shown["epsilon_asked"], shown["epsilon_left"], shown["next_day"]) == (0.3, 0.0, "2025-02-01")
    assert str(answer.description) == f"{shown['reason']} {shown['remedy']}"
    assert [evaluation.passed for evaluation in answers(world, "dau_release", ELEVENTH, NOISE_IS_PRIVATE)] == [True]
    assert len(world.instance.fetch_materializations(dg.AssetKey("dau_release"), limit=10).records) == 0


@pytest.mark.parametrize(
    ("job", "asset", "day", "reason"),
    [
        (PUBLISH_DAU, "dau_release", date(2025, 1, 13), "There is no state for 2025-01-13"),
        (PUBLISH_MAU, "mau_release", date(2025, 1, 30), "2025-01-30 has not ended yet"),
        (RESTATE_DAU, "dau_restatement", date(2025, 1, 1), "No number of DAU is published for 2025-01"),
    ],
)
def test_whatever_the_contract_refuses_is_read_on_the_check(
    job: str, asset: str, day: date, reason: str, world: World
) -> None:
    assert not world.execute(job, str(day)).success
    (answer,) = answers(world, asset, day)
    assert not answer.passed and str(answer.description).startswith(reason)


def test_a_restated_month_passes(make_store: MakeStore, instance: dg.DagsterInstance) -> None:
    days = [date(2025, 1, 31), *days_between(date(2025, 2, 1), date(2025, 2, 3))]
    store = make_store(today=date(2025, 3, 1))
    prepare(store, days)
    for day in days:
        publish("dau", day, store)
    world = World(store, instance)
    assert world.execute(RESTATE_DAU, "2025-01-01").success
    (answer,) = answers(world, "dau_restatement", date(2025, 1, 1))
    assert answer.passed and "next_day" not in answer.metadata
    assert [
        evaluation.passed for evaluation in answers(world, "dau_restatement", date(2025, 1, 1), NOISE_IS_PRIVATE)
    ] == [True]


def test_a_number_of_predictable_noise_fails_its_check(world: World) -> None:
    world.store = replace(world.store, noise=Silent())
    assert world.execute(PUBLISH_DAU, str(JANUARY[0])).success
    assert [evaluation.passed for evaluation in answers(world, "dau_release", JANUARY[0], NOISE_IS_PRIVATE)] == [False]


def test_a_run_of_steps_keeps_the_check_and_raises_the_refusal_itself(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is one of `dpdau run`, whose exit code follows from the refusal; resources read the environment."""
    folder = world.store.settings.data_dir
    for name, value in {"DATA_DIR": folder, "HASH_SALT_SECRET": SECRET}.items():
        monkeypatch.setenv(name, str(value))
    stop_the_clock(monkeypatch, TODAY)
    store = open_store(read_settings())
    for day in JANUARY[:10]:
        publish("dau", day, world.store)
    done: list[Step] = []
    with pytest.raises(BudgetRefused) as refused:
        run_steps([Step(DAU, TENTH), Step(DAU, ELEVENTH)], build_definitions(store.settings), instance, done.append)
    assert done == [Step(DAU, TENTH)] and refused.value.fields["month"] == "2025-01"
    (answer,) = answers(world, "dau_release", ELEVENTH)
    assert not answer.passed and refused.value.reason in str(answer.description)
    assert [evaluation.passed for evaluation in answers(world, "dau_release", TENTH)] == [True]


# --- By a run of many days ----------------------------------------------------------------------------------------


def test_publish_due_tells_the_check_of_every_number_and_of_those_that_are_refused_once(world: World) -> None:
    assert world.execute(PUBLISH_DUE).success
    told = {day: [evaluation.passed for evaluation in answers(world, "dau_release", day)] for day in JANUARY}
    assert told == {day: [day <= TENTH] for day in JANUARY}
    (refused,) = answers(world, "dau_release", ELEVENTH)
    assert texts(refused)["next_day"] == "2025-02-01"
    (passed,) = answers(world, "dau_release", TENTH)
    assert passed.target_materialization_data is not None
    assert passed.target_materialization_data.storage_id == storage_id(world, "dau_release", TENTH)
    assert (world.store.settings.data_dir / "mart" / "active_users.csv").exists(), "readers get what is out"
    assert world.execute(PUBLISH_DUE).success
    assert {day: len(answers(world, "dau_release", day)) for day in JANUARY} == dict.fromkeys(JANUARY, 1)


def test_both_ways_tell_dagster_the_same_of_a_number(world: World) -> None:
    assert world.execute(PUBLISH_DUE, ops=["build_missing_days", "publish_due_numbers"]).success
    (in_bulk,) = answers(world, "dau_release", TENTH)
    assert world.execute(PUBLISH_DAU, str(TENTH)).success
    by_itself = answers(world, "dau_release", TENTH)[0]
    assert (in_bulk.passed, in_bulk.description) == (by_itself.passed, by_itself.description)
    assert texts(in_bulk) == texts(by_itself)
    events = world.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey("dau_release"), asset_partitions=[str(TENTH)]), limit=2
    ).records
    own, told = [event.asset_materialization for event in events]
    assert own and told and own.metadata == told.metadata
    for tag in ("dagster/data_version", "dagster/code_version"):
        assert (own.tags or {})[tag] == (told.tags or {})[tag]


def test_a_number_that_another_process_leaves_no_room_for_is_told_and_fails_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due was looked up before the other one published."""
    other, world.store = world.store, replace(world.store, clock=FixedClock(TODAY - timedelta(days=2)))

    def while_another_publishes(*parts: Any) -> Any:
        for day in JANUARY[2:]:
            if len(other.accountant.releases("dau")) < 10:
                publish("dau", day, other)
        return is_declared(*parts)

    monkeypatch.setattr("dpdau_assets.orchestration.bulk.is_declared", while_another_publishes)
    assert not world.execute(PUBLISH_DUE, ops=["build_missing_days", "publish_due_numbers"]).success
    (answer,) = answers(world, "dau_release", JANUARY[0])
    assert not answer.passed and "is charged epsilon 3 of its cap 3" in str(answer.description)


# --- Where they stand ---------------------------------------------------------------------------------------------


def test_the_checks_of_numbers_never_block_and_the_jobs_that_publish_ask_no_other() -> None:
    definitions = build_definitions(Settings())
    graph = definitions.resolve_asset_graph()
    for key in check_keys(project_under(Settings())[0], ANSWERED_IN_RUNS):
        node = graph.get(key)
        assert node.partitions_def is not None and not node.blocking, key
    for job, asset in ((PUBLISH_DAU, "dau_release"), (PUBLISH_MAU, "mau_release"), (RESTATE_DAU, "dau_restatement")):
        selected = definitions.resolve_job_def(job).asset_layer.asset_graph.asset_check_keys
        assert set(selected) == set(check_keys(project_under(Settings())[0], [asset]))


def test_the_job_over_checks_asks_all_of_the_whole_store_and_none_of_a_partition() -> None:
    keys = build_definitions(Settings()).resolve_job_def(CHECK_STORE).asset_layer.asset_graph.asset_check_keys
    assert {key.name for key in keys} == {check.name for check in CHECKS} and len(keys) == len(CHECKS)
    assert not set(keys) & set(check_keys(project_under(Settings())[0], ANSWERED_IN_RUNS))


def test_a_built_day_says_that_its_sketches_are_fresh_and_an_older_sketch_is_not(world: World) -> None:
    day = JANUARY[1]
    world.build([day])
    world.build_at_once([day])
    assert [evaluation.passed for evaluation in answers(world, "day_sketch", day, "sketch_is_fresh")] == [True, True]
    kept = [(path, path.read_bytes()) for path in (world.store.settings.data_dir / "sketches").rglob(f"day={day}/*")]
    erase(world.store, "user 1")
    prepare(world.store, [day])
    assert kept and is_fresh(day, world.store)
    for path, content in kept:
        path.write_bytes(content)
    assert not is_fresh(day, world.store)
