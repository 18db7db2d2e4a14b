"""Many days in one run: built in one pass over the inbox, published in order, and told to Dagster day by day.

A run over a range of partitions would give all of them one data version, and a run a day costs seconds each. So these
are ops, which write the events that the assets' own steps would have written, each under the day's own version.
"""

from collections.abc import Iterable, Iterator
from datetime import date
from typing import cast

import dagster as dg
from dagster_duckdb import DuckDBResource

from dpdau_assets.assets.erasures import last_reported_mark
from dpdau_assets.assets.mart import refresh_budget_report, refresh_mart
from dpdau_assets.assets.report import refresh_report
from dpdau_assets.core.budget.forecast import RefusedRelease
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Clock, Erasures, Events, Mart, Noise, State, Store
from dpdau_assets.core.publication.completeness import is_declared
from dpdau_assets.core.publication.due import due
from dpdau_assets.core.publication.runs import DAU, MAU, RESTATEMENT, Step, step_of
from dpdau_assets.core.reporting.digest import Digests
from dpdau_assets.core.reporting.report_model import Reports
from dpdau_assets.core.state.activity import require_ended
from dpdau_assets.core.state.rebuilding import build_days, days_behind, mark_reported
from dpdau_assets.orchestration import publishing
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.recorder import (
    ACTIVITY,
    DAU_RELEASE,
    ERASURES,
    MAU_RELEASE,
    RESTATED,
    Event,
    Record,
    Recorder,
    asset_of,
    built,
    mark_of,
    partition_of,
    refusal,
)
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once

LOAD, MISSING, NUMBERS, FILES = "build_many_days", "build_missing_days", "publish_due_numbers", "refresh_reports"
THESE = "publish_these_numbers"


class Days(dg.Config):
    """What to build: these days (YYYY-MM-DD), or, without a list, all that is behind."""

    days: list[str] | None = None


class Numbers(dg.Config):
    """What to publish, in order: each as its kind (dau, mau, restatement) and its day, or month, as YYYY-MM-DD."""

    steps: list[str]

    def in_order(self) -> list[Step]:
        """The steps. Raises BadInput for a text that is none."""
        return [_step(text) for text in self.steps]


def _step(text: str) -> Step:
    kind, _, day = text.partition(" ")
    try:
        if kind in (DAU, MAU, RESTATEMENT):
            step = Step(kind, date.fromisoformat(day))
            if kind != RESTATEMENT or step.day == month_of(date.fromisoformat(day)):
                return step
    except ValueError:
        pass
    raise BadInput(
        f"{text!r} is no step of a publication.",
        "Say `dau` or `mau` and a day, or `restatement` and the first day of a month (YYYY-MM-DD).",
    )


def build_many_days(project: Project) -> dg.OpDefinition:
    """The op of a rebuild in bulk."""

    @dg.op(
        name=project.name(LOAD),
        pool=project.name("state"),
        out=dg.Out(dg.Nothing),
        retry_policy=SAFE,
        description="Fold everything that waits, and build the days that are behind, or these.",
    )
    @project.asking
    def many_days(
        context: dg.OpExecutionContext,
        config: Days,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
    ) -> Iterator[Event]:
        store = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
        )
        with refusals_fail_at_once():
            wanted = days_behind(store) if config.days is None else map(date.fromisoformat, config.days)
            yield from _build(wanted, Recorder(project, context.instance), store)

    return many_days


def build_missing_days(project: Project) -> dg.OpDefinition:
    """The first op of a publication."""

    @dg.op(
        name=project.name(MISSING),
        pool=project.name("state"),
        out=dg.Out(dg.Nothing),
        retry_policy=SAFE,
        description="Fold everything that waits, and build the days that numbers which are due read and are missing.",
    )
    @project.asking
    def missing_days(
        context: dg.OpExecutionContext,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
    ) -> Iterator[Event]:
        store = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
        )
        with refusals_fail_at_once():
            yield from _build(due(store).missing, Recorder(project, context.instance), store)

    return missing_days


