"""Reading all rows of a ledger out, and putting them into an empty one: the same ledger, on whatever database.

A row is written as one line of JSON, its table and its columns, with bytes in hex. Secrets stay as they are kept:
encrypted, or wrapped under HASH_SALT_SECRET.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, LargeBinary, Table, delete, func, select

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.restored import Restore
from dpdau_assets.core.settings import Metric
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.ledger import SqlLedgerTransaction, add_days
from resources.ledger_sql.retention import fact
from resources.ledger_sql.rows import insert_rows

Rows = Iterable[tuple[str, Mapping[str, Any]]]

_TABLES = [table for table in schema.metadata.sorted_tables if table is not schema.version]
_OF_AN_EMPTY_LEDGER = (schema.terms, schema.entries, schema.wrapped_keys)  # the fixed settings, chained
_AT_ONCE = 5_000


def read_out(connection: Connection) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every row as (table, columns), those that others refer to first."""
    for table in _TABLES:
        for row in connection.execute(select(table).order_by(*table.primary_key)).mappings():
            yield table.name, dict(row)


def put(database: Database, rows: Rows) -> None:
    """All of these rows, or none. Raises Refused for a ledger that has any of its own."""
    with database.write() as connection:
        require_empty(connection)
        for table in _OF_AN_EMPTY_LEDGER:  # it has nothing that they could bind or open
            connection.execute(delete(table))
        for name, group in groupby(rows, key=itemgetter(0)):
            table, columns = schema.metadata.tables[name], (columns for _, columns in group)
            while some := list(islice(columns, _AT_ONCE)):
                insert_rows(connection, table, some)
        if connection.dialect.name == "postgresql":
            _advance_sequences(connection)


def require_empty(connection: Connection) -> None:
    """Raise Refused for a ledger that says more than the fixed settings of its store."""
    for table in _TABLES:
        if table not in _OF_AN_EMPTY_LEDGER and connection.execute(select(table).limit(1)).first():
            raise Refused(
                "The ledger is not empty; a backup is restored into an empty one only.",
                "Move its file away, or name another database in LEDGER_URL.",
            )


def to_lines(rows: Rows) -> Iterator[bytes]:
    """One line of JSON a row: its table and its columns, bytes in hex."""
    for name, columns in rows:
        plain = {column: value.hex() if isinstance(value, bytes) else value for column, value in columns.items()}
        yield json.dumps([name, plain]).encode() + b"\n"


def from_lines(lines: Iterable[bytes]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows that `to_lines` wrote, as (table, columns)."""
    for line in lines:
        name, columns = json.loads(line)
        yield name, {column: _value(schema.metadata.tables[name], column, value) for column, value in columns.items()}


class SqlRestoreTransaction(SqlLedgerTransaction):
    """The port RestoreTransaction."""

    def close(self, metric: Metric, month: date, closed_on: date) -> None:
        self._append(schema.closures, metric=metric, month=month.isoformat(), closed_on=closed_on.isoformat())

    def seal(self, days: Iterable[date]) -> None:
        add_days(self._connection, self._keyring, schema.seals, days)

    def lose_epochs(self, epochs: Iterable[int]) -> list[int]:
        shredded = fact(self._connection, "shredded_through")
        known = {row.epoch for row in self._all(select(schema.salts.c.epoch))}
        lost = sorted(epoch for epoch in set(epochs) - known if shredded is None or epoch > shredded)
        noted = set(self._connection.scalars(select(schema.lost_epochs.c.epoch)))
        self._append_all(schema.lost_epochs, [{"epoch": epoch} for epoch in lost if epoch not in noted])
        return lost

    def note_restore(self, restore: Restore) -> None:
        declared = restore.declared
        self._append(
            schema.restores,
            made_on=restore.made_on.isoformat(),
            restored_on=restore.restored_on.isoformat(),
            published_through=declared and declared.through.isoformat(),
            who=declared and declared.who,
            why=declared and declared.why,
        )


@contextmanager
def restore_transaction(database: Database) -> Iterator[SqlRestoreTransaction]:
    """One transaction on a ledger that is being restored."""
    with database.write() as connection:
        yield SqlRestoreTransaction(connection, database.keyring)


def _value(table: Table, column: str, value: Any) -> Any:
    is_bytes = isinstance(table.c[column].type, LargeBinary)
    return bytes.fromhex(value) if is_bytes and value is not None else value


def _advance_sequences(connection: Connection) -> None:
    """Rows came with their ids, of which PostgreSQL takes no notice when it makes the next one."""
    for table in _TABLES:
        last = connection.scalar(select(func.max(table.c.id))) if "id" in table.c else None
        if last is not None:
            connection.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), last)))
