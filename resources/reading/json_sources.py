"""Rows of JSON: by DuckDB's reader, which stops at any fault, else each row by itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from resources.reading.event_files import MAX_LINE_BYTES, Follow, nobody
from resources.reading.event_tables import json_tables, line_tables, whole_lines
from resources.reading.file_bytes import BOM
from resources.reading.in_memory import in_memory
from resources.reading.input_file import InputFile, text_columns
from resources.reading.json_layout import ARRAY, quoted_path, readable_by_duckdb
from resources.reading.row_ends import WHITE, Lines, Unclear, blocks_of_lines, row_lines
from resources.reading.row_source import BROKEN, CHUNK, FILE, LINE, LineNumbers, RowSource, chunk_of
from resources.reading.sql_text import identifier, is_json, literal

_ELEMENTS_AT_ONCE = 1 << 20
_LOOK_BYTES = 1 << 18  # what is looked at several times is still in a core's cache then
_TAKEN_FOR_NOTHING = 1  # of one byte, whatever it says, DuckDB makes no row
_ESCAPED_MINUS = (b"u002d", b"u002D")
_QUOTED_MINUS = int.from_bytes(b'"-', "little")
_TRIMMED = f"trim(raw, {literal(WHITE.decode())})"
_IS_REMOVAL = """(contains(raw, '"-"') OR regexp_matches(raw, 'u002[dD]'))"""
_ONCE_A_NUMBER = (
    r"(?s)-?[0-9]+(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|true|false|-?(?:NaN|Infinity|nan|inf)|[{\[].*"
)
"""What may have been no text: an id that reads so has to be looked at as JSON."""


@dataclass(frozen=True)
class Piece:
    """Some lines of a JSON Lines file: as rows that DuckDB parses, and as text."""

    direct: RowSource
    content: bytes
    first_line: int


def direct(place: int, one: InputFile) -> Generator[RowSource]:
    """Rows of a whole file, or of the array in it."""
    with readable_by_duckdb(one.file, one.layout) as path:
        removes = _may_remove(one, path)
        if removes and one.layout == ARRAY:
            raise Unclear  # which of its elements ask for that is told element by element
        lines = _array_lines if one.layout == ARRAY else _lines(one.file.opened, 1)
        yield _source(place, one, path, lines, removes=removes)


def pieces(place: int, one: InputFile, follow: Follow = nobody) -> Iterator[Piece]:
    """JSON Lines, a piece at a time; each is gone when the next one is asked for."""
    line = 1
    with one.file.opened(follow) as stream:
        for content in whole_lines(stream):
            with in_memory(content) as path:
                lines = _lines(lambda held=content: io.BytesIO(held), line)
                source = _source(place, one, path, lines, removes=_may_remove(one, path))
                yield Piece(source, content, line)
            line += content.count(b"\n")


def exact_piece(place: int, one: InputFile, piece: Piece) -> Generator[RowSource]:
    """Rows of a piece, each line by itself."""
    for table in line_tables(io.BytesIO(piece.content), piece.first_line):
        yield from _exact(place, one, table)


def exact(place: int, one: InputFile, follow: Follow = nobody) -> Generator[RowSource]:
    """Rows of a whole file, each line, element or object by itself."""
    for table in json_tables(one.file, one.layout, follow):
        yield from _exact(place, one, table)


def _may_remove(one: InputFile, path: str) -> bool:
    """Whether a row may be '-': some text in it is, or is written so that it may be."""
    op = one.fields.fields.get("op")
    if op is None or not op.places:
        return False
    before = b""
    with Path(path).open("rb") as stream:
        while block := stream.read(_LOOK_BYTES):
            if _shows_minus(before + block):
                return True
            before = block[-8:]
    return False


def _shows_minus(content: bytes) -> bool:
    """Whether a text may be '-' in it. What is rare is looked for first, by what costs the least."""
    pairs = (np.frombuffer(content, "<u2", (len(content) - shift) // 2, shift) for shift in (0, 1))
    if any((pair == _QUOTED_MINUS).any() for pair in pairs) and b'"-"' in content:
        return True
    return b"\\" in content and any(sign in content for sign in _ESCAPED_MINUS)


def _source(place: int, one: InputFile, path: str, lines: LineNumbers, *, removes: bool) -> RowSource:
    fields = one.fields_as_texts
    texts = text_columns(fields)
    kinds = ", ".join(f"{literal(name)}: '{'VARCHAR' if name in texts else 'JSON'}'" for name in fields.needed)
    layout = "array" if one.layout == ARRAY else "newline_delimited"
    read = (
        f"read_json({quoted_path(path)}, columns = {{{kinds}}}, format = '{layout}', records = true, "
        f"hive_partitioning = false, maximum_object_size = {MAX_LINE_BYTES})"
    )
    is_null = " AND ".join(f"{identifier(name)} IS NULL" for name in fields.needed)  # so is all of a line `null`
    broken, doubt = _says_twice(one), is_null
    user_id = fields.fields["user_id"]
    if str(user_id.type) == "VARCHAR":
        may_be_number = f"coalesce(regexp_full_match({user_id.sql}, {literal(_ONCE_A_NUMBER)}), false)"
        broken, doubt = f"{may_be_number} OR {broken}", f"{may_be_number} OR {doubt}"
    table = f"(SELECT {place} AS {FILE}, * FROM {read})"
    size = one.file.size if one.file.is_plain else 0
    rows, check = one.about_rows if size else 0, _misnamed_removals(one, path) if removes else None
    if _is_read_otherwise(path):
        check = "SELECT 1"
    return RowSource(
        table,
        [(place, one)],
        fields,
        broken,
        doubt,
        about_rows=rows,
        size=size,
        lines_of=lines,
        check=check,
    )


def _is_read_otherwise(path: str) -> bool:
    """Whether DuckDB makes no row of what stands there, or passes over a byte order mark behind one that is gone."""
    with Path(path).open("rb") as file:
        head = file.read(len(BOM) + 1)
    return len(head) <= _TAKEN_FOR_NOTHING or head.startswith(BOM)


def _misnamed_removals(one: InputFile, path: str) -> str:
    """A query for how many lines may be '-' and name something in two ways, or otherwise than the first rows do."""
    read = (
        f"read_csv({quoted_path(path)}, auto_detect = false, columns = {{'raw': 'VARCHAR'}}, header = false, "
        f"delim = '\x01', quote = '', escape = '', hive_partitioning = false, max_line_size = {MAX_LINE_BYTES})"
    )
    lines = f"SELECT try_cast({_TRIMMED} AS JSON) AS doc FROM {read} WHERE {_IS_REMOVAL}"
    return f"SELECT count(*) FROM ({lines}) WHERE {_is_misnamed(one, 'doc')}"


def _is_misnamed(one: InputFile, doc: str) -> str:
    """Whether an object has a name that is one of those asked for but for case and space, or one inside it twice."""
    needed = one.fields.needed
    asked, plain = (", ".join(map(literal, names)) for names in (needed, [name.strip().lower() for name in needed]))
    parts = [f"len(list_filter(json_keys({doc}), lambda k: lower(trim(k)) IN ({plain}) AND NOT k IN ({asked}))) > 0"]
    for place in {place for made in one.fields.fields.values() for place in made.places if place.inside}:
        path = [place.column, *place.inside]
        for depth in range(1, len(path)):
            within = literal("".join(map(_pointer, path[:depth])))
            keys = f"list_filter(json_keys({doc}, {within}), lambda k: k = {literal(path[depth])})"
            parts.append(f"len({keys}) > 1")
    return "coalesce(" + " OR ".join(f"coalesce({part}, false)" for part in parts) + ", false)"


def _exact(place: int, one: InputFile, table: pa.Table) -> Generator[RowSource]:
    """Lines of text; blank ones are no rows. Sound are objects in which no name that is asked for stands twice."""
    needed, texts = one.fields.needed, text_columns(one.fields)
    pointers = ", ".join(literal(_pointer(name)) for name in needed)
    columns = "".join(
        f", {_value(texts, name, f'found[{at}]')} AS {identifier(name)}" for at, name in enumerate(needed, 1)
    )
    asked = ", ".join(map(literal, needed))
    keys = f"list_filter(json_keys(parsed), lambda k: k IN ({asked}))"
    is_sound = f"json_type(parsed) = 'OBJECT' AND len({keys}) = len(list_distinct({keys}))"
    is_sound += f" AND NOT (removes AND {_is_misnamed(one, 'parsed')})"
    rows = f"""(SELECT {place} AS {FILE}, line AS {LINE}, doc IS NULL AS {BROKEN}{columns}
        FROM (SELECT line, doc, json_extract(doc, [{pointers}]) AS found
            FROM (SELECT line, CASE WHEN {is_sound} THEN parsed END AS doc
                FROM (SELECT line, try_cast({_TRIMMED} AS JSON) AS parsed, {_IS_REMOVAL} AS removes FROM {CHUNK}
                    WHERE raw IS NULL OR {_TRIMMED} <> ''))))"""
    with chunk_of(one.connection, table):
        yield RowSource(rows, [(place, one)], one.fields, f"{BROKEN} OR {_says_twice(one)}")


def _says_twice(one: InputFile) -> str:
    """Whether the metadata of a '-' row names something twice: which days are meant is then open."""
    fields = one.fields.fields
    if "op" not in fields or "metadata" not in fields:
        return "false"
    op, metadata = fields["op"].sql, fields["metadata"].sql
    if not is_json(fields["metadata"].type):
        return "false"
    keys = f"json_keys({metadata})"
    return f"""CASE WHEN {metadata} IS NOT NULL AND json_type({metadata}) = 'OBJECT' AND ({op})::VARCHAR LIKE '%-%'
        THEN len({keys}) > len(list_distinct({keys})) ELSE false END"""


def _value(texts: Collection[str], name: str, found: str) -> str:
    if name in texts:
        return f"json_extract_string({found}, '$')"
    return f"nullif({found}, 'null'::JSON)"


def _pointer(name: str) -> str:
    """A key of the row, as a JSON pointer: unlike a path it has no wildcards."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _lines(opened: Callable[[], AbstractContextManager[BinaryIO]], first: int) -> LineNumbers:
    """The lines in which rows begin, the first line of which has this number."""

    def lines() -> Iterator[Lines]:
        with opened() as stream:
            yield from row_lines(blocks_of_lines(stream, MAX_LINE_BYTES), first, is_csv=False)

    return lines


def _array_lines() -> Iterator[Lines]:
    """Elements are counted instead."""
    for first in count(1, _ELEMENTS_AT_ONCE):
        yield np.arange(first, first + _ELEMENTS_AT_ONCE)
