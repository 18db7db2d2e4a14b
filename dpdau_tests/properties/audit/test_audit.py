"""The whole release path, audited from outside: two worlds that differ in one user-month, and what is published.

Nothing can be seeded, so every test says how often it would be wrong by chance. A lower bound on ε is compared with
what the ledger says was charged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from fractions import Fraction
from functools import cache
from itertools import islice
from unittest.mock import patch

import numpy as np
import pytest
from scipy.special import ndtr

from dpdau_assets.core.dates import days_between, month_days, month_end, months_from
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.mechanisms import Gaussian, Laplace, noise_std
from dpdau_assets.core.privacy.schedule import mechanism_for
from dpdau_assets.core.publication import release
from dpdau_assets.core.settings import Settings
from dpdau_tests.conftest import prepare, put
from dpdau_tests.properties.audit import faults
from dpdau_tests.properties.audit.bounds import lower_bounds
from dpdau_tests.properties.audit.path import (
    START,
    Design,
    ErasedInBetween,
    Fault,
    Independent,
    Numbers,
    SharedMonth,
    StreamInterval,
    Trials,
    honest,
    opened,
    run,
    shared_noise_of,
)
from dpdau_tests.properties.audit.residuals import (
    across_months,
    distribution_of,
    finest_step,
    last_bit_odds,
    revision_odds,
    shape_odds,
    share_odd,
    spread_odds,
    standardised,
    within_a_month,
)
from dpdau_tests.support.lengths import LENGTH, at_length

FEW = 1e-6
"""Odds of a false alarm in `make test`."""
EACH = FEW / 5
"""Odds at which one of several tests of residuals speaks up, or Pearson's, whose odds are thrice too small for few."""
SOME = 1e-3
"""Odds that a bound of the slow run is above the truth, at most: a confidence of 99.9 %."""
SCALE = at_length(ci=1, soak=3)
"""How many times as many trials as it takes."""

DEFAULT = Settings()
GAUSSIAN = Settings(dau_mechanism="gaussian")
LAPLACE = Settings(dau_mechanism="laplace", dau_budget_total=Fraction(62 * 3, 10))
# The more a number or a month may cost, the fewer trials tell it from one that costs twice as much.
LAPLACE_LARGE = Settings(dau_mechanism="laplace", epsilon_dau=Fraction(3, 2), dau_budget_total=Fraction(93))
LAPLACE_LARGEST = Settings(dau_mechanism="laplace", epsilon_dau=Fraction(4), dau_budget_total=Fraction(62 * 4))
GAUSSIAN_LARGE = Settings(dau_mechanism="gaussian", epsilon_dau=Fraction(6), dau_budget_total=Fraction(200))
LARGE_CAPS = Settings(dau_budget_total=Fraction(12), mau_budget_total=Fraction(12))
ONCE = replace(LARGE_CAPS, restatements_per_month=0)
SHE_COMES = [0] * 100 + [1] * 100  # and stays
ERASED = ErasedInBetween(DEFAULT, first=1, again=0, days=1, per_ledger=16)

SHARED = shared_noise_of(DEFAULT, START)
LONG_MONTHS = [month for month in islice(months_from(START), 4000) if month_days(month) == 31]


def audited(design: Design, trials: int, fault: Fault, odds: float) -> tuple[float, float]:
    """The lower bound on ε, and the ε that was charged."""
    trials_run = run(design, trials * SCALE, fault)
    return bound(trials_run, odds), trials_run.claim


def bound(trials: Trials, odds: float) -> float:
    """By counts at δ = 0 where nothing but pure ε was charged; else at the claim's δ, by counts or by the curve."""
    gaussian = trials.charged.mu2 > 0
    delta = trials.delta if gaussian else 0.0
    bounds = lower_bounds(trials.present, trials.absent, delta, odds)
    return bounds.epsilon(delta) if gaussian else bounds.by_counts


# --- Lower bounds on ε -------------------------------------------------------------------------------------------


def test_a_pure_number_costs_at_most_what_was_charged_and_not_much_less() -> None:
    """A bound above the charge has odds of 1e-6; one below 0.3, five of its errors under the usual 0.8, less."""
    least, charged = audited(Independent(LAPLACE_LARGE), 320, honest, FEW)
    assert charged == 1.5
    assert 0.3 < least <= charged


