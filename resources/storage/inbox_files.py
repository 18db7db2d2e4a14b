"""The port Inbox: one immutable file a batch, named after what it holds.

A batch is a Parquet file with one row group a (epoch, day). Keys stand PLAIN and uncompressed, so that a scan of bytes
sees every one. The footer holds a commitment to each epoch's key: a batch of another store is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpdau_assets.core.dates import day_number
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import DaySet, Keys
from dpdau_assets.core.identity import epoch_key_commitment
from dpdau_assets.core.ports.state import Salts
from dpdau_assets.core.sketches.keysets import unite
from resources.arrow_arrays import to_arrow, to_numpy
from resources.storage.durable import sweep, sync_folder, write_named_durably

_SCHEMA = pa.schema([("epoch", pa.int32()), ("day", pa.date32()), ("key", pa.uint64())])
_LAYOUT: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": ["epoch", "day"],
    "column_encoding": {"key": "PLAIN"},
    "write_statistics": ["epoch", "day"],
}

_COMMITMENTS = b"epoch_key_commitments"

_Batch = tuple[Path, pq.FileMetaData]
_Place = tuple[_Batch, int]


class FileInbox:
    """Batches as `inbox/<hash>.parquet` below a root; half-written ones stay in `inbox/.staging` until swept."""

    def __init__(self, root: Path, salts: Salts) -> None:
        self._salts = salts
        self._folder = root / "inbox"
        self._staging = self._folder / ".staging"

    def append(self, sets: Iterable[DaySet]) -> str | None:
        """Write one batch. What a killed writer left behind is swept first."""
        sweep(self._staging)
        path = write_named_durably(self._folder, self._staging, partial(_write_batch, sets, self._commitment))
        return path.stem if path else None

    def batches(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.parquet"))

    def days(self) -> frozenset[date]:
        opened = (_opened(self._path(name)) for name in self.batches())
        return frozenset(day for batch in opened for day, _ in _contents(batch))

    def epochs(self) -> frozenset[int]:
        opened = (_opened(self._path(name)) for name in self.batches())
        return frozenset(epoch for batch in opened for _, epoch in _contents(batch))

    def read(self, batches: list[str]) -> Iterator[DaySet]:
        """In order of days, then epochs. Memory: one (day, epoch) of all batches.

        Raises Refused for a batch that is broken, or was keyed under another key of an epoch.
        """
        places: dict[tuple[date, int], list[_Place]] = defaultdict(list)
        for name in sorted(set(batches)):
            batch = _opened(self._path(name))
            self._require_own(batch)
            for group, place in enumerate(_contents(batch)):
                places[place].append((batch, group))
        for day, epoch in sorted(places):
            yield DaySet(day, epoch, _union(places[day, epoch]))

    def holding(self, days: Set[date]) -> list[str]:
        return [name for name in self.batches() if any(day in days for day, _ in _contents(_opened(self._path(name))))]

    def size(self) -> int:
        return sum(stat.st_size for stat in self._stats())

    def discard(self, batches: list[str]) -> None:
        sweep(self._staging)
        for name in batches:
            self._path(name).unlink(missing_ok=True)
        if self._folder.exists():
            sync_folder(self._folder)

    def _stats(self) -> Iterator[os.stat_result]:
        """Sizes and times of the batches that are still there when they are looked at."""
        for path in self._folder.glob("*.parquet"):
            with suppress(FileNotFoundError):
                yield path.stat()

    def _require_own(self, batch: _Batch) -> None:
        path, footer = batch
        noted = json.loads((footer.metadata or {}).get(_COMMITMENTS, b"{}"))
        for epoch in sorted({epoch for _, epoch in _contents(batch)}):
            wanted = self._commitment(epoch)
            if wanted is not None and noted.get(str(epoch)) != wanted:
                raise Refused(
                    f"The inbox batch {path.stem} was keyed under another key of salt epoch {epoch}.",
                    f"It is of another store, or of an older version. Move {path} away, and ingest the files that it "
                    "came from again.",
                    batch=path.stem,
                )

    def _commitment(self, epoch: int) -> str | None:
        """To the epoch's key; None where that was shredded or lost, and no state takes what is keyed under it."""
        try:
            return epoch_key_commitment(self._salts.epoch_keys([epoch])[epoch])
        except Refused:
            return None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.parquet"


def _write_batch(sets: Iterable[DaySet], commitment: Callable[[int], str | None], file: BinaryIO) -> str | None:
    """The Parquet bytes; returns the batch's file name, or None when it holds no key."""
    content = hashlib.sha256()
    epochs: set[int] = set()
    with pq.ParquetWriter(file, _SCHEMA, **_LAYOUT) as writer:
        for day_set in sets:
            if len(day_set.keys):
                content.update(struct.pack("<iiQ", day_set.epoch, day_number(day_set.day), len(day_set.keys)))
                content.update(np.ascontiguousarray(day_set.keys, dtype="<u8").data)
                writer.write_table(_table(day_set), row_group_size=len(day_set.keys))
                epochs.add(day_set.epoch)
        writer.add_key_value_metadata(
            {_COMMITMENTS: json.dumps({epoch: commitment(epoch) for epoch in sorted(epochs)})}
        )
    return f"{content.hexdigest()[:32]}.parquet" if epochs else None


def _table(day_set: DaySet) -> pa.Table:
    count = len(day_set.keys)
    epochs = to_arrow(np.full(count, day_set.epoch, dtype=np.int32), pa.int32())
    days = to_arrow(np.full(count, day_number(day_set.day), dtype=np.int32), pa.date32())
    return pa.Table.from_arrays([epochs, days, to_arrow(day_set.keys, pa.uint64())], schema=_SCHEMA)


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
            return to_numpy(file.read_row_group(group, columns=["key"])["key"].cast(pa.uint64()), np.uint64)
    except (OSError, pa.ArrowException):
        raise _broken(path) from None


def _broken(path: Path) -> Refused:
    return Refused(
        f"The inbox batch {path.stem} cannot be read.",
        f"Move {path} away, then ingest the files it came from again.",
        batch=path.stem,
    )
