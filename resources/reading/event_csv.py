"""CSV read as RFC 4180 says, row by row: what a quoted field holds is never read as rows of its own.

Quotes say where a row ends. A file in which they do not is refused with the line: a piece of a field could be the name
of somebody who never asked to be erased. A row that is damaged otherwise is broken, with each of its lines.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat, zip_longest
from typing import BinaryIO, NamedTuple

from dpdau_assets.core.errors import BadInput
from resources.reading.event_files import BOM, MAX_LINE_BYTES, EventFile, Follow, as_bad_input, nobody

CsvRows = Iterator[tuple[int, list[str] | None]]
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
"""What separates fields, and what people call it."""


NULL = "\\N"
"""What MySQL, PostgreSQL and Hive write in CSV for no value."""


@dataclass(frozen=True)
class Meant:
    """The columns that say who did something, what was done, and all else that belongs on one line."""

    ids: frozenset[str]
    op: str | None = None
    others: frozenset[str] = frozenset()


class _Grammar:
    """What a row looks like, by what separates its fields; `cut` has carriage returns in plain fields, which are
    damage: such a row ends with its line all the same.
    """

    def __init__(self, delimiter: str, escape: str | None) -> None:
        between, plain = re.escape(delimiter), r'[^"D\r\n\\]' if escape else r'[^"D\r\n]'
        in_quotes = r'"(?:[^"\\]|\\.|"")*+"' if escape else r'"[^"]*+(?:""[^"]*+)*+"'
        field = rf"(?:{in_quotes}|(?:{plain}|\\.)*+)" if escape else rf"(?:{in_quotes}|{plain}*+)"
        record = rf"{field}(?:D{field})*+\r*\n?".replace("D", between)
        self.delimiter, self.escape = delimiter, escape
        self.sound = re.compile(record, re.DOTALL)
        self.cut = re.compile(record.replace(rf'[^"{between}\r', rf'[^"{between}'), re.DOTALL)


class _Record(NamedTuple):
    """One row: its first line and the one after its last, its fields, and its text if there is cause to look at it.

    A damaged row has no `fields`; `width` is how many stand there.
    """

    first: int
    end: int
    fields: list[str] | None
    width: int
    text: str


class _Columns:
    """The header's names, and what follows from them of a row."""

    def __init__(self, names: Sequence[str], meant: Meant, delimiter: str) -> None:
        self.names = names
        self.width = len(names)
        self.delimiter = delimiter
        self._ids = [place for place, name in enumerate(names) if name in meant.ids]
        self._op = names.index(meant.op) if meant.op in names else None
        self.meant = [
            place for place, name in enumerate(names) if name in meant.ids | meant.others or place == self._op
        ]

    def are_in(self, record: _Record) -> bool:
        """Whether it is a sound row: as many fields as there are names, none of which has swallowed others."""
        if record.fields is None or not self._is_as_wide(record):
            return False
        return record.end - record.first == 1 or not any(map(self._has_swallowed, self.meant, repeat(record.fields)))

    def _is_as_wide(self, record: _Record) -> bool:
        """Whether it has a field for each name; those beyond hold nothing, as where a line ends with delimiters."""
        return record.width >= self.width and {"", NULL}.issuperset((record.fields or [])[self.width :])

    def removal_in(self, record: _Record | None) -> str | None:
        """Who is removed, in a row that asks for it."""
        if record is None or self._op is None or not self.are_in(record) or record.fields is None:
            return None
        return record.fields[self._ids[0]] if self._ids and record.fields[self._op] == "-" else None

    def lines_of(self, record: _Record) -> Iterable[int]:
        """The lines that are lost with a broken row; one that holds rows between carriage returns, once for each."""
        if record.end - record.first > 1:
            return range(record.first, record.end)
        pieces = record.text.replace("\r\n", "").split("\r")
        return repeat(record.first, max(1, sum(piece.count(self.delimiter) >= self.width - 1 for piece in pieces)))

    def cuts_after(self, piece: _Record, record: _Record) -> bool:
        """Whether the row after a piece may begin with the rest of an id, of which that is the beginning.

        Not of a removal: that is doubtful rather than lost, and whoever reads the file further says so.
        """
        return piece.width == 1 < self.width and 0 in self._ids and self.removal_in(record) is None

    def cuts_before(self, piece: _Record, record: _Record) -> bool:
        """Whether the row before a piece may end with the beginning of an id, of which that is the rest."""
        return piece.width == 1 < self.width and self.width - 1 in self._ids and self.removal_in(record) is None

    def _has_swallowed(self, place: int, fields: Sequence[str]) -> bool:
        """An id may have a line break, as long as no line of it could be a row."""
        text = fields[place]
        if "\n" not in text:
            return False
        return place not in self._ids or any(line.count(self.delimiter) >= self.width - 1 for line in text.split("\n"))


