"""What published numbers have cost, each figure by two computations: ours, and another library's or another formula."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import (
    from_discrete_gaussian_mechanism,
    from_discrete_laplace_mechanism,
    from_gaussian_mechanism,
)
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant, compute_epsilon
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dpdau_assets.core.dates import days_between, months_read
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy import mechanisms
from dpdau_assets.core.privacy.accounting import (
    Budget,
    Charge,
    cost,
    epsilon_of,
    mu2,
    pure_rho,
    rho,
    rule_of,
    total,
    zcdp_epsilon,
)
from dpdau_assets.core.privacy.compositions import (
    MEANINGS,
    BudgetReport,
    Composition,
    advanced_epsilon,
    budget_report,
    budget_summary,
    joint_epsilon,
    naive_epsilon,
    rdp_curve,
    rdp_epsilon,
    user_months,
)
from dpdau_assets.core.privacy.cost_so_far import Published, cost_so_far
from dpdau_assets.core.privacy.mechanisms import (
    Laplace,
    Mechanism,
    SharedNoise,
    Stream,
    eps_of,
    independent_gaussian,
    mu_of,
)
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answers import budget_answer, budget_rows, release_answer
from dpdau_assets.core.reporting.as_json import as_json
from dpdau_assets.core.settings import Metric, Settings
from dpdau_tests.conftest import prepare
from dpdau_tests.support.lengths import LENGTH, at_length

DELTA = 1e-6
JANUARY, LONG_AGO = date(2025, 1, 1), date(2024, 1, 30)
DAU, MAU = Budget(Fraction(3), DELTA), Budget(Fraction(7, 2), DELTA)
LAPLACE_DAU = Laplace(Fraction(3, 10))
GAUSSIAN_DAU, GAUSSIAN_MAU = independent_gaussian(0.3, DELTA), independent_gaussian(0.5, DELTA)
SHARED = mechanisms.shared_noise(62, 3.0, DELTA)
STREAM, LONGER_STREAM = mechanisms.stream(30, 3.5, DELTA), mechanisms.stream(60, 3.5, DELTA)
AFTER_TAIL = date(2025, 3, 9)


def published(mechanism: Mechanism, releases: int, last_day: date = JANUARY) -> Published:
    return Published(mechanism, releases, LONG_AGO, last_day)


def charged(parts: Sequence[Published]) -> list[Charge]:
    """Charges as the ledger would have them: an independent number by itself, anything else whole."""
    return [
        Charge("dau", JANUARY, f"{n}-{k}", part.mechanism)
        for n, part in enumerate(parts)
        for k in range(1 if isinstance(part.mechanism, SharedNoise | Stream) else part.releases)
    ]


def report(parts: Sequence[Published], settings: Settings | None = None, metric: Metric = "dau") -> BudgetReport:
    return budget_report(metric, parts, JANUARY, charged(parts), settings or Settings())


def figures(parts: Sequence[Published], settings: Settings | None = None) -> dict[str, Composition]:
    return {composition.name: composition for composition in report(parts, settings).compositions}


# --- The summary -------------------------------------------------------------------------------------------------


def test_a_month_half_published_shows_what_its_numbers_have_cost_not_what_was_charged() -> None:
    summary = budget_summary([published(SHARED, 31)], JANUARY, DAU, 62, Settings())
    assert summary.epsilon_spent == pytest.approx(2.17, abs=5e-3)  # PRIVACY 2
    assert summary.epsilon_remaining == pytest.approx(0.83, abs=5e-3)
    assert (summary.epsilon_cap, summary.releases_made, summary.releases_planned) == (3.0, 31, 62)


@pytest.mark.parametrize(
    ("mechanism", "releases", "last_day"),
    [
        (SHARED, 62, JANUARY),
        (STREAM, 60, AFTER_TAIL),
        (LONGER_STREAM, 90, date(2025, 4, 16)),
        (LAPLACE_DAU, 10, JANUARY),
        (GAUSSIAN_DAU, 70, JANUARY),
    ],
)
def test_what_is_spent_never_exceeds_what_was_charged(mechanism: Mechanism, releases: int, last_day: date) -> None:
    run = published(mechanism, releases, last_day)
    charge = total(cost(charge.mechanism) for charge in charged([run]))
    spent = cost_so_far([run], JANUARY)
    assert (spent.epsilon, spent.pure_rho) == (charge.epsilon, charge.pure_rho)
    assert charge.mu2 * 0.9999 <= spent.mu2 <= charge.mu2


def test_a_full_month_leaves_nothing_and_never_less() -> None:
    for run, budget in ((published(STREAM, 60, AFTER_TAIL), MAU), (published(SHARED, 62), DAU)):
        summary = budget_summary([run], JANUARY, budget, run.releases, Settings())
        assert summary.epsilon_spent == pytest.approx(float(budget.epsilon), abs=2e-3)
        assert summary.epsilon_spent <= summary.epsilon_cap
        assert 0 <= summary.epsilon_remaining < 2e-3


def test_a_month_without_numbers_has_spent_nothing() -> None:
    summary = budget_summary([], JANUARY, DAU, 62, Settings())
    assert (summary.epsilon_spent, summary.epsilon_remaining) == (0.0, 3.0)
    compared = summary.comparison
    assert (compared.advanced_epsilon, compared.advanced_delta, set(compared.rdp_curve.values())) == (0.0, 0.0, {0.0})


def test_spending_over_a_lowered_cap_shows_nothing_remaining_rather_than_less() -> None:
    summary = budget_summary([published(LAPLACE_DAU, 10)], JANUARY, Budget(Fraction(1), DELTA), 62, Settings())
    assert summary.epsilon_remaining == 0.0


def test_a_mixed_month_adds_up_in_the_summary_as_in_admission() -> None:
    mixed = [published(GAUSSIAN_DAU, 3), published(LAPLACE_DAU, 2)]
    price = total([cost(GAUSSIAN_DAU)] * 3 + [cost(LAPLACE_DAU)] * 2)
    spent = budget_summary(mixed, JANUARY, DAU, 62, Settings()).epsilon_spent
    assert spent == epsilon_of(price, DELTA) == zcdp_epsilon(rho(price), DELTA)


def test_the_summary_reports_the_delta_of_its_advanced_epsilon() -> None:
    summary = budget_summary([published(SHARED, 31)], JANUARY, DAU, 62, Settings(advanced_delta=1e-8))
    assert summary.comparison.advanced_delta == 1e-8


# --- What was charged --------------------------------------------------------------------------------------------


def test_what_was_charged_is_the_whole_instance_from_the_first_number_on() -> None:
    for run, cap in ((published(SHARED, 1), 3.0), (published(STREAM, 1), 3.5)):
        guarantee = report([run]).charged
        assert guarantee.epsilon == pytest.approx(cap, abs=2e-3)
        assert guarantee.epsilon <= cap
        assert guarantee.delta == DELTA
        assert figures([run])["gaussian"].epsilon < cap / 2


def test_pure_releases_are_charged_without_a_delta() -> None:
    guarantee = report([published(LAPLACE_DAU, 4)]).charged
    assert (guarantee.epsilon, guarantee.delta) == (1.2, 0.0)


def test_a_month_without_numbers_has_nothing_to_compare_but_its_guarantees() -> None:
    empty = report([])
    assert (empty.charged.epsilon, empty.compositions) == (0.0, ())
    assert empty.joint.epsilon == joint_epsilon(Settings())


# --- The compositions: what stands in the report -----------------------------------------------------------------


def test_every_figure_says_what_it_is_and_only_one_is_used_to_admit() -> None:
    for parts, used in (
        ([published(SHARED, 31)], "gaussian"),
        ([published(LAPLACE_DAU, 3)], "naive"),
        ([published(GAUSSIAN_DAU, 3), published(LAPLACE_DAU, 2)], "zcdp"),
    ):
        compositions = report(parts).compositions
        assert [composition.name for composition in compositions if composition.used_for_admission] == [used]
        assert {composition.name: composition.meaning for composition in compositions}.items() <= MEANINGS.items()
        assert {"naive", "advanced", "rdp", "zcdp"} <= {composition.name for composition in compositions}


def test_what_is_used_to_admit_follows_the_charges_and_not_what_is_out_by_now() -> None:
    pure, both = [published(LAPLACE_DAU, 2)], [published(LAPLACE_DAU, 2), published(SHARED, 1)]
    shown = budget_report("dau", pure, JANUARY, charged(both), Settings())
    assert [composition.name for composition in shown.compositions if composition.used_for_admission] == ["zcdp"]


def test_the_gaussian_curve_is_left_out_where_pure_releases_make_it_too_small() -> None:
    assert "gaussian" not in figures([published(SHARED, 3), published(LAPLACE_DAU, 2)])
    assert "gaussian" not in figures([published(LAPLACE_DAU, 2)])


def test_the_figure_that_the_cap_is_held_to_is_what_the_summary_calls_spent() -> None:
    for parts in ([published(SHARED, 31)], [published(LAPLACE_DAU, 3)], [published(GAUSSIAN_DAU, 3)]):
        (used,) = (composition for composition in report(parts).compositions if composition.used_for_admission)
        assert used.epsilon == budget_summary(parts, JANUARY, DAU, 62, Settings()).epsilon_spent


def test_each_figure_has_its_delta_and_rdp_the_order_that_won() -> None:
    compositions = figures([published(SHARED, 31)], Settings(advanced_delta=1e-8))
    assert {name: composition.delta for name, composition in compositions.items()} == {
        "naive": DELTA,
        "advanced": 1e-8,
        "rdp": DELTA,
        "zcdp": DELTA,
        "gaussian": DELTA,
    }
    assert {name: composition.order for name, composition in compositions.items() if composition.order} == {"rdp": 8}
    assert figures([published(LAPLACE_DAU, 2)])["naive"].delta == 0.0


def test_the_report_is_plain_values_for_json() -> None:
    as_json = asdict(report([published(SHARED, 31)]))
    assert set(as_json) == {"charged", "compositions", "joint", "user_months"}
    assert set(as_json["joint"]) == set(as_json["charged"]) == {"epsilon", "delta", "meaning"}


# --- The compositions: against other computations ----------------------------------------------------------------

GAUSSIAN_MONTHS = [
    published(SHARED, 1),
    published(SHARED, 31),
    published(SHARED, 62),
    published(GAUSSIAN_DAU, 40),
    published(GAUSSIAN_MAU, 7),
    published(STREAM, 10, date(2025, 1, 10)),
    published(STREAM, 60, AFTER_TAIL),
    published(LONGER_STREAM, 90, date(2025, 4, 16)),
]


@pytest.mark.parametrize("one", GAUSSIAN_MONTHS)
def test_the_exact_figure_is_the_epsilon_of_another_librarys_loss_distribution(one: Published) -> None:
    mu = math.sqrt(cost_so_far([one], JANUARY).mu2)
    accountant = PLDAccountant(value_discretization_interval=1e-4)
    accountant.compose(dp_event.GaussianDpEvent(1 / mu))
    assert figures([one])["gaussian"].epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-4)


@pytest.mark.parametrize("one", [published(SHARED, 62), published(GAUSSIAN_DAU, 40), published(GAUSSIAN_MAU, 7)])
def test_the_exact_figure_is_not_below_the_loss_of_the_discrete_noise_itself(one: Published) -> None:
    def loss(sigma: float, count: int):
        of_one = from_discrete_gaussian_mechanism(sigma, value_discretization_interval=1e-4, use_connect_dots=True)
        return of_one.self_compose(count)

    if isinstance(one.mechanism, SharedNoise):
        composed = loss(SHARED.sigma_day, 62).compose(loss(SHARED.sigma_month, 1))
    else:
        assert isinstance(one.mechanism, mechanisms.Gaussian)
        composed = loss(one.mechanism.sigma, one.releases)
    exact = figures([one])["gaussian"].epsilon
    assert exact * (1 - 2e-3) < composed.get_epsilon_for_delta(DELTA) <= exact


def test_the_noises_by_themselves_are_dearer_than_the_months_numbers_so_far_because_one_is_in_common() -> None:
    """From the covariance of the numerators 2c + ξ_day + ξ_month, by matrices: the worst of all users' days."""
    for count in (1, 5, 31):
        day, whole = (1 / mechanisms.discrete_mu(sigma) for sigma in (SHARED.sigma_day, SHARED.sigma_month))
        covariance = day**2 * np.eye(count) + whole**2
        shifts = [2.0 * np.r_[np.ones(j), np.zeros(count - j)] for j in range(count + 1)]
        slow = max(float(shift @ np.linalg.solve(covariance, shift)) for shift in shifts)
        compositions = figures([published(SHARED, count)])
        assert compositions["gaussian"].epsilon == pytest.approx(eps_of(math.sqrt(slow), DELTA), rel=1e-9)
        assert compositions["gaussian"].epsilon < compositions["naive"].epsilon


