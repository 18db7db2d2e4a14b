"""What core needs from outside, as protocols of a few methods; `resources/` implements them, tests may hand in others.

The values that they speak of are in `facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dpdau_assets.core.facts import (
    Alert,
    BadShare,
    Build,
    DaySet,
    EpochKey,
    Erasure,
    ErasureState,
    Inspected,
    Instance,
    KeptFile,
    Keys,
    MartPaths,
    Override,
    Partition,
    ReceiptRow,
    Reference,
    RejectedRow,
    Rejections,
    Release,
    ReleaseKey,
    Removal,
    ReportPaths,
    Version,
)

if TYPE_CHECKING:
    from dpdau_assets.core.erasure.quarantine import Named
    from dpdau_assets.core.events import Event
    from dpdau_assets.core.privacy.accounting import Charge
    from dpdau_assets.core.publication.restoring import Restore, Shown
    from dpdau_assets.core.reporting.report import Report
    from dpdau_assets.core.settings import Metric, Settings
    from dpdau_assets.core.sketches.base import Header, Sketch
    from dpdau_assets.core.tombstones import Tombstones


class Noise(Protocol):
    """Draws from discrete distributions on the integers, by operating-system randomness."""

    private: bool
    """False for any source that can be predicted; nothing drawn from it may be published."""

    def gaussian(self, sigma: float, draws: int = 1) -> list[int]:
        """Independent discrete Gaussians of this parameter."""
        ...

    def laplace(self, scale: float, draws: int = 1) -> list[int]:
        """Independent discrete Laplace (two-sided geometric) draws of this scale."""
        ...


class Clock(Protocol):
    """Today, in the project's time zone."""

    def today(self) -> date: ...


class Salts(Protocol):
    """The epoch keys, and the key that receipts are signed with: random, and kept only wrapped."""

    def epoch_keys(self, epochs: Iterable[int]) -> Mapping[int, EpochKey]:
        """The keys of these epochs, made now where there are none.

        Raises BadSetting without HASH_SALT_SECRET, and Refused for an epoch whose key was shredded.
        """
        ...

    def signing_key(self) -> bytes:
        """Of receipts: 32 bytes, made at the first call."""
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


Tell = Callable[[float], None]
"""Hears which share of the work is done, from 0 to 1, while it is done; perhaps in another thread."""


def nothing_told(_: float) -> None:
    """Where nobody waits."""


class Scan(Protocol):
    """The valid and the bad rows of the files that an engine was asked to read, each distinct user held once."""

    accepted: int
    """Rows that passed every rule."""

    def rejected(self) -> Iterable[RejectedRow]: ...

    def rejections(self) -> Rejections:
        """How many of them there are."""
        ...

    def elsewhere(self) -> Mapping[date, float]:
        """Of each folder that is named day=YYYY-MM-DD, which share of its '+' rows is of other days, if any is."""
        ...

    def days(self) -> list[date]:
        """Days with at least one '+' row, sorted."""
        ...

    def removals(self) -> Iterator[Event]:
        """The distinct removals that the accepted '-' rows ask for; the day of one with listed days is the last."""
        ...

    def user_days(self, key: EpochKey, first: date, last: date) -> Iterator[DaySet]:
        """The keyed users of each day from `first` to `last` that has any, in order of days."""
        ...


