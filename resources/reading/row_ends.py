"""Where rows of text end: whether a CSV's quotes leave that open, and in which line the n-th row begins.

DuckDB reads CSV and JSON Lines fast and does not say in which line a row stands. What is here looks at bytes alone, a
block at a time, and is what decides whether DuckDB may read a CSV at all: where its quotes are not those of RFC 4180 to
the letter, `event_csv` reads it instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

_BLOCK_BYTES = 1 << 18  # what is looked at several times is still in a core's cache then
_QUOTE, _LINE, _RETURN = (ord(sign) for sign in '"\n\r')
_WHITE_LINE = re.compile(rb"(?m)^\s*$")
WHITE = b" \t\n\v\f\r"
"""What DuckDB passes over around a JSON value."""


Lines = npt.NDArray[np.int64]


class Unclear(Exception):
    """The bytes leave open where a row ends, or how it is read: DuckDB may not read them."""


class CsvRows:
    """Looks at a CSV block by block. Each but the last ends with a line's end; a row may go on in the next block."""

    def __init__(self, delimiter: str, columns: int) -> None:
        self.rows = 0
        """Rows that ended by now, the header among them; blank lines are none."""
        self.has_breaks = False
        """Whether a field has a line break in it."""
        self._delimiter = ord(delimiter)
        self._columns = columns
        self._is_quoted = False
        self._has_returns: bool | None = None

    def look(self, block: bytes) -> int:
        """How many of the block's bytes belong to whole rows. Raises Unclear."""
        has_quotes = b'"' in block
        if not _is_utf8(block) or b"\0" in block or (has_quotes and b'\\"' in block):  # read in two ways by readers
            raise Unclear
        self._require_one_line_end(block)
        if self._columns == 1 and (not block.isascii() or _WHITE_LINE.search(block.removesuffix(b"\n"))):
            raise Unclear  # a line of white space, which is a row to DuckDB and none to others
        if self._is_quoted or has_quotes:
            return self._look_at_quotes(block)
        is_end = np.frombuffer(block, dtype=np.uint8) == _LINE
        self.rows += int(np.count_nonzero(is_end)) + (not block.endswith(b"\n")) - _blank_lines(block, is_end)
        return len(block)

    def end(self) -> None:
        """Raises Unclear if the last row's quotes are open."""
        if self._is_quoted:
            raise Unclear

    def _require_one_line_end(self, block: bytes) -> None:
        has_returns = b"\r" in block  # the sign alone is found far faster than it is counted
        if not has_returns and self._has_returns is False:
            return
        returns, lines = block.count(b"\r") if has_returns else 0, block.count(b"\n")
        if self._has_returns is None and lines:
            self._has_returns = returns > 0
        if returns and (not self._has_returns or not returns == lines == block.count(b"\r\n")):
            raise Unclear
        if self._has_returns and not returns and lines:
            raise Unclear

    def _look_at_quotes(self, block: bytes) -> int:
        signs = np.frombuffer(block, dtype=np.uint8)
        quotes = np.flatnonzero(signs == _QUOTE)
        is_closing = (np.arange(len(quotes)) + self._is_quoted) % 2 == 1
        self._require_places(signs, quotes, is_closing)
        lines = np.flatnonzero(signs == _LINE)
        is_inside = (np.searchsorted(quotes, lines) + self._is_quoted) % 2 == 1
        ends = lines[~is_inside]
        self.has_breaks = self.has_breaks or bool(is_inside.any())
        self._is_quoted = bool((len(quotes) + self._is_quoted) % 2)
        last = int(ends[-1]) + 1 if len(ends) else 0
        is_cut_short = not block.endswith(b"\n") and not self._is_quoted  # the last row may have no line's end
        self.rows += len(ends) + is_cut_short - _blank_ends(signs, ends)
        return len(block) if is_cut_short else last

    def _require_places(self, signs: np.ndarray, quotes: np.ndarray, is_closing: np.ndarray) -> None:
        """An opening quote begins a field, or is the second of two; a closing one ends it, or is the first of two."""
        padded = np.concatenate(([_LINE], signs, [_LINE]))
        before, after = padded[quotes], padded[quotes + 2]
        begins = (before == self._delimiter) | (before == _LINE) | (before == _QUOTE)
        ends = (after == self._delimiter) | (after == _LINE) | (after == _RETURN) | (after == _QUOTE)
        if not (np.where(is_closing, ends, begins)).all():
            raise Unclear


def blocks_of_lines(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """The bytes in blocks that end where a line ends, but for the last. Raises Unclear for a line of more bytes."""
    rest = bytearray()
    while block := stream.read(_BLOCK_BYTES):
        cut = block.rfind(b"\n") + 1
        if cut:
            yield bytes(rest) + block[:cut]
            rest.clear()
        rest += block[cut:]
        if len(rest) > most:
            raise Unclear
    if rest:
        yield bytes(rest)


def row_lines(blocks: Iterable[bytes], first_line: int, *, is_csv: bool) -> Iterator[Lines]:
    """The line in which each row begins, block by block; rows of CSV are those that `CsvRows` has counted.

    Blocks end where a line ends. Blank lines, and those of white space in JSON Lines, are no rows.
    """
    line, is_quoted = first_line, False
    for block in blocks:
        signs = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(signs == _LINE)
        starts = np.concatenate(([0], ends + 1))
        starts = starts[starts < len(signs)]
        numbers = np.arange(line, line + len(starts))
        if is_csv and (is_quoted or b'"' in block):
            quotes = np.flatnonzero(signs == _QUOTE)
            outside = (np.searchsorted(quotes, starts) + is_quoted) % 2 == 0
            is_quoted = bool((len(quotes) + is_quoted) % 2)
            line += len(ends)
            starts, numbers = starts[outside], numbers[outside]
        else:
            line += len(ends)
        yield numbers[~_is_blank(signs, starts, b"\r\n" if is_csv else WHITE)]


def _is_blank(signs: np.ndarray, starts: np.ndarray, white: bytes) -> np.ndarray:
    """Which of the lines that begin there hold nothing but such bytes."""
    blank = np.zeros(len(starts), dtype=bool)
    for place in np.flatnonzero(np.isin(signs[starts], tuple(white))):
        end = starts[place + 1] if place + 1 < len(starts) else len(signs)
        blank[place] = not signs[starts[place] : end].tobytes().strip(white)
    return blank


def _blank_lines(block: bytes, is_end: npt.NDArray[np.bool_]) -> int:
    """How many lines hold nothing; counted only where there may be one."""
    has_blank = (
        block[:1] in (b"\n", b"\r") or bool((is_end[1:] & is_end[:-1]).any()) or (b"\r" in block and b"\n\r\n" in block)
    )
    return _blank_ends(np.frombuffer(block, dtype=np.uint8), np.flatnonzero(is_end)) if has_blank else 0


def _blank_ends(signs: np.ndarray, ends: np.ndarray) -> int:
    """How many of the rows that end there hold nothing."""
    padded = np.concatenate(([_LINE, _LINE], signs))  # two places on, so that what stands before the first is a line
    before, two_before = padded[ends + 1], padded[ends]
    return int(((before == _LINE) | ((before == _RETURN) & (two_before == _LINE))).sum())


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
