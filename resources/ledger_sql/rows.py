"""Inserting and asking for many rows at once, alike on every database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, Table, insert
from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

_AT_ONCE = 5_000  # far below the number of values that one statement takes

_Value = TypeVar("_Value")


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows in one statement, if there are any."""
    if rows:
        connection.execute(insert(table), list(rows))


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, leaving out those whose primary key or unique columns are there."""
    if rows:
        connection.execute(_upsert(connection, table).on_conflict_do_nothing(), list(rows))


def _upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # a tenth of a second that a ledger in a file need not spend

    return postgresql.insert(table)


def in_pieces(values: Sequence[_Value], at_once: int = _AT_ONCE) -> Iterator[list[_Value]]:
    """The values, not too many at a time for one statement."""
    for at in range(0, len(values), at_once):
        yield list(values[at : at + at_once])
