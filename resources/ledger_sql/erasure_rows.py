"""What the adapters around erasures share: rows of requests and their changes of state, inside a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, exists, func, select, update

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
    effective_from: Mapping[int, int] | None = None,
) -> None:
    """Append the change, and note the state that each request has by now."""
    table, effective = schema.erasures, effective_from or {}
    changes = [{"erasure": erasure, "state": state, "effective_from": effective.get(erasure)} for erasure in ids]
    append(connection, keyring, schema.erasure_states, changes)
    for some in in_pieces(ids):
        connection.execute(update(table).where(table.c.id.in_(some)).values(state=state))


def rows_of(connection: Connection, names: Sequence[str]) -> Iterator[Row[Any]]:
    """The requests of these receipts and batches."""
    table = schema.erasures
    for some in in_pieces(names):
        yield from connection.execute(select(table).where(table.c.receipt.in_(some) | table.c.batch.in_(some)))


def ids_of(connection: Connection, receipts: Sequence[str], states: Sequence[str]) -> list[int]:
    """The ids of these requests that are in one of these states, in order."""
    return sorted({row.id for row in rows_of(connection, receipts) if row.state in states})


def without_tombstones(connection: Connection) -> list[str]:
    """The receipts of requests that have a reference, and no tombstone by now."""
    e, t, r = schema.erasures.c, schema.tombstones.c, schema.erasure_references.c
    query = select(e.receipt).join(schema.erasure_references, r.subject == e.receipt)
    return list(connection.scalars(query.where(~exists().where(t.erasure == e.id)).order_by(e.id)))


def progress(connection: Connection, name: str) -> int:
    """The watermark that `begun` or `applied` has come to."""
    table = schema.erasure_progress
    return connection.scalar(select(func.max(table.c.watermark)).where(table.c.name == name)) or 0


def set_progress(connection: Connection, keyring: Keyring, name: str, watermark: int) -> None:
    """Append it, unless it has come so far already."""
    if watermark > progress(connection, name):
        append(connection, keyring, schema.erasure_progress, [{"name": name, "watermark": watermark}])