@pytest.mark.parametrize(
    ("fault", "settings", "trials"),
    [
        (faults.no_charge, LAPLACE_LARGEST, 70),
        pytest.param(faults.half_noise, LAPLACE_LARGE, 600, marks=pytest.mark.slow),
        pytest.param(faults.sensitivity_2, LAPLACE_LARGE, 900, marks=pytest.mark.slow),
        pytest.param(faults.exact_leak, LAPLACE_LARGE, 600, marks=pytest.mark.slow),
    ],
)
def test_a_number_that_costs_more_than_was_charged_is_caught(fault: Fault, settings: Settings, trials: int) -> None:
    """Missed by chance with odds below 1e-6: the bounds are five or more of their errors above what was charged."""
    least, charged = audited(Independent(settings), trials, fault, FEW)
    assert charged == (0 if fault is faults.no_charge else 1.5)
    assert charged < least


@pytest.mark.also_long
def test_a_gaussian_number_costs_at_most_what_was_charged() -> None:
    """A false alarm has odds of 1e-6."""
    least, charged = audited(Independent(GAUSSIAN_LARGE), at_length(test=100, ci=350, soak=350), honest, FEW)
    assert least <= charged


@pytest.mark.also_long
def test_what_a_restatement_and_the_first_numbers_tell_together_is_within_the_months_charge() -> None:
    """A false alarm has odds of 1e-6."""
    least, charged = audited(ERASED, at_length(test=45, ci=100, soak=100), honest, FEW)
    assert least <= charged <= 3


def test_noise_that_revisions_have_in_common_is_caught_when_someone_was_erased_between_them() -> None:
    """Never missed: the difference of the two is exact."""
    least, charged = audited(ERASED, 40, faults.noise_of_the_day, FEW)
    assert charged <= 3 < least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "trials"),
    [
        (Independent(LAPLACE), at_length(ci=300, soak=5_000)),
        (Independent(LAPLACE_LARGE, days=2), at_length(ci=250, soak=700)),
        (Independent(GAUSSIAN_LARGE), at_length(ci=100, soak=700)),
        (SharedMonth(LARGE_CAPS), at_length(ci=70, soak=100)),
        (StreamInterval(LARGE_CAPS), 70),
    ],
)
def test_nothing_costs_more_than_was_charged(design: Design, trials: int) -> None:
    """A bound above the truth has odds of 1e-3; in a soak, it is usually four or more of its errors below it."""
    least, charged = audited(design, trials, honest, SOME)
    assert least <= charged


DEARER = [(Independent(GAUSSIAN_LARGE), 700, faults.half_noise)]
if LENGTH == "soak":
    DEARER += [
        (Independent(LAPLACE_LARGE, days=2), 700, faults.one_charge),
        (SharedMonth(ONCE, first=18), 270, faults.half_noise),
        (StreamInterval(LARGE_CAPS, days=9), 520, faults.half_noise),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("design", "trials", "fault"), DEARER)
def test_whatever_costs_more_than_was_charged_is_caught(design: Design, trials: int, fault: Fault) -> None:
    """Missed by chance with odds below 1e-4: the bounds are four or more of their errors above what was charged."""
    least, charged = audited(design, trials, fault, SOME)
    assert charged < least


# --- Residuals ---------------------------------------------------------------------------------------------------


def months_of_noise(months: list[date], fault: Fault = honest) -> list[Numbers]:
    """What the published and the restated numbers of these months are off by."""
    design, residuals = SharedMonth(DEFAULT), []
    for begun in range(0, len(months), design.per_ledger):
        with opened(DEFAULT, fault) as store:
            residuals += [
                design.numbers(month, True, store) - design.seen(month)
                for month in months[begun : begun + design.per_ledger]
            ]
    return residuals


def odds_of_months(months: list[Numbers]) -> float:
    """The least of their spread's, their shape's and their revisions' differences'."""
    values = np.concatenate([standardised(month, SHARED) for month in months])
    spread = spread_odds(float((values**2).sum()), len(values))
    return min(spread, shape_odds(values, ndtr, 1.0), revision_odds(months, SHARED))


