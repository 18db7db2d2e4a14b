"""What is left of published numbers when the counts are taken away: does it look like the noise that was priced?

Odds are of the sample, or a more extreme one, under the priced noise: small odds speak against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from scipy.stats import binom, chi2, chisquare, f

from dpdau_assets.core.privacy.mechanisms import Gaussian, Laplace, Mechanism, SharedNoise, Stream

Numbers = npt.NDArray[np.float64]
Distribution = Callable[[Numbers], Numbers]


def spread_odds(sum_of_squares: float, draws: int) -> float:
    """The odds of a sum of squares of so many standard normal values, on either side."""
    return float(2 * min(chi2.cdf(sum_of_squares, draws), chi2.sf(sum_of_squares, draws)))


def shape_odds(values: Numbers, distribution: Distribution, std: float) -> float:
    """Pearson's chi-square over ten classes; their bounds lie between the integers, unless the values are normal."""
    inner = std * np.linspace(-1.6, 1.6, 9)
    edges = inner if distribution is ndtr else np.unique(np.floor(inner)) + 0.5
    shares = np.diff(np.concatenate([[0.0], distribution(edges), [1.0]]))
    counted = np.bincount(np.searchsorted(edges, values), minlength=len(shares))
    return float(chisquare(counted, shares * len(values)).pvalue)


def distribution_of(mechanism: Gaussian | Laplace) -> Distribution:
    """P(noise <= x) of a discrete Gaussian or Laplace, straight from its definition."""
    reach = np.arange(-2000, 2001)
    weights = _weights(mechanism, reach)
    below = np.cumsum(weights) / weights.sum()
    return lambda x: below[np.searchsorted(reach, x, side="right") - 1]


def _weights(mechanism: Gaussian | Laplace, at: npt.NDArray[np.int64]) -> Numbers:
    if isinstance(mechanism, Laplace):
        return np.exp(-float(mechanism.epsilon) * np.abs(at))
    return np.exp(-((at / mechanism.sigma) ** 2) / 2)


# --- A month of shared noise -------------------------------------------------------------------------------------


def standardised(residuals: Numbers, shared: SharedNoise) -> Numbers:
    """A month's residuals, made independent and of variance 1: the month's mean apart from what differs from it."""
    mean = residuals.mean()
    of_mean = np.hypot(shared.sigma_day, np.sqrt(residuals.size) * shared.sigma_month)
    return (2 * (residuals - mean) / shared.sigma_day + 2 * mean / of_mean).ravel()


@dataclass(frozen=True)
class Correlation:
    """A correlation as found, and the two values between which it lies, but for the odds, if it is as predicted."""

    found: float
    predicted: float
    low: float
    high: float

    def is_as_predicted(self) -> bool:
        return self.low <= self.found <= self.high


def within_a_month(months: Sequence[Numbers], shared: SharedNoise, odds: float) -> Correlation:
    """Two numbers of one month: one-way analysis of variance about the known mean, all months of one length."""
    size = months[0].size
    means = np.array([month.mean() for month in months])
    scatter = sum(float(((month - month.mean()) ** 2).sum()) for month in months)
    between, within = size * (means**2).mean(), scatter / (len(months) * (size - 1))
    predicted = shared.sigma_month**2 / (shared.sigma_day**2 + shared.sigma_month**2)
    ratio = f(len(months), len(months) * (size - 1))
    true = 1 + size * predicted / (1 - predicted)
    low, high = (_intraclass(true * quantile, size) for quantile in (ratio.ppf(odds / 2), ratio.isf(odds / 2)))
    return Correlation(_intraclass(between / within, size), predicted, low, high)


def _intraclass(ratio: float, size: int) -> float:
    return (ratio - 1) / (ratio - 1 + size)


def across_months(months: Sequence[Numbers], shared: SharedNoise, odds: float) -> Correlation:
    """A number of one month and one of the next, from disjoint pairs of neighbouring months' means."""
    means = np.array([month.mean() for month in months[: len(months) // 2 * 2]]).reshape(-1, 2)
    sums, differences = ((means @ [1, sign]) ** 2 for sign in (1, -1))
    mean_to_number = (shared.sigma_day**2 / months[0].size + shared.sigma_month**2) / (
        shared.sigma_day**2 + shared.sigma_month**2
    )
    ratio = f(len(means), len(means))
    found, low, high = (
        mean_to_number * (ratio_of_squares - 1) / (ratio_of_squares + 1)
        for ratio_of_squares in (sums.sum() / differences.sum(), ratio.ppf(odds / 2), ratio.isf(odds / 2))
    )
    return Correlation(found, 0.0, low, high)


def revision_odds(numbers: Sequence[Numbers], shared: SharedNoise) -> float:
    """The odds of the differences between what was published and what was restated, counts being equal."""
    differences = np.concatenate([first - again for first, again in numbers])
    return spread_odds(2 * float((differences**2).sum()) / shared.sigma_day**2, len(differences))


# --- The lattice -------------------------------------------------------------------------------------------------


def finest_step(values: Numbers) -> Fraction:
    """The largest power of two, 1 at most, that every value is a multiple of: their least significant bit."""
    return Fraction(1, max(Fraction(float(value)).denominator for value in values))


def last_bit_odds(values: Numbers, step: Fraction, share_odd: float) -> float:
    """The odds of how many values are an odd number of steps, on either side."""
    odd, n = int((np.abs(values / float(step)) % 2 == 1).sum()), len(values)
    return float(min(1.0, 2 * min(binom.cdf(odd, n, share_odd), binom.sf(odd - 1, n, share_odd))))


def share_odd(mechanism: Mechanism, count: int) -> float:
    """How often `last_bit_odds` finds an odd number of steps."""
    if isinstance(mechanism, SharedNoise | Stream):
        return 0.5  # the sum of so much noise is odd as often as even, but for 1e-30
    reach = np.arange(-2000, 2001)
    weights = _weights(mechanism, reach)
    return float(weights[(reach + count) % 2 == 1].sum() / weights.sum())
