"""Rows of CSV: by DuckDB's reader where quotes leave nothing open, else to the letter by our own."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from resources.reading.event_csv import NULL
from resources.reading.event_files import MAX_LINE_BYTES, Follow, nobody
from resources.reading.event_tables import csv_tables
from resources.reading.in_memory import in_memory
from resources.reading.input_file import InputFile
from resources.reading.json_layout import quoted_path
from resources.reading.row_ends import CsvRows, Lines, Unclear, blocks_of_lines, row_lines
from resources.reading.row_source import BROKEN, CHUNK, FILE, LINE, LineNumbers, RowSource, chunk_of
from resources.reading.sql_text import identifier, literal

_PIECE_BYTES = 1 << 26
_MOST_IN_A_PIECE = 1 << 28


def direct(place: int, one: InputFile, follow: Follow = nobody) -> Generator[RowSource]:
    """Rows that DuckDB parses, the whole file or a piece at a time. Raises Unclear where it might find other rows."""
    if one.header is None or one.header[1] != 1:
        raise Unclear
    if one.file.is_plain and one.file.local is not None:
        rows = _look_through(one, follow)
        lines = _lines(one.file.opened, 1)
        path = str(one.file.local.resolve())
        yield _source(place, one, path, rows, rows.rows - 1, lines, size=one.file.size)
        return
    line = 1
    with one.file.opened(follow) as stream:
        for content, rows in _pieces(stream, one):
            with in_memory(content) as path:
                lines = _lines(lambda kept=content: io.BytesIO(kept), line)
                yield _source(place, one, path, rows, rows.rows - (line == 1), lines, has_header=line == 1)
            line += content.count(b"\n")


def exact(place: int, one: InputFile, follow: Follow = nobody) -> Generator[RowSource]:
    """Rows that are read here; each chunk is gone when the next one is asked for."""
    for table in csv_tables(one.file, one.delimiter, list(one.fields.needed), one.meant, follow):
        with chunk_of(one.connection, table):
            rows = f"(SELECT {place} AS {FILE}, line AS {LINE}, broken AS {BROKEN}{_columns(one)} FROM {CHUNK})"
            yield RowSource(rows, [(place, one)], one.fields, broken=BROKEN)


def _look_through(one: InputFile, follow: Follow) -> CsvRows:
    rows = CsvRows(one.delimiter, len(one.names))
    with one.file.opened(follow) as stream:
        for block in blocks_of_lines(stream, MAX_LINE_BYTES):
            rows.look(block)
    rows.end()
    return rows


def _pieces(stream: BinaryIO, one: InputFile) -> Iterator[tuple[bytes, CsvRows]]:
    """Whole rows, a piece at a time, each looked through by itself."""
    rows, kept = CsvRows(one.delimiter, len(one.names)), bytearray()
    for block in blocks_of_lines(stream, MAX_LINE_BYTES):
        is_whole = rows.look(block) == len(block)
        kept += block
        if is_whole and len(kept) >= _PIECE_BYTES:
            yield bytes(kept), rows
            rows, kept = CsvRows(one.delimiter, len(one.names)), bytearray()
        if len(kept) > _MOST_IN_A_PIECE:
            raise Unclear
    rows.end()
    if kept:
        yield bytes(kept), rows


def _source(
    place: int,
    one: InputFile,
    path: str,
    looked: CsvRows,
    rows: int,
    lines: LineNumbers,
    *,
    size: int = 0,
    has_header: bool = True,
) -> RowSource:
    columns = ", ".join(f"'c{number}': 'VARCHAR'" for number in range(len(one.names)))
    read = (
        f"read_csv({quoted_path(path)}, auto_detect = false, columns = {{{columns}}}, header = {has_header}, "
        f"delim = {literal(one.delimiter)}, quote = '\"', escape = '\"', nullstr = ['', {literal(NULL)}], "
        f"hive_partitioning = false, max_line_size = {MAX_LINE_BYTES})"
    )
    table = f"(SELECT {place} AS {FILE}{_columns(one)} FROM {read})"
    return RowSource(
        table, [(place, one)], one.fields, has_breaks=looked.has_breaks, rows=rows, size=size, lines_of=lines
    )


def _lines(opened: Callable[[], AbstractContextManager[BinaryIO]], first: int) -> LineNumbers:
    """The lines in which rows begin, without the header where the first one is."""

    def lines() -> Iterator[Lines]:
        with opened() as stream:
            is_header = first == 1
            for numbers in row_lines(blocks_of_lines(stream, MAX_LINE_BYTES), first, is_csv=True):
                yield numbers[int(is_header) :]
                is_header = is_header and not len(numbers)

    return lines


def _columns(one: InputFile) -> str:
    """The columns that are needed, under the names that the header gives them."""
    return "".join(f", c{one.names.index(name)} AS {identifier(name)}" for name in one.fields.needed)
