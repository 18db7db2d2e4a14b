"""The bulk engine against the plain reference: every format, every rule, and nothing that leaves a trace."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpdau_assets.core import events
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import Event, Limits, Row, day_of_second, row_of_object, validate
from dpdau_assets.core.facts import EpochKey
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.publication.ingest import RowScan
from dpdau_tests.support.lengths import at_length
from resources.reading import (
    csv_sources,
    engine_duckdb,
    event_csv,
    event_files,
    event_reading,
    event_tables,
    json_sources,
)
from resources.reading.engine_duckdb import DuckDBEngine, DuckDBScan, SortedUsers, hmac_blocks
from resources.reading.event_files import EventFile, event_file
from resources.reading.event_sql import BROKEN_RULES, USER_KEY, judged

FIRST, LAST = date(2025, 1, 1), date(2025, 4, 30)
UTC_ZONE = ZoneInfo("UTC")
KEY = EpochKey(224, bytes(range(32)))
ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Beirut", "Pacific/Apia"]

Objects = list[dict[str, object]]
Found = tuple[int, list[tuple[int, str]], dict[date, list[int]], set[Event]]


# What a scan finds, in a form to compare.


def found_by(scan: DuckDBScan | RowScan, key: EpochKey = KEY) -> Found:
    rejected = [(row.line, row.reason) for row in scan.rejected()]
    found: dict[date, set[int]] = defaultdict(set)
    for part in scan.parts():
        of_part = [(day_set.day, day_set.keys) for day_set in part.user_days(key, FIRST, LAST)]
        assert [day for day, _ in of_part] == sorted({day for day, _ in of_part})
        for day, keys in of_part:
            assert (keys[1:] > keys[:-1]).all() and not found[day].intersection(keys.tolist())
            found[day].update(keys.tolist())
    days = {day: sorted(keys) for day, keys in sorted(found.items())}
    assert list(days) == scan.days()
    return scan.accepted, rejected, days, set(scan.removals())


def files_at(*paths: Path) -> list[EventFile]:
    return [event_file(path) for path in paths]


def limits_in(zone: str) -> Limits:
    """Times without a zone are of the zone itself."""
    return Limits(FIRST, LAST, ZoneInfo(zone), naive_zone=ZoneInfo(zone))


LIMITS = limits_in("UTC")


def scanned(*files: Path, zone: str = "UTC", memory_limit: str = "2GB") -> Found:
    with DuckDBEngine(memory_limit).scan(files_at(*files), limits_in(zone)) as scan:
        return found_by(scan)


def by_reference(objects: Iterable[object], zone: str = "UTC", first_line: int = 1) -> Found:
    rows = (("file", line, row_of_object(value)) for line, value in enumerate(objects, first_line))
    return found_by(RowScan(rows, limits_in(zone)))


# Writers of the formats: each takes rows with text fields and writes what a careful exporter would.


def json_bytes(objects: Objects) -> bytes:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in objects).encode()


def csv_bytes(objects: Objects) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["note", "op", "user_id", "day", "ts", "metadata.days"], lineterminator="\n")
    writer.writeheader()
    for value in objects:
        metadata = value.get("metadata")
        days = {"metadata.days": ";".join(metadata["days"])} if isinstance(metadata, dict) else {}
        writer.writerow({name: value.get(name) for name in ("op", "user_id", "day", "ts")} | days)
    return text.getvalue().encode()


def parquet_bytes(objects: Objects) -> bytes:
    columns = {name: [value.get(name) for value in objects] for name in ("user_id", "op", "day", "ts", "metadata")}
    kinds = [pa.string()] * 4 + [pa.struct([("days", pa.list_(pa.string()))])]
    table = pa.table([pa.array(column, kind) for column, kind in zip(columns.values(), kinds, strict=True)], [*columns])
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=3)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[Objects], bytes]] = {
    "e.jsonl": json_bytes,
    "e.ndjson": json_bytes,
    "e.json": json_bytes,
    "e.csv": csv_bytes,
    "e.parquet": parquet_bytes,
}
ENDINGS = [name + packing for name in WRITERS for packing in ("", ".gz")]


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def plus(user_id: str, day: str = "2025-02-01", **fields: object) -> dict[str, object]:
    return {"user_id": user_id, "day": day, **fields}


MIXED: Objects = [
    plus("alice"),
    plus("bob", "2025-02-28", op="+"),
    plus("alice", op="+"),
    plus("alice", "2025-04-30"),
    {"user_id": "zoë", "ts": "2025-02-01T23:30:00-05:00"},
    {"user_id": "zoë", "ts": "1740787200"},
    plus("a\\x41b", "2025-03-31"),
    plus('say "hi", 👋', "2025-03-31"),
    plus("line one\nline two", "2025-03-31"),
    plus("", "2025-03-31"),
    plus("carol", "2025-02-29"),
    plus("carol", "2024-12-31"),
    plus("carol", "2025-05-01"),
    plus("carol", op="*"),
    {"user_id": "carol"},
    {"user_id": "carol", "ts": "noon"},
    plus("dave", op="-"),
    plus("dave", op="-"),
    plus("erin", "2025-02-03", op="-", metadata={"days": ["2025-01-09", "2025-01-02", "2025-01-09"]}),
    plus("erin", op="-", metadata={"days": ["2025-01-02", "never"]}),
    plus("erin", op="-", metadata={"days": ["2024-01-02"]}),
]


@pytest.mark.parametrize("name", ENDINGS)
def test_every_format_packed_or_not_says_the_same_as_the_reference(name: str, tmp_path: Path) -> None:
    content = WRITERS[name.removesuffix(".gz")](MIXED)
    accepted, rejected, days, removals = scanned(write(tmp_path, name, content))
    wanted = by_reference(MIXED)
    assert (accepted, days, removals) == (wanted[0], wanted[2], wanted[3])
    assert [reason for _, reason in rejected] == [reason for _, reason in wanted[1]]


@pytest.mark.parametrize("name", ENDINGS)
def test_bad_rows_are_named_by_their_line(name: str, tmp_path: Path) -> None:
    objects = [plus("a"), plus("b", op="?"), plus("c"), plus(""), plus("d")]
    path = write(tmp_path, name, WRITERS[name.removesuffix(".gz")](objects))
    with DuckDBEngine().scan(files_at(path), LIMITS) as scan:
        rejected = list(scan.rejected())
    header = 1 if ".csv" in name else 0
    assert [(row.line, row.reason) for row in rejected] == [(2 + header, events.BAD_OP), (4 + header, events.NO_USER)]
    assert {row.file for row in rejected} == {str(path)}


# SQL against the reference, row by row.

odd_text = st.text(max_size=12) | st.sampled_from(
    ["", " ", "\0", "a\0", "'", '"', "\\x41", "null", "é", "e\u0301", "👋"]
)
numbers = st.integers(-(10**12), 10**12).map(str) | st.decimals(-(10**11), 10**11, places=3).map(str)
dates = st.dates(date(2024, 12, 28), date(2025, 5, 3)).map(date.isoformat)
odd_dates = st.sampled_from(
    [
        "2025-02-29",
        "2024-02-29",
        "2025-00-10",
        "2025-04-31",
        "0000-01-01",
        "9999-12-31",
        "infinity",
        "epoch",
        "today",
        "2025-1-1",
        "-025-01-01",
        "2025-01-01 (BC)",
        "2025-02-01\n",
        "٢٠٢٥-02-01",
        "2025-02-01 00:00:00",
    ]
)
days_of_all_kinds = dates | odd_dates | odd_text
moments = st.one_of(
    numbers,
    st.integers(1_735_000_000, 1_747_000_000).map(str),
    st.floats(1.73e9, 1.75e9).map(repr),
    st.sampled_from(
        ["1e9", "-0", "-0.0", "-0.5", "00001738454399", "1.", ".1", "9999999999.9", "-9999999999.9", "NaN"]
    ),
    days_of_all_kinds,
    st.builds(
        "{}{}{:02}:{:02}{}{}".format,
        days_of_all_kinds | dates,
        st.sampled_from(["T", " ", "t", "", "  "]),
        st.integers(0, 25),
        st.integers(0, 61),
        st.sampled_from(["", ":00", ":59", ":60", ":59.5", ":59.999999999999", ":7", ":00,5"]),
        st.sampled_from(
            ["", "Z", "z", "+00:00", "-05:00", "+0530", "+14", "-23:59", "+24:00", "+05:60", "+5", " Z", "+10:30"]
        ),
    ),
)
rows = st.builds(
    Row,
    st.none() | odd_text,
    st.none() | st.sampled_from(["+", "-", "-"]) | odd_text,
    st.none() | days_of_all_kinds,
    st.none() | moments,
    st.none() | st.lists(st.none() | dates | days_of_all_kinds, max_size=3).map(tuple),
)
mostly_sound_rows = st.builds(
    Row,
    st.text(min_size=1, max_size=3),
    st.sampled_from([None, "+", "-"]),
    st.none() | dates,
    moments,
    st.none() | st.lists(dates, max_size=3).map(tuple),
)
early = st.dates(date(1653, 2, 12), date(2025, 1, 3)).map(date.isoformat)
removals = st.builds(
    Row,
    st.text(min_size=1, max_size=3),
    st.just("-"),
    st.none() | dates | early,
    st.none() | st.integers(-(10**10) + 1, 1_747_000_000).map(str) | early,
    st.none() | st.lists(dates | early, min_size=1, max_size=3).map(tuple),
)
"""Of any day, also one that can hold nothing."""


def judged_by_sql(rows: list[Row], limits: Limits) -> list[Event | str]:
    """What the SQL makes of these rows."""
    with duckdb.connect(config={"preserve_insertion_order": "true"}) as connection:
        table = {
            name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in ("user_id", "op", "day", "ts")
        }
        table["metadata.days"] = pa.array([row.days for row in rows], pa.list_(pa.string()))
        table["line"], table["file"] = pa.array(range(len(rows))), pa.array([0] * len(rows))
        connection.register("given", pa.table(table))
        relation = connection.sql("SELECT * FROM given")
        types = dict(zip(relation.columns, relation.types, strict=True))
        query = f"SELECT user_id, op, day, listed, second, code FROM ({judged('given', types, limits)}) ORDER BY line"
        answers = connection.sql(query).fetchall()
    return [
        events.REASONS[code - 1]
        if code
        else Event(
            user_id,
            op,
            day_of_second(second, limits.zone) or day if second is not None else day,
            tuple(sorted(set(listed or ()))),
        )
        for user_id, op, day, listed, second, code in answers
    ]


@pytest.mark.also_long
@settings(max_examples=at_length(test=15, ci=60, soak=1_000), deadline=None)
@given(st.lists(rows | mostly_sound_rows | removals, min_size=1, max_size=120), st.sampled_from(ZONES))
def test_the_sql_says_of_every_row_what_the_reference_says(found: list[Row], zone: str) -> None:
    limits = limits_in(zone)
    assert judged_by_sql(found, limits) == [validate(row, limits) for row in found]


def test_the_sql_says_of_every_field_at_its_edges_what_the_reference_says() -> None:
    """Exhaustive over these values, in all combinations."""
    ops = (None, "+", "-", "x", "", "?", "++", " +", "\N{MINUS SIGN}", "\N{FULLWIDTH PLUS SIGN}")
    days = [
        None,
        "2024-02-29",
        "2023-02-29",
        "x",
        *(str(edge + timedelta(days=n)) for edge in (FIRST, LAST) for n in (-1, 0, 1)),
    ]
    listed = (None, (), (str(FIRST),), (str(LAST + timedelta(days=1)), str(FIRST)), ("never",))
    rows = [Row(*fields) for fields in product((None, "", "u"), ops, days, (None, "0", "1704067200", "x"), listed)]
    limits = Limits(FIRST, LAST, ZoneInfo("Asia/Kolkata"))
    expected = [validate(row, limits) for row in rows]
    assert judged_by_sql(rows, limits) == expected
    assert events.BAD_OP in expected and any(isinstance(verdict, Event) for verdict in expected)


def test_a_removal_of_long_ago_is_of_the_day_that_the_zones_clocks_had_then(tmp_path: Path) -> None:
    """The query knows the clock changes of the days that events may have, and a '-' row may name any day."""
    zone = ZoneInfo("America/New_York")  # in January, five hours behind; then in summer, and before there were zones
    midnights = [int(datetime(*day, tzinfo=zone).timestamp()) for day in ((1990, 7, 1), (1870, 1, 1), (2024, 12, 1))]
    objects: Objects = [{"user_id": "a", "op": "-", "ts": midnight + n} for midnight in midnights for n in (-1, 0)]
    accepted, rejected, _, asked = scanned(write(tmp_path, "e.jsonl", json_bytes(objects)), zone="America/New_York")
    assert (accepted, rejected, asked) == (6, [], by_reference(objects, zone="America/New_York")[3])
    assert {event.day for event in asked} >= {date(1990, 6, 30), date(1990, 7, 1), date(1869, 12, 31)}


def test_every_reason_has_its_sql_and_no_other_is_there() -> None:
    assert tuple(BROKEN_RULES) == events.REASONS


@pytest.mark.also_long
@pytest.mark.parametrize("zone", ZONES)
def test_days_follow_the_zones_clock_changes_to_the_second(zone: str) -> None:
    limits = Limits(date(2010, 1, 1), date(2026, 1, 1), ZoneInfo(zone))
    seconds = [
        int(datetime(2010, 1, 2, tzinfo=ZoneInfo(zone)).timestamp()) + 86400 * day + shift
        for day in range(0, 5800, at_length(test=11, ci=3, soak=1))
        for shift in (-3601, -3600, -1801, -1800, -1, 0, 1799, 1800, 3599, 3600)
    ]
    rows = [Row("u", ts=str(second)) for second in seconds]
    assert judged_by_sql(rows, limits) == [validate(row, limits) for row in rows]


def written_in_all_ways(second: int, zone: str) -> list[str]:
    """A moment in all ways in which loggers write it; without seconds it is up to a minute earlier."""
    ways = [str(second), f"{second}.999"]
    for hours in (0, 5.5, -8, 14, -11.25):
        moment = datetime.fromtimestamp(second, timezone(timedelta(hours=hours)))
        ahead = moment.strftime("%z")
        ways.append(moment.strftime("%Y-%m-%dT%H:%M:%S") + ahead)
        ways.append(moment.strftime("%Y-%m-%d %H:%M") + f"{ahead[:3]}:{ahead[3:]}")
        if not moment.minute % 60 and hours == int(hours):
            ways.append(moment.strftime("%Y-%m-%dT%H:%M:%S.25") + ahead[:3])
    utc, local = datetime.fromtimestamp(second, UTC_ZONE), datetime.fromtimestamp(second, ZoneInfo(zone))
    return [*ways, utc.strftime("%Y-%m-%dT%H:%M:%S.0Z"), utc.strftime("%Y-%m-%dT%H:%MZ"), f"{local:%Y-%m-%dT%H:%M}"]


@pytest.mark.parametrize("zone", ZONES)
def test_days_begin_at_the_zones_midnight_however_the_moment_is_written(zone: str) -> None:
    limits = Limits(date(2011, 12, 1), date(2026, 1, 1), ZoneInfo(zone))
    nights = [datetime(year, month, 15, tzinfo=ZoneInfo(zone)) for year in (2024, 2025) for month in range(1, 13)]
    nights += [datetime(2011, 12, day, tzinfo=ZoneInfo(zone)) for day in (29, 30, 31)]
    nights += [datetime(2025, *night, tzinfo=ZoneInfo(zone)) for night in ((3, 9), (3, 30), (4, 6), (10, 5), (10, 26))]
    seconds = [int(night.timestamp()) + shift for night in nights for shift in (-61, -60, -59, -1, 0, 1, 60, 3600)]
    rows = [Row("u", ts=text) for second in seconds for text in written_in_all_ways(second, zone)]
    assert judged_by_sql(rows, limits) == [validate(row, limits) for row in rows]


def test_seconds_before_1970_are_rounded_down_and_there_is_no_year_zero() -> None:
    limits = Limits(date(1969, 12, 1), date(1970, 1, 31), UTC_ZONE)
    texts = [
        "-0",
        "-0.0",
        "-0.5",
        "-0.000001",
        "-1",
        "-86400",
        "-86400.0",
        "-86400.01",
        "-86399.99",
        "0",
        "0.5",
        "86399.9",
    ]
    texts += ["0000-01-01T00:00", "0000-12-31T23:59Z", "0000-06-01", "0001-01-01T00:00Z"]
    rows = [Row("u", ts=text) for text in texts]
    assert judged_by_sql(rows, limits) == [validate(row, limits) for row in rows]
    assert judged_by_sql([Row("u", ts="-0.5")], limits) == [Event("u", "+", date(1969, 12, 31))]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=80), min_size=1), st.binary(min_size=1, max_size=100))
def test_the_sql_hmac_is_pythons_hmac(users: list[str], secret: bytes) -> None:
    with duckdb.connect() as connection:
        connection.register("users", pa.table({"user_id": pa.array(users, pa.string())}))
        keys = connection.sql(f"SELECT {USER_KEY} FROM users", params=list(hmac_blocks(secret))).fetchall()
    assert [key for (key,) in keys] == [user_key(secret, user) for user in users]


json_scalars = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | odd_text
json_fields = {
    "user_id": st.text(min_size=1, max_size=3) | json_scalars,
    "op": st.sampled_from(["+", "-"]) | json_scalars,
    "day": dates | json_scalars | st.just(["2025-02-01"]),
    "ts": st.integers(1_735_000_000, 1_747_000_000) | st.floats(1.73e9, 1.75e9) | moments | json_scalars,
    "metadata": json_scalars
    | st.lists(dates, max_size=1)
    | st.fixed_dictionaries(
        {}, optional={"days": st.lists(dates | json_scalars, max_size=2) | json_scalars, "x": dates}
    ),
    "other": st.recursive(json_scalars, lambda inner: st.lists(inner, max_size=2), max_leaves=3),
}


def without_doubtful(objects: Sequence[object]) -> list[object]:
    """Without removals between two lines that are no objects: the reference, which sees no lines, has no doubts."""
    broken = [place for place, value in enumerate(objects) if not isinstance(value, dict)] or [0]
    between = range(broken[0], broken[-1])
    return [
        value
        for place, value in enumerate(objects)
        if place not in between or not isinstance(value, dict) or value.get("op") != "-"
    ]


@pytest.mark.also_long
@settings(max_examples=at_length(test=10, ci=40, soak=500), deadline=None)
@example(objects=[None, {"user_id": "0", "op": "-"}, None, {"user_id": "1", "op": "-"}], escaped=False)
@example(objects=[0], escaped=False)
@given(st.lists(st.fixed_dictionaries({}, optional=json_fields) | json_scalars, min_size=1, max_size=60), st.booleans())
def test_json_lines_are_read_as_the_reference_reads_objects(
    tmp_path_factory: pytest.TempPathFactory, objects: list[object], escaped: bool
) -> None:
    lines = [json.dumps(value, ensure_ascii=escaped) for value in without_doubtful(objects)]
    path = tmp_path_factory.mktemp("json") / "e.jsonl"
    path.write_bytes("\n".join(lines).encode())
    assert scanned(path) == by_reference(json.loads(line) for line in lines)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"days": None},
        {"days": []},
        {"days": "2025-01-02"},
        {"days": {}},
        {"days": [None]},
        {"days": [5]},
        5,
        "days",
        [],
        ["2025-01-02"],
        {"days": ["2025-01-03", "2025-01-02"]},
        {"Days": []},
        '{"days": ["2025-01-02"]}',
    ],
)
def test_the_metadata_of_a_json_removal_is_read_as_the_reference_reads_it(metadata: object, tmp_path: Path) -> None:
    objects = [plus("a", op="-", metadata=metadata), plus("b", metadata=metadata)]
    assert scanned(write(tmp_path, "e.jsonl", json_bytes(objects))) == by_reference(objects)


# Lines.


def test_bad_json_lines_are_bad_rows_and_blank_ones_are_none(tmp_path: Path) -> None:
    sound = b'{"user_id": "a", "day": "2025-02-01"}'
    bad = [
        b"{",
        b"[" * 100_000,
        b"not json",
        b"null",
        b"[1]",
        b'"text"',
        b"3",
        sound + sound,
        sound + b",",
        b"\xef\xbb\xbf" + sound,
        b'{"user_id": "a", "user_id": "b", "day": "2025-02-01"}',
        b'{"user_id": "\\ud800", "day": "2025-02-01"}',
        b'{"user_id": "\xff", "day": "2025-02-01"}',
        b'{"user_id": "a\x01", "day": "2025-02-01"}',
        sound + b"\0",
        b'{"user_id": "a", "day": "2025-02-01", "op": "-", "metadata": {"days": ["2025-01-02"], "days": []}}',
        b'{"user_id": "' + b"a" * event_files.MAX_LINE_BYTES + b'", "day": "2025-02-01"}',
    ]
    blank = [b"", b"   ", b"\t\r"]
    lines = [sound, *blank, *bad, sound + b"\r", *blank, b" " + sound]
    accepted, rejected, days, _ = scanned(write(tmp_path, "e.jsonl", b"\n".join(lines)))
    assert rejected == [(line, events.UNPARSABLE) for line in range(5, 5 + len(bad))]
    assert accepted == 3
    assert days == {date(2025, 2, 1): [user_key(KEY.secret, "a")]}


def test_a_nul_in_an_id_is_part_of_the_id(tmp_path: Path) -> None:
    _, rejected, days, _ = scanned(write(tmp_path, "e.jsonl", json_bytes([plus("a\0b"), plus("a")])))
    assert not rejected
    assert days[date(2025, 2, 1)] == sorted(user_key(KEY.secret, user) for user in ("a\0b", "a"))


def test_lines_are_numbered_right_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_tables, "_CHUNK_BYTES", 100)
    monkeypatch.setattr(event_tables, "_CHUNK_ROWS", 3)
    objects = [plus(f"user-{n}", op="?" if n % 7 == 0 else "+") for n in range(22)]
    objects[10] = plus("x" * 1000)
    bad = [1, 8, 11, 15, 22]
    monkeypatch.setattr(event_csv, "MAX_LINE_BYTES", 250)
    for module in (event_tables, json_sources, csv_sources):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 250)
    for name in ("e.jsonl", "e.csv", "e.csv.gz", "e.parquet.gz"):
        content = WRITERS[name.removesuffix(".gz")](objects)
        lines = [line for line, _ in scanned(write(tmp_path, name, content))[1]]
        if "parquet" in name or name == "e.jsonl":  # which DuckDB reads however long a line is
            assert lines == [line for line in bad if line != 11]
        else:
            assert lines == [line + ("csv" in name) for line in bad]


def test_a_byte_order_mark_at_the_start_is_passed_over(tmp_path: Path) -> None:
    for name in ("e.jsonl", "e.csv"):
        content = b"\xef\xbb\xbf" + WRITERS[name]([plus("a")])
        assert scanned(write(tmp_path, name, content))[0] == 1


def test_bad_csv_rows_are_found_at_their_lines_despite_quoted_newlines_and_blank_lines(tmp_path: Path) -> None:
    content = (
        b"user_id,day,note\n"  # 1
        b'"two\nlines",2025-02-01,x\n'  # 2, 3
        b"\n"  # 4
        b'"three\n\nlines",never,x\n'  # 5 to 7
        b"too,few\n"  # 8
        b"a,2025-02-01,too,many\n"  # 9
        b'"two\nlines",too,many,fields\n'  # 10, 11
        b"\xff,2025-02-01,x\n"  # 12
        b"a,2025-02-01,\xff\n"  # 13
        b"   \n"  # 14
        + b"a,2025-02-01,"
        + b"x" * 140_000
        + b"\n"  # 15, a field over the limit that the csv module has by itself
        + b"a,2025-02-01,"
        + b"x" * event_files.MAX_LINE_BYTES
        + b"\n"  # 16
        b"b,2025-02-01,\r\n"  # 17
        b"\0,2025-02-01,\n"  # 18
        b"c,2025-02-01,carriage\rreturn\n"  # 19
    )
    accepted, rejected, days, _ = scanned(write(tmp_path, "e.csv", content))
    assert [line for line, _ in rejected] == [5, 8, 9, 10, 11, 12, 13, 16, 19]
    assert {reason for line, reason in rejected if line != 5} == {events.UNPARSABLE}
    assert days == {date(2025, 2, 1): sorted(user_key(KEY.secret, user) for user in ("two\nlines", "a", "b", "\0"))}
    assert accepted == 4


def test_a_csv_row_of_empty_fields_is_a_bad_row(tmp_path: Path) -> None:
    assert scanned(write(tmp_path, "e.csv", b"user_id,day\n,\n"))[1] == [(2, events.NO_USER)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2025-01-02", ["2025-01-02"]),
        ("2025-01-02; 2025-01-03", ["2025-01-02", "2025-01-03"]),
        ('["2025-01-02","2025-01-03"]', ["2025-01-02", "2025-01-03"]),
        ("", None),
        ("[]", []),
        (";", []),
        ("[2025-01-02]", []),
        ('{"days":[]}', []),
    ],
)
def test_listed_days_in_csv_are_separated_by_semicolons_or_a_json_list(
    text: str, wanted: list[str] | None, tmp_path: Path
) -> None:
    quoted = text.replace('"', '""')
    content = f'user_id,op,day,metadata.days\na,-,2025-02-01,"{quoted}"\n'.encode()
    metadata = None if wanted is None else {"days": wanted}
    assert scanned(write(tmp_path, "e.csv", content)) == by_reference(
        [plus("a", op="-", metadata=metadata)], first_line=2
    )


# Types of Parquet columns.


def parquet(folder: Path, name: str = "e.parquet", **columns: pa.Array) -> Path:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return write(folder, name, buffer.getvalue())


NEW_YORK = ZoneInfo("America/New_York")
MOMENT = datetime(2025, 2, 2, 3, 30, tzinfo=ZoneInfo("UTC"))
TS_COLUMNS = {
    "seconds": pa.array([1738467000], pa.int64()),
    "small seconds": pa.array([1738467000], pa.uint32()),
    "fractions": pa.array([1738467000.999]),
    "decimal": pa.array([1738467000], pa.decimal128(20, 3)),
    "zoned": pa.array([MOMENT], pa.timestamp("us", "Europe/Paris")),
    "zoned nanoseconds": pa.array([MOMENT], pa.timestamp("ns", "UTC")),
    "text": pa.array(["2025-02-01T22:30:00-05:00"]),
    "naive": pa.array([MOMENT.astimezone(NEW_YORK).replace(tzinfo=None)], pa.timestamp("ms")),
    "naive nanoseconds": pa.array([MOMENT.astimezone(NEW_YORK).replace(tzinfo=None)], pa.timestamp("ns")),
    "date": pa.array([date(2025, 2, 1)]),
}


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("kind", TS_COLUMNS)
def test_a_moment_may_have_any_type_of_time_or_number(kind: str, packing: str, tmp_path: Path) -> None:
    path = parquet(tmp_path, "e.parquet" + packing, user_id=pa.array(["a"]), ts=TS_COLUMNS[kind])
    days = scanned(path, zone="America/New_York")[2]
    assert days == {date(2025, 2, 1): [user_key(KEY.secret, "a")]}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e10, -1e300])
def test_a_number_far_from_any_time_is_a_bad_row(number: float, tmp_path: Path) -> None:
    path = parquet(tmp_path, user_id=pa.array(["a"]), ts=pa.array([number]))
    assert scanned(path)[1] == [(1, events.BAD_TS)]


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"days": [date(2025, 1, 2)]}]),
        pa.array([{"source": 3, "days": ["2025-01-02"]}]),
        pa.array([{"days": "2025-01-02"}]),
        pa.array(['{"days": ["2025-01-02"]}']),
        pa.array(['{"days": ["2025-01-02"]}']).dictionary_encode(),
    ],
)
def test_metadata_may_be_a_struct_or_json_text(column: pa.Array, packing: str, tmp_path: Path) -> None:
    fields = {"user_id": pa.array(["a"]), "op": pa.array(["-"]), "day": pa.array([date(2025, 2, 1)])}
    wanted = by_reference([plus("a", op="-", metadata={"days": ["2025-01-02"]})])
    assert scanned(parquet(tmp_path, "e.parquet" + packing, **fields, metadata=column)) == wanted


@pytest.mark.parametrize(
    "column", [pa.array(["2025-01-02"]), pa.array([["2025-01-02"]]), pa.array([[date(2025, 1, 2)]])]
)
def test_listed_days_may_be_a_column_of_their_own(column: pa.Array, tmp_path: Path) -> None:
    fields = {"user_id": pa.array(["a"]), "op": pa.array(["-"]), "day": pa.array([date(2025, 2, 1)])}
    wanted = by_reference([plus("a", op="-", metadata={"days": ["2025-01-02"]})])
    assert scanned(parquet(tmp_path, **fields, **{"metadata.days": column})) == wanted


@pytest.mark.parametrize("text", ["nonsense", "[]", '"2025-01-02"', '{"days": 5}', ""])
def test_metadata_that_cannot_be_read_never_widens_a_removal(text: str, tmp_path: Path) -> None:
    fields = {"user_id": pa.array(["a"]), "op": pa.array(["-"]), "day": pa.array([date(2025, 2, 1)])}
    assert scanned(parquet(tmp_path, **fields, metadata=pa.array([text])))[1] == [(1, events.BAD_LIST)]
    numbers = parquet(tmp_path, **fields, metadata=pa.array([5]))
    assert scanned(numbers)[1] == [(1, events.BAD_LIST)]


@pytest.mark.parametrize("empty", [pa.nulls(1), pa.nulls(1, pa.string()), pa.nulls(1, pa.struct([("x", pa.int32())]))])
def test_a_column_of_nulls_is_as_good_as_none(empty: pa.Array, tmp_path: Path) -> None:
    fields = {"user_id": pa.array(["a"]), "op": pa.array(["-"]), "day": pa.array([date(2025, 2, 1)])}
    assert scanned(parquet(tmp_path, **fields, metadata=empty)) == by_reference([plus("a", op="-")])


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("ids", [pa.array([[7]]), pa.array([True]), pa.array([date(2025, 2, 1)])])
def test_ids_of_a_type_that_names_nobody_are_refused_with_the_cast_to_make(
    ids: pa.Array, packing: str, tmp_path: Path
) -> None:
    path = parquet(tmp_path, "e.parquet" + packing, user_id=ids, day=pa.array([date(2025, 2, 1)]))
    with pytest.raises(BadInput, match=r"user_id .*CAST\(user_id AS VARCHAR\)"):
        scanned(path)


def test_a_column_with_a_name_that_duckdb_uses_changes_nothing(tmp_path: Path) -> None:
    fields = {"user_id": pa.array(["a", ""]), "day": pa.array(["2025-02-01"] * 2)}
    taken = {"file_row_number": pa.array([40, 50]), "file_index": pa.array([9, 9]), "filename": pa.array(["x", "y"])}
    assert scanned(parquet(tmp_path, **fields, **taken))[1] == [(2, events.NO_USER)]


def test_a_folder_named_like_a_column_is_no_column_but_the_day_where_a_row_has_none(tmp_path: Path) -> None:
    folder = tmp_path / "user_id=x" / "day=2025-02-03"
    folder.mkdir(parents=True)
    with pytest.raises(BadInput, match="must name user_id and day or ts"):
        scanned(parquet(folder, "1.parquet", note=pa.array(["a"])))
    rows = {"user_id": pa.array(["a", "b"]), "ts": pa.array(["2025-02-05", None])}
    expected = by_reference([plus("a", "2025-02-05"), plus("b", "2025-02-03")])
    assert scanned(parquet(folder, "2.parquet", **rows)) == expected


def test_several_files_of_different_formats_and_schemas_are_one_scan(tmp_path: Path) -> None:
    first = parquet(tmp_path, "[1]*.parquet", user_id=pa.array(["a", ""]), day=pa.array([date(2025, 2, 1)] * 2))
    second = parquet(tmp_path, "it's two.parquet", ts=pa.array([1738400000, None]), user_id=pa.array(["b", "b"]))
    third = parquet(tmp_path, "3.parquet", user_id=pa.array(["c", "a"]), day=pa.array([date(2025, 2, 1)] * 2))
    fourth = write(tmp_path, "4.csv", b"day,user_id\n2025-02-01,d\n,d\n")
    fifth = write(tmp_path, "5.jsonl.gz", json_bytes([plus("a"), plus("e")]))
    with DuckDBEngine().scan(files_at(first, second, third, fourth, fifth), LIMITS) as scan:
        rejected = [(row.file, row.line, row.reason) for row in scan.rejected()]
        [day_set] = scan.user_days(KEY, FIRST, LAST)
        assert scan.accepted == 7
    assert day_set.keys.tolist() == sorted(user_key(KEY.secret, user) for user in "abcde")
    assert rejected == [
        (str(first), 2, events.NO_USER),
        (str(second), 2, events.NO_DAY),
        (str(fourth), 3, events.NO_DAY),
    ]


@pytest.mark.parametrize("name", ["a?.parquet", "a*.parquet", "a[b].parquet"])
def test_a_file_name_is_never_taken_for_a_pattern(name: str, tmp_path: Path) -> None:
    day = pa.array([date(2025, 2, 1)])
    parquet(tmp_path, "ab.parquet", user_id=pa.array(["other"]), day=day)
    seen = scanned(parquet(tmp_path, name, user_id=pa.array(["asked"]), day=day))
    assert seen[2] == {date(2025, 2, 1): [user_key(KEY.secret, "asked")]}


def test_bits_of_one_user_from_many_sources_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_reading, "_COMPACT_ABOVE", 3)
    monkeypatch.setattr(event_tables, "_CHUNK_ROWS", 2)
    objects = [plus(user, f"2025-0{month}-{day:02}") for month in (1, 4) for day in (1, 5, 30) for user in "abca"]
    files = [
        write(tmp_path, name, WRITERS[name](objects[at::3])) for at, name in enumerate(["e.csv", "e.parquet", "e.json"])
    ]
    assert scanned(*files) == by_reference(objects)


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("rows", [3, 700])
def test_a_text_of_parquet_that_is_not_utf_8_is_one_bad_row_and_its_neighbours_are_taken(
    rows: int, packing: str, tmp_path: Path
) -> None:
    """DuckDB refuses the whole file for it."""
    ids = [b"anna", *(b"\xff\xfe" if n % 100 == 1 else f"u{n}".encode() for n in range(1, rows))]
    days = [b"2025-02-01"] * (rows - 1) + [b"2025-02-\xff"]
    bad = {n + 1 for n in range(1, rows) if n % 100 == 1} | {rows}
    odd = parquet(
        tmp_path, f"odd.parquet{packing}", user_id=pa.array(ids).view(pa.string()), day=pa.array(days).view(pa.string())
    )
    sound = parquet(tmp_path, "sound.parquet", user_id=pa.array(["ben"]), day=pa.array(["2025-02-01"]))
    accepted, rejected, days_of, _ = scanned(sound, odd, sound)
    assert rejected == [(line, events.UNPARSABLE) for line in sorted(bad)]
    assert accepted == rows - len(bad) + 2
    kept = {user.decode() for n, user in enumerate(ids, 1) if n not in bad} | {"ben"}
    assert days_of == {date(2025, 2, 1): sorted(user_key(KEY.secret, user) for user in kept)}


def lists(*elements: bytes) -> pa.Array:
    offsets = pa.array(range(len(elements) + 1), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(elements).view(pa.string()))


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_a_text_that_is_not_utf_8_deep_inside_of_parquet_is_one_bad_row_too(packing: str, tmp_path: Path) -> None:
    asked = {"user_id": pa.array(["a", "b", "c"]), "op": pa.array(["-"] * 3), "day": pa.array(["2025-02-01"] * 3)}
    days = lists(b"2025-01-02", b"2025-01-\xff", b"2025-01-03")
    wanted = {
        Event("a", "-", date(2025, 1, 2), (date(2025, 1, 2),)),
        Event("c", "-", date(2025, 1, 3), (date(2025, 1, 3),)),
    }
    for column in ({"metadata.days": days}, {"metadata": pa.StructArray.from_arrays([days], ["days"])}):
        accepted, rejected, _, removals = scanned(parquet(tmp_path, f"e.parquet{packing}", **asked, **column))
        assert (accepted, rejected, removals) == (2, [(2, events.UNPARSABLE)], wanted)
    views = pa.array([b"a", b"\xff", b"c"]).cast(pa.binary_view()).view(pa.string_view())
    accepted, rejected, _, _ = scanned(parquet(tmp_path, f"v.parquet{packing}", **{**asked, "user_id": views}))
    assert (accepted, rejected) == (2, [(2, events.UNPARSABLE)])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, 3], pa.timestamp("ns")),
        pa.array([1, 2, 3], pa.timestamp("ns", "UTC")),
        pa.array([2**40, 2, 3], pa.timestamp("s")),
        pa.array([2_932_897, 0, 0], pa.date32()),
    ],
    ids=str,
)
def test_a_bad_text_beside_moments_that_python_has_no_value_for_is_one_bad_row(
    column: pa.Array, tmp_path: Path
) -> None:
    ids = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    path = parquet(tmp_path, user_id=ids, day=pa.array(["2025-02-01"] * 3), ts=column)
    assert scanned(path)[:2] == (2, [(2, events.UNPARSABLE)])


@pytest.mark.parametrize("kind", [pa.float16(), pa.decimal256(60, 3)], ids=str)
@pytest.mark.parametrize("packing", ["", ".gz"])
def test_a_type_that_nobody_reads_as_a_time_ends_in_bad_input_or_bad_rows(
    kind: pa.DataType, packing: str, tmp_path: Path
) -> None:
    path = parquet(tmp_path, f"e.parquet{packing}", user_id=pa.array(["a"]), ts=pa.nulls(1, kind))
    with suppress(BadInput):
        assert scanned(path)[0] == 0


def test_a_column_that_stands_twice_in_parquet_is_refused(tmp_path: Path) -> None:
    table = pa.table(
        [pa.array(["a"]), pa.array(["+"]), pa.array(["-"]), pa.array(["2025-02-01"])], ["user_id", "op", "op", "day"]
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    with pytest.raises(BadInput, match="the column op more than once"):
        scanned(write(tmp_path, "e.parquet", buffer.getvalue()))


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_a_parquet_file_with_a_column_whose_name_is_no_text_is_refused(packing: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"user_id": ["a"], "day": ["2025-02-01"], "nXte": ["x"]}), buffer, store_schema=False)
    path = write(tmp_path, f"e.parquet{packing}", buffer.getvalue().replace(b"nXte", b"n\xffte"))
    with pytest.raises(BadInput, match="cannot be read as"):
        scanned(path)


def test_names_of_columns_match_without_regard_to_case_in_parquet_too(tmp_path: Path) -> None:
    for packing in ("", ".gz"):
        path = parquet(
            tmp_path, f"e.parquet{packing}", user_id=pa.array(["a"]), day=pa.array(["2025-02-01"]), OP=pa.array(["-"])
        )
        assert scanned(path) == by_reference([plus("a", op="-")])


def test_of_two_names_that_differ_by_case_alone_the_very_one_is_read(tmp_path: Path) -> None:
    day = pa.array(["2025-02-01"])
    for packing in ("", ".gz"):
        rows = {"USER_ID": pa.array(["other"]), "user_id": pa.array(["a"]), "day": day}
        assert scanned(parquet(tmp_path, f"e.parquet{packing}", **rows)) == by_reference([plus("a")])
        rows = {"USER_ID": pa.array(["other"]), "User_Id": pa.array(["a"]), "day": day}
        with pytest.raises(BadInput, match="several that are almost called so"):
            scanned(parquet(tmp_path, f"f.parquet{packing}", **rows))


# Files that cannot be read.


@pytest.mark.parametrize("name", [name for name in ENDINGS if name.endswith(".gz")])
def test_a_truncated_gzip_is_refused_and_nothing_of_it_is_taken(name: str, tmp_path: Path) -> None:
    objects = [plus(os.urandom(8).hex()) for _ in range(2000)]
    path = write(tmp_path, name, WRITERS[name.removesuffix(".gz")](objects))
    for content in (path.read_bytes()[:-9], path.read_bytes()[:100], b"no gzip", path.read_bytes() + b"junk"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="cannot be read as gzip") as raised:
            scanned(path)
        assert str(path) in raised.value.reason


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"user_id,day\n"])
def test_a_corrupt_parquet_is_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("e.parquet", "e.parquet.gz"):
        with pytest.raises(BadInput, match="cannot be read"):
            scanned(write(tmp_path, name, content))


def test_the_corrupt_one_of_many_parquet_files_is_named(tmp_path: Path) -> None:
    ids = pa.array([os.urandom(8).hex() for _ in range(5000)])
    files = [parquet(tmp_path, f"{n}.parquet", user_id=ids, day=pa.array(["2025-02-01"] * 5000)) for n in range(4)]
    content = bytearray(files[2].read_bytes())
    content[4:40] = bytes(36)  # the first page's header
    files[2].write_bytes(content)
    with pytest.raises(BadInput) as raised:
        scanned(*files)
    assert str(files[2]) in raised.value.reason


@pytest.mark.parametrize(
    "content",
    [b"user,day\n", b"user_id,op\n", b"alice,2025-02-01\n", b"user_id:day\n"],
)
def test_a_csv_without_the_header_it_needs_is_refused_and_only_known_names_are_told(
    content: bytes, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="must name user_id and day or ts") as raised:
        scanned(write(tmp_path, "e.csv", content))
    assert "alice" not in str(raised.value)


def test_a_csv_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the column user_id more than once"):
        scanned(write(tmp_path, "e.csv", b"user_id,user_id,day\n"))


def test_a_part_of_no_bytes_is_empty_in_every_format(tmp_path: Path) -> None:
    empty = [tmp_path / name for name in ENDINGS]
    for path in empty:
        path.touch()
    assert scanned(*empty, write(tmp_path, "f.csv", b"user_id,day\na,2025-02-01\n"))[0] == 1


def test_files_without_rows_are_no_error(tmp_path: Path) -> None:
    empty = [write(tmp_path, name, WRITERS[name.removesuffix(".gz")]([])) for name in ENDINGS]
    assert scanned(*empty) == (0, [], {}, set())
    assert scanned() == (0, [], {}, set())


def test_more_people_than_memory_holds_are_read_in_parts(tmp_path: Path) -> None:
    days = pa.array([date(2025, 2, 1 + n % 3) for n in range(300_000)])
    ids = pa.array([f"user-{n // 2:010}" for n in range(300_000)])
    path = parquet(tmp_path, user_id=ids, day=days)
    with DuckDBEngine("24MB", threads=1).scan([event_file(path)], LIMITS) as scan:
        assert len(list(scan.parts())) > 1
        in_parts = found_by(scan)
    assert in_parts == scanned(path)


# No trace.

PLANTED = "planted-person-7e57"


@pytest.mark.slow
def test_nothing_is_spilled_to_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the little memory that makes DuckDB spill wherever it may: see what it writes, and whom it names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    source = Path(tmp_path / "in")
    source.mkdir()
    ids = pa.array([f"{PLANTED}-{n:08}" for n in range(400_000)])
    path = parquet(source, user_id=ids, day=pa.array([date(2025, 2, 1)] * len(ids)))
    for limit in ("60MB", "90MB", "2GB"):
        try:
            scanned(path, memory_limit=limit)
        except BadInput as error:
            assert PLANTED not in str(error)
    assert [spilled for spilled in tmp_path.rglob("*") if spilled not in (source, path)] == []


PLANTED_IDS = f"CREATE TABLE t AS SELECT '{PLANTED}-' || lpad(i::VARCHAR, 9, '0') AS u FROM range(4000000) r(i)"


@pytest.mark.slow
def test_duckdb_would_spill_raw_ids_if_it_had_a_folder(tmp_path: Path) -> None:
    """The reason why it has none, and the proof that one would be noticed."""
    with DuckDBEngine().scan(files_at(), LIMITS) as scan:
        assert scan._connection.execute("SELECT current_setting('temp_directory')").fetchall() == [("",)]
    with duckdb.connect(config={"memory_limit": "60MB", "temp_directory": str(tmp_path)}) as connection:
        connection.execute(PLANTED_IDS)
        assert any(PLANTED.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.slow
def test_duckdb_alone_cannot_encrypt_what_it_spills(tmp_path: Path) -> None:
    """Should this fail one day, spilling may be allowed: see what is in the files then."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": "60MB",
        "temp_directory": str(tmp_path),
        "temp_file_encryption": True,
        "autoload_known_extensions": False,
    }
    with pytest.raises(duckdb.Error, match="crypto"), duckdb.connect(config=config) as connection:
        connection.execute(PLANTED_IDS)


