"""`erasures`: for each day the mark of the erasures that touch it. A new mark is what turns a day's state stale.

It can be materialised, though it only repeats what the ledger says: Dagster compares what follows with materialised
versions, and needs one from before the first build. The sensor in `sensors/erasure.py` adds the later ones.
"""

import dagster as dg

from dpdau_assets.core.ports import Outside
from dpdau_assets.metadata import CODE_VERSION, NO_USER_DATA, described
from dpdau_assets.partitions import Calendar, day_of


def build_erasures(calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a day; its data version is the day's mark, 0 for a day that was never touched."""

    @dg.asset(
        metadata=described("privacy.md"),
        group_name="state", kinds={"ledger"}, code_version=CODE_VERSION, owners=["team:privacy"], tags=NO_USER_DATA,
        partitions_def=calendar.days, description="Which days erasures have touched: a new mark makes a day stale.",
    )  # fmt: skip
    def erasures(context: dg.AssetExecutionContext, outside: dg.ResourceParam[Outside]) -> dg.MaterializeResult:
        return dg.MaterializeResult(data_version=dg.DataVersion(str(outside.rebuilds.wanted(day_of(context)))))

    return erasures
