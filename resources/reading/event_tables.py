"""Event files as Arrow tables, chunk by chunk: JSON Lines, CSV and Parquet, each also as gzip.

What the rows mean stands elsewhere; here a row is text with a line number, or broken. Nothing is written, and no error
quotes what a file holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resources.reading.event_csv import csv_rows
from resources.reading.event_files import (
    BOM,
    COLUMNS,
    MAX_LINE_BYTES,
    Follow,
    as_bad_input,
    format_of,
    nobody,
    opened,
    require_columns,
)

_CHUNK_BYTES = 1 << 25
_CHUNK_ROWS = 1 << 18
_ON_ONE_LINE = ("user_id", "op", "day", "ts")


def event_tables(path: Path, follow: Follow = nobody) -> Iterator[pa.Table]:
    """The file's rows, in order. Raises BadInput for a damaged file, and for a CSV header without an event."""
    readers = {"json": json_tables, "csv": csv_tables, "parquet": parquet_tables}
    return readers[format_of(path)](path, follow)


def json_tables(path: Path, follow: Follow = nobody) -> Iterator[pa.Table]:
    """The lines as (line int64, raw string); raw is null where a line is too long or not UTF-8.

    Raises BadInput for a damaged file.
    """
    with as_bad_input(path), opened(path, follow) as file:
        line = 1
        for data in _whole_lines(file):
            ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")) + 1
            edges = np.concatenate(([0], ends, [len(data)] if not data.endswith(b"\n") else [])).astype(np.int32)
            numbers = pa.array(np.arange(line, line + len(edges) - 1))
            yield pa.table({"line": numbers, "raw": _texts(data, edges)})
            line += len(edges) - 1


def csv_tables(path: Path, follow: Follow = nobody) -> Iterator[pa.Table]:
    """The rows as (line int64, broken bool) and those of COLUMNS that the header names, as strings or null if empty.

    A row's line is its first; a broken row of several lines is several rows. A file that holds nothing has none.
    Raises BadInput for a damaged file, for one whose quotes do not say where a row ends, and for a header without the
    columns that an event needs.
    """
    with csv_rows(path, _ON_ONE_LINE, follow) as (header, rows):
        if header is None:
            return
        require_columns(header, path)
        places = {name: header.index(name) for name in COLUMNS if name in header}
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            table: dict[str, pa.Array] = {"line": pa.array([line for line, _ in chunk], pa.int64())}
            table["broken"] = pa.array([fields is None for _, fields in chunk])
            for name, place in places.items():
                table[name] = pa.array([(fields and fields[place]) or None for _, fields in chunk], pa.string())
            yield pa.table(table)


def parquet_tables(path: Path, follow: Follow = nobody) -> Iterator[pa.Table]:
    """A Parquet file through memory: its columns among COLUMNS, line int64, and broken bool where a text is not UTF-8.

    Raises BadInput for a damaged file.
    """
    with as_bad_input(path), opened(path, follow) as stream:
        file = pq.ParquetFile(pa.BufferReader(stream.read()))
        require_columns(file.schema_arrow.names, path)
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        line = 1
        for batch in file.iter_batches(batch_size=_CHUNK_ROWS, columns=names):
            table = _with_broken(batch)
            yield table.append_column("line", pa.array(np.arange(line, line + len(table))))
            line += len(table)


def parquet_columns(path: Path) -> list[str]:
    """The names of its columns as they stand in it. Raises BadInput for a damaged file."""
    with as_bad_input(path):
        return pq.read_schema(path).names


def _with_broken(batch: pa.RecordBatch) -> pa.Table:
    """The batch; rows of which a field is unsound have no field at all, and are broken."""
    plain = [
        column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column for column in batch.columns
    ]
    bad = {row for column in plain for row in _unsound(column)}
    if not bad:
        return pa.table(plain, batch.schema.names)
    broken = np.zeros(batch.num_rows, dtype=bool)
    broken[list(bad)] = True
    rows = pa.array(np.arange(batch.num_rows), mask=broken)
    columns = [_picked(column, rows) for column in plain]
    return pa.table([*columns, pa.array(broken)], [*batch.schema.names, "broken"])


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


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The file in pieces that end where a line ends. The inside of a line that is too long may be missing."""
    rest = b""
    first = True
    while block := file.read(_CHUNK_BYTES):
        block = block.removeprefix(BOM) if first else block
        first = False
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
