"""The shells in which Dagster is handed the adapters. No logic: what is opened, and how, is in `store`."""

from dataclasses import replace
from functools import partial

import dagster as dg

from dpdau_assets.core.ports.store import Alerts, Mart, Store
from dpdau_assets.core.reporting.report_model import Reports
from resources.alerts_webhook import WebhookAlerts
from resources.dagster_instance import is_scheduled
from resources.settings_env import read_settings
from resources.store import open_mart, open_reports, open_store


class OutsideResource(dg.ConfigurableResource):
    """Hands assets what core calls `Store`."""

    def create_resource(self, context: dg.InitResourceContext) -> Store:
        store, instance = open_store(read_settings()), context.instance
        return store if instance is None else replace(store, is_scheduled=partial(is_scheduled, instance))


class MartResource(dg.ConfigurableResource):
    """Hands assets the mart."""

    def create_resource(self, context: dg.InitResourceContext) -> Mart:
        return open_mart(read_settings())


class ReportsResource(dg.ConfigurableResource):
    """Hands assets the place of the reports."""

    def create_resource(self, context: dg.InitResourceContext) -> Reports:
        return open_reports(read_settings())


class AlertsResource(dg.ConfigurableResource):
    """Hands sensors the way to tell people."""

    def create_resource(self, context: dg.InitResourceContext) -> Alerts:
        return WebhookAlerts(read_settings().alert_webhook)
