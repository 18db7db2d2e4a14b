"""`day_sketch`: the distinct-count sketch of each day, under each salt epoch whose windows reach it."""

from collections.abc import Iterator

import dagster as dg

from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Erasures, State
from dpdau_assets.core.state.day_sketch import build_sketch, is_fresh, sketch_version
from dpdau_assets.orchestration.metadata import CODE_VERSION, described
from dpdau_assets.orchestration.partitions import Calendar, day_of
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.recorder import Result, check_specs, sketch_of
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once


def build_day_sketch(project: Project, calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a day, rebuilt only when the day's state has another content."""

    @dg.asset(
        key=project.asset("day_sketch"),
        metadata=described("sketches.md"),
        group_name=project.name("state"),
        kinds={"sketch"},
        code_version=CODE_VERSION,
        pool=project.name("state"),
        owners=["team:data-platform"],
        partitions_def=calendar.days,
        check_specs=check_specs(project, "day_sketch", calendar.days),
        deps=[project.asset("activity")],
        retry_policy=SAFE,
        description="What a release reads: each day's sketch.",
    )
    @project.asking
    def day_sketch(
        context: dg.AssetExecutionContext,
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
    ) -> Iterator[Result]:
        day = day_of(context)
        store = project.store(accountant=accountant, erasure_ledger=erasure_ledger, state=state, sketches=sketches)
        with refusals_fail_at_once():
            build_sketch(day, store)
            version, fresh = sketch_version(day, store), is_fresh(day, store)
        yield from sketch_of(day, version, fresh).results()

    return day_sketch
