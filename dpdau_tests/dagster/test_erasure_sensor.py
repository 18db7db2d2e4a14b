"""From a request to be erased to rebuilt days and a receipt: the sensor, the runs it asks for, and the checks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import dagster as dg
import pytest

from dpdau_assets.core.dates import days_between, epoch_of
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import DaySet
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.activity import process_days
from dpdau_assets.core.state.touched import Pending, mark_touched, pending
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.checks import LAST
from dpdau_assets.orchestration.names import BUILD_STATE, REBUILD_DAYS
from dpdau_assets.orchestration.schedules import build_schedules
from dpdau_tests.conftest import folding, put
from dpdau_tests.dagster.world import World, erase, project_under
from dpdau_tests.support.lengths import LENGTH
from sensors.attempts import ATTEMPTS, TASK, Tries
from sensors.erasure import Cursor, tasks_of, wanted_runs

TODAY = date(2025, 1, 20)
HERE = project_under(Settings())
pytestmark = [pytest.mark.every_sketch] if LENGTH == "soak" else []
"""In CI the one that goes all the way is enough of the kinds other than the exact set."""
DAYS = days_between(date(2025, 1, 1), date(2025, 1, 4))
HERS = {DAYS[1], DAYS[2]}

MakeStore = Callable[..., Store]


def four_days(world: World) -> None:
    """Built by Dagster; two of them hold the one who asks to be erased."""
    others = [(f"user {n}", day) for day in DAYS for n in range(5)]
    put(world.store, [*others, *(("she", day) for day in HERS)])
    world.build(DAYS)
    world.tick()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Four days of state."""
    return make_world(four_days, TODAY)


def states(store: Store) -> set[str]:
    return {erasure.state for erasure in store.erasures.ledger.erasures()}


# --- Staleness ---------------------------------------------------------------------------------------------------


def test_nothing_is_stale_and_nothing_wanted_before_anyone_asks(world: World) -> None:
    assert world.stale("activity", DAYS) == world.stale("day_sketch", DAYS) == set()
    assert world.tick() == []


def test_exactly_the_touched_days_turn_stale_and_are_fresh_again_after_the_runs_that_are_asked_for(
    world: World,
) -> None:
    before = world.versions()
    erase(world.store, "she")
    wanted = world.tick()
    assert world.stale("activity", DAYS) == HERS
    assert [asked.job_name for asked in wanted] == [REBUILD_DAYS]
    assert [world.launch(asked) for asked in wanted] == [True]
    assert world.stale("activity", DAYS) == world.stale("day_sketch", DAYS) == set()
    after = world.versions()
    changed = {(asset, day) for asset, day in after if before[asset, day] != after[asset, day]}
    assert changed == {(asset, str(day)) for asset in ("activity", "day_sketch") for day in HERS}


def test_a_sketch_is_stale_while_only_the_state_was_rebuilt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise Refused("No sketch today.", "Wait.")  # which is not tried again

    monkeypatch.setattr("dpdau_assets.assets.sketches.build_sketch", die)
    erase(world.store, "she")
    world.tick()
    assert [world.execute(BUILD_STATE, str(day)).success for day in sorted(HERS)] == [False, False]
    assert world.stale("activity", DAYS) == set()
    assert world.stale("day_sketch", DAYS) == HERS


@pytest.mark.every_sketch
def test_a_request_ends_verified_and_all_checks_pass(world: World) -> None:
    erase(world.store, "she")
    world.run_until_idle()
    assert states(world.store) == {"verified"}
    check = world.last_check("activity", "no_pending_erasures")
    assert check is not None and check.passed
    assert world.execute("check_store").success


def test_a_day_that_nobody_has_asked_for_yet_is_rewritten_but_not_built(world: World) -> None:
    """Built, it could be published: whether it can must not depend on who was active on it."""
    new = date(2025, 1, 10)
    put(world.store, [("she", new)])
    world.build([DAYS[0]])  # folds the whole inbox, and says nothing of the new day
    erase(world.store, "she")
    world.tick()
    assert world.stale("activity", DAYS) == HERS
    world.run_until_idle()
    assert states(world.store) == {"verified"}
    assert new not in world.store.accountant.processed()


def test_a_day_that_is_not_over_has_no_partition_yet_and_holds_nothing_up(world: World) -> None:
    put(world.store, [("she", TODAY)])
    world.build([DAYS[0]])
    erase(world.store, "she", through=TODAY)
    keys = world.run_until_idle()
    assert [key.split("/")[1] for key in keys] == ["rebuild", "verify"]
    assert states(world.store) == {"verified"}