def build_due_numbers(project: Project) -> dg.OpDefinition:
    """The op that publishes, once the days are built."""

    @dg.op(
        name=project.name(NUMBERS),
        pool=project.name("ledger"),
        ins={"built": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        description="Publish every number that is due and complete, in order, and restate the months whose day has "
        "come.",
    )
    @project.asking
    def due_numbers(
        context: dg.OpExecutionContext,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
        noise: dg.ResourceParam[Noise],
    ) -> Iterator[Event]:
        store = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        yield from _publish(Recorder(project, context.instance), store)

    return due_numbers


def build_numbers(project: Project) -> dg.OpDefinition:
    """The op that publishes the numbers that it is told, complete or not."""

    @dg.op(
        name=project.name(THESE),
        pool=project.name("ledger"),
        out=dg.Out(dg.Nothing),
        description="Publish these numbers in order, and restate these months; up to the first that is refused.",
    )
    @project.asking
    def these_numbers(
        context: dg.OpExecutionContext,
        config: Numbers,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
        noise: dg.ResourceParam[Noise],
    ) -> Iterator[Event]:
        store = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        steps = config.in_order()
        for step in steps:
            require_ended(cast(date, step.day), store.clock)
        yield from publishing.events(steps, Recorder(project, context.instance), store)

    return these_numbers


def build_refresh(project: Project) -> dg.OpDefinition:
    """The last op of a publication."""

    @dg.op(
        name=project.name(FILES),
        pool=project.name("mart"),
        ins={"published": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        retry_policy=SAFE,
        description="Replace the mart and the reports, and send the daily digest.",
    )
    @project.asking
    def files(
        context: dg.OpExecutionContext,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
        noise: dg.ResourceParam[Noise],
        mart: dg.ResourceParam[Mart],
        duckdb: DuckDBResource,
        reports: dg.ResourceParam[Reports],
        alerts: dg.ResourceParam[Digests],
    ) -> Iterator[Event]:
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
        recorder = Recorder(project, context.instance)
        with refusals_fail_at_once():
            yield from recorder.reported([Record("active_users", metadata=refresh_mart(store, mart, duckdb))])
            yield from recorder.reported([Record("budget_report", metadata=refresh_budget_report(store))])
            yield from recorder.reported([Record("report", metadata=refresh_report(store, mart, reports, alerts))])

    return files


# --- What they do ------------------------------------------------------------------------------------------------


def _build(days: Iterable[date], recorder: Recorder, store: Store) -> Iterator[Event]:
    marks = {day: store.state.rebuilds.wanted(day) for day in days}
    known, erasures = recorder.materialized(ERASURES), recorder.project.asset(ERASURES)
    for day, mark in marks.items():
        before = last_reported_mark(day, erasures, recorder.instance) if not mark and day.isoformat() in known else "0"
        yield from recorder.reported([mark_of(day, str(mark or before))])
    read = recorder.newest([ERASURES])  # before anything is applied: a later mark makes its day stale
    days_built = build_days(marks, store)
    states, sketches = built(days_built)
    yield from recorder.reported(states, read)
    yield from recorder.reported(sketches, recorder.newest([ACTIVITY]))
    mark_reported(days_built, store.state)


def _publish(recorder: Recorder, store: Store) -> Iterator[Event]:
    yield from _unreported(recorder, store)
    waiting = due(store)  # what was declared after the days were built waits for the next run
    # A day whose declaration is taken back meanwhile is waited for, and what follows waits for it.
    yield from publishing.events(waiting.built, recorder, store, lambda: is_declared(store.events, store.accountant))
    yield from _refused(waiting.refusals, recorder, store)


def _unreported(recorder: Recorder, store: Store) -> Iterator[Event]:
    """What is published and Dagster has not heard of: the run that made it died before it could say so."""
    known = {asset: recorder.materialized(asset) for asset in (DAU_RELEASE, MAU_RELEASE, RESTATED)}
    unreported: dict[Step, list[Release]] = {}
    for release in store.accountant.releases():
        if partition_of(release.key).isoformat() not in known[asset_of(release.key)]:
            unreported.setdefault(step_of(release.key), []).append(release)
    records = publishing.records_of(list(unreported.items()), store)
    yield from recorder.reported(records, recorder.newest(publishing.READ))


def _refused(refusals: Iterable[RefusedRelease], recorder: Recorder, store: Store) -> Iterator[Event]:
    """Tell of numbers that are due and that nothing makes, once each: the run goes on, and readers get what is out.

    `published_on_time` tells people of them.
    """
    by_asset: dict[str, dict[date, tuple[ReleaseKey, Refused]]] = {}
    for refused in refusals:
        release = refused.release
        key = ReleaseKey(release.metric, store.settings.window_days(release.metric), release.day, release.revision)
        by_asset.setdefault(asset_of(key), {})[partition_of(key)] = key, refused.error
    for asset, by_day in by_asset.items():
        for day in sorted(by_day.keys() - recorder.refused_before(asset, list(by_day))):
            yield from recorder.reported([refusal(*by_day[day], store)])
