"""The exact set: every key kept, nothing estimated. The default, and the reference that other sketches are held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from dpdau_assets.core.facts import Keys
from dpdau_assets.core.privacy.mechanisms import NoiseWidth
from dpdau_assets.core.sketches.base import Header, damaged, require_same
from dpdau_assets.core.sketches.keysets import is_key_set, little_endian, members, subtract, unite

KIND = "set"


@dataclass(frozen=True, eq=False)
class ExactSketch:
    """A sorted array of distinct keys; 8 bytes a user."""

    header: Header
    keys: Keys

    @classmethod
    def build(cls, header: Header, keys: Keys) -> Self:
        return cls(header, keys)

    @classmethod
    def unite(cls, sketches: Sequence[Self]) -> Self:
        shared = require_same([sketch.header for sketch in sketches])
        return cls(Header(KIND, shared.epoch, "union"), unite([sketch.keys for sketch in sketches]))

    def traces(self, keys: Keys) -> Keys:
        return members(self.keys, keys)

    def without(self, keys: Keys) -> Self:
        return type(self)(self.header, subtract(self.keys, keys))

    def body(self) -> memoryview:
        return little_endian(self.keys)

    @classmethod
    def parse(cls, header: Header, body: memoryview) -> Self:
        return cls(header, sorted_words(body))


@dataclass(frozen=True)
class ExactEstimator:
    """Every user counts one."""

    kind: ClassVar[str] = KIND
    linear: ClassVar[bool] = True
    samples: ClassVar[bool] = False

    def header(self, epoch: int, source: str) -> Header:
        return Header(KIND, epoch, source)

    def reads(self, header: Header) -> bool:
        return header.kind == KIND

    def narrowed(self, sketch: ExactSketch) -> ExactSketch:
        return sketch

    def statistic(self, sketch: ExactSketch) -> int:
        """The number of keys."""
        return len(sketch.keys)

    def words(self, sketch: ExactSketch) -> Keys:
        return sketch.keys

    def counted(self, words: int) -> int:
        return words

    def users(self, noisy: float) -> float:
        return noisy

    def interval(self, noisy: float, noise: NoiseWidth) -> tuple[float, float]:
        return noisy - noise.half_width, noisy + noise.half_width


def sorted_words(body: memoryview) -> Keys:
    """Distinct 64-bit words in order, from their little-endian bytes. Raises BadInput for anything else."""
    if len(body) % 8:
        raise damaged("its length is not that of keys of 8 bytes")  # which length would tell how many
    words = np.frombuffer(body, dtype="<u8").astype(np.uint64, copy=False)
    if not is_key_set(words):
        raise damaged("its keys are not in order")
    return words
