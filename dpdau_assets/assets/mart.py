"""`active_users`, the mart for BI, and `budget_report`: published numbers and what they cost, no user data."""

import dagster as dg

from dpdau_assets.core.answers import budget_rows, budget_table, mart_rows
from dpdau_assets.core.ledger_check import require_nothing_lost
from dpdau_assets.core.ports import Mart, Outside
from dpdau_assets.metadata import NO_USER_DATA, reveal


def build_active_users() -> dg.AssetsDefinition:
    """The whole series as a DuckDB table, a CSV and a chart, replaced at once."""

    @dg.asset(
        group_name="published", kinds={"duckdb", "csv"}, code_version="1", owners=["team:data-platform"],
        deps=["dau_release", "mau_release", "dau_restatement"], pool="mart", tags=NO_USER_DATA,
        description="Every published DAU and MAU with its 95 % interval.",
    )  # fmt: skip
    def active_users(outside: dg.ResourceParam[Outside], mart: dg.ResourceParam[Mart]) -> dg.MaterializeResult:
        require_nothing_lost(mart.read(), outside)
        rows = mart_rows(outside)
        files = mart.replace(rows)
        return dg.MaterializeResult(
            metadata=reveal(
                {
                    "days_published": len({row["day"] for row in rows}),
                    "sparkline": dg.MetadataValue.md(files.sparkline_in_markdown),
                    "chart": dg.MetadataValue.md(files.chart_in_markdown),
                    "chart_file": dg.MetadataValue.path(files.chart),
                    "table": dg.MetadataValue.path(files.table),
                    "csv": dg.MetadataValue.path(files.csv),
                }
            )
        )

    return active_users


def build_budget_report() -> dg.AssetsDefinition:
    """What every month has spent of its caps, and what is planned."""

    @dg.asset(
        group_name="published", kinds={"report"}, code_version="1", owners=["team:privacy"], pool="ledger",
        deps=["dau_release", "mau_release", "dau_restatement"], tags=NO_USER_DATA,
        description="Privacy budget by metric and month.",
    )  # fmt: skip
    def budget_report(outside: dg.ResourceParam[Outside]) -> dg.MaterializeResult:
        return dg.MaterializeResult(
            metadata=reveal({"budget": dg.MetadataValue.md(budget_table(budget_rows(outside)))})
        )

    return budget_report
