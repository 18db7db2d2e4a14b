"""`activity`: the keyed users of each day, folded from the inbox. With its sketches, all that holds people."""

from collections.abc import Iterator

import dagster as dg

from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.state.activity import day_version, is_clean, process_days
from dpdau_assets.orchestration.metadata import CODE_VERSION, described
from dpdau_assets.orchestration.partitions import Calendar, day_of
from dpdau_assets.orchestration.recorder import Result, check_specs, state_of
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once


def build_activity(calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a day. The first one materialised folds the whole inbox in one pass; the others find it done."""

    @dg.asset(
        metadata=described("privacy.md"),
        group_name="state",
        kinds={"parquet"},
        code_version=CODE_VERSION,
        pool="state",
        owners=["team:data-platform"],
        partitions_def=calendar.days,
        deps=["erasures"],
        check_specs=check_specs("activity", calendar.days),
        retry_policy=SAFE,
        description="Distinct keyed users of each day, as a two-phase set.",
    )
    def activity(context: dg.AssetExecutionContext, outside: dg.ResourceParam[Store]) -> Iterator[Result]:
        day = day_of(context)
        with refusals_fail_at_once():
            process_days([day], outside)
            changes = outside.state.rebuilds.changed()  # before the version: what changes in between is told again
            version = day_version(day, outside)
            outside.state.rebuilds.mark_reported({day: changes[day]} if day in changes else {})
            clean = is_clean(day, outside)
        yield from state_of(day, version, clean).results()

    return activity