def test_every_live_day_is_marked_where_marks_must_tell_nothing(
    make_store: MakeStore, instance: dg.DagsterInstance
) -> None:
    store = make_store(today=TODAY, erasure_mark="all")
    put(store, [*(("someone", day) for day in DAYS), ("she", DAYS[1])])
    world = World(store, instance)
    world.build_at_once(DAYS)
    world.tick()
    erase(store, "she")
    world.tick()
    assert world.stale("activity", DAYS) == set(DAYS)


def test_many_requests_of_one_batch_are_one_rebuild_and_one_verification(
    make_store: MakeStore, instance: dg.DagsterInstance
) -> None:
    store = make_store(today=TODAY)
    people = [f"user {n}" for n in range(30)]
    put(store, [*((user, DAYS[n % 3]) for n, user in enumerate(people)), *(("stays", day) for day in DAYS)])
    world = World(store, instance)
    world.build_at_once(DAYS)
    world.tick()
    erase(store, *people)
    keys = world.run_until_idle()
    assert [key.split("/")[1] for key in keys] == ["rebuild", "verify"]
    assert world.stale("activity", DAYS) == world.stale("day_sketch", DAYS) == set()
    assert states(store) == {"verified"}


def test_somebody_unknown_touches_no_day_and_is_verified_all_the_same(world: World) -> None:
    before = world.versions()
    erase(world.store, "nobody knows him")
    (wanted,) = world.tick()
    assert wanted.job_name == "verify_erasures"
    assert world.stale("activity", DAYS) == set()
    assert world.launch(wanted)
    assert (states(world.store), world.tick(), world.versions()) == ({"verified"}, [], before)


# --- Ticks that go wrong -----------------------------------------------------------------------------------------


def test_a_repeated_tick_asks_for_no_second_run(world: World) -> None:
    erase(world.store, "she")
    first, again = world.evaluate(), world.evaluate()
    assert [asked.run_key for asked in first.run_requests or []] == [
        asked.run_key for asked in again.run_requests or []
    ]
    assert first.cursor == again.cursor
    ran = [world.launch(asked) for asked in [*(first.run_requests or []), *(again.run_requests or [])]]
    assert ran == [True, None]


def test_a_tick_that_dies_before_its_cursor_is_kept_costs_an_event_and_no_run(world: World) -> None:
    erase(world.store, "she")
    died = world.evaluate()
    world.tell(died)
    assert [asked.run_key for asked in world.tick()] == [asked.run_key for asked in died.run_requests or []]
    assert [key.split("/")[1] for key in world.run_until_idle()] == ["rebuild", "verify"]
    assert world.stale("activity", DAYS) == set()
    assert states(world.store) == {"verified"}


def test_a_run_that_was_made_and_never_launched_is_asked_for_again_under_its_key(world: World) -> None:
    """Dagster died between making and launching it: it launches the run that has this key."""
    erase(world.store, "she")
    first = world.tick()
    job = world.definitions.resolve_job_def(REBUILD_DAYS)
    tags = {**first[0].tags, "dagster/run_key": str(first[0].run_key)}
    world.instance.create_run_for_job(job, tags=tags)
    assert [asked.run_key for asked in world.tick()] == [asked.run_key for asked in first]


def test_two_overlapping_ticks_ask_for_the_same_runs(world: World) -> None:
    erase(world.store, "she")
    first, second = world.evaluate(), world.evaluate()
    for tick in (first, second):
        world.tell(tick)
    world.cursor = second.cursor
    ran = [world.launch(wanted) for tick in (first, second) for wanted in tick.run_requests or []]
    assert ran == [True, None]
    assert world.stale("activity", DAYS) == set()


def test_no_second_run_is_asked_for_while_one_is_under_way(world: World) -> None:
    erase(world.store, "she")
    for wanted in world.tick():
        tags = {**wanted.tags, "dagster/run_key": str(wanted.run_key)}
        world.instance.create_run_for_job(
            world.definitions.resolve_job_def(REBUILD_DAYS), tags=tags, status=dg.DagsterRunStatus.STARTED
        )
    assert world.tick() == []


