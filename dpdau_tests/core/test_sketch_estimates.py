"""Estimates and intervals from a noisy statistic: inverses of its mean, and bounds that hold their coverage."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from dpdau_assets.core.sketches import build
from dpdau_assets.core.sketches.base import Counting
from dpdau_assets.core.sketches.exact import ExactCounting
from dpdau_assets.core.sketches.hllpp import HllCounting
from dpdau_assets.core.sketches.kmv import KmvCounting
from dpdau_assets.core.sketches.sampling import Z
from dpdau_assets.core.sketches.theta import ThetaCounting
from dpdau_tests.support.lengths import at_length

COUNTED = [
    ExactCounting(), ThetaCounting(Fraction(1)), ThetaCounting(Fraction(1, 64)), KmvCounting(1 << 16, Fraction(1, 64)),
    HllCounting(1 << 14, 1), HllCounting(1 << 14, 7), HllCounting(64, 2),
]  # fmt: skip
every_counting = pytest.mark.parametrize("counting", COUNTED, ids=str)
noisy_values = st.floats(-200, 70_000)
half_widths = st.floats(0.5, 100)
examples = settings(max_examples=at_length(test=30, ci=100, soak=2_000))


@pytest.mark.also_long
@every_counting
@examples
@given(noisy=noisy_values, half_width=half_widths)
@example(noisy=-1.5, half_width=1.0)
def test_an_estimate_lies_in_its_interval_once_it_is_not_below_0(
    counting: Counting, noisy: float, half_width: float
) -> None:
    low, high = counting.interval(noisy, half_width)
    users = counting.users(noisy)
    assert max(0.0, low) <= max(0.0, users) * (1 + 1e-9) + 1e-6
    assert high is None or max(0.0, users) <= max(0.0, high) * (1 + 1e-9) + 1e-6


@pytest.mark.also_long
@every_counting
@examples
@given(noisy=noisy_values, half_width=half_widths)
def test_more_noise_makes_no_interval_narrower(counting: Counting, noisy: float, half_width: float) -> None:
    near, far = counting.interval(noisy, half_width), counting.interval(noisy, 2 * half_width)
    assert far[0] <= near[0] + 1e-6
    assert far[1] is None or (near[1] is not None and near[1] <= far[1] + 1e-6)


@given(noisy=noisy_values, half_width=half_widths)
def test_whoever_samples_everybody_has_the_interval_of_the_noise_alone(noisy: float, half_width: float) -> None:
    assert ThetaCounting(Fraction(1)).interval(noisy, half_width) == pytest.approx(
        (noisy - half_width, noisy + half_width)
    )
    assert ExactCounting().interval(noisy, half_width) == (noisy - half_width, noisy + half_width)


@given(noisy=st.floats(200, 50_000), half_width=half_widths, halvings=st.integers(1, 12))
def test_the_bounds_of_a_sample_are_those_that_a_root_finder_gives(
    noisy: float, half_width: float, halvings: int
) -> None:
    rate = 2.0**-halvings
    low, high = ThetaCounting(Fraction(1, 2**halvings)).interval(noisy, half_width)

    def off(users: float) -> float:
        return (noisy - users * rate) ** 2 - half_width**2 - Z**2 * users * rate * (1 - rate)

    assert low == pytest.approx(brentq(off, 0, noisy / rate), rel=1e-9, abs=1e-6)
    assert high == pytest.approx(brentq(off, noisy / rate, 10 * noisy / rate + 10_000 / rate), rel=1e-9)


@pytest.mark.parametrize(("registers", "level"), [(16_384, 1), (16_384, 7), (1024, 4)])
@pytest.mark.parametrize("load", [0.05, 0.5, 1.6, 3.0])
def test_the_estimate_from_registers_inverts_their_mean(registers: int, level: int, load: float) -> None:
    """Counted out from probabilities: a register is below the level unless some user lifts it."""
    chance = 2.0 ** (1 - level) / registers
    users = round(load / chance)
    mean = registers * (1 - (1 - chance) ** users)
    assert HllCounting(registers, level).users(mean) == pytest.approx(users, rel=1e-9)


def test_full_registers_give_the_estimate_of_one_half_below_full() -> None:
    counting = HllCounting(1 << 14, 3)
    assert counting.users(1 << 14) == counting.users(20_000) == counting.users((1 << 14) - 0.5)
    assert counting.interval(1 << 14, 10)[1] is None
    assert math.isfinite(counting.users(1 << 14))


def test_a_full_kmv_sketch_has_no_upper_bound() -> None:
    counting = KmvCounting(1 << 16, Fraction(1, 4))
    low, high = counting.interval(70_000, 13)
    assert high is None and 4 * 65_000 < low <= 4 * 65_536
    assert counting.interval(40_000, 13)[1] is not None


@pytest.mark.parametrize(
    ("counting", "expected"),
    [(ThetaCounting(Fraction(1, 64)), 16_384), (KmvCounting(1 << 16, Fraction(1, 64)), 16_384)],
    ids=str,
)
def test_16_384_sampled_users_have_an_error_of_0_78_percent(counting: Counting, expected: int) -> None:
    low, high = counting.interval(expected, 0.0)
    assert high is not None
    assert (high - low) / 2 / Z / counting.users(expected) == pytest.approx(0.0078, abs=0.0001)


def test_16_384_registers_at_their_best_load_have_an_error_of_0_97_percent() -> None:
    counting, users = HllCounting(1 << 14, 7), 1.6 * 16_384 * 64
    low, high = counting.interval(16_384 * -math.expm1(-1.6), 0.0)
    assert high is not None
    assert (high - low) / 2 / Z / users == pytest.approx(0.0097, abs=0.0001)


@pytest.mark.parametrize("users", [300, 3_000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("counting", [ThetaCounting(Fraction(1, 16)), HllCounting(1 << 10, 4)], ids=str)
def test_the_interval_of_a_sketch_is_as_wide_as_its_statistic_spreads(counting: Counting, users: int) -> None:
    """Over 1,000 real sketches, whose std is known to 2.2 %: without noise, z of them either way."""
    random = np.random.default_rng(7)
    days = (np.unique(random.integers(0, 2**64, users, dtype=np.uint64)) for _ in range(1_000))
    statistics = np.array([counting.statistic(build(counting.header(0, "test"), keys)) for keys in days])
    low, high = counting.interval(float(statistics.mean()), 0.0)
    assert high is not None
    step = counting.users(statistics.mean() + 0.5) - counting.users(statistics.mean() - 0.5)
    assert (high - low) / 2 / Z / step == pytest.approx(statistics.std(), rel=0.1)
