"""Prices, admission and the budget summary, with the boundary counts of the privacy contract."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_discrete_laplace_mechanism
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from dpdau_assets.core import mechanisms
from dpdau_assets.core.accounting import (
    Budget,
    Charge,
    Cost,
    Published,
    admits,
    advanced_epsilon,
    budget_summary,
    charges_for_release,
    cost,
    cost_so_far,
    epsilon_of,
    fits,
    joint_epsilon,
    mu2,
    pure_rho,
    rho,
    total,
    zcdp_epsilon,
)
from dpdau_assets.core.errors import BudgetRefused
from dpdau_assets.core.mechanisms import Gaussian, Laplace, Mechanism, eps_of, independent_gaussian, mu_of
from dpdau_assets.core.settings import Settings

DELTA = 1e-6
JANUARY = date(2025, 1, 1)
DAU, MAU = Budget(Fraction(3), DELTA), Budget(Fraction(7, 2), DELTA)
LAPLACE_DAU, LAPLACE_MAU = Laplace(Fraction(3, 10)), Laplace(Fraction(1, 2))
GAUSSIAN_DAU, GAUSSIAN_MAU = independent_gaussian(0.3, DELTA), independent_gaussian(0.5, DELTA)
SHARED = mechanisms.shared_noise(62, 3.0, DELTA)
STREAM = mechanisms.stream(30, 3.5, DELTA)


def charged(mechanism: Mechanism, count: int = 1) -> list[Charge]:
    return [Charge("dau", JANUARY, f"release-{n}", mechanism) for n in range(count)]


def how_many_are_admitted(mechanism: Mechanism, budget: Budget) -> int:
    """One after another, until the first refusal."""
    made: list[Charge] = []
    while True:
        (new,) = charged(mechanism)
        try:
            admits(made, new, budget)
        except BudgetRefused:
            return len(made)
        made.append(new)


def published(mechanism: Mechanism, releases: int, last_day: date = JANUARY) -> Published:
    return Published(mechanism, releases, date(2024, 1, 30), last_day)


# --- Admission ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mechanism", "budget", "count"),
    [(LAPLACE_DAU, DAU, 10), (LAPLACE_MAU, MAU, 7), (GAUSSIAN_DAU, DAU, 70), (GAUSSIAN_MAU, MAU, 35)],  # PRIVACY 6
)
def test_a_cap_admits_exactly_as_many_releases_as_the_contract_says(
    mechanism: Mechanism, budget: Budget, count: int
) -> None:
    assert how_many_are_admitted(mechanism, budget) == count


@pytest.mark.parametrize(("mechanism", "budget"), [(SHARED, DAU), (STREAM, MAU)])
def test_a_cap_admits_the_instance_calibrated_for_it_once(mechanism: Mechanism, budget: Budget) -> None:
    assert how_many_are_admitted(mechanism, budget) == 1


@pytest.mark.parametrize("tenth", [1, 2, 3, 6, 7, 9, 11])
def test_equal_parts_of_a_cap_fill_it_without_rounding(tenth: int) -> None:
    budget = Budget(Fraction(tenth, 10), DELTA)
    assert how_many_are_admitted(Laplace(Fraction(tenth, 100)), budget) == 10


def test_a_refusal_says_what_was_spent_asked_and_capped() -> None:
    with pytest.raises(BudgetRefused, match="2025-01") as refused:
        admits(charged(LAPLACE_DAU, 10), charged(LAPLACE_DAU)[0], DAU)
    fields = refused.value.fields
    assert (fields["spent"], fields["asked"], fields["cap"]) == (3.0, 0.3, 3.0)
    assert fields["together"] == pytest.approx(3.3)
    assert (fields["metric"], fields["month"]) == ("dau", "2025-01")


def test_a_gaussian_refusal_speaks_in_epsilon_too() -> None:
    with pytest.raises(BudgetRefused) as refused:
        admits(charged(GAUSSIAN_DAU, 70), charged(GAUSSIAN_DAU)[0], DAU)
    fields = refused.value.fields
    assert fields["spent"] == pytest.approx(2.981, abs=1e-3)
    assert fields["asked"] == pytest.approx(0.3)
    assert fields["together"] == pytest.approx(3.005, abs=1e-3)


def test_charges_of_another_month_are_not_mixed_in() -> None:
    (new,) = charged(GAUSSIAN_DAU)
    with pytest.raises(ValueError, match="another"):
        admits([replace(new, month=date(2025, 2, 1))], new, DAU)


def test_a_mixed_month_is_never_priced_by_the_gaussian_curve() -> None:
    mixed = [*charged(GAUSSIAN_DAU, 60), *charged(Laplace(Fraction(1, 10)))]
    price = total(cost(charge.mechanism) for charge in mixed)
    by_gaussian_curve = eps_of(math.sqrt(2 * rho(price)), DELTA)
    assert by_gaussian_curve < epsilon_of(price, DELTA) == zcdp_epsilon(rho(price), DELTA)
    between = Budget(Fraction((by_gaussian_curve + epsilon_of(price, DELTA)) / 2), DELTA)
    with pytest.raises(BudgetRefused):
        admits(mixed[:-1], mixed[-1], between)
    admits(mixed[:-1], mixed[-1], Budget(Fraction(epsilon_of(price, DELTA)) + Fraction(1, 1000), DELTA))


def test_one_pure_release_into_a_month_that_its_gaussian_fills_is_refused() -> None:
    with pytest.raises(BudgetRefused):
        admits(charged(SHARED), charged(Laplace(Fraction(1, 1000)))[0], DAU)


@given(st.lists(st.sampled_from([LAPLACE_DAU, GAUSSIAN_DAU, GAUSSIAN_MAU, SHARED]), max_size=12), st.data())
@examples(derandomize=True, max_examples=100, deadline=None)
def test_admission_does_not_depend_on_the_order_of_charges(listed: list[Mechanism], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(listed))
    prices = [total(cost(mechanism) for mechanism in order) for order in (listed, shuffled)]
    assert prices[0] == prices[1]
    assert fits(prices[0], DAU) == fits(prices[1], DAU)


# --- Prices ------------------------------------------------------------------------------------------------------


def test_the_price_of_an_instance_is_the_mu_of_its_calibration() -> None:
    assert mu2(SHARED) == pytest.approx(0.647727**2 / 1.001**2, rel=1e-5)  # PRIVACY 1 and 2
    assert mu2(STREAM) == pytest.approx(0.743831**2, rel=1e-5)
    assert mu2(STREAM) <= mu_of(3.5, DELTA) ** 2
    assert mu2(Gaussian(2.0)) == 0.25


def test_rho_is_half_of_mu2_and_tanh_for_pure_releases() -> None:
    assert rho(cost(Gaussian(2.0))) == 0.125
    assert rho(cost(LAPLACE_DAU)) == pure_rho(0.3) == 0.3 * math.tanh(0.15)


def test_many_charges_cost_what_one_of_them_costs_times_their_number() -> None:
    for mechanism in (LAPLACE_DAU, GAUSSIAN_DAU):
        assert total([cost(mechanism)] * 37) == cost(mechanism).times(37)


def test_nothing_costs_nothing() -> None:
    assert epsilon_of(Cost(), DELTA) == 0.0
    assert fits(Cost(), DAU)


@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("rho", [1e-6, 1e-3, 0.05, 0.2, 1.0, 5.0, 50.0])
def test_the_zcdp_conversion_is_the_least_over_all_orders(rho: float, delta: float) -> None:
    def by_order(log: float) -> float:
        above_one = math.exp(log)
        alpha = 1 + above_one
        return alpha * rho + math.log(above_one / alpha) - (math.log(delta) + math.log(alpha)) / above_one

    found = minimize_scalar(by_order, bounds=(-10, 20), method="bounded", options={"xatol": 1e-10})
    least = float(found.fun)  # pyright: ignore[reportAttributeAccessIssue]
    ours = zcdp_epsilon(rho, delta)
    assert ours == pytest.approx(max(0.0, least), rel=1e-6, abs=1e-9)
    assert ours >= least - 1e-9


@pytest.mark.parametrize("rho", [0.01, 0.2, 1.0])
def test_the_zcdp_conversion_agrees_with_another_librarys_rdp_conversion(rho: float) -> None:
    orders = [1.05 + n / 200 for n in range(40_000)]
    theirs, _ = compute_epsilon(orders, [order * rho for order in orders], DELTA)
    assert zcdp_epsilon(rho, DELTA) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("rho", [0.01, 0.2, 1.0])
def test_the_zcdp_conversion_is_dearer_than_the_exact_gaussian_curve(rho: float) -> None:
    assert zcdp_epsilon(rho, DELTA) > eps_of(math.sqrt(2 * rho), DELTA)


# --- Which months a release is charged to ------------------------------------------------------------------------


def test_a_day_is_charged_to_its_own_month() -> None:
    assert charges_for_release("dau", date(2025, 1, 31), 1, SHARED, "i") == [Charge("dau", JANUARY, "i", SHARED)]


@pytest.mark.parametrize(
    ("day", "months"),
    [(date(2025, 1, 30), [1]), (date(2025, 2, 1), [1, 2]), (date(2025, 3, 1), [1, 2, 3]), (date(2024, 3, 1), [2, 3])],
)
def test_a_window_is_charged_to_every_month_it_reads(day: date, months: list[int]) -> None:
    charges = charges_for_release("mau", day, 30, STREAM, "i")
    assert [charge.month for charge in charges] == [date(day.year, month, 1) for month in months]


# --- Joint guarantee ---------------------------------------------------------------------------------------------


def test_both_metrics_together_cost_what_the_contract_says() -> None:
    assert joint_epsilon(Settings()) == pytest.approx(4.811, abs=5e-4)  # PRIVACY 1
    assert joint_epsilon(Settings(dau_mechanism="gaussian", mau_mechanism="gaussian")) == joint_epsilon(Settings())


def test_with_a_pure_metric_the_caps_add_up() -> None:
    assert joint_epsilon(Settings(dau_mechanism="laplace")) == 6.5
    assert joint_epsilon(Settings(dau_mechanism="laplace", mau_mechanism="laplace")) == 6.5
    small = Settings(dau_mechanism="laplace", dau_budget_total=Fraction(1, 10))
    assert 3.5 < joint_epsilon(small) <= 3.6


# --- Summary -----------------------------------------------------------------------------------------------------


def test_a_month_half_published_shows_what_its_numbers_have_cost_not_what_was_charged() -> None:
    summary = budget_summary([published(SHARED, 31)], JANUARY, DAU, 62, Settings())
    assert summary.epsilon_spent == pytest.approx(2.17, abs=5e-3)  # PRIVACY 2
    assert summary.epsilon_remaining == pytest.approx(0.83, abs=5e-3)
    assert (summary.epsilon_cap, summary.releases_made, summary.releases_planned) == (3.0, 31, 62)


@pytest.mark.parametrize(
    ("mechanism", "releases", "last_day"),
    [
        (SHARED, 62, JANUARY),
        (STREAM, 60, date(2025, 3, 9)),
        (LAPLACE_DAU, 10, JANUARY),
        (GAUSSIAN_DAU, 70, JANUARY),
    ],
)
def test_what_is_spent_never_exceeds_what_was_charged(mechanism: Mechanism, releases: int, last_day: date) -> None:
    whole = mechanism.name in ("gaussian_shared", "gaussian_stream")
    charge = cost(mechanism).times(1 if whole else releases)
    spent = cost_so_far([published(mechanism, releases, last_day)], JANUARY)
    assert (spent.epsilon, spent.pure_rho) == (charge.epsilon, charge.pure_rho)
    assert charge.mu2 * 0.9999 <= spent.mu2 <= charge.mu2


def test_a_full_stream_month_leaves_nothing() -> None:
    summary = budget_summary([published(STREAM, 60, date(2025, 3, 9))], JANUARY, MAU, 60, Settings())
    assert summary.epsilon_spent == pytest.approx(3.5, abs=1e-4)
    assert 0 <= summary.epsilon_remaining < 1e-4


def test_a_month_without_numbers_has_spent_nothing() -> None:
    summary = budget_summary([], JANUARY, DAU, 62, Settings())
    assert (summary.epsilon_spent, summary.epsilon_remaining) == (0.0, 3.0)
    assert (summary.advanced_epsilon, summary.advanced_delta) == (0.0, 0.0)
    assert set(summary.rdp_curve.values()) == {0.0}


def test_spending_over_a_lowered_cap_shows_nothing_remaining_rather_than_less() -> None:
    summary = budget_summary([published(LAPLACE_DAU, 10)], JANUARY, Budget(Fraction(1), DELTA), 62, Settings())
    assert summary.epsilon_remaining == 0.0


def test_a_mixed_month_adds_up_in_the_summary_as_in_admission() -> None:
    mixed = [published(GAUSSIAN_DAU, 3), published(LAPLACE_DAU, 2)]
    price = total([cost(GAUSSIAN_DAU)] * 3 + [cost(LAPLACE_DAU)] * 2)
    assert budget_summary(mixed, JANUARY, DAU, 62, Settings()).epsilon_spent == epsilon_of(price, DELTA)


def test_the_rdp_curve_of_gaussians_is_a_line_and_of_laplace_what_its_losses_give() -> None:
    curve = budget_summary([published(GAUSSIAN_DAU, 4)], JANUARY, DAU, 62, Settings()).rdp_curve
    assert curve == pytest.approx({order: order * 2 * mu2(GAUSSIAN_DAU) for order in (2, 4, 8, 16, 32)})
    curve = budget_summary([published(LAPLACE_DAU, 1)], JANUARY, DAU, 62, Settings()).rdp_curve
    x = np.arange(-200, 201)
    log_p, log_q = -0.3 * abs(x), -0.3 * abs(x - 1)
    for order, value in curve.items():
        moment = np.exp(order * log_p + (1 - order) * log_q).sum() / np.exp(log_p).sum()
        assert value == pytest.approx(math.log(moment) / (order - 1), rel=1e-9)


def test_advanced_composition_of_pure_releases_is_the_textbook_formula() -> None:
    epsilon = advanced_epsilon([published(LAPLACE_DAU, 10)], JANUARY, 1e-7)
    textbook = 0.3 * math.sqrt(2 * 10 * math.log(1e7)) + 10 * 0.3 * math.expm1(0.3)
    assert epsilon == pytest.approx(textbook, rel=1e-12)


def test_advanced_composition_of_gaussians_shares_out_half_of_its_delta() -> None:
    each = eps_of(1 / GAUSSIAN_DAU.sigma, 1e-7 / 2 / 5)
    textbook = each * math.sqrt(2 * 5 * math.log(2e7)) + 5 * each * math.expm1(each)
    assert advanced_epsilon([published(GAUSSIAN_DAU, 5)], JANUARY, 1e-7) == pytest.approx(textbook, rel=1e-12)


@pytest.mark.parametrize("one", [published(SHARED, 31), published(STREAM, 31), published(LAPLACE_DAU, 40)])
def test_advanced_composition_is_an_upper_bound_on_the_exact_cost(one: Published) -> None:
    if isinstance(one.mechanism, Laplace):
        single = from_discrete_laplace_mechanism(0.3, value_discretization_interval=1e-3)
        exact = single.self_compose(one.releases).get_epsilon_for_delta(1e-7)
    else:
        exact = epsilon_of(cost_so_far([one], JANUARY), 1e-7)
    assert advanced_epsilon([one], JANUARY, 1e-7) >= exact


def test_the_summary_reports_the_delta_of_its_advanced_epsilon() -> None:
    summary = budget_summary([published(SHARED, 31)], JANUARY, DAU, 62, Settings(advanced_delta=1e-8))
    assert summary.advanced_delta == 1e-8