def test_no_error_quotes_a_row(tmp_path: Path) -> None:
    ids = pa.array([b"fine", PLANTED.encode() + b"\xff"]).view(pa.string())
    bad = [
        parquet(tmp_path, "1.parquet", user_id=ids, moment=pa.array(["2025-02-01"] * 2)),
        parquet(tmp_path, "2.parquet.gz", user_id=ids, moment=pa.array(["2025-02-01"] * 2)),
        parquet(tmp_path, "3.parquet", user_id=pa.array([[PLANTED]]), day=pa.array(["2025-02-01"])),
        parquet(tmp_path, "4.parquet.gz", user_id=pa.array([PLANTED]).dictionary_encode(), day=pa.array([True])),
        write(tmp_path, "5.csv", f"{PLANTED},2025-02-01\n".encode()),
        write(tmp_path, "6.csv", f'"{PLANTED}'.encode()),
    ]
    cut = gzip.compress(json_bytes([plus(f"{PLANTED}-{n}") for n in range(1000)]))
    bad.append(tmp_path / "7.jsonl.gz")
    bad[-1].write_bytes(cut[:-20])
    for path in bad:
        with pytest.raises(BadInput) as raised:
            scanned(path)
        shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value.fields)
        assert PLANTED not in shown, path.name


def test_the_epoch_key_never_stands_in_a_query(tmp_path: Path) -> None:
    path = write(tmp_path, "e.csv", csv_bytes(MIXED))
    with DuckDBEngine().scan(files_at(path), LIMITS) as scan:
        scan._connection.execute("CALL enable_logging('QueryLog')")
        found_by(scan)
        log = str(scan._connection.execute("SELECT message FROM duckdb_logs").fetchall())
    assert "sha256" in log
    for block in (KEY.secret, *hmac_blocks(KEY.secret)):
        assert block.hex() not in log.lower() and repr(block)[2:-1] not in log and "\\x5C\\x5D" not in log