class Engine(Protocol):
    """Reads event files in bulk; raw ids live in its memory only."""

    def scan(
        self, files: list[Path], first_day: date, last_day: date, tell: Tell = nothing_told
    ) -> AbstractContextManager[Scan]:
        """Parse and validate; `tell` hears which share of the bytes was read.

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

    def read(self, batches: list[str]) -> Iterator[DaySet]:
        """What these batches hold: each (day, epoch) once, in order, with the union of their keys."""
        ...

    def holding(self, days: Set[date]) -> list[str]:
        """The batches that wait and hold events of one of these days."""
        ...

    def discard(self, batches: list[str]) -> None:
        """Unlink folded batches."""
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
        """Those that are kept, in order of days."""
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


class ErasureLedger(Protocol):
    """Who asked to be erased, as tombstones that are in force while their salt epoch lives, and how far that is done.

    A watermark is a number that grows with every request that comes into force.
    """

    def record(self, removals: Sequence[Removal], received_on: date, *, parked: bool) -> list[str]:
        """Keep them durably, all or none; a receipt of each, the one it got before if it is known.

        The same is what has the same keys, days and reference: the k-th of these here has the k-th receipt that they
        ever got, and a new one if they had fewer. In force from the first MAU day that is not committed yet, fixed
        here, or from that of the same keys and days that are in force already; unless they are parked. What has no
        keys is applied once it is in force.
        """
        ...

    def confirm(self, receipts: Sequence[str]) -> None:
        """Bring those that are parked into force, as if they were recorded now; their deadline stays."""
        ...

    def cancel(self, receipts: Sequence[str]) -> None:
        """Forget these, tombstones, references and all.

        Raises Refused, with none forgotten, if one is being applied or was.
        """
        ...

    def erasures(self, states: Iterable[ErasureState] = ()) -> list[Erasure]:
        """All of these states (of any for none), in order of arrival."""
        ...

    def find(self, names: Iterable[str]) -> list[Erasure]:
        """The requests with these receipts, and those of these batches."""
        ...

    def keys_of(self, receipts: Iterable[str]) -> Mapping[str, Mapping[int, int]]:
        """The key of each under every living epoch."""
        ...

    def references(self, receipts: Iterable[str]) -> Mapping[str, Reference]:
        """Of those of these that were recorded with one; the text goes with the last tombstone."""
        ...

    def referred_to(self, reference: str) -> list[Erasure]:
        """The requests that have this reference, in order of arrival."""
        ...

    def tombstones(self, epoch: int, *, after: int = 0, through: int | None = None) -> Tombstones:
        """Those of one epoch that are in force, or just those that came into force between two watermarks.

        Whoever destroys data bounds it by `through`: a request that came later can still be cancelled.
        """
        ...

    def recorded(self) -> int:
        """The watermark of all that is in force."""
        ...

    def begin_applying(self, watermark: int) -> None:
        """From here on what is in force up to the watermark cannot be cancelled."""
        ...

    def applied(self) -> int:
        """The watermark up to which the stored state has been rewritten."""
        ...

    def begun(self) -> list[int]:
        """Watermarks up to which applying was begun, and not ended, in order."""
        ...

    def mark_applied(self, watermark: int) -> None: ...


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

    def files(self, day: date) -> list[Path]:
        """The event files of such a day; none for one on which nothing happened.

        Raises BadInput for a folder with other files, or that cannot be read: who wrote them meant something by them.
        """
        ...

    def folder(self, day: date) -> Path | None:
        """Where they are, if anything lands at all."""
        ...

    def fingerprint(self, day: date) -> str | None:
        """Of the files that are there for this day now; None unless upstream has finished its folder."""
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
        """These days are to be rebuilt for what came into force up to the watermark.

        Those that wait for it already keep their mark; the others get one together, higher than any before.
        """
        ...

    def mark_alike(self, days: Iterable[date], watermark: int) -> None:
        """These days and no others are to be rebuilt, all under one new mark, whatever marks there were."""
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

    def arrive(self, days: Iterable[date]) -> None:
        """The state of these days has changed by events that came."""
        ...

    def arrived(self) -> Mapping[date, str]:
        """The days that changed so since Dagster was last told of them, each with the name of its last change."""
        ...

    def told(self, changes: Mapping[date, str]) -> None:
        """Dagster knows of these changes; a day that has changed again since stays."""
        ...

    def drop_through(self, through: date) -> None:
        """Days up to this one are past retention and wait for no rebuild any more."""
        ...


class ReceiptChain(Protocol):
    """Receipts, each with the hash of the one before it."""

    def append(self, rows: Sequence[ReceiptRow], follows: str, verified: Sequence[str]) -> None:
        """Append to the chain, and note which applied requests are verified, in one transaction.

        `follows` is the hash that the first row follows. Raises Refused when it is no longer the chain's last.
        """
        ...

    def last_hash(self) -> str:
        """Of the chain's last receipt, "" for an empty chain."""
        ...

    def last(self, receipt: str) -> ReceiptRow | None:
        """The newest one of this request; without partitions, which are kept of the newest inspection alone."""
        ...

    def disputed(self) -> list[str]:
        """The requests whose newest receipt says that something is left."""
        ...

    def inspection(self) -> Inspected | None:
        """The newest inspection; None since removals were applied."""
        ...

    def forget_inspection(self) -> None:
        """Two inspections beside each other would say which days have changed, and so whom an erasure touched where."""
        ...


