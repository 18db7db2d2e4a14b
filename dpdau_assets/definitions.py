"""The Dagster entry: everything listed by hand, nothing decided here."""

import dagster as dg

from dpdau_assets import jobs
from dpdau_assets.assets.activity import build_activity
from dpdau_assets.assets.mart import build_active_users, build_budget_report
from dpdau_assets.assets.releases import build_dau_release, build_mau_release
from dpdau_assets.assets.sketches import build_day_sketch
from dpdau_assets.core.settings import Settings
from dpdau_assets.partitions import calendar_of
from resources.settings_env import read_settings
from resources.wiring import MartResource, OutsideResource


def build_definitions(settings: Settings) -> dg.Definitions:
    """The project under these settings; the resources read the environment again when a run starts."""
    calendar = calendar_of(settings)
    return dg.Definitions(
        assets=[
            build_activity(calendar),
            build_day_sketch(calendar),
            build_dau_release(calendar),
            build_mau_release(calendar),
            build_active_users(),
            build_budget_report(),
        ],
        jobs=list(jobs.ALL),
        resources={"outside": OutsideResource(), "mart": MartResource()},
        executor=dg.in_process_executor,
    )


defs = build_definitions(read_settings())
