"""What operators ask and do over HTTP: the coming months, where everything stands, declaring days."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.budget.forecast import forecast
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.as_json import as_json
from dpdau_assets.core.reporting.status import status
from dpdau_tests.api.asking import KEY, asking
from dpdau_tests.conftest import everything_in, prepare, put
from dpdau_tests.dagster.schedule_state import InstigatorStatus, switched
from dpdau_tests.support.master_secret import SECRET
from dpdau_tests.support.project import PROJECT
from dpdau_tests.support.stores import a_month_published
from resources.ledger_sql.database import Database
from resources.schedule_probe import KEPT_SECONDS, ScheduleProbe
from resources.storage.api_key_file import api_key_file
from resources.store import ledger_url, open_mart

JANUARY = date(2025, 1, 1)
TODAY = date(2025, 2, 8)

MakeStore = Callable[..., Store]


def plain(value: object) -> Any:
    return json.loads(json.dumps(as_json(value)))


# --- Plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "months", "first"),
    [("", 12, None), ("?months=2", 2, None), ("?months=1&from=2025-05-01", 1, date(2025, 5, 1))],
)
def test_a_plan_is_that_of_the_command_line(make_store: MakeStore, query: str, months: int, first: date | None) -> None:
    store = make_store(today=TODAY, recipe=a_month_published)
    with asking(store) as client:
        answer = client.get(f"/plan{query}")
    coming = plain(forecast(store.accountant, store.settings, months, first))
    assert answer.status_code == 200 and answer.json() == {"changed": {}, **coming}
    assert answer.json()["fits"] == (first is None), "MAU skips no day"
    assert len(answer.headers["etag"]) == 66


def test_a_plan_that_does_not_fit_names_the_first_refusal(make_store: MakeStore) -> None:
    store = make_store(today=TODAY, restatements_per_month=0, dau_mechanism="laplace")
    with asking(store, dau_budget_total=store.settings.epsilon_dau * 20) as client:
        answer = client.get("/plan?months=1").json()
    assert not answer["fits"] and answer["first_refusal"]["day"] == "2025-01-21"
    assert answer["first_refusal"]["month"] == "2025-01" and answer["numbers_refused"] > 10


def test_a_number_that_comes_out_changes_the_plan(make_store: MakeStore) -> None:
    store = make_store(today=TODAY)
    put(store, [("somebody", JANUARY)])
    prepare(store, [JANUARY])
    with asking(store) as client:
        before = client.get("/plan?months=1")
        publish("dau", JANUARY, store)
        after = client.get("/plan?months=1", headers={"If-None-Match": before.headers["etag"]})
    published = [answer.json()["months"][0]["published"] for answer in (before, after)]
    assert after.status_code == 200 and published == [0, 1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("months=0", "query.months"),
        ("months=121", "query.months"),
        ("months=1.0", "query.months"),
        ("from=2024-12-31", "query.from"),
        ("from=2036-01-01", "query.from"),
        ("from=2025-1-1", "query.from"),
    ],
)
def test_a_plan_of_too_much_is_refused_with_the_field_and_its_rule(
    make_store: MakeStore, query: str, field: str
) -> None:
    with asking(make_store(today=TODAY)) as client:
        answer = client.get(f"/plan?{query}")
    assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, [field])


def test_the_longest_plan_from_the_last_day_that_is_foreseen_is_answered(make_store: MakeStore) -> None:
    with asking(make_store(today=TODAY, recipe=a_month_published)) as client:
        last = TODAY + timedelta(days=3659)
        answer = client.get(f"/plan?months=120&from={last}")
        assert answer.status_code == 200 and answer.json()["months"][-1]["month"] == "2045-01"
        assert client.get(f"/plan?months=1&from={last + timedelta(days=1)}").status_code == 422


# --- Status ------------------------------------------------------------------------------------------------------


def test_the_status_is_that_of_the_command_line_and_asking_changes_nothing(make_store: MakeStore) -> None:
    store = make_store(today=TODAY, recipe=a_month_published)
    database = Database(ledger_url(store.settings), SECRET)
    with asking(store) as client:
        before = everything_in(database)
        answer = client.get("/status")
    assert answer.status_code == 200 and answer.json() == plain(status(store, open_mart(store.settings)))
    assert answer.json()["published"][0]["last_day"] == "2025-02-06" and answer.headers["cache-control"] == "no-store"
    assert everything_in(database) == before


@pytest.mark.slow(weight=0.1)
def test_a_schedule_that_is_switched_on_is_known_from_another_process(tmp_path: Path) -> None:
    now = [0.0]
    probe = ScheduleProbe(tmp_path / "home", lambda: now[0])
    assert not probe.is_scheduled(), "there is no home"
    assert not (tmp_path / "home").exists()
    now[0] = KEPT_SECONDS
    with switched(tmp_path / "home", InstigatorStatus.RUNNING):
        assert probe.is_scheduled()
    with switched(tmp_path / "home", InstigatorStatus.STOPPED):
        now[0] += KEPT_SECONDS - 1
        assert probe.is_scheduled(), "what was said is kept for a while"
        now[0] += 1
        assert not probe.is_scheduled()


@pytest.mark.slow(weight=0.1)
def test_a_home_that_dagster_cannot_open_is_said_so_and_asked_anew(tmp_path: Path) -> None:
    configuration = tmp_path / "dagster.yaml"
    configuration.write_text("storage: [")
    probe = ScheduleProbe(tmp_path, lambda: 0.0)
    with pytest.raises(BadSetting, match="cannot be opened") as refused:
        probe.is_scheduled()
    assert refused.value.remedy == "Correct its dagster.yaml."
    configuration.write_text("")
    assert not probe.is_scheduled()


def test_the_status_asks_dagsters_home_whether_days_are_waited_for(make_store: MakeStore) -> None:
    """Nothing is published or declared: only a schedule that is switched on makes days overdue."""
    on, off = (make_store(name, today=TODAY) for name in ("on", "off"))
    said = {}
    for name, store, state in (("on", on, InstigatorStatus.RUNNING), ("off", off, InstigatorStatus.STOPPED)):
        with switched(store.settings.data_dir / "dagster_home", state), asking(store) as client:
            said[name] = client.get("/status").json()["overdue"]
    assert any("not declared complete" in sentence for sentence in said["on"]) and said["off"] == []


ASKED = """
import sys
import dpdau_assets.api.app
print(*[name for name in sys.modules if name.partition(".")[0] in ("dagster", "dagster_shared", "pandas")])
"""


def test_importing_the_application_loads_no_dagster() -> None:
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout.strip() == ""


# --- Declaring days ----------------------------------------------------------------------------------------------


def test_a_day_is_declared_and_the_declaration_is_taken_back(make_store: MakeStore) -> None:
    store = make_store(today=TODAY)
    with asking(store) as client:
        for _ in range(2):
            declared = client.post("/complete/2025-02-01")
            assert (declared.status_code, declared.json()) == (200, {"complete": ["2025-02-01"]})
        assert set(store.events.completions.completed()) == {date(2025, 2, 1)}
        for _ in range(2):
            withdrawn = client.delete("/complete/2025-02-01")
            assert (withdrawn.status_code, withdrawn.json()) == (200, {"withdrawn": ["2025-02-01"]})
        assert not store.events.completions.completed()


@pytest.mark.parametrize(
    ("day", "status_code", "code"),
    [
        ("2025-02-08", 409, "Refused"),
        ("9999-12-31", 409, "Refused"),
        ("2024-12-31", 422, "BadInput"),
        ("0001-01-01", 422, "BadInput"),
        ("2025-02-29", 422, "InvalidRequest"),
        ("1735689600", 422, "InvalidRequest"),
    ],
)
def test_a_day_that_cannot_be_complete_is_not_declared(
    make_store: MakeStore, day: str, status_code: int, code: str
) -> None:
    store = make_store(today=TODAY)
    with asking(store) as client:
        answer = client.post(f"/complete/{day}")
    assert (answer.status_code, answer.json()["code"]) == (status_code, code)
    assert not store.events.completions.completed()


def test_the_declaration_of_a_day_that_a_number_has_read_stays(make_store: MakeStore) -> None:
    store = make_store(today=TODAY, recipe=a_month_published)
    with asking(store) as client:
        answer = client.delete("/complete/2025-01-05")
    assert (answer.status_code, answer.json()["code"]) == (409, "Refused")
    assert "sealed" in answer.json()["detail"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(day=st.dates())
@example(day=date.min)
@example(day=date.max)
def test_every_day_that_there_is_is_answered(make_store: MakeStore, day: date) -> None:
    store = make_store(today=TODAY)
    with asking(store) as client:
        statuses = [
            client.post(f"/complete/{day}").status_code,
            client.delete(f"/complete/{day}").status_code,
            client.get(f"/plan?months=1&from={day}").status_code,
        ]
    assert set(statuses) <= {200, 409, 422}


# --- Who may -----------------------------------------------------------------------------------------------------


def test_only_a_key_of_scope_admin_does_any_of_this(make_store: MakeStore) -> None:
    store = make_store(today=TODAY)
    _, read = api_key_file(store.settings).add("reader", frozenset({"read", "ingest", "erase"}), TODAY)
    _, admin = api_key_file(store.settings).add("boss", frozenset({"admin"}), TODAY)
    with asking(store) as client:
        for method, path in (
            ("GET", "/plan"),
            ("GET", "/status"),
            ("POST", "/complete/2025-02-01"),
            ("DELETE", "/complete/2025-02-01"),
        ):
            statuses = [
                client.request(method, path, headers={"X-API-Key": key}).status_code for key in ("x", read, admin, KEY)
            ]
            assert statuses == [401, 403, 200, 200]
            assert client.request(method, path, headers={"X-API-Key": read}).json()["scope"] == "admin"
