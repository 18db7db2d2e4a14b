"""The inbox sensor: what has landed is taken in, and days that new batches touch are built if anyone asked for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.events import BAD_DAY
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete, take_all_landed
from dpdau_assets.orchestration.names import REBUILD_DAYS
from dpdau_tests.conftest import put
from dpdau_tests.dagster.world import World, erase
from resources.reading.landing_files import LandingFiles
from sensors.attempts import ATTEMPTS

TODAY = date(2025, 1, 20)
DAYS = days_between(date(2025, 1, 1), date(2025, 1, 4))
NEW = date(2025, 1, 10)


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


def four_days(world: World) -> None:
    """Built by Dagster, and nothing else is new."""
    put(world.store, [(f"user {n}", day) for day in DAYS for n in range(5)])
    world.build(DAYS)
    assert world.tick() == []


@pytest.fixture
def world(make_world: Callable[..., World], make_store: Callable[..., Store], landing: Path) -> World:
    """Four days of state, and an empty landing folder."""
    made_world = make_world(four_days, TODAY, sensor="inbox_sensor")
    world = replace(made_world, store=make_store(today=TODAY, landing_dir=landing))
    assert world.tick() == []
    return world


def land(landing: Path, day: date, *users: str, complete: bool = True) -> Path:
    folder = landing / f"day={day}"
    folder.mkdir(exist_ok=True)
    (folder / "part.csv").write_text("user_id,op,day\n" + "".join(f"{user},+,{day}\n" for user in users))
    if complete:
        (folder / "_SUCCESS").touch()
    return folder


def active_on(day: date, store: Store) -> int:
    (place,) = (place for place in store.state.activity.stored() if place[0] == day)
    keys = store.state.activity.read(*place)
    return -1 if keys is None else len(keys)


# --- New batches -------------------------------------------------------------------------------------------------


def test_a_new_batch_has_the_days_built_that_it_touches_and_no_others(world: World) -> None:
    before = world.versions()
    put(world.store, [("somebody new", DAYS[1])])
    (wanted,) = world.tick()
    assert wanted.job_name == REBUILD_DAYS
    assert world.launch(wanted)
    after = world.versions()
    assert {day for (_, day) in after if before["activity", day] != after["activity", day]} == {str(DAYS[1])}
    assert world.stale("day_sketch", DAYS) == world.stale("activity", DAYS) == set()
    assert world.tick() == []


def test_a_day_that_nobody_asked_for_is_not_built_whoever_was_active_on_it(world: World) -> None:
    """Built, it could be published: whether it can must not depend on that."""
    put(world.store, [("somebody", NEW)])
    assert world.run_until_idle() == []
    assert NEW not in world.store.accountant.processed()


def test_a_declared_day_is_built_whether_or_not_anyone_was_active_on_it(world: World) -> None:
    put(world.store, [("somebody", NEW)])
    for day in (NEW, NEW + timedelta(days=1)):
        complete(day, world.store)
    assert len(world.run_until_idle()) == 1
    assert {NEW, NEW + timedelta(days=1)} <= world.store.accountant.processed()
    assert [active_on(day, world.store) for day in (NEW, NEW + timedelta(days=1))] == [1, 0]


def test_a_batch_that_another_run_has_folded_is_told_to_dagster_all_the_same(world: World) -> None:
    put(world.store, [("somebody new", DAYS[1]), ("somebody new", DAYS[2])])
    world.build([DAYS[0]])  # folds the whole inbox, and tells its own day alone
    before = world.versions()
    assert len(world.run_until_idle()) == 1
    after = world.versions()
    changed = {day for (asset, day) in after if asset == "activity" and before[asset, day] != after[asset, day]}
    assert changed == {str(DAYS[1]), str(DAYS[2])}


def test_marks_of_erasures_are_left_to_the_other_sensor(world: World) -> None:
    erase(world.store, "user 1")
    other = World(world.store, world.instance)
    assert len(other.tick()) == 1
    assert world.tick() == []


def test_a_repeated_tick_asks_for_the_same_run_and_none_while_it_is_under_way(world: World) -> None:
    put(world.store, [("somebody new", DAYS[1])])
    first, again = world.evaluate(), world.evaluate()
    (wanted,) = first.run_requests or []
    assert [asked.run_key for asked in again.run_requests or []] == [wanted.run_key]
    tags = {**wanted.tags, "dagster/run_key": str(wanted.run_key)}
    job = world.definitions.resolve_job_def(REBUILD_DAYS)
    world.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert world.tick() == []


def test_no_build_is_asked_for_while_another_is_under_way_and_what_that_leaves_is_built(world: World) -> None:
    put(world.store, [("somebody new", DAYS[1])])
    job = world.definitions.resolve_job_def(REBUILD_DAYS)
    for status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED):
        other = world.instance.create_run_for_job(job, status=status)
        assert world.tick() == []
        world.instance.report_run_canceled(other)
    assert len(world.run_until_idle()) == 1
    assert active_on(DAYS[1], world.store) == 6


def test_a_build_that_fails_is_tried_a_few_times_and_then_once_a_day(world: World) -> None:
    (file,) = (world.store.settings.data_dir / "activity" / f"day={DAYS[1]}").iterdir()
    put(world.store, [("somebody new", DAYS[1])])
    file.write_bytes(b"not Parquet any more")
    attempts = []
    for _ in range(ATTEMPTS + 2):
        wanted = world.tick()
        attempts += [str(asked.run_key).rpartition("/")[2] for asked in wanted]
        assert not any(world.launch(asked) for asked in wanted)
    assert attempts == ["0", "1", "2", str(TODAY)]


# --- What has landed ---------------------------------------------------------------------------------------------


def test_a_finished_folder_is_taken_in_declared_complete_and_built(world: World, landing: Path) -> None:
    land(landing, NEW, "user 1", "user 2")
    assert [key.split("/")[0] for key in world.run_until_idle()] == ["land", "inbox"]
    assert NEW in world.store.events.completions.completed()
    assert active_on(NEW, world.store) == 2
    assert world.tick() == []


def test_a_folder_without_its_success_file_is_not_finished(world: World, landing: Path) -> None:
    folder = land(landing, NEW, "user 1", complete=False)
    assert world.run_until_idle() == []
    assert world.store.events.completions.completed() == {}
    (folder / "_SUCCESS").touch()
    assert len(world.run_until_idle()) == 2


def test_a_finished_folder_without_events_is_a_day_on_which_nobody_came(world: World, landing: Path) -> None:
    folder = landing / f"day={NEW}"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    world.run_until_idle()
    assert active_on(NEW, world.store) == 0


def test_a_folder_that_was_written_anew_is_taken_in_again_and_one_that_was_not_is_not(
    world: World, landing: Path
) -> None:
    land(landing, NEW, "user 1")
    world.run_until_idle()
    assert world.tick() == []
    land(landing, NEW, "user 1", "user 2", "user 3")
    assert [key.split("/")[0] for key in world.run_until_idle()] == ["land", "inbox"]
    assert active_on(NEW, world.store) == 3


def test_a_file_that_cannot_be_read_holds_no_other_day_up_and_nothing_of_its_day_is_taken(
    world: World, landing: Path
) -> None:
    bad, good = NEW, NEW + timedelta(days=1)
    land(landing, bad, "user 1")
    broken = landing / f"day={bad}" / "she@example.org.parquet"
    broken.write_bytes(b"no Parquet")
    land(landing, good, "user 1")
    (wanted,) = world.tick()
    assert world.launch(wanted) is False
    logged = repr(world.instance.all_logs(world.instance.get_runs(limit=1)[0].run_id))
    assert f"{bad}: file 2 of 2 cannot be read as parquet" in logged and "she@example.org" not in logged
    assert set(world.store.events.completions.completed()) == {good}
    assert bad not in world.store.events.inbox.days()
    broken.unlink()
    world.run_until_idle()
    assert set(world.store.events.completions.completed()) == {bad, good}
    assert active_on(bad, world.store) == 1


def test_a_folder_with_too_many_bad_rows_makes_no_day_complete_and_nothing_of_it_is_taken(
    world: World, landing: Path
) -> None:
    """Two good rows and a removal among six: whoever is in them waits until the folder is mended."""
    folder = land(landing, NEW, "user 1")
    (folder / "she@example.org.jsonl").write_text(
        '{"user_id": "she@example.org", "op": "-", "day": "2025-01-03"}\n' + '{"user_id": "x", "day": "never"}\n' * 4
    )
    (wanted,) = world.tick()
    assert world.launch(wanted) is False
    logged = repr(world.instance.all_logs(world.instance.get_runs(limit=1)[0].run_id))
    assert f"{NEW}: 66.7 % of the rows are bad" in logged and "In file 2 of 2: " in logged and BAD_DAY in logged
    assert "she@example.org" not in logged
    assert NEW not in world.store.events.completions.completed() and NEW not in world.store.events.inbox.days()
    (folder / "she@example.org.jsonl").unlink()
    world.run_until_idle()
    assert NEW in world.store.events.completions.completed()


def test_a_folder_that_goes_or_changes_while_it_is_taken_in_makes_no_day_complete(
    world: World, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark writes a folder anew so: it takes the marker away, and then the files, before it writes them anew."""
    folder = land(landing, NEW, "user 1")
    seen = LandingFiles.files

    def gone(self: LandingFiles, day: date) -> list[Path]:
        (folder / "_SUCCESS").unlink()
        return seen(self, day)

    monkeypatch.setattr(LandingFiles, "files", gone)
    assert take_all_landed([NEW], world.store).refused[NEW].startswith("It was changed while it was taken in.")
    monkeypatch.undo()
    land(landing, NEW, "user 1")
    read = world.store.events.engine.scan

    def written_to(files: list[Path], *arguments: Any) -> Any:
        (folder / "more.csv").write_text(f"user_id,day\nuser 2,{NEW}\n")
        return read(files, *arguments)

    monkeypatch.setattr(
        type(world.store.events.engine), "scan", lambda _, *arguments: written_to(*arguments), raising=False
    )
    assert take_all_landed([NEW], world.store).refused
    monkeypatch.undo()
    assert NEW not in world.store.events.completions.completed()
    world.run_until_idle()
    assert NEW in world.store.events.completions.completed() and active_on(NEW, world.store) == 2


