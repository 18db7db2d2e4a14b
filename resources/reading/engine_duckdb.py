"""The port Engine on DuckDB: event files in bulk, each distinct user held once, raw ids in memory only.

DuckDB gets no folder to spill to: its temporary files would hold raw ids, and it can encrypt them only with an
extension that does not come with it. More people than fit into the memory limit are read in parts: the files are read
again for each, and a part has the people whose ids have one remainder of a hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from math import ceil

import duckdb
import numpy as np
import numpy.typing as npt
from duckdb import DuckDBPyConnection

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.event_shape import PLAIN, EventShape
from dpdau_assets.core.events import GIVEN, Event, Limits, day_of_second
from dpdau_assets.core.facts import DaySet, EpochKey, Keys, RejectedRow, Rejections
from dpdau_assets.core.ports.events import Tell, nothing_told
from dpdau_assets.core.user_ids import normalize
from resources.arrow_arrays import to_numpy
from resources.reading.event_query import Readable
from resources.reading.event_reading import (
    BLOCK_DAYS,
    Part,
    Reading,
    TooManyPeople,
    changed,
    failed,
    own_words,
    quiet,
    watched,
)
from resources.reading.event_sql import USER_KEY
from resources.reading.reading_progress import ReadingProgress

_ROWS_AT_ONCE = 10_000
_HMAC_BLOCK_BYTES = 64
_BYTES_A_PERSON = 400
"""About what one takes in DuckDB while a part is read, with an id of some twenty letters."""
_MOST_PARTS = 1 << 10
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


class DuckDBEngine:
    """Each scan has an in-memory database of its own."""

    def __init__(self, memory_limit: str = "2GB", threads: int | None = None) -> None:
        """`memory_limit` bounds DuckDB, not the arrays of keys beside it; `threads` are all cores by default."""
        self._memory_limit = memory_limit
        self._threads = threads

    @contextmanager
    def scan(
        self,
        files: Sequence[Readable],
        limits: Limits,
        tell: Tell = nothing_told,
        shape: EventShape = PLAIN,
    ) -> Iterator[DuckDBScan]:
        """Read and judge every row of these files. The scan's answers are there until the context ends."""
        with duckdb.connect(":memory:", config=self._config()) as connection:
            progress = ReadingProgress(connection, sum(file.size for file in files), tell)
            reading = Reading(watched(connection), files, shape, limits, progress)
            yield DuckDBScan(connection, reading, _read(reading, self._memory_limit), files, limits)

    def _config(self) -> dict[str, str | bool | int | float | list[str]]:
        return {
            "memory_limit": self._memory_limit,
            "temp_directory": "",
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "disabled_optimizers": "in_clause",  # over a list of five values it thinks for half a minute
            **({"threads": self._threads} if self._threads else {}),
        }


