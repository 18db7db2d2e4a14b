"""Keyed state as core needs it: files, what they were last written as, sketches, epoch keys, days to rebuild."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from datetime import date
from typing import TYPE_CHECKING, Protocol

from dpdau_assets.core.facts import (
    Build,
    DaySet,
    EpochKey,
    Keys,
    Partition,
    StoredFile,
    Version,
)

if TYPE_CHECKING:
    from dpdau_assets.core.sketches.base import Header, Sketch


class Salts(Protocol):
    """The epoch keys, and the key that receipts are signed with: random, and kept only wrapped."""

    def epoch_keys(self, epochs: Iterable[int]) -> Mapping[int, EpochKey]:
        """The keys of these epochs, made now where there are none.

        Raises BadSetting without HASH_SALT_SECRET, and Refused for an epoch whose key was shredded.
        """
        ...

    def signing_key(self) -> bytes:
        """The key that receipts are signed with: 32 bytes, made at the first call."""
        ...

    def rewrap(self, new_secret: str) -> None:
        """Wrap every key under a new master secret, all or none; from then on only the new one opens them."""
        ...

    def shred_through(self, epoch: int) -> None:
        """Destroy the keys of this epoch and of all before it, for ever, with the tombstones that they encrypt."""
        ...

    def shredded_through(self) -> int | None:
        """The last epoch whose key was shredded."""
        ...

    def lost(self) -> frozenset[int]:
        """The epochs whose keys were lost in a restore: they never get another."""
        ...


class FileInventory(Protocol):
    """Every file under the data directory and Dagster's home, whatever put it there."""

    def files(self) -> Sequence[StoredFile]:
        """Sorted by name. The file of a partition is named `STORE/day=YYYY-MM-DD/epoch=N.SUFFIX`."""
        ...

    def chunks(self, file: StoredFile) -> Iterator[bytes]:
        """The file's bytes; none if it is gone by now. Raises BadInput where they cannot be read, or pack something."""
        ...

    def sweep(self) -> None:
        """Unlink what killed writers left half written."""
        ...

    def expire_requests(self, before: date) -> None:
        """Unlink, durably, what the HTTP API remembers of the requests of days before this one."""
        ...


class PartitionFiles(Protocol):
    """Files of keyed state as they lie there, one immutable file a (day, epoch)."""

    def lock(self) -> AbstractContextManager[None]:
        """Held while folding, and while a release seals its days and reads them. Across processes, reentrant."""
        ...

    def stored(self) -> list[tuple[date, int]]:
        """Every (day, epoch) that has a file, sorted."""
        ...

    def read(self, day: date, epoch: int) -> Keys | None:
        """The day's keys, None without a file. Raises Refused for a file made under another key of that epoch."""
        ...

    def digest(self, day: date, epoch: int) -> str | None:
        """`keysets.digest` of the day's keys, without reading them."""
        ...

    def is_keyed(self, day: date, epoch: int) -> bool:
        """Whether the file holds keys and nothing else: whole, distinct, in order, of this epoch's key."""
        ...

    def replace(self, sets: Iterable[DaySet], announce: Callable[[Sequence[tuple[date, int, str]]], None]) -> None:
        """Write these files durably, each whole or not at all; the ones they replace are unlinked.

        Before any file takes its place, `announce` is told of some of them: day, epoch and digest.
        """
        ...

    def discard(self, day: date, epoch: int) -> None:
        """Unlink the file, durably, if there is one."""
        ...


class Builds(Protocol):
    """What each partition of the state was last written as. What is replaced here cannot be had back."""

    def all(self) -> Mapping[Partition, Build]:
        """What each partition that has a file was last written as. Raises Refused for rows of another writer."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Meanwhile nobody else changes any, so they are read once. Reentrant."""
        ...

    def put(self, changes: Mapping[Partition, Build | None]) -> None:
        """Replace these, all or none; None is a partition that has no file any more."""
        ...

    def new_nonce(self) -> bytes:
        """16 random bytes."""
        ...

    def write_anew(self) -> None:
        """Write every row again, so that none shows by its place that it was changed when others were not."""
        ...

    def overwrite_deleted(self) -> None:
        """Leave nothing of what was replaced in the database's own files."""
        ...


