"""Two weeks of operation by the real daemon, on a year of days, with people erased and with restarts in between."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

import dagster as dg
import pytest

from dpdau_assets.core.checking import ask_all
from dpdau_assets.core.completeness import complete
from dpdau_assets.core.erasure import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.windows import days_between, first_window_end
from dpdau_tests.browser import PICTURES as KEPT
from dpdau_tests.conftest import SECRET, FixedClock, put
from dpdau_tests.fast_folder import fast_folder
from dpdau_tests.simulation import Daemon, wait_until
from resources.mart_duckdb import MartFiles
from resources.settings_env import read_settings
from resources.store import open_store

BEGIN = date(2025, 1, 1)
LAST_BEFORE = date(2025, 12, 24)
"""With it the year's history ends; the two weeks follow."""
WEEKS = days_between(date(2025, 12, 27), date(2026, 1, 9))
USERS, ACTIVE_A_DAY = 600, 30
ERASED_BEFORE, ERASED_A_DAY = 80, 10
DOWN = {date(2025, 12, 30), date(2025, 12, 31)}
"""Days on which the daemon does not run."""
CRASHES = {date(2025, 12, 28), date(2026, 1, 3)}
"""Days on which the machine goes down while a publication is under way."""
UPSTREAM_IS_LATE = date(2026, 1, 5)
"""The day before is declared two days later than it should be: the day after it is due."""
DECLARED_LATE = UPSTREAM_IS_LATE + timedelta(days=2)

pytestmark = [pytest.mark.weeks, pytest.mark.timeout(3600)]


@pytest.fixture
def receiver() -> Iterator[list[dict]]:
    """A local receiver of alerts; its address is in ALERT_WEBHOOK."""
    told: list[dict] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/")
            yield told
        server.shutdown()


class Operation:
    """A store, its landing folder, and the daemon that works on them."""

    def __init__(self, folder: Path, daemon: Daemon, settings: Settings) -> None:
        self.daemon, self.settings = daemon, settings
        self.landing = folder / "landing"
        self.random = random.Random(1)
        self.people = [f"user {n}" for n in range(USERS)]
        self.receipts: list[str] = []

    def outside(self) -> Outside:
        """Of this moment, for the test's own process, which has the real clock."""
        return replace(open_store(self.settings), clock=FixedClock(self.daemon.now().date()))

    def events(self, day: date) -> list[tuple[str, date]]:
        return [(user, day) for user in self.random.sample(self.people, ACTIVE_A_DAY)]

    def lands(self, day: date, *, complete: bool = True) -> None:
        """Upstream writes the day's folder, and says that it is complete."""
        folder = self.landing / f"day={day}"
        if not folder.exists():
            folder.mkdir(parents=True)
            rows = "".join(f"{user},+,{day}\n" for user, _ in self.events(day))
            (folder / "events.csv").write_text(f"user_id,op,day\n{rows}")
        if complete:
            (folder / "_SUCCESS").touch()

    def erase(self, people: int) -> None:
        chosen = [self.people.pop(self.random.randrange(len(self.people))) for _ in range(people)]
        today = self.daemon.now().date()
        asked = [Event(user, "-", today - timedelta(days=self.random.randrange(200))) for user in chosen]
        self.receipts += request(asked, self.outside(), confirmed=True).receipts

    def has_settled(self) -> bool:
        return self.daemon.is_idle() and not self.outside().rebuilds.behind()

    def settle(self, what: str) -> None:
        wait_until(what, self.has_settled)

    def published(self, metric: Metric) -> list[date]:
        return [one.key.day for one in self.outside().ledger.releases(metric) if not one.key.revision]


@contextmanager
def operation(receiver: list[dict]) -> Iterator[Operation]:
    """A year of days in the inbox, all declared, none published; every schedule is on."""
    with fast_folder() as folder, pytest.MonkeyPatch.context() as patch:
        values = {
            "DATA_DIR": folder / "data", "HASH_SALT_SECRET": SECRET, "START_DATE": BEGIN,
            "LANDING_DIR": folder / "landing", "DAGSTER_HOME": folder / "home", "RETENTION_DAYS": 400,
        }  # fmt: skip
        for name, value in values.items():
            patch.setenv(name, str(value))
        (folder / "landing").mkdir()
        settings = read_settings()
        with Daemon(folder / "home", folder / "scratch", os.environ) as daemon:
            found = Operation(folder, daemon, settings)
            daemon.set_clock(at(LAST_BEFORE + timedelta(days=2), 0))
            days = days_between(BEGIN, LAST_BEFORE)
            put(found.outside(), [event for day in days for event in found.events(day)])
            for day in days:
                complete(day, found.outside())
            for schedule in ("publish_daily", "restate_monthly", "retention_daily"):
                daemon.command("schedule", "start", schedule)
            try:
                yield found
            except BaseException:
                KEPT.mkdir(exist_ok=True)
                shutil.copy(daemon.log, KEPT / "two-weeks-daemon.log")
                raise


def at(day: date, hour: int = 1, minute: int = 5) -> datetime:
    return datetime.combine(day, time(hour, minute), UTC)


