"""The job publish_due and its schedule: everything that is due and complete, built, published in order, and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete_all, withdraw_all
from dpdau_assets.core.publication.due import due
from dpdau_assets.core.publication.release import Counted, commit, plan_together, publish
from dpdau_assets.core.publication.runs import Step
from dpdau_assets.core.state.rebuilding import build_days
from dpdau_assets.orchestration.jobs import IN_ORDER
from dpdau_assets.orchestration.names import PUBLISH_MAU
from dpdau_assets.orchestration.schedules import build_publish_due_hourly
from dpdau_tests.conftest import FixedClock, put
from dpdau_tests.dagster.world import World, asked_of, erase, project_under
from dpdau_tests.support.lengths import LENGTH
from dpdau_tests.support.prepared import Prepared

SHORT = LENGTH == "test"
START = date(2025, 1, 28) if SHORT else date(2025, 1, 1)
DAYS = days_between(START, date(2025, 2, 6))
TODAY = DAYS[-1] + timedelta(days=2)
FIRST_MAU = date(2025, 1, 30)
SETTINGS: dict[str, object] = (
    {"start_date": START, "mau_window_days": 3, "mau_mechanism": "gaussian", "epsilon_mau": Fraction(1, 4)}
    if SHORT
    else {}
)
"""Under which few days have everything: a first window, a month's end, and the day on which it is restated. In CI it is
more than a month, under the settings that dpdau has by itself.
"""

pytestmark = pytest.mark.also_long

MakeStore = Callable[..., Store]


def declared(store: Store) -> None:
    """Nothing is built."""
    put(store, [(f"user {n}", day) for day in DAYS for n in range(3)] + [("she", day) for day in DAYS[3:6]])
    complete_all(DAYS, store)


@pytest.fixture
def world(make_store: MakeStore, instance: dg.DagsterInstance) -> World:
    """Days of which nothing is built."""
    return World(make_store(today=TODAY, recipe=declared, **SETTINGS), instance)


def publish_due(world: World, config: dict[str, Any] | None = None) -> bool:
    """One run. Mart and reports, which take longest and are asked about once, are left out of it in `make test`."""
    ops = ["build_missing_days", "publish_due_numbers"] if SHORT else None
    return world.execute("publish_due", ops=ops, config=config).success


def publication(world: World) -> None:
    """All that is due, by one run."""
    declared(world.store)
    assert publish_due(world)


@pytest.fixture
def done(make_world: Callable[..., World]) -> World:
    """All days are published by Dagster."""
    return make_world(publication, TODAY, **SETTINGS)


def partitions_reported(world: World, asset: str) -> list[str]:
    """Partitions of the asset's events, oldest first."""
    records = world.instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
    return [str(record.partition_key) for record in reversed(records)]


def published(store: Store, metric: str = "dau", revision: int = 0) -> list[date]:
    return [
        release.key.day
        for release in store.accountant.releases()
        if (release.key.metric, release.key.revision) == (metric, revision)
    ]


def at(day: date, world: World) -> World:
    return World(replace(world.store, clock=FixedClock(day)), world.instance)


# --- The job -----------------------------------------------------------------------------------------------------


def test_everything_that_is_due_is_built_published_in_order_restated_and_shown(world: World) -> None:
    assert world.execute("publish_due").success
    assert published(world.store) == DAYS
    assert published(world.store, "mau") == days_between(FIRST_MAU, DAYS[-1])
    assert published(world.store, revision=1) == days_between(START, date(2025, 1, 31))
    assert partitions_reported(world, "dau_release") == [str(day) for day in DAYS]
    assert partitions_reported(world, "mau_release") == [str(day) for day in days_between(FIRST_MAU, DAYS[-1])]
    assert partitions_reported(world, "dau_restatement") == ["2025-01-01"]
    folder = world.store.settings.data_dir
    assert (folder / "mart" / "active_users.csv").exists() and (folder / "report" / "readers.html").exists()


def test_a_second_run_makes_no_number_and_tells_nothing_twice(done: World) -> None:
    before = done.store.accountant.releases()
    assert publish_due(done)
    assert done.store.accountant.releases() == before
    for asset in ("dau_release", "mau_release", "dau_restatement"):
        days = partitions_reported(done, asset)
        assert len(days) == len(set(days))


