"""Two neighbouring worlds through the release path: check, charge, draw and store, on a real ledger with real noise.

A trial publishes what one user-month can change, in the world with her or in the one without, and boils the published
numbers down to one statistic, the larger the likelier that she was there. Counts are 0 without her and 1 with her.
"""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dpdau_assets.core.budget import settings_check
from dpdau_assets.core.dates import days_between, month_days, month_end, months_from
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import Noise, Store
from dpdau_assets.core.privacy.accounting import Cost, cost, epsilon_of, total
from dpdau_assets.core.privacy.mechanisms import SharedNoise, Stream, longest_interval
from dpdau_assets.core.privacy.schedule import mechanism_for
from dpdau_assets.core.publication.release import Counted, commit
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_tests.conftest import SECRET
from resources.store import open_store

Numbers = npt.NDArray[np.float64]
Fault = Callable[[Store], AbstractContextManager[Store]]
"""Hands back the store with something wrong in it, and sets it right at the end."""

START = date(2025, 1, 1)
FIRST_MAU = date(2025, 2, 1)
_IN_MEMORY = Path("/dev/shm")


def honest(store: Store) -> AbstractContextManager[Store]:
    """No fault."""
    return nullcontext(store)


class BulkNoise:
    """Noise from its source, fetched many at a time and handed out one by one."""

    def __init__(self, source: Noise, at_once: int = 64) -> None:
        self.private = source.private
        self._source = source
        self._at_once = at_once
        self._waiting: defaultdict[tuple[str, float], list[int]] = defaultdict(list)

    def gaussian(self, sigma: float, draws: int = 1) -> list[int]:
        return self._take("gaussian", sigma, draws)

    def laplace(self, scale: float, draws: int = 1) -> list[int]:
        return self._take("laplace", scale, draws)

    def _take(self, kind: str, scale: float, draws: int) -> list[int]:
        waiting = self._waiting[kind, scale]
        if len(waiting) < draws:
            waiting += getattr(self._source, kind)(scale, self._at_once + draws)
        return [waiting.pop() for _ in range(draws)]


@contextmanager
def opened(settings: Settings, fault: Fault = honest) -> Iterator[Store]:
    """An empty store of its own under settings that a start would accept, in memory where the system has such files."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as folder:
        chosen = replace(settings, data_dir=Path(folder), start_date=START, hash_salt_secret=SECRET)
        settings_check.check(chosen)
        store = open_store.__wrapped__(chosen)  # not remembered: it is gone in a moment
        with fault(replace(store, noise=BulkNoise(store.noise))) as store:
            yield store


def published(statistics: dict[ReleaseKey, int], store: Store) -> Numbers:
    """The numbers of these keys, made in one transaction, in order of keys."""
    counted = {key: Counted(statistic, ExactEstimator()) for key, statistic in statistics.items()}
    releases = commit(counted, store.erasures.ledger.recorded(), store)
    assert releases is not None and [release.key for release in releases] == sorted(statistics)
    return np.array([release.noisy_value for release in releases])


# --- What is published in a trial --------------------------------------------------------------------------------


class Design(Protocol):
    @property
    def settings(self) -> Settings: ...

    @property
    def metric(self) -> Metric: ...

    @property
    def per_ledger(self) -> int:
        """How many trials one ledger takes."""
        ...

    def statistics(self, present: Sequence[bool], store: Store) -> list[float]:
        """One trial each, on an empty store."""
        ...

    def months(self, trials: int) -> list[date]:
        """The months that these trials are about."""
        ...


@dataclass(frozen=True)
class Independent:
    """The first days of a month, once each, with noise of their own; the statistic is the smallest number."""

    settings: Settings
    days: int = 1
    metric: Metric = "dau"
    per_ledger: int = 200

    def months(self, trials: int) -> list[date]:
        return list(islice(months_from(START), trials))

    def numbers(self, present: Sequence[bool], store: Store) -> Numbers:
        """One row a trial, one column a day."""
        counts = {
            ReleaseKey("dau", 1, day): int(here)
            for month, here in zip(self.months(len(present)), present, strict=True)
            for day in days_between(month, month + timedelta(days=self.days - 1))
        }
        return published(counts, store).reshape(len(present), self.days)

    def statistics(self, present: Sequence[bool], store: Store) -> list[float]:
        return self.numbers(present, store).min(axis=1).tolist()


@dataclass(frozen=True)
class SharedMonth:
    """A month of DAU, published and, if that is configured, restated; the statistic is the log-likelihood ratio.

    She is counted on the first `first` days when they are published, and on the first `again` of them when they are
    restated: fewer after an erasure, more with late events. With `days`, no more of the month is published.
    """

    settings: Settings
    first: int = 17
    again: int = 18  # 35 of 62 numbers cost most
    days: int | None = None
    metric: Metric = "dau"
    per_ledger: int = 6

    def months(self, trials: int) -> list[date]:
        return list(islice(months_from(START), trials))

    def statistics(self, present: Sequence[bool], store: Store) -> list[float]:
        return [
            self._statistic(month, self.numbers(month, here, store))
            for month, here in zip(self.months(len(present)), present, strict=True)
        ]

    def numbers(self, month: date, present: bool, store: Store) -> Numbers:
        """One row for what was published, one for what was restated, and one column a day."""
        days = self._days(month)
        rows = []
        for revision, row in enumerate((present * self.seen(month)).astype(int)):
            keys = [ReleaseKey("dau", 1, day, revision) for day in days]
            rows.append(published(dict(zip(keys, row.tolist(), strict=True)), store))
        return np.array(rows)

    def seen(self, month: date) -> npt.NDArray[np.bool_]:
        """Where she is counted, in the shape of `numbers`."""
        until = (self.first, self.again)[: 1 + self.settings.restatements_per_month]
        return np.arange(len(self._days(month))) < np.array(until)[:, None]

    def whitened(self, month: date, numbers: Numbers) -> Numbers:
        """The numbers in units of their covariance's inverse."""
        shared = shared_noise_of(self.settings, month)
        day2, month2 = shared.sigma_day**2, shared.sigma_month**2
        flat = numbers.ravel()
        return 4 * (flat - month2 * flat.sum() / (day2 + len(flat) * month2)) / day2

    def _statistic(self, month: date, numbers: Numbers) -> float:
        """A statistic of variance 1, so that long months and short ones go together."""
        seen = self.seen(month).astype(float)
        return float(seen.ravel() @ self.whitened(month, numbers)) / math.sqrt(
            seen.ravel() @ self.whitened(month, seen)
        )

    def _days(self, month: date) -> list[date]:
        return days_between(month, month_end(month))[: self.days]


