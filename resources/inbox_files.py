"""The ports Inbox and Quarantine: one immutable file a batch, named after what it holds.

A batch is a Parquet file with one row group a (epoch, day). Keys stand PLAIN and uncompressed, so that a scan of bytes
sees every one.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import os
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import DaySet, Keys, RejectedRow
from dpdau_assets.core.keysets import unite
from dpdau_assets.core.quarantine import Named
from dpdau_assets.core.windows import day_number
from resources.durable import sweep, sync_folder, unlink_durably, write_named_durably

_SCHEMA = pa.schema([("epoch", pa.int32()), ("day", pa.date32()), ("key", pa.uint64())])
_LAYOUT: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": ["epoch", "day"],
    "column_encoding": {"key": "PLAIN"},
    "write_statistics": ["epoch", "day"],
}
_ROWS_AT_ONCE = 10_000
_HEADER = ["file", "line", "reason"]
_FORMULAS = tuple("=+-@\t\r\n＝＋－＠")

_Batch = tuple[Path, pq.FileMetaData]
_Place = tuple[_Batch, int]


class FileInbox:
    """Batches as `inbox/<hash>.parquet` below a root; half-written ones stay in `inbox/.staging` until swept."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "inbox"
        self._staging = self._folder / ".staging"

    def append(self, sets: Iterable[DaySet]) -> str | None:
        """Write one batch. What a killed writer left behind is swept first."""
        sweep(self._staging)
        path = write_named_durably(self._folder, self._staging, partial(_write_batch, sets))
        return path.stem if path else None

    def batches(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.parquet"))

    def days(self) -> frozenset[date]:
        opened = (_opened(self._path(name)) for name in self.batches())
        return frozenset(day for batch in opened for day, _ in _contents(batch))

    def read(self, batches: list[str]) -> Iterator[DaySet]:
        """In order of days, then epochs. Memory: one (day, epoch) of all batches. Raises Refused for a broken batch."""
        places: dict[tuple[date, int], list[_Place]] = defaultdict(list)
        for name in sorted(set(batches)):
            batch = _opened(self._path(name))
            for group, place in enumerate(_contents(batch)):
                places[place].append((batch, group))
        for day, epoch in sorted(places):
            yield DaySet(day, epoch, _union(places[day, epoch]))

    def holding(self, days: Set[date]) -> list[str]:
        return [name for name in self.batches() if any(day in days for day, _ in _contents(_opened(self._path(name))))]

    def discard(self, batches: list[str]) -> None:
        sweep(self._staging)
        for name in batches:
            self._path(name).unlink(missing_ok=True)
        if self._folder.exists():
            sync_folder(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.parquet"


class FileQuarantine:
    """Bad rows as `quarantine/<hash>.csv` below a root."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "quarantine"
        self._staging = self._folder / ".staging"

    def keep(self, rows: Iterable[RejectedRow]) -> Path | None:
        sweep(self._staging)
        return self._write((_no_formula(row.file), row.line, row.reason) for row in rows)

    def forget(self, named: Named) -> None:
        with self._alone():
            for path in self._files():
                if named.is_in(path.stem):
                    unlink_durably(path)
                else:
                    self._forget_rows(path, named)

    def expire(self, before: date) -> None:
        with self._alone():
            for path in self._files():
                if datetime.fromtimestamp(path.stat().st_mtime, UTC).date() < before:
                    unlink_durably(path)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.csv"))

    def _forget_rows(self, path: Path, named: Named) -> None:
        """What is left is on disk under its new name before the old file goes: cut short, it is done again."""
        stays = _without(named)
        try:
            if all(map(stays, _rows(path))):
                return
        except csv.Error:  # nobody can tell whom it names
            unlink_durably(path)
            return
        age = path.stat().st_mtime
        kept = self._write(filter(stays, _rows(path)))
        if kept:
            os.utime(kept, (age, age))
        if kept != path:
            unlink_durably(path)

    def _write(self, rows: Iterable[Sequence[object]]) -> Path | None:
        return write_named_durably(self._folder, self._staging, partial(_write_rows, rows))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two that rewrite one file at once could each keep what the other has dropped."""
        if not self._folder.exists():
            yield
            return
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _no_formula(file: str) -> str:
    """The same file by a name that a spreadsheet does not take for a formula."""
    return f"./{file}" if file.startswith(_FORMULAS) else file


def _write_batch(sets: Iterable[DaySet], file: BinaryIO) -> str | None:
    """The Parquet bytes; returns the batch's file name, or None when it holds no key."""
    content = hashlib.sha256()
    written = False
    with pq.ParquetWriter(file, _SCHEMA, **_LAYOUT) as writer:
        for found in sets:
            if len(found.keys):
                content.update(struct.pack("<iiQ", found.epoch, day_number(found.day), len(found.keys)))
                content.update(np.ascontiguousarray(found.keys, dtype="<u8").data)
                writer.write_table(_table(found), row_group_size=len(found.keys))
                written = True
    return f"{content.hexdigest()[:32]}.parquet" if written else None


def _table(found: DaySet) -> pa.Table:
    epochs = np.full(len(found.keys), found.epoch, dtype=np.int32)
    days = np.full(len(found.keys), day_number(found.day), dtype=np.int32)
    columns = [pa.array(epochs), pa.array(days).view(pa.date32()), pa.array(found.keys, pa.uint64())]
    return pa.table(columns, schema=_SCHEMA)


def _opened(path: Path) -> _Batch:
    """With its footer, which is long: one that is read again for every row group is most of a fold's time."""
    try:
        return path, pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        raise _broken(path) from None


def _contents(batch: _Batch) -> Iterator[tuple[date, int]]:
    """(day, epoch) of each row group, from the statistics."""
    _, footer = batch
    for group in range(footer.num_row_groups):
        epoch, day = (footer.row_group(group).column(column).statistics for column in (0, 1))
        yield day.min, epoch.min


def _union(places: list[_Place]) -> Keys:
    """The keys of these row groups; a single one is read as it stands."""
    keys = [_keys(batch, group) for batch, group in places]
    return keys[0] if len(keys) == 1 else unite(keys)


def _keys(batch: _Batch, group: int) -> Keys:
    path, footer = batch
    try:
        with pq.ParquetFile(path, metadata=footer) as file:
            return file.read_row_group(group, columns=["key"])["key"].to_numpy()
    except (OSError, pa.ArrowException):
        raise _broken(path) from None


def _broken(path: Path) -> Refused:
    return Refused(
        f"The inbox batch {path.stem} cannot be read.",
        f"Move {path} away, then ingest the files it came from again.",
        batch=path.stem,
    )


def _without(named: Named) -> Callable[[list[str]], bool]:
    """Whether a row stays: its file is named after none of them. Rows of one file are asked about once."""

    @cache
    def stays(file: str) -> bool:
        return not named.is_in(file)

    return lambda row: stays(row[0] if len(row) == len(_HEADER) else ",".join(row))


def _rows(path: Path) -> Iterator[list[str]]:
    """The rows of a CSV, without the header."""
    with path.open(encoding="utf-8", errors="backslashreplace", newline="") as file:
        yield from (row for row in csv.reader(file) if row and row != _HEADER)


def _write_rows(rows: Iterable[Sequence[object]], file: BinaryIO) -> str | None:
    """The CSV bytes; returns their name, or None without rows."""
    content = hashlib.sha256()
    rest = iter(rows)
    header: list[Sequence[object]] = [_HEADER]
    while lines := list(islice(rest, _ROWS_AT_ONCE)):
        text = io.StringIO(newline="")
        plain, quoted = (
            csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        for line in header + lines:
            (quoted if "\r" in f"{line[0]}" else plain).writerow(line)  # which the csv module passes over
        data = text.getvalue().encode(errors="backslashreplace")
        content.update(data)
        file.write(data)
        header = []
    return None if header else f"{content.hexdigest()[:32]}.csv"
