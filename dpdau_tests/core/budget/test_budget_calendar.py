"""The page of the budget calendar says what the code says."""

from __future__ import annotations

from datetime import date
from io import StringIO

from rich.console import Console

from dpdau_assets.cli.budget import forecast_table
from dpdau_assets.core.budget.forecast import forecast
from dpdau_assets.core.dates import first_window_end, month_of, next_month
from dpdau_assets.core.privacy.schedule import first_refusal
from dpdau_assets.core.settings import Settings
from dpdau_tests.support.project import PROJECT
from resources.ledger_sql.database import Database
from resources.ledger_sql.ledger import SqlLedger

PAGE = PROJECT / "docs" / "budget-calendar.md"


def the_years_table() -> str:
    written = StringIO()
    year = forecast(SqlLedger(Database("sqlite://")), Settings(), 12)
    Console(file=written, width=200).print(forecast_table(year))
    return "\n".join(line.strip() for line in written.getvalue().strip().splitlines())


def test_the_year_on_the_page_is_the_one_that_the_code_plans() -> None:
    assert f"\n\n{the_years_table()}\n\n" in PAGE.read_text(), the_years_table()


def test_the_page_names_the_days_on_which_the_configurations_of_its_examples_run_out() -> None:
    dau, mau = first_refusal(Settings(dau_mechanism="laplace")), first_refusal(Settings(mau_mechanism="gaussian"))
    assert dau and dau.day.day - 1 == 10
    assert mau and (mau.day - date(2025, 2, 1)).days == 35
    assert "lasts for 10 days" in PAGE.read_text() and "for 35 windows" in PAGE.read_text()


def test_the_page_counts_the_days_without_mau_that_a_change_costs() -> None:
    for last, free in ((date(2025, 1, 31), "2 March, with 29 days"), (date(2025, 2, 10), "30 March, with 47 days")):
        following = first_window_end(next_month(month_of(last)), 30)
        assert f"{following.day} {following:%B}, with {(following - last).days - 1} days" == free
        assert free in PAGE.read_text()
