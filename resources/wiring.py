"""The shells in which Dagster is handed the adapters, and what an operator reads of each. No logic: see `store`.

What a resource has a field for can be set at launch. Three fields say which store it is, and stand at `accountant`
alone: `erasure_ledger`, `state`, `sketches`, `events`, `mart` and `reports` are of the store that it has opened. Were
each to be set by itself, one run could charge one ledger for what it reads from another's state.

A secret is in no field: there stands the name of the environment's variable, or nothing where it comes from `.env`. One
that is typed into a launch is refused.
"""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import dagster as dg
from dagster_duckdb import DuckDBResource
from pydantic import Field

from dpdau_assets.core.budget.settings_check import check
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Clock, Erasures, Events, Mart, Noise, State
from dpdau_assets.core.reporting.report_model import Reports
from dpdau_assets.core.settings import Settings
from resources.messages.messages import Messages
from resources.settings_env import is_held_by_a_variable, variable_that_holds
from resources.store import SystemClock, events_of, open_mart, open_noise, open_reports, open_store, store_of

_OF_THE_STORE = "The budget ledger, which says which store this is."
_READERS = "MART_DIR, the folder into which readers are let; without one, files lie in the data directory."


class _OfProject(dg.ConfigurableResource):
    """A resource that works under settings of the whole project, and takes from them what no field says."""

    settings: ClassVar[Settings]


_Resource = TypeVar("_Resource", bound=_OfProject)


def _of_a_variable(field: str, value: str | None, context: dg.InitResourceContext) -> str | None:
    """The value, which a variable of the environment holds. Raises BadSetting for one that was typed: into the launch,
    whose configuration Dagster keeps, or into the code.
    """
    run_config: Mapping[str, Any] = context.run.run_config if context.run else {}
    resources = (run_config.get("resources") or {}).values()
    is_typed = any(isinstance((resource.get("config") or {}).get(field), str) for resource in resources)
    if value and (is_typed or not is_held_by_a_variable(value)):
        raise BadSetting(
            f"{field} was typed into the launch, and Dagster keeps it in the run's configuration.",
            f"Name the environment's variable that holds it: {{env: {field.upper()}}}. A secret that was typed is none "
            "any more: change it.",
        )
    return value


