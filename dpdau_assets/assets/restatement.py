"""`dau_restatement`: every DAU of a month once more, on its public day: erased users gone, late events in."""

from collections.abc import Iterator

import dagster as dg

from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Erasures, Events, Noise, State
from dpdau_assets.core.publication.runs import RESTATEMENT, Step
from dpdau_assets.orchestration.metadata import CODE_VERSION, NO_USER_DATA, described
from dpdau_assets.orchestration.partitions import Calendar, day_of
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.publishing import StepOutput, results
from dpdau_assets.orchestration.recorder import check_specs


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
    ) -> Iterator[StepOutput]:
        store = project.store(
            accountant=accountant,
            erasure_ledger=erasure_ledger,
            events=events,
            state=state,
            sketches=sketches,
            noise=noise,
        )
        yield from results([Step(RESTATEMENT, day_of(context))], context, project, store)

    return dau_restatement