def test_each_distinct_user_is_hashed_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []

    def counted_sha256(data: bytes) -> str:
        hashed.append(data)
        return hashlib.sha256(data).hexdigest()

    monkeypatch.setattr(engine_duckdb, "USER_KEY", USER_KEY.replace("sha256(", "counted_sha256("))
    days = [(FIRST + timedelta(days=n)).isoformat() for n in range(0, 119, 3)]
    files = [
        write(tmp_path, name, WRITERS[name]([plus(user, day) for day in days for user in users]))
        for name, users in (("e.parquet", "abcdef"), ("e.csv", "efg"))
    ]
    files.append(write(tmp_path, "last.json", json_bytes([plus("h", LAST.isoformat())])))
    with DuckDBEngine().scan(files_at(*files), LIMITS) as scan:
        scan._connection.create_function("counted_sha256", counted_sha256, ["BLOB"], "VARCHAR")
        for epoch in (1, 2):
            for until, users in ((LAST, 8), (FIRST + timedelta(days=30), 7)):
                hashed.clear()
                day_sets = list(scan.user_days(EpochKey(epoch, bytes([epoch]) * 32), FIRST, until))
                assert {len(day.keys) for day in day_sets if day.day < LAST} == {7}
                assert len(hashed) == 2 * users, "an HMAC is two SHA-256, and only those who were there are hashed"


