"""`dpdau plan` and `dpdau budget` as a user meets them: what is foreseen, what a change would do, nothing written."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from dpdau_tests.cli.conftest import Dpdau
from dpdau_tests.cli.main_job import MAIN_JOB, the_main_job_is_done
from dpdau_tests.support.prepared import Prepared


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Dpdau:
    """A store with numbers, which the tests only read."""
    folder = tmp_path_factory.mktemp("plan") / "store"
    return Dpdau(prepared.copy(MAIN_JOB, lambda empty: the_main_job_is_done(Dpdau(empty)), folder))


@pytest.fixture
def new(tmp_path: Path) -> Dpdau:
    """Nothing was ever done here."""
    return Dpdau(tmp_path)


def row(answer: dict, metric: str, month: str) -> dict:
    (month_row,) = [
        month_row for month_row in answer["months"] if (month_row["metric"], month_row["month"]) == (metric, month)
    ]
    return month_row


def contents(folder: Path) -> dict[Path, str]:
    """The ledger's log comes and goes with whoever opens it."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def test_before_anything_is_published_the_whole_year_is_shown_and_no_store_is_made(new: Dpdau) -> None:
    done = new("plan")
    assert done.code == 0, done.said
    assert (done.json["fits"], done.json["first_refusal"], done.json["numbers_refused"]) == (True, None, 0)
    assert len(done.json["months"]) == 24
    assert row(done.json, "dau", "2025-12")["last_slot"] == "2026-01-05"
    assert not (new.folder / "data").exists()


def test_people_get_a_table_of_the_same_however_narrow_their_terminal(new: Dpdau) -> None:
    said = new("plan", "--months", "1", COLUMNS="40").said
    assert "| 2025-01 | dau | 0 | 31 + 31 | 2025-01-03 | 2025-02-05 | 2.998 | 3 | 0.002 | 6.86 | ± 13.5 |" in said


def test_a_plan_goes_on_from_what_is_published_and_leaves_every_file_as_it_was(living: Dpdau) -> None:
    before = contents(living.folder)
    done = living("plan", "--months", "2")
    assert done.code == 0, done.said
    january = row(done.json, "dau", "2025-01")
    assert (january["published"], january["first_numbers"], january["restatements"]) == (2, 1, 3)
    assert january["charged_now"] == january["charged"]
    assert january["first_slot"] == "2025-02-02"
    assert contents(living.folder) == before


def test_a_change_that_takes_hold_in_later_months_can_be_tried(living: Dpdau) -> None:
    done = living("plan", "--months", "2", "--set", "RESTATEMENT_DAY=9", "--set", "dau_budget_total=2.5")
    assert done.code == 0, done.said
    assert done.json["changed"] == {"RESTATEMENT_DAY": "9", "DAU_BUDGET_TOTAL": "2.5"}
    january, february = (row(done.json, "dau", month) for month in ("2025-01", "2025-02"))
    assert (january["cap"], january["last_slot"]) == (3.0, "2025-02-05")
    assert (february["cap"], february["last_slot"]) == (2.5, "2025-03-09")
    assert living("plan", "--months", "1").json["changed"] == {}


def test_a_change_that_the_living_ledger_would_refuse_ends_with_code_4_and_says_when(living: Dpdau) -> None:
    done = living("plan", "--months", "3", "--set", "MAU_BUDGET_TOTAL=3")
    assert done.code == 4
    refusal = done.json["first_refusal"]
    assert (refusal["metric"], refusal["day"], refusal["slot"]) == ("mau", "2025-01-31", "2025-02-02")
    assert (refusal["month"], refusal["cap"]) == ("2025-01", 3.5)
    assert refusal["next_day"] == "2025-03-02"
    assert "The first refusal: mau of 2025-01-31" in done.said
    assert "mau begins another stream on 2025-03-02; charged for both: no month" in done.said


def test_the_refusal_that_was_foreseen_is_the_one_that_comes(living: Dpdau, tmp_path: Path) -> None:
    foreseen = living("plan", "--set", "MAU_BUDGET_TOTAL=3").json["first_refusal"]
    copy = Dpdau(shutil.copytree(living.folder, tmp_path / "copy"))
    came = copy("run", "--from", "2025-01-31", "--to", "2025-01-31", MAU_BUDGET_TOTAL="3")
    assert came.code == 4
    assert " ".join(foreseen["reason"].split()) in came.said


