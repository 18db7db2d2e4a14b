"""KMV, the k minimum values: the k smallest keys, which are hashes by themselves.

Its size is bounded whatever comes, and that is what makes its statistic min(k, ·) depend on other users: no stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Self

import numpy as np

from dpdau_assets.core.facts import Keys
from dpdau_assets.core.privacy.mechanisms import NoiseWidth
from dpdau_assets.core.sketches.base import Header, damaged, parameter, require_same
from dpdau_assets.core.sketches.exact import sorted_words
from dpdau_assets.core.sketches.keysets import little_endian, members, subtract, unite
from dpdau_assets.core.sketches.sampling import sampled_interval, threshold_for

KIND = "kmv"


@dataclass(frozen=True, eq=False)
class KmvSketch:
    """A sorted array of at most k keys; 8 bytes each."""

    header: Header
    smallest: Keys

    @classmethod
    def build(cls, header: Header, keys: Keys) -> Self:
        return cls(header, keys[: int(header.parameters["k"])].copy())  # or all of the day would stay in memory

    @classmethod
    def unite(cls, sketches: Sequence[Self]) -> Self:
        shared = require_same([sketch.header for sketch in sketches])
        return cls.build(
            Header(KIND, shared.epoch, "union", shared.parameters), unite([sketch.smallest for sketch in sketches])
        )

    def traces(self, keys: Keys) -> Keys:
        return members(self.smallest, keys)

    def without(self, keys: Keys) -> Self | None:
        """A full sketch that loses a key does not know the one that would take its place."""
        left = subtract(self.smallest, keys)
        is_full = len(self.smallest) == self.header.parameters["k"]
        return None if is_full and len(left) < len(self.smallest) else type(self)(self.header, left)

    def body(self) -> memoryview:
        return little_endian(self.smallest)

    @classmethod
    def parse(cls, header: Header, body: memoryview) -> Self:
        smallest, k = sorted_words(body), parameter(header, "k")
        if not len(smallest) <= k:
            raise damaged(f"it has more keys than its k of {k}")
        return cls(header, smallest)


@dataclass(frozen=True)
class KmvEstimator:
    """Users whose key is below θ0·2⁶⁴, counted up to k; each stands for 1/θ0 users."""

    kind: ClassVar[str] = KIND
    linear: ClassVar[bool] = False
    samples: ClassVar[bool] = True
    k: int
    theta0: Fraction

    @classmethod
    def for_users(cls, users: float, k: int) -> Self:
        """With a quarter to half of k expected in the sample: so that twice as many users still fit."""
        return cls(k, threshold_for(users, max(1, k // 4)))

    def header(self, epoch: int, source: str) -> Header:
        return Header(KIND, epoch, source, {"k": self.k})

    def reads(self, header: Header) -> bool:
        return header.kind == KIND and header.parameters == {"k": self.k}

    def narrowed(self, sketch: KmvSketch) -> KmvSketch:
        return sketch

    def statistic(self, sketch: KmvSketch) -> int:
        """min(k, the number of keys below θ0): the sketch has no more than k."""
        return len(self.words(sketch))

    def words(self, sketch: KmvSketch) -> Keys:
        if self.theta0 == 1:
            return sketch.smallest
        return sketch.smallest[: np.searchsorted(sketch.smallest, np.uint64(self.theta0 * 2**64))]

    def counted(self, words: int) -> int:
        """A day's sketch that is full lacks keys of the union only where the union has k that are smaller."""
        return min(self.k, words)

    def users(self, noisy: float) -> float:
        return noisy / float(self.theta0)

    def interval(self, noisy: float, noise: NoiseWidth) -> tuple[float, float | None]:
        low, high = sampled_interval(min(noisy, self.k), noise, self.theta0)
        return low, high if high * self.theta0 < self.k else None