class StateStore(Protocol):
    """Keyed state, one partition a (day, epoch); a second one of the same kind holds late events.

    Only what was written last is ever read: an older file in its place is read without whoever was removed since, and
    where that does not give what was written last, Refused is raised, as it is for a file that is gone.
    """

    def lock(self) -> AbstractContextManager[None]:
        """Held while folding, and while a release seals its days and reads them. Across processes, reentrant."""
        ...

    def stored(self) -> list[tuple[date, int]]:
        """Every (day, epoch) that has a file, sorted."""
        ...

    def places(self) -> list[tuple[date, int]]:
        """Every (day, epoch) that has a file, or had one when it was last written, sorted."""
        ...

    def build(self, day: date, epoch: int) -> Build:
        """What the partition was last written as, whatever lies there; an empty one where nothing was."""
        ...

    def is_keyed(self, day: date, epoch: int) -> bool:
        """Whether the file holds keys and nothing else: whole, distinct, in order, of this epoch's key."""
        ...

    def is_old(self, day: date, epoch: int) -> bool:
        """Whether the file is not the one that was written last. Raises Refused for one that cannot be read at all."""
        ...

    def read(self, day: date, epoch: int) -> Keys | None:
        """The day's keys, None where nothing was ever written."""
        ...

    def digest(self, day: date, epoch: int) -> str | None:
        """`keysets.digest` of the day's keys, without reading them."""
        ...

    def version(self, day: date, epoch: int) -> Version | None:
        """What the partition's content is known by; the same while the content is. None where nothing was written."""
        ...

    def replace(self, sets: Iterable[DaySet], before: Callable[[Sequence[date]], None] = ...) -> None:
        """Write these durably, each whole or not at all. `before` is told the days before any of their files change."""
        ...

    def discard(self, places: Iterable[tuple[date, int]]) -> None:
        """Unlink these files, durably, where there are any."""
        ...

    def resume(self) -> None:
        """Find out what a write that was cut short has left, and forget what it replaced. The caller holds the lock."""
        ...

    def repair(
        self, places: Iterable[tuple[date, int]], broken: list[tuple[date, int]] | None = None
    ) -> list[tuple[date, int]]:
        """Replace those of these files that are old; returns which.

        One that lacks events, or is gone, is put into `broken`; without such a list Refused is raised.
        """
        ...

    def note_unreadable(self, places: Iterable[tuple[date, int]], applied: int) -> None:
        """Note files that could not be read when removals after `applied` were applied: their readers apply them."""
        ...

    def renew(self) -> None:
        """Give every partition another version, whether or not its content has changed."""
        ...

    def adopt(self, expected: Set[date]) -> None:
        """Take every file for the one that was written last, less whoever was removed. For a restore alone.

        Where there is no file nothing was written, but on the days that are expected.
        """
        ...

    def forget_through(self, day: date) -> None:
        """Nothing is to be there any more of this day and those before it, whose files were discarded."""
        ...


class SketchStore(Protocol):
    """Serialised sketches, one a (day, epoch)."""

    def stored(self) -> list[tuple[date, int]]:
        """Every (day, epoch) that has a file, sorted."""
        ...

    def read(self, day: date, epoch: int) -> Sketch | None:
        """The day's sketch, None without a file. Raises BadInput for damaged bytes."""
        ...

    def header(self, day: date, epoch: int) -> Header | None:
        """The sketch's header alone; None if there is no sketch."""
        ...

    def replace(self, sketches: Iterable[tuple[date, Sketch]]) -> None:
        """Write these sketches durably, each whole or not at all."""
        ...

    def discard(self, day: date, epoch: int) -> None:
        """Unlink the sketch, durably, if there is one."""
        ...


class Rebuilds(Protocol):
    """Which days erasures have touched or arrivals changed, and which were rebuilt since.

    A mark is one number for all days that were marked together, higher than any before.
    """

    def marked(self) -> int:
        """The watermark up to which the touched days are marked."""
        ...

    def note_marked(self, watermark: int) -> None:
        """The days that removals up to this watermark touch are marked."""
        ...

    def mark(self, days: Iterable[date], watermark: int) -> None:
        """Note that days are to be rebuilt for what came into force up to the watermark.

        Those that wait for it already keep their mark; the others get one together, higher than any before.
        """
        ...

    def mark_alike(self, days: Iterable[date], watermark: int) -> None:
        """Note that these days and no others are to be rebuilt, all under one new mark, whatever marks there were."""
        ...

    def wanted(self, day: date) -> int:
        """The day's mark, 0 for a day that does not wait to be rebuilt."""
        ...

    def behind(self) -> list[tuple[date, int]]:
        """Days that were not rebuilt since they were marked, with their marks, sorted."""
        ...

    def mark_built(self, day: date, mark: int) -> None:
        """The day was rebuilt with all that its mark stands for, of which nothing is left."""
        ...

    def overwrite_deleted(self) -> None:
        """Leave nothing of days that wait no more in the database's own files."""
        ...

    def mark_changed(self, days: Iterable[date]) -> None:
        """The state of these days has changed by events that came."""
        ...

    def changed(self) -> Mapping[date, str]:
        """The days that changed so since Dagster was last told of them, each with the name of its last change."""
        ...

    def mark_reported(self, changes: Mapping[date, str]) -> None:
        """Dagster knows of these changes; a day that has changed again since stays."""
        ...

    def drop_through(self, through: date) -> None:
        """Days up to this one are past retention and wait for no rebuild any more."""
        ...
