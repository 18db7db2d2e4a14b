"""Prices, admission and the budget summary, with the boundary counts of the privacy contract."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from dpdau_assets.core.dates import days_between, first_window_end, months_read
from dpdau_assets.core.errors import BudgetRefused
from dpdau_assets.core.privacy import mechanisms
from dpdau_assets.core.privacy.accounting import (
    Budget,
    Charge,
    Cost,
    admits,
    charges_for_release,
    cost,
    epsilon_of,
    fits,
    mu2,
    pure_rho,
    rho,
    rule_of,
    total,
    zcdp_epsilon,
)
from dpdau_assets.core.privacy.mechanisms import (
    Gaussian,
    Laplace,
    Mechanism,
    discrete_mu,
    eps_of,
    independent_gaussian,
    longest_interval,
    mu_of,
)

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
    charges: list[Charge] = []
    while True:
        (new,) = charged(mechanism)
        try:
            admits(charges, new, budget)
        except BudgetRefused:
            return len(charges)
        charges.append(new)


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


@pytest.mark.parametrize("hair", [Fraction(1, 10**6), Fraction(1, 10**30)])
def test_many_pure_numbers_that_are_a_hair_above_a_cap_together_are_refused(hair: Fraction) -> None:
    """However small: floats would take the second sum for the cap itself."""
    assert how_many_are_admitted(Laplace((DAU.epsilon + hair) / 50), DAU) == 49
    assert how_many_are_admitted(Laplace(DAU.epsilon / 50), DAU) == 50


def test_a_refusal_says_what_was_spent_asked_and_capped() -> None:
    with pytest.raises(BudgetRefused, match="2025-01") as refused:
        admits(charged(LAPLACE_DAU, 10), charged(LAPLACE_DAU)[0], DAU)
    fields = refused.value.fields
    assert (fields["charged"], fields["asked"], fields["cap"]) == (3.0, 0.3, 3.0)
    assert fields["together"] == pytest.approx(3.3)
    assert (fields["metric"], fields["month"]) == ("dau", "2025-01")


def test_a_gaussian_refusal_speaks_in_epsilon_too() -> None:
    with pytest.raises(BudgetRefused) as refused:
        admits(charged(GAUSSIAN_DAU, 70), charged(GAUSSIAN_DAU)[0], DAU)
    fields = refused.value.fields
    assert fields["charged"] == pytest.approx(2.984, abs=1e-3)
    assert fields["asked"] == pytest.approx(0.3003, abs=1e-4)  # the noise is discrete
    assert fields["together"] == pytest.approx(3.008, abs=1e-3)


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


def test_the_rule_of_a_cost_follows_from_what_is_in_it() -> None:
    pure, gaussian = cost(LAPLACE_DAU), cost(GAUSSIAN_DAU)
    assert [rule_of(price) for price in (Cost(), pure, gaussian, total([pure, gaussian]))] == [
        "naive",
        "naive",
        "gaussian",
        "zcdp",
    ]


def test_the_cap_under_which_a_charge_was_admitted_does_not_make_it_another_charge() -> None:
    (charge,) = charged(SHARED)
    admitted = replace(charge, budget=DAU)
    assert (admitted.budget, charge.budget) == (DAU, None)
    assert admitted == charge
    assert len({admitted, charge}) == 1


@given(st.lists(st.sampled_from([LAPLACE_DAU, GAUSSIAN_DAU, GAUSSIAN_MAU, SHARED]), max_size=12), st.data())
@examples(derandomize=True, max_examples=100, deadline=None)
def test_admission_does_not_depend_on_the_order_of_charges(listed: list[Mechanism], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(listed))
    prices = [total(cost(mechanism) for mechanism in order) for order in (listed, shuffled)]
    assert prices[0] == prices[1]
    assert fits(prices[0], DAU) == fits(prices[1], DAU)


# --- Prices ------------------------------------------------------------------------------------------------------


def test_the_price_of_an_instance_is_the_mu_of_its_calibration() -> None:
    assert 0.998 * 0.647727**2 < mu2(SHARED) <= 0.647727**2  # PRIVACY 1
    assert mu2(SHARED) == pytest.approx(62 * discrete_mu(SHARED.sigma_day) ** 2 + discrete_mu(SHARED.sigma_month) ** 2)
    assert mu2(STREAM) == pytest.approx(0.743831**2, rel=1e-5)
    assert mu2(STREAM) <= mu_of(3.5, DELTA) ** 2


@pytest.mark.parametrize("sigma", [GAUSSIAN_DAU.sigma, GAUSSIAN_MAU.sigma, 100.0])
def test_an_independent_number_is_priced_with_the_margin_of_being_discrete(sigma: float) -> None:
    assert mu2(Gaussian(sigma)) == (1.001 / sigma) ** 2
    assert mu2(Gaussian(2.0)) == discrete_mu(2.0) ** 2 > (1.001 / 2.0) ** 2


def test_a_cap_of_one_numbers_own_epsilon_is_a_hair_too_small_for_it() -> None:
    assert how_many_are_admitted(GAUSSIAN_DAU, Budget(Fraction(3, 10), DELTA)) == 0
    assert how_many_are_admitted(GAUSSIAN_DAU, Budget(Fraction(301, 1000), DELTA)) == 1


def test_rho_is_half_of_mu2_and_tanh_for_pure_releases() -> None:
    assert rho(cost(Gaussian(10.0))) == pytest.approx(1.001**2 / 200)
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

    minimum = minimize_scalar(by_order, bounds=(-10, 20), method="bounded", options={"xatol": 1e-10})
    least = float(minimum.fun)  # pyright: ignore[reportAttributeAccessIssue]
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


def windows_charged(first: date, last: date, window_days: int) -> dict[date, int]:
    """How many windows that end from `first` to `last` are charged to each month, each number by itself."""
    windows: dict[date, int] = {}
    for day in days_between(first, last):
        for charge in charges_for_release("mau", day, window_days, GAUSSIAN_MAU, f"{day}"):
            windows[charge.month] = windows.get(charge.month, 0) + 1
    return windows


@pytest.mark.parametrize(
    ("window_days", "long_month", "short_month", "february", "leap_february"),
    [(1, 31, 30, 28, 29), (7, 37, 36, 34, 35), (30, 60, 59, 57, 58), (60, 90, 89, 87, 88), (90, 120, 119, 117, 118)],
)
def test_a_month_is_charged_for_every_window_that_reads_it(
    window_days: int, long_month: int, short_month: int, february: int, leap_february: int
) -> None:
    windows = windows_charged(date(2023, 6, 1), date(2025, 12, 31), window_days)
    assert windows[date(2025, 1, 1)] == long_month == longest_interval(window_days)
    assert windows[date(2025, 4, 1)] == short_month
    assert (windows[date(2025, 2, 1)], windows[date(2024, 2, 1)]) == (february, leap_february)


@pytest.mark.parametrize("window_days", [30, 45, 60, 90])
def test_a_stream_is_charged_once_to_every_month_that_its_windows_read(window_days: int) -> None:
    mechanism = mechanisms.stream(window_days, 3.5, DELTA)
    start = date(2024, 11, 10)
    first, last = first_window_end(start, window_days), date(2025, 12, 31)
    by_month: dict[date, list[Charge]] = {}
    for day in days_between(first, last):
        for charge in charges_for_release("mau", day, window_days, mechanism, "stream"):
            charges = by_month.setdefault(charge.month, [])
            if charge not in charges:
                admits(charges, charge, MAU)
                charges.append(charge)
    assert sorted(by_month) == months_read(last, (last - start).days + 1)
    assert {len(charges) for charges in by_month.values()} == {1}
    assert all(epsilon_of(cost(charges[0].mechanism), DELTA) <= 3.5 for charges in by_month.values())


@pytest.mark.parametrize(("window_days", "fewest", "most"), [(30, 1, 3), (60, 2, 3), (90, 3, 4)])
def test_how_many_months_a_window_reads(window_days: int, fewest: int, most: int) -> None:
    counts = [len(months_read(day, window_days)) for day in days_between(date(2023, 1, 1), date(2026, 12, 31))]
    assert (min(counts), max(counts)) == (fewest, most)


def test_no_month_takes_a_second_stream() -> None:
    living = mechanisms.stream(30, 3.5, DELTA)
    for charge in charges_for_release("mau", date(2025, 2, 28), 60, mechanisms.stream(60, 3.5, DELTA), "new"):
        with pytest.raises(BudgetRefused):
            admits([Charge("mau", charge.month, "living", living)], charge, MAU)
