"""`report`: what was published, what it promises and has cost, as one HTML file for readers and one for operators."""

from typing import Any

import dagster as dg

from dpdau_assets.core.ports.store import Mart, Store
from dpdau_assets.core.reporting.report import check_lines, operators_report, readers_report
from dpdau_assets.core.reporting.report_model import Reports
from dpdau_assets.orchestration.metadata import CODE_VERSION, DAILY, NO_USER_DATA, described, reveal
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once


def build_report() -> dg.AssetsDefinition:
    """Both files, replaced whole."""

    @dg.asset(
        metadata=described("privacy.md"),
        freshness_policy=DAILY,
        group_name="published",
        kinds={"html"},
        code_version=CODE_VERSION,
        owners=["team:privacy"],
        pool="mart",
        retry_policy=SAFE,
        deps=["active_users", "budget_report"],
        tags=NO_USER_DATA,
        description="Series, promise and budget, a file for readers; and one for operators, with erasures and checks.",
    )
    def report(
        outside: dg.ResourceParam[Store], mart: dg.ResourceParam[Mart], reports: dg.ResourceParam[Reports]
    ) -> dg.MaterializeResult:
        with refusals_fail_at_once():
            return dg.MaterializeResult(metadata=refresh_report(outside, mart, reports))

    return report


def refresh_report(outside: Store, mart: Mart, reports: Reports) -> dict[str, Any]:
    """Replace both files; the metadata of doing so."""
    paths = reports.replace(
        readers_report(outside.settings, outside.accountant), operators_report(outside, check_lines(outside, mart))
    )
    return reveal(
        {
            "readers_file": dg.MetadataValue.path(paths.readers),
            "operators_file": dg.MetadataValue.path(paths.operators),
        }
    )
