"""Events by a query: what files with these rows give, from one snapshot, read-only, in words that quote no row."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dpdau_assets.core.errors import BadInput, BadSetting
from dpdau_assets.core.event_shape import PLAIN, EventShape, Field
from dpdau_assets.core.events import Limits
from dpdau_assets.core.facts import EpochKey
from dpdau_tests.support.warehouses import KINDS, Kind, Row, Warehouse, warehouse
from resources.databases.addresses import address_written, opened_snapshot
from resources.databases.snapshots import Query
from resources.reading import engine_duckdb
from resources.reading.engine_duckdb import DuckDBEngine, DuckDBScan
from resources.reading.event_files import event_files
from resources.reading.event_query import EventQuery, opened_query
from resources.reading.event_reading import Part, Reading

FIRST, LAST = date(2025, 1, 1), date(2025, 4, 30)
LIMITS = Limits(FIRST, LAST, ZoneInfo("America/New_York"))
KEY = EpochKey(224, bytes(range(32)))
ALL = "SELECT user_id, op, day, ts, metadata FROM events ORDER BY user_id, ts"
ROWS: list[Row] = [
    ("ann", 101, "+", "2025-02-01", None, None),
    ("ann", 101, None, None, "2025-02-03T03:30:00Z", None),
    ("zoë", 7, "+", None, "2025-02-03T23:59:59Z", None),
    ("", 8, "+", "2025-02-01", None, None),
    (None, 9, "+", "2025-02-01", None, None),
    ("early", 9, "+", "1999-02-01", None, None),
    ("odd", 9, "*", "2025-02-01", None, None),
    ("gone", 5, "-", "2025-02-02", None, None),
    ("asked", 6, "-", None, None, '{"days": ["2025-02-01", "2025-02-03"]}'),
]


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Warehouse]:
    with warehouse(request.param, tmp_path) as made:
        made.insert(ROWS)
        yield made


def of(kind: Kind, tmp_path: Path) -> Iterator[Warehouse]:
    with warehouse(kind, tmp_path) as made:
        made.insert(ROWS)
        yield made


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[Warehouse]:
    yield from of("postgresql", tmp_path)


def asking(database: Warehouse, sql: str = ALL, seconds: int = 60):
    return opened_query(address_written(database.url), Query(sql, f"q.sql at {database.kind}", seconds))


def found(file: object, shape: EventShape = PLAIN) -> tuple[object, ...]:
    """All that a scan says, but for the lines: a query has no order of its own."""
    with DuckDBEngine("2GB").scan([file], LIMITS, shape=shape) as scan:  # type: ignore[list-item]
        return told(scan)


def told(scan: DuckDBScan) -> tuple[object, ...]:
    keys: dict[date, list[int]] = defaultdict(list)
    for part in scan.parts():
        for day_set in part.user_days(KEY, FIRST, LAST):
            keys[day_set.day] += day_set.keys.tolist()
    removals = sorted(map(str, scan.removals()))
    return scan.accepted, scan.rejections().by_reason(), removals, {day: sorted(of) for day, of in keys.items()}


def as_file(folder: Path, rows: list[Row]) -> Path:
    names = ("user_id", "number", "op", "day", "ts", "metadata")
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    lines = [{**value, "metadata": json.loads(value["metadata"] or "null")} for value in objects]  # type: ignore[arg-type]
    path = folder / "e.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_rows_of_a_query_are_what_a_file_with_these_rows_is(database: Warehouse, tmp_path: Path) -> None:
    [file] = event_files(as_file(tmp_path, ROWS))
    wanted = found(file)
    assert wanted[0] == 5 and len(wanted[2]) == 2  # type: ignore[arg-type]
    with asking(database) as query:
        assert found(query) == wanted


def test_a_number_in_a_typed_column_is_the_person_of_its_digits(database: Warehouse, tmp_path: Path) -> None:
    shape = EventShape({**PLAIN.fields, "user_id": Field((("number",),))})
    [file] = event_files(as_file(tmp_path, ROWS[:3]))
    wanted = found(file, shape)
    with asking(database, "SELECT number, day, ts FROM events WHERE user_id IN ('ann', 'zoë')") as query:
        assert found(query, shape) == wanted
    assert wanted[0] == 3


def in_three_parts(monkeypatch: pytest.MonkeyPatch, between: Callable[[], None]) -> None:
    def read(reading: Reading, _: str) -> int:
        reading.read(Part(0, 3))
        between()
        return 3

    monkeypatch.setattr(engine_duckdb, "_read", read)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_that_come_between_two_passes_are_in_neither(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [file] = event_files(as_file(tmp_path, ROWS))
    wanted = found(file)
    for database in of(kind, tmp_path):
        in_three_parts(monkeypatch, partial(database.insert, [("late", 1, "+", "2025-02-01", None, None)] * 20))
        with asking(database) as query:
            assert found(query) == wanted
        assert database.count() == len(ROWS) + 20


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events",
        "DELETE FROM events RETURNING user_id, ts",
        "INSERT INTO events (user_id) VALUES ('x')",
        "DROP TABLE events",
        "CREATE TABLE other AS SELECT * FROM events",
        "COMMIT",
        "SELECT user_id, ts FROM events; DELETE FROM events",
    ],
)
def test_a_query_that_writes_is_refused_and_changes_nothing(database: Warehouse, statement: str) -> None:
    with asking(database, statement) as query, pytest.raises(BadInput, match=r"gives no rows|would write|is refused"):
        found(query)
    assert database.count() == len(ROWS)


def test_the_session_stays_read_only_when_a_query_ends_its_transaction(postgresql: Warehouse) -> None:
    address = address_written(postgresql.url)
    with opened_snapshot(address, Query("COMMIT", "q", 60)) as snapshot:
        with pytest.raises(BadInput):
            list(snapshot.batches())
        snapshot._query = Query("INSERT INTO events (user_id) VALUES ('x') RETURNING user_id", "q", 60)  # type: ignore[attr-defined]
        with pytest.raises(BadInput, match="would write"):
            list(snapshot.batches())
    assert postgresql.count() == len(ROWS)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT nobody_there FROM events", "is refused: .*nobody_there"),
        ("SELECT user_id FROM no_table", "is refused: .*no_table"),
        ("SELECT user_id, ts FROM events WHERE", "is refused"),
        ("SELECT user_id FROM events", "day or ts"),
        ("SELECT user_id, user_id, ts FROM events", "column user_id more than once"),
    ],
)
def test_a_query_that_cannot_be_read_is_refused_with_its_own_words(database: Warehouse, sql: str, said: str) -> None:
    with asking(database, sql) as query, pytest.raises(BadInput, match=said) as refused:
        found(query)
    assert "ann" not in f"{refused.value.reason} {refused.value.remedy}"


def test_what_fails_on_a_row_is_told_without_the_row(postgresql: Warehouse) -> None:
    sql = "SELECT user_id, CAST(user_id AS int) AS ts FROM events"
    with asking(postgresql, sql) as query, pytest.raises(BadInput, match="failed") as refused:
        found(query)
    said = f"{refused.value.reason} {refused.value.remedy}"
    assert not [row[0] for row in ROWS if row[0] and row[0] in said]


def test_a_query_that_takes_too_long_is_stopped(database: Warehouse) -> None:
    endless = {
        "duckdb": "SELECT 'x' AS user_id, max(a.i * b.i) AS ts FROM range(10000000) a(i), range(10000000) b(i)",
        "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'x' AS user_id, max(i) AS ts "
        "FROM n",
        "postgresql": "SELECT user_id, ts, pg_sleep(3600) FROM events",
    }[database.kind]
    with asking(database, endless, seconds=1) as query, pytest.raises(BadInput, match="longer than 1 seconds"):
        found(query)


def test_a_connection_that_is_lost_in_between_takes_nothing(postgresql: Warehouse) -> None:
    name = f"lost-{os.getpid()}"
    url = f"{postgresql.url}&application_name={name}"
    sql = "SELECT user_id, ts FROM events, generate_series(1, 3000000)"
    with opened_snapshot(address_written(url), Query(sql, "q", 60)) as snapshot, closing(snapshot.batches()) as batches:
        next(batches)
        postgresql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'")
        with pytest.raises(BadInput, match="connection to the database was lost"):
            list(batches)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://reader:pass-7e57@127.0.0.1/warehouse",
        "postgresql://reader@127.0.0.1/warehouse?password=pass-7e57",
        "snowflake://account/db?private_key=pass-7e57",
    ],
)
def test_a_password_in_an_argument_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(BadSetting, match="holds a password") as refused:
        address_written(url)
    assert "7e57" not in f"{refused.value.reason} {refused.value.remedy}"


def test_a_url_in_a_variable_may_hold_a_password_and_nothing_says_it(
    postgresql: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE", "postgresql://nobody_there:pass-7e57@127.0.0.1:5432/postgres")
    address = address_written("env:WAREHOUSE")
    assert "7e57" not in f"{address} {address!r}"
    with pytest.raises((BadInput, BadSetting)) as refused, opened_snapshot(address, Query(ALL, "q", 60)):
        pass
    said = f"{refused.value.reason} {refused.value.remedy}"
    assert "env:WAREHOUSE" in said and "7e57" not in said and "nobody_there" not in said
    monkeypatch.setenv("WAREHOUSE", postgresql.url)
    with opened_query(address_written("env:WAREHOUSE"), Query(ALL, "q", 60)) as query:
        assert isinstance(query, EventQuery) and found(query)[0] == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("env:NOT_SET_7E57", "NOT_SET_7E57 is not set"),
        ("nosuch://host/db", "needs a driver that is not installed"),
        ("os.path://host/db", "needs a driver that is not installed"),
        ("nowhere.duckdb", "cannot be opened"),
        ("postgresql://postgres@127.0.0.1:1/x", "does not answer"),
    ],
)
def test_a_database_that_cannot_be_asked_is_told(text: str, said: str) -> None:
    with pytest.raises((BadInput, BadSetting), match=said), opened_snapshot(address_written(text), Query(ALL, "q", 5)):
        pass


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id,day\n")
    with pytest.raises(BadInput, match="neither a DuckDB nor an SQLite file"):
        address_written(str(tmp_path / "e.csv"))
