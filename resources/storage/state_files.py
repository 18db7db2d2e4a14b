"""The port PartitionFiles: one Parquet file a (day, epoch), `day=YYYY-MM-DD/epoch=N.parquet`, replaced, never edited.

Keys stand PLAIN and uncompressed, so that a scan of bytes sees every one. The footer holds the digest of the keys
and a commitment to the epoch's key: a file of another store is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import DaySet, Keys
from dpdau_assets.core.identity import epoch_key_commitment
from dpdau_assets.core.ports.state import Salts
from dpdau_assets.core.sketches.keysets import digest, is_key_set
from resources.arrow_arrays import to_arrow, to_numpy
from resources.storage.durable import Write, sweep, unlink_durably, write_all_durably
from resources.storage.file_lock import FileLock
from resources.storage.partition_files import partition_path, partitions_in

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
    """The files below one folder."""

    def __init__(self, folder: Path, salts: Salts, lock: FileLock) -> None:
        self._folder = folder
        self._salts = salts
        self._lock = lock
        self._footers: dict[Path, tuple[tuple[int, int, int], dict[bytes, bytes]]] = {}
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
            keys = to_numpy(file.read(["key"])["key"].cast(pa.uint64()), np.uint64)
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

    def replace(
        self, sets: Iterable[DaySet], announce: Callable[[Sequence[tuple[date, int, str]]], None] = lambda _: None
    ) -> None:
        if not self._swept:
            sweep(self._folder)  # what a writer left that was killed before this process began
            self._swept = True
        written: list[tuple[date, int, str]] = []

        def writes() -> Iterator[tuple[Path, Write]]:
            for day_set in sets:
                content = digest(day_set.keys)
                written.append((day_set.day, day_set.epoch, content))
                yield self._path(day_set.day, day_set.epoch), self._writer(day_set, content)

        def announce_written() -> None:
            announce(list(written))
            written.clear()

        write_all_durably(writes(), announce_written)

    def discard(self, day: date, epoch: int) -> None:
        path = self._path(day, epoch)
        unlink_durably(path)
        with suppress(
            OSError
        ):  # the folder of another epoch's file, or of none; an empty one says that a file was there
            path.parent.rmdir()

    def _writer(self, day_set: DaySet, content: str) -> Write:
        footer = {"digest": content, "epoch_key_commitment": self._commitment(day_set.epoch)}
        table = pa.table({"key": to_arrow(day_set.keys, pa.uint64())}).replace_schema_metadata(footer)

        def write(file: BinaryIO) -> None:
            pq.write_table(table, file, compression="none", use_dictionary=False, column_encoding="PLAIN")

        return write

    def _footer(self, path: Path) -> dict[bytes, bytes] | None:
        """The file's own metadata. A replaced file is another inode, so what was read of one never goes stale."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        this_file = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)  # the last one nobody can set back
        if path not in self._footers or self._footers[path][0] != this_file:
            self._footers[path] = (this_file, dict(pq.read_metadata(path).metadata or {}))
        return self._footers[path][1]

    def _commitment(self, epoch: int) -> str:
        return epoch_key_commitment(self._salts.epoch_keys([epoch])[epoch])

    def _path(self, day: date, epoch: int) -> Path:
        return partition_path(self._folder, day, epoch, "parquet")
