"""What could go wrong in the release path, planted: each takes a store and hands it back with one fault in it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import Any
from unittest.mock import patch

from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.ledger import Ledger, LedgerTransaction
from dpdau_assets.core.ports.store import Noise, Store
from dpdau_assets.core.privacy import mechanisms
from dpdau_assets.core.privacy.accounting import Charge
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Stream
from dpdau_assets.core.publication import release

# --- Half noise --------------------------------------------------------------------------------------------------


class HalfNoise:
    """Every draw has half the scale that was priced."""

    def __init__(self, source: Noise) -> None:
        self.private = source.private
        self._source = source

    def gaussian(self, sigma: float, draws: int = 1) -> list[int]:
        return self._source.gaussian(sigma / 2, draws)

    def laplace(self, scale: float, draws: int = 1) -> list[int]:
        return self._source.laplace(scale / 2, draws)


@contextmanager
def half_noise(store: Store) -> Iterator[Store]:
    """Noise of half the scale that was priced."""
    yield replace(store, noise=HalfNoise(store.noise))


# --- Missing charge ----------------------------------------------------------------------------------------------


class ForgetfulTransaction:
    """Books that leave out some charges."""

    def __init__(self, transaction: LedgerTransaction, forgets: Callable[[Charge, LedgerTransaction], bool]) -> None:
        self._transaction = transaction
        self._forgets = forgets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def charge(self, charge: Charge) -> None:
        if not self._forgets(charge, self._transaction):
            self._transaction.charge(charge)


class ForgetfulLedger:
    """A ledger whose transactions forget charges."""

    def __init__(self, ledger: Ledger, forgets: Callable[[Charge, LedgerTransaction], bool]) -> None:
        self._ledger = ledger
        self._forgets = forgets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with self._ledger.transaction() as transaction:
            yield ForgetfulTransaction(transaction, self._forgets)


@contextmanager
def no_charge(store: Store) -> Iterator[Store]:
    """Nothing is charged."""
    ledger: Any = ForgetfulLedger(store.accountant, lambda charge, transaction: True)
    yield replace(store, accountant=ledger)


@contextmanager
def one_charge(store: Store) -> Iterator[Store]:
    """A month is charged for one number, however many read it."""
    ledger: Any = ForgetfulLedger(
        store.accountant, lambda charge, transaction: bool(transaction.charges(charge.metric, charge.month))
    )
    yield replace(store, accountant=ledger)


# --- Exact leak --------------------------------------------------------------------------------------------------


class LeakyNoise:
    """Noise of which three draws in four are 0."""

    def __init__(self, source: Noise) -> None:
        self.private = source.private
        self._source = source
        self._drawn = 0

    def gaussian(self, sigma: float, draws: int = 1) -> list[int]:
        return self._or_nothing(self._source.gaussian(sigma, draws))

    def laplace(self, scale: float, draws: int = 1) -> list[int]:
        return self._or_nothing(self._source.laplace(scale, draws))

    def _or_nothing(self, drawn: list[int]) -> list[int]:
        kept = []
        for draw in drawn:
            self._drawn += 1
            kept.append(0 if self._drawn % 4 else draw)
        return kept


@contextmanager
def exact_leak(store: Store) -> Iterator[Store]:
    """Three numbers in four are published as they are."""
    yield replace(store, noise=LeakyNoise(store.noise))


# --- Shared noise reused across revisions ------------------------------------------------------------------------


class OneDayNoise:
    """Whatever is drawn first is drawn for ever."""

    def __init__(self, source: Noise) -> None:
        self.private = source.private
        self._source = source
        self._drawn: dict[tuple[str, float], list[int]] = {}

    def gaussian(self, sigma: float, draws: int = 1) -> list[int]:
        return self._drawn.setdefault(("gaussian", sigma), self._source.gaussian(sigma, draws))

    def laplace(self, scale: float, draws: int = 1) -> list[int]:
        return self._drawn.setdefault(("laplace", scale), self._source.laplace(scale, draws))


@contextmanager
def noise_of_the_day(store: Store) -> Iterator[Store]:
    """Noise is a function of metric and day, as with a seed made from them: two revisions have it in common."""
    of_day: dict[tuple[str, date], OneDayNoise] = {}

    def draw(key: ReleaseKey, run: MechanismRun, statistic: int, transaction: LedgerTransaction, noise: Noise) -> float:
        remembered = of_day.setdefault((key.metric, key.day), OneDayNoise(noise))
        return honest_draw(key, run, statistic, transaction, remembered)

    honest_draw = release.draw
    with patch.object(release, "draw", draw):
        yield store


# --- Float Laplace -----------------------------------------------------------------------------------------------


class FloatLaplace:
    """The textbook's sampler, by inverting the distribution function in floating point (Mironov, CCS 2012)."""

    private = True

    def laplace(self, scale: float, draws: int = 1) -> list[Any]:
        return [self._one(scale) for _ in range(draws)]

    def gaussian(self, sigma: float, draws: int = 1) -> list[Any]:
        raise NotImplementedError

    def _one(self, scale: float) -> float:
        uniform = random.SystemRandom().random() - 0.5
        return -scale * math.copysign(math.log1p(-2 * abs(uniform)), uniform)


@contextmanager
def float_laplace(store: Store) -> Iterator[Store]:
    """Laplace noise in floating point."""
    yield replace(store, noise=FloatLaplace())


# --- Sensitivity 2 -----------------------------------------------------------------------------------------------


@contextmanager
def sensitivity_2(store: Store) -> Iterator[Store]:
    """Every user is counted twice, under noise that was priced for one."""
    independent, shared, stream = mechanisms.independent_number, mechanisms.shared_number, mechanisms.stream_output

    def stream_output(mechanism: Stream, history: list[int], draw: int) -> int:
        return stream(mechanism, [2 * count for count in history], draw)

    with (
        patch.object(mechanisms, "independent_number", lambda count, draw: independent(2 * count, draw)),
        patch.object(mechanisms, "shared_number", lambda count, day, month: shared(2 * count, day, month)),
        patch.object(mechanisms, "stream_output", stream_output),
    ):
        yield store