def test_days_with_event_files_and_no_marker_are_told_where_there_is_nothing_to_do(world: World, landing: Path) -> None:
    assert world.evaluate().skip_reason is None
    days = [NEW + timedelta(days=n) for n in range(6)]
    for day in days:
        land(landing, day, "user 1", complete=False)
    skipped = world.evaluate().skip_reason
    assert isinstance(skipped, dg.SkipReason) and skipped.skip_message == (
        f"Days with event files and no _SUCCESS: {', '.join(map(str, days[:5]))}, and more. "
        "Write _SUCCESS into the day's folder, or into LANDING_DIR last of all."
    )
    (landing / "_SUCCESS").touch()
    assert len(world.run_until_idle()) > 0 and world.evaluate().skip_reason is None
    assert set(world.store.events.completions.completed()) == set(days)


def test_one_folder_that_nobody_can_read_stops_no_other(world: World, landing: Path) -> None:
    folder = land(landing, NEW, "user 1")
    (folder / "she@example.org.csv").symlink_to("nowhere")
    good = NEW + timedelta(days=1)
    (land(landing, good, "user 1") / os.fsdecode(b"m\xfcller.csv")).write_text("user_id,day\n")
    taken = take_all_landed([NEW, good, good + timedelta(days=1)], world.store)
    assert set(taken.refused) == {NEW, good + timedelta(days=1)}
    assert taken.refused[NEW].startswith("File 2 of 2 has an ending that is not read") and "she@example" not in repr(
        taken
    )
    assert set(world.store.events.completions.completed()) == {good}


