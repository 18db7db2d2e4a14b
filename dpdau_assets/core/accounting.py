"""What releases cost a user-month, and whether a month's cap admits one more. Arithmetic only.

| name in code | symbol | meaning |
|---|---|---|
| `epsilon`, `delta` | ε, δ | the guarantee stated to readers |
| `mu2` | μ² | (sensitivity / sigma)² of Gaussian noise; adds exactly, also when parameters are chosen adaptively |
| `rho` | ρ | zero-concentrated DP: μ²/2 of a Gaussian, ε·tanh(ε/2) of a pure-ε release |
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import assert_never

import numpy as np

from dpdau_assets.core.errors import BudgetRefused
from dpdau_assets.core.mechanisms import (
    Gaussian,
    Laplace,
    Mechanism,
    SharedNoise,
    Stream,
    eps_of,
    mu_of,
    output_sensitivity,
    shared_mu2_so_far,
    stream_mu2_so_far,
    stream_outputs,
)
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.windows import months_read


@dataclass(frozen=True)
class Charge:
    """One instance of a mechanism, charged to one month whose data it reads.

    A shared month or a stream is charged once a month, whole; an independent mechanism has an instance, and so a
    charge, for every release.
    """

    metric: Metric
    month: date
    instance: str
    mechanism: Mechanism


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
    """The price of a whole instance."""
    if isinstance(mechanism, Laplace):
        return Cost(epsilon=mechanism.epsilon, pure_rho=pure_rho(float(mechanism.epsilon)))
    return Cost(mu2=mu2(mechanism))


def mu2(mechanism: SharedNoise | Stream | Gaussian) -> float:
    """μ² of a whole instance of Gaussian noise."""
    match mechanism:
        case SharedNoise():
            return mechanism.releases / mechanism.sigma_day**2 + 1 / mechanism.sigma_month**2
        case Stream():
            return mechanism.sensitivity2 / mechanism.sigma**2
        case Gaussian():
            return 1 / mechanism.sigma**2
        case _:
            assert_never(mechanism)


def pure_rho(epsilon: float) -> float:
    """ρ of any mechanism of pure epsilon, and of randomised response exactly."""
    return epsilon * math.tanh(epsilon / 2)


def rho(price: Cost) -> float:
    """The same cost as one ρ."""
    return price.mu2 / 2 + price.pure_rho


def total(costs: Iterable[Cost]) -> Cost:
    """Their sum; nothing is lost to the order of adding."""
    listed = list(costs)
    epsilon = sum((price.epsilon for price in listed), Fraction(0))
    return Cost(epsilon, math.fsum(price.pure_rho for price in listed), math.fsum(price.mu2 for price in listed))


def epsilon_of(price: Cost, delta: float) -> float:
    """ε at `delta`: the plain sum when all is pure, the exact Gaussian curve when all is Gaussian, else by zCDP."""
    if price.mu2 == 0:
        return float(price.epsilon)
    if price.pure_rho == 0:
        return eps_of(math.sqrt(price.mu2), delta)
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


def charges_for_release(
    metric: Metric, day: date, window_days: int, mechanism: Mechanism, instance: str
) -> list[Charge]:
    """One charge for every month that the release's window reads.

    An instance that a month was charged for already must not be charged to it again: that is for the caller to see.
    """
    return [Charge(metric, month, instance, mechanism) for month in months_read(day, window_days)]


def fits(price: Cost, budget: Budget) -> bool:
    """Whether a month's whole cost keeps within its cap.

    Never the Gaussian curve for a mixed month: it would understate what the pure-ε releases add.
    """
    if price.mu2 == 0:
        return price.epsilon <= budget.epsilon
    if price.pure_rho == 0:
        return price.mu2 <= mu_of(float(budget.epsilon), budget.delta) ** 2
    return zcdp_epsilon(rho(price), budget.delta) <= budget.epsilon


def admits(charges: Sequence[Charge], new: Charge, budget: Budget) -> None:
    """Return if the month takes `new` on top of `charges`, all that was ever charged to this month of this metric.

    Raises BudgetRefused with the fields spent (by `charges`), asked (by `new` alone), together and cap, all in epsilon.
    """
    if any((charge.metric, charge.month) != (new.metric, new.month) for charge in charges):
        raise ValueError("charges of another metric or month")
    spent, asked = total(cost(charge.mechanism) for charge in charges), cost(new.mechanism)
    together = total([spent, asked])
    if not fits(together, budget):
        raise _refusal(new, spent, asked, together, budget)


def _refusal(new: Charge, spent: Cost, asked: Cost, together: Cost, budget: Budget) -> BudgetRefused:
    epsilon = {
        "spent": epsilon_of(spent, budget.delta),
        "asked": epsilon_of(asked, budget.delta),
        "together": epsilon_of(together, budget.delta),
        "cap": float(budget.epsilon),
    }
    return BudgetRefused(
        f"{new.metric} of {new.month:%Y-%m} has spent epsilon {epsilon['spent']:.4g} of its cap {epsilon['cap']:.4g}; "
        f"this release asks {epsilon['asked']:.4g}, together {epsilon['together']:.4g} at delta {budget.delta:g}.",
        "Nothing was charged or drawn; publish the days of another month, or have the cap overridden on the record.",
        metric=new.metric,
        month=f"{new.month:%Y-%m}",
        delta=budget.delta,
        **epsilon,
    )


def joint_epsilon(settings: Settings) -> float:
    """ε at `settings.delta` of all that both metrics ever publish about a user-month, both caps used up."""
    dau, mau = _full(settings, "dau"), _full(settings, "mau")
    plain_sum = float(settings.cap("dau") + settings.cap("mau"))  # at one delta if either is pure; else never the less
    return min(epsilon_of(total([dau, mau]), settings.delta), plain_sum)


def _full(settings: Settings, metric: Metric) -> Cost:
    """The dearest month that the metric's cap admits under the configured mechanism."""
    cap = settings.cap(metric)
    if settings.mechanism(metric) == Laplace.name:
        return Cost(epsilon=cap, pure_rho=pure_rho(float(cap)))  # one release of the whole cap: ρ is convex in ε
    return Cost(mu2=mu_of(float(cap), settings.delta) ** 2)


