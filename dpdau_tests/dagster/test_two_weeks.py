"""Days of operation by the real daemon, on a year of history, with people erased, and with all that goes wrong.

In CI they are four days, which have one of each; in a soak two weeks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from statistics import median

import dagster as dg
import pytest

from dpdau_assets.core.dates import days_between, first_window_end, month_of
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.checks import ask_all
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.state.rebuilding import build_days, mark_reported
from dpdau_tests.conftest import SECRET, FixedClock, put
from dpdau_tests.support.browser import PICTURES as KEPT
from dpdau_tests.support.fast_folder import fast_folder
from dpdau_tests.support.lengths import LENGTH, at_length, chance
from dpdau_tests.support.receiving import webhook_receiver
from dpdau_tests.support.simulation import Daemon, wait_until
from resources.published.mart_duckdb import MartFiles
from resources.settings_env import read_settings
from resources.store import open_store

BEGIN = date(2025, 1, 1)


@dataclass(frozen=True)
class Plan:
    """What happens when.

    Attributes:
        days: those on which the daemon is watched, from its first on; the history that it finds ends two days before.
        down: days on which it does not run.
        crashes: days on which the machine goes down while a publication is under way.
        late: a day with which upstream is late.
        declared: the day on which upstream is done with it, after the one on which it is due.
        users, active_a_day: how many people there are, and how many of them come on a day.
        erased_before, erased_a_day: how many ask for erasure before the first day, and on each later one.
        begin: the first day with numbers. Those before it, if there are any, are built before the daemon starts.
    """

    days: list[date]
    down: Set[date]
    crashes: Set[date]
    late: date
    declared: date
    users: int
    active_a_day: int
    erased_before: int
    erased_a_day: int
    begin: date

    @property
    def first(self) -> date:
        """On which the daemon starts."""
        return self.days[0]

    @property
    def history(self) -> list[date]:
        """With the day whose number is due on the first day."""
        return days_between(BEGIN, self.first - timedelta(days=2))

    @property
    def live(self) -> list[date]:
        """On which the daemon runs."""
        return [day for day in self.days if day not in self.down]

    @property
    def erased(self) -> int:
        """In all."""
        return self.erased_before + self.erased_a_day * (len(self.live) - 1)

    def last_expected(self, today: date) -> date:
        """The day that is due, unless upstream is late with it or one before it."""
        is_due = today - timedelta(days=2)
        return self.late - timedelta(days=1) if self.late <= is_due and today < self.declared else is_due

    def restated_by(self, last: date) -> set[date]:
        """The months whose fifth day after them had come when this day's number was due, two days later."""
        months = {day.replace(day=1) for day in days_between(self.begin, last)}
        return {month for month in months if (month + timedelta(days=32)).replace(day=5) <= last + timedelta(days=2)}


FOUR_DAYS = Plan(
    days=days_between(date(2026, 1, 3), date(2026, 1, 6)),
    down={date(2026, 1, 5)},
    crashes={date(2026, 1, 3)},
    late=date(2026, 1, 2),
    declared=date(2026, 1, 5),
    users=200,
    active_a_day=8,
    erased_before=8,
    erased_a_day=3,
    begin=date(2025, 12, 1),
)
"""Upstream finishes while the daemon is down, and December is restated on the day on which it is back. The machine
goes down while all numbers of December are published, and the first erasures applied.
"""

TWO_WEEKS = Plan(
    days=days_between(date(2025, 12, 26), date(2026, 1, 9)),
    down={date(2025, 12, 30), date(2025, 12, 31)},
    crashes={date(2025, 12, 28), date(2026, 1, 3)},
    late=date(2026, 1, 4),
    declared=date(2026, 1, 7),
    users=600,
    active_a_day=30,
    erased_before=80,
    erased_a_day=10,
    begin=BEGIN,
)
"""Each on days of its own, after a first day on which the daemon publishes the whole year."""

PLANS = {"two_weeks": TWO_WEEKS} if LENGTH == "soak" else {"four_days": FOUR_DAYS}

pytestmark = [pytest.mark.weeks, pytest.mark.timeout(at_length(ci=3600, soak=20_000))]


