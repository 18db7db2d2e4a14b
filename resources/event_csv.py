"""CSV read as RFC 4180 says, row by row: what a quoted field holds is never read as rows of its own.

Quotes say where a row ends. A file in which they do not is refused with the line: a piece of a field could be the name
of somebody who never asked to be erased. A row that is damaged otherwise is broken, with each of its lines.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dpdau_assets.core.errors import BadInput
from resources.event_files import BOM, MAX_LINE_BYTES, Follow, as_bad_input, nobody, opened

CsvRows = Iterator[tuple[int, list[str] | None]]

ON_ONE_LINE = frozenset({"user_id", "op", "day", "ts", "metadata.days", "through", "erase_day", "days", "reference"})
"""Columns without line breaks in them; an id may have one, but not with a comma too: then it has swallowed rows."""

_QUOTED = r'"[^"]*+(?:""[^"]*+)*+"'
_FIELD = rf'(?:{_QUOTED}|[^",\r\n]*+)'
_RECORD = re.compile(rf"{_FIELD}(?:,{_FIELD})*+(?:\r?\n)?")
_CUT_RECORD = re.compile(_RECORD.pattern.replace(r'[^",\r\n]', '[^",\n]'))
"""With carriage returns in plain fields, where they are damage; such a row ends with its line all the same."""

_WITH_ESCAPES = r'(?:"(?:[^"\\]|\\.|"")*+"|(?:[^",\r\n\\]|\\.)*+)'
_ESCAPED_RECORD = re.compile(rf"{_WITH_ESCAPES}(?:,{_WITH_ESCAPES})*+(?:\r?\n)?", re.DOTALL)


class _Record(NamedTuple):
    """One row: its first line and the one after its last, its fields, and its text if a quote is in it, else "".

    A row that is damaged has no `fields`, but a `width`, the number of them that stand there.
    """

    first: int
    end: int
    fields: list[str] | None
    width: int
    text: str


@contextmanager
def csv_rows(path: Path, follow: Follow = nobody) -> Iterator[tuple[list[str] | None, CsvRows]]:
    """The names in the header, and the rows as (line, fields), None for the fields of a broken row.

    The header is empty if it is unsound, and None in a file that holds nothing. Blank lines are no rows. A broken row
    is given once for each of its lines. Raises BadInput, with the line, where quotes leave it open where a row ends,
    and for a file that cannot be read.
    """
    with as_bad_input(path), opened(path, follow) as file:
        records = _records(_Lines(file, path), path)
        header = next((record for record in records if not _is_blank(record)), None)
        names = None if header is None else [name.strip() for name in header.fields or []]
        yield names, _rows(records, names or [], path)


def _rows(records: Iterator[_Record], names: Sequence[str], path: Path) -> CsvRows:
    """What follows the header; at the end, whether backslashes leave a doubt about it."""
    doubtful = None
    for first, end, fields, _, text in _trusted(records, names):
        if doubtful is None and '\\"' in text:
            doubtful = first
        if fields is None:
            yield from ((line, None) for line in range(first, end))
        else:
            yield first, fields
    if doubtful is not None:
        _require_one_reading(path, names, doubtful)


def _trusted(records: Iterable[_Record], names: Sequence[str]) -> Iterator[_Record]:
    """Without blank lines; broken are rows of another width, those that hold rows, and removals beside a broken row.

    A row of another width may be a piece of a field, which a line break or a lost quote has cut off. Then the row
    before it and the one after it are pieces too, and a removal among them may name somebody who never asked for it.
    """
    op = names.index("op") if "op" in names else None
    held: _Record | None = None
    after_piece = False
    for record in records:
        if _is_blank(record):
            continue
        is_piece = record.width != len(names)
        if held is not None:
            yield _broken(held) if is_piece and _is_removal(held, op) else held
        sound = _is_sound(record, names) and not (after_piece and _is_removal(record, op))
        held = record if sound else _broken(record)
        after_piece = is_piece
    if held is not None:
        yield held


def _is_removal(record: _Record, op: int | None) -> bool:
    return op is not None and record.fields is not None and record.fields[op : op + 1] == ["-"]


def _is_blank(record: _Record) -> bool:
    return record.fields is not None and len(record.fields) <= 1 and not "".join(record.fields).strip()


def _is_sound(record: _Record, names: Sequence[str]) -> bool:
    if record.fields is None or len(record.fields) != len(names):
        return False
    if record.end - record.first == 1:
        return True
    return not any(
        name in ON_ONE_LINE and "\n" in field and (name != "user_id" or "," in field)
        for name, field in zip(names, record.fields, strict=True)
    )


def _broken(record: _Record) -> _Record:
    return record._replace(fields=None)


def _records(lines: _Lines, path: Path, escape: str | None = None) -> Iterator[_Record]:
    """Every row, blank ones too. Raises BadInput where a quote leaves it open where one ends."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # of the process; `_Lines` bounds a whole row
    reader = csv.reader(lines, strict=True, escapechar=escape)
    pattern = _ESCAPED_RECORD if escape else _RECORD
    while True:
        first, rule = lines.begin_row(), pattern
        try:
            fields = next(reader, None)
        except csv.Error:  # of a carriage return in a plain field, or of a quote
            fields, rule = [""] * (lines.text().count(",") + 1), _CUT_RECORD
            lines.is_unsound = True
        if fields is None:
            return
        text = lines.text() if lines.has_quotes else ""
        if text and not rule.fullmatch(text):
            raise unclear(path, first) from None
        yield _Record(first, lines.number + 1, None if lines.is_unsound else fields, len(fields), text)


