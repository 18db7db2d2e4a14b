"""Rows that are only ever added, under one chain of keyed hashes: whoever changes one cannot mend what follows.

The rows that are appended to a table together make one entry. Its hash is an HMAC, under a key that HASH_SALT_SECRET
opens, of the entry before it and of every column of these rows; so it takes the secret to make another chain.
"""

from __future__ import annotations

import hmac
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, func, insert, select

from resources.ledger_sql import schema
from resources.ledger_sql.keyring import LEDGER, Keyring, derive, in_this_transaction

_HEAD = "head of the chain"
_entries = schema.entries


def append(connection: Connection, keyring: Keyring, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Add the rows, whose ids follow those that are there, and one entry for them."""
    if rows:
        _enter(connection, keyring, table, _inserted(connection, table, rows))


def _inserted(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> Sequence[Row[Any]]:
    """The rows as they are read back."""
    if len(rows) == 1:
        # Not by RETURNING: of a whole float SQLite returns an integer there, and a float whenever it is read later.
        key = connection.execute(insert(table), rows[0]).inserted_primary_key
        row_id = key[0] if key else None
        return connection.execute(_rows(table).where(table.c.id == row_id)).all()
    last = connection.scalar(select(func.max(table.c.id))) or 0
    connection.execute(insert(table), list(rows))
    return connection.execute(_rows(table).where(table.c.id > last)).all()


def adopt(connection: Connection, keyring: Keyring, table: Table) -> None:
    """One entry for rows that no entry speaks of yet. For migrations only: it vouches for whatever is there."""
    spoken_of = connection.scalar(select(func.max(_entries.c.last_row)).where(_entries.c.kind == table.name)) or 0
    row = connection.execute(_rows(table).where(table.c.id > spoken_of)).all()
    if row:
        _enter(connection, keyring, table, row)


def _enter(connection: Connection, keyring: Keyring, table: Table, added: Sequence[Row[Any]]) -> None:
    entry = {"kind": table.name, "first_row": added[0].id, "last_row": added[-1].id}
    known = in_this_transaction(connection)
    before = known[_HEAD] if _HEAD in known else head(connection)
    known[_HEAD] = _hash(_key(connection, keyring), before, table.name, added)
    connection.execute(insert(_entries), {**entry, "hash": known[_HEAD]})


def head(connection: Connection) -> str:
    """The hash of the last entry, "" for an empty chain."""
    return connection.scalar(select(_entries.c.hash).order_by(_entries.c.id.desc()).limit(1)) or ""


def problems(connection: Connection, keyring: Keyring) -> Iterator[str]:
    """A sentence for each entry that does not hold, and for rows that no entry speaks of."""
    entries = connection.execute(select(_entries).order_by(_entries.c.id)).all()
    if not entries:
        yield from (f"{name} has rows that were never appended." for name in _not_empty(connection))
        return
    key = _key(connection, keyring)
    unspoken_of = {name: deque(connection.execute(_rows(table))) for name, table in schema.APPENDED.items()}
    before = ""
    for entry in entries:
        if entry.kind not in unspoken_of:
            yield f"Entry {entry.id} speaks of {entry.kind!r}, which is no table of the chain."
            continue
        covered = _taken(entry, unspoken_of[entry.kind])
        if not _is_as_appended(entry, covered, before, key):
            yield (
                f"Entry {entry.id} does not hold: {entry.kind} {entry.first_row} to {entry.last_row}, the entry itself "
                "or the one before it is not what was appended."
            )
        before = entry.hash
    for name, left in unspoken_of.items():
        if left:
            yield f"{name} has {len(left)} row(s) that no entry speaks of."


def _taken(entry: Row[Any], rows: deque[Row[Any]]) -> list[Row[Any]]:
    """Take off the rows that the entry speaks of, as far as they are the next ones in the table."""
    length = 1 + max(0, entry.last_row - entry.first_row)
    taken: list[Row[Any]] = []
    while rows and len(taken) < length and rows[0].id <= entry.last_row:
        taken.append(rows.popleft())
    return taken


def _is_as_appended(entry: Row[Any], covered: Sequence[Row[Any]], before: str, key: bytes) -> bool:
    bounds = (covered[0].id, covered[-1].id) if covered else None
    hashed = _hash(key, before, entry.kind, covered)
    return bounds == (entry.first_row, entry.last_row) and hmac.compare_digest(hashed, entry.hash)


def holds(connection: Connection, known_head: str) -> bool:
    """Whether this hash, noted down earlier, is one of the chain's."""
    return connection.scalar(select(func.count()).where(_entries.c.hash == known_head)) == 1


def _rows(table: Table) -> Select[Any]:
    chained = [column for column in table.columns if column.info.get("chained", True)]
    return select(*chained).order_by(table.c.id)


def _not_empty(connection: Connection) -> list[str]:
    return [name for name, table in schema.APPENDED.items() if connection.execute(select(table.c.id).limit(1)).first()]


def _key(connection: Connection, keyring: Keyring) -> bytes:
    return derive(keyring.key(connection, LEDGER), "chain")


def _hash(key: bytes, before: str, kind: str, rows: Iterable[Row[Any]]) -> str:
    said = json.dumps([before, kind, [list(row) for row in rows]])
    return hmac.digest(key, said.encode(), "sha256").hex()