@cache
def honest_months() -> list[Numbers]:
    """The fewest months that show that the days of a month have noise in common."""
    return months_of_noise(LONG_MONTHS[:22])


def single_numbers(settings: Settings, months: int, fault: Fault = honest) -> tuple[Numbers, Numbers]:
    """Numbers of days with 0 users and with 1 in turn, with noise of their own, and how many users there were."""
    counts = np.arange(months) % 2
    with opened(settings, fault) as store:
        return Independent(settings).numbers([bool(count) for count in counts], store)[:, 0], counts


@cache
def honest_numbers(settings: Settings) -> tuple[Numbers, Numbers]:
    """Numbers enough to tell noise of half the size, but for odds of 1e-6."""
    return single_numbers(settings, 300)


def odds_of_single_numbers(settings: Settings, numbers: Numbers, counts: Numbers) -> float:
    """The odds of the shape of numbers with noise of their own."""
    mechanism = independent(settings)
    return shape_odds(numbers - counts, distribution_of(mechanism), noise_std(mechanism))


def stream_outputs(counts: Sequence[int], fault: Fault = honest) -> Numbers:
    """The outputs of the default stream on days with these counts."""
    with opened(DEFAULT, fault) as store:
        return StreamInterval(DEFAULT).outputs(counts, store)


@cache
def honest_outputs() -> Numbers:
    return stream_outputs(SHE_COMES)


def odds_of_stream(outputs: Numbers, counts: Sequence[int]) -> float:
    """The lesser of the spread's and the shape's of what a stream's outputs are off by."""
    mechanism = StreamInterval(DEFAULT).mechanism
    values = (outputs - np.convolve(counts, mechanism.filter)[: len(counts)]) / mechanism.sigma
    return min(spread_odds(float((values**2).sum()), len(values)), shape_odds(values, ndtr, 1.0))


def independent(settings: Settings) -> Gaussian | Laplace:
    mechanism = mechanism_for(settings, "dau", START)
    assert isinstance(mechanism, Gaussian | Laplace)
    return mechanism


def check_months(months: list[Numbers], odds: float) -> None:
    """Each of five tests goes wrong with these odds."""
    assert odds_of_months(months) > odds
    of_days, of_months = within_a_month(months, SHARED, odds), across_months(months, SHARED, odds)
    assert of_days.predicted == pytest.approx(0.113, abs=5e-4)
    assert 0 < of_days.low < of_days.found < of_days.high
    assert of_months.low < of_months.found < of_months.high


def test_a_months_numbers_are_off_by_the_noise_that_was_priced_and_correlated_as_the_contract_says() -> None:
    """Days of a month by 0.113, of different months not at all. A false alarm has odds of 1e-6, all tests together."""
    check_months(honest_months(), EACH)


@pytest.mark.slow
def test_many_months_are_off_by_the_noise_that_was_priced_and_correlated_as_the_contract_says() -> None:
    """A false alarm has odds of 1e-6, all tests together."""
    check_months(months_of_noise(LONG_MONTHS[: at_length(ci=30, soak=300)]), EACH)


@pytest.mark.parametrize("settings", [GAUSSIAN, LAPLACE])
def test_single_numbers_are_off_by_the_noise_that_was_priced(settings: Settings) -> None:
    """A false alarm has odds of 1e-6."""
    assert odds_of_single_numbers(settings, *honest_numbers(settings)) > EACH


def test_a_streams_outputs_are_off_by_the_noise_that_was_priced() -> None:
    """A false alarm has odds of 1e-6, both tests together."""
    assert odds_of_stream(honest_outputs(), SHE_COMES) > EACH


def test_half_the_noise_of_months_and_streams_is_caught_by_the_residuals() -> None:
    """Missed by chance with odds below 1e-6: variances are a quarter of what was priced."""
    assert odds_of_months(months_of_noise(LONG_MONTHS[:2], faults.half_noise)) < EACH
    she_stays = [1] * 120
    assert odds_of_stream(stream_outputs(she_stays, faults.half_noise), she_stays) < EACH


