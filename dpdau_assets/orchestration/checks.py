"""The checks of `core.reporting.checks` as Dagster's: run `check_store` in CI, or look at the assets in the UI.

Those of a single partition are answered by the run that makes it (`recorder.ANSWERED_IN_RUNS`), and no job over checks
can ask them, having no partition. `no_pending_erasures` is written by the sensor too. A blocking check that fails makes
`check_store` exit with 1; `dpdau check` ends non-zero for the others too, but for one that only says that work is under
way.
"""

import dagster as dg

from dpdau_assets.core.erasure.requests import waiting_days
from dpdau_assets.core.ports.store import Mart, Store
from dpdau_assets.core.reporting.checks import CHECKS, Check, answer
from dpdau_assets.orchestration.metadata import erasure_queue, reveal

# A backfill from the UI runs every check of its assets once a partition, whatever a job leaves out; and a blocking
# check holds up what follows in the same run, which must be neither the rebuild that is overdue nor a release, whose
# time would tell of a request. So what reads everything, and what blocks, stands on an asset that has no partitions
# and that nothing but the report follows.
LAST = "report"
_PENDING, _DEADLINE = "no_pending_erasures", "erasures_within_deadline"


def _asset_check(check: Check) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset="activity" if check.name == _PENDING else LAST,
        name=check.name,
        description=check.guards,
        blocking=check.blocking,
    )
    def asked(outside: dg.ResourceParam[Store], mart: dg.ResourceParam[Mart]) -> dg.AssetCheckResult:
        found = answer(check, outside, mart)
        return dg.AssetCheckResult(
            passed=found.passed,
            severity=severity(check),
            description=found.sentence,
            metadata=reveal(_metadata(check, found.places, outside)),
        )

    return asked


def severity(check: Check) -> dg.AssetCheckSeverity:
    """A warning where nothing has failed yet."""
    return dg.AssetCheckSeverity.WARN if check.waiting else dg.AssetCheckSeverity.ERROR


def _metadata(check: Check, places: tuple[str, ...], outside: Store) -> dict[str, object]:
    """The queue of erasures by age where it is about them, and how many days are pending, which is plotted; elsewhere
    the places are named, if there are any.
    """
    if check.name == _PENDING:
        return {"days_pending": len(places), **erasure_queue(waiting_days(outside.clock, outside.erasures))}
    if check.name == _DEADLINE:
        return erasure_queue(waiting_days(outside.clock, outside.erasures))
    return {"places": list(places)} if places else {}


ALL = tuple(_asset_check(check) for check in CHECKS)
