"""The Dagster entry: everything listed by hand, nothing decided here."""

import warnings

import dagster as dg

from dpdau_assets.assets.activity import build_activity
from dpdau_assets.assets.erasures import build_erasures
from dpdau_assets.assets.mart import build_active_users, build_budget_report
from dpdau_assets.assets.releases import build_dau_release, build_mau_release
from dpdau_assets.assets.report import build_report
from dpdau_assets.assets.restatement import build_dau_restatement
from dpdau_assets.assets.sketches import build_day_sketch
from dpdau_assets.core.settings import Settings
from dpdau_assets.orchestration.checks import build_checks
from dpdau_assets.orchestration.jobs import build_jobs
from dpdau_assets.orchestration.partitions import calendar_of
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.schedules import build_schedules
from resources.dagster_instance import is_switched_on
from resources.settings_env import read_settings
from resources.wiring import resources_under
from sensors.alerts import build_alert_sensor
from sensors.erasure import build_erasure_sensor
from sensors.inbox import build_inbox_sensor


def build_definitions(settings: Settings, prefix: str | None = None) -> dg.Definitions:
    """The project under these settings; nothing is opened before a step asks for it.

    With a prefix every name carries it, as docs/dagster.md says, so that `dg.Definitions.merge` puts dpdau into another
    project; that one's executor stays, and each job of ours names its own.
    """
    with warnings.catch_warnings():  # young parts of Dagster are used knowingly: its version is fixed
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _all_of_it(Project(settings, is_switched_on, prefix))


def _all_of_it(project: Project) -> dg.Definitions:
    calendar, jobs = calendar_of(project.settings), build_jobs(project)
    return dg.Definitions(
        assets=[
            build_erasures(project, calendar),
            build_activity(project, calendar),
            build_day_sketch(project, calendar),
            build_dau_release(project, calendar),
            build_mau_release(project, calendar),
            build_dau_restatement(project, calendar),
            build_active_users(project),
            build_budget_report(project),
            build_report(project),
        ],
        asset_checks=build_checks(project),
        jobs=jobs.all(),
        schedules=build_schedules(project, jobs),
        sensors=[
            build_erasure_sensor(project, jobs),
            build_inbox_sensor(project, jobs),
            build_alert_sensor(project, jobs),
        ],
        resources={project.name(name): resource for name, resource in resources_under(project.settings).items()},
        executor=None if project.prefix else dg.in_process_executor,
    )


defs = build_definitions(read_settings())
