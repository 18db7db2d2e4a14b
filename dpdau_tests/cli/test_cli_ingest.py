"""`dpdau ingest` of inputs as people have them: a wrong one ends so that `&&` stops, and says what, where and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dpdau_assets.core.events import BAD_DAY, BAD_OP
from dpdau_tests.cli.conftest import Dpdau

FIELDS = [
    "ingested",
    "rejected",
    "rejected_by_reason",
    "not_active",
    "quarantine",
    "days",
    "batch",
    "passed_over",
    "removals_waiting",
    "other_days",
]


def nothing(dpdau: Dpdau) -> None:
    """A folder of which nothing is known yet."""


@pytest.fixture
def dpdau(begun: Callable[..., Dpdau]) -> Dpdau:
    return begun(nothing)


def write(dpdau: Dpdau, name: str, text: str | bytes) -> Path:
    path = dpdau.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_of_which_every_row_is_rejected_ends_with_5_and_so_publishes_nothing(dpdau: Dpdau) -> None:
    rows = (json.dumps({"user_id": f"u{n}", "time": "01/02/2025"}) + "\n" for n in range(200))
    write(dpdau, "e.jsonl", "".join(rows))
    answer = dpdau("ingest", "--from", "e.jsonl")
    assert answer.code == 5 and list(answer.json) == FIELDS
    assert (answer.json["ingested"], answer.json["rejected"], answer.json["days"]) == (0, 200, [])
    assert answer.json["rejected_by_reason"] == {"day and ts are both missing.": 200}
    assert Path(answer.json["quarantine"]).read_text().count("\n") == 201
    assert "None of the rows is valid; nothing was taken. In e.jsonl: day and ts are both missing." in answer.said


def test_too_many_bad_rows_end_with_4_and_are_taken_in_part_when_asked(dpdau: Dpdau) -> None:
    rows = "".join(f"u{n},+,2025-01-02\n" for n in range(20))
    write(dpdau, "e.csv", f"user_id,op,day\n{rows}her,-,2025-01-02\nu1,+,someday\nu2,x,2025-01-02\n")
    refused = dpdau("ingest", "--from", "e.csv")
    assert refused.code == 4 and list(refused.json) == FIELDS
    assert {**refused.json, "quarantine": ""} == {
        "ingested": 0,
        "rejected": 2,
        "rejected_by_reason": {BAD_DAY: 1, BAD_OP: 1},
        "not_active": 0,
        "quarantine": "",
        "days": [],
        "batch": None,
        "passed_over": [],
        "removals_waiting": 1,
        "other_days": {},
    }
    assert "8.7 % of the rows are bad" in refused.said and "In e.csv: " in refused.said and "--partial" in refused.said
    assert "1 removal(s) among its rows were not taken, and erase nobody yet" in refused.said
    assert dpdau("erasures").json == []
    assert dpdau("check", "few_rows_rejected").code == 4
    taken = dpdau("ingest", "--from", "e.csv", "--partial")
    assert (taken.code, taken.json["ingested"], taken.json["removals_waiting"]) == (0, 21, 0)
    assert taken.json["quarantine"] == refused.json["quarantine"] and len(dpdau("erasures").json) == 1
    assert dpdau("ingest", "--from", "e.csv", MAX_REJECTED_SHARE="0.5").code == 0


def test_a_share_that_is_none_is_a_wrong_setting(dpdau: Dpdau) -> None:
    for share in ("1", "-0.1", "1%"):
        answer = dpdau("ingest", "--from", "e.csv", MAX_REJECTED_SHARE=share)
        assert answer.code == 2 and f"MAX_REJECTED_SHARE={share}" in answer.said


def test_rows_inside_of_a_long_field_are_text_and_erase_nobody(dpdau: Dpdau) -> None:
    long = "x" * 131_072
    write(dpdau, "e.csv", f'user_id,op,day,note\na,+,2025-02-01,"{long}\nghost,-,2025-02-01,\n"\nb,+,2025-02-01,\n')
    answer = dpdau("ingest", "--from", "e.csv")
    assert (answer.code, answer.json["ingested"], answer.json["rejected"]) == (0, 2, 0)
    assert dpdau("erasures").json == []


def test_a_stray_quote_refuses_the_file_by_name_and_line(dpdau: Dpdau) -> None:
    rows = "".join(f"u{n},+,2025-02-01\n" for n in range(8_000))
    write(dpdau, "day/e.csv", f'user_id,op,day\n"u,+,2025-02-01\n{rows}')
    answer = dpdau("ingest", "--from", "day")
    assert answer.code == 5 and "day/e.csv cannot be read as CSV" in answer.said and "line 2" in answer.said
    assert not (dpdau.folder / "data" / "inbox").exists()


@pytest.mark.parametrize("empty", ["part-1.csv", "part-1.jsonl"])
def test_an_empty_part_of_a_folder_holds_no_event(dpdau: Dpdau, empty: str) -> None:
    write(dpdau, "day/part-0.csv", "user_id,day\nu1,2025-02-01\n")
    write(dpdau, f"day/{empty}", "")
    answer = dpdau("ingest", "--from", "day")
    assert (answer.code, answer.json["ingested"], answer.json["rejected"]) == (0, 1, 0)


def test_events_of_other_days_in_a_days_folder_are_told(dpdau: Dpdau) -> None:
    write(dpdau, "landing/day=2025-02-01/e.csv", "user_id,day\na,2025-02-01\nb,2025-02-01\nc,2025-02-02\n")
    answer = dpdau("ingest", "--from", "landing")
    assert (answer.code, answer.json["ingested"]) == (0, 3)
    assert answer.json["other_days"] == {"2025-02-01": 0.3333}
    assert "In the folder day=2025-02-01, 33 % of the events are of other days." in answer.said


def test_without_a_secret_an_ingest_ends_before_it_reads_anything(dpdau: Dpdau) -> None:
    (dpdau.folder / "e.csv").write_text("user_id,day\nann,2025-02-01\n")
    refused = dpdau("ingest", "--from", "e.csv", HASH_SALT_SECRET="")
    assert refused.code == 2 and "HASH_SALT_SECRET is not set" in refused.said
    assert "Reading" not in refused.said
