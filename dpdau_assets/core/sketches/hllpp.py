"""HyperLogLog with the 64-bit hashes of HLL++ (Heule, Nunkesser, Hall 2013): one byte a register.

Keys are the hashes: the upper bits of a key choose its register, and a register keeps the highest rank that it was
offered, 1 + the leading zeros of the other bits. What is counted is not the usual harmonic mean, which one user can
change by any amount, but C, the registers of rank ℓ or more: a user is offered to one register, and lifts it or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from dpdau_assets.core.facts import Keys
from dpdau_assets.core.privacy.mechanisms import NoiseWidth
from dpdau_assets.core.sketches.base import Header, damaged, parameter, require_same
from dpdau_assets.core.sketches.sampling import Z

KIND = "hllpp"
LEAST_REGISTERS, MOST_REGISTERS = 1 << 4, 1 << 18
BEST_LOAD = 1.6  # of registers by users of rank ℓ: there the error √(e^t − 1)/(t·√m) is least, 1.24/√m
_KEY_BITS = 64

Ranks = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class HllSketch:
    """The rank of each register, 0 for one that nobody was offered to."""

    header: Header
    ranks: Ranks

    @classmethod
    def build(cls, header: Header, keys: Keys) -> Self:
        """The smallest key of a register has the highest rank, and keys are sorted: one look a register."""
        registers = int(header.parameters["registers"])
        first = np.searchsorted(keys, np.arange(registers, dtype=np.uint64) << np.uint64(_rest_bits(registers)))
        ranks = np.zeros(registers, dtype=np.uint8)
        smallest = keys[first[first < len(keys)]]
        chosen, offered = _offered(smallest, registers)
        own = chosen == np.flatnonzero(first < len(keys))  # of an empty register, it is the next one's
        ranks[chosen[own]] = offered[own]
        return cls(header, ranks)

    @classmethod
    def unite(cls, sketches: Sequence[Self]) -> Self:
        shared = require_same([sketch.header for sketch in sketches])
        header = Header(KIND, shared.epoch, "union", shared.parameters)
        return cls(header, np.maximum.reduce([sketch.ranks for sketch in sketches]))

    def traces(self, keys: Keys) -> Keys:
        """The keys that have the rank that their register shows: whether somebody else has it too, it cannot tell."""
        chosen, offered = _offered(keys, len(self.ranks))
        return keys[self.ranks[chosen] == offered]

    def without(self, keys: Keys) -> Self | None:
        return None if len(self.traces(keys)) else self

    def body(self) -> memoryview:
        return self.ranks.data.cast("B")

    @classmethod
    def parse(cls, header: Header, body: memoryview) -> Self:
        registers = parameter(header, "registers")
        ranks = np.frombuffer(body, dtype=np.uint8)
        if len(ranks) != registers or len(ranks).bit_count() != 1:
            raise damaged(f"it has {len(ranks)} registers and not {registers}, a power of two")
        if ranks.max() > highest_level(len(ranks)):
            raise damaged(f"a register of {len(ranks)} has no rank {ranks.max()}")
        return cls(header, ranks)


@dataclass(frozen=True)
class HllEstimator:
    """Registers whose rank is `level` (ℓ) or more. A user has such a rank with probability 2^−(ℓ − 1)."""

    kind: ClassVar[str] = KIND
    linear: ClassVar[bool] = False
    samples: ClassVar[bool] = True
    registers: int
    level: int

    @classmethod
    def for_users(cls, users: float, registers: int) -> Self:
        """With a load between 1.1 and 2.3 for so many users, less if there are fewer."""
        halvings = round(math.log2(max(1.0, users / (BEST_LOAD * registers))))
        return cls(registers, min(1 + halvings, highest_level(registers)))

    def header(self, epoch: int, source: str) -> Header:
        return Header(KIND, epoch, source, {"registers": self.registers})

    def reads(self, header: Header) -> bool:
        return header.kind == KIND and header.parameters == {"registers": self.registers}

    def narrowed(self, sketch: HllSketch) -> HllSketch:
        return sketch

    def statistic(self, sketch: HllSketch) -> int:
        """C."""
        return len(self.words(sketch))

    def words(self, sketch: HllSketch) -> Keys:
        """The numbers of the registers whose rank is ℓ or more."""
        return np.flatnonzero(sketch.ranks >= self.level).astype(np.uint64)

    def counted(self, words: int) -> int:
        return words

    def users(self, noisy: float) -> float:
        """ln(1 − C/m) / ln(1 − 2^−(ℓ − 1)/m), for C at most m − ½; it inverts the mean of C exactly."""
        full = min(noisy, self.registers - 0.5) / self.registers
        return math.log1p(-full) / math.log1p(-self._chance)

    def interval(self, noisy: float, noise: NoiseWidth) -> tuple[float, float | None]:
        """All n for which C lies within √(w² + z²·Var(C)) + s/2 of its mean: w and s as in `sampled_interval`."""

        def reach(users: float) -> float:
            return math.hypot(noise.smooth, Z * math.sqrt(self._variance(users))) + noise.step / 2

        noisy = min(noisy, self.registers - 0.5)
        full = 4 * self.users(self.registers)  # by then all registers are as full as they get
        low = _first(lambda n: self._mean(n) + reach(n) >= noisy, full)
        return full if low is None else low, _first(lambda n: self._mean(n) - reach(n) > noisy, full)

    @property
    def _chance(self) -> float:
        """The probability that a user lifts one given register to the level."""
        return 2.0 ** (1 - self.level) / self.registers

    def _mean(self, users: float) -> float:
        return -self.registers * math.expm1(users * math.log1p(-self._chance))

    def _variance(self, users: float) -> float:
        """m·e^−t·(1 − e^−t) − m·t·q·e^−2t of the load t = n·q/m, q = 2^−(ℓ − 1): balls that come with chance q."""
        load, chance = users * self._chance, 2.0 ** (1 - self.level)
        empty = math.exp(-load)
        return max(0.0, self.registers * empty * (1 - empty - load * chance * empty))


def highest_level(registers: int) -> int:
    """The rank of a key that is 0 below its register's bits."""
    return _rest_bits(registers) + 1


def _rest_bits(registers: int) -> int:
    return _KEY_BITS - (registers.bit_length() - 1)


def _offered(keys: Keys, registers: int) -> tuple[npt.NDArray[np.intp], Ranks]:
    """Each key's register, and the rank that it offers."""
    rest = np.uint64(_rest_bits(registers))
    chosen = (keys >> rest).astype(np.intp)
    below = keys & ((np.uint64(1) << rest) - np.uint64(1))
    return chosen, (highest_level(registers) - _bit_lengths(below)).astype(np.uint8)


def _bit_lengths(words: Keys) -> npt.NDArray[np.intp]:
    """In two halves, since a float holds no 64 bits."""
    high, low = ((words >> np.uint64(32)), words & np.uint64(0xFFFFFFFF))
    of_high, of_low = (np.frexp(half.astype(np.float64))[1] for half in (high, low))
    return np.where(high > 0, of_high + 32, of_low)


def _first(holds: Callable[[float], bool], end: float) -> float | None:
    """Where on 0..end this begins to hold, to 12 digits; None if it never does."""
    if holds(0.0):
        return 0.0
    if not holds(end):
        return None
    low, high = 0.0, end
    while high - low > 1e-12 * end:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
