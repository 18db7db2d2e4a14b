"""Caps are fixed by a month's first charge, and changed only on the record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction

import pytest

from dpdau_assets.core.budget import verification
from dpdau_assets.core.budget.overrides import declare_erasures_submitted, reset_budget
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BadInput, BudgetRefused, Refused
from dpdau_assets.core.facts import Override
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.accounting import cost, epsilon_of, total
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.reporting.answer_model import CapOverride
from dpdau_assets.core.reporting.answers import budget_answer
from dpdau_assets.core.reporting.label import settings_on_record
from dpdau_tests.conftest import prepare, put
from dpdau_tests.support.stores import a_month_published

JANUARY, FEBRUARY = date(2025, 1, 1), date(2025, 2, 1)
DAYS = days_between(JANUARY, JANUARY + timedelta(days=40))
TODAY = date(2025, 3, 1)
Make = Callable[..., Store]


@pytest.fixture
def two_fit(make_store: Make, database_url: str) -> Store:
    """A store whose January has published all that its cap admits."""
    store = make_store(
        today=TODAY,
        ledger_url=database_url,
        dau_mechanism="laplace",
        dau_budget_total=Fraction(3),
        epsilon_dau=Fraction(3, 2),
    )
    put(store, [("someone", DAYS[1])])
    prepare(store, [*DAYS[:4], FEBRUARY])
    for day in DAYS[:2]:
        publish("dau", day, store)
    return store


def test_an_override_admits_what_the_cap_refused_and_no_more(two_fit: Store) -> None:
    with pytest.raises(BudgetRefused):
        publish("dau", DAYS[2], two_fit)
    reset_budget("dau", JANUARY, Fraction(9, 2), "The privacy officer", "A day was asked for by the board.", two_fit)
    publish("dau", DAYS[2], two_fit)
    with pytest.raises(BudgetRefused, match=r"its cap 4\.5"):
        publish("dau", DAYS[3], two_fit)
    assert len(two_fit.accountant.charges("dau", JANUARY)) == 3
    assert verification.problems(two_fit.settings, two_fit.accountant) == []


def test_nothing_that_was_spent_is_forgotten_by_an_override(two_fit: Store) -> None:
    before = budget_answer("dau", JANUARY, two_fit.settings, two_fit.accountant).summary
    reset_budget("dau", JANUARY, Fraction(4), "The privacy officer", "More was promised.", two_fit)
    after = budget_answer("dau", JANUARY, two_fit.settings, two_fit.accountant).summary
    assert after.epsilon_spent == before.epsilon_spent == 3.0
    assert (before.epsilon_cap, after.epsilon_cap, after.epsilon_remaining) == (3.0, 4.0, 1.0)


def test_every_later_report_shows_who_changed_the_cap_and_why(two_fit: Store) -> None:
    assert budget_answer("dau", JANUARY, two_fit.settings, two_fit.accountant).overrides == ()
    reset_budget("dau", JANUARY, Fraction(4), " The privacy officer ", "A reason.", two_fit)
    reset_budget("dau", JANUARY, Fraction(5), "Somebody else", "Another reason.", two_fit)
    shown = (
        CapOverride(4.0, "The privacy officer", "A reason.", date(2025, 3, 1)),
        CapOverride(5.0, "Somebody else", "Another reason.", date(2025, 3, 1)),
    )
    assert budget_answer("dau", JANUARY, two_fit.settings, two_fit.accountant).overrides == shown
    assert budget_answer("mau", JANUARY, two_fit.settings, two_fit.accountant).overrides == ()
    assert budget_answer("dau", FEBRUARY, two_fit.settings, two_fit.accountant).overrides == ()


def test_a_setting_changes_no_cap_of_a_month_that_was_charged(two_fit: Store) -> None:
    richer = replace(two_fit, settings=replace(two_fit.settings, dau_budget_total=Fraction(9)))
    with pytest.raises(BudgetRefused, match=r"its cap 3;"):
        publish("dau", DAYS[2], richer)
    publish("dau", FEBRUARY, richer)
    assert [richer.accountant.cap("dau", month) for month in (JANUARY, FEBRUARY, date(2025, 3, 1))] == [3, 9, None]


def test_overrides_are_kept_in_order_and_read_back_alike(two_fit: Store) -> None:
    overrides = [
        reset_budget("mau", FEBRUARY, Fraction(33, 10), "A", "B", two_fit),
        declare_erasures_submitted("C", "D", two_fit.clock, two_fit.accountant),
    ]
    assert (
        overrides
        == two_fit.accountant.overrides()
        == [
            Override("cap", "A", "B", TODAY, "mau", FEBRUARY, Fraction(33, 10)),
            Override("erasures_submitted", "C", "D", TODAY),
        ]
    )


@pytest.mark.parametrize(
    ("month", "epsilon", "who", "why", "reason"),
    [
        (JANUARY, Fraction(0), "A", "B", "0 is no cap"),
        (JANUARY, Fraction(-1), "A", "B", "-1 is no cap"),
        (JANUARY, Fraction(10) ** 400, "A", "B", "is no cap"),
        (JANUARY, 1 / Fraction(10) ** 400, "A", "B", "is no cap"),
        (JANUARY, Fraction(1), " ", "B", "needs a name and a reason"),
        (JANUARY, Fraction(1), "A", "", "needs a name and a reason"),
        (date(2024, 12, 1), Fraction(1), "A", "B", "before START_DATE"),
    ],
)
def test_an_override_without_a_positive_cap_a_month_a_name_or_a_reason_is_bad_input(
    make_store: Make, month: date, epsilon: Fraction, who: str, why: str, reason: str
) -> None:
    store = make_store(today=TODAY)
    with pytest.raises(BadInput, match=reason):
        reset_budget("dau", month, epsilon, who, why, store)
    assert store.accountant.overrides() == []


def test_a_changed_delta_admits_nothing_more_in_a_month_that_was_charged(make_store: Make) -> None:
    store = make_store(today=TODAY, dau_mechanism="gaussian", dau_budget_total=Fraction(2))
    prepare(store, DAYS)
    for day in DAYS[:15]:
        publish("dau", day, store)
    looser = replace(store, settings=replace(store.settings, delta=1e-3))
    admitted = 0
    for day in DAYS[15:31]:
        with suppress(BudgetRefused):
            publish("dau", day, looser)
            admitted += 1
    charged = total(cost(charge.mechanism) for charge in store.accountant.charges("dau", JANUARY))
    assert admitted and epsilon_of(charged, 1e-6) <= 2
    for delta in (1e-3, 1e-6, 1e-9):
        settings = replace(store.settings, delta=delta)
        assert verification.problems(settings, store.accountant) == []


def test_an_override_below_what_a_month_was_charged_is_refused(two_fit: Store) -> None:
    with pytest.raises(Refused, match=r"charged epsilon 3, which a cap of 2\.9 does not hold"):
        reset_budget("dau", JANUARY, Fraction(29, 10), "A", "B", two_fit)
    assert two_fit.accountant.overrides() == []


def test_an_override_under_which_the_living_stream_could_not_go_on_is_refused(make_store: Make) -> None:
    store = make_store(today=TODAY)
    prepare(store, DAYS[:30])
    publish("mau", DAYS[29], store)
    with pytest.raises(Refused, match=r"mau of 2025-06 is charged epsilon 3\.5"):
        reset_budget("mau", date(2025, 6, 1), Fraction(3), "A", "B", store)


def test_a_label_states_the_largest_cap_on_record_and_no_mechanism_that_was_not_used(two_fit: Store) -> None:
    reset_budget("dau", JANUARY, Fraction(9, 2), "A", "B", two_fit)
    smaller = replace(two_fit.settings, dau_budget_total=Fraction(1))
    assert settings_on_record(two_fit.accountant, smaller).dau_budget_total == Fraction(9, 2)
    with pytest.raises(Refused, match="was published by laplace; gaussian_shared is configured"):
        settings_on_record(two_fit.accountant, replace(two_fit.settings, dau_mechanism="gaussian_shared"))


def test_what_readers_have_seen_and_the_ledger_has_lost_is_never_overwritten(two_fit: Store) -> None:
    seen = two_fit.accountant.releases()
    verification.require_nothing_lost(seen, two_fit.accountant)
    for other in (
        replace(seen[1], noisy_value=seen[1].noisy_value + 1),
        replace(seen[1], half_width=seen[1].half_width + 1),
    ):
        with pytest.raises(Refused, match="is published with another number"):
            verification.require_nothing_lost([*seen, other], two_fit.accountant)
    with pytest.raises(Refused, match="is published, and not in the ledger"):
        verification.require_nothing_lost(
            [replace(seen[1], key=replace(seen[1].key, day=DAYS[30]))], two_fit.accountant
        )


def test_the_noise_of_a_restated_month_goes_whatever_mechanism_it_is_restated_by(make_store: Make) -> None:
    store = make_store(recipe=a_month_published)
    reset_budget("dau", JANUARY, Fraction(90), "A", "B", store)
    swapped = replace(store, settings=replace(store.settings, dau_mechanism="gaussian"))
    restate(JANUARY, swapped)
    with store.accountant.transaction() as transaction:
        assert transaction.shared_noise("dau-1-gaussian_shared-2025-01") is None
        assert transaction.shared_noise("dau-1-gaussian_shared-2025-02") is not None
