"""Event files with damage: sound ones in every format, and what transport, editors and bad exporters do to bytes.

A file and its damage are drawn apart, so that hypothesis finds a shorter one by leaving damage away. In the sound ones
stand people who are active, people who ask to be erased, and `BAIT`, who stands only inside of other texts and never
asked: who erases it has taken a piece of a text for a row.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any, Literal
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

Format = Literal["csv", "json", "parquet"]
Row = Mapping[str, Any]

BAIT = "bait"
DAY = "2025-02-01"
_PACKINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}
_LONG, _TOO_LONG = 140_000, (1 << 20) + 10


@dataclass(frozen=True)
class Sound:
    """A file without damage; what `packing` says is done to the content last."""

    format: Format
    ending: str
    content: bytes
    packing: str = ""

    def __repr__(self) -> str:
        return f"{self.ending}{self.packing} of {self.content!r}"


@dataclass(frozen=True)
class Damage:
    """One thing done to bytes: where, from 0 to below 1, and which of several, or how much."""

    kind: str
    at: float
    which: int

    def done_to(self, content: bytes) -> bytes:
        """The bytes with it."""
        return _KINDS[self.kind](content, int(self.at * len(content)), self.which)


@dataclass(frozen=True)
class Damaged:
    """A file with damage to its content, and to its bytes once it is packed."""

    sound: Sound
    inside: tuple[Damage, ...]
    outside: tuple[Damage, ...] = ()

    @property
    def name(self) -> str:
        return f"e.{self.sound.ending}{self.sound.packing}"

    @property
    def content(self) -> bytes:
        """The bytes before they are packed."""
        content = self.sound.content
        for damage in self.inside:
            content = damage.done_to(content)
        return content

    @property
    def stored(self) -> bytes:
        """The bytes as they lie there."""
        stored = _PACKINGS[self.sound.packing](self.content)
        for damage in self.outside:
            stored = damage.done_to(stored)
        return stored


def damaged(kind: Format) -> st.SearchStrategy[Damaged]:
    """Files of one format with one to four damages."""
    files = st.sampled_from([file for file in sound_files() if file.format == kind])
    places = st.floats(0, 1, exclude_max=True, width=32).filter(lambda at: at < 1)
    damages = st.builds(Damage, st.sampled_from(_OF_FORMAT[kind]), places, st.integers(0, 255))
    outside = st.builds(Damage, st.sampled_from(_OF_BYTES), places, st.integers(0, 255))
    plain = st.builds(Damaged, files, st.lists(damages, min_size=1, max_size=4).map(tuple))
    packed = st.builds(
        Damaged,
        files.filter(lambda file: file.packing != ""),
        st.lists(damages, max_size=1).map(tuple),
        st.lists(outside, min_size=1, max_size=2).map(tuple),
    )
    return plain if kind == "parquet" else plain | plain | plain | packed


def damaged_around_bait() -> st.SearchStrategy[Damaged]:
    """CSV files whose damage lies where a quote begins or ends the text that the bait stands in."""
    files = [file for file in sound_files() if file.format == "csv" and b'"said:' in file.content]
    kinds = st.sampled_from(["sign left out", "bytes cut out", "sign put in", "sign for a byte", "byte replaced"])

    def around(file: Sound) -> st.SearchStrategy[Damaged]:
        first, length = file.content.find(b'"said:'), len(file.content)
        places = st.one_of(st.just(first), st.integers(max(0, first - 3), min(first + 60, length - 1)))
        damages = st.builds(Damage, kinds, places.map(lambda place: (place + 0.5) / length), st.integers(0, 255))
        return st.builds(Damaged, st.just(file), st.lists(damages, min_size=1, max_size=2).map(tuple))

    return st.sampled_from(files).flatmap(around)


# --- Kinds of damage ----------------------------------------------------------------------------------------------

_SIGNS: Sequence[bytes] = [
    *(sign.encode() for sign in ('"', '""', "\\", '\\"', "\r", "\n", "\r\n", "\n\n", "\0", ",", ";", "\t", "|")),
    *(sign.encode() for sign in ("[", "]", "{", "}", ":", "-", "+", " ", "'", "#", "\ufeff", "é", "e\u0301", "\u2028")),
    *(sign.encode() for sign in ("\x0b", "\x1c", "\x85", "null", "NaN", "1e999", "-0", "\\u0000", "\\ud800", "/**/")),
    b"\xff",
    b"\xff\xfe",
    b"\xc3",
    b'","',
    b'"\n"',
    b'",\n',
    b"}{",
    b"}\n{",
    b'"op":"-",',
    f"\n{BAIT},-,{DAY}\n".encode(),
]


def _replaced(content: bytes, at: int, which: int) -> bytes:
    return content[:at] + bytes([which]) + content[at + 1 :]


def _flipped(content: bytes, at: int, which: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << which % 8]) + content[at + 1 :] if content else b""


def _cut(content: bytes, at: int, which: int) -> bytes:
    return content[:at] + content[at + 1 + which % 12 :]


def _doubled(content: bytes, at: int, which: int) -> bytes:
    return content[: at + 1 + which] + content[at:]


def _ended(content: bytes, at: int, _: int) -> bytes:
    return content[:at]


def _begun_late(content: bytes, at: int, _: int) -> bytes:
    return content[at:]


def _with_sign(content: bytes, at: int, which: int) -> bytes:
    return content[:at] + _SIGNS[which % len(_SIGNS)] + content[at:]


def _with_sign_for_byte(content: bytes, at: int, which: int) -> bytes:
    return content[:at] + _SIGNS[which % len(_SIGNS)] + content[at + 1 :]


def _without_sign(content: bytes, at: int, which: int) -> bytes:
    """Without the next quote, comma, brace or line's end."""
    place = content.find(b'",\n{}[]:'[which % 8 : which % 8 + 1], at)
    return content if place < 0 else content[:place] + content[place + 1 :]


