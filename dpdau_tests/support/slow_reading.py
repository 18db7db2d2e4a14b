"""Whom a damaged file may ask to erase: every id that stands beside a '-' in anything that is a row by itself.

Read slowly, from the grammars (RFC 4180, RFC 8259) and not from the project's readers. Where it is open how a file is
to be read, by which delimiter, encoding or layout, each way counts: what no way of reading gives, nobody asked for.
"""

from __future__ import annotations

import bz2
import gzip
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from tempfile import NamedTemporaryFile

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dpdau_assets.core.user_ids import id_text
from dpdau_tests.support.fast_folder import IN_MEMORY, has_room

DELIMITERS = ",;\t|"
_PLAIN = {delimiter: re.compile(rf'[^{re.escape(delimiter)}\n"]*') for delimiter in DELIMITERS}
_BETWEEN = re.compile(r"[ \t\r\n\v\f,]*")
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])', re.DOTALL)


def unpacked(stored: bytes) -> bytes | None:
    """What is packed in it, by its first bytes; None for what cannot be unpacked whole."""
    try:
        if stored.startswith(b"\x1f\x8b"):
            return gzip.decompress(stored)
        if stored.startswith(b"BZh"):
            return bz2.decompress(stored)
        if stored.startswith(b"\x28\xb5\x2f\xfd"):
            return pa.CompressedInputStream(pa.BufferReader(stored), "zstd").read()
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    return stored


def asked_in_csv(content: bytes) -> set[str]:
    """The ids of the '-' rows of a CSV that are whole."""
    asked: set[str] = set()
    for text in _texts(content):
        for delimiter in DELIMITERS:
            asked |= _asked_in_table([row for row in _csv_rows(text, delimiter) if row != [""]])
    return asked


def asked_in_json(content: bytes) -> set[str]:
    """The ids of the objects with a '-' in JSON Lines, in an array, and in an array inside of an object."""
    asked: set[str] = set()
    for text in _texts(content):
        for value in _json_values(text):
            asked |= set(_asked_in_value(value))
    return asked


def asked_in_parquet(content: bytes, looked_for: Collection[str | None]) -> set[str]:
    """The ids of the '-' rows as Arrow reads them, and as DuckDB does if some that are looked for are not among them:
    a damaged page may say one thing to one and another to the other.
    """
    asked = _asked_by(_columns_by_arrow, content)
    return asked if asked.issuperset(looked_for) else asked | _asked_by(_columns_by_duckdb, content)


def _asked_by(read: Callable[[bytes], tuple[list[object], list[object]]], content: bytes) -> set[str]:
    try:
        ids, ops = read(content)
    except (OSError, ValueError, OverflowError, MemoryError, KeyError, pa.ArrowException, duckdb.Error):
        return set()
    return {user_id for found, op in zip(ids, ops, strict=True) if _text(op) == "-" and (user_id := id_text(found))}


def _text(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _columns_by_arrow(content: bytes) -> tuple[list[object], list[object]]:
    table = pq.read_table(pa.BufferReader(content), columns=["user_id", "op"])
    return _values_by_arrow(table["user_id"]), _values_by_arrow(table["op"])


def _values_by_arrow(column: pa.ChunkedArray) -> list[object]:
    """Texts as their bytes: one that is no UTF-8 then hides none of the others."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return (column.cast(pa.binary()) if pa.types.is_string(column.type) else column).to_pylist()


def _columns_by_duckdb(content: bytes) -> tuple[list[object], list[object]]:
    with (
        NamedTemporaryFile(suffix=".parquet", dir=IN_MEMORY if has_room() else None) as file,
        duckdb.connect() as connection,
    ):
        file.write(content)
        file.flush()
        rows = connection.execute("SELECT user_id, op FROM read_parquet(?)", [file.name]).fetchall()
    return [row[0] for row in rows], [row[1] for row in rows]


def _texts(content: bytes) -> Iterator[str]:
    """The content in each encoding that a file may show by its first bytes."""
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        yield content.decode(encoding, "replace").removeprefix("\ufeff")


def _asked_in_table(rows: Sequence[list[str] | None]) -> set[str]:
    header = next((row for row in rows if row is not None), None)
    names = [name.strip().casefold() for name in header or []]
    whole = [row for row in rows if row and len(row) >= len(names) and {"", "\\N"}.issuperset(row[len(names) :])]
    ids, ops = ([place for place, found in enumerate(names) if found == name] for name in ("user_id", "op"))
    return {row[place] for row in whole for place in ids if any(row[op] == "-" for op in ops)}


def _csv_rows(text: str, delimiter: str) -> Iterator[list[str] | None]:
    """The rows of RFC 4180; of one that is none, its first line is passed over, and the next may be a row again."""
    start = 0
    while start < len(text):
        row, end = _csv_row(text, start, delimiter)
        yield row
        start = end if row is not None else _after_line(text, start)


def _csv_row(text: str, at: int, delimiter: str) -> tuple[list[str] | None, int]:
    fields: list[str] = []
    while True:
        if text[at : at + 1] == '"':
            end = at + 1
            while (end := text.find('"', end)) >= 0 and text[end + 1 : end + 2] == '"':
                end += 2
            if end < 0:
                return None, at
            field, at = text[at + 1 : end].replace('""', '"'), end + 1
        else:
            end = _PLAIN[delimiter].match(text, at).end()  # type: ignore[union-attr]
            field, at = text[at:end], end
            if text[at : at + 1] != delimiter:
                field = field.rstrip("\r")
        fields.append(field)
        if text[at : at + 1] != delimiter:
            break
        at += 1
    while text[at : at + 1] == "\r":
        at += 1
    return (fields, at + 1) if text[at : at + 1] in ("\n", "") else (None, at)


def _after_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end + 1


def _json_values(text: str) -> Iterator[object]:
    """What begins each line, and all values that stand one after the other; a comma too many is none of its faults."""
    for whole in (text, _TRAILING_COMMA.sub(lambda found: found[1] or "", text)):
        yield from (value for line in whole.split("\n") for value in islice(_values_from(line), 1))
        yield from _values_from(whole)


def _values_from(text: str) -> Iterator[object]:
    decoder, at = json.JSONDecoder(), 0
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value


def _asked_in_value(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for element in value:
            yield from _asked_in_object(element)
    elif isinstance(value, dict):
        yield from _asked_in_object(value)
        for name in ("batch", "events", "data"):
            for element in value.get(name) if isinstance(value.get(name), list) else ():  # type: ignore[union-attr]
                yield from _asked_in_object(element)


def _asked_in_object(value: object) -> Iterator[str]:
    if isinstance(value, dict) and "-" in _named("op", value):
        yield from (user_id for found in _named("user_id", value) if (user_id := id_text(found)))


def _named(name: str, value: dict[str, object]) -> list[object]:
    """What stands under a name, however its letters are written."""
    return [found for key, found in value.items() if key.strip().casefold() == name]
