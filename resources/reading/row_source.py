"""Rows to judge, as DuckDB sees them: files that it reads by itself, or tables that were read here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from duckdb import DuckDBPyConnection

from resources.reading.field_sql import EventFields
from resources.reading.row_ends import Lines
from resources.reading.sql_text import identifier


class Named(Protocol):
    """A file, or a query, by the name that messages call it."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def local(self) -> Path | None: ...


class Input(Protocol):
    """What rows come from, as far as it matters to those who judge them."""

    @property
    def file(self) -> Named: ...


Files = Sequence[tuple[int, Input]]
"""Each with its place in the scan."""

LineNumbers = Callable[[], Iterator[Lines]]
CHUNK = "chunk"
FILE, LINE, BROKEN = (identifier(f"\x01{name}") for name in ("file", "line", "broken"))
"""Columns of ours in a table of rows, quoted: no column of a file is called so."""


@dataclass(frozen=True)
class RowSource:
    """Rows, none of which were judged yet.

    `table` is what follows FROM: it has the columns that the fields are made of and FILE, a file's place; and LINE,
    unless `lines_of` tells the line in which each of its rows begins, in order and block by block. `broken` is a
    boolean as SQL: rows that cannot be parsed; so is `doubt`: rows that are bad, and may be so for another reason than
    DuckDB shows. `has_breaks`: a field may hold a line break. `rows` is how many there must
    be, None if nobody knows, and `about_rows` a guess; `size` are the bytes as stored that it stands for.
    """

    table: str
    files: Files
    fields: EventFields
    broken: str = "false"
    doubt: str = "false"
    has_breaks: bool = False
    rows: int | None = None
    about_rows: int = 0
    size: int = 0
    lines_of: LineNumbers | None = None
    check: str | None = None
    """A query for how many of the rows only a reader of our own may judge."""


@contextmanager
def chunk_of(connection: DuckDBPyConnection, table: pa.Table) -> Iterator[None]:
    """A table that DuckDB finds under the name CHUNK until the context ends."""
    connection.register(CHUNK, table)
    try:
        yield
    finally:
        connection.unregister(CHUNK)
