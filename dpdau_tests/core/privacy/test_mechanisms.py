"""The mechanisms against constants of the privacy contract, an exhaustive view of one user, and other libraries."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from itertools import combinations, islice, product

import numpy as np
import pytest
from _pytest.mark.structures import ParameterSet
from dp_accounting.pld.privacy_loss_distribution import from_discrete_gaussian_mechanism
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.special import ndtri_exp

from dpdau_assets.core.dates import days_between, month_end, months_from, window
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.privacy import mechanisms
from dpdau_assets.core.privacy.cost_so_far import (
    output_sensitivity,
    shared_mu2_so_far,
    stream_mu2_so_far,
    stream_outputs,
)
from dpdau_assets.core.privacy.mechanisms import (
    Gaussian,
    Laplace,
    NoiseWidth,
    SharedNoise,
    SharedNoiseByMargin,
    Stream,
    delta_of,
    discrete_mu,
    eps_of,
    half_width_95,
    independent_gaussian,
    independent_mu,
    independent_number,
    longest_interval,
    mechanism_from_json,
    mu_of,
    noise_std,
    noise_width,
    shared_mu2,
    shared_noise,
    shared_number,
    stream,
    stream_number,
    stream_output,
)
from dpdau_assets.core.privacy.stream_filters import STREAM_FILTER, interval_sensitivity2
from dpdau_tests.support.lengths import LENGTH, at_length
from dpdau_tests.support.project import PROJECT

DELTA = 1e-6
MARGIN = 1.001  # PRIVACY 2: both sigmas of a shared month are larger by this factor
MAU = stream(30, 3.5, DELTA)
STREAMS = {window_days: stream(window_days, 3.5, DELTA) for window_days in (30, 45, 60, 90)}
RESTATED = shared_noise(62, 3.0, DELTA)
REFERENCE = PROJECT.parent / "shared" / "reference" / "privacy_reference.py"


def some_in_ci(*values: float) -> list[ParameterSet]:
    """More of the same, not in `make test`."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


# --- The Gaussian curve ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eps", "delta", "mu"),
    [  # 20 digits by mpmath with 50, from the curve's definition
        (0.3, 1e-6, 0.076968174975578856721),
        (0.5, 1e-6, 0.12410614903052813034),
        (3.0, 1e-6, 0.6477265306887304296),
        (3.5, 1e-6, 0.74383094452692499043),
        (0.01, 1e-6, 0.0032642362400687986974),
        (0.001, 1e-6, 0.00041041594735417444294),
        (20.0, 1e-6, 3.2353593068946385621),
        (3.0, 1e-3, 0.96408613471202487755),
        (1.0, 1e-12, 0.15248965124598128398),
    ],
)
def test_mu_agrees_with_fifty_digits_and_eps_inverts_it(eps: float, delta: float, mu: float) -> None:
    assert mu_of(eps, delta) == pytest.approx(mu, rel=1e-12)
    assert eps_of(mu, delta) == pytest.approx(eps, rel=1e-11)
    assert delta_of(mu, eps) == pytest.approx(delta, rel=1e-10)


def test_both_metrics_together_have_the_mu_and_epsilon_of_the_contract() -> None:
    joint = math.hypot(mu_of(3.0, DELTA), mu_of(3.5, DELTA))  # PRIVACY 1
    assert (round(joint, 5), round(eps_of(joint, DELTA), 3)) == (0.98632, 4.811)


def test_no_noise_in_the_sum_costs_nothing() -> None:
    assert delta_of(0.0, 1.0) == 0.0
    assert eps_of(0.0, DELTA) == 0.0


def test_delta_stays_finite_far_out() -> None:
    assert delta_of(60.0, 0.0) == pytest.approx(1.0)
    assert delta_of(0.001, 200.0) == 0.0
    assert 0 < delta_of(60.0, 2000.0) < 1


# --- Calibration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("releases", "sigma_day", "sigma_month", "std"),
    [(31, 9.3359, 3.9566, 5.07), (62, 12.9052, 4.5991, 6.85)],  # PRIVACY 2, table, before the factor 1.001
)
def test_a_shared_month_has_the_sigmas_of_the_contract(
    releases: int, sigma_day: float, sigma_month: float, std: float
) -> None:
    month = shared_noise(releases, 3.0, DELTA)
    assert month.sigma_day / MARGIN == pytest.approx(sigma_day, abs=5e-5)
    assert month.sigma_month / MARGIN == pytest.approx(sigma_month, abs=5e-5)
    assert noise_std(month) / MARGIN == pytest.approx(std, abs=5e-3)


def test_independent_noise_has_the_sigmas_of_the_contract() -> None:
    assert independent_gaussian(0.3, DELTA).sigma == pytest.approx(12.99, abs=5e-3)  # PRIVACY 6
    assert independent_gaussian(0.5, DELTA).sigma == pytest.approx(8.06, abs=5e-3)
    assert longest_interval(30) ** 0.5 / mu_of(3.5, DELTA) == pytest.approx(10.41, abs=5e-3)  # PRIVACY 3


