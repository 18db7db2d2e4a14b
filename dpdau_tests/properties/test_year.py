"""A year of daily releases and restatements on the real adapters ends as it was planned before the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest

from dpdau_assets.core.budget.forecast import MonthForecast, RefusedRelease, forecast
from dpdau_assets.core.dates import days_between, month_of, months_read
from dpdau_assets.core.errors import BudgetRefused
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.accounting import cost, epsilon_of, rho, total
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.publication.runs import DAU, MAU, RESTATEMENT, plan_run
from dpdau_assets.core.reporting.answers import budget_answer
from dpdau_assets.core.settings import Settings
from dpdau_tests.conftest import SECRET, FixedClock, prepare, put
from dpdau_tests.support.fast_folder import fast_folder
from dpdau_tests.support.lengths import at_length
from resources.store import open_store

BEGIN = date(2025, 1, 1)
FIRST_DATA = date(2024, 12, 3)  # the first whole window ends on the day on which publication begins


@pytest.mark.slow
def test_every_month_of_a_year_ends_as_planned_and_within_half_a_percent_of_its_cap() -> None:
    """In CI, of a quarter."""
    months = at_length(ci=3, soak=12)
    last = {3: date(2025, 5, 7), 12: date(2026, 2, 6)}[months]  # with its number, the stream's filter has left them
    with year_of(last) as store:
        planned = forecast(store.accountant, store.settings, months, BEGIN)
        assert not planned.refused
        refused = run(BEGIN, last, store)
        assert refused == []
        for row in planned.months:
            assert what_became_of(row, store) == row
            assert 0.995 * row.cap <= row.charged <= row.cap
            assert row.spent <= row.charged  # less where a short month ends before the noise's worst case, 60 windows
    whole = [row for row in planned.months if row.month >= BEGIN]
    assert [row.first_numbers + row.restatements for row in whole if row.metric == "dau"] == [
        62,
        56,
        62,
        60,
        62,
        60,
        62,
        62,
        60,
        62,
        60,
        62,
    ][:months]
    assert [row.first_numbers for row in whole if row.metric == "mau"] == [
        60,
        57,
        60,
        59,
        60,
        59,
        60,
        60,
        59,
        60,
        59,
        60,
    ][:months]


@pytest.mark.parametrize(
    ("months", "last"), [(1, date(2025, 3, 3)), pytest.param(3, date(2025, 5, 1), marks=pytest.mark.slow)]
)
def test_months_of_independent_noise_are_refused_on_the_planned_days_and_no_others(months: int, last: date) -> None:
    settings = {
        "dau_mechanism": "gaussian",
        "mau_mechanism": "laplace",
        "dau_budget_total": Fraction(2),
        "epsilon_mau": Fraction(1, 10),
        "mau_budget_total": Fraction(5),
    }
    with year_of(last, **settings) as store:
        planned = forecast(store.accountant, store.settings, months, BEGIN)
        refused = run(BEGIN, last, store)
        for row in planned.months:
            assert what_became_of(row, store) == replace(row, refused=0)
    assert {(refusal.release.metric, refusal.release.revision) for refusal in planned.refused} == {
        ("dau", 1),
        ("mau", 0),
    }
    assert refused == [refusal_of(refusal) for refusal in planned.refused if refusal.release.day <= last]


@contextmanager
def year_of(last: date, **settings: object) -> Iterator[Store]:
    """With a few users and all the state that publication up to this day reads."""
    with fast_folder() as folder:
        chosen = {"data_dir": folder, "hash_salt_secret": SECRET, "start_date": FIRST_DATA, **settings}
        store = replace(open_store(Settings(**chosen)), clock=FixedClock(date(2030, 1, 1)))  # type: ignore[arg-type]
        days = days_between(FIRST_DATA, last)
        put(store, [(f"user {n}", day) for day in days for n in range(5) if (day.day + n) % 3])
        prepare(store, days)
        yield store
        open_store.cache_clear()


def run(first: date, last: date, store: Store) -> list[tuple]:
    """Publish these days as `dpdau run` would, but past refusals; what was refused, in order."""
    refused = []
    work = {
        DAU: lambda day: publish("dau", day, store),
        MAU: lambda day: publish("mau", day, store),
        RESTATEMENT: lambda month: restate(month, store),
    }
    for step in plan_run(first, last, store):
        if step.kind in work:
            try:
                work[step.kind](step.day)
            except BudgetRefused as error:
                planned = {name: value for name, value in error.fields.items() if name != "next_day"}
                refused.append((step.kind, step.day, planned))
    return refused


def refusal_of(refused: RefusedRelease) -> tuple:
    job = RESTATEMENT if refused.release.revision else {"dau": DAU, "mau": MAU}[refused.release.metric]
    day = month_of(refused.release.day) if refused.release.revision else refused.release.day
    return job, day, refused.error.fields


def what_became_of(row: MonthForecast, store: Store) -> MonthForecast:
    """The row of the forecast, from what the ledger holds in the end."""
    metric, month, delta = row.metric, row.month, store.settings.delta
    releases = [
        release
        for release in store.accountant.releases(metric)
        if month in months_read(release.key.day, release.key.window_days)
    ]
    charged = total(cost(charge.mechanism) for charge in store.accountant.charges(metric, month))
    budget = budget_answer(metric, month, store.settings, store.accountant).summary
    due_days = [date.fromisoformat(release.published_at[:10]) for release in releases]
    restated = sum(release.key.revision for release in releases)
    return replace(
        row,
        cap=budget.epsilon_cap,
        first_numbers=len(releases) - restated,
        restatements=restated,
        refused=0,
        first_due=min(due_days),
        last_due=max(due_days),
        charged=epsilon_of(charged, delta),
        mu2=2 * rho(charged),
        spent=budget.epsilon_spent,
        headroom=budget.epsilon_cap - epsilon_of(charged, delta),
        mechanism=releases[-1].mechanism,
        half_width_95=releases[-1].half_width,
    )
