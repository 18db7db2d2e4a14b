"""From event files to keyed batches: the one path by which people's events come in. Raw ids end here.

What is durable comes in this order: removals, then the batch, then the quarantine; each can be repeated without harm,
so an ingest that was cut short is completed by running it again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from dpdau_assets.core.erasure import NOTHING_REQUESTED, Requested, request
from dpdau_assets.core.events import Event, Limits, Row, validate
from dpdau_assets.core.facts import DaySet, EpochKey, RejectedRow
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.limits import first_day, last_day
from dpdau_assets.core.ports import Outside, Salts, Scan
from dpdau_assets.core.quarantine import Named, expire
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.windows import days_of_epoch, epochs_of_day

Progress = Callable[[str], None]


@dataclass(frozen=True)
class IngestReport:
    """What one ingest took: rows accepted and rejected, the days that gained '+' rows, and the names of what it wrote.

    `batch` is None without '+' rows, `quarantine` without bad ones; `removals` are the requests that '-' rows made.
    """

    ingested: int
    rejected: int
    days: tuple[date, ...]
    batch: str | None
    quarantine: Path | None
    removals: Requested = NOTHING_REQUESTED


def ingest(files: list[Path], outside: Outside, progress: Progress | None = None) -> IngestReport:
    """Validate, key and durably keep the events of these files. Raises BadInput, with nothing kept, for a broken file.

    Twice the same files are the same batch, the same quarantine and the same removals.
    """
    tell = progress or (lambda _: None)
    tell(f"Reading {len(files)} file(s).")
    with outside.engine.scan(files, first_day(outside), last_day(outside.clock)) as scan:
        return take(scan, outside, tell)


def take(scan: Scan, outside: Outside, progress: Progress) -> IngestReport:
    """Key what was scanned and keep it durably: removals first, so that a batch never arrives ahead of them.

    A bad row of a file that is named after somebody whose removal is among them is counted, and not kept.
    """
    asked = list(scan.removals())
    if asked:
        progress("Recording removals.")
    requested = request(asked, outside)
    batch = outside.inbox.append(keyed_days(scan, outside.salts, outside.settings, progress))
    bad, erased = _Counted(scan.rejected()), Named(event.user_id for event in asked)
    expire(outside)
    kept = outside.quarantine.keep(row for row in bad if not erased.is_in(row.file))
    return IngestReport(scan.accepted, bad.count, tuple(scan.days()), batch, kept, requested)


def keyed_days(scan: Scan, salts: Salts, settings: Settings, progress: Progress) -> Iterator[DaySet]:
    """Each day's users, under every epoch whose windows reach the day; epoch by epoch, in order of days."""
    rotation, longest = settings.hash_salt_rotation_days, settings.mau_window_days
    epochs = sorted({epoch for day in scan.days() for epoch in epochs_of_day(day, rotation, longest)})
    keys = salts.epoch_keys(epochs)
    for epoch in epochs:
        progress(f"Keying the days of salt epoch {epoch}.")
        yield from scan.user_days(keys[epoch], *days_of_epoch(epoch, rotation, longest))


class RowScan:
    """A Scan of rows in memory, in plain Python: the reference that bulk engines are held to."""

    def __init__(self, rows: Iterable[tuple[str, int, Row | None]], limits: Limits) -> None:
        """Rows are (file, line, row); a row that cannot be parsed is None."""
        self.accepted = 0
        self._users: dict[date, set[str]] = defaultdict(set)
        self._removals: dict[Event, None] = {}
        self._rejected: list[RejectedRow] = []
        for file, line, row in rows:
            self._sort_in(file, line, validate(row, limits))

    def _sort_in(self, file: str, line: int, found: Event | str) -> None:
        if isinstance(found, str):
            self._rejected.append(RejectedRow(file, line, found))
            return
        self.accepted += 1
        if found.op == "+":
            self._users[found.day].add(found.user_id)
        else:
            self._removals[found] = None

    def rejected(self) -> Iterable[RejectedRow]:
        return iter(self._rejected)

    def days(self) -> list[date]:
        return sorted(self._users)

    def removals(self) -> Iterator[Event]:
        return iter(self._removals)

    def user_days(self, key: EpochKey, first: date, last: date) -> Iterator[DaySet]:
        days = [day for day in self.days() if first <= day <= last]
        users = set().union(*(self._users[day] for day in days))
        keys = {user: user_key(key.secret, user) for user in users}
        for day in days:
            found = np.array(sorted({keys[user] for user in self._users[day]}), dtype=np.uint64)
            yield DaySet(day, key.epoch, found)


class _Counted:
    """Passes rows on and counts them."""

    def __init__(self, rows: Iterable[RejectedRow]) -> None:
        self.count = 0
        self._rows = rows

    def __iter__(self) -> Iterator[RejectedRow]:
        for row in self._rows:
            self.count += 1
            yield row
