"""`dau_restatement`: every DAU of a month once more, on its public day: erased users gone, late events in."""

from collections.abc import Iterator
from datetime import date

import dagster as dg

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Erasures, Events, Noise, State, Store
from dpdau_assets.core.publication.release import restate
from dpdau_assets.orchestration.metadata import CODE_VERSION, NO_USER_DATA, described
from dpdau_assets.orchestration.partitions import Calendar, day_of
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.recorder import Record, Result, check_specs, refusal, restatement


def build_dau_restatement(project: Project, calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a month. Materialising a month again changes nothing."""

    @dg.asset(
        key=project.asset("dau_restatement"),
        metadata=described("privacy.md"),
        group_name=project.name("releases"),
        kinds={"dp"},
        code_version=CODE_VERSION,
        pool=project.name("ledger"),
        owners=["team:privacy"],
        tags=NO_USER_DATA,
        partitions_def=calendar.months,
        check_specs=check_specs(project, "dau_restatement", calendar.months),
        deps=[
            dg.AssetDep(project.asset("dau_release"), partition_mapping=calendar.days_of_month),
            dg.AssetDep(project.asset("day_sketch"), partition_mapping=calendar.days_of_month),
        ],
        description="The month's DAU released again, as revision 1, on the day that was fixed with its first number.",
    )
    @project.asking
    def dau_restatement(
        context: dg.AssetExecutionContext,
        accountant: dg.ResourceParam[Ledger],
        erasure_ledger: dg.ResourceParam[Erasures],
        events: dg.ResourceParam[Events],
        state: dg.ResourceParam[State],
        sketches: dg.ResourceParam[SketchStore],
        noise: dg.ResourceParam[Noise],
    ) -> Iterator[Result]:
        store = project.store(
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        for record in restating(day_of(context), store):
            yield from record.results()

    return dau_restatement


def restating(month: date, store: Store) -> Iterator[Record]:
    """Restate the month, unless it is; what to tell of it. A refusal is told first, and raised then."""
    try:
        again = restate(month, store)
    except Refused as error:
        yield refusal(ReleaseKey("dau", 1, month, 1), error, store)
        raise
    yield restatement(month, again, store)
