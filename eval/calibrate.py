"""Tunes the integer filter of a rolling window's stream: `python -m eval.calibrate 60`.

A stream that goes on for ever is stationary noise; S(w) is its spectrum, in users². An interval of ℓ days costs
μ² = mean_w f_ℓ / S with f_ℓ(w) = sin²(ℓw/2) / sin²(w/2), the noise has variance mean_w S, and for any weights p on ℓ

    sensitivity² × variance >= (mean_w √(Σ_ℓ p_ℓ f_ℓ))²        (Cauchy and Schwarz)

with equality at S ∝ √(Σ p_ℓ f_ℓ). The best weights, found by Newton's method inside a barrier, so give both the limit
that no stationary Gaussian noise passes, and the spectrum that reaches it. The filter is the predictor of a few days
that fits this spectrum best, in steps of 1/1024: its inverse shapes the noise.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.privacy.mechanisms import longest_interval, mu_of, noise_std, stream
from dpdau_assets.core.privacy.stream_filters import interval_sensitivity2, response_norm
from dpdau_assets.core.settings import Settings

Vector = npt.NDArray[np.float64]

GRID = 2048
FREQUENCIES: Vector = (np.arange(GRID) + 0.5) * math.pi / GRID
STEPS = 1024
FOR_EVER = 4096


@dataclass(frozen=True)
class Optimum:
    """The best stationary noise.

    Attributes:
        spectrum: at FREQUENCIES, up to a factor.
        limit: no stationary noise has a smaller sensitivity × std.
        gap: how far a better limit could lie above this one, as a share of it.
    """

    spectrum: Vector
    limit: float
    gap: float


def optimum(longest: int) -> Optimum:
    """For intervals of at most `longest` days."""
    days = np.arange(1, longest + 1)
    costs = (np.sin(np.outer(days, FREQUENCIES) / 2) / np.sin(FREQUENCIES / 2)) ** 2
    weights, barrier = np.full(longest, 1 / longest), 1e-2
    while True:
        weights = _centred(weights, barrier, costs)
        spectrum = np.sqrt(weights @ costs)
        # the spectrum scaled until its dearest interval is allowed: a mechanism, so a bound from the other side
        reached = math.sqrt((costs / spectrum).mean(axis=1).max() * spectrum.mean())
        gap = reached / spectrum.mean() - 1
        if gap < 1e-8:
            return Optimum(spectrum, float(spectrum.mean()), float(gap))
        barrier /= 5


def tuned_filter(window_days: int, best: Optimum) -> tuple[int, ...]:
    """Eight weights for each 30 days of the window, after the first: more hardly gain anything."""
    lags = np.arange(1, 8 * max(1, (window_days + 15) // 30) + 1)
    turns, root = np.outer(FREQUENCIES, lags), np.sqrt(best.spectrum)
    rows = np.concatenate([root[:, None] * np.cos(turns), root[:, None] * np.sin(turns)])
    weights = np.linalg.lstsq(rows, np.concatenate([root, np.zeros(GRID)]))[0]
    return STEPS, *(-round(float(weight) * STEPS) for weight in weights)


def std(filter_: tuple[int, ...], longest: int, mu: float, day: int) -> float:
    """The standard deviation of a published number on this day of the stream (1 is the first), in users."""
    return math.sqrt(interval_sensitivity2(filter_, longest)) / mu / filter_[0] * response_norm(filter_, day)


def report(window_days: int) -> str:
    """What `main` prints for one window, at the default cap of MAU. Raises Refused for a window below 30 days."""
    settings = Settings()
    epsilon, longest = float(settings.mau_budget_total), longest_interval(window_days)
    mu, in_use = mu_of(epsilon, settings.delta), stream(window_days, epsilon, settings.delta)
    best = optimum(longest)
    tuned = tuned_filter(window_days, best)
    limit, for_ever = best.limit / mu, std(tuned, longest, mu, FOR_EVER)
    shipped = noise_std(in_use, FOR_EVER)
    return f"""window {window_days} days: a user-month changes one interval of at most {longest} days
  filter          {tuned}
  sensitivity²    {interval_sensitivity2(tuned, longest):,}
  std             {std(tuned, longest, mu, 1):.3f} on the first day, {for_ever:.3f} for ever, \
at epsilon {epsilon:g} and delta {settings.delta:g}
  limit           {limit:.4f} for any stationary noise, proven to {best.gap:.0e}; the filter is \
{for_ever / limit - 1:.2%} above it
  independent     {math.sqrt(longest) / mu:.3f} for independent noise of the same guarantee
  in use          {"this filter" if in_use.filter == tuned else in_use.filter}, std {shipped:.3f} for ever, \
{shipped / for_ever - 1:+.2%}"""


def main(arguments: list[str]) -> None:
    """One report for each window, 30, 60 and 90 days when none is named."""
    try:
        for window_days in [int(argument) for argument in arguments] or [30, 60, 90]:
            print(report(window_days))
    except Refused as error:
        sys.exit(f"{error.reason} {error.remedy}")


def _centred(weights: Vector, barrier: float, costs: Vector) -> Vector:
    """The weights of sum 1 with the largest mean √(weights · costs) + barrier × Σ log weights, by Newton's method."""
    while True:
        root = np.sqrt(weights @ costs)
        slope = (costs / (2 * root)).mean(axis=1) + barrier / weights
        bend = -(costs / (4 * root**3)) @ costs.T / GRID - np.diag(barrier / weights**2)
        ones = np.ones((len(weights), 1))
        system = np.block([[bend, ones], [ones.T, np.zeros((1, 1))]])
        step = np.linalg.solve(system, np.append(-slope, 0.0))[:-1]
        gain = slope @ step
        if gain < 1e-10:
            return weights
        share = min(1.0, 0.99 * float((-weights / np.minimum(step, -1e-300)).min()))
        while _value(weights + share * step, barrier, costs) < _value(weights, barrier, costs) + 1e-4 * share * gain:
            share /= 2
        weights = weights + share * step
        weights /= weights.sum()


def _value(weights: Vector, barrier: float, costs: Vector) -> float:
    return float(np.sqrt(weights @ costs).mean() + barrier * np.log(weights).sum())


if __name__ == "__main__":
    main(sys.argv[1:])
