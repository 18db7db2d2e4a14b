"""What is counted, what is asked of the store at a scrape, and what METRICS_COUNTS=off keeps back."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from dpdau_assets.api.metrics import REMEMBERED_SECONDS, Metrics, forget, is_shared
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.requests import DEADLINE_DAYS
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete_all
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.checks import CHECKS
from dpdau_assets.core.reporting.status import status
from dpdau_assets.core.version import VERSION
from dpdau_tests.conftest import FixedClock, put
from dpdau_tests.conftest import prepare as build
from dpdau_tests.dagster.world import erase
from dpdau_tests.support.connections import closed_at_the_end
from dpdau_tests.support.master_secret import SECRET
from dpdau_tests.support.project import PROJECT
from resources.published.mart_duckdb import MartFiles

START = date(2025, 1, 28)
DAYS = days_between(START, date(2025, 1, 31))
TODAY = date(2025, 2, 3)
SMALL = {"mau_window_days": 3, "mau_mechanism": "gaussian", "epsilon_mau": Fraction(1, 10)}
SOURCES = {"requests", "log", "inbox", "erasures", "budget", "numbers", "checks"}

MakeStore = Callable[..., Store]
Labels = dict[str, str]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_020.0  # a third of a minute after one began

    def __call__(self) -> float:
        return self.now


def january(store: Store) -> None:
    """Published but for its last day."""
    put(store, [(user, day) for day in DAYS for user in ("somebody", "another")])
    complete_all(DAYS, store)
    build(store, DAYS[:-1])
    for day in DAYS[:-1]:
        publish("dau", day, store)
    publish("mau", DAYS[2], store)


@pytest.fixture
def empty(make_store: MakeStore) -> Store:
    return make_store(today=START, start_date=START)


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store(today=TODAY, recipe=january, start_date=START, **SMALL)


def lines(text: bytes) -> list[str]:
    return [line for line in text.decode().splitlines() if not line.startswith("#")]


def told(metrics: Metrics, store: Store) -> dict[str, list[tuple[Labels, float]]]:
    """Every sample by its name."""
    text, _ = metrics.exposition(store)
    samples: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def value(metrics: Metrics, store: Store, name: str) -> float:
    """The value of a metric without labels."""
    ((labels, number),) = told(metrics, store)[name]
    assert labels == {}
    return number


# --- Requests ----------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_route_with_their_bytes_and_seconds(empty: Store) -> None:
    metrics = Metrics(exact=False)
    metrics.answered("POST", "/event", 202, 0.004, 1000, 60)
    metrics.answered("POST", "/event", 422, 0.020, 500, 40)
    metrics.answered("GET", "/dau/{day}", None, 20.0, 0, 0)
    samples = told(metrics, empty)
    assert samples["dpdau_http_requests_total"] == [
        ({"method": "POST", "route": "/event", "status": "202"}, 1),
        ({"method": "POST", "route": "/event", "status": "422"}, 1),
        ({"method": "GET", "route": "/dau/{day}", "status": "none"}, 1),
    ]
    assert samples["dpdau_http_request_bytes_total"][0] == ({"route": "/event"}, 1500)
    assert samples["dpdau_http_response_bytes_total"][0] == ({"route": "/event"}, 100)
    below = {
        labels["le"]: number
        for labels, number in samples["dpdau_http_request_duration_seconds_bucket"]
        if labels["route"] == "/event"
    }
    assert (below["0.0025"], below["0.005"], below["0.025"], below["+Inf"]) == (0, 1, 2, 2)
    slow = {
        labels["le"]: number
        for labels, number in samples["dpdau_http_request_duration_seconds_bucket"]
        if labels["route"] != "/event"
    }
    assert (slow["10.0"], slow["+Inf"]) == (0, 1)
    assert "dpdau_http_errors_total" not in samples


def test_batches_and_bytes_of_the_log_are_counted_from_zero(empty: Store) -> None:
    metrics = Metrics(exact=False)
    assert (
        value(metrics, empty, "dpdau_event_posts_accepted_total")
        == value(metrics, empty, "dpdau_wal_written_bytes_total")
        == 0
    )
    metrics.took(rows=5, log_bytes=80)
    metrics.took(rows=3, log_bytes=20)
    assert value(metrics, empty, "dpdau_event_posts_accepted_total") == 2
    assert value(metrics, empty, "dpdau_wal_written_bytes_total") == 2 * 4096


def test_two_apps_in_one_process_count_apart(empty: Store) -> None:
    one, other = Metrics(exact=False), Metrics(exact=False)
    one.took(rows=1)
    assert [value(each, empty, "dpdau_event_posts_accepted_total") for each in (one, other)] == [1, 0]
    assert not is_shared()


ROUTES = st.sampled_from(["/erasure", "/erasure/{receipt}", "/erasure/{receipt}/cancel", "/erasure/{receipt}/confirm"])
ANSWERS = st.tuples(
    st.sampled_from(["GET", "POST"]), ROUTES, st.sampled_from([None, 200, 202, 401, 404, 409, 422, 429])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    answers=st.lists(ANSWERS, max_size=5),
    asked=st.integers(0, 9),
    batches=st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), min_size=3, max_size=3),
)
def test_without_exact_counts_nothing_says_how_many_events_or_requests_there_were(
    empty: Store, answers: list[tuple[str, str, int | None]], asked: int, batches: list[tuple[int, int]]
) -> None:
    """Only the batches: three of them, whatever is in them."""
    metrics, nobody = Metrics(exact=False, now=Clock()), Metrics(exact=False, now=Clock())
    for method, route, code in answers:
        metrics.answered(method, route, code, 0.1, 100, 100)
    metrics.asked(asked)
    for rows, removals in batches:
        metrics.took(rows=rows, removals=removals)
        nobody.took()
    assert metrics.exposition(empty) == nobody.exposition(empty)


def test_erasure_requests_that_failed_by_our_fault_are_counted_all_the_same(empty: Store) -> None:
    metrics = Metrics(exact=False)
    metrics.answered("POST", "/erasure", 503, 0.1, 100, 100)
    samples = told(metrics, empty)
    assert samples["dpdau_http_errors_total"] == [({"route": "/erasure"}, 1)]
    assert "dpdau_http_requests_total" not in samples


def test_with_exact_counts_events_and_erasure_requests_are_counted(empty: Store) -> None:
    metrics = Metrics(exact=True)
    metrics.took(rows=10, rejected=3, removals=2)
    metrics.asked(4)
    metrics.answered("POST", "/erasure", 202, 0.1, 100, 100)
    assert value(metrics, empty, "dpdau_events_accepted_total") == 7
    assert value(metrics, empty, "dpdau_events_rejected_total") == 3
    assert value(metrics, empty, "dpdau_erasure_requests_total") == 6
    assert told(metrics, empty)["dpdau_http_requests_total"] == [
        ({"method": "POST", "route": "/erasure", "status": "202"}, 1)
    ]


def test_nothing_tells_when_a_counter_began(empty: Store) -> None:
    metrics = Metrics(exact=True)
    metrics.answered("GET", "/plan", 200, 0.1, 0, 10)
    assert not [
        line
        for accept in ("", "application/openmetrics-text")
        for line in lines(metrics.exposition(empty, accept)[0])
        if "_created" in line
    ]


# --- The share of bad rows ---------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(batches=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=5))
def test_the_share_of_bad_rows_is_told_in_whole_per_cent_upwards(empty: Store, batches: list[tuple[int, int]]) -> None:
    metrics = Metrics(exact=False, now=Clock())
    for good, bad in batches:
        metrics.took(rows=good + bad, rejected=bad)
    rows, rejected = sum(map(sum, batches)), sum(bad for _, bad in batches)
    share = value(metrics, empty, "dpdau_rejected_share")
    exact = rejected / rows if rows else 0.0
    assert exact <= share + 1e-9 and share < exact + 0.01
    assert f"{share:.2f}" == f"{share:.6f}".rstrip("0").ljust(4, "0")


def test_the_share_is_that_of_this_minute_and_the_one_before(empty: Store) -> None:
    clock = Clock()
    metrics = Metrics(exact=False, now=clock)
    assert value(metrics, empty, "dpdau_rejected_share") == 0
    shares = []
    for seconds, rows, rejected in [(0, 100, 50), (60, 100, 0), (60, 100, 0), (180, 10, 1)]:
        clock.now += seconds
        metrics.took(rows=rows, rejected=rejected)
        shares.append(value(metrics, empty, "dpdau_rejected_share"))
    assert shares == [0.5, 0.25, 0, 0.1]
    clock.now += 60
    assert value(metrics, empty, "dpdau_rejected_share") == 0.1
    clock.now += 60  # nothing comes any more
    assert value(metrics, empty, "dpdau_rejected_share") == 0


# --- How the store stands ----------------------------------------------------------------------------------------


def test_a_scrape_says_what_the_status_says(store: Store) -> None:
    metrics = Metrics(exact=False)
    standing = status(store, MartFiles(store.settings.data_dir / "mart"))
    samples = told(metrics, store)
    assert samples["dpdau_info"] == [({"version": VERSION}, 1)]
    assert samples["dpdau_budget_epsilon_cap"] == [
        ({"metric": each.metric, "month": f"{each.month:%Y-%m}"}, each.cap) for each in standing.spent
    ]
    left = {(labels["metric"], labels["month"]): number for labels, number in samples["dpdau_budget_epsilon_remaining"]}
    assert left == {(each.metric, f"{each.month:%Y-%m}"): each.cap - each.spent for each in standing.spent}
    assert len(left) == 2 and min(left.values()) > 0
    assert samples["dpdau_newest_number_age_days"] == [({"metric": "dau"}, 4), ({"metric": "mau"}, 4)]
    watched = {each.name for each in CHECKS if each.watched}
    passed = {labels["check"]: number for labels, number in samples["dpdau_check_passed"]}
    assert set(passed) == watched and passed["published_on_time"] == 0 and passed["erasures_within_deadline"] == 1


def test_a_store_without_anything_can_be_scraped(empty: Store) -> None:
    samples = told(Metrics(exact=False), empty)
    assert "dpdau_newest_number_age_days" not in samples and "dpdau_budget_epsilon_cap" not in samples
    for name in ("wal_bytes", "inbox_bytes", "inbox_batches", "erasure_oldest_waiting_days", "erasure_overdue"):
        assert samples[f"dpdau_{name}"] == [({}, 0)]
    assert {labels["source"]: number for labels, number in samples["dpdau_scrape_errors"]} == dict.fromkeys(SOURCES, 0)


def test_the_inbox_is_told_in_bytes_and_batches(store: Store) -> None:
    put(store, [("late", DAYS[0])])
    put(store, [("later", DAYS[1])])
    files = list((store.settings.data_dir / "inbox").glob("*.parquet"))
    metrics = Metrics(exact=False)
    assert value(metrics, store, "dpdau_inbox_batches") == len(files) >= 2
    size = sum(file.stat().st_size for file in files)
    assert value(metrics, store, "dpdau_inbox_bytes") == 65_536 * math.ceil(size / 65_536) > 0


def test_a_request_of_a_row_or_many_or_a_removal_alone_writes_as_many_bytes(empty: Store) -> None:
    for rows, removals in ((1, 0), (200, 0), (0, 1)):
        metrics = Metrics(exact=False)
        metrics.took(log_bytes=16 * rows, rows=rows + removals, removals=removals)
        assert value(metrics, empty, "dpdau_wal_written_bytes_total") == 4096


def test_what_waits_to_be_erased_is_an_age_and_a_flag(store: Store) -> None:
    metrics = Metrics(exact=False)
    erase(store, "somebody")
    late = replace(store, clock=FixedClock(TODAY + timedelta(days=DEADLINE_DAYS)))
    erase(late, "another", "a third")
    ages = [value(metrics, each, "dpdau_erasure_oldest_waiting_days") for each in (store, late)]
    flags = [value(metrics, each, "dpdau_erasure_overdue") for each in (store, late)]
    assert (ages, flags) == ([0, DEADLINE_DAYS], [0, 0])
    overdue = replace(store, clock=FixedClock(TODAY + timedelta(days=DEADLINE_DAYS + 1)))
    assert value(metrics, overdue, "dpdau_erasure_overdue") == 1


def test_the_checks_are_asked_once_a_minute(store: Store) -> None:
    clock = Clock()
    metrics = Metrics(exact=False, clock=clock)
    overdue = replace(store, clock=FixedClock(TODAY + timedelta(days=DEADLINE_DAYS + 1)))

    def passes(asked: Store) -> float:
        return {labels["check"]: number for labels, number in told(metrics, asked)["dpdau_check_passed"]}[
            "erasures_within_deadline"
        ]

    erase(store, "somebody")
    assert passes(store) == 1
    clock.now += REMEMBERED_SECONDS - 1
    assert passes(overdue) == 1 and value(metrics, overdue, "dpdau_erasure_overdue") == 1
    clock.now += 1
    assert passes(overdue) == 0


numbers = count()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(active=st.sets(st.sampled_from(DAYS), min_size=1), she_asks=st.booleans())
def test_a_store_with_one_user_more_tells_the_same_but_for_bytes(
    make_store: MakeStore, active: set[date], she_asks: bool
) -> None:
    def text(*her: tuple[str, date], asks: Iterable[str] = ()) -> list[str]:
        store = make_store(f"store {next(numbers)}", today=TODAY, recipe=january, start_date=START, **SMALL)
        put(store, [("late", DAYS[0]), ("late", DAYS[-1]), *her])
        erase(store, "somebody", *asks)
        return [line for line in lines(Metrics(exact=True).exposition(store)[0]) if "_bytes" not in line]

    assert text() == text(*(("she", day) for day in active), asks=["she"] if she_asks else [])


# --- What cannot be asked ----------------------------------------------------------------------------------------


def failed(metrics: Metrics, store: Store) -> set[str]:
    return {labels["source"] for labels, number in told(metrics, store)["dpdau_scrape_errors"] if number}


def test_a_damaged_ledger_is_told_and_everything_else_too(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(exact=False)
    metrics.took(rows=1)
    assert failed(metrics, store) == set()
    metrics = Metrics(exact=False)
    with closed_at_the_end():
        store.accountant.purged_through()
    (store.settings.data_dir / "ledger.sqlite").write_bytes(b"no ledger any more" * 1000)
    samples = told(metrics, store)
    assert failed(metrics, store) == {"erasures", "budget", "numbers", "checks"}
    assert (
        "dpdau_inbox_bytes" in samples
        and "dpdau_event_posts_accepted_total" in samples
        and "dpdau_wal_bytes" in samples
    )
    assert "dpdau_erasure_overdue" not in samples and "dpdau_check_passed" not in samples
    assert "Not in the metrics: budget (DatabaseError)." in caplog.messages
    assert str(store.settings.data_dir) not in caplog.text


def test_a_file_that_cannot_be_looked_at_costs_its_own_gauges_alone(store: Store) -> None:
    circle = store.settings.data_dir / "inbox" / "circle.parquet"
    circle.symlink_to(circle)
    metrics = Metrics(exact=False)
    assert failed(metrics, store) == {"inbox"}
    assert "dpdau_inbox_bytes" not in told(metrics, store)


# --- The text ----------------------------------------------------------------------------------------------------


def test_who_accepts_openmetrics_gets_it_and_anybody_else_the_plain_text(store: Store) -> None:
    metrics = Metrics(exact=True)
    metrics.took(rows=2, rejected=1)
    metrics.answered("POST", "/event", 503, 0.1, 10, 10)
    prometheus = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
    )
    text, kind = metrics.exposition(store, prometheus)
    plain, plain_kind = metrics.exposition(store, "text/html, */*")
    assert kind.startswith("application/openmetrics-text; version=1.0.0;")
    assert plain_kind == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in read_openmetrics(text.decode())}
    assert families["dpdau_http_errors"].type == "counter" and families["dpdau_rejected_share"].samples[0].value == 0.5
    names = {family.name for family in text_string_to_metric_families(plain.decode())}
    assert names - {"dpdau_info"} == set(families) - {"dpdau"}  # the two formats name what is running otherwise
    assert all(name.startswith("dpdau") for name in names)


# --- Several workers ---------------------------------------------------------------------------------------------

WORKER = """
import json, os, sys
from pathlib import Path
from dpdau_assets.api.metrics import Metrics, forget
from dpdau_assets.core.settings import Settings
from resources.store import open_store