def test_a_day_that_is_not_declared_is_never_sealed_empty_and_what_follows_it_waits(
    make_store: MakeStore, instance: dg.DagsterInstance
) -> None:
    days, missing = DAYS[:5], DAYS[3]
    store = make_store(today=days[-1] + timedelta(days=2), **SETTINGS)
    put(store, [("somebody", day) for day in days])
    complete_all([day for day in days if day != missing], store)
    world = World(store, instance)
    assert publish_due(world)
    assert published(store) == days[:3]
    assert missing not in store.accountant.sealed()
    complete_all([missing], store)
    assert publish_due(world)
    assert published(store) == days


def test_a_declaration_that_is_taken_back_while_publication_runs_holds_up_its_day_and_what_follows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def withdrawing(steps: Sequence[Step], *rest: Any) -> object:
        if not world.store.accountant.sealed():
            withdraw_all([DAYS[6]], world.store)
        return plan_together(steps, *rest)

    monkeypatch.setattr("dpdau_assets.core.publication.release.plan_together", withdrawing)
    assert publish_due(world)
    assert published(world.store) == DAYS[:6]
    assert DAYS[6] not in world.store.accountant.sealed()


def test_a_declaration_of_a_day_that_is_being_read_is_not_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def withdrawing(*what: Any) -> object:
        if not told:
            with pytest.raises(Refused) as refused:
                withdraw_all([DAYS[6]], world.store)
            told.append(refused.value.reason)
        return commit(*what)

    monkeypatch.setattr("dpdau_assets.core.publication.release.commit", withdrawing)
    assert publish_due(world)
    assert told == [f"{DAYS[6]} is sealed: a number has read it, or is about to."]
    assert published(world.store) == DAYS


def test_a_day_that_is_declared_after_the_run_has_built_waits_for_the_next_one_and_fails_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdraw_all(DAYS[6:], world.store)

    def declaring(*arguments: object) -> object:
        built = build_days(*arguments)  # type: ignore[arg-type]
        complete_all(DAYS[6:], world.store)
        return built

    with monkeypatch.context() as patch:
        patch.setattr("dpdau_assets.orchestration.bulk.build_days", declaring)
        assert publish_due(world)
    assert published(world.store) == DAYS[:6]
    assert due(world.store).built == () and due(world.store).missing == tuple(DAYS[6:])
    assert publish_due(world)
    assert published(world.store) == DAYS


def test_what_a_run_published_before_it_died_is_told_by_the_next_one(done: World) -> None:
    """Whatever it had said to Dagster by then: the ledger knows what is out."""
    new = DAYS[-1] + timedelta(days=1)
    later = at(TODAY + timedelta(days=1), done)
    complete_all([new], later.store)
    later.build([new])
    publish("dau", new, later.store)  # and dies
    assert str(new) not in partitions_reported(done, "dau_release")
    assert publish_due(later)
    assert (
        partitions_reported(done, "dau_release").count(str(new))
        == partitions_reported(done, "mau_release").count(str(new))
        == 1
    )
    assert published(done.store).count(new) == 1


