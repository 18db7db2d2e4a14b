"""Event files read row by row as Arrow tables, chunk by chunk: exactly, and not as fast as DuckDB reads by itself.

What DuckDB cannot read, or would read otherwise, comes through here. What the rows mean stands elsewhere; here a row
has a line number, and its columns or none. Nothing is written, and no error quotes what a file holds.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resources.reading.event_csv import NULL, Meant, csv_rows
from resources.reading.event_files import MAX_LINE_BYTES, EventFile, Follow, as_bad_input, nobody
from resources.reading.json_layout import JsonLayout, documents

_CHUNK_BYTES = 1 << 25
_CHUNK_ROWS = 1 << 18


def json_tables(file: EventFile, layout: JsonLayout, follow: Follow = nobody) -> Iterator[pa.Table]:
    """The rows of JSON as (line int64, raw string); raw is null where a line is too long or not UTF-8.

    Of an array, and of objects that hold one, rows are the elements, and `line` counts them. Raises BadInput for a
    damaged file, and for an array that is not JSON.
    """
    if layout.kind != "lines":
        yield from documents(file, layout, _CHUNK_ROWS)
        return
    with as_bad_input(file), file.opened(follow) as stream:
        yield from line_tables(stream)


def line_tables(stream: BinaryIO, line: int = 1) -> Iterator[pa.Table]:
    """The lines as (line int64, raw string), the first of which has this number."""
    for data in whole_lines(stream):
        ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")) + 1
        edges = np.concatenate(([0], ends, [len(data)] if not data.endswith(b"\n") else [])).astype(np.int32)
        numbers = pa.array(np.arange(line, line + len(edges) - 1))
        yield pa.table({"line": numbers, "raw": _texts(data, edges)})
        line += len(edges) - 1


def csv_tables(
    file: EventFile, delimiter: str, needed: list[str], meant: Callable[[list[str]], Meant], follow: Follow = nobody
) -> Iterator[pa.Table]:
    """The rows as (line int64, broken bool) and the columns that are `needed`, as strings or null if empty.

    A row's line is its first; a broken row of several lines is several rows. A file that holds nothing has none.
    Raises BadInput for a damaged file, and for one whose quotes do not say where a row ends.
    """
    with csv_rows(file, delimiter, meant, follow) as (header, rows):
        places = [header.index(name) for name in needed] if header is not None else []
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            table: dict[str, pa.Array] = {"line": pa.array([line for line, _ in chunk], pa.int64())}
            table["broken"] = pa.array([fields is None for _, fields in chunk])
            for place in places:
                table[f"c{place}"] = pa.array([_value(fields, place) for _, fields in chunk], pa.string())
            yield pa.table(table)


def parquet_tables(file: EventFile, needed: list[str], follow: Follow = nobody) -> Iterator[pa.Table]:
    """The columns of a Parquet file that are `needed` as c0, c1, …, line int64, and broken bool: a text is not UTF-8.

    Raises BadInput for a damaged file.
    """
    with as_bad_input(file), _seekable(file, follow) as stream:
        line = 1
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=_CHUNK_ROWS, columns=needed):
            table = with_broken(batch.select(needed))
            yield table.append_column("line", pa.array(np.arange(line, line + len(table))))
            line += len(table)


def _value(fields: list[str] | None, place: int) -> str | None:
    return None if fields is None or fields[place] in ("", NULL) else fields[place]


@dataclass(frozen=True)
class ParquetFooter:
    """The names of the columns as they stand in a Parquet file, those of the types INT96 and half float, and how many
    rows it has.
    """

    names: list[str]
    int96: frozenset[str]
    halves: frozenset[str]
    rows: int


def parquet_footer(file: EventFile) -> ParquetFooter:
    """What the end of the file says. Raises BadInput for a damaged file."""
    with as_bad_input(file), _seekable(file) as stream:
        opened = pq.ParquetFile(stream)
        leaves = [opened.schema.column(place) for place in range(len(opened.schema))]
        old = frozenset(leaf.path for leaf in leaves if leaf.physical_type == "INT96")
        schema = opened.schema_arrow
        halves = frozenset(name for name, kind in zip(schema.names, schema.types, strict=True) if kind == pa.float16())
        return ParquetFooter(schema.names, old, halves, opened.metadata.num_rows)


def parquet_schema(file: EventFile) -> pa.Schema:
    """The types of its columns. Raises BadInput for a damaged file."""
    with as_bad_input(file), _seekable(file) as stream:
        return pq.read_schema(stream)


@contextmanager
def _seekable(file: EventFile, follow: Follow = nobody) -> Iterator[BinaryIO]:
    """The file as Parquet needs it; one that is packed comes through memory."""
    if file.compression is None:
        with file.stored(follow) as stream:
            yield stream
        return
    with file.opened(follow) as stream:
        yield io.BytesIO(stream.read())


def with_broken(batch: pa.RecordBatch) -> pa.Table:
    """The batch; rows of which a field is unsound have no field at all, and are broken."""
    plain = [
        column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column for column in batch.columns
    ]
    bad = {row for column in plain for row in _unsound(column)}
    broken = np.zeros(batch.num_rows, dtype=bool)
    if not bad:
        return pa.table([*plain, pa.array(broken)], [*(f"c{place}" for place in range(batch.num_columns)), "broken"])
    broken[list(bad)] = True
    rows = pa.array(np.arange(batch.num_rows), mask=broken)
    columns = [_picked(column, rows) for column in plain]
    return pa.table([*columns, pa.array(broken)], [*(f"c{place}" for place in range(batch.num_columns)), "broken"])


def _picked(column: pa.Array, rows: pa.Array) -> pa.Array:
    """Rows of a column, by their numbers; Arrow cannot pick views of texts."""
    if column.type != pa.string_view():
        return column.take(rows)
    return pa.array([None if row is None else column[row].as_py() for row in rows.to_pylist()], pa.string())


def _unsound(column: pa.Array) -> list[int]:
    """The rows that hold text which is not UTF-8, however deep."""
    return [] if _is_valid(column) else [row for row in range(len(column)) if not _is_text(column[row])]


def _is_text(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    except (ValueError, OverflowError):  # a moment that Python has no value for is none of texts
        return True
    return True


def whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The stream in pieces that end where a line ends. The inside of a line that is too long may be missing."""
    rest = b""
    while block := stream.read(_CHUNK_BYTES):
        cut = block.rfind(b"\n") + 1
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest = (rest + block)[: MAX_LINE_BYTES + 1]
    if rest:
        yield rest


def _texts(data: bytes, edges: np.ndarray) -> pa.Array:
    """The slices of `data` between the edges as strings, without a copy when all of them are sound."""
    strings = pa.Array.from_buffers(pa.string(), len(edges) - 1, [None, pa.py_buffer(edges), pa.py_buffer(data)])
    if (np.diff(edges) <= MAX_LINE_BYTES).all() and _is_valid(strings):
        return strings
    return pa.array([_text(data[start:end]) for start, end in pairwise(edges)], pa.string())


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _text(line: bytes) -> str | None:
    try:
        return line.decode() if len(line) <= MAX_LINE_BYTES else None
    except UnicodeDecodeError:
        return None
