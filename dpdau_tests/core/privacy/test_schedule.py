"""What a configuration will publish and when it would run out, checked against one-by-one counting."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dpdau_assets.core.dates import days_between, first_window_end, month_end, month_of, next_month
from dpdau_assets.core.errors import BadSetting, BudgetRefused
from dpdau_assets.core.privacy.accounting import Budget, Charge, admits, charges_for_release
from dpdau_assets.core.privacy.mechanisms import Laplace, SharedNoise, Stream, independent_gaussian
from dpdau_assets.core.privacy.schedule import (
    MonthPlan,
    due_on,
    first_refusal,
    mechanism_for,
    numbers_of_month,
    releases_planned,
    restatement_due_on,
    schedule,
)
from dpdau_assets.core.settings import Metric, Settings
from dpdau_tests.support.lengths import LENGTH, at_length

START = date(2025, 1, 1)


def plans(settings: Settings, metric: Metric, months: int, first_day: date = START) -> list[MonthPlan]:
    return [plan for plan in islice(schedule(settings, first_day), 2 * months) if plan.metric == metric]


# --- What will be published --------------------------------------------------------------------------------------


def test_a_month_of_dau_is_each_day_and_then_each_day_again() -> None:
    (january,) = plans(Settings(), "dau", 1)
    days = days_between(START, date(2025, 1, 31))
    assert [(release.day, release.revision) for release in january.releases] == [(day, 0) for day in days] + [
        (day, 1) for day in days
    ]
    assert {release.due_on for release in january.releases if release.revision} == {date(2025, 2, 5)}


def test_each_number_is_planned_for_a_day_after_its_grace_and_in_order() -> None:
    (january,) = plans(Settings(grace_days=3, restatement_day=10), "dau", 1)
    assert january.releases[0].due_on == date(2025, 1, 5) == due_on(Settings(grace_days=3), START)
    due_days = [release.due_on for release in january.releases]
    assert due_days == sorted(due_days)
    assert due_days[-1] == restatement_due_on(Settings(restatement_day=10), START) == date(2025, 2, 10)


def test_without_restatements_a_month_is_published_once() -> None:
    (january,) = plans(Settings(restatements_per_month=0), "dau", 1)
    assert len(january.releases) == 31


def test_mau_begins_when_its_first_window_is_whole() -> None:
    january, february, march = plans(Settings(), "mau", 3)
    assert (january.releases[0].day, january.releases[-1].day) == (date(2025, 1, 30), date(2025, 3, 1))
    assert (february.releases[0].day, february.releases[-1].day) == (date(2025, 2, 1), date(2025, 3, 29))
    assert len(march.releases) == 60


def test_the_first_of_march_stands_in_the_plans_of_three_months() -> None:
    holding = [plan.month.month for plan in plans(Settings(), "mau", 6) if date(2025, 3, 1) in days_of(plan)]
    assert holding == [1, 2, 3]


def days_of(plan: MonthPlan) -> list[date]:
    return [release.day for release in plan.releases]


def test_a_later_first_day_publishes_nothing_before_it() -> None:
    settings = Settings()
    (dau,) = plans(settings, "dau", 1, date(2025, 3, 20))
    assert len(dau.releases) == 24
    (mau,) = plans(settings, "mau", 1, date(2025, 3, 20))
    assert mau.releases[0].day == date(2025, 3, 20)


@pytest.mark.parametrize("metric", ["dau", "mau"])
def test_the_plans_of_four_years_charge_each_release_to_the_months_it_reads(metric: Metric) -> None:
    settings = Settings(start_date=date(2023, 3, 10), restatements_per_month=0)
    planned = {(plan.month, day) for plan in plans(settings, metric, 48, settings.start_date) for day in days_of(plan)}
    first = first_window_end(settings.start_date, settings.window_days(metric))
    charged = {
        (charge.month, day)
        for day in days_between(first, date(2027, 6, 30))
        for charge in charges_for_release(metric, day, settings.window_days(metric), Laplace(Fraction(1)), "i")
    }
    within = {(month, day) for month, day in charged if date(2023, 3, 1) <= month <= date(2027, 2, 1)}
    assert planned == within


def test_how_many_numbers_a_month_will_have() -> None:
    settings = Settings()
    assert numbers_of_month(settings, date(2024, 2, 1)) == 58
    assert releases_planned(settings, "dau", date(2025, 1, 1), date(2025, 1, 20)) == 62  # counts as a whole month
    assert releases_planned(settings, "mau", date(2025, 3, 1), date(2025, 1, 30)) == 60
    assert releases_planned(settings, "mau", date(2025, 1, 1), date(2025, 1, 30)) == 31


def test_the_mechanisms_are_those_of_the_settings() -> None:
    settings = Settings(epsilon_dau=Fraction(1, 5))
    month = mechanism_for(settings, "dau", date(2024, 2, 1))
    assert isinstance(month, SharedNoise)
    assert month.releases == 58
    assert isinstance(mechanism_for(settings, "mau", START), Stream)
    by_hand = Settings(dau_mechanism="laplace", mau_mechanism="gaussian")
    assert mechanism_for(by_hand, "dau", START) == Laplace(Fraction(3, 10))
    assert mechanism_for(by_hand, "mau", START) == independent_gaussian(0.5, 1e-6)
    with pytest.raises(BadSetting, match="MAU_MECHANISM=none"):
        mechanism_for(Settings(mau_mechanism="none"), "mau", START)


# --- When it would run out ---------------------------------------------------------------------------------------


def test_the_default_schedule_fits_for_ever() -> None:
    assert first_refusal(Settings()) is None


def test_laplace_of_three_tenths_a_day_runs_out_on_the_eleventh() -> None:
    refusal = first_refusal(Settings(dau_mechanism="laplace"))
    assert refusal is not None
    assert (refusal.metric, refusal.day, refusal.month) == ("dau", date(2025, 1, 11), START)
    assert (refusal.charged, refusal.asked, refusal.cap) == (3.0, 0.3, 3.0)
    assert refusal.needed == pytest.approx(18.6)
    assert "2025-01-11" in str(refusal)


def test_laplace_of_a_half_lasts_for_seven_days_of_mau() -> None:
    refusal = first_refusal(Settings(mau_mechanism="laplace"))
    assert refusal is not None
    assert (refusal.day, refusal.month) == (date(2025, 1, 30) + timedelta(days=7), START)


def test_gaussian_mau_runs_out_because_sixty_windows_read_a_month() -> None:
    refusal = first_refusal(Settings(mau_mechanism="gaussian"))
    assert refusal is not None
    assert (refusal.day, refusal.month) == (date(2025, 3, 8), date(2025, 2, 1))  # the 36th window that reads February
    assert refusal.needed == pytest.approx(4.678, abs=5e-4)  # 4.67 by the continuous curve, and the margin on top


def test_gaussian_dau_fits_a_restated_month() -> None:
    assert first_refusal(Settings(dau_mechanism="gaussian")) is None  # 62 of the 70 that fit


def test_a_restatement_that_does_not_fit_is_named_as_one() -> None:
    settings = Settings(dau_mechanism="gaussian", dau_budget_total=Fraction(2))
    refusal = first_refusal(settings)
    assert refusal is not None
    assert (refusal.day, refusal.revision, refusal.due_on) == (date(2025, 1, 3), 1, date(2025, 2, 5))
    assert first_refusal(Settings(**{**vars(settings), "restatements_per_month": 0})) is None


def test_of_two_metrics_the_one_that_runs_out_first_is_named() -> None:
    refusal = first_refusal(Settings(dau_mechanism="laplace", mau_mechanism="laplace"))
    assert refusal is not None
    assert refusal.metric == "dau"


def test_a_month_that_begins_late_is_not_the_one_that_decides() -> None:
    settings = Settings(dau_mechanism="laplace", dau_budget_total=Fraction(9), restatements_per_month=0)
    refusal = first_refusal(Settings(**{**vars(settings), "start_date": date(2025, 1, 20)}))
    assert refusal is None or refusal.month != START
    assert refusal is not None
    assert refusal.day == date(2025, 3, 31)  # thirty fit: February does, March does not


def one_by_one(settings: Settings, metric: Metric, months: int) -> tuple[date, int, date] | None:
    """Every release of so many months, in order of due days, through the door that releases themselves take."""
    last = settings.start_date
    for _ in range(months):
        last = next_month(month_of(last))
    first = first_window_end(settings.start_date, settings.window_days(metric))
    due = [(due_on(settings, day), 0, day) for day in days_between(first, last)]
    if metric == "dau" and settings.restatements_per_month:
        due += [
            (restatement_due_on(settings, month_of(day)), 1, day)
            for day in days_between(first, last)
            if month_end(month_of(day)) < last
        ]
    budget, charges = Budget(settings.cap(metric), settings.delta), defaultdict[date, list[Charge]](list)
    for due_day, revision, day in sorted(due):
        mechanism = mechanism_for(settings, metric, month_of(day))
        for charge in charges_for_release(metric, day, settings.window_days(metric), mechanism, f"{day}-{revision}"):
            try:
                admits(charges[charge.month], charge, budget)
            except BudgetRefused:
                return due_day, revision, day
            charges[charge.month].append(charge)
    return None


@given(
    start=st.dates(date(2023, 11, 1), date(2025, 4, 1)),
    mechanism=st.sampled_from(["laplace", "gaussian"]),
    cap=st.integers(2, 40).map(lambda tenths: Fraction(tenths, 10)),
    each=st.sampled_from([Fraction(1, 20), Fraction(1, 10), Fraction(3, 10)]),
    window_days=st.sampled_from([1, 7, 30, 45]),
    restatements=st.sampled_from([0, 1]),
)
@examples(derandomize=LENGTH != "soak", max_examples=at_length(test=15, ci=60, soak=500), deadline=None)
@pytest.mark.also_long
def test_the_calendar_finds_the_day_that_releasing_one_by_one_would_find(
    start: date, mechanism: str, cap: Fraction, each: Fraction, window_days: int, restatements: int
) -> None:
    settings = Settings(
        start_date=start,
        dau_mechanism=mechanism,
        mau_mechanism=mechanism,
        dau_budget_total=cap,
        mau_budget_total=cap,
        epsilon_dau=each,
        epsilon_mau=each,
        mau_window_days=window_days,
        restatements_per_month=restatements,
    )
    refused = {metric: one_by_one(settings, metric, 8) for metric in ("dau", "mau")}
    refusal = first_refusal(settings)
    if refusal is None:
        assert refused == {"dau": None, "mau": None}
    else:
        assert refused[refusal.metric] == (refusal.due_on, refusal.revision, refusal.day)
        assert refusal.due_on == min(first[0] for first in refused.values() if first)