class ErasedInBetween(SharedMonth):
    """What was published in a month less what was restated: of little use unless both have noise in common."""

    def _statistic(self, month: date, numbers: Numbers) -> float:
        return float(numbers[0].sum() - numbers[1].sum())


@dataclass(frozen=True)
class StreamInterval:
    """MAU while a user comes and goes within `days`; the statistic is the log-likelihood ratio of all that it changes.

    One user-month changes most in 60 days.
    """

    settings: Settings
    days: int = 60
    metric: Metric = "mau"

    @property
    def per_ledger(self) -> int:
        return 136 // self._outputs

    def months(self, trials: int) -> list[date]:
        last = FIRST_MAU + timedelta(days=trials * self._outputs - 1)
        return list(takewhile(lambda month: month <= last, months_from(FIRST_MAU)))

    def statistics(self, present: Sequence[bool], store: Store) -> list[float]:
        counts = np.outer(np.array(present, dtype=int), self._interval)
        outputs = self.outputs(counts.ravel().tolist(), store).reshape(counts.shape)
        change = np.convolve(self._interval, self.mechanism.filter)[: self._outputs]
        return (outputs @ change / np.linalg.norm(change) / self.mechanism.sigma).tolist()

    def outputs(self, counts: Sequence[int], store: Store) -> Numbers:
        """The integers that the published numbers were made from: anyone can compute them from those."""
        keys = [ReleaseKey("mau", 30, FIRST_MAU + timedelta(days=n)) for n in range(len(counts))]
        numbers = published(dict(zip(keys, counts, strict=True)), store)
        return np.convolve(numbers, self.mechanism.filter)[: len(numbers)]

    @property
    def mechanism(self) -> Stream:
        mechanism = mechanism_for(self.settings, "mau", FIRST_MAU)
        assert isinstance(mechanism, Stream) and self.days <= longest_interval(30)
        return mechanism

    @property
    def _interval(self) -> npt.NDArray[np.int64]:
        """The days with her, and then those on which the filter still sees her."""
        return np.repeat([1, 0], [self.days, len(self.mechanism.filter) - 1])

    @property
    def _outputs(self) -> int:
        return len(self._interval)


def shared_noise_of(settings: Settings, month: date) -> SharedNoise:
    """The mechanism that the month's numbers are to come from."""
    mechanism = mechanism_for(settings, "dau", month)
    assert isinstance(mechanism, SharedNoise)
    assert mechanism.releases == month_days(month) * (1 + settings.restatements_per_month)
    return mechanism


# --- Running trials ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trials:
    """The statistics of both worlds, and what the ledger says that a user-month was charged."""

    present: Numbers
    absent: Numbers
    charged: Cost
    delta: float

    @property
    def claim(self) -> float:
        """The ε that the ledger's charges come to."""
        return epsilon_of(self.charged, self.delta)


def run(design: Design, trials: int, fault: Fault = honest) -> Trials:
    """So many trials in each world, on as many ledgers as it takes."""
    statistics: dict[bool, list[float]] = {True: [], False: []}
    charged: list[Cost] = []
    for begun in range(0, 2 * trials, design.per_ledger):
        size = min(design.per_ledger, 2 * trials - begun)
        # The worlds take turns, and from year to year the other one gets the long months.
        present = [bool((n + n // 12) % 2) for n in range(begun, begun + size)]
        with opened(design.settings, fault) as store:
            for here, statistic in zip(present, design.statistics(present, store), strict=True):
                statistics[here].append(statistic)
            charged.append(_dearest(design.metric, design.months(size)[:12], store))
    delta = design.settings.delta
    return Trials(np.array(statistics[True]), np.array(statistics[False]), _most(charged, delta), delta)


def _dearest(metric: Metric, months: Collection[date], store: Store) -> Cost:
    """The price of the dearest month of a year: what follows is charged alike."""
    prices = [total(cost(charge.mechanism) for charge in store.accountant.charges(metric, month)) for month in months]
    return _most(prices, store.settings.delta)


def _most(prices: Collection[Cost], delta: float) -> Cost:
    return max(prices, key=lambda price: epsilon_of(price, delta))