def _of_lines(change: Callable[[list[bytes], int, int], list[bytes]]) -> Callable[[bytes, int, int], bytes]:
    def done(content: bytes, at: int, which: int) -> bytes:
        lines = content.splitlines(keepends=True)
        return b"".join(change(lines, content.count(b"\n", 0, at) % len(lines), which % len(lines))) if lines else b""

    return done


def _swapped(lines: list[bytes], at: int, other: int) -> list[bytes]:
    lines[at], lines[other] = lines[other], lines[at]
    return lines


def _with_name(content: bytes, at: int, which: int) -> bytes:
    """One field is called as another one is, or not at all."""
    names = (b"user_id", b"op", b"day", b"ts", b"metadata", b"note", b"", b"USER_ID", b"metadata.dais")
    place = content.find(names[at % 6])
    return content if place < 0 else content[:place] + names[which % 9] + content[place + len(names[at % 6]) :]


def _long(content: bytes, at: int, which: int) -> bytes:
    return content[:at] + b"x" * (_LONG if which % 16 else _TOO_LONG) + content[at:]


def _nested(content: bytes, at: int, which: int) -> bytes:
    signs = (b"[", b'{"a":')[which % 2]
    return content[:at] + signs * (which * which) + content[at:]


def _in_encoding(content: bytes, _: int, which: int) -> bytes:
    name = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "latin-1")[which % 6]
    return content.decode(errors="replace").encode(name, "replace")


_KINDS: Mapping[str, Callable[[bytes, int, int], bytes]] = {
    "sign put in": _with_sign,
    "sign for a byte": _with_sign_for_byte,
    "sign left out": _without_sign,
    "bytes cut out": _cut,
    "bytes doubled": _doubled,
    "byte replaced": _replaced,
    "bit flipped": _flipped,
    "cut short": _ended,
    "begun late": _begun_late,
    "line doubled": _of_lines(lambda lines, at, other: [*lines[:other], lines[at], *lines[other:]]),
    "line left out": _of_lines(lambda lines, at, _: [*lines[:at], *lines[at + 1 :]]),
    "lines swapped": _of_lines(_swapped),
    "named otherwise": _with_name,
    "long": _long,
    "nested": _nested,
    "encoded otherwise": _in_encoding,
}
_OF_BYTES = ["bit flipped", "byte replaced", "bytes cut out", "bytes doubled", "cut short", "begun late"]
_RARE = ["long", "nested", "encoded otherwise"]
_COMMON = [kind for kind in _KINDS if kind not in _RARE]
_OF_FORMAT: Mapping[Format, Sequence[str]] = {
    "csv": [*_COMMON, "sign put in", *_COMMON, "sign put in", *_RARE],
    "json": [*_COMMON, "sign put in", *_COMMON, "sign put in", *_RARE],
    "parquet": ["bit flipped", "byte replaced"] * 4 + _OF_BYTES,
}


