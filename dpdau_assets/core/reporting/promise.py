"""What the published numbers promise: a bound for a user-month with all caps used up, and how wide their noise is.

The report and the privacy label both say it, each under the caps and δ that it has gathered from the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction

from dpdau_assets.core.privacy.accounting import pure_rho
from dpdau_assets.core.privacy.compositions import joint_epsilon
from dpdau_assets.core.privacy.mechanisms import Laplace, Mechanism, half_width_95, mu_of, noise_std
from dpdau_assets.core.privacy.schedule import METRICS, mechanism_for
from dpdau_assets.core.settings import Metric, Settings

LONG_MONTH = date(2025, 1, 1)  # any month of 31 days: the most numbers, and the most noise
_STEADY_DAY = 1000  # a stream's noise has its steady width long before


@dataclass(frozen=True)
class UserMonthBound:
    """What all numbers ever published about some metrics cost a user-month at most; delta is 0.0 for pure noise."""

    epsilon: float
    delta: float
    rho: float

    @property
    def is_pure(self) -> bool:
        """Whether all noise is pure, so that epsilon holds without a delta."""
        return self.delta == 0.0


@dataclass(frozen=True)
class SteadyNoise:
    """How far a number's noise reaches, in users with the exact set, else in units of the sketch's statistic."""

    std: float
    half_width_95: float


def user_month_bound(metrics: Sequence[Metric], settings: Settings) -> UserMonthBound:
    """The bound of one metric, or of all of them together, under the caps and the mechanisms of `settings`."""
    return UserMonthBound(
        epsilon=float(settings.cap(metrics[0])) if len(metrics) == 1 else joint_epsilon(settings),
        delta=0.0 if all(settings.mechanism(metric) == Laplace.name for metric in metrics) else settings.delta,
        rho=sum(_rho(metric, settings) for metric in metrics),
    )


def widest_noise(mechanisms: Iterable[Mechanism]) -> SteadyNoise:
    """The largest of these mechanisms' noises, one at least, from public constants alone."""
    listed = list(mechanisms)
    return SteadyNoise(
        std=max(noise_std(mechanism, _STEADY_DAY) for mechanism in listed),
        half_width_95=max(half_width_95(mechanism, _STEADY_DAY) for mechanism in listed),
    )


def configured_mechanism(metric: Metric, settings: Settings) -> Mechanism:
    """The mechanism that `settings` have for a month of 31 days."""
    return mechanism_for(settings, metric, LONG_MONTH)


def with_largest(settings: Settings, caps: Mapping[Metric, Iterable[Fraction]], deltas: Iterable[float]) -> Settings:
    """The settings with the largest of their own caps and δ and of these: no month promises less than they do."""
    largest = {metric: max([settings.cap(metric), *caps[metric]]) for metric in METRICS}
    return replace(
        settings,
        dau_budget_total=largest["dau"],
        mau_budget_total=largest["mau"],
        delta=max([settings.delta, *deltas]),
    )


def due_after_days(settings: Settings) -> int:
    """A number is due so many days after the day that it is of."""
    return 1 + settings.grace_days


def _rho(metric: Metric, settings: Settings) -> float:
    cap = float(settings.cap(metric))
    return pure_rho(cap) if settings.mechanism(metric) == Laplace.name else mu_of(cap, settings.delta) ** 2 / 2
