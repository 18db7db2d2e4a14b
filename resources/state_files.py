"""The port StateStore: one Parquet file a (day, epoch), `day=YYYY-MM-DD/epoch=N.parquet`, replaced and never edited.

Keys stand PLAIN and uncompressed, so that a scan of bytes sees every one. The footer holds the digest of the keys
and a commitment to the epoch's key: a file of another store is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import DaySet, Keys
from dpdau_assets.core.identity import epoch_key_commitment
from dpdau_assets.core.keysets import digest, is_key_set
from dpdau_assets.core.ports import Salts
from resources.durable import Write, sweep, unlink_durably, write_all_durably
from resources.file_lock import FileLock
from resources.partition_files import partition_path, partitions_in

_COLUMNS = pa.schema([("key", pa.uint64())])


@contextmanager
def _readable(day: date) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException):
        raise _damaged(day) from None


def _damaged(day: date) -> Refused:
    return Refused(f"The state of {day} is damaged.", "Restore the data directory and the ledger from the same backup.")


class StateFiles:
    """The files below one folder. With `keep_empty` False a file that would be empty is unlinked instead."""

    def __init__(self, folder: Path, salts: Salts, lock: FileLock, *, keep_empty: bool) -> None:
        self._folder = folder
        self._salts = salts
        self._lock = lock
        self._keep_empty = keep_empty
        self._footers: dict[Path, tuple[tuple[int, int], dict[bytes, bytes]]] = {}
        self._swept = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        with self._lock.held():
            yield

    def stored(self) -> list[tuple[date, int]]:
        return partitions_in(self._folder, "parquet")

    def read(self, day: date, epoch: int) -> Keys | None:
        if self.digest(day, epoch) is None:
            return None
        with _readable(day), pq.ParquetFile(self._path(day, epoch)) as file:
            column = file.read(["key"])["key"]
        keys = column.to_numpy().astype(np.uint64, copy=False)
        if digest(keys) != self.digest(day, epoch):
            raise _damaged(day)
        return keys

    def digest(self, day: date, epoch: int) -> str | None:
        with _readable(day):
            footer = self._footer(self._path(day, epoch))
        if footer is None:
            return None
        if footer[b"epoch_key_commitment"].decode() != self._commitment(epoch):
            raise Refused(
                f"The state of {day} was keyed under another key of salt epoch {epoch}.",
                "Restore the data directory and the ledger from the same backup.",
            )
        return footer[b"digest"].decode()

    def is_keyed(self, day: date, epoch: int) -> bool:
        try:
            keys = self.read(day, epoch)
            with _readable(day):
                columns = pq.read_schema(self._path(day, epoch))
        except Refused:
            return False
        return keys is not None and is_key_set(keys) and columns.remove_metadata().equals(_COLUMNS)

    def replace(self, sets: Iterable[DaySet]) -> None:
        if not self._swept:
            sweep(self._folder)  # what a writer left that was killed before this process began
            self._swept = True
        write_all_durably((self._path(kept.day, kept.epoch), self._writer(kept)) for kept in self._kept(sets))

    def discard(self, day: date, epoch: int) -> None:
        unlink_durably(self._path(day, epoch))

    def _kept(self, sets: Iterable[DaySet]) -> Iterator[DaySet]:
        for found in sets:
            if self._keep_empty or len(found.keys):
                yield found
            else:
                self.discard(found.day, found.epoch)

    def _writer(self, found: DaySet) -> Write:
        footer = {"digest": digest(found.keys), "epoch_key_commitment": self._commitment(found.epoch)}
        table = pa.table({"key": pa.array(found.keys, pa.uint64())}).replace_schema_metadata(footer)

        def write(file: BinaryIO) -> None:
            pq.write_table(table, file, compression="none", use_dictionary=False, column_encoding="PLAIN")

        return write

    def _footer(self, path: Path) -> dict[bytes, bytes] | None:
        """The file's own metadata. A replaced file is another inode, so what was read of one never goes stale."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        this_file = (status.st_ino, status.st_mtime_ns)
        if path not in self._footers or self._footers[path][0] != this_file:
            self._footers[path] = (this_file, dict(pq.read_metadata(path).metadata or {}))
        return self._footers[path][1]

    def _commitment(self, epoch: int) -> str:
        return epoch_key_commitment(self._salts.epoch_keys([epoch])[epoch])

    def _path(self, day: date, epoch: int) -> Path:
        return partition_path(self._folder, day, epoch, "parquet")
