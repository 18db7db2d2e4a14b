"""How a JSON file holds its rows: a line each, as an array, or in objects that hold an array of them."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa

from dpdau_assets.core.errors import BadInput
from resources.arrow_arrays import arrow_batches
from resources.reading.event_files import EventFile, as_bad_input, unreadable
from resources.reading.in_memory import in_memory
from resources.reading.row_ends import WHITE
from resources.reading.sql_text import literal

ENVELOPES = ("batch", "events", "data")
"""What the array of events is called in an object that holds one."""

_HEAD_BYTES = 1 << 16
_LONGEST_LINE = 1 << 26
_MOST_BYTES = 1 << 30
_MOST_OF_AN_ELEMENT = 1 << 24  # DuckDB's own limit for a JSON object
_HOLDS_ARRAY = re.compile(rf'"({"|".join(ENVELOPES)})"\s*:\s*\['.encode())
_SAMPLE_ROWS = 1000
QUIET: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "2GB",
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


@dataclass(frozen=True)
class JsonLayout:
    """`objects` stand one after the other, on any number of lines; `envelope` is the name of the array inside them."""

    kind: Literal["lines", "array", "objects"]
    envelope: str | None = None
    ids: tuple[str, ...] = ()
    """Names by which a row says who did something: an object that has one is a row itself."""


LINES, ARRAY = JsonLayout("lines"), JsonLayout("array")


def layout_of(file: EventFile, ids: Iterable[str] = ("user_id",)) -> JsonLayout:
    """How the file begins says how it goes on. Raises BadInput for a damaged file."""
    with as_bad_input(file), file.opened() as stream:
        head = stream.read(_HEAD_BYTES).lstrip()
        if head.startswith(b"["):
            return _array_or_lines(head)
        line = head.partition(b"\n")[0] if b"\n" in head else head + stream.readline(_LONGEST_LINE)
    first = _object(line)
    named = tuple(ids)
    if first is not None:
        envelope = _envelope(first, named)
        return JsonLayout("objects", envelope, named) if envelope else LINES
    rest = head.partition(b"\n")[2].lstrip()
    if line.rstrip() == b"{" or (head.startswith(b"{") and not rest.startswith((b"{", b"["))):
        held = _HOLDS_ARRAY.search(head)
        return JsonLayout("objects", held[1].decode() if held else None, named)
    return LINES


def _array_or_lines(head: bytes) -> JsonLayout:
    """One array, unless the first line is one by itself and another follows: then each is a bad row."""
    first, _, rest = head.partition(b"\n")
    try:
        is_whole = isinstance(json.loads(first), list)
    except (ValueError, RecursionError):
        is_whole = False
    return LINES if is_whole and rest.strip() else ARRAY


def _object(line: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _envelope(value: dict[str, object], ids: Collection[str]) -> str | None:
    """The name of the only array of objects in it that is called as an envelope is."""
    held = [name for name in ENVELOPES if isinstance(value.get(name), list)]
    has_id = {name.casefold() for name in ids}.intersection(name.casefold() for name in value)
    return held[0] if len(held) == 1 and not has_id else None


@contextmanager
def readable_by_duckdb(file: EventFile, layout: JsonLayout) -> Iterator[str]:
    """A path of the file's text for DuckDB: its own, or in memory, if it is packed, elsewhere or in another encoding.

    Raises BadInput for text that is too long for that.
    """
    if file.is_plain and file.local is not None and not file.has_bom:
        _require_end(file, layout, file.local)
        yield str(file.local.resolve())
        return
    with as_bad_input(file), file.opened() as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise _too_long(file)
    with in_memory(content) as path:
        _require_end(file, layout, Path(path))
        yield path


def _require_end(file: EventFile, layout: JsonLayout, path: Path) -> None:
    """Raise BadInput for an array that does not end: DuckDB takes one that is cut after an element for whole."""
    if layout.kind == "array":
        with as_bad_input(file), path.open("rb") as stream:
            stream.seek(-min(stream.seek(0, os.SEEK_END), _HEAD_BYTES), os.SEEK_END)
            if not stream.read().rstrip(WHITE).endswith(b"]"):
                raise unreadable(file)


def _too_long(file: EventFile) -> BadInput:
    return BadInput(
        f"{file} holds JSON that is not one object a line, and that is too long to be read at once.",
        "Write it as JSON Lines.",
        path=file.name,
    )


def documents(file: EventFile, layout: JsonLayout, rows: int) -> Generator[pa.Table]:
    """The elements of an array, the objects, or what their arrays hold, as (line int64, raw string): they are counted.

    Raises BadInput for what is not JSON as a whole.
    """
    with readable_by_duckdb(file, layout) as path, duckdb.connect(config=QUIET) as connection:
        kind = "array" if layout.kind == "array" else "unstructured"
        size = _MOST_OF_AN_ELEMENT if kind == "array" else max(_MOST_OF_AN_ELEMENT, _size(file, path))
        objects = (
            f"read_json_objects({quoted_path(path)}, format = '{kind}', hive_partitioning = false, "
            f"maximum_object_size = {size})"
        )
        place = 1
        try:
            connection.execute("SET enable_progress_bar = false").fetchall()
            for batch in arrow_batches(connection.sql(f"SELECT {_elements(layout)} AS raw FROM {objects}"), rows):
                numbers = pa.array(range(place, place + batch.num_rows), pa.int64())
                yield pa.table({"line": numbers, "raw": batch.column(0).cast(pa.string())})
                place += batch.num_rows
        except duckdb.OutOfMemoryException:
            raise _too_long(file) from None
        except duckdb.Error:
            raise unreadable(file) from None


def _elements(layout: JsonLayout) -> str:
    if layout.envelope is None:
        return "json::VARCHAR"
    name = f"'/{layout.envelope}'"
    held = f"json_extract(json, '$.{layout.envelope}[*]')"
    ids = ", ".join(literal(name.lower()) for name in layout.ids)
    has_id = f"len(list_filter(json_keys(json), lambda k: lower(k) IN ({ids}))) > 0" if ids else "false"
    is_twice = f"len(list_filter(json_keys(json), lambda k: k = {literal(layout.envelope)})) > 1"
    is_one = f"json_type(json) = 'OBJECT' AND json_type(json, {name}) = 'ARRAY'"
    return f"""unnest(CASE WHEN {is_one} AND ({has_id} OR {is_twice}) THEN [NULL::JSON]
        WHEN {is_one} THEN {held} ELSE [json] END)::VARCHAR"""


def _size(file: EventFile, path: str) -> int:
    with as_bad_input(file):
        return Path(path).stat().st_size + 1


def sampled_keys(file: EventFile, layout: JsonLayout) -> list[str]:
    """The names that the objects of the first rows have, in order. Raises BadInput for a damaged file."""
    keys: dict[str, None] = {}
    for row in _first_rows(file, layout):
        keys.update(dict.fromkeys(_object(row) or {}))
    return list(keys)


def _first_rows(file: EventFile, layout: JsonLayout) -> Iterator[bytes]:
    if layout.kind == "lines":
        with as_bad_input(file), file.opened() as stream:
            for _ in range(_SAMPLE_ROWS):
                yield stream.readline(_LONGEST_LINE)
        return
    with closing(documents(file, layout, _SAMPLE_ROWS)) as tables:
        for text in next(tables, {"raw": pa.array([], pa.string())})["raw"].to_pylist():
            yield (text or "").encode()


def quoted_path(path: str) -> str:
    """A path as an SQL literal that is taken for no pattern."""
    return "'" + glob.escape(path).replace("'", "''") + "'"
