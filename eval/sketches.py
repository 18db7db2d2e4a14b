"""What sketches cost and how far they are off: `python -m eval.sketches` prints the tables of docs/sketches.md.

Every run builds real sketches of new random keys, by the code that publishing uses, with public parameters as they
would be chosen from a last number of about so many users. The noise of the intervals is that of a month of DAU.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module

import numpy as np
import numpy.typing as npt

from dpdau_assets.core.dates import month_of
from dpdau_assets.core.facts import Keys
from dpdau_assets.core.privacy.mechanisms import half_width_95, noise_width, shared_noise
from dpdau_assets.core.privacy.schedule import numbers_of_month
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches import build, public_parameters, unite
from dpdau_assets.core.sketches.base import Estimator, Sketch, to_bytes
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.sketches.hllpp import HllEstimator
from dpdau_assets.core.sketches.keysets import sorted_distinct
from dpdau_assets.core.sketches.kmv import KmvEstimator
from dpdau_assets.core.sketches.theta import ThetaEstimator

DEFAULTS = Settings()
NOISE = shared_noise(
    numbers_of_month(DEFAULTS, month_of(DEFAULTS.start_date)), float(DEFAULTS.dau_budget_total), DEFAULTS.delta
)
SEED = 20251009
USERS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
NOISES = 25  # draws on each statistic, whose own spread is known from fewer
A_DAY, EVERYBODY, DAYS = 1_000_000, 2_000_000, 30


@dataclass(frozen=True)
class Cell:
    """One kind at one number of users. Errors are relative, of the sketch alone; coverage is of noisy intervals."""

    estimator: Estimator
    users: int
    runs: int
    bias: float
    error: float
    theory: float
    coverage: float

    @property
    def bias_in_standard_errors(self) -> float:
        """How far the mean error is from 0; within about 3 for an estimate without bias."""
        return self.bias / (self.error / math.sqrt(self.runs)) if self.error else 0.0


@dataclass(frozen=True)
class Speed:
    """One kind on one core at a million users a day; the union is of 30 such days."""

    name: str
    keys_a_second: float
    bytes_a_day: int
    union_seconds: float


def countings_for(users: float) -> list[Estimator]:
    """Each sampling kind with its default size, and parameters for about so many users."""
    return [
        ThetaEstimator.for_users(users),
        KmvEstimator.for_users(users, DEFAULTS.kmv_k),
        HllEstimator.for_users(users, DEFAULTS.hll_registers),
    ]


def random_keys(users: int, random: np.random.Generator) -> Keys:
    """Sorted, distinct, uniform: as hashes of so many users are."""
    return sorted_distinct(random.integers(0, 2**64, users, dtype=np.uint64))


def runs_of(users: int) -> int:
    """How many sketches a cell is made from: more of small ones, for it is the time that counts."""
    return 4_000 if users <= 100_000 else 1_000


def measure(users: int) -> list[Cell]:
    """The cell of each kind, all from the same keys."""
    random, estimators, runs = np.random.default_rng((SEED, users)), countings_for(users), runs_of(users)
    statistics = np.empty((runs, len(estimators)))
    for run in range(runs):
        keys = random_keys(users, random)
        statistics[run] = [estimator.statistic(build(estimator.header(0, "eval"), keys)) for estimator in estimators]
    return [cell(estimator, users, statistics[:, number], random) for number, estimator in enumerate(estimators)]


def cell(estimator: Estimator, users: int, statistics: npt.NDArray[np.float64], random: np.random.Generator) -> Cell:
    """From the statistics of many runs: errors without noise, then intervals with it."""
    errors = np.array([estimator.users(statistic) for statistic in statistics]) / users - 1
    noisy = np.repeat(statistics, NOISES) + month_noise(NOISES * len(statistics), random)
    width = noise_width(NOISE, half_width_95(NOISE))
    bounds = [estimator.interval(value, width) for value in noisy.tolist()]
    held = [low <= users and (high is None or users <= high) for low, high in bounds]
    return Cell(
        estimator,
        users,
        len(statistics),
        float(errors.mean()),
        float(errors.std()),
        theory(estimator, users),
        float(np.mean(held)),
    )


def month_noise(draws: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise of numbers of many months; seeded, so of no use for publishing. Rounded normals are as good as discrete."""
    day, month = (np.rint(random.normal(0, sigma, draws)) for sigma in (NOISE.sigma_day, NOISE.sigma_month))
    return (day + month) / 2


