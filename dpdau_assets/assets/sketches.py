"""`day_sketch`: the distinct-count sketch of each day, under each salt epoch whose windows reach it."""

import dagster as dg

from dpdau_assets.core.day_sketch import build_sketch, sketch_version
from dpdau_assets.core.ports import Outside
from dpdau_assets.partitions import Calendar, day_of


def build_day_sketch(calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a day, rebuilt only when the day's state has another content."""

    @dg.asset(
        group_name="state", kinds={"sketch"}, code_version="1", pool="state", owners=["team:data-platform"],
        partitions_def=calendar.days, deps=["activity"], description="What a release reads: each day's sketch.",
    )  # fmt: skip
    def day_sketch(context: dg.AssetExecutionContext, outside: dg.ResourceParam[Outside]) -> dg.MaterializeResult:
        day = day_of(context)
        build_sketch(day, outside)
        return dg.MaterializeResult(data_version=dg.DataVersion(sketch_version(day, outside)))

    return day_sketch
