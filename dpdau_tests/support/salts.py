"""Salts that are the same in every process, for adapters that are tested without a ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import EpochKey


@dataclass
class KnownSalts:
    """A key of this store for every epoch that is not gone, and which were asked for."""

    asked: list[list[int]] = field(default_factory=list)
    store: str = ""
    gone: frozenset[int] = frozenset()

    def epoch_keys(self, epochs: Iterable[int]) -> Mapping[int, EpochKey]:
        self.asked.append(sorted(epochs))
        if gone := self.gone.intersection(self.asked[-1]):
            raise Refused(f"The key of salt epoch {min(gone)} was shredded.", "What it keyed is past retention.")
        return {
            epoch: EpochKey(epoch, hashlib.sha256(f"{self.store}epoch {epoch}".encode()).digest())
            for epoch in self.asked[-1]
        }

    def shredded_through(self) -> None:
        return None

    def lost(self) -> frozenset[int]:
        return frozenset()