# --- Sound files --------------------------------------------------------------------------------------------------

_PEOPLE = ("ann", "101", "zoë", 'say "hi"', "b,c;d|e\tf", "two\nlines", "a\\b", " x ", "null", "c:\\")
_ASKED = ("gone-1", "gone,2", '"gone"')
_TIMES = ("2025-02-01T10:00:00Z", "1738404000", "2025-02-01 10:00:00+01", "1738404000123")


def _rows(count: int, bait: str, first: int = 0) -> list[Row]:
    """So many people, from the first of `_PEOPLE` that is asked for, and those who ask to be erased among them."""
    rows: list[Row] = [
        {
            "user_id": _PEOPLE[(first + place) % len(_PEOPLE)],
            "op": "+",
            "day": DAY if place % 3 else None,
            "ts": _TIMES[place % len(_TIMES)],
            "metadata": None,
            "note": (None, "n", bait, 'a "quoted" word')[place % 4],
        }
        for place in range(count)
    ]
    for place, user_id in enumerate(_ASKED):
        days = ["2025-01-02", "2025-01-03"][: place % 3]
        asks = {"user_id": user_id, "op": "-", "day": DAY, "ts": None, "metadata": {"days": days} if days else None}
        rows.insert((2 + 3 * place) % len(rows), {**asks, "note": bait if place == 1 else None})
    return rows


@cache
def sound_files() -> list[Sound]:
    """Files of every format, the simplest first."""
    return [*_csv_files(), *_json_files(), *_parquet_files()]


def _csv_files() -> Iterator[Sound]:
    orders = [
        ["user_id", "op", "day", "ts", "metadata.days", "note"],
        ["note", "day", "op", "metadata.days", "ts", "user_id"],
        ["user_id", "op", "day"],
        ["op", "note", "user_id", "ts"],
        ["user_id", "ts"],
    ]
    number = 0
    for names in orders:
        for delimiter in ",;\t|":
            for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
                number += 1
                packing = (*_PACKINGS, "", "")[number % 6]
                end = "\r\n" if number % 3 == 0 else "\n"
                text = _csv_text(
                    _rows(2 + number % 5, _csv_bait(names, delimiter), number), names, delimiter, quoting, end
                )
                yield Sound("csv", "csv", _encoded(text, number), packing)


def _csv_bait(names: Sequence[str], delimiter: str) -> str:
    """Lines of a text, one of which could be a row."""
    fields = {"user_id": BAIT, "op": "-", "day": DAY, "ts": DAY}
    return f"said:\n{delimiter.join(fields.get(name, '') for name in names)}\nbye"


def _csv_text(rows: Sequence[Row], names: Sequence[str], delimiter: str, quoting: Any, end: str) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text, names, delimiter=delimiter, quoting=quoting, lineterminator=end, extrasaction="ignore"
    )
    writer.writeheader()
    for row in rows:
        listed = (row["metadata"] or {}).get("days", [])
        writer.writerow({**row, "metadata.days": ";".join(listed)})
    return text.getvalue()


def _encoded(text: str, number: int) -> bytes:
    return text.encode("utf-16" if number % 11 == 0 else "utf-8-sig" if number % 7 == 0 else "utf-8")


