"""The inbox sensor: what has landed is taken in, and the days that new batches touch are built.

Level-triggered: it asks our own ledger and folders what is behind, and Dagster only which runs were tried.
"""

from collections.abc import Iterator, Mapping
from datetime import date

import dagster as dg

from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import landed
from dpdau_assets.core.state.rebuilding import MARK, days_behind
from dpdau_assets.orchestration.jobs import LANDED, REBUILD, take_landed_days
from sensors.attempts import TASK, is_under_way, next_key, task_name, tries_of


def build_inbox_sensor() -> dg.SensorDefinition:
    """On from the start: it publishes nothing, and builds only days that were declared complete or built before."""

    @dg.sensor(
        jobs=[LANDED, REBUILD],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes in what has landed, and has the days built that new batches touch.",
    )
    def inbox_sensor(context: dg.SensorEvaluationContext, outside: dg.ResourceParam[Store]) -> dg.SensorResult:
        taking = list(_taking(outside, context.instance))
        return dg.SensorResult(taking or list(_rebuild(outside, context.instance)))

    return inbox_sensor


def _taking(outside: Store, instance: dg.DagsterInstance) -> Iterator[dg.RunRequest]:
    """One run takes in all that has landed by now; what it cannot read is tried again, and holds nothing else up."""
    waiting = landed(outside)
    if waiting:
        config = {"ops": {take_landed_days.name: {"config": {"days": [day.isoformat() for day in waiting]}}}}
        task = task_name("land", (f"{day} {fingerprint}" for day, fingerprint in waiting.items()))
        yield from _requested(task, LANDED, outside, instance, config)


def _rebuild(outside: Store, instance: dg.DagsterInstance) -> Iterator[dg.RunRequest]:
    """Marks of erasures are built by the other sensor's run; this one's builds them too if it comes first.

    A run builds all that is behind when it begins, so while one is under way none is asked for: a later tick sees what
    it has left.
    """
    if is_under_way(REBUILD, instance):
        return
    behind = {day: reasons for day, reasons in days_behind(outside).items() if not _is_marked_only(reasons)}
    if behind:
        task = task_name("inbox", [*map(str, behind), *(outside.events.inbox.batches() or _reasons(behind))])
        yield from _requested(task, REBUILD, outside, instance)


def _reasons(behind: Mapping[date, list[str]]) -> list[str]:
    """Not while batches wait, which are the reason: each attempt to fold one gives its days' changes another name."""
    return [f"{day} {reason}" for day, reasons in behind.items() for reason in reasons]


def _is_marked_only(reasons: list[str]) -> bool:
    return all(reason.startswith(MARK) for reason in reasons)


def _requested(
    task: str, job: dg.JobDefinition, outside: Store, instance: dg.DagsterInstance, config: dict | None = None
) -> Iterator[dg.RunRequest]:
    key = next_key(task, tries_of([task], instance), outside.clock.today())
    if key:
        yield dg.RunRequest(key, job_name=job.name, run_config=config, tags={TASK: task})
