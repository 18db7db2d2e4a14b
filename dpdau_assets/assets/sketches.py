"""`day_sketch`: the distinct-count sketch of each day, under each salt epoch whose windows reach it."""

from collections.abc import Iterator

import dagster as dg

from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.state.day_sketch import build_sketch, is_fresh, sketch_version
from dpdau_assets.orchestration.metadata import CODE_VERSION, described
from dpdau_assets.orchestration.partitions import Calendar, day_of
from dpdau_assets.orchestration.recorder import Result, check_specs, sketch_of
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once


def build_day_sketch(calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a day, rebuilt only when the day's state has another content."""

    @dg.asset(
        metadata=described("sketches.md"),
        group_name="state",
        kinds={"sketch"},
        code_version=CODE_VERSION,
        pool="state",
        owners=["team:data-platform"],
        partitions_def=calendar.days,
        deps=["activity"],
        check_specs=check_specs("day_sketch", calendar.days),
        retry_policy=SAFE,
        description="What a release reads: each day's sketch.",
    )
    def day_sketch(context: dg.AssetExecutionContext, outside: dg.ResourceParam[Store]) -> Iterator[Result]:
        day = day_of(context)
        with refusals_fail_at_once():
            build_sketch(day, outside)
            version, fresh = sketch_version(day, outside), is_fresh(day, outside)
        yield from sketch_of(day, version, fresh).results()

    return day_sketch
