"""What releases cost a user-month, and whether a month's cap admits one more. Arithmetic only.

| name in code | symbol | meaning |
|---|---|---|
| `epsilon`, `delta` | ε, δ | the guarantee stated to readers |
| `mu2` | μ² | (sensitivity / sigma)² of Gaussian noise; adds up, also when parameters are chosen adaptively |
| `rho` | ρ | zero-concentrated DP: μ²/2 of a Gaussian, ε·tanh(ε/2) of a pure-ε release |

Owns the rule: A cap admits by charges alone, and nothing is given back.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Literal, TypeAlias, assert_never

import numpy as np

from dpdau_assets.core.dates import months_read
from dpdau_assets.core.errors import BudgetRefused
from dpdau_assets.core.privacy.mechanisms import (
    Gaussian,
    Laplace,
    Mechanism,
    SharedNoise,
    Stream,
    eps_of,
    independent_gaussian,
    independent_mu,
    mu_of,
    shared_mu2,
)
from dpdau_assets.core.settings import Metric

Rule: TypeAlias = Literal["naive", "gaussian", "zcdp"]


@dataclass(frozen=True)
class Charge:
    """One run of a mechanism, charged to one month whose data it reads.

    A shared month or a stream is charged once a month, whole; an independent mechanism has a run, and so a
    charge, for every release. `budget` is the cap under which it was admitted.
    """

    metric: Metric
    month: date
    run: str
    mechanism: Mechanism
    budget: Budget | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Budget:
    """What the numbers of one metric may cost a user-month in all."""

    epsilon: Fraction
    delta: float


@dataclass(frozen=True)
class Cost:
    """What some releases cost a user-month: those of pure epsilon twice, as epsilon and as rho, and Gaussians as μ²."""

    epsilon: Fraction = Fraction(0)
    pure_rho: float = 0.0
    mu2: float = 0.0

    def times(self, releases: int) -> Cost:
        """The cost of so many releases, each of this cost."""
        return Cost(releases * self.epsilon, releases * self.pure_rho, releases * self.mu2)


# --- Prices ------------------------------------------------------------------------------------------------------


def cost(mechanism: Mechanism) -> Cost:
    """The price of a whole mechanism run."""
    if isinstance(mechanism, Laplace):
        return Cost(epsilon=mechanism.epsilon, pure_rho=pure_rho(float(mechanism.epsilon)))
    return Cost(mu2=mu2(mechanism))


def mu2(mechanism: SharedNoise | Stream | Gaussian) -> float:
    """μ² of a whole run of Gaussian noise, what its being discrete adds included."""
    match mechanism:
        case SharedNoise():
            return shared_mu2(mechanism)
        case Stream():
            return mechanism.sensitivity2 / mechanism.sigma**2  # thousands of steps wide: as good as continuous
        case Gaussian():
            return independent_mu(mechanism.sigma) ** 2
        case _:
            assert_never(mechanism)


def pure_rho(epsilon: float) -> float:
    """ρ of any mechanism of pure epsilon, and of randomised response exactly. Proof: docs/privacy.md, lemma 4."""
    return epsilon * math.tanh(epsilon / 2)


def rho(price: Cost) -> float:
    """A cost as one ρ."""
    return price.mu2 / 2 + price.pure_rho


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs; nothing is lost to the order of adding."""
    listed = list(costs)
    epsilon = sum((price.epsilon for price in listed), Fraction(0))
    return Cost(epsilon, math.fsum(price.pure_rho for price in listed), math.fsum(price.mu2 for price in listed))


def rule_of(price: Cost) -> Rule:
    """The composition by which such a cost is held to a cap.

    "naive", the plain sum, when all is pure; "gaussian", the exact curve, when all is Gaussian; else "zcdp": the
    Gaussian curve would understate what the pure releases add.
    """
    if price.mu2 == 0:
        return "naive"
    return "gaussian" if price.pure_rho == 0 else "zcdp"