def test_rdp_of_gaussians_is_another_librarys_at_the_same_orders() -> None:
    orders = Settings().rdp_orders
    for run in GAUSSIAN_MONTHS:
        mu = math.sqrt(cost_so_far([run], JANUARY).mu2)
        accountant = RdpAccountant([float(order) for order in orders])
        accountant.compose(dp_event.GaussianDpEvent(1 / mu))
        theirs, order = accountant.get_epsilon_and_optimal_order(DELTA)
        ours = figures([run])["rdp"]
        assert (ours.epsilon, ours.order) == (pytest.approx(theirs, rel=1e-12), order)


@given(
    st.lists(st.tuples(st.integers(2, 300), st.floats(1e-3, 30)), min_size=1, max_size=6, unique_by=lambda one: one[0]),
    st.sampled_from([1e-9, 1e-6, 1e-3]),
)
@examples(derandomize=True, max_examples=100, deadline=None)
def test_the_conversion_of_any_curve_is_another_librarys(curve: list[tuple[int, float]], delta: float) -> None:
    orders, values = zip(*curve, strict=True)
    theirs, _ = compute_epsilon([float(order) for order in orders], list(values), delta)
    ours, order = rdp_epsilon(dict(curve), delta)
    if delta**2 + math.expm1(-min(values)) <= 0:  # else theirs says 0 by another argument
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12)
    assert order in orders


