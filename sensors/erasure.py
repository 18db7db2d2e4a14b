"""The erasure sensor: from requests in the ledger to marked days, their rebuilds, and the receipts.

Marks are edge-triggered: each is told to Dagster once, as an event of `erasures` that turns the day stale. Rebuilds
are level-triggered: a day that is behind its mark in our own ledger gets a run, whatever Dagster remembers. So a tick
that is repeated, dies half way or overlaps another costs an event at most; runs are told apart by their keys.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (  # not public, and nothing else says it
    AssetCheckEvaluationTargetMaterializationData as Target,
)

from dpdau_assets.core.erasure import Pending, mark_touched, pending
from dpdau_assets.core.ports import Outside
from dpdau_assets.jobs import STATE, VERIFICATION
from dpdau_assets.metadata import reveal

EVENTS_PER_TICK = 500
RUNS_PER_TICK = 50
ATTEMPTS = 3

TASK = "dpdau/erasure"
"""The tag that says what a run is for: `DAY/MARK`, or `verify/NAME`."""


@dataclass(frozen=True)
class Cursor:
    """The last mark and day that Dagster was told of, and what the last check result said of which materialisation."""

    mark: int = 0
    day: str = ""
    shown: tuple[int, bool, int] | None = None

    @classmethod
    def read(cls, text: str | None) -> "Cursor":
        values = json.loads(text) if text else asdict(cls())
        return cls(values["mark"], values["day"], values["shown"] and tuple(values["shown"]))

    def text(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Tries:
    """The runs of one task so far: whether one is under way, and the keys that are used up.

    A run that was made but never launched counts as none: asked for by its key again, Dagster launches it.
    """

    under_way: bool = False
    keys: frozenset[str] = frozenset()


def build_erasure_sensor() -> dg.SensorDefinition:
    """On from the start: an erasure must not wait until somebody switches it on."""

    @dg.sensor(
        jobs=[STATE, VERIFICATION], minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING,
        description="Marks the days that erasures touch, has them rebuilt, and then has the erasures verified.",
    )  # fmt: skip
    def erasure_sensor(context: dg.SensorEvaluationContext, outside: dg.ResourceParam[Outside]) -> dg.SensorResult:
        mark_new(outside)
        tries = tries_of(tasks_of(pending(outside)), context.instance)
        found = pending(outside)  # after the runs: one that ends in between must not look as if it had done nothing
        events, told = what_to_tell(found, Cursor.read(context.cursor), context.instance)
        wanted = wanted_runs(found, tries, outside.clock.today())
        return dg.SensorResult(wanted, cursor=told.text(), asset_events=events)

    return erasure_sensor


def mark_new(outside: Outside) -> None:
    """Mark the days of new requests. Without any the lock is left alone, which a long fold may hold."""
    if outside.erasures.recorded() != outside.rebuilds.marked():
        with outside.activity.lock():
            mark_touched(outside)


# --- What to tell ------------------------------------------------------------------------------------------------

Told = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation


def what_to_tell(found: Pending, cursor: Cursor, instance: dg.DagsterInstance) -> tuple[list[Told], Cursor]:
    """New marks, and the check's result where it changed; and the cursor once that is told."""
    new = sorted((mark, day.isoformat()) for day, mark in found.days)
    new = [one for one in new if one > (cursor.mark, cursor.day)][:EVENTS_PER_TICK]
    events: list[Told] = [told_mark(day, mark) for mark, day in new]
    target = _last_activity(instance)
    shown = (len(found.days), bool(found.receipts), target.storage_id if target else 0)
    if shown != cursor.shown:
        events.append(told_pending(found, target))
    mark, day = new[-1] if new else (cursor.mark, cursor.day)
    return events, Cursor(mark, day, shown)


def told_mark(day: str, mark: int) -> dg.AssetMaterialization:
    """The day has another mark, so what was built from it is stale."""
    return dg.AssetMaterialization("erasures", partition=day, tags={"dagster/data_version": str(mark)})


