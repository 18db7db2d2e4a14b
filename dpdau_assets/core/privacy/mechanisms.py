"""The release mechanisms: what is stored about each, how it is calibrated, what its noise looks like. Formulas only.

A mechanism is stored as a frozen fact; what it costs a user-month is computed in `accounting`.

| name in code | symbol | meaning |
|---|---|---|
| `eps`, `delta` | ε, δ | the guarantee stated to readers |
| `mu` | μ | sensitivity / standard deviation of a Gaussian; adds as μ² |
| `sigma` | σ | parameter of a discrete Gaussian: P(x) ∝ exp(-x² / 2σ²) on the integers |
| `filter` | D | integer weights of the stream on the last days' statistics, newest first |
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist
from typing import Any, ClassVar, TypeAlias, assert_never

import numpy as np
import numpy.typing as npt

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.privacy.stream_filters import interval_sensitivity2, response_norm, stream_filter

Probabilities: TypeAlias = npt.NDArray[np.float64]

COVERAGE = 0.95
LONGEST_MONTH = 31
SHORTEST_STREAM_WINDOW = LONGEST_MONTH - 1  # a shorter one leaves a gap between the days 1 and 31

# By how much a parameter is larger than that of the continuous Gaussian, since the discrete one costs a hair more.
DISCRETE_MARGIN = 1.001


# --- The Gaussian trade-off curve (Balle & Wang 2018, arXiv 1805.06530, theorem 8) -------------------------------


def delta_of(mu: float, eps: float) -> float:
    """Exact δ at `eps` >= 0 of a Gaussian mechanism: Φ(μ/2 - ε/μ) - e^ε Φ(-μ/2 - ε/μ)."""
    if mu == 0:
        return 0.0
    near, far = eps / mu - mu / 2, eps / mu + mu / 2
    # e^ε φ(far) = φ(near), so both terms share a factor: no overflow, and no difference of two huge exponents
    density = math.exp(-near * near / 2) / math.sqrt(2 * math.pi)
    if near < 0:
        return math.erfc(near / math.sqrt(2)) / 2 - density * _mills_ratio(far)
    return density * (_mills_ratio(near) - _mills_ratio(far))


@lru_cache(maxsize=1024)
def mu_of(eps: float, delta: float) -> float:
    """The largest μ that is (eps, delta)-DP, to about 1e-13 relative; eps >= 0, 0 < delta < 1."""
    return _crossing(lambda mu: delta_of(mu, eps) <= delta)[0]


def eps_of(mu: float, delta: float) -> float:
    """The smallest ε >= 0 at which a Gaussian mechanism of this μ is (ε, delta)-DP, to about 1e-13 relative."""
    if delta_of(mu, 0.0) <= delta:
        return 0.0
    return _crossing(lambda eps: delta_of(mu, eps) > delta)[1]


@lru_cache(maxsize=1024)
def discrete_mu(sigma: float) -> float:
    """μ of one number of sensitivity 1 with discrete Gaussian noise, to about 1e-13: 2Φ⁻¹((1 + P(0)) / 2).

    No Gaussian curve of a smaller μ covers the noise's own: this one meets it where δ is the total variation P(0), and
    lies above it elsewhere. It is 1/sigma times 1 + 1/(24 sigma²) + … Why it covers the whole curve, and why the
    squares of several add up: docs/privacy.md, lemma 0.
    """
    if sigma >= 20:  # the same as a series, of which the next term is below 1e-14 here
        inverse = 1 / sigma**2
        return (1 + inverse * (1 / 24 + inverse * (7 / 1920 + inverse * 127 / 322560))) / sigma
    positive = math.fsum(math.exp(-((x / sigma) ** 2) / 2) for x in range(1, math.ceil(12 * sigma) + 2))
    beyond = positive / (1 + 2 * positive)  # P(noise > 0)
    least = -2 * NormalDist().inv_cdf(beyond) if beyond else 2 / sigma  # its limit as sigma goes to 0
    return least


def independent_mu(sigma: float) -> float:
    """μ that one independent number is charged: 1.001 / sigma, or `discrete_mu` if sigma is below 6.5.

    Never less than `discrete_mu`. The price of numbers that are stored does not change, so neither does this.
    """
    return DISCRETE_MARGIN / sigma if sigma >= 6.5 else discrete_mu(sigma)


def _mills_ratio(x: float) -> float:
    """Φ(-x) / φ(x) for x >= 0, to about 1e-15."""
    if x < 4:
        return math.sqrt(math.pi / 2) * math.exp(x * x / 2) * math.erfc(x / math.sqrt(2))
    fraction = x
    for k in range(40, 0, -1):  # Laplace's continued fraction; the 41st term is below 1e-30 here
        fraction = x + k / fraction
    return 1 / fraction


def _crossing(holds: Callable[[float], bool]) -> tuple[float, float]:
    """The neighbouring floats between which `holds`, true at 0, turns false."""
    low, high = 0.0, 1.0
    while holds(high):
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high


# --- Facts: what the ledger stores -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fact:
    name: ClassVar[str]
    version: ClassVar[int] = 1

    def to_json(self) -> dict[str, object]:
        """Kind, version and fields as plain values, a fraction as "3/10"; `mechanism_from_json` reads them back."""
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        return {"kind": self.name, "version": self.version, **values}


@dataclass(frozen=True)
class SharedNoise(_Fact):
    """One month of numbers with one noise in common: y = (2c + ξ_day + ξ_month) / 2 (Lebeda 2024, arXiv 2408.06853)."""

    name: ClassVar[str] = "gaussian_shared"
    version: ClassVar[int] = 2
    releases: int
    sigma_day: float
    sigma_month: float


@dataclass(frozen=True)
class SharedNoiseByMargin(SharedNoise):
    """A month of shared noise that was opened when all such months were priced by the margin: priced so for ever."""

    version: ClassVar[int] = 1


@dataclass(frozen=True)
class Stream(_Fact):
    """A rolling window's stream that never resets: u_t = Σ_k filter_k M(t-k) + z_t, z_t of parameter `sigma`.

    `sensitivity2` is the squared L2 sensitivity of u to one user-month.
    """

    name: ClassVar[str] = "gaussian_stream"
    window_days: int
    filter: tuple[int, ...]
    sensitivity2: int
    sigma: float


@dataclass(frozen=True)
class Gaussian(_Fact):
    """One number with its own discrete Gaussian noise; sensitivity 1."""

    name: ClassVar[str] = "gaussian"
    sigma: float


@dataclass(frozen=True)
class Laplace(_Fact):
    """One number with its own discrete Laplace noise, P(x) ∝ exp(-epsilon |x|); sensitivity 1, pure epsilon.

    Proof: docs/privacy.md, lemma 4.
    """

    name: ClassVar[str] = "laplace"
    epsilon: Fraction

    @property
    def scale(self) -> float:
        """1 / epsilon, rounded up: a scale a hair too small would cost a hair more than `epsilon`."""
        scale = float(1 / self.epsilon)
        return scale if Fraction(scale) * self.epsilon >= 1 else math.nextafter(scale, math.inf)


Mechanism: TypeAlias = SharedNoise | Stream | Gaussian | Laplace

_KINDS: Mapping[tuple[str, int], type[Mechanism]] = {
    (kind.name, kind.version): kind for kind in (SharedNoise, SharedNoiseByMargin, Stream, Gaussian, Laplace)
}


def mechanism_from_json(facts: Mapping[str, object]) -> Mechanism:
    """The mechanism that `to_json` wrote. Raises Refused for a kind, version or field that is not known here."""
    kind = next((known for named, known in _KINDS.items() if named == (facts.get("kind"), facts.get("version"))), None)
    values = {name: value for name, value in facts.items() if name not in ("kind", "version")}
    if kind is None or set(values) != {f.name for f in fields(kind)}:
        raise Refused(
            f"The stored mechanism {facts.get('kind')!r} version {facts.get('version')!r} is not known here.",
            "Read this ledger with the version of dpdau that wrote it, or a later one.",
            kind=facts.get("kind"),
            version=facts.get("version"),
            fields=sorted(values),
        )
    return kind(**{name: _exact(name, value) for name, value in values.items()})


def _plain(value: object) -> object:
    if isinstance(value, Fraction):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _exact(name: str, value: object) -> Any:
    if name == "epsilon":
        return Fraction(str(value))
    return tuple(value) if isinstance(value, list) else value


# --- Calibration: the least noise for a guarantee ----------------------------------------------------------------


@lru_cache(maxsize=1024)
def shared_noise(releases: int, eps: float, delta: float) -> SharedNoise:
    """`releases` numbers of one month, together (eps, delta)-DP for a user-month, also when added up in floats.

    Both parameters are 1.001 times those of continuous noise: enough for months and caps about the default. Where noise
    is coarser than that, as much larger as its own price asks. Proof: docs/privacy.md, lemma 1.
    """
    root, limit = math.sqrt(releases), (mu_of(eps, delta) * (1 - 1e-12)) ** 2
    kappa = (root + 1) / limit

    def widened(by: float) -> SharedNoise:
        return SharedNoise(releases, by * math.sqrt(root * kappa), by * math.sqrt(kappa))

    usual = widened(DISCRETE_MARGIN)
    if shared_mu2(usual) <= limit:
        return usual
    return widened(_crossing(lambda by: shared_mu2(widened(by)) > limit)[1])


def shared_mus(mechanism: SharedNoise) -> tuple[float, float]:
    """μ of one ξ_day and of the ξ_month, each as noise of a number of sensitivity 1, as the month is priced."""
    if isinstance(mechanism, SharedNoiseByMargin):
        return DISCRETE_MARGIN / mechanism.sigma_day, DISCRETE_MARGIN / mechanism.sigma_month
    return discrete_mu(mechanism.sigma_day), discrete_mu(mechanism.sigma_month)


def shared_mu2(mechanism: SharedNoise) -> float:
    """μ² of all of a month's numbers: that of every ξ_day and of the ξ_month, added up."""
    if isinstance(mechanism, SharedNoiseByMargin):  # to the last digit as it was charged, or it would not fit its cap
        return DISCRETE_MARGIN**2 * (mechanism.releases / mechanism.sigma_day**2 + 1 / mechanism.sigma_month**2)
    day, month = shared_mus(mechanism)
    return mechanism.releases * day**2 + month**2


