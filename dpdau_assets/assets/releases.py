"""`dau_release` and `mau_release`: the published numbers. Materialising a day again returns the stored number.

They run by hand or by backfill, never by automation on upstream change: that would spend budget.
"""

from datetime import date
from typing import Any

import dagster as dg

from dpdau_assets.core.facts import Release
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Clock, Erasures, Events, Noise, State, Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answers import release_answer
from dpdau_assets.core.settings import Metric
from dpdau_assets.orchestration.metadata import CODE_VERSION, NO_USER_DATA, described, reveal
from dpdau_assets.orchestration.partitions import Calendar, day_of
from dpdau_assets.orchestration.project import Project

SHOWN = ("estimate", "noisy_value", "lower_95", "upper_95", "epsilon_used", "budget_remaining", "mechanism")


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
    ) -> dg.MaterializeResult:
        outside = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        return _published("dau", day_of(context), outside)

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
    ) -> dg.MaterializeResult:
        outside = project.store(
            clock=clock,
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        return _published("mau", day_of(context), outside)

    return mau_release


def _published(metric: Metric, day: date, outside: Store) -> dg.MaterializeResult:
    version, shown = what_to_show(publish(metric, day, outside), outside)
    return dg.MaterializeResult(data_version=dg.DataVersion(version), metadata=shown)


def what_to_show(release: Release, outside: Store) -> tuple[str, dict[str, Any]]:
    """A number's data version and metadata."""
    answer = release_answer(release, outside.settings, outside.accountant)
    return f"revision-{release.key.revision}", reveal({name: answer[name] for name in SHOWN})
