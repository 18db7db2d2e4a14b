"""`report`: what was published, what it promises and has cost, as one HTML file for readers and one for operators."""

import logging
from typing import Any

import dagster as dg

from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Clock, Erasures, Events, Mart, Noise, State, Store
from dpdau_assets.core.reporting.digest import Digests, digest_of
from dpdau_assets.core.reporting.report import check_lines, operators_report, readers_report
from dpdau_assets.core.reporting.report_model import Reports
from dpdau_assets.core.telling import telling
from dpdau_assets.orchestration.metadata import CODE_VERSION, DAILY, NO_USER_DATA, described, reveal
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once

_log = logging.getLogger("dpdau.messages")


def build_report(project: Project) -> dg.AssetsDefinition:
    """The asset of the readers' and the operators' report, whose files are replaced whole."""

    @dg.asset(
        key=project.asset("report"),
        metadata=described("privacy.md"),
        freshness_policy=DAILY,
        group_name=project.name("published"),
        kinds={"html"},
        code_version=CODE_VERSION,
        owners=["team:privacy"],
        pool=project.name("mart"),
        retry_policy=SAFE,
        deps=[project.asset("active_users"), project.asset("budget_report")],
        tags=NO_USER_DATA,
        description="Series, promise and budget, a file for readers; and one for operators, with erasures and checks.",
    )
    @project.asking
    def report(
        context: dg.AssetExecutionContext,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
        noise: dg.ResourceParam[Noise],
        mart: dg.ResourceParam[Mart],
        reports: dg.ResourceParam[Reports],
        alerts: dg.ResourceParam[Digests],  # the one resource that tells people, here of the digest
    ) -> dg.MaterializeResult:
        store = project.store(
            context.instance,
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        with refusals_fail_at_once():
            return dg.MaterializeResult(metadata=refresh_report(store, mart, reports, alerts))

    return report


def refresh_report(store: Store, mart: Mart, reports: Reports, digests: Digests) -> dict[str, Any]:
    """Replace both files, and send the digest of the last due day once; the metadata of doing so."""
    for_operators = operators_report(store, check_lines(store, mart))
    paths = reports.replace(readers_report(store.settings, store.accountant), for_operators)
    digest = digest_of(for_operators, store.accountant)
    if digest is not None:
        with telling(_log.error):
            digests.digest(digest)
    return reveal(
        {
            "readers_file": dg.MetadataValue.path(paths.readers),
            "operators_file": dg.MetadataValue.path(paths.operators),
        }
    )
