"""What core needs from outside, as protocols of a few methods; `resources/` implements them, tests may hand in others.

Keys are `numpy.uint64` arrays, sorted and distinct unless a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from dpdau_assets.core.accounting import Charge
    from dpdau_assets.core.erasure import Tombstones
    from dpdau_assets.core.mechanisms import Mechanism
    from dpdau_assets.core.settings import Metric, Settings
    from dpdau_assets.core.sketches.base import Header, Sketch

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class EpochKey:
    """The secret key of one salt epoch: 32 random bytes. Never printed."""

    epoch: int
    secret: bytes

    def __repr__(self) -> str:
        return f"EpochKey(epoch={self.epoch}, secret=...)"


@dataclass(frozen=True)
class DaySet:
    """The users of one day under one epoch."""

    day: date
    epoch: int
    keys: Keys


@dataclass(frozen=True)
class RejectedRow:
    """A bad row: where it stands and which rule it breaks, never what it says."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class Removal:
    """One erasure as an event asked for it, keyed under one epoch.

    With `days` empty, it takes the user out of every day up to `through`; else of just the listed days, and
    `through` is the last of them.
    """

    epoch: int
    key: int
    through: date
    days: tuple[date, ...] = ()


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
    """The epoch keys."""

    def epoch_keys(self, epochs: Iterable[int]) -> Mapping[int, EpochKey]:
        """The keys of these epochs, made now where there are none. Raises BadSetting without HASH_SALT_SECRET."""
        ...


class Scan(Protocol):
    """The valid and the bad rows of the files that an engine was asked to read, each distinct user held once."""

    accepted: int
    """Rows that passed every rule."""

    def rejected(self) -> Iterable[RejectedRow]: ...

    def days(self) -> list[date]:
        """Days with at least one '+' row, sorted."""
        ...

    def removals(self) -> bool:
        """Whether any '-' row was accepted."""
        ...

    def user_days(self, key: EpochKey, first: date, last: date) -> Iterator[DaySet]:
        """The keyed users of each day from `first` to `last` that has any, in order of days."""
        ...

    def removals_under(self, key: EpochKey) -> Iterator[Removal]:
        """The distinct removals that the accepted '-' rows ask for, keyed under this epoch."""
        ...


class Engine(Protocol):
    """Reads event files in bulk; raw ids live in its memory only."""

    def scan(self, files: list[Path], first_day: date, last_day: date) -> AbstractContextManager[Scan]:
        """Parse and validate. Raises BadInput, having kept nothing, when a file cannot be read at all."""
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

    def read(self, batches: list[str]) -> Iterator[DaySet]:
        """What these batches hold: each (day, epoch) once, in order, with the union of their keys."""
        ...

    def discard(self, batches: list[str]) -> None:
        """Unlink folded batches."""
        ...


class Quarantine(Protocol):
    """Where bad rows are remembered by place and reason."""

    def keep(self, rows: Iterable[RejectedRow]) -> Path | None:
        """Write a CSV (file, line, reason), durably, named after what it holds; None when there are no rows."""
        ...


class Removals(Protocol):
    """The removals that were asked for, for ever in force while their salt epoch lives."""

    def record(self, removals: list[Removal]) -> None:
        """Keep them durably, all or none. Those already known keep the MAU day from which they were first in force."""
        ...

    def tombstones(self, epoch: int) -> Tombstones:
        """All of one epoch's."""
        ...

    def recorded(self) -> int:
        """The watermark: how many were ever recorded."""
        ...

    def applied(self) -> int:
        """The watermark up to which the stored state has been rewritten."""
        ...

    def mark_applied(self, watermark: int) -> None: ...


class StateStore(Protocol):
    """Keyed state, one immutable file a (day, epoch); a second one of the same kind holds late events."""

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

    def replace(self, sets: Iterable[DaySet]) -> None:
        """Write these files durably, each whole or not at all; the ones they replace are unlinked."""
        ...


class SketchStore(Protocol):
    """Serialised sketches, one a (day, epoch)."""

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


