"""Each alert fires where what it warns of has really happened to a store or a server, and nowhere else.

The text of /metrics before and after becomes the input of `promtool test rules`, which evaluates every rule on it: what
came between the two scrapes comes again in each minute after. So it says of each alert whether it fires, with which
labels and words, and not before its time.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from dpdau_assets.core.budget.overrides import reset_budget
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete_all
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.checks import CHECKS
from dpdau_assets.core.state.activity import apply_pending
from dpdau_tests.api.asking import asking
from dpdau_tests.api.serving import KEY, Served, serve
from dpdau_tests.conftest import FixedClock, prepare, put
from dpdau_tests.dagster.world import erase
from dpdau_tests.ops.tools import (
    CONFIG,
    NOBODY,
    RULES,
    TARGET,
    UNANSWERED,
    Fires,
    Scrape,
    alerts,
    going_on,
    judged,
    promtool,
    rules,
    scraped,
)
from dpdau_tests.support.acknowledging import acknowledge
from dpdau_tests.support.stores import DAYS as MONTH_AND_MORE
from dpdau_tests.support.stores import a_month_restated

pytestmark = pytest.mark.slow(weight=0.2)

DAYS = days_between(date(2025, 1, 1), date(2025, 1, 31))
TODAY = date(2025, 2, 2)
"""The last of these days is due."""

SOUND_MINUTES = 20
"""How long everything was well before."""

MakeStore = Callable[..., Store]
BeforeAndAfter = tuple[Scrape, Scrape]
"""Two scrapes, and what an alert warns of happened in between."""


@dataclass(frozen=True)
class World:
    """Where a scenario takes place."""

    folder: Path
    make_store: MakeStore

    def published(self) -> Store:
        """With a month of DAU and its MAU, on time."""
        return self.make_store("published", today=TODAY, recipe=on_time, retention_days=40)

    def empty(self) -> Store:
        return self.make_store("store", today=TODAY, start_date=DAYS[0])

    @contextmanager
    def served(self, requests_a_minute: int = 1_000_000) -> Iterator[Served]:
        """A real server, on an empty store."""
        today = str(datetime.now(UTC).date())
        with serve(self.folder, START_DATE=today, RATE_LIMIT_PER_MINUTE=str(requests_a_minute)) as served:
            yield served


@pytest.fixture
def world(tmp_path: Path, make_store: MakeStore) -> World:
    return World(tmp_path, make_store)


def on_time(store: Store) -> None:
    put(store, [(f"user {n}", day) for day in DAYS for n in range(3)])
    complete_all(DAYS, store)
    prepare(store, DAYS)
    for day in DAYS:
        publish("dau", day, store)
    for day in DAYS[29:]:
        publish("mau", day, store)


def at(day: date, store: Store) -> Store:
    return replace(store, clock=FixedClock(day))


def scrape(target: Store | Served) -> Scrape:
    """What Prometheus gets from a server that has just begun on this store, or from this one."""
    if isinstance(target, Store):
        with asking(target) as client:
            return scraped(client.get("/metrics").text)
    try:
        answer = target.ask("GET", "/metrics", key=None)
    except OSError:
        return UNANSWERED
    assert answer.status == 200
    return scraped(answer.body.decode())


# --- What happens ------------------------------------------------------------------------------------------------


def the_server_is_killed(world: World) -> BeforeAndAfter:
    with world.served() as served:
        before = scrape(served)
        served.end(signal.SIGKILL)
        return before, scrape(served)


def prometheus_has_nobody_to_ask(world: World) -> BeforeAndAfter:
    return scrape(world.empty()), NOBODY


def the_ledger_is_damaged(world: World) -> BeforeAndAfter:
    with world.served() as served:
        before = scrape(served)
    with world.served() as served:
        for file in (world.folder / "store").glob("ledger.sqlite*"):
            if not file.name.endswith("-shm"):  # which is mapped into memory
                file.write_bytes(b"no ledger any more" * 10_000)
        event = {"event": {"user_id": "somebody", "op": "-"}}
        assert {served.ask("POST", "/event", event).status // 100 for _ in range(6)} == {5}
        return before, scrape(served)


def a_file_of_the_inbox_cannot_be_looked_at(world: World) -> BeforeAndAfter:
    store = world.published()
    before = scrape(store)
    circle = store.settings.data_dir / "inbox" / "circle.parquet"
    circle.symlink_to(circle)
    return before, scrape(store)


def clients_send_slowly(world: World) -> BeforeAndAfter:
    with world.served() as served:
        before = scrape(served)
        with ThreadPoolExecutor(70) as pool:
            assert set(pool.map(lambda _: sent_slowly(served.port), range(70))) == {b"HTTP/1.1 202"}
        return before, scrape(served)


def sent_slowly(port: int) -> bytes:
    """An event of which the second half comes more than a second after the first; the beginning of the answer."""
    today = datetime.now(UTC).date()
    body = f'{{"event":{{"user_id":"somebody","op":"+","day":"{today}"}}}}'.encode()
    head = f"POST /event HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body[:10])
        time.sleep(1.5)
        connection.sendall(body[10:])
        return connection.recv(12, socket.MSG_WAITALL)


def keys_are_refused(world: World) -> BeforeAndAfter:
    with world.served() as served:
        before = scrape(served)
        assert {served.ask("GET", "/dau/2025-01-01", key="x" * 40).status for _ in range(60)} == {401}
        return before, scrape(served)


def clients_come_too_often(world: World) -> BeforeAndAfter:
    with world.served(requests_a_minute=1) as served:
        before = scrape(served)
        statuses = [served.ask("GET", "/label/dau").status for _ in range(80)]
        assert statuses.count(429) > 60
        return before, scrape(served)


def half_of_the_rows_are_bad(world: World) -> BeforeAndAfter:
    with world.served() as served:
        before = scrape(served)
        good = {"user_id": "somebody", "op": "+", "day": str(datetime.now(UTC).date())}
        assert served.ask("POST", "/event", {"events": [good, {**good, "user_id": ""}]}).status == 202
        return before, scrape(served)


def a_segment_is_damaged(world: World) -> BeforeAndAfter:
    return damaged(world, lambda segment: None)


def much_lies_behind_a_damaged_segment(world: World) -> BeforeAndAfter:
    return damaged(world, lambda segment: os.truncate(segment, 200_000_000))


def damaged(world: World, further: Callable[[Path], object]) -> BeforeAndAfter:
    store = world.empty()
    before = scrape(store)
    segment = acknowledge(store, [("somebody", DAYS[0])])
    acknowledge(store, [("another", DAYS[0])], segment)
    content = bytearray(segment.path.read_bytes())
    content[20] ^= 1
    segment.path.write_bytes(content)
    further(segment.path)
    return before, scrape(store)


def nobody_folds(world: World) -> BeforeAndAfter:
    store = world.empty()
    before = scrape(store)
    put(store, [("somebody", DAYS[0])])
    return before, scrape(store)


def very_many_batches_wait(world: World) -> BeforeAndAfter:
    store = world.empty()
    before = scrape(store)
    put(store, [("somebody", DAYS[0])])
    (batch,) = (store.settings.data_dir / "inbox").glob("*.parquet")
    for number in range(50_000):
        batch.with_name(f"{number:016x}.parquet").hardlink_to(batch)
    return before, scrape(store)


def a_request_is_past_its_deadline(world: World) -> BeforeAndAfter:
    return waiting(world, 31)


def a_request_has_waited_for_25_days(world: World) -> BeforeAndAfter:
    return waiting(world, 25)


def waiting(world: World, days: int) -> BeforeAndAfter:
    store = world.published()
    before = scrape(store)
    erase(at(TODAY - timedelta(days=days), store), "user 1")
    return before, scrape(store)


def a_day_that_is_due_was_not_declared(world: World) -> BeforeAndAfter:
    store = world.published()
    return scrape(store), scrape(at(TODAY + timedelta(days=1), store))


def nothing_was_published_for_two_days(world: World) -> BeforeAndAfter:
    store = world.published()
    return scrape(store), scrape(at(TODAY + timedelta(days=2), store))


def a_month_was_not_restated(world: World) -> BeforeAndAfter:
    store = world.published()
    before = scrape(store)
    later, days = at(date(2025, 2, 8), store), days_between(date(2025, 2, 1), date(2025, 2, 6))
    complete_all(days, later)
    prepare(later, days)
    for day in days:
        publish("dau", day, later)
        publish("mau", day, later)
    return before, scrape(later)


def days_are_kept_for_too_long(world: World) -> BeforeAndAfter:
    """Publication has ended, for good or ill, so that its own alerts tell too."""
    store = world.published()
    return scrape(store), scrape(at(DAYS[0] + timedelta(days=40 + 2 + 7 + 1), store))


def a_month_gets_another_cap(world: World) -> BeforeAndAfter:
    store = world.published()
    before = scrape(store)
    reset_budget("dau", DAYS[0], Fraction(4), "who@example.org", "tried", store)
    return before, scrape(store)


NONE: dict[str, tuple[()]] = dict.fromkeys(alerts(), ())
"""No alert fires."""


@dataclass(frozen=True)
class Case:
    """What happens, and which alerts it raises.

    Attributes:
        lag: minutes until their expressions can hold, at most.
        step: minutes between scrapes.
    """

    happens: Callable[[World], BeforeAndAfter]
    fires: Fires
    lag: int = 3
    step: int = 1


def on_target(**labels: str) -> dict[str, str]:
    return {**TARGET, **labels}


def failing(*checks: str) -> list[dict[str, str]]:
    return [on_target(check=check) for check in checks]


OLD = [on_target(metric="dau"), on_target(metric="mau")]
TWO_DAYS = 2880

CASES = [
    Case(the_server_is_killed, {"DpdauDown": [on_target()]}),
    Case(prometheus_has_nobody_to_ask, {"DpdauNoTarget": [{"job": "dpdau"}]}),
    Case(
        the_ledger_is_damaged,
        {
            "DpdauServerErrors": [on_target(route="/event")],
            "DpdauPartNotScraped": [on_target(source=each) for each in ("erasures", "budget", "numbers", "checks")],
        },
    ),
    Case(a_file_of_the_inbox_cannot_be_looked_at, {"DpdauPartNotScraped": [on_target(source="inbox")]}),
    Case(clients_send_slowly, {"DpdauSlow": [on_target(route="/event")]}),
    Case(keys_are_refused, {"DpdauKeysRefused": [on_target()]}),
    Case(clients_come_too_often, {"DpdauRateLimited": [on_target()]}),
    Case(half_of_the_rows_are_bad, {"DpdauBadRows": [on_target()]}),
    Case(a_segment_is_damaged, {"DpdauLogStuck": [on_target()]}),
    Case(much_lies_behind_a_damaged_segment, {"DpdauLogStuck": [on_target()], "DpdauLogGrows": [on_target()]}),
    Case(nobody_folds, {"DpdauInboxNotFolded": [on_target()]}, lag=TWO_DAYS, step=5),
    Case(very_many_batches_wait, {"DpdauInboxLarge": [on_target()]}),
    Case(
        a_request_is_past_its_deadline,
        {"DpdauErasureOverdue": [on_target()], "DpdauCheckFailing": failing("erasures_within_deadline")},
    ),
    Case(a_request_has_waited_for_25_days, {"DpdauErasureNearDeadline": [on_target()]}),
    Case(a_day_that_is_due_was_not_declared, {"DpdauCheckFailing": failing("published_on_time")}),
    Case(
        nothing_was_published_for_two_days,
        {"DpdauNumberOld": OLD, "DpdauCheckFailing": failing("published_on_time")},
    ),
    Case(a_month_was_not_restated, {"DpdauCheckFailing": failing("restatement_on_time")}),
    Case(
        days_are_kept_for_too_long,
        {"DpdauNumberOld": OLD, "DpdauCheckFailing": failing("published_on_time", "retention_on_time")},
    ),
    Case(a_month_gets_another_cap, {"DpdauBudgetCapChanged": [on_target(metric="dau", month="2025-01")]}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.happens.__name__)
def test_what_an_alert_warns_of_makes_it_fire_after_its_time_and_no_other(case: Case, world: World) -> None:
    before, after = case.happens(world)
    waits = {name: alerts()[name].wait for name in case.fires}
    end = SOUND_MINUTES + case.lag + max(waits.values()) + 2 * case.step
    steps = range((end - SOUND_MINUTES) // case.step + 1)
    timeline = [before] * (SOUND_MINUTES // case.step) + [going_on(before, after, step) for step in steps]
    too_early: dict[int, dict[str, tuple[()]]] = {}
    for name, wait in waits.items():
        too_early.setdefault(SOUND_MINUTES + wait - 1, {})[name] = ()
    moments = {**too_early, end: {**NONE, **case.fires}}
    moments[SOUND_MINUTES - 1] = NONE
    code, said = judged(world.folder, timeline, moments, case.step)
    assert (code, said.split()[-1]) == (0, "SUCCESS"), said


def test_every_alert_has_a_case_that_makes_it_fire_and_every_watched_check_too() -> None:
    assert {name for case in CASES for name in case.fires} == set(alerts())
    failed = {labels["check"] for case in CASES for labels in case.fires.get("DpdauCheckFailing", ())}
    assert failed == {check.name for check in CHECKS if check.watched}


# --- What is no reason for an alert --------------------------------------------------------------------------------


def quiet(folder: Path, timeline: list[Scrape], step: int = 1) -> None:
    """Nothing fires, at any scrape, or once an hour where they go on for days."""
    moments = {minute: NONE for minute in range(0, len(timeline) * step, 1 if step == 1 else 60)}
    code, said = judged(folder, timeline, moments, step)
    assert (code, said.split()[-1]) == (0, "SUCCESS"), said


@pytest.mark.parametrize(("step", "scrapes"), [(1, 200), (5, 3 * 288)], ids=["hours", "days"])
def test_on_a_store_in_order_nothing_fires(step: int, scrapes: int, world: World) -> None:
    quiet(world.folder, [scrape(world.published())] * scrapes, step)


def test_before_the_publication_of_a_day_that_is_due_and_declared_nothing_fires(world: World) -> None:
    morning = at(TODAY + timedelta(days=1), world.published())
    complete_all([TODAY - timedelta(days=1)], morning)
    told = scrape(morning)
    assert {value for (name, _), value in told.samples.items() if name == "dpdau_newest_number_age_days"} == {3}
    quiet(world.folder, [told] * 200)


def test_on_a_server_that_is_used_as_it_should_be_nothing_fires(world: World) -> None:
    today = str(datetime.now(UTC).date())
    with world.served() as served:
        before = scrape(served)
        rows = [{"user_id": f"user {n}", "op": "+", "day": today} for n in range(100)]
        assert served.ask("POST", "/event", {"events": rows}).status == 202
        assert served.ask("POST", "/erasure", {"user_id": "user 1"}).status == 202
        assert [served.ask("GET", path).status for path in ("/label/dau", "/status", "/dau/2025-01-01")] == [
            200,
            200,
            404,
        ]
        assert served.ask("GET", "/label/dau", key="x" * 40).status == 401
        after = scrape(served)
    quiet(world.folder, [before] * 20 + [going_on(before, after, steps) for steps in range(180)])


def test_at_the_end_of_a_month_whose_whole_budget_is_spent_as_planned_nothing_fires(world: World) -> None:
    store = world.make_store("restated", today=date(2025, 2, 8), recipe=restated_on_time)
    told = scrape(store)
    left = {
        dict(labels)["month"]: value
        for (name, labels), value in told.samples.items()
        if name == "dpdau_budget_epsilon_remaining" and dict(labels)["metric"] == "dau"
    }
    assert left["2025-01"] < 0.01 < left["2025-02"]
    quiet(world.folder, [told] * 200)


def restated_on_time(store: Store) -> None:
    complete_all(MONTH_AND_MORE, store)
    a_month_restated(store)


def test_a_restart_fires_nothing_though_all_counters_begin_again(world: World) -> None:
    with world.served() as served:
        for _ in range(40):
            assert served.ask("GET", "/label/dau", key="x" * 40).status == 401
        before = scrape(served)
        served.end(signal.SIGKILL)
        gone = scrape(served)
    with world.served() as served:
        assert served.ask("GET", "/label/dau", key="x" * 40).status == 401
        after = scrape(served)
    quiet(world.folder, [before] * 20 + [gone] + [after] * 200)


def test_a_prometheus_that_begins_to_scrape_an_old_server_does_not_tell_of_what_was_long_ago(world: World) -> None:
    _, long_ago = keys_are_refused(world)
    quiet(world.folder, [long_ago] * 60)


def test_an_inbox_that_is_folded_once_a_day_fires_nothing_however_long_batches_wait(world: World) -> None:
    store = world.empty()
    put(store, [("somebody", DAYS[0])])
    waiting_to_be_folded = scrape(store)
    with store.state.activity.lock():
        apply_pending(store)
    folded = scrape(store)
    quiet(world.folder, ([waiting_to_be_folded] * 287 + [folded]) * 3, step=5)


def test_an_alert_that_is_not_expected_and_one_that_does_not_come_are_told(world: World) -> None:
    sound, timeline = scrape(world.published()), [UNANSWERED] * 20
    assert judged(world.folder, timeline, {10: NONE})[0] == 1
    assert judged(world.folder, [sound] * 20, {10: {"DpdauDown": [on_target()]}})[0] == 1
    assert judged(world.folder, timeline, {10: {"DpdauDown": [on_target()]}})[0] == 0


# --- The files themselves ------------------------------------------------------------------------------------------


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert code == 0 and f"SUCCESS: {len(rules())} rules found" in said, said


def test_promtool_finds_nothing_wrong_with_the_configuration(tmp_path: Path) -> None:
    for file in (CONFIG, RULES):
        shutil.copy(file, tmp_path)
    code, said = promtool("check", "config", CONFIG.name, cwd=tmp_path)
    assert code == 1 and "dpdau-metrics.key" in said, "the key's file is the installer's to make"
    (tmp_path / "dpdau-metrics.key").write_text(KEY)
    code, said = promtool("check", "config", CONFIG.name, cwd=tmp_path)
    assert code == 0 and f"SUCCESS: {len(rules())} rules found" in said, said