@pytest.fixture
def receiver() -> Iterator[list[dict]]:
    """What a local receiver of alerts is told; its address is in ALERT_WEBHOOK."""
    with webhook_receiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALERT_WEBHOOK", receiver.address)
        yield receiver.bodies


@pytest.fixture
def channel() -> Iterator[list[dict]]:
    """The daily digests, in order; their address is in DIGEST_WEBHOOK."""
    with webhook_receiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGEST_WEBHOOK", receiver.address)
        yield receiver.bodies


class Operation:
    """A store, its landing folder, and the daemon that works on them."""

    def __init__(self, plan: Plan, folder: Path, daemon: Daemon, settings: Settings) -> None:
        self.plan, self.daemon, self.settings = plan, daemon, settings
        self.landing = folder / "landing"
        self.random = chance("operation")
        self.people = [f"user {n}" for n in range(plan.users)]
        self.receipts: list[str] = []

    def store(self) -> Store:
        """The store at this moment, for the test's own process, which has the real clock."""
        return replace(open_store(self.settings), clock=FixedClock(self.daemon.now().date()))

    def events(self, day: date) -> list[tuple[str, date]]:
        return [(user, day) for user in self.random.sample(self.people, self.plan.active_a_day)]

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
        self.receipts += request(asked, self.store(), confirmed=True).receipts

    def is_idle_and_rebuilt(self) -> bool:
        return self.daemon.is_idle() and not self.store().state.rebuilds.behind()

    def wait_until_idle(self, what: str) -> None:
        wait_until(what, self.is_idle_and_rebuilt)

    def wait_until_idle_at(self, day: date, hour: int) -> None:
        self.daemon.set_clock(at(day, hour))
        self.wait_until_idle(f"hour {hour} of {day}")

    def published(self, metric: Metric) -> list[date]:
        return [one.key.day for one in self.store().accountant.releases(metric) if not one.key.revision]


@contextmanager
def operation(plan: Plan, receiver: list[dict]) -> Iterator[Operation]:
    """A year of days in the inbox, all declared; every schedule is on."""
    with fast_folder() as folder, pytest.MonkeyPatch.context() as patch:
        values = {
            "DATA_DIR": folder / "data",
            "HASH_SALT_SECRET": SECRET,
            "START_DATE": BEGIN,
            "LANDING_DIR": folder / "landing",
            "DAGSTER_HOME": folder / "home",
            "RETENTION_DAYS": 400,
        }
        for name, value in values.items():
            patch.setenv(name, str(value))
        (folder / "landing").mkdir()
        settings = read_settings()
        with Daemon(folder / "home", folder / "scratch", os.environ) as daemon:
            found = Operation(plan, folder, daemon, settings)
            daemon.set_clock(at(plan.history[-1] + timedelta(days=1), 0))
            put(found.store(), [event for day in plan.history for event in found.events(day)])
            for day in plan.history:
                complete(day, found.store())
            if plan.begin > BEGIN:
                begin_publication(plan, found.store())
            daemon.start_schedules()
            try:
                yield found
            except BaseException:
                KEPT.mkdir(exist_ok=True)
                shutil.copy(daemon.log, KEPT / "daemon.log")
                raise


def begin_publication(plan: Plan, store: Store) -> None:
    """By hand: the days of the history are built, and the first number of each metric is out. The rest are due."""
    mark_reported(build_days(dict.fromkeys(plan.history, 0), store), store.state)
    publish("dau", plan.begin, store)
    publish("mau", plan.begin, store)


def at(day: date, hour: int = 1, minute: int = 5) -> datetime:
    return datetime.combine(day, time(hour, minute), UTC)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_days_of_operation_publish_every_number_on_time_and_once(
    plan: Plan, receiver: list[dict], channel: list[dict]
) -> None:
    with operation(plan, receiver) as running:
        for today in plan.days:
            live_through(today, running)
        assert_nothing_is_missing_or_double(running)
        assert_all_is_well(running)
        assert_only_what_went_wrong_was_told(receiver, running)
        assert_each_publication_had_one_digest(channel, running)
        keep_ticks(running.daemon)


