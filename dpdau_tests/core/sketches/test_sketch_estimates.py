"""Estimates and intervals from a noisy statistic: inverses of its mean, and bounds that hold their coverage."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from dpdau_assets.core.privacy.mechanisms import (
    Gaussian,
    Laplace,
    NoiseWidth,
    SharedNoise,
    half_width_95,
    independent_gaussian,
    noise_width,
    shared_noise,
)
from dpdau_assets.core.sketches import build
from dpdau_assets.core.sketches.base import Estimator
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.sketches.hllpp import HllEstimator
from dpdau_assets.core.sketches.kmv import KmvEstimator
from dpdau_assets.core.sketches.sampling import Z
from dpdau_assets.core.sketches.theta import ThetaEstimator
from dpdau_tests.support.lengths import at_length, chance

COUNTED = [
    ExactEstimator(),
    ThetaEstimator(Fraction(1)),
    ThetaEstimator(Fraction(1, 64)),
    KmvEstimator(1 << 16, Fraction(1, 64)),
    HllEstimator(1 << 14, 1),
    HllEstimator(1 << 14, 7),
    HllEstimator(64, 2),
]
every_counting = pytest.mark.parametrize("estimator", COUNTED, ids=str)
noisy_values = st.floats(-200, 70_000)
half_widths = st.floats(0.5, 100)


def wide(half_width: float) -> NoiseWidth:
    """The width of noise whose steps are too small to see."""
    return NoiseWidth(half_width, half_width, 0.0)


examples = settings(max_examples=at_length(test=30, ci=100, soak=2_000))


@pytest.mark.also_long
@every_counting
@examples
@given(noisy=noisy_values, half_width=half_widths)
@example(noisy=-1.5, half_width=1.0)
def test_an_estimate_lies_in_its_interval_once_it_is_not_below_0(
    estimator: Estimator, noisy: float, half_width: float
) -> None:
    low, high = estimator.interval(noisy, wide(half_width))
    users = estimator.users(noisy)
    assert max(0.0, low) <= max(0.0, users) * (1 + 1e-9) + 1e-6
    assert high is None or max(0.0, users) <= max(0.0, high) * (1 + 1e-9) + 1e-6


@pytest.mark.also_long
@every_counting
@examples
@given(noisy=noisy_values, half_width=half_widths)
def test_more_noise_makes_no_interval_narrower(estimator: Estimator, noisy: float, half_width: float) -> None:
    near, far = estimator.interval(noisy, wide(half_width)), estimator.interval(noisy, wide(2 * half_width))
    assert far[0] <= near[0] + 1e-6
    assert far[1] is None or (near[1] is not None and near[1] <= far[1] + 1e-6)


@given(noisy=noisy_values, half_width=half_widths)
def test_whoever_samples_everybody_has_the_interval_of_the_noise_alone(noisy: float, half_width: float) -> None:
    noise = NoiseWidth(half_width, half_width - 0.2, 0.5)
    for estimator in (ExactEstimator(), ThetaEstimator(Fraction(1)), KmvEstimator(1 << 17, Fraction(1))):
        assert estimator.interval(noisy, noise) == (noisy - half_width, noisy + half_width)


@given(noisy=st.floats(200, 50_000), half_width=half_widths, halvings=st.integers(1, 12))
def test_the_bounds_of_a_sample_are_those_that_a_root_finder_gives(
    noisy: float, half_width: float, halvings: int
) -> None:
    rate = 2.0**-halvings
    noise = NoiseWidth(half_width + 0.3, half_width, 1.0)
    low, high = ThetaEstimator(Fraction(1, 2**halvings)).interval(noisy, noise)

    def off(users: float) -> float:
        spread = math.sqrt(half_width**2 + Z**2 * users * rate * (1 - rate))
        return abs(noisy - users * rate) - spread - 1 / 2

    assert low == pytest.approx(brentq(off, 0, noisy / rate), rel=1e-9, abs=1e-6)
    assert high == pytest.approx(brentq(off, noisy / rate, 10 * noisy / rate + 10_000 / rate), rel=1e-9)


@pytest.mark.parametrize(("registers", "level"), [(16_384, 1), (16_384, 7), (1024, 4)])
@pytest.mark.parametrize("load", [0.05, 0.5, 1.6, 3.0])
def test_the_estimate_from_registers_inverts_their_mean(registers: int, level: int, load: float) -> None:
    """Counted out from probabilities: a register is below the level unless some user lifts it."""
    chance = 2.0 ** (1 - level) / registers
    users = round(load / chance)
    mean = registers * (1 - (1 - chance) ** users)
    assert HllEstimator(registers, level).users(mean) == pytest.approx(users, rel=1e-9)


def test_full_registers_give_the_estimate_of_one_half_below_full() -> None:
    estimator = HllEstimator(1 << 14, 3)
    assert estimator.users(1 << 14) == estimator.users(20_000) == estimator.users((1 << 14) - 0.5)
    assert estimator.interval(1 << 14, wide(10))[1] is None
    assert math.isfinite(estimator.users(1 << 14))


def test_a_full_kmv_sketch_has_no_upper_bound() -> None:
    estimator = KmvEstimator(1 << 16, Fraction(1, 4))
    low, high = estimator.interval(70_000, wide(13))
    assert high is None and 4 * 65_000 < low <= 4 * 65_536
    assert estimator.interval(40_000, wide(13))[1] is not None


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [(ThetaEstimator(Fraction(1, 64)), 16_384), (KmvEstimator(1 << 16, Fraction(1, 64)), 16_384)],
    ids=str,
)
def test_16_384_sampled_users_have_an_error_of_0_78_percent(estimator: Estimator, expected: int) -> None:
    low, high = estimator.interval(expected, wide(0.0))
    assert high is not None
    assert (high - low) / 2 / Z / estimator.users(expected) == pytest.approx(0.0078, abs=0.0001)


def test_16_384_registers_at_their_best_load_have_an_error_of_0_97_percent() -> None:
    estimator, users = HllEstimator(1 << 14, 7), 1.6 * 16_384 * 64
    low, high = estimator.interval(16_384 * -math.expm1(-1.6), wide(0.0))
    assert high is not None
    assert (high - low) / 2 / Z / users == pytest.approx(0.0097, abs=0.0001)


@pytest.mark.parametrize("users", [300, 3_000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("estimator", [ThetaEstimator(Fraction(1, 16)), HllEstimator(1 << 10, 4)], ids=str)
def test_the_interval_of_a_sketch_is_as_wide_as_its_statistic_spreads(estimator: Estimator, users: int) -> None:
    """Over 1,000 real sketches, whose std is known to 2.2 %: without noise, z of them either way."""
    random = np.random.default_rng(7)
    days = (np.unique(random.integers(0, 2**64, users, dtype=np.uint64)) for _ in range(1_000))
    statistics = np.array([estimator.statistic(build(estimator.header(0, "test"), keys)) for keys in days])
    low, high = estimator.interval(float(statistics.mean()), wide(0.0))
    assert high is not None
    step = estimator.users(statistics.mean() + 0.5) - estimator.users(statistics.mean() - 0.5)
    assert (high - low) / 2 / Z / step == pytest.approx(statistics.std(), rel=0.1)


# --- Coverage, counted out exactly -------------------------------------------------------------------------------

Reals = npt.NDArray[np.float64]
NOISES = {
    "a month of DAU": shared_noise(62, 3.0, 1e-6),
    "a month that is not restated": shared_noise(31, 3.0, 1e-6),
    "a large cap": shared_noise(62, 10.0, 1e-6),
    "gaussian 0.3": independent_gaussian(0.3, 1e-6),
    "gaussian 0.5": independent_gaussian(0.5, 1e-6),
    "laplace 0.3": Laplace(Fraction(3, 10)),
}
SAMPLED = [
    HllEstimator(1 << 14, 1),
    HllEstimator(1 << 10, 1),
    HllEstimator(1 << 14, 4),
    HllEstimator(64, 2),
    ThetaEstimator(Fraction(1, 2)),
    ThetaEstimator(Fraction(1, 16)),
    KmvEstimator(1 << 14, Fraction(1, 64)),
]


def noise_probabilities(mechanism: Gaussian | SharedNoise | Laplace) -> tuple[Reals, Reals]:
    """The values of a published number's noise and their probabilities, straight from the definition."""

    def gaussian(sigma: float) -> Reals:
        weights = np.exp(-((np.arange(-round(9 * sigma) - 1, round(9 * sigma) + 2) / sigma) ** 2) / 2)
        return weights / weights.sum()

    match mechanism:
        case SharedNoise():
            found = np.convolve(gaussian(mechanism.sigma_day), gaussian(mechanism.sigma_month))
        case Gaussian(sigma):
            found = gaussian(sigma)
        case Laplace(epsilon):
            found = np.exp(-float(epsilon) * np.abs(np.arange(-150, 151)))
            found /= found.sum()
    values = np.arange(len(found)) - len(found) // 2
    return (values / 2 if isinstance(mechanism, SharedNoise) else values.astype(float)), found