def test_a_number_that_fails_leaves_what_is_out_and_the_next_run_goes_on_from_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_at_mau(statistics: Mapping[ReleaseKey, Counted], *rest: Any) -> object:
        if any(key.metric == "mau" and key.day == date(2025, 2, 1) for key in statistics):
            raise OSError("no space left on device")
        return commit(statistics, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("dpdau_assets.core.publication.release.commit", die_at_mau)
        assert not publish_due(world)
    out = world.store.accountant.releases()
    assert published(world.store)[-1] == date(2025, 2, 1) and published(world.store, "mau")[-1].month == 1
    assert partitions_reported(world, "dau_release") == [str(day) for day in published(world.store)], "it is told"
    assert publish_due(world)
    assert world.store.accountant.releases()[: len(out)] == out
    assert published(world.store) == DAYS
    assert sorted(partitions_reported(world, "dau_release")) == [str(day) for day in DAYS]


def test_after_downtime_one_run_publishes_in_order_under_the_slots_of_each_day(done: World) -> None:
    new = days_between(DAYS[-1] + timedelta(days=1), DAYS[-1] + timedelta(days=5))
    later = at(new[-1] + timedelta(days=2), done)
    complete_all(new, later.store)
    assert publish_due(later)
    assert partitions_reported(done, "dau_release")[-5:] == [str(day) for day in new]
    due_days = {release.key.day: release.published_at[:10] for release in done.store.accountant.releases("mau")}
    assert [due_days[day] for day in new] == [str(day + timedelta(days=2)) for day in new]


# --- What Dagster takes for fresh --------------------------------------------------------------------------------


def test_nothing_is_stale_after_it_and_every_day_has_a_version_of_its_own(done: World) -> None:
    for asset in ("activity", "day_sketch", "dau_release"):
        assert done.stale(asset, DAYS) == set(), asset
    assert done.stale("mau_release", days_between(FIRST_MAU, DAYS[-1])) == set()
    versions = [version for (asset, _), version in done.versions().items() if asset == "activity"]
    assert len(set(versions)) == len(versions) == len(DAYS)


def test_an_erasure_makes_exactly_its_days_stale_and_one_run_makes_them_fresh(done: World) -> None:
    done.tick()
    before = done.versions()
    erase(done.store, "she")
    (wanted,) = done.tick()
    assert done.stale("activity", DAYS) == set(DAYS[3:6])
    assert done.launch(wanted)
    assert done.stale("activity", DAYS) == done.stale("day_sketch", DAYS) == set()
    after = done.versions()
    assert {day for asset, day in after if before[asset, day] != after[asset, day]} == {str(day) for day in DAYS[3:6]}


# --- The schedule ------------------------------------------------------------------------------------------------


@pytest.fixture
def on_files(prepared: Prepared, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A schedule opens its instance by where that lies."""
    home = str(prepared.copy("a new DAGSTER_HOME", new_home, tmp_path / "home"))
    with dg.DagsterInstance.local_temp(home) as instance:
        yield instance


def new_home(folder: Path) -> None:
    with dg.DagsterInstance.local_temp(str(folder)):
        pass


def begun(store: Store) -> None:
    """The first window is declared."""
    complete_all(days_between(START, FIRST_MAU), store)


def asked(world: World, hour: int = 9) -> dg.RunRequest | dg.SkipReason:
    schedule = build_publish_due_hourly(*project_under(world.store.settings))
    moment = datetime.combine(world.store.clock.today(), datetime.min.time(), UTC) + timedelta(hours=hour)
    context = dg.build_schedule_context(world.instance, moment, resources=asked_of(schedule, world.store))
    with context:
        answer = schedule(context)
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return answer


def test_the_schedule_asks_every_hour_for_one_run_while_anything_is_due(
    make_store: MakeStore, on_files: dg.DagsterInstance
) -> None:
    world = World(make_store(today=FIRST_MAU + timedelta(days=2), recipe=begun, **SETTINGS), on_files)
    first, second = asked(world), asked(world, hour=10)
    assert isinstance(first, dg.RunRequest) and isinstance(second, dg.RunRequest)
    assert first.run_key != second.run_key
    assert publish_due(world, dict(first.run_config))
    assert published(world.store) == days_between(START, FIRST_MAU)
    skipped = asked(world)
    assert isinstance(skipped, dg.SkipReason) and skipped.skip_message == "Everything that is due is published."


def test_the_schedule_asks_for_nothing_while_publication_is_under_way(
    make_store: MakeStore, on_files: dg.DagsterInstance
) -> None:
    world = World(make_store(today=FIRST_MAU + timedelta(days=2), recipe=begun, **SETTINGS), on_files)
    job = world.definitions.resolve_job_def(PUBLISH_MAU)
    run = world.instance.create_run_for_job(job, tags=IN_ORDER, status=dg.DagsterRunStatus.STARTED)
    skipped = asked(world)
    assert isinstance(skipped, dg.SkipReason) and "under way" in str(skipped.skip_message)
    world.instance.report_run_failed(run)
    assert isinstance(asked(world), dg.RunRequest)


def test_the_schedule_says_which_day_is_waited_for(make_store: MakeStore, on_files: dg.DagsterInstance) -> None:
    world = World(make_store(today=date(2025, 1, 3)), on_files)
    skipped = asked(world)
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "2025-01-01 is not declared complete: `dpdau complete`, or its _SUCCESS file."