def live_through(today: date, running: Operation) -> None:
    """What the night brings: upstream's folder of yesterday, requests, the schedules, and what goes wrong."""
    plan, daemon, yesterday = running.plan, running.daemon, today - timedelta(days=1)
    if today in plan.down:
        daemon.stop() if daemon.is_running() else None
    daemon.set_clock(at(today))
    running.lands(yesterday, complete=yesterday != plan.late)
    if today == plan.declared:
        running.lands(plan.late)
    if today in plan.down:
        return
    running.erase(plan.erased_before if today == plan.first else plan.erased_a_day)
    if not daemon.is_running():
        daemon.start()
    if today in plan.crashes:
        crash_while_publishing(today, running)
    running.wait_until_idle(f"{today}")
    if today == plan.days[-1]:  # with the last checks of the store
        running.wait_until_idle_at(today, 11)
    elif today == plan.declared or yesterday in plan.down:  # what landed is taken in, and published an hour later
        running.wait_until_idle_at(today, 2)
    last = plan.last_expected(today)
    assert running.published("dau")[-1] == last, today
    assert running.published("mau")[-1] == last, today
    assert running.store().accountant.restated() == plan.restated_by(last), today


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
    plan = running.plan
    last = plan.days[-1] - timedelta(days=2)
    first_mau = max(plan.begin, first_window_end(BEGIN, running.settings.mau_window_days))
    published = {"dau": days_between(plan.begin, last), "mau": days_between(first_mau, last)}
    months = {month_of(day) for day in published["dau"]} - {date(2026, 1, 1)}
    assert date(2025, 12, 1) in months and running.store().accountant.restated() == months
    for metric, days in published.items():
        assert running.published(metric) == days
        told = running.daemon.instance.fetch_materializations(dg.AssetKey(f"{metric}_release"), limit=1000).records
        assert Counter(one.partition_key for one in told) == Counter(map(str, days)), metric


def assert_all_is_well(running: Operation) -> None:
    plan, store = running.plan, running.store()
    assert len(running.receipts) == plan.erased
    assert Counter(one.state for one in store.erasures.ledger.erasures()) == {"verified": plan.erased}
    mart = MartFiles(running.settings.data_dir / "mart")
    assert [name for name, found in ask_all(store, mart).items() if not found.passed] == []
    nights = running.daemon.runs(job_name="check_store", statuses=[dg.DagsterRunStatus.SUCCESS])
    assert len(nights) >= len(plan.live) - len(plan.crashes)


def assert_only_what_went_wrong_was_told(told: list[dict], running: Operation) -> None:
    """Runs fail on the days of the crashes alone: publication each time, and whatever else was under way."""
    plan, daemon = running.plan, running.daemon
    failed = daemon.runs(statuses=[dg.DagsterRunStatus.FAILURE])
    records = [daemon.instance.get_run_record_by_id(run.run_id) for run in failed]
    begun = {datetime.fromtimestamp(one.start_time, UTC).date() for one in records if one and one.start_time}
    assert begun == plan.crashes
    assert [run.job_name for run in failed].count("publish_due") == len(plan.crashes)
    assert Counter(one["alert"] for one in told)["run_failed"] == len(failed)
    assert {one["alert"] for one in told} <= {"run_failed", "published_on_time"}
    assert any(str(plan.late) in one["text"] for one in told)


def assert_each_publication_had_one_digest(digests: list[dict], running: Operation) -> None:
    """By the day on which its last number was due; whatever crashed in between, none came twice."""
    due_days = [digest["text"].partition(":")[0].rpartition(" ")[2] for digest in digests]
    assert due_days == sorted(set(due_days))
    assert due_days[-1] == str(running.published("dau")[-1] + timedelta(days=2))
    assert len(due_days) >= len(running.plan.live) - len(running.plan.down) - 1


def keep_ticks(daemon: Daemon) -> None:
    """For people: how long the sensors' ticks took, by day. A test that asserts times fails with the machine."""
    seconds: dict[str, dict[str, list[float]]] = {}
    for tick in daemon.ticks():
        if tick.seconds is not None:
            seconds.setdefault(tick.name, {}).setdefault(str(tick.began.date()), []).append(tick.seconds)
    medians = {name: {day: round(median(found), 3) for day, found in days.items()} for name, days in seconds.items()}
    KEPT.mkdir(exist_ok=True)
    (KEPT / "daemon-ticks.json").write_text(json.dumps(medians, indent=1))
