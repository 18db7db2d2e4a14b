"""The inbox sensor: what has landed is taken in, and the days that new batches touch are built.

Level-triggered: it asks our own ledger and folders what is behind, and Dagster only which runs were tried.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import dagster as dg

from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Clock, Events, State, Store
from dpdau_assets.core.publication.completeness import landed, without_marker
from dpdau_assets.core.state.rebuilding import MARK, days_behind
from dpdau_assets.orchestration.jobs import TAKE_LANDED, Jobs
from dpdau_assets.orchestration.project import Project
from sensors.attempts import TASK, is_under_way, next_key, task_name, tries_of

REMEDY = "Write _SUCCESS into the day's folder, or into LANDING_DIR last of all."
_NAMED = 5


def build_inbox_sensor(project: Project, jobs: Jobs) -> dg.SensorDefinition:
    """On from the start: it publishes nothing, and builds only days that were declared complete or built before."""

    @dg.sensor(
        name=project.name("inbox_sensor"),
        jobs=[jobs.landed, jobs.rebuild],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes in what has landed, and has the days built that new batches touch.",
    )
    @project.asking
    def inbox_sensor(
        context: dg.SensorEvaluationContext,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
    ) -> dg.SensorResult:
        store = project.store(clock=clock, accountant=accountant, events=events, state=state)
        ask = Asking(project, jobs, store, context.instance)
        wanted = list(ask.taking()) or list(ask.rebuild())
        return dg.SensorResult(wanted) if wanted else dg.SensorResult(skip_reason=ask.hint())

    return inbox_sensor


@dataclass(frozen=True)
class Asking:
    """What one tick asks for."""

    project: Project
    jobs: Jobs
    store: Store
    instance: dg.DagsterInstance

    def taking(self) -> Iterator[dg.RunRequest]:
        """One run takes in all that has landed; what it cannot read is tried again, and holds nothing else up."""
        waiting = landed(self.store)
        if waiting:
            days = {"days": [day.isoformat() for day in waiting]}
            config = {"ops": {self.project.name(TAKE_LANDED): {"config": days}}}
            parts = (f"{day} {fingerprint}" for day, fingerprint in waiting.items())
            yield from self._requested("land", parts, self.jobs.landed, config)

    def rebuild(self) -> Iterator[dg.RunRequest]:
        """Marks of erasures are built by the other sensor's run; this one's builds them too if it comes first.

        A run builds all that is behind when it begins, so while one is under way none is asked for: a later tick sees
        what it has left.
        """
        if is_under_way(self.jobs.rebuild, self.instance):
            return
        all_behind = days_behind(self.store).items()
        behind = {day: reasons for day, reasons in all_behind if not _is_marked_only(reasons)}
        if behind:
            parts = [*map(str, behind), *(self.store.events.inbox.batches() or _reasons(behind))]
            yield from self._requested("inbox", parts, self.jobs.rebuild)

    def hint(self) -> str | None:
        """Which days wait for their marker, if any do."""
        days = without_marker(self.store)
        if not days:
            return None
        named = ", ".join(map(str, days[:_NAMED])) + (", and more" if len(days) > _NAMED else "")
        return f"Days with event files and no _SUCCESS: {named}. {REMEDY}"

    def _requested(
        self, kind: str, parts: Iterable[str], job: dg.JobDefinition, config: dict | None = None
    ) -> Iterator[dg.RunRequest]:
        task = task_name(self.project.name(kind), parts)
        key = next_key(task, tries_of([task], self.instance), self.store.clock.today())
        if key:
            yield dg.RunRequest(key, job_name=job.name, run_config=config, tags={TASK: task})


def _reasons(behind: Mapping[date, list[str]]) -> list[str]:
    """Days behind with what for, asked where no batch waits: each attempt to fold one renames its days' changes."""
    return [f"{day} {reason}" for day, reasons in behind.items() for reason in reasons]


def _is_marked_only(reasons: list[str]) -> bool:
    return all(reason.startswith(MARK) for reason in reasons)
