"""The ways in as core needs them: engines that read files, inbox, quarantine, and what upstream has finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from dpdau_assets.core.event_shape import PLAIN, EventShape
from dpdau_assets.core.facts import (
    BadShare,
    DaySet,
    EpochKey,
    RejectedRow,
    Rejections,
)

if TYPE_CHECKING:
    from dpdau_assets.core.events import Event, Limits
    from dpdau_assets.core.identity import Named

Tell = Callable[[float, int], None]
"""Hears which share of the work is done, from 0 to 1, and about how many rows, while it is done; perhaps in another
thread.
"""


def nothing_told(_share: float, _rows: int) -> None:
    """Where nobody waits."""


class Scan(Protocol):
    """The valid and the bad rows of the files that an engine was asked to read, each distinct user held once."""

    accepted: int
    """Rows that passed every rule."""
    idle: int
    """Rows that are no activity by the shape's `active_when`: neither taken nor bad."""
    part_count: int
    """In how many parts the users are read."""
    remarks: Sequence[str]
    """What was taken for granted of the files, in sentences."""

    def rejected(self) -> Iterable[RejectedRow]: ...

    def rejections(self) -> Rejections:
        """How many of them there are."""
        ...

    def elsewhere(self) -> Mapping[date, float]:
        """For each folder that is named day=YYYY-MM-DD, which share of its '+' rows is of other days, if any is."""
        ...

    def days(self) -> list[date]:
        """Days with at least one '+' row, sorted."""
        ...

    def removals(self) -> Iterator[Event]:
        """The distinct removals that the accepted '-' rows ask for; the day of one with listed days is the last."""
        ...

    def parts(self) -> Iterator[UserDays]:
        """The users, in as many parts as it takes to hold one part in memory; each is gone when the next is asked for.

        Raises BadInput at the end if the files were changed between two parts.
        """
        ...


class UserDays(Protocol):
    """Some of a scan's users, who are in no other part of it; two spellings of one id may be in two."""

    def user_days(self, key: EpochKey, first: date, last: date) -> Iterator[DaySet]:
        """The keyed users of each day from `first` to `last` that has any, in order of days."""
        ...


class NamedFile(Protocol):
    """A file of events, wherever it lies."""

    @property
    def name(self) -> str:
        """What the quarantine and messages call it."""
        ...


Files = TypeVar("Files", bound=NamedFile, contravariant=True)
"""What an engine can read."""


class Engine(Protocol[Files]):
    """Reads event files in bulk; raw ids live in its memory only."""

    def scan(
        self, files: Sequence[Files], limits: Limits, tell: Tell = nothing_told, shape: EventShape = PLAIN
    ) -> AbstractContextManager[Scan]:
        """Parse and validate rows of this shape; `tell` hears which share of the bytes was read.

        Raises BadInput, having kept nothing, when a file cannot be read at all.
        """
        ...


class Inbox(Protocol):
    """Keyed batches that were acknowledged and not folded yet."""

    def append(self, sets: Iterable[DaySet]) -> str | None:
        """Write one batch durably, all of it or nothing, and return its name; None when `sets` is empty.

        The name is a hash of what the batch holds, so the same events again are the same batch.
        """
        ...

    def batches(self) -> list[str]:
        """Names of the batches that wait, sorted."""
        ...

    def days(self) -> frozenset[date]:
        """The days that the batches which wait have events of."""
        ...

    def epochs(self) -> frozenset[int]:
        """The salt epochs under which the batches that wait were keyed; asks for no key."""
        ...

    def read(self, batches: list[str]) -> Iterator[DaySet]:
        """What these batches hold: each (day, epoch) once, in order, with the union of their keys.

        Raises Refused for a batch that cannot be read, or is of another store.
        """
        ...

    def holding(self, days: Set[date]) -> list[str]:
        """The batches that wait and hold events of one of these days."""
        ...

    def size(self) -> int:
        """Bytes of the batches that wait."""
        ...

    def discard(self, batches: list[str]) -> None:
        """Unlink folded batches."""
        ...


class WriteAheadLog(Protocol):
    """What was acknowledged over HTTP and is in no batch of the inbox yet. Segments are of one writer each."""

    def seal(self) -> None:
        """Make batches of everything that was acknowledged by now, whoever wrote it, dead or alive.

        Raises Damaged for a segment that is damaged, or of another store.
        """
        ...

    def segments(self) -> list[str]:
        """Names of those that are there, sorted."""
        ...

    def read(self, segment: str) -> Sequence[DaySet]:
        """What a segment holds: each (day, epoch) once. Empty for one that was sealed meanwhile; raises as `seal`."""
        ...

    def days(self) -> frozenset[date]:
        """The days that they have events of."""
        ...

    def epochs(self) -> frozenset[int]:
        """The salt epochs under which they were keyed; asks for no key."""
        ...

    def oldest(self) -> float | None:
        """When the oldest that no writer writes to any more was written last, seconds since 1970; None without one.

        They are gone in a moment, unless something keeps them from being made batches of.
        """
        ...

    def size(self) -> int:
        """Bytes."""
        ...


class Quarantine(Protocol):
    """Where bad rows are remembered by place and reason."""

    def keep(self, rows: Iterable[RejectedRow]) -> Path | None:
        """Write a CSV (file, line, reason), durably, named after what it holds; None when there are no rows."""
        ...

    def note_share(self, kept: Path, share: float, *, taken: bool) -> None:
        """Keep beside a CSV which share of an ingest's rows it has, for as long as itself is kept."""
        ...

    def shares(self) -> list[BadShare]:
        """The shares that are kept, in order of days."""
        ...

    def made_good(self, files: Set[str], within: Path | None = None) -> None:
        """Forget the share of each ingest that was not taken and whose bad rows are all of files called so, or of files
        in this folder.
        """
        ...

    def forget(self, named: Named) -> None:
        """Drop, durably, each row of which the file is named after one of these people, and what is itself so named.

        What is left of a CSV keeps its age, and is named after what it holds by then.
        """
        ...

    def expire(self, before: date) -> None:
        """Unlink, durably, what was written before this day."""
        ...


class Completions(Protocol):
    """Which days upstream has declared complete: a statement about a whole day, whoever was active on it."""

    def complete(self, day: date, landed: str | None = None) -> None:
        """Durably. `landed` is the fingerprint of what was taken from the landing folder for it."""
        ...

    def completed(self) -> Mapping[date, str | None]:
        """Every complete day in order, with the fingerprint of what had landed."""
        ...

    def withdraw(self, day: date) -> None:
        """The day is not complete after all."""
        ...


class Landing(Protocol):
    """Where upstream lays down event files, one folder a day."""

    def days(self) -> Mapping[date, str]:
        """The days whose folder upstream has finished, in order, with a fingerprint of the files in it."""
        ...

    def unmarked(self) -> list[date]:
        """Days whose folder has event files, and that nothing says are complete."""
        ...

    def files(self, day: date) -> Sequence[NamedFile]:
        """The event files of such a day; none for one on which nothing happened.

        Raises BadInput for a folder with other files, or that cannot be read: who wrote them meant something by them.
        """
        ...

    def folder(self, day: date) -> Path | None:
        """Where they are, if anything lands at all."""
        ...

    def fingerprint(self, day: date) -> str | None:
        """The fingerprint of what is there for this day now; None unless upstream has finished its folder."""
        ...