@lru_cache(maxsize=1024)
def stream(window_days: int, eps: float, delta: float) -> Stream:
    """The stream of a rolling window, (eps, delta)-DP for a user-month. Raises Refused for a window below 30 days.

    Proof, and the conditions that the code around it has to meet: docs/privacy.md, lemma 2.
    """
    if window_days < SHORTEST_STREAM_WINDOW:
        raise Refused(
            f"A window of {window_days} days leaves gaps inside a month, so one user-month would change the bit on "
            "several intervals and gaussian_stream would cost more than it states.",
            f"Set MAU_WINDOW_DAYS={SHORTEST_STREAM_WINDOW} or more, or MAU_MECHANISM=gaussian.",
            window_days=window_days,
        )
    filter_ = stream_filter(window_days)
    sensitivity2 = interval_sensitivity2(filter_, longest_interval(window_days))
    # The twelfth is what being discrete takes of a variance; see docs/privacy.md, lemma 0.
    sigma = math.ceil(100 * math.sqrt(sensitivity2 / mu_of(eps, delta) ** 2 + 1 / 12)) / 100
    return Stream(window_days, filter_, sensitivity2, sigma)


def independent_gaussian(eps: float, delta: float) -> Gaussian:
    """One number of (eps, delta) by the continuous curve; the noise is discrete, and its price `independent_mu`.

    Proof: docs/privacy.md, lemma 3.
    """
    return Gaussian(math.nextafter(1 / mu_of(eps, delta), math.inf))


