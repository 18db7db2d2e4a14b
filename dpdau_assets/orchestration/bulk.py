"""Many days in one run: built in one pass over the inbox, published in order, and told to Dagster day by day.

A run over a range of partitions would give all of them one data version, and a run a day costs seconds each. So these
are ops, which write the events that the assets' own steps would have written, each under the day's own version.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, cast

import dagster as dg
from dagster._core.definitions.data_version import (  # not public, and nothing else says what a day was built from
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    UNKNOWN_DATA_VERSION,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster_duckdb import DuckDBResource

from dpdau_assets.assets.erasures import told_mark
from dpdau_assets.assets.mart import refresh_budget_report, refresh_mart
from dpdau_assets.assets.releases import what_to_show
from dpdau_assets.assets.report import refresh_report
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.facts import Release
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Clock, Erasures, Events, Mart, Noise, State, Store
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.publication.completeness import is_declared
from dpdau_assets.core.publication.due import due
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.publication.runs import RESTATEMENT
from dpdau_assets.core.reporting.report_model import Reports
from dpdau_assets.core.state.rebuilding import Built, build_days, days_behind, mark_reported
from dpdau_assets.orchestration.metadata import CODE_VERSION, reveal
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation

LOAD, MISSING, NUMBERS, FILES = "build_many_days", "build_missing_days", "publish_due_numbers", "refresh_reports"


class Days(dg.Config):
    """What to build: these days (YYYY-MM-DD), or, without a list, all that is behind."""

    days: list[str] | None = None


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
        outside = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
        )
        with refusals_fail_at_once():
            wanted = days_behind(outside) if config.days is None else map(date.fromisoformat, config.days)
            yield from _build(wanted, project, context.instance, outside)

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
        outside = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
        )
        with refusals_fail_at_once():
            yield from _build(due(outside).missing, project, context.instance, outside)

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
        outside = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        yield from _publish(project, context.instance, outside)

    return due_numbers


def build_refresh(project: Project) -> dg.OpDefinition:
    """The last op of a publication."""

    @dg.op(
        name=project.name(FILES),
        pool=project.name("mart"),
        ins={"published": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        retry_policy=SAFE,
        description="Replace the mart and the reports.",
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
    ) -> Iterator[Event]:
        outside = project.store(
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
            yield dg.AssetMaterialization(project.asset("active_users"), metadata=refresh_mart(outside, mart, duckdb))
            yield dg.AssetMaterialization(project.asset("budget_report"), metadata=refresh_budget_report(outside))
            yield dg.AssetMaterialization(project.asset("report"), metadata=refresh_report(outside, mart, reports))

    return files


# --- What they do ------------------------------------------------------------------------------------------------


def _build(days: Iterable[date], project: Project, instance: dg.DagsterInstance, outside: Store) -> Iterator[Event]:
    erasures, activity = project.asset("erasures"), project.asset("activity")
    marks = {day: outside.state.rebuilds.wanted(day) for day in days}
    told = instance.get_materialized_partitions(erasures)
    for day, mark in marks.items():
        known = told_mark(day, erasures, instance) if not mark and day.isoformat() in told else "0"
        yield _event(erasures, day, str(mark or known))
    read = _newest([erasures], instance)  # before anything is applied: a later mark makes its day stale
    built = build_days(marks, outside)
    yield from (_event(activity, one.day, one.state_version, read) for one in built)
    yield from (_verdict(activity, one) for one in built)
    read = _newest([activity], instance)
    yield from (_event(project.asset("day_sketch"), one.day, one.sketch_version, read) for one in built)
    mark_reported(built, outside.state)


def _publish(project: Project, instance: dg.DagsterInstance, outside: Store) -> Iterator[Event]:
    numbers = _Numbers.of(project)
    yield from _unreported(numbers, instance, outside)
    for step in due(outside).built:  # what was declared after the days were built waits for the next run
        read = _newest(numbers.read, instance)
        day = cast(date, step.day)  # a number has one
        if step.job == RESTATEMENT:
            yield _restated(numbers, day, len(restate(day, outside)), read)
        elif day not in is_declared(outside.events, outside.accountant):
            return  # it was withdrawn meanwhile: what follows waits for it
        else:
            yield _release(numbers, publish(step.metric, day, outside), outside, read)


@dataclass(frozen=True)
class _Numbers:
    """The assets that numbers are told as, and the one that they are read from."""

    sketch: dg.AssetKey
    dau: dg.AssetKey
    mau: dg.AssetKey
    restated: dg.AssetKey

    @classmethod
    def of(cls, project: Project) -> "_Numbers":
        return cls(*map(project.asset, ("day_sketch", "dau_release", "mau_release", "dau_restatement")))

    @property
    def read(self) -> list[dg.AssetKey]:
        """What a number can follow."""
        return [self.sketch, self.dau, self.mau]


def _unreported(numbers: _Numbers, instance: dg.DagsterInstance, outside: Store) -> Iterator[Event]:
    """What is published and Dagster has not heard of: the run that made it died before it could say so."""
    for metric in METRICS:
        known = instance.get_materialized_partitions(numbers.dau if metric == "dau" else numbers.mau)
        for release in outside.accountant.releases(metric):
            if release.key.revision == 0 and release.key.day.isoformat() not in known:
                yield _release(numbers, release, outside, _newest(numbers.read, instance))
    known = instance.get_materialized_partitions(numbers.restated)
    again = [one.key.day for one in outside.accountant.releases("dau") if one.key.revision]
    for month in sorted({month_of(day) for day in again}):
        if month.isoformat() not in known:
            days = sum(month_of(day) == month for day in again)
            yield _restated(numbers, month, days, _newest(numbers.read, instance))


def _release(numbers: _Numbers, release: Release, outside: Store, read: Mapping[dg.AssetKey, str]) -> Event:
    sketch, mau = numbers.sketch, numbers.mau
    asset, sources = (numbers.dau, [sketch]) if release.key.metric == "dau" else (mau, [sketch, mau])
    version, shown = what_to_show(release, outside)
    return _event(asset, release.key.day, version, {source: read[source] for source in sources}, shown)


def _restated(numbers: _Numbers, month: date, days: int, read: Mapping[dg.AssetKey, str]) -> Event:
    sources = {source: read[source] for source in (numbers.dau, numbers.sketch)}
    return _event(numbers.restated, month, "revision-1", sources, reveal({"days_published": days}))


def _verdict(activity: dg.AssetKey, built: Built) -> Event:
    return dg.AssetCheckEvaluation(activity, "erasures_applied", passed=built.is_clean, partition=built.day.isoformat())


def _event(
    asset: dg.AssetKey,
    day: date,
    version: str,
    read: Mapping[dg.AssetKey, str] | None = None,
    shown: Mapping[str, Any] | None = None,
) -> Event:
    """One partition's event. `read` is, of each source, Dagster's last event by the time it was read: a partition of
    the source that gets another version later makes this one stale.
    """
    tags = {DATA_VERSION_TAG: version, CODE_VERSION_TAG: CODE_VERSION}
    for source, pointer in (read or {}).items():
        tags |= {
            get_input_data_version_tag(source): UNKNOWN_DATA_VERSION.value,  # of a partitioned source never looked at
            get_input_event_pointer_tag(source): pointer,
        }
    return dg.AssetMaterialization(asset, partition=day.isoformat(), tags=tags, metadata=shown)


def _newest(assets: Iterable[dg.AssetKey], instance: dg.DagsterInstance) -> dict[dg.AssetKey, str]:
    found = {asset: instance.fetch_materializations(asset, limit=1).records for asset in assets}
    return {asset: str(records[0].storage_id) if records else "NULL" for asset, records in found.items()}