def epsilon_of(price: Cost, delta: float) -> float:
    """ε at `delta`, by the rule for such a cost."""
    match rule_of(price):
        case "naive":
            return float(price.epsilon)
        case "gaussian":
            return eps_of(math.sqrt(price.mu2), delta)
        case "zcdp":
            return zcdp_epsilon(rho(price), delta)


def zcdp_epsilon(rho: float, delta: float) -> float:
    """ε at `delta` of ρ-zCDP (Canonne, Kamath, Steinke 2020, arXiv 2004.00010, proposition 12), least over orders α.

    Any order gives a valid ε, so a grid that misses the best one by a little only errs on the safe side (by < 1e-6).
    """
    above_one = np.geomspace(1e-6, 1e9, 30_001)
    alpha = 1 + above_one
    inverse = np.log(1 / delta) - np.log(alpha)
    epsilon = alpha * rho + inverse / above_one + np.log(above_one / alpha)
    return max(0.0, float(epsilon.min()))


# --- Admission ---------------------------------------------------------------------------------------------------


def charges_for_release(metric: Metric, day: date, window_days: int, mechanism: Mechanism, run: str) -> list[Charge]:
    """One charge for every month that the release's window reads. Why they add up: docs/privacy.md, lemma 5.

    A mechanism run that a month was charged for already must not be charged to it again: that is for the caller to see.
    """
    return [Charge(metric, month, run, mechanism) for month in months_read(day, window_days)]


def fits(price: Cost, budget: Budget) -> bool:
    """Whether a month's whole cost keeps within its cap."""
    match rule_of(price):
        case "naive":
            return price.epsilon <= budget.epsilon
        case "gaussian":
            return price.mu2 <= mu_of(float(budget.epsilon), budget.delta) ** 2
        case "zcdp":
            return zcdp_epsilon(rho(price), budget.delta) <= budget.epsilon


def largest_independent_epsilon(cap: Fraction, delta: float, numbers: int) -> float:
    """The largest ε, to three digits after the point, of which a month's cap takes so many Gaussian numbers."""
    budget = Budget(cap, delta)

    def too_large(thousandths: int) -> bool:
        each = cost(independent_gaussian(thousandths / 1000, delta))
        return not fits(each.times(numbers), budget)

    return (bisect_left(range(1, math.ceil(1000 * cap) + 1), True, key=too_large)) / 1000


def admits(charges: Sequence[Charge], new: Charge, budget: Budget) -> None:
    """Return if the month takes `new` on top of `charges`, all that was ever charged to this month of this metric.

    Raises BudgetRefused with the fields charged (for `charges`), asked (for `new` alone), together and cap, in epsilon;
    ValueError for charges of another month or metric.
    """
    if any((charge.metric, charge.month) != (new.metric, new.month) for charge in charges):
        raise ValueError("charges of another metric or month")
    charged, asked = total(cost(charge.mechanism) for charge in charges), cost(new.mechanism)
    together = total([charged, asked])
    if not fits(together, budget):
        raise _refusal(new, charged, asked, together, budget)


def _refusal(new: Charge, charged: Cost, asked: Cost, together: Cost, budget: Budget) -> BudgetRefused:
    epsilon = {
        "charged": epsilon_of(charged, budget.delta),
        "asked": epsilon_of(asked, budget.delta),
        "together": epsilon_of(together, budget.delta),
        "cap": float(budget.epsilon),
    }
    return BudgetRefused(
        f"{new.metric} of {new.month:%Y-%m} is charged epsilon {epsilon['charged']:.4g} of its cap "
        f"{epsilon['cap']:.4g}; this release asks {epsilon['asked']:.4g}, together {epsilon['together']:.4g} at delta "
        f"{budget.delta:g}.",
        "Nothing was charged or drawn; publish the days of another month, or have the cap overridden on the record.",
        metric=new.metric,
        month=f"{new.month:%Y-%m}",
        delta=budget.delta,
        **epsilon,
    )