def test_two_users_with_one_key_are_one_key() -> None:
    """No pair of ids with equal keys is known, so the keys are given here."""
    users = SortedUsers(np.array([2, 0, 1]), np.array([9, 5, 9], dtype=np.uint64))
    masks = users.in_order(np.array([0, 1, 2]), np.array([1, 3, 3], dtype=np.uint64))
    assert users.with_bit(masks, 0).tolist() == [5, 9]
    assert users.with_bit(masks, 1).tolist() == [9]
    assert users.with_bit(masks, 2).tolist() == []


def test_only_the_asked_days_are_given(tmp_path: Path) -> None:
    objects = [plus(f"{day}", (FIRST + timedelta(days=day)).isoformat()) for day in range(120)]
    path = write(tmp_path, "e.csv", csv_bytes(objects))
    with DuckDBEngine().scan(files_at(path), LIMITS) as scan:
        for start, end in ((0, 0), (62, 65), (63, 63), (64, 64), (100, 119), (-40, 1), (119, 500)):
            first, last = FIRST + timedelta(days=start), FIRST + timedelta(days=end)
            days = [day_set.day for day_set in scan.user_days(KEY, first, last)]
            assert days == [day for day in scan.days() if first <= day <= last]
        assert list(scan.user_days(KEY, LAST + timedelta(days=300), LAST + timedelta(days=400))) == []