@given(st.floats(0.01, 10), st.floats(1e-12, 1e-3))
@settings(derandomize=True, max_examples=100, deadline=None)
def test_independent_noise_would_keep_its_epsilon_if_it_were_continuous(eps: float, delta: float) -> None:
    assert 1 / independent_gaussian(eps, delta).sigma ** 2 <= mu_of(eps, delta) ** 2


@given(st.integers(1, 70), st.floats(0.01, 100), st.floats(1e-12, 1e-3))
@settings(derandomize=LENGTH != "soak", max_examples=at_length(test=60, ci=300, soak=2_000), deadline=None)
@pytest.mark.also_long
def test_a_shared_month_is_never_priced_above_the_cap_it_is_calibrated_for(
    releases: int, eps: float, delta: float
) -> None:
    month, whole = shared_noise(releases, eps, delta), mu_of(eps, delta) ** 2
    price = math.fsum([discrete_mu(month.sigma_day) ** 2] * releases + [discrete_mu(month.sigma_month) ** 2])
    assert shared_mu2(month) == pytest.approx(price, rel=1e-14)
    assert price <= whole
    assert price > whole * 0.998  # the rest is the margin's: 1/500 of noise so wide that it is as good as continuous


@pytest.mark.parametrize(
    ("releases", "eps"),
    [(28, 3.25), (31, 3.4), (62, 4.75), (31, 10.0), (28, 20.0)],
)
def test_noise_too_coarse_for_the_margin_is_as_much_larger_as_its_own_price_asks(releases: int, eps: float) -> None:
    month, whole = shared_noise(releases, eps, DELTA), mu_of(eps, DELTA) ** 2
    factor = month.sigma_month * math.sqrt(whole / (math.sqrt(releases) + 1))
    assert factor > MARGIN
    less = MARGIN / factor
    by_margin = replace(month, sigma_day=month.sigma_day * less, sigma_month=month.sigma_month * less)
    assert shared_mu2(by_margin) > whole
    assert whole * (1 - 1e-11) < shared_mu2(month) <= whole


def test_a_default_month_is_charged_what_its_own_noise_costs_and_a_hair_less_than_its_cap() -> None:
    assert eps_of(math.sqrt(shared_mu2(RESTATED)), DELTA) == pytest.approx(2.998, abs=5e-4)


def test_a_month_that_was_opened_under_the_price_of_the_margin_keeps_it() -> None:
    stored = {**shared_noise(31, 10.0, DELTA).to_json(), "version": 1}
    month = mechanism_from_json(stored)
    assert isinstance(month, SharedNoiseByMargin) and month.to_json() == stored
    assert shared_mu2(month) == MARGIN**2 * (31 / month.sigma_day**2 + 1 / month.sigma_month**2)
    assert shared_mu2(month) < shared_mu2(SharedNoise(31, month.sigma_day, month.sigma_month))
    assert month != SharedNoise(31, month.sigma_day, month.sigma_month)


def test_the_stream_is_the_one_of_the_contract() -> None:
    assert Stream(30, (1024, -505, -126, -64, -41, -30, -24, -22, -32), 4_431_150, 2829.99) == MAU
    assert MAU.sensitivity2 / MAU.sigma**2 <= mu_of(3.5, DELTA) ** 2


def test_the_stream_has_the_std_of_the_contract_on_its_first_day_and_for_ever() -> None:
    days = {1: 2.76, 7: 3.55, 30: 3.88, 120: 3.88, 20_000: 3.88}
    assert {day: round(noise_std(MAU, day), 2) for day in days} == days
    impulse = lfilter([1.0], np.array(STREAM_FILTER) / 1024, [1.0] + [0.0] * 500)
    assert noise_std(MAU, 501) == pytest.approx(MAU.sigma / 1024 * np.linalg.norm(impulse), rel=1e-12)
    daily_change = MAU.sigma / 1024 * np.linalg.norm(np.diff(impulse, prepend=0.0))
    assert daily_change == pytest.approx(3.1, abs=0.05)


def test_the_streams_noise_is_above_the_limit_that_no_stationary_gaussian_can_pass() -> None:
    assert 3.717 < noise_std(MAU, 10_000) < 1.05 * 3.717  # PRIVACY 3


def test_a_short_window_has_no_stream_and_the_refusal_says_why() -> None:
    with pytest.raises(Refused, match="gaps inside a month") as refused:
        stream(7, 3.5, DELTA)
    assert "MAU_MECHANISM=gaussian" in refused.value.remedy


