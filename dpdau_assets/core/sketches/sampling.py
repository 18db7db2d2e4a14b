"""What the sketches that count a sample of users have in common: the users whose hash lies below θ0.

θ0 is a power of two, so that thresholds on integer hashes, and estimates, are exact, and the float that other
implementations keep of it is the very same number.
"""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

from dpdau_assets.core.privacy.mechanisms import COVERAGE, NoiseWidth

SMALLEST_THETA0 = Fraction(1, 2**32)
LEAST_EXPECTED = 1 << 14  # users in the sample: 0.78 % error where few are sampled
Z = NormalDist().inv_cdf((1 + COVERAGE) / 2)


def is_threshold(theta0: Fraction) -> bool:
    """Whether it is a power of two from 2**-32 to 1."""
    return SMALLEST_THETA0 <= theta0 <= 1 and theta0.numerator == 1 and theta0.denominator.bit_count() == 1


def threshold_for(users: float, expected: int) -> Fraction:
    """The smallest θ0 under which so many users, give or take, have `expected` of them sampled; 1 for fewer users."""
    halvings = math.floor(math.log2(max(1.0, users / expected)))
    return max(SMALLEST_THETA0, Fraction(1, 2**halvings))


def sampled_interval(noisy: float, noise: NoiseWidth, theta0: Fraction) -> tuple[float, float]:
    """95 % bounds, in users, from a noisy count of a sample.

    All n for which the count lies within √(w² + z²·n·θ0·(1 − θ0)) + s/2 of its mean n·θ0: Wilson's score interval
    (1927), with the noise's own smooth width w beside the binomial's. Counts and noise go in steps of s and the mean
    does not, so half a step belongs to either side; without it, coverage would be that of a step less. It needs no
    guess of n, and has its coverage also where few are sampled. For θ0 = 1 the mean is a count, and the interval the
    noise's own. A count below 0 is the noise's alone at its lower bound.
    """
    if theta0 == 1:
        return noisy - noise.half_width, noisy + noise.half_width
    rate = float(theta0)
    spread = Z**2 * (1 - rate)

    def bound(count: float, side: int) -> float:
        root = math.sqrt(max(0.0, count * spread + spread**2 / 4 + noise.smooth**2))
        return count + spread / 2 + side * root

    least, most = noisy - noise.step / 2, noisy + noise.step / 2
    low = bound(least, -1) if least >= 0 else least - noise.smooth
    return low / rate, bound(most, 1) / rate
