"""Databases of every kind that events are read from, with one table of rows, for one test."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import duckdb
from sqlalchemy import create_engine, make_url, text

from dpdau_tests.support.postgres import schema_url

Kind = Literal["duckdb", "sqlite", "postgresql"]
KINDS: Sequence[Kind] = get_args(Kind)
_TYPES = {
    "duckdb": "user_id VARCHAR, number BIGINT, op VARCHAR, day DATE, ts TIMESTAMPTZ, metadata VARCHAR",
    "sqlite": "user_id, number, op, day, ts, metadata",
    "postgresql": "user_id text, number numeric(12, 2), op text, day date, ts timestamptz, metadata jsonb",
}
Row = tuple[str | None, int | None, str | None, str | None, str | None, str | None]
"""user_id, number, op, day, ts (ISO 8601, UTC), metadata (JSON)."""


@dataclass(frozen=True)
class Warehouse:
    """A database with a table `events`; `url` is what --from names, and holds no password."""

    kind: Kind
    url: str

    def insert(self, rows: Sequence[Row]) -> None:
        """Append rows, from a connection of its own."""
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.url)) as connection, connection:
                connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
        elif self.kind == "duckdb":
            with duckdb.connect(self.url) as connection:
                connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", [_timed(row) for row in rows])
        else:
            names = ("user_id", "number", "op", "day", "ts", "metadata")
            values = [dict(zip(names, _timed(row), strict=True)) for row in rows]
            self.execute(
                "INSERT INTO events VALUES (:user_id, :number, :op, CAST(:day AS date), :ts, CAST(:metadata AS jsonb))",
                values,
            )

    def count(self) -> int:
        """How many rows there are."""
        query = "SELECT count(*) FROM events"
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.url)) as connection:
                return connection.execute(query).fetchone()[0]
        if self.kind == "duckdb":
            with duckdb.connect(self.url, read_only=True) as connection:
                return connection.execute(query).fetchall()[0][0]
        return self.execute(query)[0][0]

    def execute(self, statement: str, values: Sequence[dict[str, Any]] | None = None) -> list[Any]:
        """Run a statement on the PostgreSQL server, and return its rows."""
        engine = create_engine(make_url(self.url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                result = connection.execute(text(statement), values)
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()


@contextmanager
def warehouse(kind: Kind, folder: Path) -> Iterator[Warehouse]:
    """A database without rows. Skips where PostgreSQL does not answer; fails instead in CI."""
    create = f"CREATE TABLE events ({_TYPES[kind]})"
    if kind == "postgresql":
        with schema_url() as url:
            made = Warehouse(kind, url)
            made.execute(create)
            yield made
        return
    path = folder / f"warehouse.{kind}"
    if kind == "sqlite":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = wal")
            connection.execute(create)
            connection.commit()
    else:
        with duckdb.connect(path) as connection:
            connection.execute(create).fetchall()
    yield Warehouse(kind, str(path))


def _timed(row: Row) -> tuple[object, ...]:
    """The row with its time as a typed column takes it."""
    user_id, number, op, day, ts, metadata = row
    moment = None if ts is None else datetime.fromisoformat(ts.replace("Z", "+00:00")).astimezone(UTC)
    return user_id, number, op, day, moment, metadata