def longest_interval(window_days: int) -> int:
    """The most days on which one user-month can change a rolling window's bit: 60 for a 30-day window."""
    return LONGEST_MONTH + window_days - 1


# --- Release: exact arithmetic on integer draws ------------------------------------------------------------------


def independent_number(count: int, draw: int) -> float:
    """The published number under `Gaussian` and `Laplace`."""
    return float(count + draw)


def shared_number(count: int, day_draw: int, month_draw: int) -> float:
    """The published number under `SharedNoise`: a multiple of one half."""
    return (2 * count + day_draw + month_draw) / 2


def stream_output(mechanism: Stream, history: Sequence[int], draw: int) -> int:
    """u_t, the DP output, as an exact integer.

    `history` is the frozen statistics M, oldest first, ending with day t; days before it are 0.
    """
    return sum(weight * count for weight, count in zip(mechanism.filter, reversed(history), strict=False)) + draw


def stream_number(mechanism: Stream, output: int, earlier: Sequence[float]) -> float:
    """y_t, the published number, from u_t and the numbers published before, oldest first; post-processing only."""
    past = zip(mechanism.filter[1:], reversed(earlier), strict=False)
    return (output - sum(weight * number for weight, number in past)) / mechanism.filter[0]


# --- Noise of a published number ---------------------------------------------------------------------------------


def noise_std(mechanism: Mechanism, stream_day: int = 1) -> float:
    """Standard deviation of a published number, in users; `stream_day` is 1 on a stream's first day, else unused."""
    match mechanism:
        case SharedNoise():
            return math.hypot(_gaussian_std(mechanism.sigma_day), _gaussian_std(mechanism.sigma_month)) / 2
        case Stream():
            return mechanism.sigma / mechanism.filter[0] * response_norm(mechanism.filter, stream_day)
        case Gaussian():
            return _gaussian_std(mechanism.sigma)
        case Laplace():
            return math.sqrt(0.5) / math.sinh(float(mechanism.epsilon) / 2)
        case _:
            assert_never(mechanism)