@contextmanager
def csv_rows(
    file: EventFile, delimiter: str, meant: Callable[[list[str]], Meant], follow: Follow = nobody
) -> Iterator[tuple[list[str] | None, CsvRows]]:
    """The names in the header, and the rows as (line, fields), None for the fields of a broken row.

    The header is empty if it is unsound, and None in a file that holds nothing. Blank lines are no rows. A broken row
    is given once for each of its lines; so is one with a line break in a column that is `meant` by the names to be on
    one line. Raises BadInput, with the line, where quotes leave it open where a row ends, and for a file that cannot be
    read.
    """
    with as_bad_input(file), file.opened(follow) as stream:
        records = _records(_Lines(stream, file), file, _Grammar(delimiter, None))
        names = _names(records)
        yield names, _rows(records, _Columns(names or [], meant(names or []), delimiter), file)


def header_of(file: EventFile, delimiter: str) -> tuple[list[str], int] | None:
    """The names in the header, and the line with which it ends; None for a file that holds nothing.

    Raises BadInput as `csv_rows` does.
    """
    with as_bad_input(file), file.opened() as stream:
        lines = _Lines(stream, file)
        names = _names(_records(lines, file, _Grammar(delimiter, None)))
        return None if names is None else (names, lines.number)


def delimiter_of(file: EventFile, wanted: Collection[str]) -> str:
    """What separates the file's fields: declared, else that under which the first line names most that is `wanted`, and
    has most fields; a comma if none does.
    """
    if file.delimiter is not None:
        return file.delimiter
    with as_bad_input(file), file.opened() as stream:
        line = stream.readline(MAX_LINE_BYTES).decode(errors="replace").rstrip("\r\n")
    outside = re.sub('"[^"]*"', lambda quoted: re.sub(r"[,;|\t]", " ", quoted[0]), line)

    def fit(delimiter: str) -> tuple[int, int]:
        names = [name.strip().strip('"').casefold() for name in outside.split(delimiter)]
        return len({name.casefold() for name in wanted}.intersection(names)), len(names)

    return max(DELIMITERS, key=fit)


def _names(records: Iterator[_Record]) -> list[str] | None:
    header = next((record for record in records if not _is_blank(record)), None)
    return None if header is None else [name.strip() for name in header.fields or []]


def _rows(records: Iterator[_Record], columns: _Columns, file: EventFile) -> CsvRows:
    """What follows the header; at the end, whether backslashes leave a doubt about it."""
    doubtful = None
    for record in _trusted(records, columns):
        if doubtful is None and '\\"' in record.text:
            doubtful = record.first
        if record.fields is None:
            yield from ((line, None) for line in columns.lines_of(record))
        else:
            yield record.first, record.fields[: columns.width]
    if doubtful is not None:
        _require_one_reading(file, columns, doubtful)


def _trusted(records: Iterable[_Record], columns: _Columns) -> Iterator[_Record]:
    """Without blank lines; broken are rows of another width, those that hold rows, and those with a piece of an id.

    A line without a comma may have been cut off an id by a line break: the row before it, if it ends with the id, or
    the one after it, if it begins with one, is then of somebody else.
    """
    before: _Record | None = None
    for record in records:
        if _is_blank(record):
            continue
        trusted = record if columns.are_in(record) else _broken(record)
        if before is not None:
            yield _broken(before) if columns.cuts_before(record, before) else before
            trusted = _broken(trusted) if columns.cuts_after(before, trusted) else trusted
        before = trusted
    if before is not None:
        yield before


