"""`dau_release` and `mau_release`: the published numbers. Materialising a day again returns the stored number.

They run by hand or by backfill, never by automation on upstream change: that would spend budget.
"""

from collections.abc import Iterator
from datetime import date

import dagster as dg

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Clock, Erasures, Events, Noise, State, Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.settings import Metric
from dpdau_assets.orchestration.metadata import CODE_VERSION, NO_USER_DATA, described
from dpdau_assets.orchestration.partitions import Calendar, day_of
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.recorder import Record, Result, check_specs, number, refusal


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
    ) -> Iterator[Result]:
        store = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        for record in publishing("dau", day_of(context), store):
            yield from record.results()

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
    ) -> Iterator[Result]:
        store = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        for record in publishing("mau", day_of(context), store):
            yield from record.results()

    return mau_release


def publishing(metric: Metric, day: date, store: Store) -> Iterator[Record]:
    """Publish the number, unless it is; what to tell of it. A refusal is told first, and raised then."""
    key = ReleaseKey(metric, store.settings.window_days(metric), day)
    try:
        release = publish(metric, day, store)
    except Refused as error:
        yield refusal(key, error, store)
        raise
    yield number(release, store)
