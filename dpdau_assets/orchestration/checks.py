"""The checks of `core.reporting.checks` as Dagster's: run `check_store` in CI, or look at the assets in the UI.

The four checks of one partition (`orchestration.recorder.ANSWERED_IN_RUNS`) are written by the run that makes it, and
`no_pending_erasures` by the sensor too. A blocking check that fails makes `check_store` exit with
1; `dpdau check` ends non-zero for the others too, but for one that only says that work is under way.
"""

import logging
from typing import Any, cast

import dagster as dg

from dpdau_assets.core.erasure.requests import waiting_days
from dpdau_assets.core.ports.store import Alerts, Mart, Store
from dpdau_assets.core.reporting.checks import CHECKS, Check, answer, tampering_in
from dpdau_assets.core.telling import telling
from dpdau_assets.orchestration.metadata import erasure_queue, reveal
from dpdau_assets.orchestration.project import NotAsked, Project

# A backfill from the UI runs every check of its assets once a partition, whatever a job leaves out; and a blocking
# check holds up what follows in the same run, which must be neither the rebuild that is overdue nor a release, whose
# time would tell of a request. So what reads everything, and what blocks, stands on an asset that has no partitions
# and that nothing but the report follows.
LAST = "report"
_PENDING, _DEADLINE = "no_pending_erasures", "erasures_within_deadline"


_log = logging.getLogger("dpdau.messages")

ASKED_OF = {
    _PENDING: ("clock", "accountant", "erasure_ledger", "state"),
    _DEADLINE: ("clock", "erasure_ledger"),
    "no_erased_user_in_live_state": ("erasure_ledger", "events", "state", "sketches"),
    "state_is_keyed": ("accountant", "state", "alerts"),
    "no_older_files": ("state", "alerts"),
    "sketches_are_fresh": ("state", "sketches"),
    "few_rows_rejected": ("clock", "events"),
    "ledger_holds": ("accountant", "mart", "alerts"),
    "noise_is_private": ("accountant", "noise", "alerts"),
    "configuration_is_feasible": ("accountant",),
    "published_on_time": ("clock", "accountant", "events"),
    "restatement_on_time": ("accountant",),
    "retention_on_time": ("clock", "state"),
}
"""The resources that each check of the whole store asks."""


def build_checks(project: Project) -> list[dg.AssetChecksDefinition]:
    """All checks of the whole store."""
    return [_asset_check(project, check) for check in CHECKS]


def _asset_check(project: Project, check: Check) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=project.asset("activity" if check.name == _PENDING else LAST),
        name=check.name,
        description=check.guards,
        blocking=check.blocking,
        required_resource_keys={project.name(name) for name in ASKED_OF[check.name]},
    )
    def asked(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        parts = {name: getattr(context.resources, project.name(name)) for name in ASKED_OF[check.name]}
        mart = cast(Mart, parts.pop("mart", NotAsked("mart")))
        alerts = cast(Alerts, parts.pop("alerts", NotAsked("alerts")))
        store = project.store(context.instance, **cast(dict[str, Any], parts))
        verdict = answer(check, store, mart)
        if check.tampering:
            with telling(_log.error):
                alerts.note(tampering_in([(check, verdict)]))
        return dg.AssetCheckResult(
            passed=verdict.passed,
            severity=severity(check),
            description=verdict.sentence,
            metadata=reveal(_metadata(check, verdict.places, store)),
        )

    return asked


def severity(check: Check) -> dg.AssetCheckSeverity:
    """A warning where nothing has failed yet."""
    return dg.AssetCheckSeverity.WARN if check.waiting else dg.AssetCheckSeverity.ERROR


def _metadata(check: Check, places: tuple[str, ...], store: Store) -> dict[str, object]:
    """The queue of erasures by age where it is about them, and how many days are pending, which is plotted; elsewhere
    the places are named, if there are any.
    """
    if check.name == _PENDING:
        return {"days_pending": len(places), **erasure_queue(waiting_days(store.clock, store.erasures))}
    if check.name == _DEADLINE:
        return erasure_queue(waiting_days(store.clock, store.erasures))
    return {"places": list(places)} if places else {}
