"""The exact set: every key kept, nothing estimated. The default, and the reference that other sketches are held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.facts import Keys
from dpdau_assets.core.keysets import is_key_set, little_endian, subtract, unite
from dpdau_assets.core.sketches.base import Header, require_same


@dataclass(frozen=True, eq=False)
class ExactSketch:
    """A sorted array of distinct keys; 8 bytes a user."""

    header: Header
    keys: Keys

    @classmethod
    def build(cls, keys: Keys, epoch: int, source: str) -> Self:
        return cls(Header("set", epoch, source), keys)

    @classmethod
    def unite(cls, sketches: Sequence[Self]) -> Self:
        shared = require_same([sketch.header for sketch in sketches])
        return cls(Header("set", shared.epoch, "union"), unite([sketch.keys for sketch in sketches]))

    def without(self, keys: Keys) -> Self:
        return type(self)(self.header, subtract(self.keys, keys))

    def statistic(self) -> int:
        """The number of keys."""
        return len(self.keys)

    def body(self) -> memoryview:
        return little_endian(self.keys)

    @classmethod
    def parse(cls, header: Header, body: memoryview) -> Self:
        if header.kind != "set" or len(body) % 8:
            raise BadInput(f"A {header.kind} sketch of {len(body)} bytes is not an exact set.", "Rebuild the day.")
        keys = np.frombuffer(body, dtype="<u8").astype(np.uint64, copy=False)
        if not is_key_set(keys):
            raise BadInput("The keys of an exact set are not in order.", "Rebuild the day.")
        return cls(header, keys)
