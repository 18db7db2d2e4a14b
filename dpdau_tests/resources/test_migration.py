"""A ledger of an earlier version is brought up to date whole, and never made to have spent less."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from dpdau_assets.core.errors import BadSetting, NotPublished, Refused
from dpdau_assets.core.settings import Settings
from dpdau_tests.conftest import SECRET, copied
from dpdau_tests.support.prepared import Prepared
from dpdau_tests.support.stores import a_month_published
from resources.ledger_sql import migration, schema
from resources.ledger_sql.database import Database, open_engine
from resources.ledger_sql.ledger import SqlLedger
from resources.ledger_sql.migration import migrate

SETTINGS = Settings(hash_salt_secret=SECRET)
SCRIPTS = Path(migration.__file__).with_name("migrations")

# As a later version would bring it: a fact in a table of its own, and one in a column that the chain has to vouch for.
NEXT = """
from alembic import context, op
from sqlalchemy import Column, MetaData, Table, Text, delete, select

from resources.ledger_sql import chain, schema

revision, down_revision = "0005", "0004"


def upgrade():
    connection, keyring = op.get_bind(), context.config.attributes["keyring"]
    op.create_table("notes", Column("name", Text, primary_key=True), Column("value", Text))
    op.execute("INSERT INTO notes VALUES ('caps', '" + str(sorted(context.config.attributes["budgets"])[0]) + "')")
    op.execute("INSERT INTO lost_epochs (epoch) VALUES (1)")
    chain.adopt(connection, keyring, schema.lost_epochs)
"""


@pytest.fixture
def ledger(tmp_path: Path, prepared: Prepared) -> str:
    """The ledger of a month that was published, as this version writes it."""
    copied(prepared, a_month_published, tmp_path / "store", date(2030, 1, 1))
    return f"sqlite:///{tmp_path}/store/ledger.sqlite"


def with_next(folder: Path, body: str = NEXT) -> Path:
    """The migrations and one more."""
    scripts = folder / "migrations"
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "versions" / "0005_next.py").write_text(body)
    return scripts


def rows(url: str, query: str) -> list[tuple]:
    with open_engine(url).connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_a_later_ledger_is_refused(database_url: str) -> None:
    with Database(database_url, SECRET).write() as connection:
        connection.execute(schema.version.update().values(version_num="9999"))
    with pytest.raises(BadSetting, match="version 9999") as refused:
        Database(database_url, SECRET)
    assert "later one" in refused.value.remedy


def test_an_older_ledger_is_refused_until_it_is_migrated(database_url: str) -> None:
    with Database(database_url, SECRET).write() as connection:
        connection.execute(schema.version.update().values(version_num="0003"))
    with pytest.raises(BadSetting, match=f"schema is version 0003; this version of dpdau reads {schema.VERSION}") as no:
        Database(database_url, SECRET)
    assert "dpdau migrate" in no.value.remedy


def test_a_ledger_that_no_migration_leads_from_is_refused_and_left_as_it_is(database_url: str) -> None:
    with Database(database_url, SECRET).write() as connection:
        connection.execute(schema.version.update().values(version_num="0003"))
    with pytest.raises(Refused, match="No migration leads from the schema version 0003"):
        migrate(database_url, SETTINGS)
    assert rows(database_url, "SELECT * FROM alembic_version") == [("0003",)]


def test_a_migrated_ledger_has_spent_the_same_and_still_holds(ledger: str, tmp_path: Path) -> None:
    charged = "SELECT metric, month, instance FROM charges ORDER BY id"
    numbers = "SELECT metric, day, revision, noisy_value, half_width, published_at FROM releases ORDER BY id"
    before = rows(ledger, charged), rows(ledger, numbers)
    assert migrate(ledger, SETTINGS, with_next(tmp_path)) == ("0004", "0005")
    assert (rows(ledger, charged), rows(ledger, numbers)) == before
    assert rows(ledger, "SELECT * FROM notes") == [("caps", "dau")]
    with open_engine(ledger).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0004'"))
    assert SqlLedger(Database(ledger, SECRET)).problems() == []


def test_a_migration_with_a_wrong_secret_changes_nothing(ledger: str, tmp_path: Path) -> None:
    tables = "SELECT name, sql FROM sqlite_master ORDER BY name"
    before = rows(ledger, tables)
    with pytest.raises(BadSetting, match="HASH_SALT_SECRET"):
        wrong = replace(SETTINGS, hash_salt_secret="another secret for tests, of some length")
        migrate(ledger, wrong, with_next(tmp_path))
    assert rows(ledger, tables) == before


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM charges WHERE id = 1", "lower what dau of 2025-01-01 was charged"),
        ("UPDATE charges SET instance = (SELECT min(name) FROM instances) WHERE metric = 'mau'", "lower what"),
        ("UPDATE releases SET noisy_value = noisy_value + 1 WHERE id = 5", r"lose or change 1 published number"),
        ("DELETE FROM releases WHERE metric = 'mau'", r"lose or change \d+ published number"),
    ],
)
def test_a_migration_that_would_lower_what_was_spent_or_lose_a_number_is_refused_and_undone(
    ledger: str, tmp_path: Path, statement: str, reason: str
) -> None:
    scripts = with_next(
        tmp_path,
        "from alembic import op\nrevision, down_revision = '0005', '0004'\n"
        f"def upgrade():\n    op.execute({statement!r})\n",
    )
    before = [rows(ledger, f"SELECT * FROM {name} ORDER BY id") for name in ("charges", "releases")]
    with pytest.raises(Refused, match=reason):
        migrate(ledger, SETTINGS, scripts)
    assert [rows(ledger, f"SELECT * FROM {name} ORDER BY id") for name in ("charges", "releases")] == before
    assert rows(ledger, "SELECT * FROM alembic_version") == [(schema.VERSION,)]


def test_there_is_nothing_to_migrate_in_an_empty_database(database_url: str) -> None:
    with pytest.raises(NotPublished, match="no ledger"):
        migrate(database_url, SETTINGS)


def test_migrating_an_up_to_date_ledger_changes_nothing(database_url: str) -> None:
    Database(database_url, SECRET)
    assert migrate(database_url, SETTINGS) == (schema.VERSION, schema.VERSION)


def test_the_last_migration_is_the_version_of_the_schema() -> None:
    assert ScriptDirectory(str(SCRIPTS)).get_current_head() == schema.VERSION


def test_migrations_lead_to_the_very_schema_that_a_new_ledger_gets(database_url: str) -> None:
    engine = open_engine(database_url)
    with engine.begin() as connection:
        migration.command.upgrade(migration._config(connection, SETTINGS, SCRIPTS), "head")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