def test_the_rdp_curve_of_gaussians_is_a_line_and_of_laplace_what_its_losses_give() -> None:
    curve = budget_summary([published(GAUSSIAN_DAU, 4)], JANUARY, DAU, 62, Settings()).comparison.rdp_curve
    assert curve == pytest.approx({order: order * 2 * mu2(GAUSSIAN_DAU) for order in (2, 4, 8, 16, 32)})
    curve = budget_summary([published(LAPLACE_DAU, 1)], JANUARY, DAU, 62, Settings()).comparison.rdp_curve
    x = np.arange(-200, 201)
    log_p, log_q = -0.3 * abs(x), -0.3 * abs(x - 1)
    for order, value in curve.items():
        moment = np.exp(order * log_p + (1 - order) * log_q).sum() / np.exp(log_p).sum()
        assert value == pytest.approx(math.log(moment) / (order - 1), rel=1e-9)


def test_zcdp_is_the_line_of_rdp_at_the_best_of_very_many_orders() -> None:
    orders = [1.02 + n / 200 for n in range(40_000)]
    for parts in ([published(SHARED, 31)], [published(GAUSSIAN_DAU, 3), published(LAPLACE_DAU, 2)]):
        per_order = sum(
            part.releases * pure_rho(0.3) if part.mechanism == LAPLACE_DAU else cost_so_far([part], JANUARY).mu2 / 2
            for part in parts
        )
        theirs, _ = compute_epsilon(orders, [order * per_order for order in orders], DELTA)
        assert figures(parts)["zcdp"].epsilon == pytest.approx(theirs, rel=1e-5)