@pytest.mark.parametrize("window_days", [30, 31, 45, 60, 75, 90, 120, 365])
def test_every_window_from_thirty_days_on_has_a_stream_that_keeps_its_cap(window_days: int) -> None:
    mechanism = stream(window_days, 3.5, DELTA)
    assert mechanism.window_days == window_days
    assert mechanism.sensitivity2 == interval_sensitivity2(mechanism.filter, 31 + window_days - 1)
    assert mechanism.sensitivity2 / mechanism.sigma**2 <= mu_of(3.5, DELTA) ** 2
    assert mechanism.sigma - math.sqrt(mechanism.sensitivity2) / mu_of(3.5, DELTA) < 0.01


@pytest.mark.parametrize("window_days", [30, 45, 60, 75, 90, 120, 365])
def test_in_the_long_run_a_stream_is_less_than_half_as_noisy_as_independent_numbers(window_days: int) -> None:
    independent = math.sqrt(longest_interval(window_days)) / mu_of(3.5, DELTA)
    assert noise_std(stream(window_days, 3.5, DELTA), 20_000) < independent / 2


def test_the_streams_of_sixty_and_ninety_days_have_the_std_that_they_were_tuned_to() -> None:
    days = (1, 20_000)
    assert [round(noise_std(STREAMS[60], day), 2) for day in days] == [2.82, 4.09]
    assert [round(noise_std(STREAMS[90], day), 2) for day in days] == [2.88, 4.26]


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference calculation is not part of this repository")
def test_the_reference_calculation_agrees() -> None:
    spec = importlib.util.spec_from_file_location("privacy_reference", REFERENCE)
    assert spec and spec.loader
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for eps, releases in ((0.3, 28), (1.0, 31), (3.0, 62), (3.5, 60)):
        assert mu_of(eps, DELTA) == pytest.approx(reference.mu_of(eps, DELTA), rel=1e-11)
        day, month, std = reference.dau_noise(releases, eps, DELTA)
        ours = shared_noise(releases, eps, DELTA)
        assert (ours.sigma_day, ours.sigma_month) == pytest.approx((MARGIN * day, MARGIN * month), rel=1e-10)
        assert noise_std(ours) == pytest.approx(MARGIN * std, rel=1e-9)
        for published in range(releases + 1):
            day, month = 1 / discrete_mu(ours.sigma_day), 1 / discrete_mu(ours.sigma_month)
            spent = reference.dau_mu2_so_far(published, day, month)
            assert shared_mu2_so_far(published, ours) == pytest.approx(spent, rel=1e-12)
    for longest in (1, 8, 9, 30, 60, 90):
        for each in STREAMS.values():
            assert interval_sensitivity2(each.filter, longest) == reference.stream_sensitivity2(each.filter, longest)
    for day in (1, 2, 9, 30, 1000):
        assert noise_std(MAU, day) == pytest.approx(reference.stream_std(STREAM_FILTER, MAU.sigma, day), rel=1e-12)


# --- The discrete noise as another library prices it -------------------------------------------------------------


def pld_epsilon(month: SharedNoise, factor: float, tight: bool) -> float:
    """dp-accounting's upper bound for the independent noises behind a month; `tight` rounds losses more closely."""
    day, whole = (
        from_discrete_gaussian_mechanism(sigma * factor, value_discretization_interval=1e-4, use_connect_dots=tight)
        for sigma in (month.sigma_day, month.sigma_month)
    )
    return day.self_compose(month.releases).compose(whole).get_epsilon_for_delta(DELTA)


def test_a_month_of_discrete_noise_keeps_its_guarantee_by_another_accountant() -> None:
    assert pld_epsilon(RESTATED, 1.0, tight=False) == pytest.approx(2.9998, abs=5e-5)  # PRIVACY 2
    assert pld_epsilon(RESTATED, 1.0, tight=True) < 3.0


def test_without_the_margin_the_discrete_noise_would_cost_more_than_stated() -> None:
    assert pld_epsilon(RESTATED, 1 / MARGIN, tight=False) == pytest.approx(3.0031, abs=5e-5)  # PRIVACY 2
    assert pld_epsilon(RESTATED, 1 / MARGIN, tight=True) > 3.0


@pytest.mark.parametrize(("releases", "eps"), [(28, 0.3), (31, 1.0), (28, 5.0), (62, 10.0)])
def test_other_months_and_caps_keep_their_guarantee_too(releases: int, eps: float) -> None:
    assert pld_epsilon(shared_noise(releases, eps, DELTA), 1.0, tight=True) <= eps


def pld_epsilon_of_independent(sigma: float, numbers: int) -> float:
    """The tightest upper bound that dp-accounting has for so many numbers with discrete Gaussian noise."""
    loss = from_discrete_gaussian_mechanism(sigma, value_discretization_interval=1e-4, use_connect_dots=True)
    return loss.self_compose(numbers).get_epsilon_for_delta(DELTA)