def test_two_weeks_of_operation_publish_every_number_on_time_and_once(receiver: list[dict]) -> None:
    with operation(receiver) as running:
        daemon = running.daemon
        running.lands(LAST_BEFORE + timedelta(days=1))
        running.erase(ERASED_BEFORE)
        daemon.start(at(LAST_BEFORE + timedelta(days=2)))
        running.settle("the year")
        assert running.published("dau") == days_between(BEGIN, LAST_BEFORE)
        assert running.outside().ledger.restated() == {date(2025, month, 1) for month in range(1, 12)}
        for today in WEEKS:
            live_through(today, running)
        daemon.set_clock(at(WEEKS[-1], 12))
        running.settle("the last checks")
        assert_nothing_is_missing_or_double(running)
        assert_all_is_well(running)
        assert_only_what_went_wrong_was_told(receiver, running)
        keep_ticks(daemon)


def live_through(today: date, running: Operation) -> None:
    """What the night brings: upstream's folder of yesterday, requests, the schedules, and what goes wrong."""
    daemon = running.daemon
    if today in DOWN:
        daemon.stop() if daemon.is_running() else None
        running.lands(today - timedelta(days=1))
        daemon.set_clock(at(today, 23))
        return
    daemon.set_clock(at(today))
    running.lands(today - timedelta(days=1), complete=today != UPSTREAM_IS_LATE)
    if today == DECLARED_LATE:
        running.lands(UPSTREAM_IS_LATE - timedelta(days=1))
    running.erase(ERASED_A_DAY)
    if not daemon.is_running():
        daemon.start()
    if today in CRASHES:
        crash_while_publishing(today, running)
    running.settle(f"{today}")
    if today in (DECLARED_LATE, max(DOWN) + timedelta(days=1)):  # what landed is taken in, and published an hour later
        daemon.set_clock(at(today, 2))
        running.settle(f"the second hour of {today}")
    assert running.published("dau")[-1] == last_expected(today), today
    assert running.published("mau")[-1] == last_expected(today), today


def last_expected(today: date) -> date:
    """The day that is due, unless upstream is late with it or one before it."""
    late = UPSTREAM_IS_LATE - timedelta(days=1)
    is_due = today - timedelta(days=2)
    return late - timedelta(days=1) if late <= is_due and today < DECLARED_LATE else is_due


def crash_while_publishing(today: date, running: Operation) -> None:
    """The whole machine goes down; Dagster takes the run for one that goes on, until it has had its four hours."""
    daemon = running.daemon

    def under_way() -> list[dg.DagsterRun]:
        return daemon.runs(job_name="publish_due", statuses=[dg.DagsterRunStatus.STARTED])

    wait_until("a publication", lambda: bool(under_way()))
    daemon.crash()
    daemon.set_clock(at(today, 6))
    daemon.start()
    wait_until("the end of the dead run", lambda: not under_way())
    daemon.set_clock(at(today, 8))


# --- What has to be true at the end --------------------------------------------------------------------------------


def assert_nothing_is_missing_or_double(running: Operation) -> None:
    last = WEEKS[-1] - timedelta(days=2)
    first_mau = first_window_end(BEGIN, running.settings.mau_window_days)
    assert running.published("dau") == days_between(BEGIN, last)
    assert running.published("mau") == days_between(first_mau, last)
    assert running.outside().ledger.restated() == {date(2025, month, 1) for month in range(1, 13)}
    for asset, days in (("dau_release", days_between(BEGIN, last)), ("mau_release", days_between(first_mau, last))):
        told = running.daemon.instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
        assert Counter(one.partition_key for one in told) == Counter(map(str, days)), asset


def assert_all_is_well(running: Operation) -> None:
    outside = running.outside()
    assert len(running.receipts) == ERASED_BEFORE + ERASED_A_DAY * (len(WEEKS) - len(DOWN)) == 200
    assert {one.state for one in outside.erasures.erasures()} == {"verified"}
    mart = MartFiles(running.settings.data_dir / "mart")
    assert [name for name, found in ask_all(outside, mart).items() if not found.passed] == []
    nights = running.daemon.runs(job_name="check_store", statuses=[dg.DagsterRunStatus.SUCCESS])
    assert len(nights) >= len(WEEKS) - len(DOWN) - len(CRASHES)


def assert_only_what_went_wrong_was_told(told: list[dict], running: Operation) -> None:
    """Runs fail on the days of the crashes alone: publication each time, and whatever else was under way."""
    failed = running.daemon.runs(statuses=[dg.DagsterRunStatus.FAILURE])
    records = [running.daemon.instance.get_run_record_by_id(run.run_id) for run in failed]
    assert {datetime.fromtimestamp(one.start_time, UTC).date() for one in records if one and one.start_time} == CRASHES
    assert [run.job_name for run in failed].count("publish_due") == len(CRASHES)
    assert Counter(one["alert"] for one in told)["run_failed"] == len(failed)
    assert {one["alert"] for one in told} <= {"run_failed", "published_on_time"}
    assert any(str(UPSTREAM_IS_LATE - timedelta(days=1)) in one["text"] for one in told)


def keep_ticks(daemon: Daemon) -> None:
    """For people: how long the sensors' ticks took, by day. A test that asserts times fails with the machine."""
    seconds: dict[str, dict[str, list[float]]] = {}
    for tick in daemon.ticks():
        if tick.seconds is not None:
            seconds.setdefault(tick.name, {}).setdefault(str(tick.began.date()), []).append(tick.seconds)
    medians = {name: {day: round(median(found), 3) for day, found in days.items()} for name, days in seconds.items()}
    KEPT.mkdir(exist_ok=True)
    (KEPT / "two-weeks-ticks.json").write_text(json.dumps(medians, indent=1))
