"""Event files as Arrow tables: which files there are, and JSON Lines, CSV and gzip read exactly, line by line.

What the rows mean stands elsewhere; here a row is text with a line number, or broken. Nothing is written, and no error
quotes what a file holds.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpdau_assets.core.errors import BadInput

if TYPE_CHECKING:
    from _csv import Reader

Format = Literal["json", "csv", "parquet"]
CsvRows = Iterator[tuple[int, list[str] | None]]

COLUMNS = ("user_id", "op", "day", "ts", "metadata", "metadata.days")
MAX_LINE_BYTES = 1 << 20
"""A longer line is a bad row; what it holds is dropped while it is read."""

_FORMATS: dict[str, Format] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}
_ENDINGS = f"{', '.join(_FORMATS)}, each also with .gz"
_TEXT_ENDINGS = _ENDINGS.replace(", .parquet", "")
_CHUNK_BYTES = 1 << 25
_CHUNK_ROWS = 1 << 18
_BOM = b"\xef\xbb\xbf"


def event_files(path: Path) -> list[Path]:
    """The event files that a path names: itself, or all in a folder and the folders below it, sorted.

    In a folder, names that begin with `.` or `_` and files with other endings are passed over. Raises BadInput for a
    path that does not exist, a folder without any event file, or a file whose ending is unknown.
    """
    if not path.exists():
        raise BadInput(f"{path} does not exist.", "Name a file, or a folder that holds event files.", path=str(path))
    if not path.is_dir():
        format_of(path)
        return [path]
    found = _offered(path)
    if not found:
        raise BadInput(f"{path} holds no event files.", f"Put files there that end in {_ENDINGS}.", path=str(path))
    return found


def holds_event_files(folder: Path) -> bool:
    """Whether there is any in it or in the folders below it."""
    return bool(_offered(folder))


def _offered(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and _is_offered(file.relative_to(folder)))


def format_of(path: Path) -> Format:
    """The format by the file's ending. Raises BadInput for any other."""
    found = _FORMATS.get(_bare(path).suffix.lower())
    if found is None:
        raise BadInput(f"{path} has no known ending.", f"Name it after its format: {_ENDINGS}.", path=str(path))
    return found


def text_format_of(path: Path) -> Format:
    """The same of a file whose lines are read as they stand: JSON Lines or CSV. Raises BadInput for Parquet too."""
    found = _FORMATS.get(_bare(path).suffix.lower())
    if found in (None, "parquet"):
        reason = f"{path} {'is named as a Parquet file' if found else 'has no known ending'}."
        raise BadInput(reason, f"Write it as JSON Lines or CSV, and name it so: {_TEXT_ENDINGS}.", path=str(path))
    return found


def is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def json_tables(path: Path) -> Iterator[pa.Table]:
    """The lines as (line int64, raw string); raw is null where a line is too long or not UTF-8.

    Raises BadInput for a damaged file.
    """
    with _bad_input(path), _opened(path) as file:
        line = 1
        for data in _whole_lines(file):
            ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")) + 1
            edges = np.concatenate(([0], ends, [len(data)] if not data.endswith(b"\n") else [])).astype(np.int32)
            numbers = pa.array(np.arange(line, line + len(edges) - 1))
            yield pa.table({"line": numbers, "raw": _texts(data, edges)})
            line += len(edges) - 1


def csv_tables(path: Path) -> Iterator[pa.Table]:
    """The rows as (line int64, broken bool) and those of COLUMNS that the header names, as strings or null if empty.

    A row's line is its first. Broken are rows with another number of fields than the header, with stray quotes, too
    long, or not UTF-8. Raises BadInput for a damaged file, or a header without the columns an event needs.
    """
    with csv_rows(path) as (header, rows):
        _require_event(header, path)
        places = {name: header.index(name) for name in COLUMNS if name in header}
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            table: dict[str, pa.Array] = {"line": pa.array([line for line, _ in chunk], pa.int64())}
            table["broken"] = pa.array([fields is None for _, fields in chunk])
            for name, place in places.items():
                table[name] = pa.array([(fields and fields[place]) or None for _, fields in chunk], pa.string())
            yield pa.table(table)


@contextmanager
def csv_rows(path: Path) -> Iterator[tuple[list[str], CsvRows]]:
    """The names in the header, empty if it is unsound, and the rows as (line, fields), None for a broken row's fields.

    Blank lines are no rows. Raises BadInput for a damaged file.
    """
    with _bad_input(path), _opened(path) as file:
        lines = _Lines(file)
        reader = csv.reader(lines, strict=True)
        header = _header(reader, lines, path)
        yield header, _csv_rows(reader, lines, len(header))


