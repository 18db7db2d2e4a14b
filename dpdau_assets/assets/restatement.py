"""`dau_restatement`: every DAU of a month once more, on its public day: erased users gone, late events in."""

import dagster as dg

from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import restate
from dpdau_assets.orchestration.metadata import CODE_VERSION, NO_USER_DATA, described, reveal
from dpdau_assets.orchestration.partitions import Calendar, day_of


def build_dau_restatement(calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a month. Materialising a month again changes nothing."""

    @dg.asset(
        metadata=described("privacy.md"),
        group_name="releases",
        kinds={"dp"},
        code_version=CODE_VERSION,
        pool="ledger",
        owners=["team:privacy"],
        tags=NO_USER_DATA,
        partitions_def=calendar.months,
        deps=[
            dg.AssetDep("dau_release", partition_mapping=calendar.days_of_month),
            dg.AssetDep("day_sketch", partition_mapping=calendar.days_of_month),
        ],
        description="The month's DAU released again, as revision 1, on the day that was fixed with its first number.",
    )
    def dau_restatement(context: dg.AssetExecutionContext, outside: dg.ResourceParam[Store]) -> dg.MaterializeResult:
        again = restate(day_of(context), outside)
        return dg.MaterializeResult(
            data_version=dg.DataVersion("revision-1"), metadata=reveal({"days_published": len(again)})
        )

    return dau_restatement
