"""The port Engine on DuckDB: event files in bulk, each distinct user held once, raw ids in memory only.

DuckDB gets no folder to spill to: its temporary files would hold raw ids, and it can encrypt them only with an
extension that does not come with it. What does not fit into the memory limit is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import numpy.typing as npt
from duckdb import DuckDBPyConnection

from dpdau_assets.core.events import GIVEN, Event, Limits, day_of_second
from dpdau_assets.core.facts import DaySet, EpochKey, Keys, RejectedRow, Rejections
from dpdau_assets.core.ports.events import Tell, nothing_told
from resources.reading.event_reading import (
    BLOCK_DAYS,
    failed,
    own_words,
    quiet,
    read_files,
    watched,
)
from resources.reading.event_sql import USER_KEY

_ROWS_AT_ONCE = 10_000
_HMAC_BLOCK_BYTES = 64


class DuckDBEngine:
    """Each scan has an in-memory database of its own."""

    def __init__(self, timezone: str, memory_limit: str = "2GB", threads: int | None = None) -> None:
        """`memory_limit` bounds DuckDB, not the arrays of keys beside it; `threads` are all cores by default."""
        self._zone = ZoneInfo(timezone)
        self._memory_limit = memory_limit
        self._threads = threads

    @contextmanager
    def scan(
        self, files: Sequence[Path], first_day: date, last_day: date, tell: Tell = nothing_told
    ) -> Iterator[DuckDBScan]:
        """Read and judge every row of these files. The scan's answers are there until the context ends."""
        with duckdb.connect(":memory:", config=self._config()) as connection:
            limits = Limits(first_day, last_day, self._zone)
            accepted = read_files(watched(connection), files, limits, tell)
            yield DuckDBScan(connection, files, first_day, accepted, self._zone)

    def _config(self) -> dict[str, str | bool | int | float | list[str]]:
        return {
            "memory_limit": self._memory_limit,
            "temp_directory": "",
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            **({"threads": self._threads} if self._threads else {}),
        }


class DuckDBScan:
    """The port Scan, on the tables that `event_reading` has filled."""

    def __init__(
        self, connection: DuckDBPyConnection, files: Sequence[Path], first_day: date, accepted: int, zone: ZoneInfo
    ) -> None:
        self.accepted = accepted
        self._zone = zone
        self._connection = connection
        self._files = files
        self._first_day = first_day

    def rejected(self) -> Iterator[RejectedRow]:
        """In order of files and lines."""
        for file, line, code in self._rows("SELECT file, line, code FROM odd WHERE code > 0 ORDER BY file, line"):
            yield RejectedRow(str(self._files[file]), line, GIVEN[code - 1])

    def rejections(self) -> Rejections:
        rows = self._rows("SELECT file, code, count(*) FROM odd WHERE code > 0 GROUP BY ALL ORDER BY ALL")
        return Rejections({(str(self._files[file]), GIVEN[code - 1]): count for file, code, count in rows})

    def elsewhere(self) -> dict[date, float]:
        rows = self._rows("SELECT day, sum(elsewhere) / sum(rows) AS share FROM placed GROUP BY day ORDER BY day")
        return {day: share for day, share in rows if share}

    def days(self) -> list[date]:
        rows = self._rows("SELECT block, bit_or(mask) FROM bits GROUP BY block ORDER BY block")
        return [self._day(block, bit) for block, mask in rows for bit in range(BLOCK_DAYS) if mask >> bit & 1]

    def removals(self) -> Iterator[Event]:
        rows = self._rows(
            """SELECT DISTINCT user_id, day, coalesce(list_sort(list_distinct(listed)), []) AS days, second
            FROM odd WHERE code = 0 ORDER BY ALL"""
        )
        removals = (
            Event(user_id, "-", day if second is None else day_of_second(second, self._zone) or day, tuple(days))
            for user_id, day, days, second in rows
        )
        yield from dict.fromkeys(removals)

    def user_days(self, key: EpochKey, first: date, last: date) -> Iterator[DaySet]:
        """Hashes each user who has a day there once. Memory: every user's key, and the bits of one block of days."""
        first_block, last_block = ((day - self._first_day).days // BLOCK_DAYS for day in (first, last))
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
        with own_words(failed), self._connection.cursor() as cursor:
            quiet(cursor).execute(query, parameters)
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                yield from rows

    def _arrays(self, query: str, parameters: Sequence[bytes] = ()) -> list[np.ndarray]:
        with own_words(failed):
            table = self._connection.sql(query, params=list(parameters)).to_arrow_table()
        return [column.to_numpy() for column in table.columns]

    def _day(self, block: int, bit: int) -> date:
        return self._first_day + timedelta(days=block * BLOCK_DAYS + bit)


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