metrics = Metrics(exact=True, now=lambda: 1e9)
{what}
"""
SCRAPE = """
store = open_store(Settings(data_dir=Path({folder!r}), hash_salt_secret={secret!r}))
print(metrics.exposition(store)[0].decode())
"""


def worker(folder: Path, what: str) -> str:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", WORKER.format(what=what)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_any_worker_tells_what_all_have_counted_and_forgets_what_a_dead_one_said_of_now(tmp_path: Path) -> None:
    folder = tmp_path / "counts"
    folder.mkdir()
    scrape = SCRAPE.format(folder=str(tmp_path / "data"), secret=SECRET)
    counting = "metrics.answered('POST', '/event', 503, 0.004, 10, 10)\nmetrics.took(rows=4, rejected={rejected})\n"
    worker(folder, counting.format(rejected=4) + "forget(os.getpid())")
    worker(folder, counting.format(rejected=1))
    told_by_a_third = lines(worker(folder, scrape).encode())
    for line in (
        "dpdau_event_posts_accepted_total 2.0",
        "dpdau_events_accepted_total 3.0",
        'dpdau_http_requests_total{method="POST",route="/event",status="503"} 2.0',
        'dpdau_http_errors_total{route="/event"} 2.0',
        'dpdau_http_request_duration_seconds_bucket{le="0.0025",route="/event"} 0.0',
        'dpdau_http_request_duration_seconds_bucket{le="0.005",route="/event"} 2.0',
        'dpdau_http_request_duration_seconds_count{route="/event"} 2.0',
        'dpdau_http_request_bytes_total{route="/event"} 20.0',
        "dpdau_rejected_share 0.25",
        "dpdau_inbox_batches 0.0",
        'dpdau_scrape_errors{source="requests"} 0.0',
    ):
        assert line in told_by_a_third
    assert not [line for line in told_by_a_third if "pid=" in line or "minute" in line]


def test_a_worker_that_counts_alone_has_nothing_to_forget() -> None:
    assert not is_shared()
    forget(1)
