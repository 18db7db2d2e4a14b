"""`erasures`: for each day the mark of the erasures that touch it. A new mark is what turns a day's state stale.

It can be materialised, though it only repeats what the ledger says: Dagster compares what follows with materialised
versions, and needs one from before the first build. The sensor in `sensors/erasure.py` adds the later ones.
"""

from collections.abc import Iterator
from datetime import date

import dagster as dg

from dpdau_assets.core.ports.store import State
from dpdau_assets.orchestration.metadata import CODE_VERSION, NO_USER_DATA, described
from dpdau_assets.orchestration.partitions import Calendar, day_of
from dpdau_assets.orchestration.private import last_data_version
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.recorder import Result, mark_of


def last_reported_mark(day: date, erasures: dg.AssetKey, instance: dg.DagsterInstance) -> str:
    """The last mark that Dagster was told, "0" for none: the ledger forgets the mark of a day that waits no more."""
    return last_data_version(erasures, day.isoformat(), instance) or "0"


def build_erasures(project: Project, calendar: Calendar) -> dg.AssetsDefinition:
    """One partition a day; its data version is the day's last mark, 0 for a day that was never touched."""

    @dg.asset(
        key=project.asset("erasures"),
        metadata=described("privacy.md"),
        group_name=project.name("state"),
        kinds={"ledger"},
        code_version=CODE_VERSION,
        owners=["team:privacy"],
        tags=NO_USER_DATA,
        partitions_def=calendar.days,
        description="Which days erasures have touched: a new mark makes a day stale.",
    )
    @project.asking
    def erasures(context: dg.AssetExecutionContext, state: dg.ResourceParam[State]) -> Iterator[Result]:
        day = day_of(context)
        mark = state.rebuilds.wanted(day) or last_reported_mark(day, context.asset_key, context.instance)
        yield from mark_of(day, str(mark)).results()

    return erasures
