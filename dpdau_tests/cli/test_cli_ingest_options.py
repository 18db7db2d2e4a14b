"""`dpdau ingest` of files whose columns are called otherwise, and `--explain`, which only tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau_tests.cli.conftest import Dpdau

EXPORT = "distinct_id;timestamp;kind\nsecret-ann;2025-01-02 10:00:00;open\nsecret-bob;2025-01-02 11:00:00;push\n"
SOURCES = """
[app]
location = ["more"]
columns = { user_id = "distinct_id", ts = "timestamp" }
active_when = { column = "kind", is_not = ["push"] }
"""


def nothing(dpdau: Dpdau) -> None:
    """A folder of which nothing is known yet."""


@pytest.fixture
def dpdau(begun: Callable[..., Dpdau]) -> Dpdau:
    return begun(nothing)


def write(dpdau: Dpdau, name: str, text: str) -> Path:
    path = dpdau.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_explain_says_what_is_read_as_what_and_changes_nothing(tmp_path: Path) -> None:
    nowhere = Dpdau(tmp_path)
    nowhere.environment = {name: nowhere.environment[name] for name in ("PATH", "HOME")}
    write(nowhere, "e.csv", EXPORT)
    there = set(tmp_path.rglob("*"))
    said = nowhere("ingest", "--explain", "--from", "e.csv", "--columns", "user_id=distinct_id,ts=timestamp,op='+'")
    assert said.code == 0 and set(tmp_path.rglob("*")) == there
    [account] = said.json
    assert account["files"] == ["e.csv"] and (account["format"], account["encoding"]) == ("csv", "utf-8")
    assert account["delimiter"] == ";" and account["compression"] is None and account["not_used"] == ["kind"]
    assert account["fields"] == {
        "user_id": {"from": ["distinct_id"], "types": ["VARCHAR"], "constant": None, "not_seen": []},
        "op": {"from": [], "types": [], "constant": "+", "not_seen": []},
        "ts": {"from": ["timestamp"], "types": ["VARCHAR"], "constant": None, "not_seen": []},
    }
    assert account["missing"] == ["day", "metadata", "metadata.days"]
    for words in (
        "e.csv: csv, utf-8, separated by ';'",
        "| user_id | distinct_id | VARCHAR |",
        "Unix times are in s, ms, us or ns by their size; times without a zone are in NAIVE_ZONE.",
        "Not used: kind.",
    ):
        assert words in said.said
    assert "secret" not in nowhere.printed


def test_explain_tells_files_alike_together_and_an_empty_one_apart(dpdau: Dpdau) -> None:
    for day in ("2025-01-02", "2025-01-03"):
        write(dpdau, f"ev/day={day}/part.jsonl", json.dumps({"user_id": "secret-ann", "city": "x"}) + "\n")
    write(dpdau, "ev/none.csv", "")
    said = dpdau("ingest", "--explain", "--from", "ev", "--unit", "ms", "--zone", "Europe/Berlin")
    assert said.code == 0
    alike, empty = said.json
    assert alike["files"] == ["ev/day=2025-01-02/part.jsonl", "ev/day=2025-01-03/part.jsonl"]
    assert alike["day_of_folder"] and (alike["unix_times"], alike["naive_zone"]) == ("in ms", "Europe/Berlin")
    assert alike["fields"]["op"]["not_seen"] == ["op"] and alike["not_used"] == ["city"]
    assert empty["files"] == ["ev/none.csv"] and empty["empty"] and empty["fields"] == {}
    assert "ev/day=2025-01-02/part.jsonl and 1 more: json, utf-8" in said.said
    assert "the folder's day" in said.said and "ev/none.csv: empty" in said.said
    assert "secret" not in dpdau.printed


def test_columns_are_not_named_where_none_of_them_was_asked_for(dpdau: Dpdau) -> None:
    write(dpdau, "e.jsonl", json.dumps({"secret-ann": 1, "secret-bob": 2}) + "\n")
    write(dpdau, "e.csv", "secret-ann,2025-01-02\nsecret-bob,2025-01-02\n")
    assert dpdau("ingest", "--explain", "--from", "e.jsonl").json[0]["not_used"] == []
    assert dpdau("ingest", "--explain", "--from", "e.csv").code == 5
    assert "secret" not in dpdau.printed


def test_columns_by_name_and_what_is_active_are_taken_by_one_command(dpdau: Dpdau) -> None:
    write(dpdau, "e.csv", EXPORT)
    options = ["--columns", "user_id=distinct_id,ts=timestamp", "--active-when", "kind!=push"]
    answer = dpdau("ingest", "--from", "e.csv", *options)
    assert (answer.code, answer.json["ingested"], answer.json["days"]) == (0, 1, ["2025-01-02"])


def test_options_of_columns_may_be_given_one_by_one(dpdau: Dpdau) -> None:
    write(dpdau, "e.csv", EXPORT)
    answer = dpdau("ingest", "--from", "e.csv", "--columns", "user_id=distinct_id", "--columns", "ts=timestamp")
    assert (answer.code, answer.json["ingested"]) == (0, 2)


def test_a_named_source_says_where_and_how_and_the_command_line_wins(dpdau: Dpdau) -> None:
    write(dpdau, "sources.toml", SOURCES)
    write(dpdau, "more/e.csv", EXPORT)
    write(dpdau, "other.csv", EXPORT)
    taken = dpdau("ingest", "--source", "app", SOURCES_FILE="sources.toml")
    assert (taken.code, taken.json["ingested"]) == (0, 1)
    elsewhere = dpdau(
        "ingest", "--source", "app", "--from", "other.csv", "--active-when", "kind=push", SOURCES_FILE="sources.toml"
    )
    assert (elsewhere.code, elsewhere.json["ingested"]) == (0, 1)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_that_differ_in_case_alone_are_told_apart(dpdau: Dpdau, ending: str) -> None:
    row = {"userid": None, "userId": "secret-ann", "ts": "2025-01-02"}
    if ending == "parquet":
        pq.write_table(
            pa.Table.from_pylist([row], pa.schema(dict.fromkeys(row, pa.string()))), dpdau.folder / "e.parquet"
        )
    else:
        write(
            dpdau, f"e.{ending}", "userid,userId,ts\n,secret-ann,2025-01-02\n" if ending == "csv" else json.dumps(row)
        )
    options = ["--from", f"e.{ending}", "--columns", "user_id=userId,ts=ts"]
    assert dpdau("ingest", "--explain", *options).json[0]["fields"]["user_id"]["from"] == ["userId"]
    answer = dpdau("ingest", *options)
    assert (answer.code, answer.json["ingested"]) == (0, 1)


def test_a_vendor_s_file_is_refused_with_the_preset_that_takes_it(dpdau: Dpdau) -> None:
    write(dpdau, "e.csv", "uuid,event,distinct_id,timestamp\n1,open,secret-ann,2025-01-02T10:00:00Z\n")
    refused = dpdau("ingest", "--from", "e.csv")
    assert refused.code == 5 and "These look like PostHog's: add --preset posthog." in refused.said
    assert dpdau("ingest", "--from", "e.csv", "--preset", "posthog").json["ingested"] == 1
    assert "secret" not in dpdau.printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--columns", "who=a"], "--columns: events have no field who"),
        (["--columns", "user_id"], "--columns user_id: a part names no field"),
        (["--preset", "x"], "There is no preset x. There are segment, rudderstack, posthog"),
        (["--unit", "h"], "--unit h: not known. It can be s, ms, us, ns"),
        (["--zone", "Mars/Base"], "--zone Mars/Base: no such time zone"),
        (["--format", "xml"], "--format xml: not known"),
        (["--delimiter", "ab"], "--delimiter ab: not a delimiter"),
        (["--active-when", "a"], "--active-when a: not what is compared with what"),
        (["--source", "x"], "SOURCES_FILE is not set"),
    ],
)
def test_a_wrong_option_ends_with_2_and_makes_no_store(dpdau: Dpdau, options: list[str], said: str) -> None:
    write(dpdau, "e.csv", EXPORT)
    for explain in ([], ["--explain"]):
        answer = dpdau("ingest", "--from", "e.csv", *options, *explain)
        assert answer.code == 2 and said in answer.said
    assert not (dpdau.folder / "data").exists()


def test_an_input_that_nobody_names_ends_with_2(dpdau: Dpdau) -> None:
    answer = dpdau("ingest")
    assert answer.code == 2 and "Nothing says where the events lie." in answer.said


QUERY = "SELECT who AS user_id, seen AS ts FROM events"


def test_a_query_is_taken_by_one_command_and_by_a_named_source(dpdau: Dpdau) -> None:
    with duckdb.connect(dpdau.folder / "w.duckdb") as connection:
        connection.execute(
            "CREATE TABLE events AS SELECT 'u' || i AS who, TIMESTAMP '2025-02-01' AS seen FROM range(9) t(i)"
        ).fetchall()
    write(dpdau, "q.sql", QUERY)
    by_hand = dpdau("ingest", "--sql", "q.sql", "--from", "w.duckdb")
    assert by_hand.code == 0 and by_hand.json["ingested"] == 9
    write(dpdau, "more/q.sql", QUERY)
    write(dpdau, "more/s.toml", '[w]\nlocation = "w.duckdb"\nsql = "q.sql"\ntimeout = 60\n')
    named = dpdau("ingest", "--source", "w", SOURCES_FILE="more/s.toml")
    assert named.code == 0 and named.json["batch"] == by_hand.json["batch"]
    explained = dpdau("ingest", "--sql", "q.sql", "--from", "w.duckdb", "--explain")
    assert explained.json[0]["fields"]["user_id"]["types"] == ["VARCHAR"] and "u1" not in explained.said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sql", "none.sql", "--from", "w.duckdb"], "none.sql cannot be read: No such file"),
        (["--sql", "empty.sql", "--from", "w.duckdb"], "empty.sql is empty"),
        (["--sql", "q.sql", "--from", "a", "--from", "b"], "A query is asked of one database"),
        (["--sql", "q.sql", "--from", "w.duckdb", "--format", "csv"], "A query has no format"),
        (["--from", "e.csv", "--timeout", "5"], "A time-out is of a query"),
        (["--sql", "q.sql", "--from", "postgresql://a:hush-7e57@127.0.0.1/x"], "holds a password"),
    ],
)
def test_a_query_that_is_asked_for_wrongly_ends_with_2(dpdau: Dpdau, options: list[str], said: str) -> None:
    write(dpdau, "q.sql", QUERY)
    write(dpdau, "empty.sql", " ")
    write(dpdau, "e.csv", EXPORT)
    answer = dpdau("ingest", *options)
    assert answer.code == 2 and said in answer.said and "hush" not in dpdau.printed


def test_a_time_out_in_a_source_that_is_no_number_is_refused(dpdau: Dpdau) -> None:
    write(dpdau, "s.toml", '[w]\nlocation = "w.duckdb"\nsql = "q.sql"\ntimeout = "soon"\n')
    answer = dpdau("ingest", "--source", "w", SOURCES_FILE="s.toml")
    assert answer.code == 2 and "timeout = soon: not a number of seconds" in answer.said
