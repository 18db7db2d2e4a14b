"""`activity`: the keyed users of each day, folded from the inbox. With its sketches, all that holds people."""

from collections.abc import Iterator

import dagster as dg

from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Erasures, Events, State
from dpdau_assets.core.state.activity import day_version, is_clean, process_days
from dpdau_assets.orchestration.metadata import CODE_VERSION, described
from dpdau_assets.orchestration.partitions import Calendar, day_of
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.recorder import Result, check_specs, state_of
from dpdau_assets.orchestration.retries import SAFE, refusals_fail_at_once


def build_activity(project: Project, calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a day. The first one materialised folds the whole inbox in one pass; the others find it done."""

    @dg.asset(
        key=project.asset("activity"),
        metadata=described("privacy.md"),
        group_name=project.name("state"),
        kinds={"parquet"},
        code_version=CODE_VERSION,
        pool=project.name("state"),
        owners=["team:data-platform"],
        partitions_def=calendar.days,
        deps=[project.asset("erasures")],
        check_specs=check_specs(project, "activity", calendar.days),
        retry_policy=SAFE,
        description="Distinct keyed users of each day, as a two-phase set.",
    )
    @project.asking
    def activity(
        context: dg.AssetExecutionContext,
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
    ) -> Iterator[Result]:
        day = day_of(context)
        store = project.store(
            accountant=accountant, erasure_ledger=erasure_ledger, events=events, state=state, sketches=sketches
        )
        with refusals_fail_at_once():
            process_days([day], store)
            changes = state.rebuilds.changed()  # before the version: what changes in between is told again
            version = day_version(day, store)
            state.rebuilds.mark_reported({day: changes[day]} if day in changes else {})
            clean = is_clean(day, store)
        yield from state_of(day, version, clean).results()

    return activity