def _json_files() -> Iterator[Sound]:
    number = 0
    lines: Sequence[Callable[[Sequence[Row]], str]] = [
        lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
        lambda rows: "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\r\n" for row in rows),
    ]
    whole: Sequence[Callable[[Sequence[Row]], str]] = [
        lambda rows: json.dumps(rows),
        lambda rows: json.dumps(rows, indent=1, ensure_ascii=False),
        lambda rows: "[" + ",\n".join(json.dumps(row) for row in rows) + "]\n",
        lambda rows: json.dumps({"sent": DAY, "batch": rows}),
        lambda rows: json.dumps({"events": rows, "next": None}, indent=2),
        lambda rows: "".join(json.dumps({"data": [row]}) + "\n" for row in rows),
        lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows),
    ]
    for layout in (*lines * 3, *whole):  # lines are read in a tenth of the time, and are what most people have
        for ids in (str, _odd_id):
            for packing in (*_PACKINGS, "", ""):
                number += 1
                rows = [_json_row(row, ids, number) for row in _rows(2 + number % 4, _json_bait(), number)]
                yield Sound("json", "json", _encoded(layout(rows), number), packing)


def _json_bait() -> str:
    return f"said:\n{_json_bait_row()}\nbye"


def _json_bait_row() -> str:
    return json.dumps({"user_id": BAIT, "op": "-", "day": DAY})


def _odd_id(user_id: str) -> object:
    return int(user_id) if user_id.isdigit() else {"ann": 7.0, "null": None, "c:\\": 10**20}.get(user_id, user_id)


def _json_row(row: Row, ids: Callable[[str], object], number: int) -> Row:
    whole = {**row, "user_id": ids(row["user_id"])}
    if number % 4 == 1:
        whole["inner"] = {"user_id": BAIT, "op": "-", "list": [json.loads(_json_bait_row())]}
    if number % 2:
        return {name: value for name, value in whole.items() if value is not None}
    return dict(reversed(whole.items()))


def _parquet_files() -> Iterator[Sound]:
    rows = _rows(5, _json_bait())
    ids: Sequence[pa.Array] = [
        pa.array([row["user_id"] for row in rows]),
        pa.array([row["user_id"] for row in rows]).dictionary_encode(),
        pa.array([row["user_id"].encode() for row in rows], pa.binary()),
        pa.array(range(len(rows)), pa.int64()),
        pa.array([Decimal(place) for place in range(len(rows))], pa.decimal128(20, 2)),
        pa.array([UUID(int=place).bytes for place in range(len(rows))], pa.binary(16)),
        pa.array([float(place) for place in range(len(rows))]),
    ]
    metadata: Sequence[pa.Array] = [
        pa.array([row["metadata"] for row in rows], pa.struct([("days", pa.list_(pa.string()))])),
        pa.array([row["metadata"] and json.dumps(row["metadata"]) for row in rows]),
    ]
    ways: Sequence[Mapping[str, Any]] = [
        {"compression": "none", "use_dictionary": False},
        {"compression": "snappy"},
        {"compression": "zstd", "data_page_version": "2.0", "row_group_size": 3},
        {"compression": "gzip", "write_statistics": False, "write_page_checksum": True},
    ]
    for place, user_id in enumerate(ids):
        for way in ways:
            table = pa.table(
                {
                    "user_id": user_id,
                    "op": pa.array([row["op"] for row in rows]),
                    "day": pa.array([row["day"] for row in rows]),
                    "ts": _moments(rows, place),
                    "metadata": metadata[place % 2],
                    "note": pa.array([row["note"] for row in rows]),
                }
            )
            buffer = io.BytesIO()
            pq.write_table(table, buffer, **way)
            yield Sound("parquet", "parquet", buffer.getvalue(), ".gz" if place == 1 else "")


def _moments(rows: Sequence[Row], place: int) -> pa.Array:
    kinds = [pa.int64(), pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.timestamp("ms"), pa.date32(), pa.float64()]
    kind = kinds[place % len(kinds)]
    seconds = pa.array([None if row["op"] == "-" else 1_738_404_000 for row in rows])
    if pa.types.is_timestamp(kind):
        return (
            seconds.cast(pa.timestamp("s")).cast(kind)
            if kind.tz is None
            else seconds.cast(pa.timestamp("s", "UTC")).cast(kind)
        )
    return seconds.cast(pa.timestamp("s")).cast(kind) if kind == pa.date32() else seconds.cast(kind)
