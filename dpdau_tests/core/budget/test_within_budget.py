"""How a number stands with the budget of the months that it reads, and the next day that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction

import pytest

from dpdau_assets.core.budget.dry_run import DryRunLedger
from dpdau_assets.core.budget.planning import require_open, require_room
from dpdau_assets.core.budget.within_budget import WithinBudget, next_day_that_fits, within_budget
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BadSetting, BudgetRefused, Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_tests.conftest import prepare, put

MakeStore = Callable[..., Store]
START = date(2025, 1, 1)
TODAY, TENTH = date(2025, 3, 10), date(2025, 1, 10)


def a_quarter(store: Store) -> None:
    prepare(store, days_between(START, date(2025, 3, 5)))


def published(store: Store, metric: str, first: date, last: date) -> Store:
    for day in days_between(first, last):
        publish(metric, day, store)  # type: ignore[arg-type]
    return store


def asked(metric: str, day: date, store: Store, refusal: Refused | None = None) -> WithinBudget:
    key = ReleaseKey(metric, store.settings.window_days(metric), day)  # type: ignore[arg-type]
    return within_budget(key, store.accountant, store.settings, refusal)


def january_is_spent(store: Store) -> None:
    """Ten days of DAU, which is all that its cap holds, and a few days of MAU."""
    a_quarter(store)
    published(with_ten_days_a_month(store), "dau", START, TENTH)
    published(store, "mau", date(2025, 1, 30), date(2025, 2, 3))


def with_ten_days_a_month(store: Store) -> Store:
    """Under settings that would not be loaded."""
    settings = replace(store.settings, dau_mechanism="laplace", epsilon_dau=Fraction(3, 10))
    return replace(store, settings=settings)


@pytest.fixture
def spent(make_store: MakeStore) -> Store:
    return with_ten_days_a_month(make_store(today=TODAY, recipe=january_is_spent))


def test_a_published_number_is_within_the_cap_that_its_month_was_charged_under(make_store: MakeStore) -> None:
    store = published(make_store(today=TODAY, recipe=a_quarter), "dau", START, START)
    standing = asked("dau", START, store)
    (month,) = standing.months
    assert standing.passed and month == standing.tightest and month.month == START
    assert month.charged == pytest.approx(3.0, abs=3e-3) and month.cap == 3.0 and 0 < month.left < 3e-3
    assert month.spent == pytest.approx(0.595, abs=0.01), "one of 62 numbers is out"
    assert standing.next_day == date(2025, 1, 2)
    assert standing.sentence.startswith("dau of 2025-01 is charged epsilon 2.998 of its cap 3;")
    assert standing.sentence.endswith("The next day that fits is 2025-01-02.")


def test_what_is_spent_grows_with_the_numbers_and_what_is_charged_does_not(make_store: MakeStore) -> None:
    store = published(make_store(today=TODAY, recipe=a_quarter), "dau", START, START)
    first = asked("dau", START, store).tightest
    later = asked("dau", START, published(store, "dau", date(2025, 1, 2), TENTH)).tightest
    assert later.spent > first.spent and later.charged == first.charged


def test_a_window_names_every_month_that_it_reads_and_the_tightest_of_them(make_store: MakeStore) -> None:
    store = published(make_store(today=TODAY, recipe=a_quarter), "mau", date(2025, 1, 30), date(2025, 3, 1))
    standing = asked("mau", date(2025, 3, 1), store)
    assert [month.month for month in standing.months] == [START, date(2025, 2, 1), date(2025, 3, 1)]
    assert {round(month.charged, 3) for month in standing.months} == {3.5}
    assert standing.passed and standing.next_day == date(2025, 3, 2)


def test_a_refused_number_says_why_in_which_month_and_which_day_fits(spent: Store) -> None:
    with pytest.raises(BudgetRefused) as refused:
        publish("dau", date(2025, 1, 11), spent)
    assert refused.value.fields["next_day"] == "2025-02-01"
    assert (refused.value.fields["charged"], refused.value.fields["cap"]) == (pytest.approx(3.0), 3.0)
    standing = asked("dau", date(2025, 1, 11), spent, refused.value)
    assert not standing.passed and standing.tightest.month == START and standing.next_day == date(2025, 2, 1)
    assert standing.tightest.left == pytest.approx(0)
    assert standing.sentence == f"{refused.value.reason} {refused.value.remedy}"
    assert publish("dau", date(2025, 2, 1), spent).key.day == date(2025, 2, 1)


def test_the_number_that_fills_a_month_passes_and_names_the_next_month(spent: Store) -> None:
    standing = asked("dau", TENTH, spent)
    assert standing.passed and standing.next_day == date(2025, 2, 1)


def test_a_refusal_that_the_budget_has_no_part_in_names_a_day_only_if_it_does_itself(spent: Store) -> None:
    assert asked("dau", TENTH, spent, Refused("There is no state.", "Build it.")).next_day is None
    named = Refused("It does not follow.", "Publish the other first.", next_day="2025-01-31")
    assert asked("mau", date(2025, 2, 3), spent, named).next_day == date(2025, 1, 31)


def test_a_stream_that_was_begun_otherwise_goes_on_with_the_first_free_window(spent: Store) -> None:
    changed = replace(spent, settings=replace(spent.settings, mau_budget_total=Fraction(3)))
    with pytest.raises(BudgetRefused) as refused:
        publish("mau", date(2025, 2, 4), changed)
    standing = asked("mau", date(2025, 2, 4), changed, refused.value)
    assert not standing.passed and standing.next_day == date(2025, 3, 30)
    assert next_day_that_fits(ReleaseKey("mau", 30, date(2025, 2, 4)), _draft(changed), changed.settings) == (
        standing.next_day
    ), "the release says it without trying days"


@pytest.mark.parametrize("after", [date(2025, 1, 10), date(2025, 1, 31), date(2025, 2, 27), date(2025, 3, 1)])
@pytest.mark.parametrize("metric", ["dau", "mau"])
def test_the_next_day_that_fits_is_the_first_of_all_days_that_does(metric: str, after: date, spent: Store) -> None:
    """Though only days on which a window reads other months are tried."""
    settings = replace(spent.settings, mau_budget_total=Fraction(3))  # so that another stream would begin
    key = ReleaseKey(metric, settings.window_days(metric), after)  # type: ignore[arg-type]
    ledger = _draft(spent)
    last = max(ledger.last_day(key.metric, key.window_days) or after, after)
    every = (replace(key, day=last + timedelta(days=distance)) for distance in range(1, 120))
    first = next(asked.day for asked in every if _fits(asked, ledger, replace(spent, settings=settings)))
    assert next_day_that_fits(key, ledger, settings) == first


def test_it_is_the_same_whoever_was_active(make_store: MakeStore) -> None:
    answers = []
    for name, people in (("with her", [("she", START)]), ("without", [])):
        store = make_store(name, today=TODAY)
        put(store, [*people, ("somebody", START)])
        prepare(store, [START])
        publish("dau", START, store)
        answers.append(asked("dau", START, store))
    assert answers[0] == answers[1]


def _draft(store: Store) -> DryRunLedger:
    return DryRunLedger(store.accountant, store.settings)


def _fits(key: ReleaseKey, ledger: DryRunLedger, store: Store) -> bool:
    try:
        require_open(key, ledger)
        require_room(key, ledger, store.settings)
    except (Refused, BadSetting):
        return False
    return True
