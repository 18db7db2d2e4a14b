"""The checks that speak of the whole store: run `check_store` in CI, or look at the assets in the UI.

Each only asks and words the answer. The check of a single day, `erasures_applied`, is written by the run that builds
the day; `no_pending_erasures` is written by the sensor too. A blocking check that fails makes `check_store` exit
with 1, one that is not blocking does not: waiting is no failure.
"""

import dagster as dg

from dpdau_assets.core import erasure, ledger_check, retention
from dpdau_assets.core.inspection import left_of_anyone, partition_of
from dpdau_assets.core.ports import Mart, Outside
from dpdau_assets.metadata import reveal

# A backfill from the UI runs every check of its assets once a partition, whatever a job leaves out; and a blocking
# check holds up what follows in the same run, which must be neither the rebuild that is overdue nor a release, whose
# time would tell of a request. So what reads everything, and what blocks, stands on an asset that has no partitions
# and that nothing follows.
_LAST = "active_users"


@dg.asset_check(asset="activity", description="No day waits to be rebuilt, and no erasure to be verified.")
def no_pending_erasures(outside: dg.ResourceParam[Outside]) -> dg.AssetCheckResult:
    pending = erasure.pending(outside)
    return dg.AssetCheckResult(
        passed=pending.is_none,
        metadata=reveal({"days_pending": len(pending.days)}),
        description=pending.sentence,
    )


@dg.asset_check(
    asset=_LAST,
    blocking=True,
    description=f"Every erasure was applied and verified within {erasure.DEADLINE_DAYS} days of its receipt.",
)
def erasures_within_deadline(outside: dg.ResourceParam[Outside]) -> dg.AssetCheckResult:
    late = bool(erasure.overdue(outside))
    return dg.AssetCheckResult(
        passed=not late,
        description="An erasure is past its deadline: `dpdau erasures` lists it." if late else "None is overdue.",
    )


@dg.asset_check(
    asset=_LAST,
    blocking=True,
    description="Nobody whose erasure was applied is left in any file.",
)
def no_erased_user_in_live_state(outside: dg.ResourceParam[Outside]) -> dg.AssetCheckResult:
    files = {_shown(survivor.file, outside) for survivor in left_of_anyone(outside)}
    return dg.AssetCheckResult(
        passed=not files,
        metadata=reveal({"places_left": sorted(files)}),
        description="Something is left of an erased person: `dpdau receipt` says where." if files else "None is left.",
    )


def _shown(file: str, outside: Outside) -> str:
    """A partition by its name; any other file not, since whoever put it there may have named it after a person."""
    places = (partition_of(name, outside) for name in (file, f"{file}.parquet", f"{file}.sketch"))
    return next((str(place) for place in places if place), "a file that is no partition")


@dg.asset_check(
    asset=_LAST,
    blocking=True,
    description="The ledger is as it was written, every number was charged within its cap, the mart shows no other.",
)
def ledger_holds(outside: dg.ResourceParam[Outside], mart: dg.ResourceParam[Mart]) -> dg.AssetCheckResult:
    found = len(ledger_check.problems(outside, mart.read()))
    return dg.AssetCheckResult(
        passed=not found,
        description=f"{found} problem(s): `dpdau verify-ledger` lists them." if found else "The ledger is whole.",
    )


@dg.asset_check(asset=_LAST, description="No day is kept for longer than RETENTION_DAYS.")
def retention_on_time(outside: dg.ResourceParam[Outside]) -> dg.AssetCheckResult:
    late = retention.overdue(outside)
    return dg.AssetCheckResult(
        passed=not late,
        description=f"{len(late)} day(s) up to {late[-1]} should be purged by now." if late else "No day is overdue.",
    )


ALL = (
    no_pending_erasures,
    erasures_within_deadline,
    no_erased_user_in_live_state,
    ledger_holds,
    retention_on_time,
)
