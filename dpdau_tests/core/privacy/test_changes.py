"""The noise of a difference of two published numbers: against its draws, one by one, and against the contract."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from dpdau_assets.core.privacy.changes import NoiseOf, change_half_width_95, change_variance, covariance
from dpdau_assets.core.privacy.mechanisms import (
    Gaussian,
    Laplace,
    Mechanism,
    independent_gaussian,
    noise_std,
    shared_noise,
    stream,
    stream_number,
    stream_output,
)
from dpdau_tests.support.lengths import at_length, seed
from dpdau_tests.support.project import PROJECT

MONTH = shared_noise(62, 3.0, 1e-6)
COARSE = shared_noise(2, 40.0, 1e-6)
WINDOW = stream(30, 3.5, 1e-6)
REPEATS = at_length(test=40_000, ci=400_000, soak=4_000_000)


def shared(generator: np.random.Generator, mechanism: Mechanism, days: tuple[int, int]) -> np.ndarray:
    """Differences of two numbers of one month, drawn as the numbers are: by day, and one draw in common."""
    month = rounded(generator, mechanism.sigma_month)
    first, second = (rounded(generator, mechanism.sigma_day) for _ in days)
    return (first + month) / 2 - (second + month) / 2


def rounded(generator: np.random.Generator, sigma: float) -> np.ndarray:
    """Discrete Gaussians, by their probabilities."""
    reach = math.ceil(12 * sigma) + 1
    values = np.arange(-reach, reach + 1)
    weights = np.exp(-((values / sigma) ** 2) / 2)
    return generator.choice(values, REPEATS, p=weights / weights.sum())


def two_months(generator: np.random.Generator, mechanism: Mechanism, days: tuple[int, int]) -> np.ndarray:
    draws = [rounded(generator, sigma) for sigma in (mechanism.sigma_day, mechanism.sigma_month) * 2]
    return (draws[0] + draws[1]) / 2 - (draws[2] + draws[3]) / 2


def independent(generator: np.random.Generator, mechanism: Mechanism, days: tuple[int, int]) -> np.ndarray:
    return rounded(generator, mechanism.sigma) - rounded(generator, mechanism.sigma)


def laplace(generator: np.random.Generator, mechanism: Mechanism, days: tuple[int, int]) -> np.ndarray:
    success = 1 - math.exp(-float(mechanism.epsilon))
    sides = [generator.geometric(success, REPEATS) for _ in range(4)]
    return (sides[0] - sides[1]) - (sides[2] - sides[3])


def streamed(generator: np.random.Generator, mechanism: Mechanism, days: tuple[int, int]) -> np.ndarray:
    """Differences of two days of a stream of zeros, each number made from those before it as `stream_number` does."""
    last, paths = max(days), REPEATS // 20
    numbers: list[np.ndarray] = []
    for _ in range(last):
        output = generator.normal(0, mechanism.sigma, paths)
        past = zip(mechanism.filter[1:], reversed(numbers), strict=False)
        numbers.append((output - sum(weight * number for weight, number in past)) / mechanism.filter[0])
    return numbers[days[1] - 1] - numbers[days[0] - 1]


Draw = Callable[[np.random.Generator, Mechanism, tuple[int, int]], np.ndarray]
CASES: list[tuple[str, Draw, Mechanism, tuple[int, int], bool]] = [
    ("shared", shared, MONTH, (3, 4), True),
    ("shared-coarse", shared, COARSE, (1, 2), True),
    ("two-months", two_months, MONTH, (31, 1), False),
    ("two-months-coarse", two_months, COARSE, (2, 1), False),
    ("gaussian", independent, independent_gaussian(0.3, 1e-6), (1, 1), False),
    ("gaussian-coarse", independent, Gaussian(0.7), (1, 1), False),
    ("laplace", laplace, Laplace(Fraction(3, 10)), (1, 1), False),
    ("laplace-coarse", laplace, Laplace(Fraction(2)), (1, 1), False),
    ("stream-start", streamed, WINDOW, (1, 2), True),
    ("stream", streamed, WINDOW, (40, 41), True),
    ("stream-week", streamed, WINDOW, (40, 47), True),
]


@pytest.mark.also_long
@pytest.mark.parametrize(("draw", "mechanism", "days", "same_run"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_half_width_holds_95_in_100_differences_of_two_numbers_of_an_unchanged_count_and_no_smaller_one_does(
    draw: Draw, mechanism: Mechanism, days: tuple[int, int], same_run: bool
) -> None:
    one, other = (NoiseOf(mechanism, "a" if same_run else run, day) for run, day in zip("ab", days, strict=True))
    half_width = change_half_width_95(one, other)
    differences = np.abs(draw(np.random.default_rng(seed()), mechanism, days))
    error = 5 * math.sqrt(0.05 * 0.95 / len(differences))
    assert (differences <= half_width).mean() >= 0.95 - error
    assert (differences < half_width).mean() <= 0.95 + error
    assert (differences**2).mean() == pytest.approx(
        change_variance(one, other), rel=0.2 if len(differences) < 9e4 else 0.05
    )


def test_a_change_from_day_to_day_inside_a_stream_has_the_std_that_the_contract_states() -> None:
    one, other = NoiseOf(WINDOW, "a", 200), NoiseOf(WINDOW, "a", 201)
    assert math.sqrt(change_variance(one, other)) == pytest.approx(3.1, abs=0.05)
    assert change_half_width_95(one, other) == pytest.approx(1.959964 * math.sqrt(change_variance(one, other)))


def test_two_numbers_of_a_month_share_a_quarter_of_the_months_variance_and_those_of_two_runs_nothing() -> None:
    one, other = NoiseOf(MONTH, "a", 1), NoiseOf(MONTH, "a", 20)
    assert covariance(one, other) == pytest.approx(MONTH.sigma_month**2 / 4)
    assert covariance(one, NoiseOf(MONTH, "b", 20)) == 0
    assert change_variance(one, other) == pytest.approx(MONTH.sigma_day**2 / 2)
    assert covariance(NoiseOf(Gaussian(3.0), "a", 1), NoiseOf(Gaussian(3.0), "a", 2)) == 0


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 9), (3, 4), (17, 40)])
def test_the_covariance_of_two_days_of_a_stream_is_that_of_its_linear_recursion(first: int, second: int) -> None:
    """By pushing each unit draw through the recursion that makes the numbers."""
    rows = []
    for place in range(second):
        numbers: list[float] = []
        for day in range(second):
            output = stream_output(WINDOW, [0], 1 if day == place else 0)
            numbers.append(stream_number(WINDOW, output, numbers))
        rows.append((numbers[first - 1], numbers[second - 1]))
    expected = WINDOW.sigma**2 * sum(a * b for a, b in rows)
    assert covariance(NoiseOf(WINDOW, "a", second), NoiseOf(WINDOW, "a", first)) == pytest.approx(expected)
    assert noise_std(WINDOW, first) == pytest.approx(WINDOW.sigma * math.hypot(*(a for a, _ in rows)))


@pytest.mark.parametrize("others", [MONTH, Gaussian(5.0), Laplace(Fraction(1)), WINDOW])
def test_between_two_mechanisms_the_variances_add_up(others: Mechanism) -> None:
    one, other = NoiseOf(WINDOW, "a", 5), NoiseOf(others, "b", 1)
    assert change_variance(one, other) == pytest.approx(noise_std(WINDOW, 5) ** 2 + noise_std(others, 1) ** 2)
    assert change_half_width_95(one, other) == change_half_width_95(other, one) > 0


def test_the_widths_that_the_page_of_the_digest_states_are_these() -> None:
    page = (PROJECT / "docs" / "messages.md").read_text()
    (said,) = re.findall(r"± (\d+) users .* ± (\d+) between two such months, ± ([\d.]+) from one day's MAU", page)
    in_a_month = change_half_width_95(NoiseOf(MONTH, "a", 1), NoiseOf(MONTH, "a", 2))
    between = change_half_width_95(NoiseOf(MONTH, "a", 31), NoiseOf(MONTH, "b", 1))
    in_the_long_run = change_half_width_95(NoiseOf(WINDOW, "a", 300), NoiseOf(WINDOW, "a", 301))
    assert said == (f"{in_a_month:g}", f"{between:g}", f"{in_the_long_run:.1f}")