def test_naive_composition_adds_every_noise_at_an_even_share_of_delta() -> None:
    def alone(mu: float, shares: int) -> float:
        loss = from_gaussian_mechanism(1 / mu, value_discretization_interval=1e-4)
        return loss.get_epsilon_for_delta(DELTA / shares)

    five = naive_epsilon([published(GAUSSIAN_DAU, 5)], JANUARY, DELTA)
    assert five == pytest.approx(5 * alone(1.001 / GAUSSIAN_DAU.sigma, 5), rel=1e-3)
    month = naive_epsilon([published(SHARED, 31)], JANUARY, DELTA)
    by_hand = 31 * alone(1.001 / SHARED.sigma_day, 32) + alone(1.001 / SHARED.sigma_month, 32)
    assert month == pytest.approx(by_hand, rel=1e-3)
    days = naive_epsilon([published(STREAM, 10, date(2025, 1, 10))], JANUARY, DELTA)
    assert days == pytest.approx(10 * alone(1024 / STREAM.sigma, 10), rel=1e-3)
    mixed = naive_epsilon([published(GAUSSIAN_DAU, 5), published(LAPLACE_DAU, 2)], JANUARY, DELTA)
    assert mixed == pytest.approx(five + 0.6)


def test_naive_composition_of_pure_releases_is_their_plain_sum() -> None:
    assert naive_epsilon([published(LAPLACE_DAU, 10)], JANUARY, DELTA) == 3.0
    assert naive_epsilon([], JANUARY, DELTA) == 0.0