def test_a_folder_in_a_landed_one_that_nobody_may_read_is_told_without_its_name(
    world: World, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = land(landing, NEW, "user 1") / "she@example.org"
    below.mkdir()
    scan = os.scandir

    def closed(path: Path | str) -> Any:
        if str(path) == str(below):
            raise PermissionError(13, "Permission denied", str(below))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    refused = take_all_landed([NEW], world.store).refused[NEW]
    assert refused.startswith("Something of it cannot be read.") and "she@example" not in refused


def test_whatever_one_folder_fails_with_no_other_waits_and_its_words_are_not_told(
    world: World, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (NEW, NEW + timedelta(days=1)):
        land(landing, day, "user 1")
    seen = LandingFiles.files

    def fail(self: LandingFiles, day: date) -> list[Path]:
        if day == NEW:
            raise LookupError("she@example.org")
        return seen(self, day)

    monkeypatch.setattr(LandingFiles, "files", fail)
    refused = take_all_landed([NEW, NEW + timedelta(days=1)], world.store).refused
    assert refused.keys() == {NEW} and refused[NEW].startswith("It failed with LookupError.")


def test_what_a_refused_folder_left_in_the_quarantine_is_made_good_by_the_folder_under_whatever_names(
    world: World, landing: Path
) -> None:
    folder = land(landing, NEW, "user 1")
    (folder / "part-1.csv").write_text("user_id,day\nx,never\n")
    assert take_all_landed([NEW], world.store).refused and len(world.store.events.quarantine.shares()) == 1
    (folder / "part-1.csv").rename(folder / "part-2.csv")
    (folder / "part-2.csv").write_text(f"user_id,day\nx,{NEW}\n")
    assert not take_all_landed([NEW], world.store).refused and not world.store.events.quarantine.shares()


def test_events_of_other_days_in_a_days_folder_are_warned_of_and_decide_nothing(world: World, landing: Path) -> None:
    folder = land(landing, NEW, "user 1", "user 2", "user 3")
    (folder / "others.csv").write_text(f"user_id,day\nuser 4,{DAYS[0]}\n")
    (wanted,) = world.tick()
    assert world.launch(wanted)
    logged = [entry.user_message for entry in world.instance.all_logs(world.instance.get_runs(limit=1)[0].run_id)]
    assert [text for text in logged if text.startswith("In day=")] == [
        f"In day={NEW}, 25 % of the events are of other days."
    ]
    assert NEW in world.store.events.completions.completed()


@pytest.mark.parametrize("day", [date(2024, 12, 31), TODAY, TODAY + timedelta(days=3)])
def test_a_day_that_cannot_be_declared_waits_in_its_folder_and_fails_nothing(
    world: World, landing: Path, day: date
) -> None:
    land(landing, day)
    assert world.run_until_idle() == []
