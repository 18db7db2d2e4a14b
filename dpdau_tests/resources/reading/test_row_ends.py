"""Where rows of text end, by bytes alone: held to Python's own CSV reader, and to its lines."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resources.reading import row_ends
from resources.reading.row_ends import CsvRows, Unclear, blocks_of_lines, row_lines

PIECES = st.lists(
    st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r", "a", "é", " ", "-", '"x"', "\n\n", '"\n"']), max_size=14
)


def looked(content: bytes, columns: int = 2) -> CsvRows:
    rows = CsvRows(",", columns)
    for block in blocks_of_lines(io.BytesIO(content), 1 << 20):
        rows.look(block)
    rows.end()
    return rows


def numbered(content: bytes, *, is_csv: bool) -> list[int]:
    blocks = blocks_of_lines(io.BytesIO(content), 1 << 20)
    return [line for lines in row_lines(blocks, 1, is_csv=is_csv) for line in lines.tolist()]


@given(PIECES, st.integers(1, 7))
@example(["a", "\n", '"', "\n", '"', ",", "b", "\n"], 2)
@example(["\n", "\n", "a"], 1)
def test_rows_that_are_clear_are_those_that_a_csv_reader_finds_and_begin_in_its_lines(
    pieces: list[str], block: int
) -> None:
    text = "".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_ends, "_BLOCK_BYTES", block)
        try:
            found = looked(text.encode())
        except Unclear:
            return
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        begun, begins = 1, []
        for fields in reader:
            if fields:
                begins.append(begun)
            begun = reader.line_num + 1
        assert found.rows == len(begins)
        assert numbered(text.encode(), is_csv=True) == begins
        assert found.has_breaks == any(
            "\n" in field for fields in csv.reader(io.StringIO(text, newline="")) for field in fields
        )


@pytest.mark.parametrize(
    "content",
    [
        b'a,"b\n',
        b'a,b"c\n',
        b'a, "b"\n',
        b'a,"b" \n',
        b'a,"b"c"\n',
        b"a,b\r\nc,d\n",
        b"a,b\nc,d\r\n",
        b"a,b\rc,d\n",
        b"a,\xff\n",
        b"a,\0\n",
        b'a,\\"b\n',
    ],
)
def test_bytes_that_readers_of_csv_take_differently_are_unclear(content: bytes) -> None:
    with pytest.raises(Unclear):
        looked(content)


@pytest.mark.parametrize("content", [b"a\n \nb\n", b"a\n\nb\n", b"a\n\n", b"a\n\xc2\xa0\n"])
def test_a_line_of_white_space_is_unclear_where_there_is_one_column(content: bytes) -> None:
    assert looked(content.replace(b"\n", b",\n")).rows
    with pytest.raises(Unclear):
        looked(content, columns=1)


def test_a_line_that_goes_on_is_unclear_before_it_is_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_ends, "_BLOCK_BYTES", 1 << 12)
    with pytest.raises(Unclear):
        list(blocks_of_lines(io.BytesIO(b"x" * (1 << 20) + b"\n"), 1 << 16))


@given(st.lists(st.sampled_from(["{}", " ", "\t", "\r", "", "x", '"']), max_size=12), st.integers(1, 5))
def test_rows_of_json_lines_are_the_lines_that_hold_more_than_white_space(lines: list[str], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_ends, "_BLOCK_BYTES", block)
        content = "\n".join(lines).encode()
        expected = [number for number, line in enumerate(content.split(b"\n"), 1) if line.strip(b" \t\r\n")]
        assert numbered(content, is_csv=False) == expected
