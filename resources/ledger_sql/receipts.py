"""The port ReceiptChain: receipts in the order in which they were written, and the partitions the last ones speak of.

What an earlier receipt said goes when a later one of the same request is written, and an inspection when the next one
is or removals are applied: put beside what is there now, either would say which days an erasure has changed.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import Inspected, ReceiptRow
from resources.ledger_sql import schema
from resources.ledger_sql.chain import append
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasure_rows import change_state, ids_of
from resources.ledger_sql.keyring import RECEIPTS, Keyring
from resources.ledger_sql.rows import in_pieces, insert_new


class SqlReceipts:
    """The list of partitions is kept once for all receipts that were written together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, rows: Sequence[ReceiptRow], follows: str, verified: Sequence[str]) -> None:
        with self._database.write() as connection:
            if _last_hash(connection) != follows:
                raise Refused("Another process has written receipts meanwhile.", "Ask again.")
            for inspected in {row.inspected for row in rows if row.inspected}:
                _keep(connection, inspected)
            written = [
                {
                    "receipt": row.receipt,
                    "body": row.body,
                    "hash": row.hash,
                    "signature": row.signature,
                    "inspection": row.inspection,
                }
                for row in rows
            ]
            _forget_bodies(connection, [row.receipt for row in rows])
            append(connection, self._database.keyring, schema.receipts, written)
            done = ids_of(connection, verified, ("applied",))
            change_state(connection, self._database.keyring, done, "verified")
        if rows:
            self._database.overwrite_deleted(schema.inspections, schema.receipts)

    def last_hash(self) -> str:
        with self._database.read() as connection:
            return _last_hash(connection)

    def last(self, receipt: str) -> ReceiptRow | None:
        table = schema.receipts
        query = select(table).where(table.c.receipt == receipt).order_by(table.c.id.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _receipt(row)

    def disputed(self) -> list[str]:
        table = schema.receipts
        with self._database.read() as connection:
            rows = connection.execute(select(table.c.receipt, table.c.body).where(table.c.body.is_not(None)))
            return [row.receipt for row in rows if '"verified": false' in row.body]

    def inspection(self) -> Inspected | None:
        with self._database.read() as connection:
            packed = connection.scalar(select(schema.inspections.c.partitions).limit(1))
        return None if packed is None else unpacked(packed)

    def forget_inspection(self) -> None:
        with self._database.write() as connection:
            connection.execute(delete(schema.inspections))


def _last_hash(connection: Connection) -> str:
    table = schema.receipts
    return connection.scalar(select(table.c.hash).order_by(table.c.id.desc()).limit(1)) or ""


def _receipt(row: Row[Any]) -> ReceiptRow:
    return ReceiptRow(row.receipt, row.body, row.hash, row.signature, row.inspection, None)


def problems(connection: Connection, keyring: Keyring) -> Iterator[str]:
    """A sentence for each receipt that is not what was signed here, or of which the newest text is not there."""
    rows = connection.execute(select(schema.receipts).order_by(schema.receipts.c.id)).all()
    signing_key = keyring.stored(connection, RECEIPTS)
    newest = {row.receipt: row.id for row in rows}
    for row in rows:
        signature = signing_key and hmac.digest(signing_key, row.hash.encode(), "sha256").hex()
        same_text = row.body is None or hashlib.sha256(row.body.encode()).hexdigest() == row.hash
        if row.signature != signature or not same_text or (row.body is None) == (newest[row.receipt] == row.id):
            yield f"The receipt {row.id} of the erasure {row.receipt} is not the one that was signed."
    known = {row.inspection for row in rows}
    for kept in connection.execute(select(schema.inspections)):
        if kept.digest not in known or unpacked(kept.partitions).digest != kept.digest:
            yield "An inspection is kept that no receipt speaks of."


def unpacked(packed: bytes) -> Inspected:
    """An inspection as it is kept. Raises ValueError for bytes that are none."""
    try:
        nonce, partitions = zlib.decompress(packed).decode().split("\n", 1)
    except zlib.error:
        raise ValueError("an inspection is not packed as it was written") from None
    return Inspected(nonce, partitions)


def _keep(connection: Connection, inspected: Inspected) -> None:
    """In place of the one before."""
    table = schema.inspections
    connection.execute(delete(table).where(table.c.digest != inspected.digest))
    packed = zlib.compress(f"{inspected.nonce}\n{inspected.partitions}".encode())
    insert_new(connection, table, [{"digest": inspected.digest, "partitions": packed}])


def _forget_bodies(connection: Connection, receipts: Sequence[str]) -> None:
    table = schema.receipts
    for some in in_pieces(receipts):
        connection.execute(update(table).where(table.c.receipt.in_(some)).values(body=None))
