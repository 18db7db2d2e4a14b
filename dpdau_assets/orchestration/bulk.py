"""Many days in one run: built in one pass over the inbox, published in order, and told to Dagster day by day.

A run over a range of partitions would give all of them one data version, and a run a day costs seconds each. So these
are ops, which write the events that the assets' own steps would have written, each under the day's own version.
"""

from collections.abc import Iterable, Iterator, Mapping
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

from dpdau_assets.assets.erasures import told_mark
from dpdau_assets.assets.mart import refresh_budget_report, refresh_mart
from dpdau_assets.assets.releases import what_to_show
from dpdau_assets.assets.report import refresh_report
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.facts import Release
from dpdau_assets.core.ports.store import Mart, Store
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.publication.completeness import is_declared
from dpdau_assets.core.publication.due import due
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.publication.runs import RESTATEMENT
from dpdau_assets.core.reporting.report_model import Reports
from dpdau_assets.core.state.rebuilding import Built, build_days, days_behind, mark_reported
from dpdau_assets.orchestration.metadata import CODE_VERSION, reveal
from dpdau_assets.orchestration.names import REBUILD_DAYS
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once

ERASURES, ACTIVITY, SKETCH = (dg.AssetKey(name) for name in ("erasures", "activity", "day_sketch"))
DAU, MAU, RESTATED = (dg.AssetKey(name) for name in ("dau_release", "mau_release", "dau_restatement"))

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation


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
    told = context.instance.get_materialized_partitions(ERASURES)
    for day, mark in marks.items():
        known = told_mark(day, context.instance) if not mark and day.isoformat() in told else "0"
        yield _event(ERASURES, day, str(mark or known))
    read = _newest([ERASURES], context)  # before anything is applied: a later mark makes its day stale
    built = build_days(marks, outside)
    yield from (_event(ACTIVITY, one.day, one.state_version, read) for one in built)
    yield from (_verdict(one) for one in built)
    read = _newest([ACTIVITY], context)
    yield from (_event(SKETCH, one.day, one.sketch_version, read) for one in built)
    mark_reported(built, outside)


@dg.op(
    pool="ledger",
    ins={"built": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    description="Publish every number that is due and complete, in order, and restate the months whose day has come.",
)
def publish_due_numbers(context: dg.OpExecutionContext, outside: dg.ResourceParam[Store]) -> Iterator[Event]:
    yield from _unreported(context, outside)
    for step in due(outside).built:  # what was declared after the days were built waits for the next run
        read = _newest([SKETCH, DAU, MAU], context)
        day = cast(date, step.day)  # a number has one
        if step.kind == RESTATEMENT:
            yield _restated(day, len(restate(day, outside)), read)
        elif day not in is_declared(outside):  # withdrawn meanwhile: what follows waits for it
            return
        else:
            yield _release(publish(step.metric, day, outside), outside, read)


@dg.op(
    pool="mart",
    ins={"published": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    retry_policy=SAFE,
    description="Replace the mart and the reports.",
)
def refresh_reports(
    outside: dg.ResourceParam[Store], mart: dg.ResourceParam[Mart], reports: dg.ResourceParam[Reports]
) -> Iterator[Event]:
    with refusals_fail_at_once():
        yield dg.AssetMaterialization("active_users", metadata=refresh_mart(outside, mart))
        yield dg.AssetMaterialization("budget_report", metadata=refresh_budget_report(outside))
        yield dg.AssetMaterialization("report", metadata=refresh_report(outside, mart, reports))


def _unreported(context: dg.OpExecutionContext, outside: Store) -> Iterator[Event]:
    """What is published and Dagster has not heard of: the run that made it died before it could say so."""
    for metric in METRICS:
        asset = DAU if metric == "dau" else MAU
        known = context.instance.get_materialized_partitions(asset)
        for release in outside.accountant.releases(metric):
            if release.key.revision == 0 and release.key.day.isoformat() not in known:
                yield _release(release, outside, _newest([SKETCH, DAU, MAU], context))
    known = context.instance.get_materialized_partitions(RESTATED)
    again = [one.key.day for one in outside.accountant.releases("dau") if one.key.revision]
    for month in sorted({month_of(day) for day in again}):
        if month.isoformat() not in known:
            yield _restated(month, sum(month_of(day) == month for day in again), _newest([SKETCH, DAU], context))


def _release(release: Release, outside: Store, read: Mapping[dg.AssetKey, str]) -> Event:
    asset, sources = (DAU, [SKETCH]) if release.key.metric == "dau" else (MAU, [SKETCH, MAU])
    version, shown = what_to_show(release, outside)
    return _event(asset, release.key.day, version, {source: read[source] for source in sources}, shown)


def _restated(month: date, days: int, read: Mapping[dg.AssetKey, str]) -> Event:
    sources = {source: read[source] for source in (DAU, SKETCH)}
    return _event(RESTATED, month, "revision-1", sources, reveal({"days_published": days}))


def _verdict(built: Built) -> Event:
    return dg.AssetCheckEvaluation(ACTIVITY, "erasures_applied", passed=built.is_clean, partition=built.day.isoformat())


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


def _newest(assets: Iterable[dg.AssetKey], context: dg.OpExecutionContext) -> dict[dg.AssetKey, str]:
    found = {asset: context.instance.fetch_materializations(asset, limit=1).records for asset in assets}
    return {asset: str(records[0].storage_id) if records else "NULL" for asset, records in found.items()}


@dg.job(
    name=REBUILD_DAYS,
    description="Fold the inbox and build every day that arrivals, erasures or a declaration ask for, in one run.",
)
def REBUILD() -> None:
    build_many_days()
