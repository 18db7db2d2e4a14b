"""The erasure sensor: from requests in the ledger to marked days, their rebuilds, and the receipts.

Marks are edge-triggered: each is told to Dagster once, as an event of `erasures` that turns the day stale. Rebuilds
are level-triggered: while days are behind their marks in our own ledger, one run is asked for that builds them all,
whatever Dagster remembers. So a tick that is repeated, dies half way or overlaps another costs an event at most.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date

import dagster as dg

from dpdau_assets.core.erasure.requests import WaitingDay, waiting_days
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Clock, Erasures, State, Store
from dpdau_assets.core.state.touched import Pending, mark_touched, pending
from dpdau_assets.orchestration.jobs import Jobs
from dpdau_assets.orchestration.metadata import erasure_queue, reveal
from dpdau_assets.orchestration.private import Target
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.recorder import ACTIVITY, Recorder, mark_of
from sensors.attempts import TASK, Tries, is_given_up, next_key, task_name, tries_of

EVENTS_PER_TICK = 500


@dataclass(frozen=True)
class Cursor:
    """The last mark and day that Dagster was told of, and what the last check result said of which materialisation:
    how many days are pending, since how many days a request has waited, and the materialisation.
    """

    mark: int = 0
    day: str = ""
    shown: tuple[int, int | None, int] | None = None

    @classmethod
    def read(cls, text: str | None) -> "Cursor":
        values = json.loads(text) if text else asdict(cls())
        return cls(values["mark"], values["day"], values["shown"] and tuple(values["shown"]))

    def text(self) -> str:
        return json.dumps(asdict(self))


def build_erasure_sensor(project: Project, jobs: Jobs) -> dg.SensorDefinition:
    """On from the start: an erasure must not wait until somebody switches it on."""

    @dg.sensor(
        name=project.name("erasure_sensor"),
        jobs=[jobs.rebuild, jobs.verification],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Marks the days that erasures touch, has them rebuilt, and then has the erasures verified.",
    )
    @project.asking
    def erasure_sensor(
        context: dg.SensorEvaluationContext,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        state: dg.ResourceParam[State],
    ) -> dg.SensorResult:
        store = project.store(clock=clock, accountant=accountant, erasure_ledger=erasure_ledger, state=state)
        mark_new(store)
        tries = tries_of(tasks_of(pending(store), project), context.instance)
        open_work = pending(store)  # after the runs: one that ends in between must not look as if it had done nothing
        cursor = Cursor.read(context.cursor)
        waiting = waiting_days(clock, erasure_ledger)
        events, told = what_to_tell(open_work, waiting, cursor, project, context.instance)
        wanted = wanted_runs(open_work, tries, clock.today(), project, jobs)
        return dg.SensorResult(wanted, cursor=told.text(), asset_events=events)

    return erasure_sensor


def mark_new(store: Store) -> None:
    """Mark the days of new requests. Without any the lock is left alone, which a long fold may hold."""
    if store.erasures.ledger.recorded() != store.state.rebuilds.marked():
        with store.state.activity.lock():
            mark_touched(store)


# --- What to tell ------------------------------------------------------------------------------------------------

Reported = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation


def what_to_tell(
    open_work: Pending, waiting: Sequence[WaitingDay], cursor: Cursor, project: Project, instance: dg.DagsterInstance
) -> tuple[list[Reported], Cursor]:
    """New marks, and the check's result where it changed, once a day at least while something waits; and the cursor
    once that is told.
    """
    new = sorted((mark, day.isoformat()) for day, mark in open_work.days)
    new = [mark_and_day for mark_and_day in new if mark_and_day > (cursor.mark, cursor.day)][:EVENTS_PER_TICK]
    events: list[Reported] = [
        mark_of(date.fromisoformat(day), str(mark)).materialization(project, {}) for mark, day in new
    ]
    activity = project.asset(ACTIVITY)
    target = Recorder(project, instance).last(ACTIVITY)
    oldest = max((day.age_days for day in waiting), default=None)
    shown = (len(open_work.days), oldest, target.storage_id if target else 0)
    if shown != cursor.shown:
        events.append(reported_pending(activity, open_work, waiting, target))
    mark, day = new[-1] if new else (cursor.mark, cursor.day)
    return events, Cursor(mark, day, shown)


def reported_pending(
    activity: dg.AssetKey, open_work: Pending, waiting: Sequence[WaitingDay], target: Target | None
) -> dg.AssetCheckEvaluation:
    """The check's result, on the newest materialisation: the graph shows no other one. Never one of a partition:
    the second such event outside of a run breaks an index, and every later tick.
    """
    return dg.AssetCheckEvaluation(
        activity,
        "no_pending_erasures",
        passed=open_work.is_none,
        metadata=reveal({"days_pending": len(open_work.days), **erasure_queue(waiting)}),
        target_materialization_data=target,
        description=open_work.sentence,
    )


# --- What to run -------------------------------------------------------------------------------------------------


def wanted_runs(
    open_work: Pending, tries: Mapping[str, Tries], today: date, project: Project, jobs: Jobs
) -> list[dg.RunRequest]:
    """A rebuild of all days that are behind; once it could help no more, the verification.

    Days whose rebuild has failed a few times are left to people, and do not hold up the verification of others; the
    rebuild is tried once a day all the same.
    """
    rebuild, verification = tasks_of(open_work, project)
    wanted = []
    if open_work.days:
        wanted.append((rebuild, jobs.rebuild.name))
    if open_work.receipts and (not open_work.days or is_given_up(rebuild, tries)):
        wanted.append((verification, jobs.verification.name))
    keyed = ((task, job, next_key(task, tries, today)) for task, job in wanted)
    return [dg.RunRequest(key, job_name=job, tags={TASK: task}) for task, job, key in keyed if key]


def tasks_of(open_work: Pending, project: Project) -> tuple[str, str]:
    """The rebuild of these days and the verification of these receipts, which are random."""
    return (
        task_name(project.name("erase/rebuild"), (f"{day}/{mark}" for day, mark in open_work.days)),
        task_name(project.name("erase/verify"), open_work.receipts),
    )