def test_advanced_composition_of_pure_releases_is_the_textbook_formula() -> None:
    epsilon = advanced_epsilon([published(LAPLACE_DAU, 10)], JANUARY, 1e-7)
    textbook = 0.3 * math.sqrt(2 * 10 * math.log(1e7)) + 10 * 0.3 * math.expm1(0.3)
    assert epsilon == pytest.approx(textbook, rel=1e-12)


def test_advanced_composition_of_gaussians_shares_out_half_of_its_delta() -> None:
    each = eps_of(1.001 / GAUSSIAN_DAU.sigma, 1e-7 / 2 / 5)
    textbook = each * math.sqrt(2 * 5 * math.log(2e7)) + 5 * each * math.expm1(each)
    assert advanced_epsilon([published(GAUSSIAN_DAU, 5)], JANUARY, 1e-7) == pytest.approx(textbook, rel=1e-12)


# --- Properties --------------------------------------------------------------------------------------------------

COUNTS = st.lists(st.integers(0, 62), min_size=4, max_size=4)


def month_of_all_kinds(counts: list[int]) -> list[Published]:
    shared, gaussian, laplace, stream_days = counts
    listed = [
        published(SHARED, shared),
        published(GAUSSIAN_MAU, gaussian),
        published(LAPLACE_DAU, laplace),
        published(STREAM, stream_days, JANUARY + timedelta(days=stream_days - 1)),
    ]
    return [run for run in listed if run.releases]


@given(COUNTS, st.integers(0, 3))
@examples(derandomize=LENGTH != "soak", max_examples=at_length(test=25, ci=100, soak=1_000), deadline=None)
@pytest.mark.also_long
def test_one_more_number_never_costs_less_by_any_composition(counts: list[int], kind: int) -> None:
    more = [count + (n == kind) for n, count in enumerate(counts)]
    before, after = figures(month_of_all_kinds(counts)), figures(month_of_all_kinds(more))
    for name in before.keys() & after.keys():
        assert before[name].epsilon <= after[name].epsilon * (1 + 1e-12)


@given(COUNTS.map(lambda counts: [*counts[:2], 0, counts[3]]).filter(any), st.sampled_from([1e-9, 1e-6, 1e-4]))
@examples(derandomize=LENGTH != "soak", max_examples=at_length(test=25, ci=100, soak=1_000), deadline=None)
@pytest.mark.also_long
def test_no_composition_of_gaussians_says_less_than_the_exact_one_at_the_same_delta(
    counts: list[int], delta: float
) -> None:
    compositions = figures(month_of_all_kinds(counts), Settings(delta=delta, advanced_delta=delta))
    for composition in compositions.values():
        assert composition.epsilon >= compositions["gaussian"].epsilon * (1 - 1e-12)


@given(st.integers(1, 40), st.integers(0, 20))
@examples(derandomize=True, max_examples=15, deadline=None)
def test_no_composition_with_pure_releases_says_less_than_the_loss_of_the_noise_itself(pure: int, other: int) -> None:
    parts = [published(LAPLACE_DAU, pure), *([published(GAUSSIAN_MAU, other)] if other else [])]
    loss = from_discrete_laplace_mechanism(0.3, value_discretization_interval=1e-3).self_compose(pure)
    if other:
        gaussian = from_discrete_gaussian_mechanism(
            GAUSSIAN_MAU.sigma, value_discretization_interval=1e-3, use_connect_dots=True
        )
        loss = loss.compose(gaussian.self_compose(other))
    for figure in report(parts).compositions:
        assert figure.epsilon >= loss.get_epsilon_for_delta(figure.delta or DELTA) * (1 - 1e-6)


@pytest.mark.parametrize("one", [published(SHARED, 31), published(STREAM, 31), published(LAPLACE_DAU, 40)])
def test_advanced_composition_is_an_upper_bound_on_the_exact_cost(one: Published) -> None:
    if isinstance(one.mechanism, Laplace):
        single = from_discrete_laplace_mechanism(0.3, value_discretization_interval=1e-3)
        exact = single.self_compose(one.releases).get_epsilon_for_delta(1e-7)
    else:
        exact = epsilon_of(cost_so_far([one], JANUARY), 1e-7)
    assert advanced_epsilon([one], JANUARY, 1e-7) >= exact


