"""`active_users`, the mart for BI, and `budget_report`: published numbers and what they cost, no user data."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from dpdau_assets.core.budget.verification import require_nothing_lost
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Mart, Store
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.reporting.answers import budget_rows, mart_rows
from dpdau_assets.core.reporting.budget_bars import bars_in_markdown, budget_bars
from dpdau_assets.orchestration.metadata import CODE_VERSION, DAILY, NO_USER_DATA, described, reveal
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once
from dpdau_assets.orchestration.tables import budget_table, last_days


def build_active_users(project: Project) -> dg.AssetsDefinition:
    """The whole series as a DuckDB table, a CSV and a chart, replaced at once."""

    @dg.asset(
        key=project.asset("active_users"),
        metadata=described("privacy.md"),
        freshness_policy=DAILY,
        group_name=project.name("published"),
        kinds={"duckdb", "csv"},
        code_version=CODE_VERSION,
        owners=["team:data-platform"],
        deps=[project.asset(name) for name in ("dau_release", "mau_release", "dau_restatement")],
        pool=project.name("mart"),
        retry_policy=SAFE,
        tags=NO_USER_DATA,
        description="Every published DAU and MAU with its 95 % interval.",
    )
    @project.asking
    def active_users(
        accountant: dg.ResourceParam[Ledger], mart: dg.ResourceParam[Mart], duckdb: DuckDBResource
    ) -> dg.MaterializeResult:
        with refusals_fail_at_once():
            return dg.MaterializeResult(metadata=refresh_mart(project.store(accountant=accountant), mart, duckdb))

    return active_users


def build_budget_report(project: Project) -> dg.AssetsDefinition:
    """What every month has spent of its caps, and what is planned."""

    @dg.asset(
        key=project.asset("budget_report"),
        metadata=described("budget-calendar.md"),
        freshness_policy=DAILY,
        group_name=project.name("published"),
        kinds={"report"},
        code_version=CODE_VERSION,
        owners=["team:privacy"],
        pool=project.name("ledger"),
        retry_policy=SAFE,
        deps=[project.asset(name) for name in ("dau_release", "mau_release", "dau_restatement")],
        tags=NO_USER_DATA,
        description="Privacy budget by metric and month.",
    )
    @project.asking
    def budget_report(accountant: dg.ResourceParam[Ledger]) -> dg.MaterializeResult:
        with refusals_fail_at_once():
            return dg.MaterializeResult(metadata=refresh_budget_report(project.store(accountant=accountant)))

    return budget_report


def refresh_mart(store: Store, mart: Mart, duckdb: DuckDBResource) -> dict[str, Any]:
    """Replace the mart's files; the metadata of doing so."""
    require_nothing_lost(mart.read(), store.accountant)
    rows = mart_rows(store.accountant)
    files = mart.replace(rows, partial(connected, duckdb))
    return reveal(
        {
            "days_published": len({row.key.day for row in rows}),
            **{
                f"last_{metric}": str(max(days))
                for metric in METRICS
                if (days := [row.key.day for row in rows if row.key.metric == metric])
            },
            "sparkline": dg.MetadataValue.md(files.sparkline_in_markdown),
            "chart": dg.MetadataValue.md(files.chart_in_markdown),
            "last_days": last_days(rows),
            "chart_file": dg.MetadataValue.path(files.chart),
            "table": dg.MetadataValue.path(files.table),
            "csv": dg.MetadataValue.path(files.csv),
        }
    )


@contextmanager
def connected(duckdb: DuckDBResource) -> Iterator[Any]:
    """The resource's connection, closed whatever happens: its own context manager leaves it open after an exception."""
    with duckdb.get_connection() as connection:
        try:
            yield connection
        finally:
            connection.close()


def refresh_budget_report(store: Store) -> dict[str, Any]:
    """The metadata in which the budget is shown."""
    with store.accountant.snapshot() as ledger:
        bars, rows = budget_bars(store.settings, ledger), budget_rows(store.settings, ledger)
    return reveal({"budget_bars": dg.MetadataValue.md(bars_in_markdown(bars)), "budget": budget_table(rows)})
