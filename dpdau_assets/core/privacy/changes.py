"""How far noise alone can move the difference of two published numbers: from public constants, never from data.

Two numbers of one run have noise in common, which a difference takes out: the ξ_month of a month of shared noise, and
in a stream the draws that the earlier number has already. Between two runs nothing is in common.

Whatever is computed from published numbers alone costs no budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from statistics import NormalDist

import numpy as np

from dpdau_assets.core.privacy.mechanisms import (
    COVERAGE,
    Gaussian,
    Laplace,
    Mechanism,
    Probabilities,
    SharedNoise,
    Stream,
    draw_probabilities,
    laplace_probabilities,
    noise_std,
)
from dpdau_assets.core.privacy.stream_filters import response_overlap

_MOST_VALUES = (
    20_000  # of a distribution that is worked out; one that is wider is a normal one to more digits than shown
)


@dataclass(frozen=True)
class NoiseOf:
    """The noise of one published number: which run's, and on which day of the run, counted from 1."""

    mechanism: Mechanism
    run: str
    run_day: int


@lru_cache(maxsize=4096)
def change_half_width_95(one: NoiseOf, other: NoiseOf) -> float:
    """The h within which the difference of two different numbers lies in 95 of 100 cases if nothing has changed.

    In the numbers' own units. From the draws as they are, where their distribution is coarse enough to be worked out;
    else from the normal one of its variance.
    """
    draws = _draws(one, other)
    if draws is not None and sum(map(len, draws)) <= _MOST_VALUES:
        return _covering(draws) * _step(one.mechanism, other.mechanism)
    return NormalDist().inv_cdf((1 + COVERAGE) / 2) * math.sqrt(change_variance(one, other))


def change_variance(one: NoiseOf, other: NoiseOf) -> float:
    """The variance of the difference of two different numbers' noise, in their own units squared."""
    variances = [noise_std(noise.mechanism, noise.run_day) ** 2 for noise in (one, other)]
    return sum(variances) - 2 * covariance(one, other)


def covariance(one: NoiseOf, other: NoiseOf) -> float:
    """The covariance of two different numbers' noise, in their own units squared."""
    if one.run != other.run:
        return 0.0
    mechanism = one.mechanism
    if isinstance(mechanism, SharedNoise):
        return _variance(draw_probabilities(mechanism.sigma_month)) / 4
    if isinstance(mechanism, Stream):
        first, last = sorted((one.run_day, other.run_day))
        return (mechanism.sigma / mechanism.filter[0]) ** 2 * response_overlap(mechanism.filter, first, last - first)
    return 0.0


def _draws(one: NoiseOf, other: NoiseOf) -> list[Probabilities] | None:
    """The independent draws that are left in the difference, in steps of it.

    None for streams, whose steps are too fine to count, and for two mechanisms with different steps.
    """
    if isinstance(one.mechanism, Stream) or isinstance(other.mechanism, Stream):
        return None
    shared = [isinstance(noise.mechanism, SharedNoise) for noise in (one, other)]
    if any(shared) and not all(shared):
        return None
    return [
        probabilities
        for noise in (one, other)
        for probabilities in _of_number(noise.mechanism, with_month=one.run != other.run)
    ]


def _of_number(mechanism: Mechanism, *, with_month: bool) -> list[Probabilities]:
    if isinstance(mechanism, SharedNoise):
        sigmas = [mechanism.sigma_day, *([mechanism.sigma_month] if with_month else [])]
        return [draw_probabilities(sigma) for sigma in sigmas]
    if isinstance(mechanism, Laplace):
        return [laplace_probabilities(float(mechanism.epsilon))]
    assert isinstance(mechanism, Gaussian)
    return [draw_probabilities(mechanism.sigma)]


def _step(*mechanisms: Mechanism) -> float:
    return 0.5 if any(isinstance(mechanism, SharedNoise) for mechanism in mechanisms) else 1.0


def _covering(draws: Sequence[Probabilities]) -> int:
    """The smallest integer h with P(|sum of the draws| <= h) >= 0.95; each has the values -n..n."""
    probabilities = reduce(np.convolve, draws)
    middle = len(probabilities) // 2
    inside = probabilities[middle] + 2 * np.concatenate([[0.0], np.cumsum(probabilities[middle + 1 :])])
    return int(np.searchsorted(inside, COVERAGE))


def _variance(probabilities: Probabilities) -> float:
    reach = len(probabilities) // 2
    return float(probabilities @ np.arange(-reach, reach + 1) ** 2)
