"""SQLite files, by Python's own module: every value as text, since a column there has no type of its own."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from math import isfinite
from pathlib import Path

import pyarrow as pa

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.user_ids import id_text
from resources.databases.addresses import Address
from resources.databases.snapshots import (
    BATCH_ROWS,
    Query,
    Snapshot,
    failed,
    first_line,
    no_rows,
    refused,
    too_slow,
    writes,
)

_STEPS = 10_000  # of SQLite's machine between two looks at the clock
_READS = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE))
_NOT_NOW = "load_extension"


@contextmanager
def sqlite_snapshot(address: Address, query: Query) -> Iterator[Snapshot]:
    """The rows of a query of a file. Raises BadInput for a file that cannot be read."""
    path = Path(address.target)
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise BadInput(f"{address} cannot be opened: {first_line(error)}", "Name a file that is there.") from None
    with closing(connection):
        connection.text_factory = bytes
        try:
            connection.execute("BEGIN").fetchall()
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # the snapshot begins with a read
        except sqlite3.Error as error:
            raise BadInput(f"{address} cannot be read: {first_line(error)}", "See whether it is whole.") from None
        connection.set_authorizer(_only_reads)
        yield _Rows(connection, query)


def _only_reads(action: int, _: str | None, name: str | None, *__: str | None) -> int:
    may = action in _READS and name != _NOT_NOW
    return sqlite3.SQLITE_OK if may else sqlite3.SQLITE_DENY


class _Rows:
    def __init__(self, connection: sqlite3.Connection, query: Query) -> None:
        self._connection = connection
        self._query = query

    def schema(self) -> pa.Schema:
        with closing(self._run()) as cursor:
            return self._schema(cursor)

    def batches(self) -> Generator[pa.RecordBatch]:
        with closing(self._run()) as cursor:
            schema = self._schema(cursor)
            try:
                while rows := cursor.fetchmany(BATCH_ROWS):
                    columns = [pa.array(list(map(_text, column)), pa.string()) for column in zip(*rows, strict=True)]
                    yield pa.record_batch(columns, schema=schema)
            except sqlite3.Error as error:
                raise self._own_words(error) from None

    def _schema(self, cursor: sqlite3.Cursor) -> pa.Schema:
        if cursor.description is None:
            raise no_rows(self._query)
        return pa.schema([(name, pa.string()) for name, *_ in cursor.description])

    def _run(self) -> sqlite3.Cursor:
        until = time.monotonic() + self._query.seconds
        self._connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
        try:
            return self._connection.execute(self._query.sql)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._own_words(error) from None

    def _own_words(self, error: Exception) -> BadInput:
        if isinstance(error, sqlite3.DatabaseError) and "not authorized" in str(error):
            return writes(self._query)
        if "interrupted" in str(error):
            return too_slow(self._query)
        if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError | sqlite3.Warning):
            return refused(self._query, first_line(error))
        return failed(self._query)


def _text(value: object) -> str | None:
    """A text as it stands, a number as its digits; null for bytes that are no text."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, float):
        return id_text(value) or (repr(value) if isfinite(value) else None)
    return None if value is None else str(value)