@pytest.mark.parametrize("cap", [1.0, 3.0, 10.0, *some_in_ci(6.0, 7.0, 8.0, 9.0)])
@pytest.mark.parametrize("each", [0.1, 0.3, 0.5])
def test_as_many_independent_numbers_as_a_cap_admits_cost_no_more_than_it(each: float, cap: float) -> None:
    sigma = independent_gaussian(each, DELTA).sigma
    admitted = int(mu_of(cap, DELTA) ** 2 / independent_mu(sigma) ** 2)
    priced = eps_of(math.sqrt(admitted) * independent_mu(sigma), DELTA)
    assert pld_epsilon_of_independent(sigma, admitted) <= priced <= cap


@pytest.mark.parametrize("numbers", [1, 10, *some_in_ci(2, 3, 5)])
@pytest.mark.parametrize("each", [0.5, 1.0, 3.0, 10.0, *some_in_ci(0.7, 1.5, 2.0, 4.0, 6.0)])
def test_coarse_noise_is_priced_for_its_coarseness(each: float, numbers: int) -> None:
    sigma = independent_gaussian(each, DELTA).sigma
    priced = eps_of(math.sqrt(numbers) * discrete_mu(sigma), DELTA)
    assert pld_epsilon_of_independent(sigma, numbers) <= priced


def test_without_its_coarseness_one_number_of_epsilon_three_would_cost_more_than_stated() -> None:
    sigma = independent_gaussian(3.0, DELTA).sigma
    assert pld_epsilon_of_independent(sigma, 1) == pytest.approx(3.047, abs=5e-4)
    assert eps_of(MARGIN / sigma, DELTA) == pytest.approx(3.003, abs=5e-4)
    assert eps_of(discrete_mu(sigma), DELTA) == pytest.approx(3.061, abs=5e-4)


@pytest.mark.parametrize("sigma", np.geomspace(0.1, 60, at_length(test=25, ci=100, soak=1_000)).tolist())
@pytest.mark.also_long
def test_no_step_of_the_noises_trade_off_curve_is_steeper_than_its_price(sigma: float) -> None:
    """Between neighbouring counts, each threshold's two errors are those of Gaussians at most this μ apart."""
    x = np.arange(-math.ceil(40 * sigma) - 3, 1)
    log_weights = -((x / sigma) ** 2) / 2
    below = np.logaddexp.accumulate(log_weights) - math.log(2 * np.exp(log_weights).sum() - 1)
    scores = ndtri_exp(below[(below > -300) & (x < 0)])  # of thresholds from -1 down; those above mirror them
    steps = np.append(np.diff(scores), -2 * scores[-1])
    assert steps.max() == pytest.approx(discrete_mu(sigma), rel=1e-11)
    assert steps[-1] == pytest.approx(discrete_mu(sigma), rel=1e-11)  # the steepest is the one in the middle


@pytest.mark.parametrize(
    ("sigma", "mu"),
    [  # 20 digits by mpmath with 50, from 2Φ⁻¹((1 + P(0)) / 2)
        (0.3, 5.3323023716603167525),
        (1.54, 0.66120019867827373236),
        (4.6, 0.21782115403727824032),
        (12.99, 0.077001313024864262838),
        (50, 0.020000333345000503992),
        (3000, 0.00033333333487654322488),
    ],
)
def test_the_mu_of_one_discrete_number_agrees_with_fifty_digits(sigma: float, mu: float) -> None:
    assert discrete_mu(sigma) == pytest.approx(mu, rel=1e-13)


def test_from_sigma_six_and_a_half_on_the_price_is_one_thousandth_above_the_continuous_one() -> None:
    for sigma in (6.5, 8.06, 12.99, 1e6):
        assert independent_mu(sigma) == MARGIN / sigma > discrete_mu(sigma)
    for sigma in (0.3, 1.54, 6.499):
        assert independent_mu(sigma) == discrete_mu(sigma)
    assert discrete_mu(6.499) == pytest.approx(MARGIN / 6.499, rel=2e-5)
    assert discrete_mu(0.01) == 200.0


# --- Facts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", [RESTATED, MAU, Gaussian(12.99), Laplace(Fraction(3, 10))])
def test_a_stored_mechanism_comes_back_as_it_was(mechanism: mechanisms.Mechanism) -> None:
    assert mechanism_from_json(json.loads(json.dumps(mechanism.to_json()))) == mechanism


def test_epsilon_is_stored_exactly_and_read_as_fraction_or_decimal() -> None:
    stored = Laplace(Fraction(3, 10)).to_json()
    assert stored == {"kind": "laplace", "version": 1, "epsilon": "3/10"}
    assert mechanism_from_json({**stored, "epsilon": "0.3"}) == Laplace(Fraction(3, 10))


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"kind": "uniform", "version": 1, "sigma": 1.0},
        {"kind": "gaussian", "version": 2, "sigma": 1.0},
        {"kind": "gaussian", "version": 1},
        {"kind": "gaussian", "version": 1, "sigma": 1.0, "mean": 3},
    ],
)
def test_an_unknown_stored_mechanism_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(Refused, match="not known"):
        mechanism_from_json(facts)