def test_answers_may_be_read_while_others_are_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "e.csv", csv_bytes(MIXED))
    with DuckDBEngine().scan(files_at(path), LIMITS) as scan:
        pairs = list(zip(scan.rejected(), scan.user_days(KEY, FIRST, LAST), scan.removals(), strict=False))
    assert len(pairs) == 3


def test_a_zone_that_is_not_utc_holds_for_every_format(tmp_path: Path) -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    objects: Objects = [
        {"user_id": f"{hour}", "ts": datetime(2025, 2, 1, hour, 29, 59, tzinfo=india).isoformat()} for hour in range(24)
    ]
    wanted = by_reference(objects, zone="America/New_York")
    assert len(wanted[2]) == 2
    for name, writer in WRITERS.items():
        assert scanned(write(tmp_path, name, writer(objects)), zone="America/New_York") == (
            wanted if name != "e.csv" else by_reference(objects, "America/New_York", 2)
        )


def test_a_second_byte_order_mark_is_part_of_a_row_that_cannot_be_parsed(tmp_path: Path) -> None:
    rows = b'{"user_id": "a", "day": "2025-02-01"}\n{"user_id": "b", "day": "2025-02-01"}\n'
    for marks, bad in ((1, []), (2, [(1, events.UNPARSABLE)])):
        path = write(tmp_path, "e.jsonl", b"\xef\xbb\xbf" * marks + rows)
        assert scanned(path)[:2] == (2 - len(bad), bad)
