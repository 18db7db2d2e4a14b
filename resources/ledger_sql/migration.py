"""Bringing a ledger of an older version up to date, without making anything that was spent any less."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from dpdau_assets.core.errors import NotPublished, Refused
from dpdau_assets.core.privacy.accounting import Cost, cost, total
from dpdau_assets.core.privacy.mechanisms import mechanism_from_json
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.settings import Settings
from resources.ledger_sql import schema
from resources.ledger_sql.database import open_engine, overwrite_deleted, schema_version
from resources.ledger_sql.keyring import Keyring

_SCRIPTS = Path(__file__).with_name("migrations")


def migrate(url: str, settings: Settings, scripts: Path = _SCRIPTS) -> tuple[str, str]:
    """The version that the ledger had and the one it has now; all in one transaction.

    Of the settings it takes the master secret, and the caps where an old version kept none.

    Raises NotPublished where there is no ledger, and Refused, having changed nothing, if a migration would lose a
    number or lower what any month was charged.
    """
    engine = open_engine(url)
    old_version = schema_version(engine)
    if old_version is None:
        raise NotPublished("There is no ledger to migrate.", "The first command that needs one makes it.")
    with engine.begin() as connection:
        before = _charged(connection), _numbers(connection)
        config = _config(connection, settings, scripts)
        if old_version not in {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}:
            raise Refused(
                f"No migration leads from the schema version {old_version}, which no released version of dpdau has "
                "written.",
                "Use the version that wrote it.",
            )
        command.upgrade(config, "head")
        _require_not_less(before, (_charged(connection), _numbers(connection)))
    overwrite_deleted(engine, [schema.salts, schema.shared_noise, schema.stream_state, schema.tombstones])
    new_version = schema_version(engine)
    engine.dispose()
    return old_version, new_version or ""


def _config(connection: Connection, settings: Settings, scripts: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    budgets = {metric: (str(settings.cap(metric)), settings.delta) for metric in METRICS}
    keyring = Keyring(settings.hash_salt_secret)
    config.attributes.update(connection=connection, keyring=keyring, budgets=budgets)
    return config


def _charged(connection: Connection) -> dict[tuple[str, str], Cost]:
    """What each month of each metric was charged, from columns that every version has."""
    query = "SELECT c.metric, c.month, i.mechanism FROM charges c JOIN instances i ON c.instance = i.name"
    costs_charged: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    for row in connection.execute(text(query)):
        costs_charged[row.metric, row.month].append(cost(mechanism_from_json(json.loads(row.mechanism))))
    return {place: total(costs) for place, costs in costs_charged.items()}


def _numbers(connection: Connection) -> set[tuple[object, ...]]:
    query = "SELECT metric, window_days, day, revision, noisy_value FROM releases"
    return {tuple(row) for row in connection.execute(text(query))}


_State = tuple[dict[tuple[str, str], Cost], set[tuple[object, ...]]]


def _require_not_less(before: _State, after: _State) -> None:
    for place, spent in before[0].items():
        now = after[0].get(place, Cost())
        if now.epsilon < spent.epsilon or now.pure_rho < spent.pure_rho or now.mu2 < spent.mu2:
            raise Refused(
                f"The migration would lower what {place[0]} of {place[1]} was charged.", "Nothing was changed."
            )
    lost = before[1] - after[1]
    if lost:
        raise Refused(f"The migration would lose or change {len(lost)} published number(s).", "Nothing was changed.")
