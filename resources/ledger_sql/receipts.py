"""The port ReceiptChain: receipts in the order in which they were written, and the partitions they speak of."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

from sqlalchemy import Connection, select

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import ReceiptRow
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasure_rows import change_state, ids_of
from resources.ledger_sql.rows import insert_new, insert_rows


class SqlReceipts:
    """The list of partitions is kept once for all receipts that were written together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, rows: Sequence[ReceiptRow], follows: str, verified: Sequence[str]) -> None:
        with self._database.write() as connection:
            if _last_hash(connection) != follows:
                raise Refused("Another process has written receipts meanwhile.", "Ask again.")
            digests = {partitions: _digest(partitions) for partitions in {row.partitions for row in rows}}
            inspected = [{"digest": digest, "partitions": zlib.compress(partitions.encode())}
                         for partitions, digest in digests.items()]  # fmt: skip
            insert_new(connection, schema.inspections, inspected)
            written = [
                {"receipt": row.receipt, "body": row.body, "hash": row.hash, "signature": row.signature,
                 "inspection": digests[row.partitions]}
                for row in rows
            ]  # fmt: skip
            insert_rows(connection, schema.receipts, written)
            done = ids_of(connection, verified, ("applied",))
            change_state(connection, self._database.keyring, done, "verified")

    def last_hash(self) -> str:
        with self._database.read() as connection:
            return _last_hash(connection)

    def last(self, receipt: str) -> ReceiptRow | None:
        r, i = schema.receipts.c, schema.inspections.c
        query = select(r.receipt, r.body, r.hash, r.signature, i.partitions)
        query = query.join(schema.inspections, r.inspection == i.digest).where(r.receipt == receipt)
        with self._database.read() as connection:
            row = connection.execute(query.order_by(r.id.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        return ReceiptRow(row.receipt, row.body, row.hash, row.signature, zlib.decompress(row.partitions).decode())


def _last_hash(connection: Connection) -> str:
    table = schema.receipts
    return connection.scalar(select(table.c.hash).order_by(table.c.id.desc()).limit(1)) or ""


def _digest(partitions: str) -> str:
    return hashlib.sha256(partitions.encode()).hexdigest()
