"""What the adapters around erasures share: rows of requests and their changes of state, inside a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Table, delete, insert, select, update

from dpdau_assets.core.facts import ErasureState
from resources.ledger_sql import schema

_AT_ONCE = 5_000  # far below the number of values that one SQLite statement takes

_Value = TypeVar("_Value")


def change_state(connection: Connection, ids: Sequence[int], state: ErasureState) -> None:
    """Append the change, and note the state that each request has by now."""
    table = schema.erasures
    insert_rows(connection, schema.erasure_states, [{"erasure": one, "state": state} for one in ids])
    for some in in_pieces(ids):
        connection.execute(update(table).where(table.c.id.in_(some)).values(state=state))


def rows_of(connection: Connection, names: Sequence[str]) -> Iterator[Row[Any]]:
    """The requests of these receipts and batches."""
    table = schema.erasures
    for some in in_pieces(names):
        yield from connection.execute(select(table).where(table.c.receipt.in_(some) | table.c.batch.in_(some)))


def ids_of(connection: Connection, receipts: Sequence[str], states: Sequence[str]) -> list[int]:
    return sorted({row.id for row in rows_of(connection, receipts) if row.state in states})


def progress(connection: Connection, name: str) -> int:
    table = schema.erasure_progress
    return connection.scalar(select(table.c.watermark).where(table.c.name == name)) or 0


def set_progress(connection: Connection, name: str, watermark: int) -> None:
    table = schema.erasure_progress
    connection.execute(delete(table).where(table.c.name == name))
    connection.execute(insert(table).values(name=name, watermark=watermark))


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    if rows:
        connection.execute(insert(table), list(rows))


def in_pieces(values: Sequence[_Value]) -> Iterator[list[_Value]]:
    """The values, not too many at a time for one statement."""
    for at in range(0, len(values), _AT_ONCE):
        yield list(values[at : at + _AT_ONCE])