class AccountantResource(_OfProject):
    """The budget ledger: what every month was charged, and every number that was published. With the data directory
    and the master secret it says which store this is.
    """

    data_dir: str = Field(
        description="DATA_DIR, the store: keyed state, sketches, inbox and quarantine, and the ledger unless "
        "ledger_url names another place.",
    )
    ledger_url: str | None = Field(
        default=None,
        description="LEDGER_URL, the database with budgets, published numbers, erasure requests and wrapped keys. "
        "Empty: as .env says, or else ledger.sqlite in the data directory.",
    )
    hash_salt_secret: str | None = Field(
        default=None,
        description="HASH_SALT_SECRET, the master secret under which the keys of users are wrapped. "
        "Empty: as .env says.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Ledger:
        wanted = replace(
            self.settings,
            data_dir=Path(self.data_dir),
            ledger_url=_of_a_variable("ledger_url", self.ledger_url, context) or self.settings.ledger_url,
            hash_salt_secret=_of_a_variable("hash_salt_secret", self.hash_salt_secret, context)
            or self.settings.hash_salt_secret,
        )
        _require_right(wanted)
        return open_store(wanted).accountant


class ErasureLedgerResource(_OfProject):
    """Who asked to be erased, as tombstones and no ids, and the chain of receipts of what was proven about it."""

    accountant: dg.ResourceDependency[Ledger] = Field(description=_OF_THE_STORE)

    def create_resource(self, context: dg.InitResourceContext) -> Erasures:
        return store_of(self.accountant).erasures


class StateResource(_OfProject):
    """The keyed users of each day, the keys that they are kept under, and which days wait to be rebuilt."""

    accountant: dg.ResourceDependency[Ledger] = Field(description=_OF_THE_STORE)

    def create_resource(self, context: dg.InitResourceContext) -> State:
        return store_of(self.accountant).state


class SketchesResource(_OfProject):
    """The distinct-count sketch of each day, from which numbers are read."""

    accountant: dg.ResourceDependency[Ledger] = Field(description=_OF_THE_STORE)

    def create_resource(self, context: dg.InitResourceContext) -> SketchStore:
        return store_of(self.accountant).state.sketches


class EventsResource(_OfProject):
    """The ways in: the engine that reads event files, the inbox, the quarantine of bad rows, the landing folder, and
    which days upstream has declared complete.
    """

    accountant: dg.ResourceDependency[Ledger] = Field(description=_OF_THE_STORE)
    landing_dir: str | None = Field(
        default=None,
        description="LANDING_DIR, where upstream lays down event files, one folder a day. Empty: nothing lands.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Events:
        return events_of(store_of(self.accountant), _path(self.landing_dir))


class NoiseResource(dg.ConfigurableResource):
    """OpenDP's discrete Gaussian and Laplace, drawn from the operating system's randomness. There is nothing to
    configure: noise with a seed could be predicted, and nothing drawn from it may be published.
    """

    def create_resource(self, context: dg.InitResourceContext) -> Noise:
        return open_noise()


class ClockResource(_OfProject):
    """Today, in the project's time zone: a day is published only once it is over there."""

    def create_resource(self, context: dg.InitResourceContext) -> Clock:
        return SystemClock(self.settings.timezone)


class MartResource(dg.ConfigurableResource):
    """The published series for BI, as a DuckDB file, a CSV and a chart, each replaced whole."""

    accountant: dg.ResourceDependency[Ledger] = Field(description=_OF_THE_STORE)
    mart_dir: str | None = Field(default=None, description=_READERS)

    def create_resource(self, context: dg.InitResourceContext) -> Mart:
        return open_mart(replace(store_of(self.accountant).settings, mart_dir=_path(self.mart_dir)))


class ReportsResource(dg.ConfigurableResource):
    """The HTML files in which people read what was published: one for readers, one for operators."""

    accountant: dg.ResourceDependency[Ledger] = Field(description=_OF_THE_STORE)
    mart_dir: str | None = Field(default=None, description=f"{_READERS} The operators' file lies there in any case.")

    def create_resource(self, context: dg.InitResourceContext) -> Reports:
        return open_reports(replace(store_of(self.accountant).settings, mart_dir=_path(self.mart_dir)))


class AlertsResource(_OfProject):
    """Where people are told of failed runs, of what is overdue and of what may be an attack: a line in the log, a
    webhook and e-mail; and, once a day, of what was published. What a receiver does not take is kept, and sent again.
    """

    accountant: dg.ResourceDependency[Ledger] = Field(description=_OF_THE_STORE)
    alert_webhook: str | None = Field(
        default=None,
        description="ALERT_WEBHOOK, an address that takes each alert as JSON; it may hold a token. "
        "Empty: as .env says, or else none.",
    )
    digest_webhook: str | None = Field(
        default=None,
        description="DIGEST_WEBHOOK, an address that takes the daily digest in Slack's form; it may hold a token. "
        "Empty: as .env says, or else nobody gets one.",
    )
    smtp_url: str | None = Field(
        default=None,
        description="SMTP_URL, the mail server, perhaps with a password, through which ADMIN_EMAIL gets each alert. "
        "Empty: as .env says, or else no mail is sent.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Messages:
        wanted = {
            name: _of_a_variable(name, getattr(self, name), context) or getattr(self.settings, name)
            for name in ("alert_webhook", "digest_webhook", "smtp_url")
        }
        settings = replace(store_of(self.accountant).settings, admin_email=self.settings.admin_email, **wanted)
        _require_right(settings)
        return Messages(settings)


def resources_under(settings: Settings) -> dict[str, Any]:
    """Every resource of the project, by its name, filled with these settings; nothing is opened before it is used."""

    def of_settings(resource: type[_Resource]) -> type[_Resource]:
        return _bound(resource, settings)

    # Not made here, so that the others have what a launch makes of it.
    accountant: Any = of_settings(AccountantResource).configure_at_launch(
        data_dir=str(settings.data_dir),
        **_secret("ledger_url", settings),
        **_secret("hash_salt_secret", settings),
    )
    landing_dir, mart_dir = _text(settings.landing_dir), _text(settings.mart_dir)
    return {
        "accountant": accountant,
        "erasure_ledger": of_settings(ErasureLedgerResource)(accountant=accountant),
        "events": of_settings(EventsResource)(accountant=accountant, landing_dir=landing_dir),
        "state": of_settings(StateResource)(accountant=accountant),
        "sketches": of_settings(SketchesResource)(accountant=accountant),
        "noise": NoiseResource(),
        "clock": of_settings(ClockResource)(),
        "duckdb": DuckDBResource(database=":memory:"),  # the mart's work: no file that somebody reads is opened
        "mart": MartResource(accountant=accountant, mart_dir=mart_dir),
        "reports": ReportsResource(accountant=accountant, mart_dir=mart_dir),
        "alerts": of_settings(AlertsResource)(
            accountant=accountant,
            **_secret("alert_webhook", settings),
            **_secret("digest_webhook", settings),
            **_secret("smtp_url", settings),
        ),
    }


def _bound(resource: type[_Resource], settings: Settings) -> type[_Resource]:
    """The resource of a project with these settings: its page says those that it works under, and it takes from them
    what no field says, as secrets in `.env`.
    """
    said = {
        "__doc__": _description(resource, settings),
        "__module__": resource.__module__,
        "settings": settings,
    }
    return type(resource)(resource.__name__, (resource,), said)


def _description(resource: type[dg.ConfigurableResource], settings: Settings) -> str:
    """In Markdown: the docstring, and the settings that are no field, since a launch cannot change them."""
    doc = inspect.cleandoc(resource.__doc__ or "")
    values = {name: getattr(settings, name) for name in UNDER.get(resource.__name__, {})}
    lines = [
        f"- `{name.upper()}` = {_plain(value)}: {UNDER[resource.__name__][name]}"
        for name, value in values.items()
        if value not in (None, ())
    ]
    if not lines:
        return doc
    return "\n".join([doc, "", "Set for the whole project, in the environment alone:", "", *lines])


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(float(value)) if isinstance(value, Fraction) else str(value)


UNDER: Mapping[str, Mapping[str, str]] = {
    "AccountantResource": {
        "dau_budget_total": "the ε that DAU of one month may cost a user, in all",
        "mau_budget_total": "the ε that MAU may cost a user for the days of one month",
        "delta": "the δ at which both hold",
        "dau_mechanism": "how DAU's noise is drawn",
        "mau_mechanism": "how MAU's noise is drawn",
        "restatements_per_month": "how often a month's DAU is published again",
        "restatement_day": "the day of the next month on which that is due",
    },
    "ErasureLedgerResource": {
        "erasure_mark": "which days a new request has rebuilt, those that it touched or all",
        "erasure_guard_share": "how large a share of the last MAU one submission may name, before a person confirms it",
    },
    "EventsResource": {
        "max_rejected_share": "how large a share of bad rows an ingest may have",
        "quarantine_days": "for how many days bad rows are remembered",
    },
    "StateResource": {
        "hash_salt_rotation_days": "after how many days users have other keys",
        "retention_days": "after how many days a day is purged",
        "dagster_home": "searched for what is left of an erased person, as the data directory is",
    },
    "SketchesResource": {
        "sketch_impl": "how users are counted",
        "dau_theta0": "the sampling threshold of DAU",
        "mau_theta0": "the sampling threshold of MAU",
        "kmv_k": "how many hashes a kmv sketch keeps",
        "hll_registers": "how many registers an hllpp sketch has",
        "dau_level": "the rank from which registers count for DAU",
        "mau_level": "the rank from which registers count for MAU",
    },
    "AlertsResource": {
        "admin_email": "who gets each alert by e-mail",
    },
    "ClockResource": {
        "timezone": "in which days begin and end",
        "start_date": "the first day that counts",
        "grace_days": "whole days that pass between a day and its publication",
    },
}
"""What a page says besides the fields, by class and setting. Nothing secret is among it."""


def _secret(field: str, settings: Settings) -> dict[str, dg.EnvVar]:
    """The field as the environment's variable that holds it, or nothing: Dagster would raise for one that is not set,
    and would show a value.
    """
    variable = variable_that_holds(field, getattr(settings, field))
    return {field: dg.EnvVar(variable)} if variable else {}


@cache
def _require_right(settings: Settings) -> None:
    """Raises BadSetting: a launch may have set what the project was not loaded with."""
    check(settings)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