@pytest.mark.parametrize("epsilon", [Fraction(3, 10), Fraction(1, 2), Fraction(3, 310), Fraction(7, 3), Fraction(1, 3)])
def test_a_laplace_scale_never_costs_more_than_its_epsilon(epsilon: Fraction) -> None:
    assert 1 / Fraction(Laplace(epsilon).scale) <= epsilon
    assert Laplace(epsilon).scale == pytest.approx(float(1 / epsilon), rel=1e-15)


# --- One user's month in the published statistics ----------------------------------------------------------------

MONTHS = [date(2024, 2, 1), date(2025, 2, 1), date(2025, 1, 1), date(2024, 12, 1), date(2025, 3, 1), date(2025, 4, 1)]
OFFSETS = st.sampled_from([*range(31), 27, 28, 29, 30, 30, 0, 0])


@st.composite
def user_histories(draw: st.DrawFn, months: int = 1) -> tuple[Stream, date, date, frozenset[date], frozenset[date]]:
    """(stream, first and last day taken out, active days with them, without): walks whose gaps are about a window."""
    mechanism = draw(st.sampled_from([*STREAMS.values(), MAU]))
    window_days = mechanism.window_days
    first_out = draw(st.sampled_from(MONTHS))
    last_out = list(islice(map(month_end, months_from(first_out)), months))[-1]
    begin, end = first_out - timedelta(days=2 * window_days + 15), last_out + timedelta(days=2 * window_days + 15)
    near = [window_days - 2, window_days - 1, window_days, window_days + 1, window_days + 2]
    gaps = draw(st.lists(st.sampled_from([1, 2, 7, 30, 45, *near]), max_size=40))
    walk, active = begin + timedelta(days=draw(st.integers(0, window_days))), set()
    for gap in gaps:
        active |= {walk} if walk <= end else set()
        walk += timedelta(days=gap)
    days = {first_out + timedelta(days=offset) for offset in draw(st.sets(OFFSETS, min_size=1, max_size=31))}
    inside = set(days_between(first_out, last_out))
    outside = frozenset(active - inside)
    return mechanism, first_out, last_out, outside | ((days | active) & inside), outside


def window_bits(active: frozenset[date], first: date, days: int, window_days: int) -> list[int]:
    """Whether the user is in the window that ends on each day."""
    seen = np.zeros(days + window_days)
    for day in active:
        seen[(day - first).days + window_days] = 1
    ends = np.cumsum(seen)
    return [int(ends[n + window_days] > ends[n]) for n in range(days)]


def stream_change(mechanism: Stream, first_out: date, with_it: frozenset[date], without: frozenset[date]) -> list[int]:
    """The change of M day by day, from before the first day that is taken out."""
    first, days = first_out - timedelta(days=3 * mechanism.window_days), 12 * mechanism.window_days
    bits = (window_bits(active, first, days, mechanism.window_days) for active in (with_it, without))
    return [a - b for a, b in zip(*bits, strict=True)]


def filtered_square(mechanism: Stream, change: list[int]) -> int:
    """‖D ∗ change‖², tail included."""
    order = len(mechanism.filter)
    longer = [*change, *[0] * order]
    recent = (longer[max(0, n + 1 - order) : n + 1] for n in range(len(longer)))
    return sum(stream_output(mechanism, counts, 0) ** 2 for counts in recent)


@given(user_histories())
@settings(derandomize=LENGTH != "soak", max_examples=at_length(test=60, ci=600, soak=2_000), deadline=None)
@pytest.mark.also_long
def test_a_user_month_changes_the_stream_on_one_interval_and_dau_by_one_a_day(
    history: tuple[Stream, date, date, frozenset[date], frozenset[date]],
) -> None:
    mechanism, month, end, with_month, without = history
    change = stream_change(mechanism, month, with_month, without)
    assert set(change) <= {0, 1}  # one sign
    changed = [n for n, bit in enumerate(change) if bit]
    assert changed == list(range(changed[0], changed[0] + len(changed))) if changed else True  # one interval
    assert len(changed) <= longest_interval(mechanism.window_days)
    assert filtered_square(mechanism, change) <= mechanism.sensitivity2
    assert {day for day in with_month ^ without if day < month or day > end} == set()  # DAU: 1 a day


def test_whenever_she_comes_a_short_month_of_hers_changes_a_short_windows_stream_on_one_interval() -> None:
    """All of it, for months of three days and windows of three: whatever of her is before, in and after the month."""
    month, mechanism = [date(2025, 1, 5) + timedelta(days=n) for n in range(3)], replace(MAU, window_days=3)
    around = [month[0] + timedelta(days=n) for n in (-3, -2, -1, 3, 4, 5)]
    longest = set()
    for inside, store in product(subsets(month), subsets(around)):
        change = stream_change(mechanism, month[0], inside | store, store)
        changed = [n for n, bit in enumerate(change) if bit]
        assert set(change) <= {0, 1} and (not changed or changed == list(range(changed[0], changed[-1] + 1)))
        longest.add(len(changed))
        assert filtered_square(mechanism, change) <= interval_sensitivity2(mechanism.filter, 5)
    assert longest == set(range(6))


