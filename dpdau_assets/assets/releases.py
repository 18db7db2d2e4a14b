"""`dau_release` and `mau_release`: the published numbers. Materialising a day again returns the stored number.

They run by hand or by backfill, never by automation on upstream change: that would spend budget.
"""

from collections.abc import Iterator

import dagster as dg

from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Clock, Erasures, Events, Noise, State
from dpdau_assets.core.publication.runs import DAU, MAU, Step
from dpdau_assets.orchestration.metadata import CODE_VERSION, NO_USER_DATA, described
from dpdau_assets.orchestration.partitions import Calendar, days_of
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.publishing import StepOutput, results
from dpdau_assets.orchestration.recorder import check_specs


def build_dau_release(project: Project, calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a day, from that day's sketch."""

    @dg.asset(
        key=project.asset("dau_release"),
        metadata=described("privacy.md"),
        group_name=project.name("releases"),
        kinds={"dp"},
        code_version=CODE_VERSION,
        pool=project.name("ledger"),
        owners=["team:privacy"],
        tags=NO_USER_DATA,
        partitions_def=calendar.days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,  # of a backfill each day is told by itself
        check_specs=check_specs(project, "dau_release", calendar.days),
        deps=[project.asset("day_sketch")],
        description="Daily active users with differential privacy.",
    )
    @project.asking
    def dau_release(
        context: dg.AssetExecutionContext,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
        noise: dg.ResourceParam[Noise],
    ) -> Iterator[StepOutput]:
        store = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        yield from results([Step(DAU, day) for day in days_of(context)], context, project, store)

    return dau_release


def build_mau_release(project: Project, calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a day, from the sketches of its window, and after the day before: the stream skips none."""

    @dg.asset(
        key=project.asset("mau_release"),
        metadata=described("privacy.md"),
        group_name=project.name("releases"),
        kinds={"dp"},
        code_version=CODE_VERSION,
        pool=project.name("ledger"),
        owners=["team:privacy"],
        tags=NO_USER_DATA,
        partitions_def=calendar.mau_days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        check_specs=check_specs(project, "mau_release", calendar.mau_days),
        deps=[
            dg.AssetDep(project.asset("day_sketch"), partition_mapping=calendar.window),
            dg.AssetDep(project.asset("mau_release"), partition_mapping=calendar.day_before),
        ],
        description="Monthly active users (rolling window) with differential privacy.",
    )
    @project.asking
    def mau_release(
        context: dg.AssetExecutionContext,
        clock: dg.ResourceParam[Clock],
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
        noise: dg.ResourceParam[Noise],
    ) -> Iterator[StepOutput]:
        store = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        yield from results([Step(MAU, day) for day in days_of(context)], context, project, store)

    return mau_release