def test_a_request_that_comes_while_a_day_is_rebuilt_has_it_rebuilt_again(world: World) -> None:
    erase(world.store, "she")
    first = world.tick()
    erase(world.store, "user 1")
    second = world.tick()
    assert world.stale("activity", DAYS) == set(DAYS)
    assert {asked.run_key for asked in first}.isdisjoint(asked.run_key for asked in second)
    for wanted in [*first, *second]:
        world.launch(wanted)
    assert world.stale("activity", DAYS) == set()
    world.run_until_idle()
    assert states(world.store) == {"verified"}


def test_a_rebuild_does_not_claim_a_mark_that_came_while_it_ran(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    erase(world.store, "she")
    (first,) = world.tick()

    def interrupted(days: list[date], store: Store) -> None:
        process_days(days, store)
        erase(store, "user 1")
        with store.state.activity.lock():
            mark_touched(store)

    monkeypatch.setattr("dpdau_assets.core.state.rebuilding.process_days", interrupted)
    assert world.launch(first)
    assert {day for day, _ in world.store.state.rebuilds.behind()} == set(DAYS)
    assert world.stale("activity", DAYS) == set()  # Dagster has not heard of the new mark
    world.tick()
    assert world.stale("activity", DAYS) == set(DAYS)


def test_a_tick_without_a_new_request_waits_for_no_lock(world: World) -> None:
    """A long fold holds it, and a tick that takes a minute is cut off."""
    erase(world.store, "she")
    world.tick()
    with folding(world.store) as thread:
        assert len(world.evaluate().run_requests or []) == 1
        assert thread.is_alive()


def test_a_day_that_was_purged_is_not_rebuilt(world: World) -> None:
    erase(world.store, "she")
    world.tick()
    world.store.accountant.purge_through(DAYS[1])
    assert [day for day, _ in pending(world.store).days] == [DAYS[2]]


def test_a_rebuild_that_failed_three_times_is_tried_once_a_day_and_the_check_says_so(world: World) -> None:
    (lost,) = (world.store.settings.data_dir / "activity" / f"day={DAYS[1]}").iterdir()
    whole = lost.read_bytes()
    erase(world.store, "she")
    attempts = []
    for _ in range(ATTEMPTS + 2):
        wanted = [asked for asked in world.tick() if asked.job_name == REBUILD_DAYS]
        lost.write_bytes(b"not Parquet any more")
        attempts += [str(asked.run_key).rpartition("/")[2] for asked in wanted]
        assert not any(world.launch(asked) for asked in wanted)
    check = world.last_check("activity", "no_pending_erasures")
    assert attempts == ["0", "1", "2", str(TODAY)]
    assert check is not None and not check.passed
    lost.write_bytes(whole)
    world.execute(REBUILD_DAYS)  # by hand, once a person has looked
    world.run_until_idle()
    assert states(world.store) == {"verified"}


# --- The decision alone ------------------------------------------------------------------------------------------


def used_up(task: str) -> Tries:
    return Tries(False, frozenset(f"{task}/{attempt}" for attempt in range(ATTEMPTS)))


def test_however_many_days_wait_one_run_is_asked_for() -> None:
    days = days_between(date(2025, 1, 1), date(2025, 6, 1))
    (wanted,) = wanted_runs(Pending(tuple((day, 7) for day in days), ("receipt",)), {}, TODAY, *HERE)
    assert wanted.job_name == REBUILD_DAYS


def test_a_new_mark_counts_its_attempts_anew() -> None:
    before, after = Pending(((DAYS[0], 7),), ()), Pending(((DAYS[0], 8),), ())
    task, _ = tasks_of(before, HERE[0])
    (wanted,) = wanted_runs(after, {task: used_up(task)}, TODAY, *HERE)
    assert wanted.run_key == f"{tasks_of(after, HERE[0])[0]}/0"


def test_a_verification_waits_for_the_rebuild_unless_that_is_given_up() -> None:
    waiting = Pending(((DAYS[0], 7), (DAYS[1], 7)), ("receipt",))
    rebuild, verification = tasks_of(waiting, HERE[0])
    assert [asked.run_key for asked in wanted_runs(waiting, {}, TODAY, *HERE)] == [f"{rebuild}/0"]
    assert wanted_runs(waiting, {rebuild: Tries(True, frozenset())}, TODAY, *HERE) == []
    wanted = wanted_runs(waiting, {rebuild: used_up(rebuild)}, TODAY, *HERE)
    assert [asked.run_key for asked in wanted] == [f"{rebuild}/{TODAY}", f"{verification}/0"]


def test_no_second_verification_is_asked_for_while_one_is_under_way() -> None:
    waiting = Pending((), ("receipt",))
    (first,) = wanted_runs(waiting, {}, TODAY, *HERE)
    busy = {first.tags[TASK]: Tries(True, frozenset({str(first.run_key)}))}
    assert wanted_runs(waiting, busy, TODAY, *HERE) == []


def test_a_failing_verification_is_tried_a_few_times_and_then_once_a_day() -> None:
    waiting = Pending((), ("receipt",))
    used: set[str] = set()
    asked = []
    for day in (TODAY, TODAY, TODAY, TODAY, TODAY, TODAY + timedelta(days=1), TODAY + timedelta(days=1)):
        (first,) = wanted_runs(waiting, {}, day, *HERE)
        task = first.tags[TASK]
        wanted = wanted_runs(waiting, {task: Tries(False, frozenset(used))}, day, *HERE)
        asked.append([str(run.run_key).rpartition("/")[2] for run in wanted])
        used |= {str(run.run_key) for run in wanted}
    assert asked == [["0"], ["1"], ["2"], [str(TODAY)], [], [str(TODAY + timedelta(days=1))], []]


def test_what_waits_is_named_without_telling_whose_it_is_or_how_many_they_are() -> None:
    (first,) = wanted_runs(Pending((), ("a" * 16,)), {}, TODAY, *HERE)
    (second,) = wanted_runs(Pending((), ("a" * 16, "b" * 16)), {}, TODAY, *HERE)
    assert first.run_key != second.run_key
    assert len(str(first.run_key)) == len(str(second.run_key))
    assert "aaaa" not in str(first.run_key)


def test_the_cursor_survives_being_written_down() -> None:
    cursor = Cursor(7, "2025-01-05", (2, 13, 31))
    assert Cursor.read(cursor.text()) == cursor
    assert Cursor.read(None) == Cursor.read("") == Cursor()
    assert Cursor.read(Cursor().text()) == Cursor()


# --- Checks ------------------------------------------------------------------------------------------------------


def test_the_check_is_red_while_a_day_waits_and_its_result_is_told_once(world: World) -> None:
    erase(world.store, "she")
    told = world.evaluate()
    world.tick()
    check = world.last_check("activity", "no_pending_erasures")
    assert check is not None and not check.passed
    assert check.metadata["days_pending"].value == 2
    newest = world.instance.fetch_materializations(dg.AssetKey("activity"), limit=1).records[0]
    assert check.target_materialization_data and check.target_materialization_data.storage_id == newest.storage_id
    assert len(told.asset_events) == 3
    assert list(world.evaluate().asset_events) == []


def test_the_check_tells_the_queue_by_age_anew_each_day_that_it_waits(
    world: World, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase(world.store, "she", "user 1")
    world.tick()
    later = World(make_store(today=TODAY + timedelta(days=2)), world.instance, world.cursor)
    for _ in range(2):
        later.tick()
    check = later.last_check("activity", "no_pending_erasures")
    assert check is not None
    assert check.metadata["oldest_erasure_days"].value == 2
    queue = str(check.metadata["erasures_waiting"].value)
    assert queue.splitlines()[2:] == ["| 2025-01-20 | 2 day(s) | 2025-02-19 |"]  # of two people one line, by day
    assert list(later.evaluate().asset_events) == []


def test_the_run_that_rebuilds_a_day_writes_its_check_of_that_day(world: World) -> None:
    erase(world.store, "she")
    for wanted in world.tick():
        world.launch(wanted)
    key = dg.AssetCheckKey(dg.AssetKey("activity"), "erasures_applied")
    history = world.instance.event_log_storage.get_asset_check_execution_history(key, limit=20)
    evaluations = [record.event.dagster_event.asset_check_evaluation_data for record in history if record.event]  # type: ignore[union-attr]
    assert {record.partition for record in evaluations} == {str(day) for day in DAYS}
    assert all(record.passed for record in evaluations)


def test_the_check_of_a_day_fails_when_somebody_is_left_in_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    erase(world.store, "she")
    monkeypatch.setattr("dpdau_assets.assets.activity.is_clean", lambda day, store: False)
    world.build([DAYS[0]])
    check = world.last_check("activity", "erasures_applied")
    assert check is not None and not check.passed


def test_an_overdue_request_fails_the_check_and_the_job(world: World, make_store: MakeStore) -> None:
    erase(world.store, "she")
    assert world.execute("check_store").success  # pending is no failure
    late = World(make_store(today=TODAY + timedelta(days=31)), world.instance)
    assert not late.ask(LAST, "erasures_within_deadline").success
    check = late.last_check(LAST, "erasures_within_deadline")
    assert check is not None and not check.passed


def test_somebody_who_is_left_fails_the_check_and_its_job_and_the_partition_is_named(world: World) -> None:
    erase(world.store, "she")
    epoch = epoch_of(DAYS[1], 90)
    hers = world.store.state.activity.read(DAYS[1], epoch)
    assert hers is not None
    world.run_until_idle()
    world.store.state.activity.replace([DaySet(DAYS[1], epoch, hers)])
    assert not world.ask(LAST, "no_erased_user_in_live_state").success
    check = world.last_check(LAST, "no_erased_user_in_live_state")
    assert check is not None and not check.passed
    place = f"day={DAYS[1]}/epoch={epoch}"  # the sketch is not of that state, so nobody vouches for it either
    assert check.metadata["places"].value == [f"activity/{place}", f"sketches/{place}"]


def test_a_file_that_somebody_left_is_found_and_not_named_where_names_are_kept_for_ever(world: World) -> None:
    erase(world.store, "she")
    (source,) = (world.store.settings.data_dir / "activity" / f"day={DAYS[1]}").iterdir()
    (world.store.settings.data_dir / "copy for she@example.org").write_bytes(source.read_bytes())
    keys = world.run_until_idle()
    assert [key.rpartition("/")[2] for key in keys if "verify" in key] == ["0", "1", "2", str(TODAY)]
    assert states(world.store) == {"applied"}
    world.ask(LAST, "no_erased_user_in_live_state")
    check = world.last_check(LAST, "no_erased_user_in_live_state")
    assert check is not None and check.metadata["places"].value == ["a file that is no partition"]


def test_a_day_kept_for_too_long_fails_its_check_only_where_retention_is_on(
    make_store: MakeStore, instance: dg.DagsterInstance
) -> None:
    verdicts = []
    for kept in (None, 120):
        store = make_store(str(kept), today=date(2025, 8, 1), retention_days=kept)
        put(store, [("someone", DAYS[0])])
        process_days(DAYS[:1], store)
        world = World(store, instance)
        world.ask(LAST, "retention_on_time")
        check = world.last_check(LAST, "retention_on_time")
        assert check is not None
        verdicts.append(check.passed)
    assert verdicts == [True, False]


def test_a_day_builds_without_asking_the_whole_store(world: World) -> None:
    done = world.execute(BUILD_STATE, str(DAYS[0]))
    assert {evaluation.check_name for evaluation in done.get_asset_check_evaluations()} == {
        "erasures_applied",
        "sketch_is_fresh",
    }


def test_what_reads_everything_or_blocks_stands_where_no_backfill_runs_it_and_nothing_follows() -> None:
    graph = build_definitions(Settings()).resolve_asset_graph()
    for key in graph.asset_check_keys:
        node = graph.get(key)
        if node.blocking or key.name == "no_erased_user_in_live_state":
            assert graph.get(key.asset_key).partitions_def is None, key
            assert not graph.get(key.asset_key).child_keys, key


# --- What is on, and what is off ---------------------------------------------------------------------------------


def test_what_publishes_or_destroys_is_off_until_somebody_switches_it_on(make_store: MakeStore) -> None:
    settings = make_store(retention_days=120).settings
    sensors = {definition.name: definition.default_status for definition in build_definitions(settings).sensors or ()}  # type: ignore[union-attr]
    assert sensors == dict.fromkeys(("erasure_sensor", "inbox_sensor", "alert_sensor"), dg.DefaultSensorStatus.RUNNING)
    schedules = {definition.name: definition.default_status for definition in build_schedules(*project_under(settings))}
    off = dict.fromkeys(("publish_due_hourly", "restate_monthly", "retention_daily"), dg.DefaultScheduleStatus.STOPPED)
    assert schedules == {**off, "check_store_nightly": dg.DefaultScheduleStatus.RUNNING}
    without = {
        definition.name for definition in build_schedules(*project_under(make_store(restatements_per_month=0).settings))
    }
    assert without == {"publish_due_hourly", "check_store_nightly"}
