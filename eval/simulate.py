"""Synthetic events in bulk: a few users who come every day, many who come rarely, and quieter weekends.

Seeded, so that the same arguments give the same events. Nothing here is noise of a release.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dpdau_assets.core.errors import BadInput

DEFAULT_SEED = 20251009

_PREFIX = b"user-"
_DIGITS = 10
_WEEKEND = 0.75  # of a working day's events
_SKEW = 2.0  # a user's place is u², u uniform: 30 events a user in 30 days then make 16.7 user-days a user
_EVENTS_AT_ONCE = 1 << 20

_Places = npt.NDArray[np.int64]


def generate_synthetic(
    path: Path, *, days: int, users: int, events: int, first_day: date, seed: int = DEFAULT_SEED
) -> None:
    """Write this many '+' events of up to this many users, in order of days, as .parquet, .csv or .jsonl.

    Columns: user_id (`user-0000012345`), op, day. Raises BadInput for another ending or a number below 1.
    """
    if path.suffix not in (".parquet", ".csv", ".jsonl"):
        raise BadInput(f"{path} has no ending that can be written.", "End it in .parquet, .csv or .jsonl.")
    if min(days, users, events) < 1 or users > 10**_DIGITS:
        raise BadInput(f"{days} days, {users} users and {events} events cannot be written.", "Each must be at least 1.")
    pieces = _pieces(days, users, events, first_day, np.random.default_rng(seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        _write_parquet(path, pieces)
    else:
        _write_text(path, pieces)


def _pieces(
    days: int, users: int, events: int, first_day: date, random: np.random.Generator
) -> Iterator[tuple[date, _Places]]:
    """The users of each day's events, at most a million at a time."""
    calendar = [first_day + timedelta(days=n) for n in range(days)]
    weights = np.array([_WEEKEND if day.weekday() >= 5 else 1.0 for day in calendar])
    for day, count in zip(calendar, random.multinomial(events, weights / weights.sum()), strict=True):
        for start in range(0, count, _EVENTS_AT_ONCE):
            ranks = users * random.random(min(_EVENTS_AT_ONCE, count - start)) ** _SKEW
            yield day, _scattered(ranks.astype(np.int64), users)


def _scattered(ranks: _Places, users: int) -> _Places:
    """The users in another order, so that the busiest do not have neighbouring ids."""
    step = next(step for step in range(int(users * 0.618) + 1, 2 * users + 2) if np.gcd(step, users) == 1)
    return ranks * step % users


def _user_ids(places: _Places) -> npt.NDArray[np.uint8]:
    """One row of bytes a user: the prefix and ten digits."""
    ids = np.empty((len(places), len(_PREFIX) + _DIGITS), dtype=np.uint8)
    ids[:, : len(_PREFIX)] = np.frombuffer(_PREFIX, dtype=np.uint8)
    rest = places.copy()
    for column in range(ids.shape[1] - 1, len(_PREFIX) - 1, -1):
        rest, digit = np.divmod(rest, 10)
        ids[:, column] = digit + ord("0")
    return ids


def _write_parquet(path: Path, pieces: Iterator[tuple[date, _Places]]) -> None:
    schema = pa.schema([("user_id", pa.string()), ("op", pa.string()), ("day", pa.date32())])
    with pq.ParquetWriter(path, schema) as writer:
        for day, places in pieces:
            ids = _user_ids(places)
            edges = np.arange(len(ids) + 1, dtype=np.int32) * ids.shape[1]
            texts = pa.Array.from_buffers(pa.string(), len(ids), [None, pa.py_buffer(edges), pa.py_buffer(ids)])
            others = [pa.repeat(pa.scalar("+"), len(ids)), pa.repeat(pa.scalar(day, pa.date32()), len(ids))]
            writer.write_table(pa.table([texts, *others], schema=schema))


def _write_text(path: Path, pieces: Iterator[tuple[date, _Places]]) -> None:
    is_csv = path.suffix == ".csv"
    with path.open("wb") as file:
        if is_csv:
            file.write(b"user_id,op,day\n")
        for day, places in pieces:
            before, after = ("", f",+,{day}\n") if is_csv else ('{"user_id":"', f'","op":"+","day":"{day}"}}\n')
            file.write(_lines(before.encode(), _user_ids(places), after.encode()))


def _lines(before: bytes, ids: npt.NDArray[np.uint8], after: bytes) -> bytes:
    """One text around each id: all lines of a day are equally long."""
    parts = [np.frombuffer(part, dtype=np.uint8) for part in (before, after)]
    left, right = (np.broadcast_to(part, (len(ids), len(part))) for part in parts)
    return np.concatenate([left, ids, right], axis=1).tobytes()
