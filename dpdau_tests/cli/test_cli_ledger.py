"""Verifying, backing up and restoring as an operator meets them: JSON and exit codes."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from dpdau_assets.cli.main import app
from dpdau_tests.cli.conftest import SECRET, Dpdau

DAYS = ("2025-01-01", "2025-01-02", "2025-01-03")
ADA = ("--who", "Ada", "--why", "the queue of tickets")


def three_days_are_published(dpdau: Dpdau) -> None:
    rows = [{"user_id": f"person-{n}@planted.example", "day": day} for day in DAYS for n in range(50)]
    (dpdau.folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert dpdau("ingest", "--from", "events.jsonl").code == 0
    assert dpdau("run", "--from", DAYS[0], "--to", DAYS[-1]).code == 0
    assert SECRET not in dpdau.printed and "planted" not in dpdau.printed


@pytest.fixture
def dpdau(begun: Callable[..., Dpdau]) -> Dpdau:
    """A store with three days of DAU."""
    return begun(three_days_are_published)


@pytest.mark.slow
def test_a_lost_store_is_restored_with_the_numbers_it_had_and_opens_when_erasures_are_in_again(dpdau: Dpdau) -> None:
    whole = dpdau("verify-ledger")
    assert (whole.code, whole.json["holds"], whole.json["problems"]) == (0, True, [])
    inside = dpdau("backup", "--to", "data/backup")
    assert inside.code == 5 and "is inside DATA_DIR" in inside.said
    backup = dpdau("backup", "--to", "backups/today")
    assert backup.code == 0, backup.said
    assert backup.json["head"] == whole.json["head"] and backup.json["last_published"] == {"dau": DAYS[-1], "mau": None}
    assert dpdau("backup", "--to", "backups/today").code == 5
    numbers = [dpdau("dau", day).json for day in DAYS]
    refused = dpdau("restore", "--from", "backups/today")
    assert refused.code == 4 and "The ledger is not empty" in refused.said

    shutil.move(dpdau.folder / "data" / "mart", dpdau.folder / "mart")
    shutil.rmtree(dpdau.folder / "data")
    through = ("--published-through", DAYS[-1])
    assert dpdau("restore", "--from", "backups/today", *through).code == 2
    assert dpdau("restore", "--from", "backups/today", "--mart", "nowhere").code == 5
    assert dpdau("restore", "--from", "nowhere").code == 5
    done = dpdau("restore", "--from", "backups/today", "--mart", "mart", *through, *ADA)
    assert done.code == 0, done.said
    assert "dpdau reopen" in done.said
    said = {"maybe_published": 0, "taken_back": 0, "closed": [], "lost_epochs": [], "files": "restored"}
    assert {name: done.json[name] for name in said} == said
    assert [dpdau("dau", day).json for day in DAYS] == numbers
    assert dpdau("verify-ledger", "--head", whole.json["head"]).json["holds"]

    next_day = ("--from", "2025-01-04", "--to", "2025-01-04")
    waiting = dpdau("run", *next_day)
    assert waiting.code == 4 and "erasure requests made since the backup" in waiting.said
    assert dpdau("erase", "--user-id", "person-1@planted.example").code == 0
    assert dpdau("flush-deletes").json["verified"] == 1
    assert dpdau("reopen", *ADA).json == {"reopened": True}
    assert dpdau("run", *next_day).code == 0
    assert SECRET not in dpdau.printed and "planted" not in dpdau.printed


def test_by_default_every_day_up_to_yesterday_may_have_been_published(dpdau: Dpdau) -> None:
    assert dpdau("backup", "--to", "backup").code == 0
    for path in (dpdau.folder / "data").glob("ledger.sqlite*"):
        path.unlink()
    done = dpdau("restore", "--from", "backup")
    assert done.code == 0, done.said
    assert done.json["files"] == "kept" and done.json["maybe_published"] > 300
    assert done.json["closed"][0] == {"metric": "dau", "month": "2025-01"}
    assert dpdau("reopen", *ADA).code == 0
    closed = dpdau("run", "--from", "2025-01-04", "--to", "2025-01-04")
    assert closed.code == 4 and "may have been lost in a restore" in closed.said
    assert dpdau("verify-ledger").json["holds"]


def test_what_was_changed_behind_its_back_is_found_and_a_mart_that_shows_other_numbers(dpdau: Dpdau) -> None:
    with duckdb.connect(dpdau.folder / "data" / "mart" / "active_users.duckdb") as mart:
        mart.execute("UPDATE active_users SET noisy_value = noisy_value + 1 WHERE day = '2025-01-02'")
    shown = dpdau("verify-ledger")
    assert (shown.code, shown.json["problems"]) == (
        4,
        ["dau of 2025-01-02, revision 0, is published with another number."],
    )
    cut = dpdau("verify-ledger", "--head", "0" * 64)
    assert cut.code == 4 and "is no head of this ledger" in cut.json["problems"][-1]
    with closing(sqlite3.connect(dpdau.folder / "data" / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE releases SET half_width = half_width + 1 WHERE id = 2")
    changed = dpdau("verify-ledger")
    assert (changed.code, changed.json["holds"]) == (4, False)
    assert "releases 2 to 2" in changed.json["problems"][0]
    refused = dpdau("backup", "--to", "backup")
    assert refused.code == 4 and "verify-ledger" in refused.said


@pytest.mark.parametrize(
    "arguments",
    [
        ("backup",),
        ("restore",),
        ("restore", "--from", "backup", "--published-through", DAYS[0], "--who", "Ada"),
        ("restore", "--from", "backup", "--who", "Ada", "--why", "because"),
        ("reopen", "--who", "Ada"),
        ("verify-ledger", "--head"),
    ],
)
def test_wrong_usage_exits_with_2_before_anything_is_opened(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        app(arguments)


def test_where_there_is_no_ledger_none_is_made_by_verifying_or_backing_up(tmp_path: Path) -> None:
    nothing = Dpdau(tmp_path)
    for command in (("verify-ledger",), ("backup", "--to", "backup")):
        done = nothing(*command)
        assert done.code == 3 and "There is no ledger here" in done.said
    assert not (tmp_path / "data").exists()


def test_a_ledger_that_does_not_answer_is_said_so_in_a_line_and_its_password_is_not(tmp_path: Path) -> None:
    away = Dpdau(tmp_path, LEDGER_URL="postgresql://someone:hidden-word@127.0.0.1:9/ledger")
    done = away("dau", "2025-01-01")
    assert done.code == 2 and "The ledger at 127.0.0.1/ledger does not answer" in done.said
    assert "hidden-word" not in done.said and "Traceback" not in done.said