@lru_cache(maxsize=4096)
def half_width_95(mechanism: Mechanism, stream_day: int = 1) -> float:
    """The smallest h with P(|noise of a published number| <= h) >= 0.95, in users, from the noise as it is drawn."""
    match mechanism:
        case SharedNoise():
            return _covering(draw_probabilities(mechanism.sigma_day), draw_probabilities(mechanism.sigma_month)) / 2
        case Stream():
            # A sum of discrete Gaussians that are thousands of steps wide, in steps of 1/1024: a normal distribution
            # to far more digits than are published.
            return NormalDist().inv_cdf((1 + COVERAGE) / 2) * noise_std(mechanism, stream_day)
        case Gaussian():
            return float(_covering(draw_probabilities(mechanism.sigma), np.ones(1)))
        case Laplace():
            return float(_laplace_covering(float(mechanism.epsilon)))
        case _:
            assert_never(mechanism)


@dataclass(frozen=True)
class NoiseWidth:
    """How far a published number's noise goes, in its own units: what intervals are made of.

    Attributes:
        half_width: 95 % of the noise lies within it, and no smaller value that the noise takes has as much.
        smooth: 95 % would lie within it if each value of the noise were spread evenly over its step.
        step: from one value of the noise to the next; 0 where steps are too small to see.
    """

    half_width: float
    smooth: float
    step: float


@lru_cache(maxsize=4096)
def noise_width(mechanism: Mechanism, half_width: float) -> NoiseWidth:
    """The width of a number's noise whose `half_width_95` is this."""
    match mechanism:
        case SharedNoise():
            step, first, second = (
                0.5,
                draw_probabilities(mechanism.sigma_day),
                draw_probabilities(mechanism.sigma_month),
            )
        case Gaussian():
            step, first, second = 1.0, draw_probabilities(mechanism.sigma), np.ones(1)
        case Laplace():
            step, first, second = 1.0, laplace_probabilities(float(mechanism.epsilon)), np.ones(1)
        case Stream():
            return NoiseWidth(half_width, half_width, 0.0)
        case _:
            assert_never(mechanism)
    steps = round(half_width / step)
    inside, within = _mass(first, second, steps - 1), _mass(first, second, steps)
    return NoiseWidth(half_width, step * (steps - 0.5 + (COVERAGE - inside) / (within - inside)), step)


def draw_probabilities(sigma: float) -> Probabilities:
    """The discrete Gaussian's probabilities on -n..n; what lies beyond is below 1e-30."""
    reach = math.ceil(12 * sigma) + 1
    weights = np.exp(-((np.arange(-reach, reach + 1) / sigma) ** 2) / 2)
    return weights / weights.sum()


def _gaussian_std(sigma: float) -> float:
    """Standard deviation of the discrete Gaussian: `sigma` itself but for sigma below about 1."""
    probabilities = draw_probabilities(sigma)
    reach = len(probabilities) // 2
    return math.sqrt(float(probabilities @ np.arange(-reach, reach + 1) ** 2))


def laplace_probabilities(epsilon: float) -> Probabilities:
    """The discrete Laplace's probabilities on -n..n; what lies beyond is below 1e-17."""
    reach = math.ceil(40 / epsilon)
    weights = np.exp(-epsilon * np.abs(np.arange(-reach, reach + 1)))
    return weights / weights.sum()


def _covering(first: Probabilities, second: Probabilities) -> int:
    """The smallest integer h with P(|X + Y| <= h) >= 0.95 for X, Y with these probabilities on -n..n."""
    return bisect_left(range(len(first) + len(second)), COVERAGE, key=lambda h: _mass(first, second, h))


def _mass(first: Probabilities, second: Probabilities, h: int) -> float:
    """P(|X + Y| <= h) for X, Y with these probabilities on -n..n; 0 for h below 0."""
    below = np.concatenate([[0.0], np.cumsum(first)])
    shift = np.arange(len(second)) - len(second) // 2
    low, high = (np.clip(edge - shift + len(first) // 2, 0, len(first)) for edge in (-h, h + 1))
    return float(second @ (below[high] - below[low]))


def _laplace_covering(epsilon: float) -> int:
    """The least h with P(|X| <= h) of `COVERAGE`, from P(|X| > h) = 2 q^(h+1) / (1 + q) with q = e^-epsilon."""
    tail = (1 - COVERAGE) * (1 + math.exp(-epsilon)) / 2
    return max(0, math.ceil(-math.log(tail) / epsilon) - 1)
