"""The noise that is drawn is the noise that was priced: neither less nor more, on the integers, never the same twice.

The samplers cannot be seeded, so each bound is stated with its odds of a false alarm, all below 1e-6.
"""

from __future__ import annotations

import inspect
import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.privacy.mechanisms import (
    Gaussian,
    Laplace,
    Mechanism,
    half_width_95,
    noise_std,
    shared_noise,
    shared_number,
    stream,
    stream_number,
    stream_output,
)
from resources.noise_opendp import OpenDPNoise

DRAWS = 100_000
NOISE = OpenDPNoise()
RESTATED = shared_noise(62, 3.0, 1e-6)
MAU = stream(30, 3.5, 1e-6)


@cache
def gaussian(sigma: float) -> np.ndarray:
    """Drawn once for all that look at it."""
    return np.array(NOISE.gaussian(sigma, DRAWS))


@cache
def laplace(scale: float) -> np.ndarray:
    return np.array(NOISE.laplace(scale, DRAWS))


@pytest.mark.parametrize("sigma", [MAU.sigma, RESTATED.sigma_day, RESTATED.sigma_month])
def test_a_discrete_gaussian_has_the_sigma_asked_for(sigma: float) -> None:
    draws = gaussian(sigma)
    # The estimate's relative error is 1 / sqrt(2n) = 0.22 %: 5 % is 22 of them. The mean's is sigma / sqrt(n): 7 of
    # them happen once in 4e11 times.
    assert draws.std() == pytest.approx(sigma, rel=0.05)
    assert abs(draws.mean()) < 7 * sigma / math.sqrt(DRAWS)


def test_discrete_laplace_noise_has_the_scale_asked_for() -> None:
    mechanism = Laplace(Fraction(3, 10))
    draws = laplace(mechanism.scale)
    # Kurtosis 6: the estimate's relative error is sqrt(5 / 4n) = 0.35 %, and 5 % is 14 of them.
    assert draws.std() == pytest.approx(noise_std(mechanism), rel=0.05)
    assert abs(draws.mean()) < 7 * noise_std(mechanism) / math.sqrt(DRAWS)


@pytest.mark.parametrize("sigma", [RESTATED.sigma_day, RESTATED.sigma_month])
def test_the_draws_follow_the_probabilities_that_the_intervals_are_computed_from(sigma: float) -> None:
    draws = gaussian(sigma)
    x = np.arange(-300, 301)
    weights = np.exp(-((x / sigma) ** 2) / 2)
    theirs = np.searchsorted(np.sort(draws), x, side="right") / DRAWS
    # Dvoretzky-Kiefer-Wolfowitz: beyond 0.01 with odds below 2 exp(-2 n 0.01²) = 4e-9.
    assert np.abs(theirs - np.cumsum(weights) / weights.sum()).max() < 0.01


def shared_numbers() -> np.ndarray:
    days, months = gaussian(RESTATED.sigma_day).tolist(), gaussian(RESTATED.sigma_month).tolist()
    return np.array([shared_number(0, day, month) for day, month in zip(days, months, strict=True)])


@pytest.mark.parametrize(
    ("mechanism", "step"), [(RESTATED, 0.5), (Gaussian(RESTATED.sigma_day), 1.0), (Laplace(Fraction(3, 10)), 1.0)]
)
def test_a_published_number_has_the_std_and_the_coverage_that_are_published_with_it(
    mechanism: Mechanism, step: float
) -> None:
    if isinstance(mechanism, Gaussian):
        noise = gaussian(mechanism.sigma)
    elif isinstance(mechanism, Laplace):
        noise = laplace(mechanism.scale)
    else:
        noise = shared_numbers()
    width = half_width_95(mechanism)
    # 5 % is at least 14 relative errors of the std. A share near 95 % of n has an error of 0.07 %: 0.5 % is 7 of them.
    assert noise.std() == pytest.approx(noise_std(mechanism), rel=0.05)
    assert (np.abs(noise) <= width).mean() > 0.95 - 0.005
    assert (np.abs(noise) <= width - step).mean() < 0.95 + 0.005


def test_a_streams_numbers_have_the_std_and_the_coverage_that_are_published_with_them() -> None:
    counts, numbers = [1000] * 9, [1000.0] * 8
    for draw in gaussian(MAU.sigma).tolist():
        numbers.append(stream_number(MAU, stream_output(MAU, counts, draw), numbers[-8:]))
    steady = np.array(numbers[208:]) - 1000
    # Neighbouring days are correlated: the squared autocorrelations add up to 6, so the std's relative error is 0.55 %
    # and 5 % is 9 of them; the coverage's error is 0.15 %, and 2 % is 13 of them.
    assert steady.std() == pytest.approx(noise_std(MAU, 20_000), rel=0.05)
    assert np.diff(steady).std() == pytest.approx(3.1, rel=0.05)
    assert (np.abs(steady) <= half_width_95(MAU, 20_000)).mean() == pytest.approx(0.95, abs=0.02)


def test_draws_are_python_integers_as_many_as_asked() -> None:
    for draws in (NOISE.gaussian(5.0), NOISE.gaussian(5.0, 3), NOISE.laplace(5.0, 4)):
        assert all(type(draw) is int for draw in draws)
    assert [len(NOISE.gaussian(5.0)), len(NOISE.laplace(5.0)), len(NOISE.gaussian(5.0, 0))] == [1, 1, 0]


def test_two_sources_never_draw_the_same() -> None:
    # 20 draws of sigma 1e6 agree with odds below 1e-100.
    assert OpenDPNoise().gaussian(1e6, 20) != OpenDPNoise().gaussian(1e6, 20)


def test_there_is_no_way_to_seed_the_noise() -> None:
    assert OpenDPNoise.private is True
    parameters = {
        name: list(inspect.signature(getattr(OpenDPNoise, name)).parameters)[1:]
        for name in ("__init__", "gaussian", "laplace")
    }
    assert parameters == {"__init__": [], "gaussian": ["sigma", "draws"], "laplace": ["scale", "draws"]}


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-9, math.inf, math.nan, 1e300])
def test_a_scale_that_would_add_no_noise_is_refused(scale: float) -> None:
    with pytest.raises(Refused):
        NOISE.gaussian(scale)
    with pytest.raises(Refused):
        NOISE.laplace(scale)