def subsets(days: list[date]) -> list[frozenset[date]]:
    return [frozenset(chosen) for size in range(len(days) + 1) for chosen in combinations(days, size)]


@given(st.sampled_from([2, 3]).flatmap(lambda months: st.tuples(st.just(months), user_histories(months))))
@settings(derandomize=LENGTH != "soak", max_examples=at_length(test=40, ci=300, soak=2_000), deadline=None)
@pytest.mark.also_long
def test_k_months_of_a_user_change_the_stream_by_at_most_root_k_of_its_sensitivity(
    drawn: tuple[int, tuple[Stream, date, date, frozenset[date], frozenset[date]]],
) -> None:
    months, (mechanism, first_out, _, with_them, without) = drawn
    change = stream_change(mechanism, first_out, with_them, without)
    assert set(change) <= {0, 1}
    assert filtered_square(mechanism, change) <= months * mechanism.sensitivity2


def test_the_first_and_last_day_of_a_long_month_attain_the_sensitivity_exactly() -> None:
    january = date(2025, 1, 1)
    for window_days, mechanism in STREAMS.items():
        change = stream_change(mechanism, january, frozenset({january, date(2025, 1, 31)}), frozenset())
        assert (sum(change), filtered_square(mechanism, change)) == (30 + window_days, mechanism.sensitivity2)
    assert MAU.sensitivity2 == 4_431_150


def test_a_seven_day_window_would_leave_gaps_that_the_streams_noise_does_not_cover() -> None:
    january = date(2025, 1, 1)
    active = {january + timedelta(days=n) for n in (0, 10, 20, 30)}
    days = days_between(january, date(2025, 3, 1))
    change = [int(not active.isdisjoint(window(day, 7))) for day in days]
    cost = sum(stream_output(MAU, change[: n + 1], 0) ** 2 for n in range(len(change)))
    assert eps_of(math.sqrt(cost) / MAU.sigma, DELTA) == pytest.approx(5.2, abs=0.05)  # PRIVACY 3.6, for a stated 3.5


# --- Release arithmetic ------------------------------------------------------------------------------------------

COUNTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=50)


@given(COUNTS)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_without_noise_the_stream_publishes_the_statistic_exactly(counts: list[int]) -> None:
    published: list[float] = []
    for n in range(len(counts)):
        output = stream_output(MAU, counts[: n + 1], 0)
        published.append(stream_number(MAU, output, published))
    assert published == counts


@given(COUNTS, st.data())
@settings(derandomize=True, max_examples=100, deadline=None)
def test_the_filter_applied_to_the_published_numbers_gives_the_outputs_back(
    counts: list[int], data: st.DataObject
) -> None:
    draws = data.draw(st.lists(st.integers(-15_000, 15_000), min_size=len(counts), max_size=len(counts)))
    outputs = [stream_output(MAU, counts[: n + 1], draw) for n, draw in enumerate(draws)]
    published: list[float] = []
    for output in outputs:
        published.append(stream_number(MAU, output, published))
    # floats of about 1e9 have steps of 1e-7, and eight weights of up to 1024 add up
    assert np.convolve(STREAM_FILTER, published)[: len(outputs)] == pytest.approx(outputs, rel=1e-12, abs=1e-2)


def test_a_stream_output_is_an_exact_integer_however_large() -> None:
    assert stream_output(MAU, [10**30, 1], 5) == 1024 - 505 * 10**30 + 5


def test_shared_and_independent_numbers_are_the_count_and_its_draws() -> None:
    assert shared_number(100, 3, -8) == 97.5
    assert independent_number(100, -8) == 92.0


# --- The noise of a published number -----------------------------------------------------------------------------


def gaussian_probabilities(sigma: float) -> dict[int, float]:
    """Straight from the definition."""
    weights = {x: math.exp(-(x**2) / (2 * sigma**2)) for x in range(-math.ceil(15 * sigma), math.ceil(15 * sigma) + 1)}
    whole = math.fsum(weights.values())
    return {x: weight / whole for x, weight in weights.items()}


def is_least_covering(distribution: dict[float, float], width: float, step: float) -> bool:
    """Whether `width` holds 95 % and one step less does not."""

    def within(h: float) -> float:
        return math.fsum(p for x, p in distribution.items() if abs(x) <= h + 1e-9)

    return within(width) >= 0.95 > within(width - step)