def told_pending(found: Pending, target: Target | None) -> dg.AssetCheckEvaluation:
    """The check's result, on the newest materialisation: the graph shows no other one. Never one of a partition:
    the second such event outside of a run breaks an index, and every later tick.
    """
    return dg.AssetCheckEvaluation(
        dg.AssetKey("activity"), "no_pending_erasures", passed=found.is_none,
        metadata=reveal({"days_pending": len(found.days)}), target_materialization_data=target,
        description=found.sentence,
    )  # fmt: skip


def _last_activity(instance: dg.DagsterInstance) -> Target | None:
    records = instance.fetch_materializations(dg.AssetKey("activity"), limit=1).records
    targets = (Target(storage_id=one.storage_id, run_id=one.run_id, timestamp=one.timestamp) for one in records)
    return next(targets, None)


# --- What to run -------------------------------------------------------------------------------------------------


def wanted_runs(found: Pending, tries: Mapping[str, Tries], today: date) -> list[dg.RunRequest]:
    """A rebuild of each day that is behind; once none is left that a rebuild could help, the verification.

    A day whose rebuilds have all failed is left to people, and does not hold up the verification of others.
    """
    behind = {task: day for day, task in _rebuilds(found) if not _is_given_up(task, tries)}
    if not behind:
        return _wanted_verification(found, tries, today)
    idle = [task for task in behind if not _of(task, tries).under_way]
    room = max(RUNS_PER_TICK - (len(behind) - len(idle)), 0)
    return [
        dg.RunRequest(_free_key(task, tries), job_name=STATE.name, partition_key=behind[task], tags={TASK: task})
        for task in idle[:room]
    ]


def tasks_of(found: Pending) -> list[str]:
    """What may have to be run for all this."""
    return [*(task for _, task in _rebuilds(found)), _verification(found)]


def tries_of(tasks: list[str], instance: dg.DagsterInstance) -> Mapping[str, Tries]:
    """What Dagster knows of the runs for these tasks."""
    runs = instance.get_runs(dg.RunsFilter(tags={TASK: tasks}))
    launched = [run for run in runs if run.status != dg.DagsterRunStatus.NOT_STARTED]
    under_way = {run.tags[TASK] for run in launched if not run.is_finished}
    keys: dict[str, set[str]] = defaultdict(set)
    for run in launched:
        keys[run.tags[TASK]].add(run.tags.get("dagster/run_key", ""))
    return {task: Tries(task in under_way, frozenset(keys[task])) for task in tasks}


def _wanted_verification(found: Pending, tries: Mapping[str, Tries], today: date) -> list[dg.RunRequest]:
    """A few attempts, then one a day: what is left of somebody has to be looked at by a person."""
    task = _verification(found)
    tried = _of(task, tries)
    key = _free_key(task, tries) or f"erase/{task}/{today}"
    if not found.receipts or tried.under_way or key in tried.keys:
        return []
    return [dg.RunRequest(key, job_name=VERIFICATION.name, tags={TASK: task})]


def _free_key(task: str, tries: Mapping[str, Tries]) -> str | None:
    """The key of the next attempt: Dagster never runs one key twice, and never repeats a failed run by itself."""
    used = _of(task, tries).keys
    return next((key for attempt in range(ATTEMPTS) if (key := f"erase/{task}/{attempt}") not in used), None)


def _is_given_up(task: str, tries: Mapping[str, Tries]) -> bool:
    return _free_key(task, tries) is None and not _of(task, tries).under_way


def _of(task: str, tries: Mapping[str, Tries]) -> Tries:
    return tries.get(task, Tries())


def _rebuilds(found: Pending) -> list[tuple[str, str]]:
    """Each day that is behind, and the name of its rebuild."""
    return [(day.isoformat(), f"{day}/{mark}") for day, mark in found.days]


def _verification(found: Pending) -> str:
    """Named after what waits, by a hash of receipts, which are random: it tells neither them nor how many they are."""
    return f"verify/{hashlib.sha256(' '.join(sorted(found.receipts)).encode()).hexdigest()[:16]}"