def statistics_of(estimator: Estimator, users: Sequence[int]) -> Iterator[tuple[int, Reals]]:
    """Each number of users with the probabilities of the statistic 0, 1, 2, …: one user is added after the other.

    In a sketch of registers a user lifts one more with chance q·(1 − C/m), in a sample is sampled with chance θ0.
    """
    shares, counts = np.zeros(max(users) + 2), np.arange(max(users) + 2)
    shares[0] = 1.0
    match estimator:
        case HllEstimator(registers, level):
            lifts = 2.0 ** (1 - level) * np.maximum(0.0, 1 - counts / registers)
        case ThetaEstimator(theta0) | KmvEstimator(_, theta0):
            lifts = np.full(len(counts), float(theta0))
        case _:
            raise ValueError(estimator)
    for n in range(max(users) + 1):
        if n in users:
            yield n, shares
        moved = shares * lifts
        shares = shares - moved
        shares[1:] += moved[:-1]


def coverage(estimator: Estimator, users: int, statistic: Reals, mechanism: Gaussian | SharedNoise | Laplace) -> float:
    """How probable it is that the published interval holds so many users: over all statistics and all noise."""
    values, shares = noise_probabilities(mechanism)
    width, step = noise_width(mechanism, half_width_95(mechanism)), values[1] - values[0]
    counts = np.flatnonzero(statistic > 1e-13)
    noisy = np.arange(counts[0] + values[0], counts[-1] + values[-1] + step / 2, step)
    bounds = estimator.interval

    def is_above(value: float) -> bool:
        return bounds(value, width)[0] > users + 1e-9

    def reaches(value: float) -> bool:
        high = bounds(value, width)[1]
        return high is None or high >= users - 1e-9

    first, beyond = bisect_left(noisy, True, key=reaches), bisect_left(noisy, True, key=is_above)
    below = np.concatenate([[0.0], np.cumsum(shares)])
    offset = np.round((noisy[0] - counts - values[0]) / step).astype(int)
    low, high = (np.clip(edge + offset, 0, len(shares)) for edge in (first, beyond))
    return float(statistic[counts] @ (below[high] - below[low]))


@pytest.mark.also_long
@pytest.mark.parametrize("estimator", SAMPLED, ids=str)
def test_an_interval_holds_95_percent_also_where_noise_dominates_counted_out_exactly(estimator: Estimator) -> None:
    """By the probabilities of registers and noise themselves; nor does it hold much more, but in full registers."""
    few, most = {8, 100}, at_length(test=130, ci=600, soak=3_000)
    more = chance(str(estimator)).sample(range(most), at_length(test=1, ci=20, soak=200))
    for n, statistic in statistics_of(estimator, sorted(few.union(more))):
        for name, mechanism in NOISES.items():
            held = coverage(estimator, n, statistic, mechanism)
            assert 0.94995 < held < (0.97 if n in few else 1), (n, name, held)


def test_an_interval_is_wider_by_half_a_step_at_most_than_smooth_noise_would_make_it() -> None:
    for mechanism in NOISES.values():
        width = noise_width(mechanism, half_width_95(mechanism))
        low, high = HllEstimator(1 << 14, 1).interval(50.0, width)
        assert high is not None
        assert (high - low) / 2 < (width.smooth + width.step / 2) * 1.01
