"""The alert sensor: failed runs, checks that are watched, and overrides of the budget, told to people once each.

A failed run and an override are told once, a failing check once a day: its words change by the minute while what it
waits for comes. The cursor goes as far as was kept for those who are to be told. (Dagster's own failure sensors pass
over a run whose alert failed.) What a receiver did not take is sent again at each tick, and what of the API's security
events was summed is told when its time has come.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import cast

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.facts import Alert
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Alerts, Clock, Erasures, Events, Mart, State, Store
from dpdau_assets.core.reporting.checks import CHECKS, answer
from dpdau_assets.core.security_events import override_alerts
from dpdau_assets.orchestration.jobs import NEW_LINE, Jobs
from dpdau_assets.orchestration.private import cursor_after
from dpdau_assets.orchestration.project import ASSETS, NotAsked, Project

RUNS_PER_TICK = 50
_LANDINGS = 500  # as many lines are remembered
_CLASS = re.compile(r"^[\w.]+: ")  # Dagster puts it before the words


@dataclass(frozen=True)
class Cursor:
    """The last failure that was told, None before the first tick; the day on which each failing check was told; what
    was told of refused folders, the newest of it; and how many overrides the ledger had, None before the first tick.
    """

    failure: str | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    landings: Sequence[str] = ()
    overrides: int | None = None

    @classmethod
    def read(cls, text: str | None) -> "Cursor":
        return cls(**json.loads(text)) if text else cls()

    def text(self) -> str:
        return json.dumps(asdict(self))


def build_alert_sensor(project: Project, jobs: Jobs) -> dg.SensorDefinition:
    """On from the start."""

    @dg.sensor(
        name=project.name("alert_sensor"),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of failed runs, of what is overdue and of overrides: to log, ALERT_WEBHOOK and ADMIN_EMAIL.",
    )
    @project.asking
    def alert_sensor(
        context: dg.SensorEvaluationContext,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        alerts: dg.ResourceParam[Alerts],
    ) -> dg.SensorResult:
        store = project.store(
            context.instance,
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
        )
        failures = Failures(context.instance, project, jobs)
        cursor = Cursor.read(context.cursor)
        try:
            for alert, told in what_to_tell(cursor, failures, store):
                if alert:
                    alerts.send(alert, once=_once(alert))
                cursor = told
            overrides = store.accountant.overrides()
            told_before = len(overrides) if cursor.overrides is None else cursor.overrides
            for name, alert in override_alerts(overrides, told_before):
                alerts.send(alert, once=name)  # the command that made it may have told of it
            cursor = replace(cursor, overrides=len(overrides))
            alerts.deliver()
        except DpdauError as error:
            return dg.SensorResult(skip_reason=error.reason, cursor=cursor.text())
        return dg.SensorResult(cursor=cursor.text())

    return alert_sensor


def _once(alert: Alert) -> str | None:
    """A name for what is told but once, also if the tick is cut short and its cursor is lost."""
    return f"run {alert.fields['run']}" if "run" in alert.fields else None


def what_to_tell(cursor: Cursor, failures: "Failures", store: Store) -> Iterator[tuple[Alert | None, Cursor]]:
    """Each alert, with what the cursor is once it is kept for those who are to be told."""
    mart = cast(Mart, NotAsked("mart"))  # no check that is watched reads it
    for alert, told in failures.since(cursor):
        yield alert, told
        cursor = told
    for check in (check for check in CHECKS if check.watched):
        verdict, before = answer(check, store, mart), cursor.told.get(check.name)
        now = None if verdict.passed else str(store.clock.today())
        if now != before:
            others = {name: text for name, text in cursor.told.items() if name != check.name}
            cursor = replace(cursor, told=others if now is None else {**others, check.name: now})
            yield (None if verdict.passed else Alert(check.name, verdict.sentence)), cursor


@dataclass(frozen=True)
class Failures:
    """The failed runs of one instance of Dagster: all of them, or, beside another project, those of our jobs."""

    instance: dg.DagsterInstance
    project: Project
    jobs: Jobs

    def since(self, cursor: Cursor) -> Iterator[tuple[Alert | None, Cursor]]:
        """An alert for each run that failed after the cursor, and the cursor after it.

        At the first tick there are none: what failed before it is history.
        """
        if cursor.failure is None:
            newest = self.instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1)
            yield None, replace(cursor, failure=newest.cursor)
            return
        failed = self.instance.fetch_run_status_changes(
            dg.DagsterEventType.RUN_FAILURE, limit=RUNS_PER_TICK, cursor=cursor.failure or None, ascending=True
        )
        for record in failed.records:
            run = self.instance.get_run_by_id(record.run_id)
            cursor = replace(cursor, failure=cursor_after(record))
            alert = _alert_of(run, self.instance) if run and self._is_ours(run) else None
            if run and alert and run.job_name == self.jobs.landed.name:
                alert, cursor = _of_new_landings(alert, cursor)
            yield alert, cursor

    def _is_ours(self, run: dg.DagsterRun) -> bool:
        """By its job, or by its assets where it was started without one. Without a prefix we are alone."""
        ours = {*map(self.project.asset, ASSETS)}
        is_of_our_job = run.job_name in {job.name for job in self.jobs.all()}
        return not self.project.prefix or is_of_our_job or bool(ours & (run.asset_selection or set()))


def _of_new_landings(alert: Alert, cursor: Cursor) -> tuple[Alert | None, Cursor]:
    """A folder that is refused is tried again and again, and told once until something else is said of it."""
    first, *rest = alert.text.split(NEW_LINE)
    lines, remedy = [line.partition("\n")[0] for line in rest], alert.text.rpartition("\n")[2].strip()
    news = [line for line in lines if line not in cursor.landings]
    if not lines:  # it failed otherwise
        return alert, cursor
    cursor = replace(cursor, landings=[*cursor.landings, *news][-_LANDINGS:])
    return (replace(alert, text=NEW_LINE.join([first, *news]) + f"\n{remedy}") if news else None), cursor


def _alert_of(run: dg.DagsterRun, instance: dg.DagsterInstance) -> Alert:
    day = run.tags.get("dagster/partition", "")
    where = f"{run.job_name} of {day}" if day else run.job_name
    error = _error_of(run, instance)
    return Alert("run_failed", f"{where} has failed: {error}", {"job": run.job_name, "day": day, "run": run.run_id})


def _error_of(run: dg.DagsterRun, instance: dg.DagsterInstance) -> str:
    """What our own errors say, which name days and no people; of any other its class alone."""
    for record in instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        error = event.step_failure_data.error if event else None
        chain = list(_chain(error))
        ours = [
            error_info for error_info in chain if error_info.cls_name in {kind.__name__ for kind in _kinds(DpdauError)}
        ]
        if chain:
            return _CLASS.sub("", ours[0].message).strip() if ours else str(chain[-1].cls_name)
    return "no step says why: its process, or the machine, went down"


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    while error:
        yield error
        error = error.cause


def _kinds(root: type[DpdauError]) -> Iterator[type[DpdauError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
