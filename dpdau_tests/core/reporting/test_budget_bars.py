"""The budget as bars: what is spent, what is charged or planned, and what is free, by month."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answers import budget_answer
from dpdau_assets.core.reporting.budget_bars import MONTHS_AHEAD, MONTHS_BACK, Bar, bars_in_markdown, budget_bars
from dpdau_tests.conftest import prepare

DAY = date(2025, 1, 31)
INLINE = 1000  # the most letters that Dagster shows in place


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    """Two days of DAU and MAU, over the end of a month."""
    store = make_store()
    days = [DAY, DAY + timedelta(days=1)]
    prepare(store, days_between(date(2025, 1, 1), days[-1]))
    for day in days:
        publish("dau", day, store)
        publish("mau", day, store)
    return store


def test_each_begun_month_shows_what_its_numbers_have_cost_and_the_coming_ones_what_is_planned(
    store: Store,
) -> None:
    bars = {(bar.month, bar.metric): bar for bar in budget_bars(store.settings, store.accountant)}
    january, february, march = (date(2025, month, 1) for month in (1, 2, 3))
    spent = budget_answer("dau", january, store.settings, store.accountant)
    assert bars[january, "dau"].spent == spent.summary.epsilon_spent > 0
    assert (bars[january, "dau"].published, bars[february, "dau"].published) == (1, 1)
    assert bars[february, "dau"].planned == 28 * 2
    assert (bars[january, "mau"].published, bars[february, "mau"].published) == (2, 1)  # both windows read January
    assert bars[january, "mau"].spent > bars[february, "mau"].spent > 0
    assert (bars[march, "mau"].spent, bars[march, "mau"].published) == (0.0, 0)
    assert bars[march, "mau"].charged == pytest.approx(3.5, abs=0.05)


def test_a_store_without_a_number_shows_what_is_planned(make_store: Callable[..., Store]) -> None:
    empty = make_store()
    bars = budget_bars(empty.settings, empty.accountant)
    assert {bar.spent for bar in bars} == {0.0}
    assert {bar.metric for bar in bars} == {"dau", "mau"}
    assert all(bar.charged <= bar.cap * 1.001 for bar in bars)


def test_a_metric_that_has_not_begun_for_years_adds_no_months(make_store: Callable[..., Store]) -> None:
    store = make_store(start_date=date(2020, 1, 1))
    prepare(store, [DAY])
    publish("dau", DAY, store)
    months = sorted({bar.month for bar in budget_bars(store.settings, store.accountant)})
    assert months == [date(2025, 1, 1), date(2025, 2, 1), date(2025, 3, 1)]


def test_what_is_not_nothing_has_a_place_in_the_bar() -> None:
    text = Bar(DAY, "dau", 0.001, 1.5, 3.0, 1, 62).text()
    assert text == "2025-01 dau █▒▒▒▒▒▒▒▒▒·········· 0.00 of 3.00, 1 of 62 numbers"


def test_a_month_beyond_its_cap_has_a_longer_bar() -> None:
    assert Bar(DAY, "dau", 4.5, 6.0, 3.0, 1, 62).text().count("█") == 30


def test_as_many_months_as_there_can_be_fit_where_dagster_shows_them_in_place() -> None:
    most = 2 * (MONTHS_BACK + MONTHS_AHEAD)
    assert len(bars_in_markdown([Bar(DAY, "dau", 1.0, 2.0, 3.0, 31, 62)] * most)) < INLINE