def test_the_rdp_curve_adds_up_over_parts() -> None:
    parts = [published(GAUSSIAN_DAU, 3), published(LAPLACE_DAU, 2)]
    together, alone = (
        [rdp_curve(some, cost_so_far(some, JANUARY), (2, 8)) for some in listed]
        for listed in ([parts], [[part] for part in parts])
    )
    assert together[0] == pytest.approx({order: sum(curve[order] for curve in alone) for order in (2, 8)})


# --- Both metrics, and several months ----------------------------------------------------------------------------


def test_both_metrics_together_cost_what_the_contract_says() -> None:
    joint = report([]).joint
    assert (round(joint.epsilon, 3), joint.delta) == (4.811, DELTA)  # PRIVACY 1
    assert "both metrics" in joint.meaning
    assert joint_epsilon(Settings(dau_mechanism="gaussian", mau_mechanism="gaussian")) == joint_epsilon(Settings())


def test_both_metrics_together_cost_what_another_librarys_loss_distribution_says() -> None:
    caps = (from_gaussian_mechanism(1 / mu_of(cap, DELTA), value_discretization_interval=1e-4) for cap in (3.0, 3.5))
    dau, mau = caps
    assert joint_epsilon(Settings()) == pytest.approx(dau.compose(mau).get_epsilon_for_delta(DELTA), rel=1e-4)


def test_with_a_pure_metric_the_caps_add_up() -> None:
    assert joint_epsilon(Settings(dau_mechanism="laplace")) == pytest.approx(6.5, rel=1e-12)
    assert joint_epsilon(Settings(dau_mechanism="laplace", mau_mechanism="laplace")) == 6.5
    small = Settings(dau_mechanism="laplace", dau_budget_total=Fraction(1, 10))
    assert 3.5 < joint_epsilon(small) <= 3.6


@pytest.mark.parametrize("metric", ["dau", "mau"])
def test_k_months_of_gaussians_cost_root_k_times_the_mu_of_one(metric: Metric) -> None:
    cap = float(Settings().cap(metric))
    month = from_gaussian_mechanism(1 / mu_of(cap, DELTA), value_discretization_interval=1e-3)
    other = from_gaussian_mechanism(1 / mu_of(6.5 - cap, DELTA), value_discretization_interval=1e-3)
    rows = list(user_months(metric, Settings()))
    assert [(row.months, row.delta) for row in rows] == [(k, DELTA) for k in (1, 2, 3, 6, 12)]
    assert rows[0].epsilon == pytest.approx(cap, rel=1e-12)
    for row in rows:
        k_months = month.self_compose(row.months)
        assert row.epsilon == pytest.approx(k_months.get_epsilon_for_delta(DELTA), rel=1e-3)
        both = k_months.compose(other.self_compose(row.months))
        assert row.joint_epsilon == pytest.approx(both.get_epsilon_for_delta(DELTA), rel=1e-3)


def test_k_months_of_pure_epsilon_cost_k_times_one_without_a_delta() -> None:
    rows = list(user_months("dau", Settings(dau_mechanism="laplace", mau_mechanism="laplace")))
    assert [row.epsilon for row in rows] == [3.0 * row.months for row in rows]
    assert [row.joint_epsilon for row in rows] == [6.5 * row.months for row in rows]
    assert {row.delta for row in rows} == {0.0}


def test_k_months_of_a_pure_and_a_gaussian_metric_take_the_better_of_two_valid_rules() -> None:
    rows = list(user_months("dau", Settings(dau_mechanism="laplace")))
    mu = mu_of(3.5, DELTA)
    for row in rows:
        k = row.months
        added_up = 3.0 * k + eps_of(mu * math.sqrt(k), DELTA)
        by_rho = zcdp_epsilon(k * (pure_rho(3.0) + mu**2 / 2), DELTA)
        assert row.epsilon == 3.0 * k
        assert row.joint_epsilon == pytest.approx(min(added_up, by_rho), rel=1e-12)
    small = Settings(dau_mechanism="laplace", dau_budget_total=Fraction(1, 10))
    *_, year = user_months("dau", small)
    assert year.joint_epsilon < 1.2 + eps_of(mu * math.sqrt(12), DELTA)  # here the other rule is the better one


