"""What published numbers cost a user-month, as a summary for people and under other compositions.

Display only: admission looks at charges, in `accounting`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from types import MappingProxyType

from dpdau_assets.core.privacy.accounting import (
    Budget,
    Charge,
    Cost,
    cost,
    epsilon_of,
    pure_rho,
    rho,
    rule_of,
    total,
    zcdp_epsilon,
)
from dpdau_assets.core.privacy.cost_so_far import Published, cost_so_far, output_sensitivity, stream_outputs
from dpdau_assets.core.privacy.mechanisms import (
    Gaussian,
    Laplace,
    SharedNoise,
    Stream,
    eps_of,
    independent_mu,
    mu_of,
    shared_mus,
)
from dpdau_assets.core.settings import Metric, Settings

USER_MONTHS = (1, 2, 3, 6, 12)
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "naive": "Every noise behind the numbers by itself: epsilons added up, delta shared evenly by the Gaussians.",
        "advanced": "Advanced composition of the same noises (Dwork, Rothblum, Vadhan 2010), at ADVANCED_DELTA.",
        "rdp": "Rényi DP, converted at the order of RDP_ORDERS that gives the least (Canonne, Kamath, Steinke 2020).",
        "zcdp": "Zero-concentrated DP, converted at the best order there is (Canonne, Kamath, Steinke 2020).",
        "gaussian": "The sum of μ² on the exact curve of Gaussian noise (Balle, Wang 2018).",
    }
)
COMPARED: Mapping[str, str] = MappingProxyType(
    {
        "rdp_curve": "Rényi DP of the published numbers, each order with its ε; compares, stops and charges nothing.",
        "advanced_epsilon": "ε of every noise behind the published numbers by itself, by the loose rule of advanced "
        "composition (Dwork, Rothblum, Vadhan 2010); it lies far above epsilon_spent, compares, stops and charges "
        "nothing.",
        "advanced_delta": "δ at which advanced_epsilon holds, 0 before the first number; compares, stops and charges "
        "nothing.",
    }
)
COMPOSITIONS = (
    "What the published numbers have cost by each way of adding up; they compare, stop and charge nothing: what is "
    "charged, and not what is out, is held to the cap, by the rule that used_for_admission marks."
)
CHARGED = "All that is charged to the month, mechanism runs whole, published or not: what is held to the cap."
JOINT = "All numbers of both metrics that read the month, both caps used up."


@dataclass(frozen=True)
class Comparison:
    """Numbers by other ways of adding up; nothing is stopped or charged by any of these.

    Attributes:
        rdp_curve: Rényi order to ε of that order.
        advanced_epsilon: see `advanced_epsilon`; holds at `advanced_delta`.
        meaning: a sentence for each figure, by its name.
    """

    rdp_curve: dict[int, float]
    advanced_epsilon: float
    advanced_delta: float
    meaning: dict[str, str]


@dataclass(frozen=True)
class BudgetSummary:
    """One month of one metric, for people.

    Attributes:
        epsilon_spent: what the published numbers have cost so far, at the budget's delta.
        comparison: what only compares, apart from what counts.
    """

    epsilon_cap: float
    epsilon_spent: float
    epsilon_remaining: float
    releases_made: int
    releases_planned: int
    comparison: Comparison


@dataclass(frozen=True)
class Composition:
    """What the published numbers have cost, by one way of adding up; each is valid, the least one says most.

    Attributes:
        order: the Rényi order that won; None for other compositions.
        used_for_admission: whether the month's charges are held to the cap by this rule.
    """

    name: str
    epsilon: float
    delta: float
    order: int | None
    meaning: str
    used_for_admission: bool


@dataclass(frozen=True)
class Guarantee:
    """An (ε, δ) and what it covers; δ is 0 where all noise is pure."""

    epsilon: float
    delta: float
    meaning: str


@dataclass(frozen=True)
class UserMonths:
    """What `months` calendar months of one user cost together, caps used up: of one metric, and of both."""

    months: int
    epsilon: float
    joint_epsilon: float
    delta: float


@dataclass(frozen=True)
class BudgetReport:
    """What stands beside the summary. `compositions` is empty before the first number."""

    charged: Guarantee
    compositions: tuple[Composition, ...]
    joint: Guarantee
    user_months: tuple[UserMonths, ...]


def budget_summary(
    published: Sequence[Published], month: date, budget: Budget, releases_planned: int, settings: Settings
) -> BudgetSummary:
    """The summary of one month from all that was published of the mechanism runs charged to it."""
    price = cost_so_far(published, month)
    spent, releases_made = epsilon_of(price, budget.delta), sum(run.releases for run in published)
    return BudgetSummary(
        epsilon_cap=float(budget.epsilon),
        epsilon_spent=spent,
        epsilon_remaining=max(0.0, float(budget.epsilon) - spent),
        releases_made=releases_made,
        releases_planned=releases_planned,
        comparison=Comparison(
            rdp_curve=rdp_curve(published, price, settings.rdp_orders),
            advanced_epsilon=advanced_epsilon(published, month, settings.advanced_delta),
            advanced_delta=settings.advanced_delta if releases_made else 0.0,
            meaning=dict(COMPARED),
        ),
    )


def budget_report(
    metric: Metric, published: Sequence[Published], month: date, charges: Iterable[Charge], settings: Settings
) -> BudgetReport:
    """The rest of what a month's budget shows, under the caps of `settings`; `charges` are all of this month's."""
    price = total(cost(charge.mechanism) for charge in charges)
    return BudgetReport(
        charged=Guarantee(epsilon_of(price, settings.delta), _delta(price, settings.delta), CHARGED),
        compositions=tuple(_compositions(published, month, price, settings)),
        joint=Guarantee(joint_epsilon(settings), _delta(_both(settings), settings.delta), JOINT),
        user_months=tuple(user_months(metric, settings)),
    )


# --- Other compositions of the same numbers ----------------------------------------------------------------------


def _compositions(
    published: Sequence[Published], month: date, charged: Cost, settings: Settings
) -> Iterable[Composition]:
    price, delta = cost_so_far(published, month), settings.delta
    if rho(price) == 0:
        return
    rule = rule_of(charged)

    def composition(name: str, epsilon: float, delta: float, order: int | None = None) -> Composition:
        return Composition(name, epsilon, delta, order, MEANINGS[name], name == rule)

    yield composition("naive", naive_epsilon(published, month, delta), _delta(price, delta))
    advanced_delta = settings.advanced_delta
    yield composition("advanced", advanced_epsilon(published, month, advanced_delta), advanced_delta)
    by_rdp, order = rdp_epsilon(rdp_curve(published, price, settings.rdp_orders), delta)
    yield composition("rdp", by_rdp, delta, order)
    yield composition("zcdp", zcdp_epsilon(rho(price), delta), delta)
    if price.pure_rho == 0:  # else the curve says too little
        yield composition("gaussian", epsilon_of(price, delta), delta)


def naive_epsilon(published: Iterable[Published], month: date, delta: float) -> float:
    """ε at `delta` by adding up every independent noise by itself, those of `advanced_epsilon`.

    The Gaussians share `delta` evenly, and each has its exact ε at its share; pure releases take none of it.
    """
    pure, gaussian = _noises(published, month)
    share = delta / max(1, gaussian.total())
    of_pure = float(sum((count * epsilon for epsilon, count in pure.items()), Fraction(0)))
    return of_pure + math.fsum(count * eps_of(mu, share) for mu, count in gaussian.items())


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


def rdp_curve(published: Iterable[Published], price: Cost, orders: Iterable[int]) -> dict[int, float]:
    """Rényi DP of the published numbers, whose cost so far is `price`: order α > 1 to its ε."""
    pure = [(float(run.mechanism.epsilon), run.releases) for run in published if isinstance(run.mechanism, Laplace)]
    return {
        order: order * price.mu2 / 2 + math.fsum(count * _laplace_rdp(epsilon, order) for epsilon, count in pure)
        for order in orders
    }


def rdp_epsilon(curve: Mapping[int, float], delta: float) -> tuple[float, int]:
    """The least ε at `delta` that a point of the curve gives (arXiv 2004.00010, proposition 12), and its order."""

    def at(order: int) -> float:
        return curve[order] + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)

    best = min(curve, key=at)
    return max(0.0, at(best)), best


def _laplace_rdp(epsilon: float, order: float) -> float:
    """Rényi DP of discrete Laplace noise on an integer of sensitivity 1: its loss is ±ε, as of randomised response."""
    up, down = (order - 1) * epsilon, -order * epsilon
    return (up + math.log1p(math.exp(down - up)) - math.log1p(math.exp(-epsilon))) / (order - 1)


def _noises(published: Iterable[Published], month: date) -> tuple[Counter[Fraction], Counter[float]]:
    """The independent noises behind the numbers: ε of each Laplace, μ of each Gaussian, with how many there are."""
    pure: Counter[Fraction] = Counter()
    gaussian: Counter[float] = Counter()
    for run in published:
        match run.mechanism:
            case Laplace(epsilon):
                pure[epsilon] += run.releases
            case Gaussian(sigma):
                gaussian[independent_mu(sigma)] += run.releases
            case SharedNoise() as shared if run.releases:
                day, whole = shared_mus(shared)
                gaussian[day] += run.releases
                gaussian[whole] += 1
            case Stream() as stream:
                outputs = stream_outputs(stream, month, run.first_day, run.last_day)
                gaussian[output_sensitivity(stream) / stream.sigma] += outputs
    return +pure, +gaussian


# --- Both metrics, and several months ----------------------------------------------------------------------------


def joint_epsilon(settings: Settings) -> float:
    """ε at `settings.delta` of all that both metrics ever publish about a user-month, both caps used up."""
    return _epsilon_of_months(1, _both(settings), settings.delta)


def user_months(metric: Metric, settings: Settings) -> Iterable[UserMonths]:
    """k months of one user cost k times the μ² of one, or k times the pure ε, under the configured mechanisms.

    Months of shared noise are independent, and a number that several of the months touch changes by 1 at most. In the
    stream the months change disjoint intervals, whose filtered products are negative: together they cost no more.
    Proof: docs/privacy.md, lemma 5.
    """
    alone, both = _full(settings, metric), _both(settings)
    for months in USER_MONTHS:
        epsilon, together = (_epsilon_of_months(months, price, settings.delta) for price in (alone, both))
        yield UserMonths(months, epsilon, together, _delta(both, settings.delta))


def _epsilon_of_months(months: int, month: Cost, delta: float) -> float:
    """ε at `delta` of so many months of this cost."""
    price = month.times(months)
    if rule_of(price) != "zcdp":
        return epsilon_of(price, delta)
    added_up = float(price.epsilon) + eps_of(math.sqrt(price.mu2), delta)  # pure releases take none of delta
    return min(epsilon_of(price, delta), added_up)


def _both(settings: Settings) -> Cost:
    return total([_full(settings, "dau"), _full(settings, "mau")])


def _full(settings: Settings, metric: Metric) -> Cost:
    """The dearest month that the metric's cap admits under the configured mechanism."""
    cap = settings.cap(metric)
    if settings.mechanism(metric) == Laplace.name:
        return Cost(epsilon=cap, pure_rho=pure_rho(float(cap)))  # one release of the whole cap: ρ is convex in ε
    return Cost(mu2=mu_of(float(cap), settings.delta) ** 2)


def _delta(price: Cost, delta: float) -> float:
    return delta if price.mu2 else 0.0