@pytest.mark.parametrize(("settings", "months"), [(GAUSSIAN, 200), pytest.param(LAPLACE, 300, marks=pytest.mark.slow)])
def test_half_the_noise_of_single_numbers_is_caught_by_the_residuals(settings: Settings, months: int) -> None:
    """Missed by chance with odds below 1e-6."""
    assert odds_of_single_numbers(settings, *single_numbers(settings, months, faults.half_noise)) < EACH


def test_noise_that_revisions_have_in_common_is_caught_by_their_differences() -> None:
    """Never missed: two revisions of an unchanged count are the same."""
    months = months_of_noise(LONG_MONTHS[:1], faults.noise_of_the_day)
    assert revision_odds(months, SHARED) < EACH


# --- The lattice -------------------------------------------------------------------------------------------------


def numbers_of(settings: Settings, count: int) -> Numbers:
    """What was published of days with 0 users or with 1."""
    if settings.dau_mechanism == "gaussian_shared":
        seen = np.tile(SharedMonth(settings).seen(LONG_MONTHS[0]), (len(honest_months()), 1))
        return np.concatenate(honest_months())[seen == bool(count)] + count
    numbers, counts = honest_numbers(settings)
    return numbers[counts == count]


@pytest.mark.parametrize("settings", [DEFAULT, GAUSSIAN, LAPLACE])
@pytest.mark.parametrize("count", [0, 1])
def test_the_last_bit_of_a_number_tells_nothing_of_its_count(settings: Settings, count: int) -> None:
    """All numbers lie on one lattice, and are as often odd on it as the noise says. False alarm: 1e-6."""
    mechanism = mechanism_for(settings, "dau", LONG_MONTHS[0])
    numbers, step = numbers_of(settings, count), Fraction(1, 2 if settings is DEFAULT else 1)
    assert finest_step(numbers) == step
    assert last_bit_odds(numbers, step, share_odd(mechanism, count)) > FEW


@pytest.mark.parametrize("count", [0, 1])
def test_a_streams_outputs_are_integers_as_often_odd_as_even(count: int) -> None:
    """False alarm: 1e-6."""
    outputs = honest_outputs()[np.array(SHE_COMES) == count]
    assert np.abs(outputs - outputs.round()).max() < 1e-6
    assert last_bit_odds(outputs.round(), Fraction(1), share_odd(StreamInterval(DEFAULT).mechanism, count)) > FEW


def test_laplace_noise_in_floating_point_is_caught_by_the_last_bits() -> None:
    """Never missed. Counts 0 and 1 even have lattices of their own, so that most numbers give the count away."""
    numbers, counts = single_numbers(LAPLACE, 200, faults.float_laplace)
    without, with_her = (finest_step(numbers[counts == count]) for count in (0, 1))
    assert without < with_her < 1


# --- The path ----------------------------------------------------------------------------------------------------


def test_publishing_and_restating_real_events_go_through_the_path_that_is_audited_here(
    make_store: Callable[..., Store],
) -> None:
    """What they publish was committed with the exact counts, and is off by the noise that was priced.

    A false alarm has odds of 1e-6.
    """
    store, january = make_store(), days_between(START, month_end(START))
    days = days_between(START, date(2025, 2, 3))
    put(store, [*(("bob", day) for day in days), *(("her", day) for day in days[:17])])
    prepare(store, days)
    committed = {}

    def recording(statistics: dict, watermark: int, store: Store) -> object:
        committed.update({key: statistic.statistic for key, statistic in statistics.items()})
        return commit(statistics, watermark, store)

    commit = release.commit
    with patch.object(release, "commit", recording):
        releases = [*(release.publish("dau", day, store) for day in days), *release.restate(START, store)]
    assert [committed[release_made.key] for release_made in releases] == [2] * 17 + [1] * 17 + [2] * 17 + [1] * 14
    assert store.accountant.charges("dau", START)[0].mechanism == SHARED
    in_january = [release_made for release_made in releases if release_made.key.day in january]
    residuals = np.array([release_made.noisy_value - committed[release_made.key] for release_made in in_january])
    assert spread_odds(float((standardised(residuals, SHARED) ** 2).sum()), len(residuals)) > FEW