def _read(reading: Reading, memory_limit: str) -> int:
    """Read the first part, of as few as fit into memory, and return how many there are."""
    parts = 1
    while True:
        try:
            reading.read(Part(0, parts))
        except TooManyPeople:
            if parts >= _MOST_PARTS:
                raise _no_room() from None
            parts = 2 * parts if parts > 1 else max(2, ceil(reading.people() * _BYTES_A_PERSON / _bytes(memory_limit)))
        else:
            return parts


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Where it is too late to read in more parts."""
    try:
        yield
    except TooManyPeople:
        raise _no_room() from None


def _no_room() -> BadInput:
    return BadInput(
        "These files name more people at once, or hold more bad rows or removals, than fit into memory; nothing of "
        "them was taken, but perhaps removals.",
        "Hand in fewer files at a time (each file may be a part of a day).",
    )


def _bytes(memory_limit: str) -> int:
    number, unit = memory_limit[:-2], memory_limit[-2:]
    return int(number) * _UNITS[unit]


class DuckDBScan:
    """The port Scan, on the tables that `event_reading` has filled."""

    def __init__(
        self,
        connection: DuckDBPyConnection,
        reading: Reading,
        parts: int,
        files: Sequence[Readable],
        limits: Limits,
    ) -> None:
        self.accepted = reading.accepted
        self.idle = reading.idle
        self.remarks: Sequence[str] = reading.remarks()
        self._connection = connection
        self._reading = reading
        self.part_count = parts
        self._files = files
        self._limits = limits

    def rejected(self) -> Iterator[RejectedRow]:
        """In order of files and lines."""
        for file, line, code in self._rows("SELECT file, line, code FROM odd WHERE code > 0 ORDER BY file, line"):
            yield RejectedRow(self._files[file].name, line, GIVEN[code - 1])

    def rejections(self) -> Rejections:
        rows = self._rows("SELECT file, code, count(*) FROM odd WHERE code > 0 GROUP BY ALL ORDER BY ALL")
        return Rejections({(self._files[file].name, GIVEN[code - 1]): count for file, code, count in rows})

    def elsewhere(self) -> dict[date, float]:
        rows = self._rows("SELECT day, sum(elsewhere) / sum(rows) AS share FROM placed GROUP BY day ORDER BY day")
        return {day: share for day, share in rows if share}

    def days(self) -> list[date]:
        rows = self._rows("SELECT block, mask FROM counted ORDER BY block")
        return [self._day(block, bit) for block, mask in rows for bit in range(BLOCK_DAYS) if mask >> bit & 1]

    def removals(self) -> Iterator[Event]:
        rows = self._rows(
            """SELECT DISTINCT user_id, day, coalesce(list_sort(list_distinct(listed)), []) AS days, second
            FROM odd WHERE code = 0 ORDER BY ALL"""
        )
        removals = (
            Event(
                normalize(user_id, self._limits.normalize),
                "-",
                day if second is None else day_of_second(second, self._limits.zone) or day,
                tuple(days),
            )
            for user_id, day, days, second in rows
        )
        yield from dict.fromkeys(removals)

    def parts(self) -> Iterator[DuckDBScan]:
        """This scan, as often as there are parts, with the people of one part each time."""
        rows = 0
        for number in range(self.part_count):
            if self._reading.part.number != number:
                with _enough_memory():
                    self._reading.read(Part(number, self.part_count))
            rows += self._reading.part_rows
            yield self
        if rows != self._reading.plus_rows:
            raise changed(self._files)

    def user_days(self, key: EpochKey, first: date, last: date) -> Iterator[DaySet]:
        """Days of the part that was read last. Hashes each user who has a day there once.

        Memory: every user's key, and the bits of one block of days.
        """
        first_block, last_block = ((day - self._limits.first).days // BLOCK_DAYS for day in (first, last))
        present = f"SELECT * FROM bits WHERE block BETWEEN {first_block} AND {last_block}"
        blocks = [block for (block,) in self._rows(f"SELECT DISTINCT block FROM ({present}) ORDER BY block")]
        users = SortedUsers(
            *self._arrays(
                f"SELECT id, {USER_KEY} AS key FROM users WHERE id IN (SELECT id FROM ({present}))",
                hmac_blocks(key.secret),
            )
        )
        for block in blocks:
            masks = users.in_order(*self._arrays(f"SELECT id, mask FROM bits WHERE block = {block}"))
            for bit in range(BLOCK_DAYS):
                day = self._day(block, bit)
                if first <= day <= last and len(keys := users.with_bit(masks, bit)):
                    yield DaySet(day, key.epoch, keys)

    def _rows(self, query: str, parameters: Sequence[bytes] = ()) -> Iterator[tuple]:
        """Rows a few at a time, by a cursor of their own, so that other queries may run in between."""
        with _enough_memory(), own_words(failed), self._connection.cursor() as cursor:
            quiet(cursor).execute(query, parameters)
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                yield from rows

    def _arrays(self, query: str, parameters: Sequence[bytes] = ()) -> list[np.ndarray]:
        """A column of ids, and one of keys or masks."""
        with _enough_memory(), own_words(failed):
            table = self._connection.sql(query, params=list(parameters)).to_arrow_table()
        return [to_numpy(column, kind) for column, kind in zip(table.columns, (np.int64, np.uint64), strict=True)]

    def _day(self, block: int, bit: int) -> date:
        return self._limits.first + timedelta(days=block * BLOCK_DAYS + bit)


class SortedUsers:
    """The keys of all users, sorted once; each day's keys come out sorted by picking."""

    def __init__(self, ids: npt.NDArray[np.int64], keys: Keys) -> None:
        """`ids` are distinct and not negative, and `keys` in the same order. Two users may have the same key."""
        order = np.argsort(keys)
        self._keys = keys[order]
        self._places = np.zeros(int(ids.max(initial=-1)) + 1, dtype=np.int64)
        self._places[ids[order]] = np.arange(len(ids))
        self._are_distinct = bool((self._keys[1:] != self._keys[:-1]).all())

    def in_order(self, ids: npt.NDArray[np.int64], masks: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """The masks of users `ids` in the order of keys, and 0 for all others."""
        ordered = np.zeros(len(self._keys), dtype=np.uint64)
        ordered[self._places[ids]] = masks
        return ordered

    def with_bit(self, masks: npt.NDArray[np.uint64], bit: int) -> Keys:
        """The keys, sorted and distinct, of the users whose mask has this bit."""
        keys = self._keys[(masks & np.uint64(1 << bit)) != 0]
        return keys if self._are_distinct else np.unique(keys)


def hmac_blocks(secret: bytes) -> tuple[bytes, bytes]:
    """The outer and the inner block of HMAC-SHA-256 (RFC 2104)."""
    padded = (hashlib.sha256(secret).digest() if len(secret) > _HMAC_BLOCK_BYTES else secret).ljust(
        _HMAC_BLOCK_BYTES, b"\0"
    )
    return bytes(byte ^ 0x5C for byte in padded), bytes(byte ^ 0x36 for byte in padded)
