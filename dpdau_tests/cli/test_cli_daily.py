"""The commands of every day as an operator meets them: complete, status, check, report."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from dpdau_tests.cli.conftest import Dpdau
from dpdau_tests.dagster.schedule_state import InstigatorStatus, switched
from dpdau_tests.dagster.world import stop_the_clock

DAYS = ("2025-01-01", "2025-01-02", "2025-01-03")
SHE = "she@planted.example"

Begin = Callable[..., Dpdau]


def events_are_in(dpdau: Dpdau) -> None:
    """Five people and she on each of three days."""
    rows = [{"user_id": f"person-{n}", "day": day} for day in DAYS for n in range(5)]
    rows += [{"user_id": SHE, "day": day} for day in DAYS]
    (dpdau.folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert dpdau("ingest", "--from", "events.jsonl").code == 0


def two_days_are_published(dpdau: Dpdau) -> None:
    events_are_in(dpdau)
    assert dpdau("run", "--from", DAYS[0], "--to", DAYS[1]).code == 0
    assert SHE not in dpdau.printed


@pytest.fixture
def dpdau(begun: Begin) -> Dpdau:
    return begun(events_are_in)


@pytest.fixture
def published(begun: Begin) -> Dpdau:
    return begun(two_days_are_published)


# --- complete ----------------------------------------------------------------------------------------------------


def test_days_are_declared_and_declarations_are_taken_back(dpdau: Dpdau) -> None:
    done = dpdau("complete", DAYS[1], DAYS[0])
    assert (done.code, done.json) == (0, {"complete": [DAYS[0], DAYS[1]]})
    back = dpdau("complete", DAYS[1], "--undo")
    assert (back.code, back.json) == (0, {"withdrawn": [DAYS[1]]})
    assert dpdau("status").json["ready"]["days"] == 1


@pytest.mark.parametrize(
    ("day", "code", "said"),
    [("2024-12-31", 5, "before START_DATE"), ("2099-01-01", 4, "2099-01-01"), ("2025-02-30", 2, "2025-02-30")],
)
def test_a_day_that_cannot_be_complete_refuses_them_all_and_says_why(
    dpdau: Dpdau, day: str, code: int, said: str
) -> None:
    done = dpdau("complete", DAYS[0], day)
    assert done.code == code and said in done.said
    assert dpdau("status").json["ready"]["days"] == 0


# --- status ------------------------------------------------------------------------------------------------------


def test_status_of_a_new_store_says_that_nothing_is_published(tmp_path: Path) -> None:
    done = Dpdau(tmp_path)("status")
    assert done.code == 0
    assert [series["last_day"] for series in done.json["published"]] == [None, None]
    assert done.json["overdue"] == [], "nobody waits for a store of which nothing is published"
    assert "published dau nothing yet" in done.said


def test_status_is_one_screen_of_what_is_published_pending_overdue_and_spent(published: Dpdau) -> None:
    published("erase", "--user-id", SHE, "--through", DAYS[0])
    published("complete", DAYS[2])
    done = published("status")
    assert done.json["published"][0]["last_day"] == DAYS[1]
    assert done.json["ready"] == {"days": 1, "first": DAYS[2], "last": DAYS[2]}
    assert done.json["unmarked"]["first"] == "2025-01-04"
    assert len(done.json["erasures"]) == 1 and done.json["erasures"][0]["age_days"] == 0
    assert done.json["overdue"] != []
    spent = {(month["metric"], month["month"]): month for month in done.json["spent"]}
    assert 0 < spent["dau", "2025-01-01"]["spent"] < spent["dau", "2025-01-01"]["charged"] <= 3.0
    for name in ("published dau", "ready now", "not complete", "erasure waits", "overdue", "spent dau 2025-01"):
        assert name in done.said
    assert SHE not in published.printed


def test_status_says_which_days_landed_and_have_no_marker(tmp_path: Path) -> None:
    dpdau = Dpdau(tmp_path, LANDING_DIR=str(tmp_path / "landing"))
    (tmp_path / "landing" / "dt=20250102").mkdir(parents=True)
    (tmp_path / "landing" / "dt=20250102" / "e.csv").write_text("user_id\nann\n")
    done = dpdau("status")
    assert done.json["without_marker"] == {"days": 1, "first": "2025-01-02", "last": "2025-01-02"}
    assert "no _SUCCESS 2025-01-02: event files are there in LANDING_DIR, and no marker" in done.said


# --- check -------------------------------------------------------------------------------------------------------


def test_checks_pass_on_a_sound_store_and_one_that_fails_ends_with_four(
    published: Dpdau, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_clock(monkeypatch, date(2025, 1, 4))
    sound = published("check")
    assert sound.code == 0 and all(verdict["passed"] for verdict in sound.json)
    (file,) = (published.folder / "data" / "activity" / f"day={DAYS[0]}").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    broken = published("check", "state_is_keyed", "noise_is_private")
    assert broken.code == 4 and "Failed: state_is_keyed." in broken.said
    assert [(verdict["name"], verdict["passed"]) for verdict in broken.json] == [
        ("state_is_keyed", False),
        ("noise_is_private", True),
    ]


def test_days_that_nobody_published_fail_once_something_is_published_without_any_declaration(
    published: Dpdau, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_clock(monkeypatch, date(2025, 1, 10))
    done = published("check", "published_on_time")
    assert done.code == 4 and "2025-01-03, 2025-01-04, 2025-01-05 and later" in done.json[0]["sentence"]
    assert any("not declared complete" in sentence for sentence in published("status").json["overdue"])


def test_a_store_of_which_nothing_is_published_is_waited_for_once_dagsters_schedule_is_on(
    dpdau: Dpdau, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_clock(monkeypatch, date(2025, 1, 10))
    home = tmp_path / "home"
    assert dpdau("check", "published_on_time", DAGSTER_HOME=str(home)).code == 0
    assert not home.exists(), "no home is made for it"
    with switched(home, InstigatorStatus.RUNNING):
        assert dpdau("check", "published_on_time", DAGSTER_HOME=str(home)).code == 4
        assert dpdau("status", DAGSTER_HOME=str(home)).json["overdue"] != []
    with switched(home, InstigatorStatus.STOPPED):
        assert dpdau("check", "published_on_time", DAGSTER_HOME=str(home)).code == 0


def test_a_home_that_dagster_cannot_open_is_named(dpdau: Dpdau, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("storage: nowhere\n")
    done = dpdau("check", "published_on_time", DAGSTER_HOME=str(tmp_path))
    assert (
        done.code == 4 and str(tmp_path) in done.json[0]["sentence"] and "cannot be opened" in done.json[0]["sentence"]
    )


def test_work_that_is_under_way_is_told_and_is_no_failure(published: Dpdau) -> None:
    published("erase", "--user-id", SHE)
    done = published("check", "no_pending_erasures")
    assert done.code == 0 and done.json[0]["passed"] is False and "waits" in done.said


def test_a_check_that_is_none_is_wrong_usage_and_the_answer_lists_them(dpdau: Dpdau) -> None:
    done = dpdau("check", "all_is_well")
    assert done.code == 2 and "all_is_well" in done.said and "ledger_holds" in done.said


# --- report ------------------------------------------------------------------------------------------------------


def test_the_report_is_written_to_its_place_for_readers_and_for_operators(published: Dpdau) -> None:
    done = published("report")
    readers, operators = (Path(file) for file in done.json["files"])
    assert done.code == 0 and (readers.name, operators.name) == ("readers.html", "operators.html")
    assert "Checks" in operators.read_text() and "Checks" not in readers.read_text()
    assert stat.S_IMODE((published.folder / "data").stat().st_mode) == 0o700


def test_one_report_is_written_where_somebody_asks_for_it(dpdau: Dpdau) -> None:
    for audience in ("readers", "operators"):
        done = dpdau("report", "--for", audience, "--out", f"{audience}.html")
        assert (done.code, done.json) == (0, {"files": [f"{audience}.html"]})
        assert ("For operators" in (dpdau.folder / f"{audience}.html").read_text()) == (audience == "operators")


def test_a_report_that_cannot_be_written_is_bad_input(dpdau: Dpdau) -> None:
    (dpdau.folder / "file").touch()
    done = dpdau("report", "--out", "file/report.html")
    assert done.code == 5 and "file/report.html cannot be written" in done.said
