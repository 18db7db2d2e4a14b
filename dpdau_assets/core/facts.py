"""What is known, as frozen values: complete when they are made, and never changed.

Keys are `numpy.uint64` arrays, sorted and distinct unless a docstring says otherwise.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from dpdau_assets.core.settings import Metric

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


@dataclass(frozen=True, order=True)
class Partition:
    """What one store (`activity`, `late` or `sketches`) has of one day under one epoch."""

    store: str
    day: date
    epoch: int

    def __str__(self) -> str:
        return f"{self.store}/day={self.day}/epoch={self.epoch}"


@dataclass(frozen=True)
class Version:
    """What a partition's content is known by: `hash` is made under `nonce`, and only who has the nonce can try one out.

    The nonce is of one build and goes with it.
    """

    nonce: bytes = field(repr=False)
    hash: str


@dataclass(frozen=True)
class Build:
    """What a partition was last written as.

    Attributes:
        current: of the file that is there; None where there is none.
        coming: of the one that is about to take its place; None while nothing is being written.
        without: the watermark of the removals that it is without, if later ones have passed it over because it could
            not be read; None if it is without all that were applied.
    """

    current: Version | None = None
    coming: Version | None = None
    without: int | None = None


@dataclass(frozen=True)
class RejectedRow:
    """A bad row: where it stands and which rule it breaks, never what it says."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class Rejections:
    """How many bad rows there are, by file and reason."""

    counts: Mapping[tuple[str, str], int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def by_reason(self) -> dict[str, int]:
        """The commonest first."""
        return _summed((reason, count) for (_, reason), count in self.counts.items())

    def by_file(self) -> dict[str, int]:
        """The one with the most of them first."""
        return _summed((file, count) for (file, _), count in self.counts.items())


def _summed(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for name, count in counts:
        totals[name] += count
    return dict(totals.most_common())


NOTHING_REJECTED = Rejections({})


@dataclass(frozen=True)
class BadShare:
    """Which share of the rows of one ingest was bad, and whether the others were taken.

    `rows` is the name under which the quarantine keeps them, `seen_on` the day of the ingest.
    """

    rows: str
    share: float
    taken: bool
    seen_on: date


@dataclass(frozen=True)
class Arrivals:
    """What one request brought, keyed: what has to be durable before it is acknowledged.

    Attributes:
        days, epochs, keys: parallel arrays, a row a user, day and salt epoch; int32, int32 and uint64, in any order.
        commitments: to the key of each epoch among them, by epoch.
        request: by what the log knows the request: 16 characters of ASCII.
        rejected: line and reason of each bad row.
    """

    days: npt.NDArray[np.int32]
    epochs: npt.NDArray[np.int32]
    keys: Keys
    commitments: Mapping[int, str]
    request: str
    rejected: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Removal:
    """What one person's erasure takes out, keyed under every salt epoch that it reaches: (epoch, key), in order.

    With `days` empty, it takes the user out of every day up to `through`; else of just the listed days, and
    `through` is the last of them. `passed_over` are those of these that can hold nothing, before START_DATE or past
    retention: they are asked for, and leave nothing to do. Of one that has no other day there are no keys.
    """

    through: date
    days: tuple[date, ...]
    keys: tuple[tuple[int, int], ...] = field(repr=False)
    reference: str | None = field(default=None, repr=False)
    passed_over: tuple[date, ...] = ()

    @property
    def taken(self) -> tuple[date, ...]:
        """The through-day, or the listed days, but for those passed over."""
        return tuple(day for day in self.days or (self.through,) if day not in self.passed_over)

    @property
    def scope(self) -> str:
        """What is removed, in words that are the same for the same days."""
        return f"days {','.join(map(str, self.days))}" if self.days else f"through {self.through}"


ErasureState = Literal["parked", "received", "applied", "verified", "cancelled"]


@dataclass(frozen=True)
class Erasure:
    """A request as the ledger knows it; `receipt` is its public, random name, `batch` that of its submission."""

    receipt: str
    batch: str
    through: date
    days: tuple[date, ...]
    received_on: date
    state: ErasureState

    def removes(self, day: date) -> bool:
        """Whether the person asked to be taken out of this day."""
        return day in self.days if self.days else day <= self.through


@dataclass(frozen=True)
class Reference:
    """What whoever asked calls a request by, and what its receipts are bound to it by: `commitment` is an HMAC of the
    text under `opening`, which is destroyed with the text. Then both are None, and what was committed to stays.
    """

    commitment: str
    text: str | None = field(default=None, repr=False)
    opening: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Inspected:
    """The partitions that were read back, as JSON, and a random nonce without which nobody can try out their digest."""

    nonce: str
    partitions: str

    @property
    def digest(self) -> str:
        """By which signed receipts name it: 64 hex digits."""
        return hashlib.sha256(f"{self.nonce}\n{self.partitions}".encode()).hexdigest()


@dataclass(frozen=True)
class ReceiptRow:
    """A receipt as it is kept: the signed text, its place in the chain, and what was read back for it.

    Attributes:
        inspection: the digest of what was read back.
        inspected: what was read back; None once it is superseded.
    """

    receipt: str
    body: str
    hash: str
    signature: str
    inspection: str
    inspected: Inspected | None


@dataclass(frozen=True)
class StoredFile:
    """A file, by the name that people know it by: its path below the data directory or Dagster's home."""

    name: str
    path: Path


@dataclass(frozen=True, order=True)
class ReleaseKey:
    """What a release is of, and nothing that depends on data. Revision 0 is the first publication."""

    metric: Metric
    window_days: int
    day: date
    revision: int = 0


@dataclass(frozen=True)
class Release:
    """A published number: a noisy statistic, from which its mechanism run's estimator says how many users there are.

    `noisy_value` is as drawn, and `half_width` is of the noise's 95 % interval; with the exact set both are in users.
    """

    key: ReleaseKey
    run: str
    mechanism: str
    noisy_value: float
    half_width: float
    sketch_impl: str
    published_at: str
    private: bool
    version: str

    @property
    def noisy_statistic(self) -> float:
        """`noisy_value` under the name that it has beside the users it stands for."""
        return self.noisy_value


OverrideKind = Literal["cap", "erasures_submitted"]


@dataclass(frozen=True)
class Override:
    """Somebody's decision against a rule of the ledger, on record for ever and shown in every later report.

    A `cap` gives one month of one metric another cap, and opens it if a restore has closed it; `erasures_submitted`
    declares that every request since the restored backup was handed in again.
    """

    kind: OverrideKind
    who: str
    why: str
    made_on: date
    metric: Metric | None = None
    month: date | None = None
    epsilon: Fraction | None = None


@dataclass(frozen=True)
class MartPaths:
    """Where the mart stands, and its chart in Markdown: whole, and so small that Dagster shows it in place."""

    table: Path
    csv: Path
    chart: Path
    chart_in_markdown: str
    sparkline_in_markdown: str


@dataclass(frozen=True)
class ReportPaths:
    """Where the reports stand."""

    readers: Path
    operators: Path


@dataclass(frozen=True)
class Alert:
    """What a person has to be told. It leaves the machine: days and names of jobs and checks, never of people."""

    name: str
    text: str
    fields: Mapping[str, str] = field(default_factory=dict)
