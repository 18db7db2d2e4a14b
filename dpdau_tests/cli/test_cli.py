"""The command line as a user meets it: JSON on stdout, words on stderr, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dpdau_tests.cli.conftest import Answer, Dpdau
from dpdau_tests.cli.main_job import MAIN_JOB, WHOLE, ran_in, the_main_job_is_done
from dpdau_tests.support.prepared import Prepared


@pytest.fixture(scope="module")
def dpdau(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Dpdau:
    folder = tmp_path_factory.mktemp("cli") / "store"
    return Dpdau(prepared.copy(MAIN_JOB, lambda empty: the_main_job_is_done(Dpdau(empty)), folder))


@pytest.fixture
def ran(dpdau: Dpdau) -> Answer:
    return ran_in(dpdau.folder)


@pytest.mark.slow
def test_the_main_job_in_processes_of_its_own_answers_as_it_does_in_one(ran: Answer, tmp_path: Path) -> None:
    dpdau = Dpdau(tmp_path, processes=True)
    the_main_job_is_done(dpdau)
    again = ran_in(tmp_path)
    assert (again.code, again.json) == (ran.code, ran.json)
    shown = dpdau("dau", "2025-01-30")
    assert shown.code == 0 and shown.said.startswith(f"dau 2025-01-30: {shown.json['estimate']}")
    assert dpdau("dau", "2025-01-02").code == 3 and dpdau("dau").code == 2
    assert dpdau("run", "--from", "2025-02-01", "--to", "2025-02-01").code == 4


def test_the_version_is_printed(dpdau: Dpdau) -> None:
    done = subprocess.run([sys.executable, "-m", "dpdau_assets.cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "dpdau 0.1.0\n")


def test_ingest_says_what_it_took_and_twice_is_once(dpdau: Dpdau) -> None:
    first, second = (dpdau("ingest", "--from", "events.jsonl") for _ in range(2))
    assert (first.code, first.json["ingested"], first.json["rejected"]) == (0, 200, 1)
    assert len(first.json["days"]) == 31
    assert second.json == first.json


def test_a_run_publishes_dau_and_mau_and_says_how_many(ran: Answer) -> None:
    assert ran.code == 0, ran.said
    assert ran.json == {"days": 2, "dau_published": 2, "mau_published": 1, "restated": 0}


def test_a_second_run_publishes_nothing_new_and_answers_alike(ran: Answer, dpdau: Dpdau) -> None:
    before = dpdau("dau", "2025-01-30").json
    again = dpdau("run", *WHOLE)
    assert again.json == ran.json
    assert dpdau("dau", "2025-01-30").json == before


@pytest.mark.parametrize(
    "arguments", [("dau", "2025-01-30"), ("dau", "--day", "2025-01-30"), ("mau", "--end", "2025-01-30")]
)
def test_a_published_number_is_shown_with_its_interval_and_budget(
    ran: Answer, dpdau: Dpdau, arguments: tuple[str, ...]
) -> None:
    answer = dpdau(*arguments).json
    assert set(answer) >= {
        "metric",
        "day",
        "window_days",
        "revision",
        "estimate",
        "noisy_value",
        "lower_95",
        "upper_95",
        "epsilon_used",
        "delta",
        "mechanism",
        "sketch_impl",
        "privacy_unit",
        "budget_remaining",
        "budget",
        "published_at",
        "version",
    }
    assert "exact_value" not in answer
    assert answer["lower_95"] <= answer["estimate"] <= answer["upper_95"]
    assert answer["lower_95"] >= 0
    assert answer["published_at"] == "2025-02-01T00:00:00+00:00"
    assert answer["budget"]["epsilon_cap"] - answer["epsilon_used"] == pytest.approx(answer["budget_remaining"])


def test_the_budget_of_a_month_is_shown(ran: Answer, dpdau: Dpdau) -> None:
    by_month, last = dpdau("budget", "dau", "--month", "2025-01"), dpdau("budget", "dau")
    assert by_month.json == last.json
    assert (last.json["releases_made"], last.json["releases_planned"]) == (2, 62)
    assert 0 < last.json["epsilon_spent"] < last.json["epsilon_cap"] == 3.0


def test_a_number_that_is_not_published_exits_with_3_and_names_the_job(dpdau: Dpdau) -> None:
    answer = dpdau("dau", "2025-01-02")
    assert answer.code == 3
    assert "dau_release" in answer.said


def test_another_window_is_not_published(ran: Answer, dpdau: Dpdau) -> None:
    assert dpdau("mau", "2025-01-30", "--window", "7").code == 3


def test_what_the_contract_forbids_exits_with_4_before_anything_is_done(ran: Answer, dpdau: Dpdau) -> None:
    skipping = dpdau("run", "--from", "2025-02-01", "--to", "2025-02-01")
    assert skipping.code == 4
    assert "2025-01-31 next" in skipping.said
    assert dpdau("dau", "2025-02-01").code == 3


def test_a_day_that_is_not_over_is_refused(dpdau: Dpdau) -> None:
    assert dpdau("run", "--from", "2025-01-29", "--to", "2999-01-01").code == 4


def test_a_number_that_no_job_makes_is_not_promised(ran: Answer, dpdau: Dpdau) -> None:
    assert "Only the configured window" in dpdau("mau", "2025-01-30", "--window", "7").said
    assert "only DAU has a revision 1" in dpdau("mau", "2025-01-30", "--revision", "1").said
    assert "dau_restatement" in dpdau("dau", "2025-01-30", "--revision", "1").said


def test_a_series_has_one_number_a_published_day(ran: Answer, dpdau: Dpdau) -> None:
    latest = dpdau("series", "dau", "--from", "2025-01-01", "--to", "2025-12-31")
    assert (latest.code, [row["day"] for row in latest.json]) == (0, ["2025-01-29", "2025-01-30"])
    shown = dpdau("dau", "2025-01-30").json
    assert latest.json[1] == {name: shown[name] for name in latest.json[1]}
    assert dpdau("series", "dau", "--from", "2025-01-30", "--to", "2025-01-30", "--as-published").json == [
        latest.json[1]
    ]
    assert dpdau("series", "mau", "--from", "2025-01-01", "--to", "2025-01-29").json == []


def test_a_missing_mau_names_the_day_that_is_next(ran: Answer, dpdau: Dpdau) -> None:
    assert "2025-01-31 next" in dpdau("mau", "2025-02-09").said


def test_bad_input_exits_with_5_and_is_named(dpdau: Dpdau) -> None:
    answer = dpdau("ingest", "--from", "no-such-file.csv")
    assert answer.code == 5
    assert "no-such-file.csv" in answer.said


@pytest.mark.parametrize(
    "arguments",
    [
        ("dau",),
        ("dau", "01.02.2025"),
        ("budget", "wau"),
        ("nonsense",),
        ("run", "--from", "x"),
        ("series", "dau", "--from", "2025-01-01"),
    ],
)
def test_wrong_usage_exits_with_2(dpdau: Dpdau, arguments: tuple[str, ...]) -> None:
    assert dpdau(*arguments).code == 2


def test_days_in_the_wrong_order_exit_with_2(dpdau: Dpdau) -> None:
    assert dpdau("run", "--from", "2025-01-31", "--to", "2025-01-30").code == 2


def test_a_schedule_that_does_not_fit_is_refused_with_the_day_it_would_run_out(dpdau: Dpdau) -> None:
    answer = dpdau("dau", "2025-01-30", DAU_MECHANISM="laplace", EPSILON_DAU="0.3")
    assert answer.code == 2
    assert "2025-01-11" in answer.said


def test_a_missing_secret_is_named_where_it_is_needed(dpdau: Dpdau) -> None:
    answer = dpdau("ingest", "--from", "events.jsonl", HASH_SALT_SECRET="", DATA_DIR="fresh")
    assert answer.code == 2
    assert "HASH_SALT_SECRET" in answer.said


def test_a_wrong_secret_is_refused_and_not_shown(ran: Answer, dpdau: Dpdau) -> None:
    answer = dpdau("ingest", "--from", "events.jsonl", HASH_SALT_SECRET="another-secret-of-forty-characters-here!")
    assert answer.code == 2
    assert "another-secret" not in answer.said


def test_a_wrong_value_names_the_variable_the_value_and_the_rule(dpdau: Dpdau) -> None:
    answer = dpdau("dau", "2025-01-30", GRACE_DAYS="soon", DELTA="tiny")
    assert answer.code == 2
    assert "GRACE_DAYS=soon: Input should be a valid integer" in answer.said and "DELTA=tiny" in answer.said
    answer = dpdau("dau", "2025-01-30", W_BOUND="3")
    assert answer.code == 2
    assert "W_BOUND=3" in answer.said


def test_a_living_store_refuses_another_time_zone(ran: Answer, dpdau: Dpdau) -> None:
    answer = dpdau("dau", "2025-01-30", TIMEZONE="Asia/Kolkata", HASH_SALT_ROTATION_DAYS="60")
    assert answer.code == 2
    assert "TIMEZONE=Asia/Kolkata" in answer.said and "HASH_SALT_ROTATION_DAYS=60" in answer.said


def test_made_up_events_are_the_same_for_the_same_seed(dpdau: Dpdau, tmp_path: Path) -> None:
    for name in ("one.csv", "two.csv"):
        done = dpdau(
            "generate-synthetic", "--out", str(tmp_path / name), "--days", "5", "--users", "50", "--events", "300"
        )
        assert done.code == 0, done.said
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
