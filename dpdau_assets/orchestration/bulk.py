"""Many days in one run: built in one pass over the inbox, published in order, and told to Dagster day by day.

A run over a range of partitions would give all of them one data version, and a run a day costs seconds each. So these
are ops, which write the events that the assets' own steps would have written, each under the day's own version.
"""

from collections.abc import Iterable, Iterator
from datetime import date
from typing import cast

import dagster as dg
from dagster_duckdb import DuckDBResource

from dpdau_assets.assets.erasures import told_mark
from dpdau_assets.assets.mart import refresh_budget_report, refresh_mart
from dpdau_assets.assets.releases import publishing
from dpdau_assets.assets.report import refresh_report
from dpdau_assets.assets.restatement import restating
from dpdau_assets.core.budget.forecast import RefusedRelease
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import Mart, Store
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.publication.completeness import is_declared
from dpdau_assets.core.publication.due import due
from dpdau_assets.core.publication.runs import RESTATEMENT
from dpdau_assets.core.reporting.report_model import Reports
from dpdau_assets.core.state.rebuilding import build_days, days_behind, mark_reported
from dpdau_assets.orchestration.names import REBUILD_DAYS
from dpdau_assets.orchestration.recorder import (
    ACTIVITY,
    DAU,
    ERASURES,
    MAU,
    RESTATED,
    SKETCH,
    Event,
    Record,
    asset_of,
    built,
    mark_of,
    newest_events,
    number,
    partition_of,
    refusal,
    refused_before,
    restatement,
    told,
)
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once


class Days(dg.Config):
    """What to build: these days (YYYY-MM-DD), or, without a list, all that is behind."""

    days: list[str] | None = None


@dg.op(
    pool="state",
    out=dg.Out(dg.Nothing),
    retry_policy=SAFE,
    description="Fold everything that waits, and build the days that are behind, or these.",
)
def build_many_days(context: dg.OpExecutionContext, config: Days, outside: dg.ResourceParam[Store]) -> Iterator[Event]:
    with refusals_fail_at_once():
        wanted = days_behind(outside) if config.days is None else map(date.fromisoformat, config.days)
        yield from _build(wanted, context, outside)


@dg.op(
    pool="state",
    out=dg.Out(dg.Nothing),
    retry_policy=SAFE,
    description="Fold everything that waits, and build the days that numbers which are due read and that are missing.",
)
def build_missing_days(context: dg.OpExecutionContext, outside: dg.ResourceParam[Store]) -> Iterator[Event]:
    with refusals_fail_at_once():
        yield from _build(due(outside).missing, context, outside)


def _build(days: Iterable[date], context: dg.OpExecutionContext, outside: Store) -> Iterator[Event]:
    marks = {day: outside.state.rebuilds.wanted(day) for day in days}
    known = context.instance.get_materialized_partitions(dg.AssetKey(ERASURES))
    for day, mark in marks.items():
        before = told_mark(day, context.instance) if not mark and day.isoformat() in known else "0"
        yield from told([mark_of(day, str(mark or before))], context.instance)
    read = newest_events([ERASURES], context.instance)  # before anything is applied: a later mark makes its day stale
    days_built = build_days(marks, outside)
    states, sketches = built(days_built)
    yield from told(states, context.instance, read)
    yield from told(sketches, context.instance, newest_events([ACTIVITY], context.instance))
    mark_reported(days_built, outside.state)


@dg.op(
    pool="ledger",
    ins={"built": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    description="Publish every number that is due and complete, in order, and restate the months whose day has come.",
)
def publish_due_numbers(context: dg.OpExecutionContext, outside: dg.ResourceParam[Store]) -> Iterator[Event]:
    yield from _unreported(context, outside)
    found = due(outside)
    for step in found.built:  # what was declared after the days were built waits for the next run
        read = newest_events([SKETCH, DAU, MAU], context.instance)
        day = cast(date, step.day)  # a number has one
        is_withdrawn = step.kind != RESTATEMENT and day not in is_declared(outside.events, outside.accountant)
        if is_withdrawn:  # what follows waits for it
            return
        records = restating(day, outside) if step.kind == RESTATEMENT else publishing(step.metric, day, outside)
        for record in records:
            yield from told([record], context.instance, read)
    yield from _refused(found.refusals, context, outside)


@dg.op(
    pool="mart",
    ins={"published": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    retry_policy=SAFE,
    description="Replace the mart and the reports.",
)
def refresh_reports(
    context: dg.OpExecutionContext,
    outside: dg.ResourceParam[Store],
    mart: dg.ResourceParam[Mart],
    duckdb: DuckDBResource,
    reports: dg.ResourceParam[Reports],
) -> Iterator[Event]:
    with refusals_fail_at_once():
        yield from told([Record("active_users", metadata=refresh_mart(outside, mart, duckdb))], context.instance)
        yield from told([Record("budget_report", metadata=refresh_budget_report(outside))], context.instance)
        yield from told([Record("report", metadata=refresh_report(outside, mart, reports))], context.instance)


def _unreported(context: dg.OpExecutionContext, outside: Store) -> Iterator[Event]:
    """What is published and Dagster has not heard of: the run that made it died before it could say so."""
    read = newest_events([SKETCH, DAU, MAU], context.instance)
    for metric in METRICS:
        known = context.instance.get_materialized_partitions(dg.AssetKey(DAU if metric == "dau" else MAU))
        for release in outside.accountant.releases(metric):
            if release.key.revision == 0 and release.key.day.isoformat() not in known:
                yield from told([number(release, outside)], context.instance, read)
                read = newest_events([SKETCH, DAU, MAU], context.instance)
    known = context.instance.get_materialized_partitions(dg.AssetKey(RESTATED))
    again = [release for release in outside.accountant.releases("dau") if release.key.revision]
    for month in sorted({month_of(release.key.day) for release in again}):
        if month.isoformat() not in known:
            of_month = [release for release in again if month_of(release.key.day) == month]
            yield from told([restatement(month, of_month, outside)], context.instance, read)


def _refused(refusals: Iterable[RefusedRelease], context: dg.OpExecutionContext, outside: Store) -> Iterator[Event]:
    """Of numbers that are due and that nothing makes, once each: the run goes on, and readers get what is out.

    `published_on_time` tells people of them.
    """
    by_asset: dict[str, dict[date, tuple[ReleaseKey, Refused]]] = {}
    for refused in refusals:
        release = refused.release
        key = ReleaseKey(release.metric, outside.settings.window_days(release.metric), release.day, release.revision)
        by_asset.setdefault(asset_of(key), {})[partition_of(key)] = key, refused.error
    for asset, found in by_asset.items():
        for day in sorted(found.keys() - refused_before(asset, list(found), context.instance)):
            yield from told([refusal(*found[day], outside)], context.instance)


@dg.job(
    name=REBUILD_DAYS,
    description="Fold the inbox and build every day that arrivals, erasures or a declaration ask for, in one run.",
)
def REBUILD() -> None:
    build_many_days()