def test_more_months_never_cost_less_and_both_metrics_never_less_than_one() -> None:
    for changed in ({}, {"dau_mechanism": "laplace"}, {"dau_mechanism": "laplace", "mau_mechanism": "laplace"}):
        for metric in ("dau", "mau"):
            rows = list(user_months(metric, replace(Settings(), **changed)))  # type: ignore[arg-type]
            assert [row.epsilon for row in rows] == sorted(row.epsilon for row in rows)
            assert [row.joint_epsilon for row in rows] == sorted(row.joint_epsilon for row in rows)
            assert all(row.epsilon < row.joint_epsilon for row in rows)
            assert rows[0].joint_epsilon == joint_epsilon(replace(Settings(), **changed))  # type: ignore[arg-type]


def test_the_report_counts_under_the_caps_it_is_given() -> None:
    raised = report([published(SHARED, 3)], Settings(dau_budget_total=Fraction(5)))
    assert raised.user_months[0].epsilon == pytest.approx(5.0, rel=1e-12)
    assert raised.joint.epsilon > 4.811
    assert rule_of(cost(SHARED)) == "gaussian"


# --- On a ledger -------------------------------------------------------------------------------------------------


def test_a_released_number_shows_the_summary_and_the_budget_of_its_month_the_whole_report(
    make_store: Callable[..., Store],
) -> None:
    store = make_store()
    prepare(store, [JANUARY])
    release = publish("dau", JANUARY, store)
    answer = as_json(budget_answer("dau", JANUARY, store.settings, store.accountant))
    summary = as_json(release_answer(release, store.settings, store.accountant))["budget"]
    assert set(summary) == {
        "epsilon_cap",
        "epsilon_spent",
        "epsilon_remaining",
        "releases_made",
        "releases_planned",
        "comparison",
    }
    assert {name: answer[name] for name in summary if name != "comparison"}.items() <= summary.items()
    assert set(answer) - set(summary) == {"metric", "month", "charged", "joint", "user_months", "overrides"}
    assert json.loads(json.dumps(answer))["charged"]["epsilon"] == pytest.approx(2.998, abs=5e-4)
    (row,) = budget_rows(store.settings, store.accountant)
    assert as_json(row) == answer and (answer["metric"], answer["month"]) == ("dau", "2025-01")


def test_what_only_compares_stands_apart_and_each_figure_says_in_a_sentence_that_it_stops_nothing(
    make_store: Callable[..., Store],
) -> None:
    store = make_store()
    prepare(store, [JANUARY])
    answers = [as_json(release_answer(publish("dau", JANUARY, store), store.settings, store.accountant))["budget"]]
    answers.append(as_json(budget_answer("dau", JANUARY, store.settings, store.accountant)))
    comparing = {"rdp_curve", "advanced_epsilon", "advanced_delta"}
    for answer, more in zip(answers, (set(), {"compositions"}), strict=True):
        compared = dict(answer["comparison"])
        meaning = compared.pop("meaning")
        assert set(compared) == set(meaning) == comparing | more
        assert not (comparing | {"compositions"}) & set(answer)
        for sentence in meaning.values():
            assert sentence.endswith(".") and "nothing" in sentence
        assert compared["advanced_epsilon"] > answer["epsilon_cap"]


@pytest.mark.parametrize(("window_days", "months"), [(60, 3), (90, 4)])
def test_the_numbers_of_a_longer_window_charge_each_month_they_read_once(
    make_store: Callable[..., Store], window_days: int, months: int
) -> None:
    first = date(2025, 3, 1)  # January and February are 59 days
    start = first - timedelta(days=window_days - 1)
    store = make_store(start_date=start, mau_window_days=window_days)
    prepare(store, days_between(start, first + timedelta(days=1)))
    for day in days_between(first, first + timedelta(days=1)):
        publish("mau", day, store)
    assert len(months_read(first, window_days)) == months
    for month in months_read(first, window_days):
        assert [charge.mechanism.name for charge in store.accountant.charges("mau", month)] == ["gaussian_stream"]
        answer = budget_answer("mau", month, store.settings, store.accountant)
        assert answer.report.charged.epsilon == pytest.approx(3.5, abs=1e-4)
        assert answer.summary.epsilon_spent < answer.report.charged.epsilon
        assert answer.summary.releases_made == 2