def theory(estimator: Estimator, users: int) -> float:
    """Relative standard error of the estimate from the statistic alone; written apart from what it is compared with."""
    match estimator:
        case ThetaEstimator(theta0) | KmvEstimator(_, theta0):
            return math.sqrt((1 - theta0) / (theta0 * users))
        case HllEstimator(registers, level):
            chance = 2.0 ** (1 - level)
            load = users * chance / registers
            return math.sqrt(max(0.0, math.exp(load) - 1 - load * chance)) / (load * math.sqrt(registers))
        case _:
            return 0.0


# --- Speed and size ----------------------------------------------------------------------------------------------


def speeds() -> list[Speed]:
    """Each kind, from sorted keys to bytes, and united; then what Apache's own updates take, key by key."""
    random = np.random.default_rng(SEED)
    everybody = random_keys(EVERYBODY, random)
    days = [everybody[np.sort(random.choice(len(everybody), A_DAY, replace=False))] for _ in range(DAYS)]
    estimators = [ExactEstimator(), *countings_for(A_DAY), ThetaEstimator(Fraction(1))]
    return [*(speed(estimator, days) for estimator in estimators), *library_speeds(days[0])]


def speed(estimator: Estimator, days: Sequence[Keys]) -> Speed:
    sketches: list[Sketch] = []
    seconds = timed(lambda: sketches.extend(build(estimator.header(0, "eval"), keys) for keys in days))
    written: list[bytes] = []
    seconds += timed(lambda: written.extend(b"".join(to_bytes(sketch)) for sketch in sketches))
    union = min(timed(lambda: estimator.statistic(unite(sketches))) for _ in range(3))
    return Speed(
        f"{estimator.kind} {parameters_of(estimator)}".strip(), sum(map(len, days)) / seconds, len(written[0]), union
    )


def library_speeds(keys: Keys) -> list[Speed]:
    """What Apache DataSketches' own updates from Python take, key by key."""
    datasketches = import_module("datasketches")
    signed = keys.astype(np.int64).tolist()
    theta = datasketches.update_theta_sketch(26, p=float(ThetaEstimator.for_users(len(keys)).theta0))
    hll = datasketches.hll_sketch(14, datasketches.tgt_hll_type.HLL_8)
    speeds_measured = []
    for name, sketch in (("datasketches theta", theta), ("datasketches HLL_8", hll)):
        seconds = timed(lambda update=sketch.update: [update(key) for key in signed])
        size = len(theta.compact().serialize() if sketch is theta else hll.serialize_compact())
        speeds_measured.append(Speed(name, len(keys) / seconds, size, math.nan))
    return speeds_measured


def timed(work: Callable[[], object]) -> float:
    """Seconds it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- Tables ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--users", type=int, nargs="*", default=USERS)
    chosen = options.parse_args()
    print("| sketch on one core | million keys/s | bytes a day, 1 M users | 30-day union, ms |\n|---|---|---|---|")
    for row in speeds():
        union = "" if math.isnan(row.union_seconds) else f"{1000 * row.union_seconds:.1f}"
        print(f"| {row.name} | {row.keys_a_second / 1e6:,.1f} | {row.bytes_a_day:,} | {union} |")
    print("\n| users | sketch | parameters | error | theory | bias | in standard errors | intervals hold |")
    print("|---" * 8 + "|")
    with multiprocessing.get_context("spawn").Pool() as cores:
        for cells in cores.map(measure, sorted(chosen.users, reverse=True), chunksize=1):
            for row in cells:
                print(
                    f"| {row.users:,} | {row.estimator.kind} | {parameters_of(row.estimator)} | {row.error:.2%} "
                    f"| {row.theory:.2%} | {row.bias:+.3%} | {row.bias_in_standard_errors:+.1f} "
                    f"| {row.coverage:.1%} |"
                )


def parameters_of(estimator: Estimator) -> str:
    """The estimator's public parameters, as a table says them."""
    return ", ".join(f"{name} {value}" for name, value in public_parameters(estimator).items())


if __name__ == "__main__":
    main()
