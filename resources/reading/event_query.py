"""Events of a database: a query and its open snapshot, in the place of an event file."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.event_shape import EventShape
from dpdau_assets.core.parallel import made_ahead
from resources.arrow_arrays import to_arrow
from resources.databases.addresses import Address, opened_snapshot
from resources.databases.snapshots import Query, Snapshot
from resources.reading.event_files import EventFile
from resources.reading.event_sql import require_types
from resources.reading.event_tables import with_broken
from resources.reading.field_sql import Columns, EventFields, event_fields, require_distinct
from resources.reading.row_source import BROKEN, CHUNK, FILE, LINE, RowSource, chunk_of
from resources.reading.sql_text import identifier

_CHUNK_ROWS = 1 << 20
_AHEAD_BYTES = 1 << 28
_DIGITS, _DECIMALS = 38, 9
_NO_ROWS = "no_rows"


@dataclass(frozen=True)
class EventQuery:
    """What is read as a file is: once for each part of the people, from one snapshot."""

    name: str
    snapshot: Snapshot = field(repr=False)
    size: int = 1
    """How much of the whole is read once it is read; bytes nobody knows."""
    format: str = "query"
    local: None = None

    def __str__(self) -> str:
        return self.name


Readable = EventFile | EventQuery


@contextmanager
def opened_query(address: Address, query: Query) -> Iterator[EventQuery]:
    """The query of a database, with one snapshot until the context ends. Raises BadInput and BadSetting for a database
    that does not answer, that lets nobody in, or that there is no driver for.
    """
    with opened_snapshot(address, query) as snapshot:
        yield EventQuery(query.name, snapshot)


@dataclass(frozen=True)
class InputQuery:
    """A query, and what its columns say of it. Raises BadInput as an `InputFile` does."""

    file: EventQuery
    shape: EventShape
    connection: DuckDBPyConnection = field(repr=False)
    is_empty = False

    @cached_property
    def names(self) -> Sequence[str]:
        """The names of its columns; one may stand there twice."""
        return self._schema.names

    @cached_property
    def columns(self) -> Columns:
        """The names and types of its columns."""
        numbered = pa.schema(
            [(f"c{place}", _read_as(kind)) for place, kind in enumerate(self._schema.types)]
        ).empty_table()
        self.connection.register(_NO_ROWS, numbered)
        try:
            types = self.connection.sql(f"SELECT * FROM {_NO_ROWS}").types
        finally:
            self.connection.unregister(_NO_ROWS)
        return Columns(self.file.name, dict(zip(self.names, types, strict=True)))

    @cached_property
    def fields(self) -> EventFields:
        """Where the fields of an event stand in it."""
        require_distinct(self.names, self.shape, self.file.name)
        fields = event_fields(self.shape, self.columns)
        require_types({name: made.type for name, made in fields.fields.items()}, self.file.name)
        return fields

    def remarks(self) -> list[str]:
        return []

    @cached_property
    def _schema(self) -> pa.Schema:
        return self.file.snapshot.schema()


def rows(place: int, one: InputQuery) -> Generator[RowSource]:
    """The rows that the query gives, numbered from 1; each chunk is gone when the next one is asked for."""
    columns = "".join(f", c{number} AS {identifier(name)}" for number, name in enumerate(one.fields.needed))
    table = f"(SELECT {place} AS {FILE}, line AS {LINE}, broken AS {BROKEN}{columns} FROM {CHUNK})"
    with closing(made_ahead(_chunks(one), lambda chunk: chunk.nbytes, _AHEAD_BYTES)) as chunks:
        for chunk in chunks:
            with chunk_of(one.connection, chunk):
                yield RowSource(table, [(place, one)], one.fields, broken=BROKEN)


def _chunks(one: InputQuery) -> Iterator[pa.Table]:
    """The columns that are needed as c0, c1, …, line, and broken; a text that is not UTF-8 makes a row broken."""
    places = [one.names.index(name) for name in one.fields.needed]
    kept: list[pa.Table] = []
    line = 1
    with closing(one.file.snapshot.batches()) as batches:
        for batch in batches:
            table = with_broken(_as_read(batch.select(places), one.file))
            numbers = to_arrow(np.arange(line, line + len(table)), pa.int64())
            kept.append(table.append_column("line", numbers))
            line += len(table)
            if sum(map(len, kept)) >= _CHUNK_ROWS:
                yield pa.concat_tables(kept)
                kept = []
    if kept:
        yield pa.concat_tables(kept)


def _read_as(kind: pa.DataType) -> pa.DataType:
    """PostgreSQL's numeric comes as text, and is read as a decimal."""
    is_numeric = isinstance(kind, pa.OpaqueType) and kind.type_name == "numeric"
    return pa.decimal128(_DIGITS, _DECIMALS) if is_numeric else kind


def _as_read(batch: pa.RecordBatch, query: EventQuery) -> pa.RecordBatch:
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        wanted = _read_as(column.type)
        if wanted != column.type:
            try:
                column = column.storage.cast(wanted)
            except pa.ArrowInvalid:
                raise BadInput(
                    f"The column {name} of {query} is numeric, with a value that has no {_DIGITS} digits, "
                    f"{_DECIMALS} of them behind the point.",
                    f"Write CAST({name} AS TEXT) in the query; nothing was taken.",
                    column=name,
                ) from None
        columns.append(column)
    return pa.record_batch(columns, names=batch.schema.names)