# --- Report: what published numbers have cost so far -------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """How much of one instance is public, as seen from one month.

    `releases` counts its published numbers that read the month; `first_day` and `last_day` are those of the instance.
    """

    mechanism: Mechanism
    releases: int
    first_day: date
    last_day: date


@dataclass(frozen=True)
class BudgetSummary:
    """One month of one metric, for people. Display only: admission looks at charges.

    Attributes:
        epsilon_spent: what the published numbers have cost so far, at the budget's delta.
        rdp_curve: Rényi order to ε of that order, of the same numbers.
        advanced_epsilon: see `advanced_epsilon`; holds at `advanced_delta` and is never used to stop.
    """

    epsilon_cap: float
    epsilon_spent: float
    epsilon_remaining: float
    releases_made: int
    releases_planned: int
    rdp_curve: dict[int, float]
    advanced_epsilon: float
    advanced_delta: float


def budget_summary(
    published: Sequence[Published], month: date, budget: Budget, releases_planned: int, settings: Settings
) -> BudgetSummary:
    """The summary of one month from all that was published of the instances charged to it."""
    price = cost_so_far(published, month)
    spent, made = epsilon_of(price, budget.delta), sum(one.releases for one in published)
    return BudgetSummary(
        epsilon_cap=float(budget.epsilon),
        epsilon_spent=spent,
        epsilon_remaining=max(0.0, float(budget.epsilon) - spent),
        releases_made=made,
        releases_planned=releases_planned,
        rdp_curve=rdp_curve(published, price, settings.rdp_orders),
        advanced_epsilon=advanced_epsilon(published, month, settings.advanced_delta),
        advanced_delta=settings.advanced_delta if made else 0.0,
    )


def cost_so_far(published: Iterable[Published], month: date) -> Cost:
    """What the published numbers have cost this user-month; at most what was charged for them."""
    return total(_cost_so_far(one, month) for one in published)


def _cost_so_far(one: Published, month: date) -> Cost:
    match one.mechanism:
        case SharedNoise():
            return Cost(mu2=shared_mu2_so_far(one.releases, one.mechanism))
        case Stream():
            return Cost(mu2=stream_mu2_so_far(one.mechanism, month, one.first_day, one.last_day))
        case Gaussian() | Laplace():
            return cost(one.mechanism).times(one.releases)
        case _:
            assert_never(one.mechanism)


def rdp_curve(published: Iterable[Published], price: Cost, orders: Iterable[int]) -> dict[int, float]:
    """Rényi DP of the published numbers, whose cost so far is `price`: order α > 1 to its ε."""
    pure = [(float(one.mechanism.epsilon), one.releases) for one in published if isinstance(one.mechanism, Laplace)]
    return {
        order: order * price.mu2 / 2 + math.fsum(count * _laplace_rdp(epsilon, order) for epsilon, count in pure)
        for order in orders
    }


def _laplace_rdp(epsilon: float, order: float) -> float:
    """Rényi DP of discrete Laplace noise on an integer of sensitivity 1: its loss is ±ε, as of randomised response."""
    up, down = (order - 1) * epsilon, -order * epsilon
    return (up + math.log1p(math.exp(down - up)) - math.log1p(math.exp(-epsilon))) / (order - 1)


def advanced_epsilon(published: Iterable[Published], month: date, delta: float) -> float:
    """ε at `delta` by advanced composition (Dwork, Rothblum, Vadhan 2010, theorem III.3), to compare; 0.0 for nothing.

    √(2 ln(1/δ') Σ ε_i²) + Σ ε_i (e^ε_i - 1) over the independent noises behind the published numbers: each number of
    an independent mechanism; each day's noise and the month's one of a shared month; each stream output that the month
    can have changed. With pure releases only, δ' = `delta`. Else δ' is half of it, the Gaussians share the other half
    evenly, and ε_i of each is exact at its share. Far above the cost by μ²; a report, never used to stop.
    """
    pure, gaussian = _noises(published, month)
    slack = delta / 2 if gaussian else delta
    epsilons = Counter({float(epsilon): count for epsilon, count in pure.items()})
    for mu, count in gaussian.items():
        epsilons[eps_of(mu, delta / 2 / gaussian.total())] += count
    squares = math.fsum(count * epsilon**2 for epsilon, count in epsilons.items())
    drift = math.fsum(count * epsilon * math.expm1(epsilon) for epsilon, count in epsilons.items())
    return math.sqrt(2 * math.log(1 / slack) * squares) + drift


def _noises(published: Iterable[Published], month: date) -> tuple[Counter[Fraction], Counter[float]]:
    """The independent noises behind the numbers: ε of each Laplace, μ of each Gaussian, with how many there are."""
    pure: Counter[Fraction] = Counter()
    gaussian: Counter[float] = Counter()
    for one in published:
        match one.mechanism:
            case Laplace(epsilon):
                pure[epsilon] += one.releases
            case Gaussian(sigma):
                gaussian[1 / sigma] += one.releases
            case SharedNoise() as shared if one.releases:
                gaussian[1 / shared.sigma_day] += one.releases
                gaussian[1 / shared.sigma_month] += 1
            case Stream() as stream:
                outputs = stream_outputs(stream, month, one.first_day, one.last_day)
                gaussian[output_sensitivity(stream) / stream.sigma] += outputs
    return +pure, +gaussian