@pytest.mark.parametrize(
    ("name", "value"),
    [("DAU_MECHANISM", "laplace"), ("DELTA", "small"), ("RESTATEMENT_DAY", "31"), ("MAU_WINDOW_DAYS", "7")],
)
def test_a_wrong_value_is_told_as_it_would_be_in_the_environment(new: Dpdau, name: str, value: str) -> None:
    tried, configured = new("plan", "--set", f"{name}={value}"), new("plan", **{name: value})
    assert (tried.code, tried.json) == (2, None)
    assert tried == configured


def test_the_terms_of_a_living_store_cannot_be_tried_otherwise(living: Dpdau, new: Dpdau) -> None:
    done = living("plan", "--set", "START_DATE=2024-06-01")
    assert done.code == 2
    assert "START_DATE=2024-06-01: this store was begun with 2025-01-01" in done.said
    assert new("plan", "--set", "START_DATE=2024-06-01").json["months"][0]["month"] == "2024-06"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("EPSILON=1", "--set EPSILON: no such setting"),
        ("EPSILON_DAU", "Write --set NAME=VALUE"),
        ("HASH_SALT_SECRET=never on a command line", "--set HASH_SALT_SECRET"),
        ("data_dir=elsewhere", "--set DATA_DIR"),
        ("LEDGER_URL=sqlite:///other.sqlite", "--set LEDGER_URL"),
    ],
)
def test_what_cannot_be_tried_is_refused_without_its_value(new: Dpdau, change: str, says: str) -> None:
    done = new("plan", "--set", change)
    assert done.code == 2
    assert says in done.said
    assert change.partition("=")[2] not in done.said or not change.partition("=")[2]


def test_publication_can_be_planned_to_begin_later(new: Dpdau) -> None:
    done = new("plan", "--months", "1", "--from", "2025-03-20")
    assert [(month_row["metric"], month_row["month"]) for month_row in done.json["months"]] == [
        ("mau", "2025-02"),
        ("dau", "2025-03"),
        ("mau", "2025-03"),
    ]
    assert new("plan", "--from", "2024-12-31").code == 2


def test_the_budget_of_a_month_is_still_shown(living: Dpdau) -> None:
    spent = living("budget", "dau").json
    assert (spent["month"], spent["releases_made"], spent["releases_planned"]) == ("2025-01", 2, 62)


def test_resetting_a_budget_puts_an_override_on_record_that_budget_and_numbers_show(
    living: Dpdau, tmp_path: Path
) -> None:
    shutil.copytree(living.folder, tmp_path, dirs_exist_ok=True)
    living = Dpdau(tmp_path)
    who_and_why = ("--who", "The privacy officer", "--why", "A reason.")
    done = living("reset-budget", "dau", "--month", "2025-01", "--cap", "3.25", *who_and_why)
    assert done.code == 0, done.said
    (shown,) = done.json["overrides"]
    assert (shown["epsilon_cap"], shown["who"], shown["why"]) == (3.25, "The privacy officer", "A reason.")
    budget = living("budget", "dau", "--month", "2025-01").json
    assert (budget["epsilon_cap"], budget["overrides"]) == (3.25, [shown])
    assert living("dau", "2025-01-29").json["overrides"] == [shown]
    assert living("budget", "mau", "--month", "2025-01").json["overrides"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--cap", "much", "--who", "A", "--why", "B"), 2, "--cap much is not a number"),
        (("--cap", "0", "--who", "A", "--why", "B"), 5, "0 is no cap"),
        (("--cap", "4", "--who", "A", "--why", " "), 5, "needs a name and a reason"),
        (("--cap", "4", "--who", "A"), 2, "--why"),
    ],
)
def test_an_override_that_is_not_complete_is_refused(
    new: Dpdau, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = new("reset-budget", "dau", "--month", "2025-01", *arguments)
    assert (done.code, done.json) == (code, None)
    assert said in done.said


def test_the_label_names_what_each_series_promises(living: Dpdau) -> None:
    labels = living("label").json
    assert set(labels["records"]) == {"dau", "mau", "dau_and_mau"}
    assert labels["registry"]["repository"] == "https://github.com/opendp/deployments-registry-data"
