"""The Dagster entry: everything listed by hand, nothing decided here."""

import warnings

import dagster as dg
from dagster_duckdb import DuckDBResource

from dpdau_assets.assets.activity import build_activity
from dpdau_assets.assets.erasures import build_erasures
from dpdau_assets.assets.mart import build_active_users, build_budget_report
from dpdau_assets.assets.releases import build_dau_release, build_mau_release
from dpdau_assets.assets.report import build_report
from dpdau_assets.assets.restatement import build_dau_restatement
from dpdau_assets.assets.sketches import build_day_sketch
from dpdau_assets.core.settings import Settings
from dpdau_assets.orchestration import checks, jobs
from dpdau_assets.orchestration.partitions import calendar_of
from dpdau_assets.orchestration.schedules import build_schedules
from resources.settings_env import read_settings
from resources.wiring import AlertsResource, MartResource, OutsideResource, ReportsResource
from sensors.alerts import build_alert_sensor
from sensors.erasure import build_erasure_sensor
from sensors.inbox import build_inbox_sensor


def build_definitions(settings: Settings) -> dg.Definitions:
    """The project under these settings; the resources read the environment again when a run starts."""
    with warnings.catch_warnings():  # young parts of Dagster are used knowingly: its version is fixed
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _all_of_it(settings)


def _all_of_it(settings: Settings) -> dg.Definitions:
    calendar = calendar_of(settings)
    return dg.Definitions(
        assets=[
            build_erasures(calendar),
            build_activity(calendar),
            build_day_sketch(calendar),
            build_dau_release(calendar),
            build_mau_release(calendar),
            build_dau_restatement(calendar),
            build_active_users(),
            build_budget_report(),
            build_report(),
        ],
        asset_checks=list(checks.ALL),
        jobs=[*jobs.ALL, *jobs.UPKEEP],
        schedules=build_schedules(settings),
        sensors=[build_erasure_sensor(), build_inbox_sensor(), build_alert_sensor()],
        resources={
            "outside": OutsideResource(),
            "mart": MartResource(),
            "duckdb": DuckDBResource(database=":memory:"),  # the mart's work: no file that somebody reads is opened
            "reports": ReportsResource(),
            "alerts": AlertsResource(),
        },
        executor=dg.in_process_executor,
    )


defs = build_definitions(read_settings())