class Premises(Protocol):
    """Every file under the data directory and Dagster's home, whatever put it there."""

    def files(self) -> Sequence[KeptFile]:
        """Sorted by name. The file of a partition is named `STORE/day=YYYY-MM-DD/epoch=N.SUFFIX`."""
        ...

    def chunks(self, file: KeptFile) -> Iterator[bytes]:
        """Its bytes; none if it is gone by now."""
        ...

    def unpacked(self, file: KeptFile) -> Iterator[bytes]:
        """What it holds if it is packed. Raises BadInput for one that cannot be looked into."""
        ...

    def sweep(self) -> None:
        """Unlink what killed writers left half written."""
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
        """Of every partition that has a file. Raises Refused for rows that the ledger did not write."""
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
        """These could not be read when removals after this watermark were applied: whoever reads them applies them."""
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
        """Its header alone."""
        ...

    def replace(self, sketches: Iterable[tuple[date, Sketch]]) -> None:
        """Write these sketches durably, each whole or not at all."""
        ...

    def discard(self, day: date, epoch: int) -> None:
        """Unlink the sketch, durably, if there is one."""
        ...


class Record(Protocol):
    """What months were charged, and what is decided about them: read alike in a transaction and outside of one."""

    def restated(self) -> frozenset[date]:
        """The months of which DAU was restated: no number of theirs is made any more."""
        ...

    def charges(self, metric: Metric, month: date) -> list[Charge]:
        """Everything charged to this month of this metric."""
        ...

    def cap(self, metric: Metric, month: date) -> Fraction | None:
        """The month's cap on record: of its last override, else of its first charge; None while it has neither."""
        ...

    def delta(self, metric: Metric, month: date) -> float | None:
        """The δ at which the month's cap holds: that of its first charge."""
        ...

    def closures(self, metric: Metric, month: date | None = None) -> int:
        """How often restores have closed this month of the metric, or all its months together."""
        ...

    def is_closed(self, metric: Metric, month: date) -> bool:
        """Whether a restored ledger may have lost numbers that read this month, and no override has opened it since."""
        ...

    def awaits_erasures(self) -> bool:
        """Whether the ledger was restored, and nobody has declared since that later erasures are submitted again."""
        ...


class ChargedBooks(Record, Protocol):
    """What planning a release asks, and what entering it writes; a draft of the books has it too."""

    def last_day(self, metric: Metric, window_days: int) -> date | None:
        """The last day that was published, in whatever revision."""
        ...

    def last_release(self, metric: Metric) -> Release | None:
        """The number of the last published day, in its last revision."""
        ...

    def instance(self, name: str) -> Instance | None: ...

    def last_instance(self, metric: Metric, window_days: int) -> Instance | None:
        """The one of this series that was opened last."""
        ...

    def open_instance(self, instance: Instance) -> None: ...

    def charge(self, charge: Charge) -> None: ...


class Books(ChargedBooks, Protocol):
    """The ledger inside one transaction: nothing of it is visible before the transaction ends well."""

    def release(self, key: ReleaseKey) -> Release | None: ...

    def releases(self, metric: Metric | None = None) -> list[Release]: ...

    def removals_recorded(self) -> int:
        """The watermark of removals in force, to tell whether any came since a statistic was read."""
        ...

    def instances(self) -> list[Instance]:
        """All of them, in the order in which they were opened."""
        ...

    def shared_noise(self, instance: str) -> int | None:
        """The secret noise that the instance's numbers share."""
        ...

    def keep_shared_noise(self, instance: str, value: int) -> None: ...

    def destroy_shared_noise(self, instance: str) -> None: ...

    def frozen(self, instance: str, days: int) -> list[int]:
        """The statistics of a stream's last so many published days, oldest first."""
        ...

    def freeze(self, instance: str, day: date, statistic: int) -> None: ...

    def destroy_frozen(self, instance: str, keep_last: int) -> None:
        """Destroy the stream's frozen statistics but for so many of the last days."""
        ...

    def numbers(self, instance: str) -> list[float]:
        """`noisy_value` of every release of the instance, in order of days and revisions."""
        ...

    def store(self, release: Release) -> None: ...