@pytest.mark.parametrize("month", [RESTATED, shared_noise(28, 3.0, DELTA), shared_noise(31, 20.0, DELTA)])
def test_the_interval_of_a_shared_month_is_the_least_that_covers(month: SharedNoise) -> None:
    distribution: dict[float, float] = {}
    for x, p in gaussian_probabilities(month.sigma_day).items():
        for y, q in gaussian_probabilities(month.sigma_month).items():
            distribution[(x + y) / 2] = distribution.get((x + y) / 2, 0.0) + p * q
    assert is_least_covering(distribution, half_width_95(month), 0.5)
    variance = math.fsum(p * x * x for x, p in distribution.items())
    assert noise_std(month) == pytest.approx(math.sqrt(variance), rel=1e-9)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 8.06, 12.99])
def test_the_interval_of_an_independent_gaussian_is_the_least_that_covers(sigma: float) -> None:
    distribution = {float(x): p for x, p in gaussian_probabilities(sigma).items()}
    assert is_least_covering(distribution, half_width_95(Gaussian(sigma)), 1)
    assert noise_std(Gaussian(sigma)) == pytest.approx(math.sqrt(sum(p * x * x for x, p in distribution.items())))


@pytest.mark.parametrize("epsilon", [Fraction(3, 310), Fraction(3, 10), Fraction(1, 2), Fraction(3), Fraction(9)])
def test_the_interval_of_laplace_noise_is_the_least_that_covers(epsilon: Fraction) -> None:
    reach = math.ceil(60 / epsilon)
    weights = {float(x): math.exp(-abs(x) * float(epsilon)) for x in range(-reach, reach + 1)}
    whole = math.fsum(weights.values())
    distribution = {x: weight / whole for x, weight in weights.items()}
    assert is_least_covering(distribution, half_width_95(Laplace(epsilon)), 1)
    variance = math.fsum(p * x * x for x, p in distribution.items())
    assert noise_std(Laplace(epsilon)) == pytest.approx(math.sqrt(variance), rel=1e-6)


def smooth_coverage(distribution: dict[float, float], width: float, step: float) -> float:
    """What of the noise lies within `width` if each of its values is spread evenly over its step."""
    inside = ((p, min(x + step / 2, width) - max(x - step / 2, -width)) for x, p in distribution.items())
    return math.fsum(p * max(0.0, length) / step for p, length in inside)


