"""What the adapters around erasures share: rows of requests and their changes of state, inside a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from dpdau_assets.core.facts import ErasureState
from resources.ledger_sql import schema
from resources.ledger_sql.chain import append
from resources.ledger_sql.keyring import Keyring
from resources.ledger_sql.rows import in_pieces


def change_state(
    connection: Connection,
    keyring: Keyring,
    ids: Sequence[int],
    state: ErasureState,
    effective_from: int | None = None,
) -> None:
    """Append the change, and note the state that each request has by now."""
    table = schema.erasures
    changes = [{"erasure": one, "state": state, "effective_from": effective_from} for one in ids]
    append(connection, keyring, schema.erasure_states, changes)
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
