"""Erasures as core needs them: requests as tombstones, and the chain of receipts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Protocol

from dpdau_assets.core.facts import (
    Erasure,
    ErasureState,
    Inspected,
    ReceiptRow,
    Reference,
    Removal,
)

if TYPE_CHECKING:
    from dpdau_assets.core.tombstones import Tombstones


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
        """The references of those of these that were recorded with one; the text goes with the last tombstone."""
        ...

    def referred_to(self, reference: str) -> list[Erasure]:
        """The requests that have this reference, in order of arrival."""
        ...

    def tombstones(self, epoch: int, *, after: int = 0, through: int | None = None) -> Tombstones:
        """Tombstones of one epoch that are in force, or just those that came into force between two watermarks.

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


class ReceiptChain(Protocol):
    """Receipts, each with the hash of the one before it."""

    def append(self, rows: Sequence[ReceiptRow], follows: str, verified: Sequence[str]) -> None:
        """Append to the chain, and note which applied requests are verified, in one transaction.

        `follows` is the hash that the first row follows. Raises Refused when it is no longer the chain's last.
        """
        ...

    def last_hash(self) -> str:
        """The hash of the chain's last receipt, "" for an empty chain."""
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