def _is_blank(record: _Record) -> bool:
    return record.fields is not None and len(record.fields) <= 1 and not "".join(record.fields).strip()


def _broken(record: _Record) -> _Record:
    return record._replace(fields=None)


def _records(lines: _Lines, file: EventFile, grammar: _Grammar) -> Iterator[_Record]:
    """Every row, blank ones too. Raises BadInput where a quote leaves it open where one ends."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # of the process; `_Lines` bounds a whole row
    reader = csv.reader(lines, strict=True, delimiter=grammar.delimiter, escapechar=grammar.escape)
    while True:
        first, rule = lines.begin_row(), grammar.sound
        try:
            fields = next(reader, None)
        except csv.Error:  # of a carriage return in a plain field, or of a quote
            fields, rule = [""] * (lines.text().count(grammar.delimiter) + 1), grammar.cut
            lines.is_unsound = True
        if fields is None:
            return
        text = lines.text() if lines.has_quotes or rule is grammar.cut else ""
        if text and not rule.fullmatch(text):
            raise unclear(file, first) from None
        yield _Record(first, lines.number + 1, None if lines.is_unsound else fields, len(fields), text)


def _require_one_reading(file: EventFile, columns: _Columns, line: int) -> None:
    """Raise BadInput if the file can be read with backslashes that escape quotes too, and then says something else.

    If it is sound as it stands and not so, it is meant as it stands, unless that would erase somebody.
    """
    broken, broken_so, differ, removes = 0, 0, False, False
    with file.opened() as stream, file.opened() as same:
        plain = _records(_Lines(stream, file), file, _Grammar(columns.delimiter, None))
        escaped = _records(_Lines(same, file), file, _Grammar(columns.delimiter, "\\"))
        try:
            for record, other in zip_longest(plain, escaped):
                broken, broken_so = broken + _is_off(record, columns), broken_so + _is_off(other, columns)
                differ = differ or _meaning(record, columns) != _meaning(other, columns)
                removes = removes or (differ and columns.removal_in(record) != columns.removal_in(other))
        except BadInput:  # read so it is unsound
            return
    if differ and (removes or broken or not broken_so):
        raise BadInput(
            f"{file.name} cannot be read as CSV: in line {line} a backslash stands before a quote, and the file can be "
            "read in two ways from there on.",
            "Nothing was taken. Write it anew with each quote inside of a field twice, and no backslash for it.",
            path=file.name,
            lines=[line],
        )


def _is_off(record: _Record | None, columns: _Columns) -> bool:
    return record is not None and not _is_blank(record) and not columns.are_in(record)


def _meaning(record: _Record | None, columns: _Columns) -> object:
    """What is made of a row; where both readings find the same rows, backslashes are text in both of them."""
    if record is None or record.fields is None:
        return record and record.fields
    texts = [record.fields[place].replace("\\", "") for place in columns.meant if place < record.width]
    return record.width, texts


class _Lines:
    """Decoded lines for the CSV reader, and what there is to say of those of the row that it is reading."""

    def __init__(self, stream: BinaryIO, file: EventFile) -> None:
        self.number = 0
        self.is_unsound = False
        self.has_quotes = False
        self._row: list[str] = []
        self._bytes = 0
        self._stream = stream
        self._file = file

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
        line = self._stream.readline(MAX_LINE_BYTES + 1)
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
            clear = clear and not re.search(rb'"|\r(?!\n)', line)  # nor rows between carriage returns
            line = b"" if line.endswith(b"\n") else self._stream.readline(MAX_LINE_BYTES)
        if not clear:
            raise unclear(self._file, first)
        self.is_unsound = True
        return "\n"


def unclear(file: EventFile, line: int) -> BadInput:
    """The error for a file whose quotes do not say where the row that begins in this line ends."""
    return BadInput(
        f"{file.name} cannot be read as CSV: the quotes of the row in line {line} do not say where it ends, or only "
        f"after more than {MAX_LINE_BYTES} bytes.",
        "Nothing was taken. Write it anew: a field that has a quote in it stands in quotes, each quote inside twice.",
        path=file.name,
        lines=[line],
    )