def _require_one_reading(path: Path, names: Sequence[str], line: int) -> None:
    """Raise BadInput if the file is as sound with backslashes that escape quotes, and then says something else."""
    broken, other_broken, differ = 0, 0, False
    with opened(path) as file, opened(path) as same:
        plain, escaped = _records(_Lines(file, path), path), _records(_Lines(same, path), path, "\\")
        try:
            for one, other in zip_longest(plain, escaped):
                broken, other_broken = broken + _is_off(one, names), other_broken + _is_off(other, names)
                differ = differ or _meaning(one, names) != _meaning(other, names)
        except BadInput:  # read so it is unsound
            return
    if differ and not (other_broken and not broken):
        raise BadInput(
            f"{path} cannot be read as CSV: in line {line} a backslash stands before a quote, and the file can be read "
            "in two ways from there on.",
            "Nothing was taken. Write it anew with each quote inside of a field twice, and no backslash for it.",
            path=str(path), lines=[line],
        )  # fmt: skip


def _is_off(record: _Record | None, names: Sequence[str]) -> bool:
    return record is not None and not _is_blank(record) and not _is_sound(record, names)


def _meaning(record: _Record | None, names: Sequence[str]) -> object:
    """What an event is read from; a text that has one backslash more or less elsewhere is the same."""
    if record is None or record.fields is None:
        return record and record.fields
    return len(record.fields), [text for name, text in zip(names, record.fields, strict=False) if name in ON_ONE_LINE]


class _Lines:
    """Decoded lines for the CSV reader, and what there is to say of those of the row that it is reading."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.number = 0
        self.is_unsound = False
        self.has_quotes = False
        self._row: list[str] = []
        self._bytes = 0
        self._file = file
        self._path = path

    def begin_row(self) -> int:
        """The number of the line with which the next row begins."""
        self.is_unsound = self.has_quotes = False
        self._row.clear()
        self._bytes = 0
        return self.number + 1

    def text(self) -> str:
        """The row as it stands in the file."""
        return "".join(self._row)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._bytes += len(line)
        if self._bytes > MAX_LINE_BYTES:
            return self._too_long(line)
        text = self._decoded(line.removeprefix(BOM) if self.number == 1 else line)
        self.has_quotes = self.has_quotes or '"' in text
        self._row.append(text)
        return text

    def _decoded(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.is_unsound = True
            return line.decode(errors="replace")  # its quotes still tell where the row ends

    def _too_long(self, line: bytes) -> str:
        """A broken row, if it is one line and without quotes: what it holds is dropped while it is read."""
        first = self.number - len(self._row)
        clear = not self._row
        while line:
            clear = clear and b'"' not in line
            line = b"" if line.endswith(b"\n") else self._file.readline(MAX_LINE_BYTES)
        if not clear:
            raise unclear(self._path, first)
        self.is_unsound = True
        return "\n"


def unclear(path: Path, line: int) -> BadInput:
    """The error for a file whose quotes do not say where the row that begins in this line ends."""
    return BadInput(
        f"{path} cannot be read as CSV: the quotes of the row in line {line} do not say where it ends, or only after "
        f"more than {MAX_LINE_BYTES} bytes.",
        "Nothing was taken. Write it anew: a field that has a quote in it stands in quotes, each quote inside twice.",
        path=str(path), lines=[line],
    )  # fmt: skip