@pytest.mark.parametrize("mechanism", [Gaussian(12.99), Gaussian(0.3), RESTATED, Laplace(Fraction(3, 10))])
def test_the_smooth_width_holds_95_percent_of_noise_that_is_spread_over_its_steps(
    mechanism: Gaussian | SharedNoise | Laplace,
) -> None:
    match mechanism:
        case SharedNoise():
            day, whole = map(gaussian_probabilities, (mechanism.sigma_day, mechanism.sigma_month))
            both = np.convolve(list(day.values()), list(whole.values()))
            distribution = {(n - len(both) // 2) / 2: float(p) for n, p in enumerate(both)}
        case Gaussian(sigma):
            distribution = {float(x): p for x, p in gaussian_probabilities(sigma).items()}
        case Laplace(epsilon):
            whole = 1 / math.tanh(float(epsilon) / 2)
            distribution = {float(x): math.exp(-abs(x) * float(epsilon)) / whole for x in range(-300, 301)}
    width = noise_width(mechanism, half_width_95(mechanism))
    assert width.half_width == half_width_95(mechanism)
    assert abs(width.smooth - width.half_width) <= width.step / 2
    assert smooth_coverage(distribution, width.smooth, width.step) == pytest.approx(0.95, abs=1e-9)


def test_the_steps_of_a_streams_noise_are_too_small_to_see() -> None:
    assert noise_width(MAU, 7.6) == NoiseWidth(7.6, 7.6, 0.0)


def test_the_interval_of_a_stream_widens_from_its_first_day_to_its_steady_width() -> None:
    assert [round(half_width_95(MAU, day), 2) for day in (1, 30, 20_000)] == [5.42, 7.6, 7.61]  # 1.96 times the std


# --- Spent so far ------------------------------------------------------------------------------------------------


def test_a_months_cost_grows_with_its_numbers_to_the_whole_price() -> None:
    spent = [eps_of(math.sqrt(shared_mu2_so_far(n, RESTATED)), DELTA) for n in range(63)]
    assert [spent[n] for n in (0, 1, 31, 62)] == pytest.approx([0.0, 0.595, 2.17, 3.0], abs=2e-3)  # PRIVACY 2
    assert spent == sorted(spent)
    assert shared_mu2(RESTATED) * 0.9999 < shared_mu2_so_far(62, RESTATED) <= shared_mu2(RESTATED)


@given(st.integers(1, 70), st.floats(0.1, 60))
@settings(derandomize=LENGTH != "soak", max_examples=at_length(test=10, ci=200, soak=2_000), deadline=None)
@pytest.mark.also_long
def test_at_any_cap_no_month_has_spent_more_than_it_was_charged(releases: int, eps: float) -> None:
    month = shared_noise(releases, eps, DELTA)
    for mechanism in (month, SharedNoiseByMargin(releases, month.sigma_day, month.sigma_month)):
        spent = [shared_mu2_so_far(n, mechanism) for n in sorted({0, 1, releases // 2, releases})]
        assert spent == sorted(spent)
        assert 0 < spent[-1] <= shared_mu2(mechanism)


JANUARY = date(2025, 1, 1)
LONG_AGO = date(2024, 1, 30)


def slow_stream_mu2(mechanism: Stream, month: date, first_day: date, last_published: date) -> float:
    """By listing every interval that the month can change, and every published output."""
    start, end = max(month, first_day), month_end(month) + timedelta(days=mechanism.window_days - 1)
    published = days_between(first_day, last_published)
    most = 0
    for a in days_between(start, end):
        for b in days_between(a, end):
            bits = [int(a <= day <= b) for day in published]
            most = max(most, int((np.convolve(mechanism.filter, bits)[: len(bits)] ** 2).sum()) if bits else 0)
    return most / mechanism.sigma**2


@pytest.mark.parametrize(
    ("window_days", "month", "first_day", "last_published"),
    [
        (30, JANUARY, date(2024, 12, 20), date(2025, 1, 1)),
        (30, JANUARY, date(2024, 12, 20), date(2025, 1, 17)),
        (30, JANUARY, date(2025, 1, 30), date(2025, 2, 3)),
        (30, JANUARY, date(2025, 1, 30), date(2025, 3, 20)),
        (30, date(2025, 2, 1), date(2025, 1, 30), date(2025, 3, 31)),
        (30, date(2025, 2, 1), date(2025, 1, 30), date(2025, 4, 30)),
        (60, JANUARY, date(2025, 1, 30), date(2025, 3, 10)),
        (90, JANUARY, date(2025, 1, 30), date(2025, 5, 30)),
    ],
)
def test_a_streams_cost_so_far_is_that_of_the_worst_interval(
    window_days: int, month: date, first_day: date, last_published: date
) -> None:
    mechanism = STREAMS[window_days]
    spent = stream_mu2_so_far(mechanism, month, first_day, last_published)
    assert spent == pytest.approx(slow_stream_mu2(mechanism, month, first_day, last_published), rel=1e-14)


def test_a_streams_cost_of_a_longer_window_ends_with_its_filters_reach() -> None:
    for window_days, mechanism in STREAMS.items():
        last = date(2025, 1, 31) + timedelta(days=window_days - 1 + len(mechanism.filter) - 1)
        whole = mechanism.sensitivity2 / mechanism.sigma**2
        assert stream_mu2_so_far(mechanism, JANUARY, LONG_AGO, last - timedelta(days=1)) < whole
        assert stream_mu2_so_far(mechanism, JANUARY, LONG_AGO, last) == whole


def test_a_stream_has_cost_a_month_nothing_before_it_is_read_and_the_whole_price_after_the_tail() -> None:
    whole = MAU.sensitivity2 / MAU.sigma**2
    assert stream_mu2_so_far(MAU, JANUARY, LONG_AGO, date(2024, 12, 31)) == 0.0
    assert stream_mu2_so_far(MAU, JANUARY, LONG_AGO, JANUARY) == 1024**2 / MAU.sigma**2
    assert stream_mu2_so_far(MAU, JANUARY, LONG_AGO, date(2025, 3, 8)) < whole
    assert stream_mu2_so_far(MAU, JANUARY, LONG_AGO, date(2025, 3, 9)) == whole
    assert stream_mu2_so_far(MAU, JANUARY, LONG_AGO, date(2026, 1, 1)) == whole


def test_a_streams_cost_never_falls_and_a_short_month_costs_less() -> None:
    days = days_between(date(2025, 2, 1), date(2025, 5, 1))
    spent = [stream_mu2_so_far(MAU, date(2025, 2, 1), LONG_AGO, day) for day in days]
    assert spent == sorted(spent)
    assert spent[-1] == interval_sensitivity2(STREAM_FILTER, 57) / MAU.sigma**2


def test_a_month_that_the_stream_never_read_costs_nothing() -> None:
    assert stream_mu2_so_far(MAU, JANUARY, date(2025, 3, 2), date(2025, 6, 1)) == 0.0
    assert stream_mu2_so_far(MAU, JANUARY, date(2025, 3, 1), date(2025, 6, 1)) > 0.0


def test_the_outputs_that_a_month_can_have_changed_are_its_windows_and_eight_days() -> None:
    assert stream_outputs(MAU, JANUARY, LONG_AGO, date(2024, 12, 31)) == 0
    assert stream_outputs(MAU, JANUARY, LONG_AGO, date(2025, 1, 10)) == 10
    assert stream_outputs(MAU, JANUARY, LONG_AGO, date(2026, 1, 1)) == 68
    assert stream_outputs(MAU, JANUARY, date(2025, 3, 2), date(2026, 1, 1)) == 0


def test_a_user_month_moves_a_single_output_by_at_most_the_filters_first_weight() -> None:
    assert {output_sensitivity(mechanism) for mechanism in STREAMS.values()} == {1024}