@dataclass(frozen=True, order=True)
class ReleaseKey:
    """What a release is of, and nothing that depends on data. Revision 0 is the first publication."""

    metric: Metric
    window_days: int
    day: date
    revision: int = 0


@dataclass(frozen=True)
class Instance:
    """One run of a mechanism: a month of shared noise, a stream, or a single independent release.

    `terms` are the settings it was opened under, which must not change while it lives.
    """

    name: str
    metric: Metric
    window_days: int
    first_day: date
    mechanism: Mechanism
    terms: Mapping[str, str]


@dataclass(frozen=True)
class Release:
    """A published number. `noisy_value` is as drawn; `half_width` is of its 95 % interval."""

    key: ReleaseKey
    instance: str
    mechanism: str
    noisy_value: float
    half_width: float
    sketch_impl: str
    published_at: str
    private: bool
    version: str


class Books(Protocol):
    """The ledger inside one transaction: nothing of it is visible before the transaction ends well."""

    def release(self, key: ReleaseKey) -> Release | None: ...

    def last_day(self, metric: Metric, window_days: int) -> date | None:
        """The last day that was published, in whatever revision."""
        ...

    def removals_recorded(self) -> int:
        """How many tombstones there are, to tell whether any came since a statistic was read."""
        ...

    def instance(self, name: str) -> Instance | None: ...

    def last_instance(self, metric: Metric, window_days: int) -> Instance | None:
        """The one of this series that was opened last."""
        ...

    def open_instance(self, instance: Instance) -> None: ...

    def charges(self, metric: Metric, month: date) -> list[Charge]:
        """Everything charged to this month of this metric."""
        ...

    def charge(self, charge: Charge) -> None: ...

    def shared_noise(self, instance: str) -> int | None:
        """The secret noise that the instance's numbers share."""
        ...

    def keep_shared_noise(self, instance: str, value: int) -> None: ...

    def destroy_shared_noise(self, instance: str) -> None: ...

    def frozen(self, instance: str) -> list[int]:
        """The statistics of a stream's published days, oldest first."""
        ...

    def freeze(self, instance: str, day: date, statistic: int) -> None: ...

    def numbers(self, instance: str) -> list[float]:
        """`noisy_value` of every release of the instance, in order of days and revisions."""
        ...

    def store(self, release: Release) -> None: ...


class Ledger(Protocol):
    """What was charged and published. Its transactions are serial: one at a time, whole or not at all."""

    def transaction(self) -> AbstractContextManager[Books]: ...

    def release(self, key: ReleaseKey) -> Release | None: ...

    def releases(self, metric: Metric | None = None) -> list[Release]:
        """Every release, in the order in which they were published."""
        ...

    def instances(self) -> list[Instance]: ...

    def charges(self, metric: Metric, month: date) -> list[Charge]: ...

    def seal(self, days: Iterable[date]) -> None:
        """From now on, events that arrive for these days are late. Committed when this returns."""
        ...

    def sealed(self) -> frozenset[date]: ...

    def mark_processed(self, days: Iterable[date]) -> None:
        """The state of these days was asked for and is there. Committed when this returns."""
        ...

    def processed(self) -> frozenset[date]: ...

    def fix_terms(self, terms: Mapping[str, str]) -> None:
        """Remember these for ever at the first call; BadSetting, naming each that differs, at any later one."""
        ...


@dataclass(frozen=True)
class MartPaths:
    """Where the mart stands, and its chart in Markdown: whole, and so small that Dagster shows it in place."""

    table: Path
    csv: Path
    chart: Path
    chart_in_markdown: str
    sparkline_in_markdown: str


class Mart(Protocol):
    """The published series for BI."""

    def replace(self, rows: list[dict[str, object]]) -> MartPaths:
        """Write all of it anew; each file is replaced by rename, so that no reader ever sees half of one."""
        ...


@dataclass(frozen=True)
class Outside:
    """Everything that the main path is handed."""

    settings: Settings
    clock: Clock
    engine: Engine
    salts: Salts
    inbox: Inbox
    quarantine: Quarantine
    activity: StateStore
    late: StateStore
    sketches: SketchStore
    ledger: Ledger
    removals: Removals
    noise: Noise