def parquet_tables(path: Path) -> Iterator[pa.Table]:
    """A Parquet file through memory: its columns among COLUMNS, and line int64. Raises BadInput for a damaged file."""
    with _bad_input(path), _opened(path) as stream:
        file = pq.ParquetFile(pa.BufferReader(stream.read()))
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        line = 1
        for batch in file.iter_batches(batch_size=_CHUNK_ROWS, columns=names):
            table = pa.Table.from_batches([batch])
            table.validate(full=True)
            yield table.append_column("line", pa.array(np.arange(line, line + len(table))))
            line += len(table)


def unreadable(path: Path) -> BadInput:
    """The error for a file that is damaged. It does not say what the reading library says, which can quote rows."""
    what = "gzip" if is_gzip(path) else format_of(path)
    return BadInput(
        f"{path} cannot be read as {what}: it is damaged, cut short, or something else.",
        "Write it again and hand it in again; nothing was taken.",
        path=str(path),
    )


def _is_offered(inside: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in inside.parts)
    return not hidden and _bare(inside).suffix.lower() in _FORMATS


def _bare(path: Path) -> Path:
    return path.with_suffix("") if is_gzip(path) else path


@contextmanager
def _bad_input(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes a library raise becomes BadInput, without the library's words."""
    try:
        yield
    except (PermissionError, IsADirectoryError, FileNotFoundError) as error:
        raise BadInput(f"{path} cannot be opened: {error.strerror}.", "Make it readable.", path=str(path)) from None
    except (OSError, EOFError, zlib.error, pa.ArrowException):
        raise unreadable(path) from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if not is_gzip(path):
            yield file
            return
        if not file.peek(1):
            raise EOFError  # gzip would take an empty file for an empty archive
        with gzip.open(file, "rb") as unpacked:
            yield cast(BinaryIO, unpacked)


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The file in pieces that end where a line ends. The inside of a line that is too long may be missing."""
    rest = b""
    first = True
    while block := file.read(_CHUNK_BYTES):
        block = block.removeprefix(_BOM) if first else block
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
    if (np.diff(edges) <= MAX_LINE_BYTES).all() and _is_utf8(strings):
        return strings
    return pa.array([_text(data[start:end]) for start, end in pairwise(edges)], pa.string())


def _is_utf8(strings: pa.Array) -> bool:
    try:
        strings.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _text(line: bytes) -> str | None:
    try:
        return line.decode() if len(line) <= MAX_LINE_BYTES else None
    except UnicodeDecodeError:
        return None


class _Lines:
    """Decoded lines for the CSV reader, and whether one of those last asked for was unsound."""

    def __init__(self, file: BinaryIO) -> None:
        self.unsound = False
        self._file = file
        self._prefix = _BOM

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_LINE_BYTES:
            self._skip_rest(line)
            return "\n"
        line, self._prefix = line.removeprefix(self._prefix), b""
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.unsound = True
            return line.decode(errors="replace")  # its quotes still tell where the row ends

    def _skip_rest(self, line: bytes) -> None:
        self.unsound = True
        while line and not line.endswith(b"\n"):
            line = self._file.readline(MAX_LINE_BYTES)


def _header(reader: Reader, lines: _Lines, path: Path) -> list[str]:
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error:
        raise unreadable(path) from None
    return [] if lines.unsound else header


def _require_event(header: list[str], path: Path) -> None:
    """Raise BadInput for a header without an event. It tells known names only: without a header, people stand there."""
    known = [name for name in header if name in COLUMNS]
    if len(set(known)) == len(known) and "user_id" in known and ("day" in known or "ts" in known):
        return
    raise BadInput(
        f"The first line of {path} has {len(header)} column(s), of which known: {', '.join(known) or 'none'}.",
        "It must name user_id and day or ts, each once and separated by commas.",
        path=str(path),
    )


def _csv_rows(reader: Reader, lines: _Lines, width: int) -> CsvRows:
    while True:
        line = reader.line_num + 1
        lines.unsound = False
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield line, None
            continue
        if lines.unsound:
            yield line, None
        elif "".join(fields).strip() or len(fields) > 1:
            yield line, fields if len(fields) == width else None
