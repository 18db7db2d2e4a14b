"""The load test: what its clients ask follows from the seed, and a run fails where a real server answers otherwise."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BadSetting
from dpdau_tests.api.serving import KEY, serve
from dpdau_tests.support.lengths import at_length, chance
from dpdau_tests.support.project import PROJECT
from dpdau_tests.support.stores import a_month_published
from eval.load_test import FIGURES, MIX, NAMES, REPORTS, Load, Published, Request, load_from, problem, requests_of

DAYS = days_between(date(2025, 1, 1), date(2025, 2, 28))
PUBLISHED = Published({"dau": DAYS, "mau": DAYS[29:]}, DAYS[-3:])
ROUND = sum(MIX.values())

seeds = st.integers(0, 2**63)
clients = st.integers(0, 9_999)


def asked(seed: int, client: int, requests: int = 2 * ROUND) -> list[Request]:
    return list(islice(requests_of(seed, client, PUBLISHED), requests))


# --- What is asked -----------------------------------------------------------------------------------------------


@given(seed=seeds, client=clients)
def test_the_same_seed_and_client_make_the_same_requests_and_another_seed_or_client_others(
    seed: int, client: int
) -> None:
    once = asked(seed, client)
    assert asked(seed, client) == once
    assert asked(seed, client + 1) != once
    assert asked(seed + 1, client) != once


@given(seed=seeds, client=clients)
def test_each_round_of_a_client_has_every_kind_of_request_as_often_as_the_mix_says(seed: int, client: int) -> None:
    made = asked(seed, client, 3 * ROUND)
    for begin in range(0, len(made), ROUND):
        assert Counter(request.kind for request in made[begin : begin + ROUND]) == MIX
    assert MIX.keys() == NAMES.keys()


@given(seed=seeds, client=clients)
def test_clients_hand_in_invented_people_only_and_read_what_is_published(seed: int, client: int) -> None:
    for request in asked(seed, client, ROUND):
        assert 0 <= request.wait <= 0.5
        if request.body is None:
            days = [date.fromisoformat(day) for day in re.findall(r"\d{4}-\d\d-\d\d", request.path)]
            assert request.method == "GET" and days and set(days) <= set(DAYS) and days == sorted(days)
            continue
        said = json.loads(request.body)
        rows = said.get("events") or [said.get("event") or said]
        assert all(row["user_id"].startswith("load-test-") for row in rows)
        assert request.events == (0 if request.kind == "erasure" else len(rows))
        if request.kind != "erasure":
            assert {row["op"] for row in rows} == {"+"} and {row["day"] for row in rows} <= set(map(str, DAYS[-3:]))


# --- What it is set by -------------------------------------------------------------------------------------------


def test_without_variables_a_store_of_its_own_is_asked_for_a_minute() -> None:
    assert load_from({}) == load_from({"LOAD_USERS": "", "LOAD_HOST": ""}) == Load()


def test_every_variable_is_taken() -> None:
    given_values = {
        "LOAD_USERS": "3",
        "LOAD_SPAWN": "2",
        "LOAD_RUNTIME": "1m30s",
        "LOAD_SEED": "7",
        "LOAD_HOST": "http://localhost:8000/",
        "LOAD_CONFIRM": "http://localhost:8000/",
        "SERVICE_API_KEY": "a key",
    }
    assert load_from(given_values) == Load(3, 2, "1m30s", 7, "http://localhost:8000", "a key")
    assert "a key" not in repr(load_from(given_values))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOAD_USERS", "0"),
        ("LOAD_USERS", "many"),
        ("LOAD_USERS", "10001"),
        ("LOAD_USERS", "1.5"),
        ("LOAD_SPAWN", "-1"),
        ("LOAD_SEED", "x"),
        ("LOAD_SEED", "9" * 30),
        ("LOAD_RUNTIME", "60"),
        ("LOAD_RUNTIME", "0s"),
        ("LOAD_RUNTIME", "1m 30s"),
        ("LOAD_HOST", "127.0.0.1:8000"),
        ("LOAD_HOST", "ftp://127.0.0.1"),
        ("LOAD_HOST", "http://somebody:secret@127.0.0.1"),
    ],
)
def test_a_value_that_is_none_is_told_by_its_variable_with_what_to_give(name: str, value: str) -> None:
    with pytest.raises(BadSetting) as refused:
        load_from({"SERVICE_API_KEY": KEY, name: value})
    assert refused.value.reason.startswith(f"{name}={value[:20]}") and refused.value.remedy.startswith("Give ")


@pytest.mark.parametrize("host", ["https://dpdau.example.org", "http://127.0.0.1:8000", "http://[::1]:8000"])
def test_a_server_that_runs_is_written_to_only_where_its_address_is_given_twice(host: str) -> None:
    """Also one on this machine: a port may lead to a store whose numbers matter."""
    for confirmed in ({}, {"LOAD_CONFIRM": "1"}, {"LOAD_CONFIRM": "http://127.0.0.1:8001"}):
        with pytest.raises(BadSetting, match=r"hands events and erasure requests.*LOAD_CONFIRM"):
            load_from({"LOAD_HOST": host, "SERVICE_API_KEY": KEY, **confirmed})
    assert load_from({"LOAD_HOST": host, "SERVICE_API_KEY": KEY, "LOAD_CONFIRM": host}).host == host


def test_a_server_needs_a_key() -> None:
    host = "http://127.0.0.1:8000"
    with pytest.raises(BadSetting, match="SERVICE_API_KEY is not set"):
        load_from({"LOAD_HOST": host, "LOAD_CONFIRM": host})


# --- What is expected --------------------------------------------------------------------------------------------


def one(kind: str) -> Request:
    return next(request for request in asked(1, 1, ROUND) if request.kind == kind)


@pytest.mark.parametrize(
    ("kind", "status", "etag", "known", "said", "wrong"),
    [
        ("single", 202, None, None, {"ingested": 1, "rejected": 0}, None),
        ("single", 202, None, None, {"ingested": 0, "rejected": 1}, "not all"),
        ("batch", 202, None, None, {"ingested": 1, "rejected": 0}, "not all"),
        ("batch", 202, None, None, None, "not all"),
        ("batch", 200, None, None, {"ingested": 100, "rejected": 0}, "200 instead of 202"),
        ("batch", 503, None, None, None, "503 instead of 202"),
        ("batch", 0, None, None, None, "0 instead of 202"),
        ("erasure", 202, None, None, {"receipts": ["a"]}, None),
        ("erasure", 202, None, None, {"receipts": []}, "no receipt"),
        ("dau", 200, '"a"', None, {"day": "2025-01-01"}, None),
        ("dau", 200, '"b"', '"a"', {"day": "2025-01-01"}, None),
        ("dau", 200, '"a"', '"a"', {"day": "2025-01-01"}, "200 instead of 304"),
        ("dau", 200, None, None, {"day": "2025-01-01"}, "without an ETag"),
        ("dau", 200, '"a"', None, None, "no JSON"),
        ("mau", 304, '"a"', '"a"', None, None),
        ("mau", 304, '"a"', None, None, "had no answer"),
        ("series", 429, None, None, None, "429 instead of 200"),
        ("budget", 404, None, None, None, "404 instead of 200"),
    ],
)
def test_an_answer_that_is_not_as_expected_is_told(
    kind: str, status: int, etag: str | None, known: str | None, said: object, wrong: str | None
) -> None:
    found = problem(one(kind), status, etag, known, said)
    assert (found is None) if wrong is None else (found is not None and wrong in found)


# --- Runs --------------------------------------------------------------------------------------------------------


def run(folder: Path, **variables: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LOAD_", "LOCUST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "eval.load_test"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(PROJECT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_makes_every_kind_of_request_without_a_failure_and_leaves_its_reports(tmp_path: Path) -> None:
    seconds, seed = at_length(ci=20, soak=120), chance("load").randrange(2**31)
    code, said = run(tmp_path, LOAD_USERS="10", LOAD_RUNTIME=f"{seconds}s", LOAD_SEED=str(seed))
    assert code == 0, said
    reports = tmp_path / REPORTS
    shutil.copytree(reports, PROJECT / REPORTS, dirs_exist_ok=True)  # for people
    figures = {each["name"]: each for each in json.loads((reports / FIGURES).read_text())}
    assert set(figures) == set(NAMES.values())
    assert all(each["num_requests"] > 0 and each["num_failures"] == 0 for each in figures.values())
    for name in ("report.html", "load_stats.csv", "load_stats_history.csv"):
        content = (reports / name).read_text()
        assert NAMES["erasure"] in content or name == "load_stats_history.csv"
        assert len(content.splitlines()) > 1
    everything = "".join(file.read_text() for file in reports.iterdir())
    assert "load-test-" not in everything and "X-API-Key" not in everything


@pytest.mark.slow(weight=0.2)
def test_a_run_ends_with_1_where_a_server_refuses_what_it_should_take(
    make_store: Callable[..., object], tmp_path: Path
) -> None:
    make_store(recipe=a_month_published)
    with serve(tmp_path, RATE_LIMIT_PER_MINUTE="20") as served:
        host = f"http://127.0.0.1:{served.port}"
        here = {"LOAD_HOST": host, "LOAD_CONFIRM": host, "SERVICE_API_KEY": KEY}
        code, said = run(tmp_path, **here, LOAD_USERS="5", LOAD_RUNTIME="10s")
        assert code == 1 and "429 instead of 20" in said, said
        code, said = run(tmp_path, **{**here, "SERVICE_API_KEY": "x" * 40})
        assert code == 5 and "answers 401 to a reader" in said, said
    code, said = run(tmp_path, **here)
    assert code == 5 and "does not answer as dpdau does" in said, said
    code, said = run(tmp_path, LOAD_USERS="none")
    assert code == 2 and "LOAD_USERS=none" in said, said
