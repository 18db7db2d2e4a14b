"""The demo goes on today: its events are moved by whole weeks, and each later day is published as it comes."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from dagster._core.scheduler.instigation import InstigatorStatus, InstigatorType
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.dates import days_between, first_window_end
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import landed, take_all_landed
from dpdau_assets.core.publication.due import last_due
from dpdau_tests.conftest import FixedClock
from dpdau_tests.dagster.world import stop_the_clock
from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.simulation import Clock, need_libfaketime
from eval import demo, moved_events
from eval.moved_events import DAYS_OF_MAU, EVENTS, LOG_ENDS, YESTERDAY_AT_LATEST, Move, lay_out, move_from, move_until
from resources.dagster_instance import open_run
from resources.published.frames import read_mart
from resources.reading.landing_files import LandingFiles
from resources.settings_env import Environment, read_settings

YESTERDAY = date(2026, 3, 3)
DAYS = st.dates(date(2015, 1, 1), date(2100, 1, 1))


# --- The move ----------------------------------------------------------------------------------------------------


@given(DAYS)
def test_yesterday_is_one_of_the_seven_days_of_the_log_that_end_with_14_april(yesterday: date) -> None:
    of_log = yesterday - timedelta(weeks=move_until(yesterday).weeks)
    assert YESTERDAY_AT_LATEST - timedelta(days=6) <= of_log <= YESTERDAY_AT_LATEST == date(2014, 4, 14)


@given(DAYS)
def test_a_move_keeps_the_days_of_the_week(yesterday: date) -> None:
    move = move_until(yesterday)
    assert move.last.weekday() == LOG_ENDS.weekday()
    assert (yesterday - timedelta(weeks=move.weeks)).weekday() == yesterday.weekday()


@given(DAYS)
def test_mau_begins_with_the_first_whole_window_and_has_121_days_up_to_yesterday(yesterday: date) -> None:
    move = move_until(yesterday)
    first_mau_day = first_window_end(move.first, 30)
    assert first_mau_day == move.first + timedelta(days=29)
    assert len(days_between(first_mau_day, yesterday)) == DAYS_OF_MAU == 121
    assert len(days_between(move.first, yesterday)) == 150
    assert move.landing_days[0] == yesterday + timedelta(days=1)


@given(DAYS)
def test_a_move_is_the_same_when_it_is_read_again(yesterday: date) -> None:
    move = move_until(yesterday)
    assert move_from(move.weeks, move.first) == move


# --- The events --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="laid_out")
def a_demo_that_is_laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Move, Path]:
    folder = tmp_path_factory.mktemp("laid_out")
    move = move_until(YESTERDAY)
    lay_out(move, folder / "events.parquet", folder / "landing")
    return move, folder


def rows(query: str, **parameters: object) -> list[tuple]:
    with duckdb.connect() as database:
        return database.execute(query, parameters).fetchall()


def test_every_event_of_the_log_from_the_first_day_on_is_there_once_and_only_its_day_is_moved(
    laid_out: tuple[Move, Path],
) -> None:
    move, folder = laid_out
    moved = rows(
        "SELECT user_id, ts - 86400 * $days, op, day - $days FROM read_parquet([$one, $others]) ORDER BY ALL",
        days=7 * move.weeks,
        one=str(folder / "events.parquet"),
        others=str(folder / "landing" / "*" / "*.parquet"),
    )
    of_log = rows(
        "SELECT user_id, ts, op, day FROM read_parquet($log) WHERE day >= $first ORDER BY ALL",
        log=str(EVENTS),
        first=move.first - timedelta(weeks=move.weeks),
    )
    assert len(moved) > 100_000 and moved == of_log


def test_nothing_is_handed_in_of_the_days_before_the_first_and_each_folder_has_its_own_day(
    laid_out: tuple[Move, Path],
) -> None:
    move, folder = laid_out
    file = str(folder / "events.parquet")
    assert rows("SELECT min(day), max(day) FROM read_parquet($file)", file=file) == [(move.first, YESTERDAY)]
    assert sorted(LandingFiles(folder / "landing").days()) == move.landing_days
    others = str(folder / "landing" / "*" / "*.parquet")
    strays = "SELECT * FROM read_parquet($others, filename=true, hive_partitioning=false) WHERE NOT contains(filename, "
    assert rows(f"{strays} concat('day=', day, '/'))", others=others) == []


def test_the_log_ends_where_its_last_folder_is() -> None:
    assert rows("SELECT max(day) FROM read_parquet($log)", log=str(EVENTS)) == [(LOG_ENDS,)]


def test_what_is_laid_out_stays_and_what_was_cut_short_is_laid_out_anew(tmp_path: Path) -> None:
    landing, begun_with = tmp_path / "landing", LOG_ENDS - timedelta(days=3)
    move = Move(0, begun_with - timedelta(days=150), begun_with)  # three folders
    lay_out(move, tmp_path / "events.parquet", landing)
    before = LandingFiles(landing).days()
    lay_out(move, tmp_path / "events.parquet", landing)
    assert LandingFiles(landing).days() == before and len(before) == 3
    (landing / f"day={LOG_ENDS}" / "_SUCCESS").unlink()
    cut_short = landing / f"day={LOG_ENDS}" / EVENTS.name
    cut_short.write_bytes(cut_short.read_bytes()[:20])
    lay_out(move, tmp_path / "events.parquet", landing)
    assert set(LandingFiles(landing).days()) == set(before)
    assert rows("SELECT day FROM read_parquet($file) LIMIT 1", file=str(cut_short)) == [(LOG_ENDS,)]


def test_a_day_is_taken_in_once_it_has_ended_also_one_on_which_nobody_was_active(
    laid_out: tuple[Move, Path], make_store: Callable[..., Store]
) -> None:
    move, folder = laid_out
    in_the_log = date(2015, 5, 14)
    assert rows("SELECT count(*) FROM read_parquet($log) WHERE day = $day", log=str(EVENTS), day=in_the_log) == [(0,)]
    quiet = in_the_log + timedelta(weeks=move.weeks)
    store = make_store(
        today=quiet + timedelta(days=1), start_date=quiet - timedelta(days=1), landing_dir=folder / "landing"
    )
    assert sorted(landed(store)) == [quiet - timedelta(days=1), quiet]
    assert not take_all_landed(landed(store), store).refused
    assert landed(store) == {}
    assert set(store.events.completions.completed()) == {quiet - timedelta(days=1), quiet}


# --- The settings ------------------------------------------------------------------------------------------------


@pytest.fixture(name="nothing_laid_out")
def no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "lay_out", lambda *_: None)


@pytest.mark.usefixtures("nothing_laid_out")
def test_the_move_is_fixed_at_the_first_run_and_kept_in_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_clock(monkeypatch, YESTERDAY + timedelta(days=1))
    first = demo.prepare(tmp_path)
    kept = (tmp_path / "env").read_bytes()
    stop_the_clock(monkeypatch, YESTERDAY + timedelta(days=40))
    again = demo.prepare(tmp_path)
    assert again.move == first.move == move_until(YESTERDAY)
    assert (tmp_path / "env").read_bytes() == kept
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("nothing_laid_out")
def test_todays_number_is_due_when_today_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_the_clock(monkeypatch, YESTERDAY + timedelta(days=1))
    environment = demo.prepare(tmp_path).environment
    settings = read_settings(
        {name: environment[name.upper()] for name in Environment.model_fields if name.upper() in environment}
    )
    assert settings.start_date == move_until(YESTERDAY).first
    assert settings.landing_dir == tmp_path / "landing"
    assert last_due(settings, FixedClock(YESTERDAY + timedelta(days=2))) == YESTERDAY + timedelta(days=1)


def test_a_demo_of_the_old_kind_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("export START_DATE=2012-03-01\nexport HASH_SALT_SECRET=00\n")
    with pytest.raises(SystemExit, match="make clean"):
        demo.prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["env"]


def test_a_demo_whose_events_are_over_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move = move_until(YESTERDAY)
    too_late = {"today": str(move.last + timedelta(days=2)), "published": []}
    monkeypatch.setattr(demo, "dpdau", lambda *_: too_late)
    with pytest.raises(SystemExit, match="make clean"):
        demo.publish(demo.Demo(tmp_path, {}, move), even_if_done=True)


# --- The whole ---------------------------------------------------------------------------------------------------


def numbers_of(home: Path) -> pd.DataFrame:
    numbers = read_mart(home / "data" / "mart")
    return numbers.set_index(["metric", "day", "revision"]).loc[:, ["noisy_value", "published_at"]]


def schedules_on(home: Path, patch: pytest.MonkeyPatch) -> set[str]:
    """Schedules that were switched on in this home, of the ones that are off at first."""
    patch.setenv("DAGSTER_HOME", str(home))  # which dagster.yaml names
    with open_run(home) as instance:
        states = instance.all_instigator_state(
            instigator_type=InstigatorType.SCHEDULE, instigator_statuses={InstigatorStatus.RUNNING}
        )
        return {state.name for state in states}


@pytest.mark.slow(weight=3)
def test_a_second_run_on_a_later_day_publishes_the_days_since_and_changes_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a few days of MAU, and a month that is restated in between. Schedules are switched on in the first run."""
    home, clock = tmp_path / ".demo", Clock(tmp_path / "clock", need_libfaketime())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(moved_events, "DAYS_OF_MAU", at_length(ci=3, soak=121))
    for name, value in clock.environment(dict(os.environ)).items():
        monkeypatch.setenv(name, value)

    def run_on(today: date, *options: str) -> None:
        clock.set(datetime.combine(today, time(12), UTC))
        stop_the_clock(monkeypatch, today)
        demo.main(list(options))

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "a_users_home"))
    today = YESTERDAY + timedelta(days=1)
    run_on(today)
    move, before = demo.prepare(home.resolve()).move, numbers_of(home)
    in_order = [*days_between(move.first, YESTERDAY)]
    assert set(before.loc["dau"].xs(0, level="revision").index.date) == set(in_order)
    assert set(before.loc["mau"].xs(0, level="revision").index.date) == set(in_order[29:])
    assert schedules_on(home / "dagster_home", monkeypatch) == {"publish_due_hourly", "restate_monthly"}
    assert schedules_on(tmp_path / "a_users_home", monkeypatch) == set()

    monkeypatch.setenv("DAGSTER_HOME", "")
    stopped = demo.dagster(
        demo.prepare(home.resolve()), "schedule", "stop", "publish_due_hourly", "-w", str(demo.shipped(demo.WORKSPACE))
    )
    assert stopped == 0
    run_on(today + timedelta(days=2), "--publish")
    after = numbers_of(home)
    pd.testing.assert_frame_equal(after.loc[before.index], before)
    since = after.drop(before.index)
    restated = [day for day in in_order if (day.year, day.month) == (2026, 2)]
    expected = {
        (metric, pd.Timestamp(day), 0) for metric in ("dau", "mau") for day in (today, today + timedelta(days=1))
    }
    assert set(since.index) == expected | {("dau", pd.Timestamp(day), 1) for day in restated}
    assert "publish_due_hourly" not in schedules_on(home / "dagster_home", monkeypatch)

    with pytest.raises(SystemExit) as ended:
        run_on(today + timedelta(days=2), "--check")
    assert ended.value.code == 0
    (file,) = (home / "data" / "activity" / f"day={move.first}").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SystemExit) as failed:
        run_on(today + timedelta(days=2), "--check")
    assert failed.value.code == 4, "a check of the store fails"