class RestoredBooks(Books, Protocol):
    """The books of a ledger that is being restored from a backup."""

    def close(self, metric: Metric, month: date, closed_on: date) -> None:
        """No number that reads this month is made any more, unless an override opens it."""
        ...

    def seal(self, days: Iterable[date]) -> None:
        """As in `Ledger`, inside the transaction."""
        ...

    def lose_epochs(self, epochs: Iterable[int]) -> list[int]:
        """Those of these epochs that have no key never get one; returns them."""
        ...

    def note_restore(self, restore: Restore) -> None:
        """Put it on record. From now on the ledger awaits erasures."""
        ...


class Ledger(Record, Protocol):
    """What was charged and published. Its transactions are serial: one at a time, whole or not at all."""

    def transaction(self) -> AbstractContextManager[Books]: ...

    def release(self, key: ReleaseKey) -> Release | None: ...

    def releases(self, metric: Metric | None = None) -> list[Release]:
        """Every release, in the order in which they were published."""
        ...

    def instances(self) -> list[Instance]: ...

    def override(self, override: Override) -> None:
        """Put it on record, for ever."""
        ...

    def overrides(self) -> list[Override]:
        """All of them, in order."""
        ...

    def seal(self, days: Iterable[date]) -> None:
        """From now on, events that arrive for these days are late. Committed when this returns."""
        ...

    def sealed(self) -> frozenset[date]: ...

    def mark_processed(self, days: Iterable[date]) -> None:
        """The state of these days was asked for and is there. Committed when this returns."""
        ...

    def processed(self) -> frozenset[date]: ...

    def purge_through(self, day: date) -> None:
        """From now on this day and all before it are past retention. Committed when this returns."""
        ...

    def purged_through(self) -> date | None:
        """The last day past retention."""
        ...

    def problems(self) -> list[str]:
        """A sentence for everything that is not what was once written; empty for a ledger that is whole."""
        ...

    def head(self) -> str:
        """The hash of all that was appended by now, "" for nothing."""
        ...

    def holds(self, head: str) -> bool:
        """Whether this was the head at some time, so that nothing which stood before it has gone."""
        ...

    def fix_terms(self, terms: Mapping[str, str]) -> None:
        """Remember these for ever at the first call; BadSetting, naming each that differs, at any later one.

        The first call begins a store: BadSetting for a master secret that can be guessed.
        """
        ...


class Alerts(Protocol):
    """Where people are told what needs them."""

    def send(self, alert: Alert) -> None:
        """Raises DpdauError if it did not arrive; then it is sent again."""
        ...


class Mart(Protocol):
    """The published series for BI."""

    def read(self) -> list[Shown]:
        """Every number that it shows. Raises BadInput for a mart that cannot be read."""
        ...

    def replace(self, rows: list[dict[str, object]]) -> MartPaths:
        """Write all of it anew; each file is replaced by rename, so that no reader ever sees half of one."""
        ...


class Reports(Protocol):
    """The files in which people read what was published, and how operation stands."""

    def replace(self, readers: Report, operators: Report) -> ReportPaths:
        """Write both anew; each is replaced by rename. Raises BadInput where no file can be written."""
        ...


def by_hand() -> bool:
    """Of a store that nobody publishes by a schedule, or not that anybody knows."""
    return False


@dataclass(frozen=True)
class Outside:
    """Everything that the main path is handed.

    `is_scheduled` says whether a schedule publishes what is due: nothing in the store knows that, so who opens it says
    so. It is asked where nothing else tells whether days are waited for.
    """

    settings: Settings
    clock: Clock
    engine: Engine
    salts: Salts
    inbox: Inbox
    quarantine: Quarantine
    activity: StateStore
    late: StateStore
    builds: Builds
    sketches: SketchStore
    ledger: Ledger
    erasures: ErasureLedger
    rebuilds: Rebuilds
    completions: Completions
    landing: Landing
    receipts: ReceiptChain
    premises: Premises
    noise: Noise
    is_scheduled: Callable[[], bool] = by_hand
