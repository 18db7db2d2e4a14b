"""`dpdau ingest` of files as people have brought them, which once were refused, misread, or read as somebody else's.

Each is made as it came, only smaller where its size was not the matter.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau_tests.cli.conftest import Answer, Dpdau

DAY = "2025-02-01"


def nothing(dpdau: Dpdau) -> None:
    """A folder of which nothing is known yet."""


@pytest.fixture
def dpdau(begun: Callable[..., Dpdau]) -> Dpdau:
    return begun(nothing, START_DATE="2025-01-01", TIMEZONE="UTC")


def write(dpdau: Dpdau, name: str, content: str | bytes | pa.Table) -> None:
    path = dpdau.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def taken(answer: Answer) -> tuple[int, int, int, list[str]]:
    """Exit code, rows taken, rows rejected, days."""
    return answer.code, answer.json["ingested"], answer.json["rejected"], answer.json["days"]


def people_kept(dpdau: Dpdau) -> int:
    """How many distinct people any state or batch holds."""
    files = [*dpdau.folder.glob("data/activity/*/*.parquet"), *dpdau.folder.glob("data/inbox/*.parquet")]
    return len({key for file in files for key in pq.read_table(file, columns=["key"])["key"].to_pylist()})


# --- Rows that are not what they seem ----------------------------------------------------------------------------


def test_where_no_time_can_be_read_ingest_fails_and_nothing_is_published_about_nobody(dpdau: Dpdau) -> None:
    write(dpdau, "e.jsonl", "".join(json.dumps({"user_id": f"u{n}", "ts": "soon"}) + "\n" for n in range(400)))
    answer = dpdau("ingest", "--from", "e.jsonl")
    assert taken(answer) == (5, 0, 400, [])
    assert "None of the rows is valid; nothing was taken." in answer.said
    assert dpdau("series", "dau", "--from", "2025-01-01", "--to", "2025-01-02").json in ([], None)


def test_rows_inside_of_a_long_quoted_field_are_nobodys(dpdau: Dpdau) -> None:
    note = "x" * 131_072 + "\nvictim,2025-02-01,-,x\nghost,2025-02-01,+,x\n"
    write(dpdau, "e.csv", f'user_id,day,op,note\na,{DAY},+,"{note}"\nb,{DAY},+,ok\n')
    assert taken(dpdau("ingest", "--from", "e.csv")) == (0, 2, 0, [DAY])
    assert dpdau("erasures").json == [] and people_kept(dpdau) == 2


def test_a_stray_quote_that_would_swallow_rows_refuses_the_file(dpdau: Dpdau) -> None:
    rows = "".join(f"v{n},{DAY},x\n" for n in range(8000))
    write(dpdau, "e.csv", f'user_id,day,note\nq,{DAY},"5 inch\n{rows}')
    refused = dpdau("ingest", "--from", "e.csv")
    assert refused.code == 5 and "the quotes of the row in line 2 do not say where it ends" in refused.said
    assert people_kept(dpdau) == 0


def test_a_json_object_that_names_a_person_twice_is_a_bad_row(dpdau: Dpdau) -> None:
    write(dpdau, "e.jsonl", f'{{"user_id":"a","user_id":"b","day":"{DAY}"}}\n{{"user_id":"c","day":"{DAY}"}}\n')
    assert taken(dpdau("ingest", "--from", "e.jsonl", "--partial")) == (0, 1, 1, [DAY])


# --- Folders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["part.parquet", "part.csv", "part.jsonl"])
def test_the_folder_is_the_day_of_a_partitioned_write(name: str, dpdau: Dpdau) -> None:
    ids = [f"u{n}" for n in range(5)]
    content: dict[str, Any] = {
        "part.parquet": pa.table({"user_id": ids}),
        "part.csv": "user_id\n" + "\n".join(ids) + "\n",
        "part.jsonl": "".join(json.dumps({"user_id": user}) + "\n" for user in ids),
    }
    for folder in ("day=2025-02-01", "dt=20250201/hour=10", "event_date=2025-02-01", "date=2025-02-01"):
        write(dpdau, f"ev/{folder}/{name}", content[name])
    assert taken(dpdau("ingest", "--from", "ev")) == (0, 20, 0, [DAY]) and people_kept(dpdau) == 5


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.jsonl", "e.jsonl.gz", "e.json", "e.parquet"])
def test_a_folders_value_never_stands_in_for_what_the_row_says(name: str, dpdau: Dpdau) -> None:
    row = {"user_id": "ann", "day": "2025-02-03"}
    text = {"csv": "user_id,day\nann,2025-02-03\n", "jsonl": json.dumps(row) + "\n", "json": json.dumps([row])}
    content: dict[str, Any] = {f"e.{ending}": words for ending, words in text.items()}
    content |= {f"e.{ending}.gz": gzip.compress(words.encode()) for ending, words in text.items()}
    content["e.parquet"] = pa.Table.from_pylist([row])
    write(dpdau, "ev/plain.csv", text["csv"])
    for folder in ("day=2025-02-01", "user_id=x", "op=-", "c0=x", "year=2025/month=02/day=01"):
        write(dpdau, f"ev/{folder}/{name}", content[name])
    assert taken(dpdau("ingest", "--from", "ev")) == (0, 6, 0, ["2025-02-03"])
    assert people_kept(dpdau) == 1 and dpdau("erasures").json == []


def test_a_part_of_no_bytes_is_an_empty_part(dpdau: Dpdau) -> None:
    write(dpdau, "day/part-00000.csv", f"user_id,day\na,{DAY}\n")
    write(dpdau, "day/part-00001.csv", "")
    write(dpdau, "day/.part-00000.csv.crc", b"crc\0")
    write(dpdau, "day/_SUCCESS", "")
    assert taken(dpdau("ingest", "--from", "day")) == (0, 1, 0, [DAY])


# --- Times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("zone", "day"), [("UTC", "2025-02-01"), ("Europe/Berlin", "2025-01-31")])
def test_a_time_without_a_zone_is_of_naive_zone_whatever_timezone_is(
    zone: str, day: str, begun: Callable[..., Dpdau]
) -> None:
    dpdau = begun(nothing, START_DATE="2025-01-01", TIMEZONE="Europe/Berlin", NAIVE_ZONE=zone)
    write(dpdau, "e.csv", "user_id,ts\na,2025-01-31 23:30:00\n")
    assert taken(dpdau("ingest", "--from", "e.csv")) == (0, 1, 0, [day])


TIMES = {
    "snowflake": ["2025-02-01 10:00:00.000 +0000", "2025-02-01 10:00:00 +00:00", "2025-02-01 02:00:00.000 -0800"],
    "postgres": ["2025-02-01 10:00:00+00", "2025-02-01 10:00:00.123456+01", "2025-02-01T10:00Z"],
    "bigquery": ["2025-02-01 10:00:00 UTC", "2025-02-01 10:00:00.123456789 UTC", "20250201"],
    "unix": ["1738400000", "1738400000123", "1738400000123456", "1738400000123456789", "1738400000.5"],
}


def test_times_are_read_as_warehouses_write_them(dpdau: Dpdau) -> None:
    for written_by, times in TIMES.items():
        write(dpdau, f"e/{written_by}.csv", "user_id,ts\n" + "".join(f"{written_by},{time}\n" for time in times))
        write(
            dpdau, f"e/{written_by}.jsonl", "".join(json.dumps({"user_id": "j", "ts": time}) + "\n" for time in times)
        )
    assert taken(dpdau("ingest", "--from", "e")) == (0, 28, 0, [DAY])


@pytest.mark.parametrize("ending", ["parquet", "parquet.gz"])
def test_a_time_of_parquets_old_type_is_of_utc_whatever_naive_zone_is(ending: str, begun: Callable[..., Dpdau]) -> None:
    dpdau = begun(nothing, START_DATE="2025-01-01", TIMEZONE="Europe/Berlin", NAIVE_ZONE="America/New_York")
    late = datetime(2025, 1, 31, 22, 30)
    old, plain = (pa.table({"user_id": ["a"], "ts": pa.array([late], pa.timestamp(unit))}) for unit in ("ns", "us"))
    with BytesIO() as content:
        pq.write_table(old, content, use_deprecated_int96_timestamps=True)
        write(
            dpdau, f"old.{ending}", gzip.compress(content.getvalue()) if ending.endswith("gz") else content.getvalue()
        )
    write(dpdau, "plain.parquet", plain)
    assert taken(dpdau("ingest", "--from", f"old.{ending}")) == (0, 1, 0, ["2025-01-31"])
    assert taken(dpdau("ingest", "--from", "plain.parquet")) == (0, 1, 0, ["2025-02-01"]), "New York is behind"


# --- Ids ---------------------------------------------------------------------------------------------------------


def test_an_integer_id_is_its_decimal_digits_in_every_format(dpdau: Dpdau) -> None:
    write(dpdau, "e.csv", f"user_id,day\n101,{DAY}\n102,{DAY}\n")
    write(dpdau, "e.jsonl", f'{{"user_id": 101, "day": "{DAY}"}}\n{{"user_id": 102.0, "day": "{DAY}"}}\n')
    days = pa.array([date(2025, 2, 1)] * 2)
    write(dpdau, "e.parquet", pa.table({"user_id": pa.array([101, 102], pa.int64()), "day": days}))
    write(dpdau, "f.parquet", pa.table({"user_id": pa.array([101.0, 102.0]), "day": days}))
    for name in ("e.csv", "e.jsonl", "e.parquet", "f.parquet"):
        assert taken(dpdau("ingest", "--from", name)) == (0, 2, 0, [DAY])
    assert people_kept(dpdau) == 2


@pytest.mark.parametrize(("how", "left"), [("nfc,trim,casefold", 0), ("", 3)])
def test_an_erasure_finds_another_spelling_only_as_far_as_ids_are_normalised(
    how: str, left: int, begun: Callable[..., Dpdau]
) -> None:
    dpdau = begun(nothing, START_DATE="2025-01-01", USER_ID_NORMALIZE=how)
    people = ["jose\u0301@example.org", "Bob@example.org", "kim"]
    write(dpdau, "e.jsonl", "".join(json.dumps({"user_id": person, "day": DAY}) + "\n" for person in people))
    write(
        dpdau, "r.csv", 'user_id,through\njosé@example.org,2025-02-02\nbob@example.org,2025-02-02\n"kim ",2025-02-02\n'
    )
    assert taken(dpdau("ingest", "--from", "e.jsonl")) == (0, 3, 0, [DAY])
    asked = dpdau("erase", "--from", "r.csv")
    assert (asked.code, asked.json["received"]) == (0, 3)
    assert dpdau("flush-deletes").code == 0 and people_kept(dpdau) == left
    assert ("byte by byte" in asked.said) == (how == "")


# --- How files are written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("e.csv", f"user_id;day\na;{DAY}\n", "e.csv is taken to be separated by semicolons."),
        ("e.csv", f"user_id\tday\na\t{DAY}\n", "e.csv is taken to be separated by tabs."),
        ("e.csv", f"user_id|day\na|{DAY}\n", "e.csv is taken to be separated by pipes."),
        ("e.csv", f"user_id,day\na,{DAY}\n", ""),
        ("e.tsv", f"user_id\tday\na\t{DAY}\n", ""),
    ],
)
def test_what_separates_the_fields_is_found_out_and_told(name: str, content: str, told: str, dpdau: Dpdau) -> None:
    write(dpdau, name, content)
    answer = dpdau("ingest", "--from", name)
    assert taken(answer) == (0, 1, 0, [DAY])
    assert told in answer.said and ("taken to be separated" in answer.said) == bool(told)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", f"user_id,day\r\na,{DAY}\r\n".encode("utf-16")),
        ("e.jsonl", f'{{"user_id": "a", "day": "{DAY}"}}\n'.encode("utf-16")),
        ("e.csv", f"\ufeffUSER_ID , Day\r\na,{DAY}\r\n\r\n".encode()),
        ("data_0_0_0.csv.gz", gzip.compress(f'"USER_ID","DAY"\n"a","{DAY}"\n'.encode())),
        ("e.json", gzip.compress(f'{{"user_id": "a", "day": "{DAY}"}}\n'.encode())),
        ("e.jsonl.gz", gzip.compress(f'{{"user_id": "a", "day": "{DAY}"}}\n'.encode()) + gzip.compress(b"\n")),
        ("e.csv", f"user_id,day,\na,{DAY},\n"),
        ("e.json", json.dumps([{"user_id": "a", "day": DAY}], indent=2)),
        ("e.json", json.dumps({"meta": [1], "data": [{"user_id": "a", "day": DAY}], "rows": 1}, indent=1)),
        ("e.json", f'{{"user_id":"a","day":"{DAY}"}}{{"user_id":"a","day":"{DAY}"}}'),
    ],
    ids=["utf-16", "utf-16-json", "excel", "snowflake", "gz-inside", "two-gz", "trailing", "array", "click", "hose"],
)
def test_a_file_is_read_as_its_program_writes_it(name: str, content: str | bytes, dpdau: Dpdau) -> None:
    write(dpdau, name, content)
    answer = dpdau("ingest", "--from", name)
    assert (answer.code, answer.json["rejected"], answer.json["days"]) == (0, 0, [DAY]) and people_kept(dpdau) == 1


def test_json_whose_columns_are_called_otherwise_is_refused_with_what_to_say(dpdau: Dpdau) -> None:
    when = f"{DAY}T10:00:00Z"
    for row, remedy in (
        ({"event": "x", "distinct_id": "a", "timestamp": when}, "add --preset posthog."),
        ({"uid": "a", "time": when}, "--columns user_id=NAME,ts=NAME"),
        ({"user_id": "a", "when": when}, "--columns user_id=NAME,ts=NAME"),
        ({"user_id": "a", "ts": "soon"}, "Correct what is named, and hand the files in again."),
        ([["a", when]], "Write a JSON object a line"),
    ):
        write(dpdau, "e.jsonl", json.dumps(row) + "\n")
        refused = dpdau("ingest", "--from", "e.jsonl")
        assert taken(refused) == (5, 0, 1, []) and remedy in refused.said


def test_rows_that_are_no_activity_are_counted_apart_and_it_is_told_if_none_is(dpdau: Dpdau) -> None:
    rows = [{"user_id": "a", "day": DAY, "event": event} for event in ("open", "push", "push")]
    write(dpdau, "e.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    some = dpdau("ingest", "--from", "e.jsonl", "--active-when", "event!=push")
    assert taken(some) == (0, 1, 0, [DAY]) and some.json["not_active"] == 2 and "None is activity" not in some.said
    none = dpdau("ingest", "--from", "e.jsonl", "--active-when", "evnt=open")
    assert taken(none) == (0, 0, 0, []) and none.json["not_active"] == 3
    assert "None is activity. If some should be, see with --explain which column is asked" in none.said


def test_a_removal_is_taken_whether_or_not_its_row_is_activity(dpdau: Dpdau) -> None:
    rows = [{"user_id": "a", "day": DAY, "event": "open"}, {"user_id": "a", "op": "-", "event": "delete"}]
    write(dpdau, "e.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    answer = dpdau("ingest", "--from", "e.jsonl", "--active-when", "event=open")
    assert answer.code == 0 and (answer.json["ingested"], answer.json["not_active"]) == (2, 0)
    assert len(dpdau("erasures").json) == 1


def test_a_file_named_in_no_command_is_not_looked_for(dpdau: Dpdau) -> None:
    assert dpdau("ingest").code == 2 and not (Path(dpdau.folder) / "data").exists()
