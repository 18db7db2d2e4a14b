"""A ledger of an earlier version is brought up to date whole, and never made to have spent less."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from dpdau_assets.core import ledger_check
from dpdau_assets.core.accounting import Budget
from dpdau_assets.core.errors import BadSetting, NotPublished, Refused
from dpdau_assets.core.planning import budget_of
from dpdau_assets.core.release import restatement_due
from dpdau_assets.core.settings import Settings
from dpdau_tests.conftest import SECRET
from resources.ledger_sql import migration, schema
from resources.ledger_sql.database import Database, open_engine
from resources.ledger_sql.migration import migrate
from resources.store import open_store

# What the version before wrote: DAU of January (restated) and of four days of February, MAU of six days, and requests
# that are verified, received, cancelled and parked.
OLD = Path(__file__).parent / "data" / "ledger_0001.sql"
SETTINGS = Settings(hash_salt_secret=SECRET)
SCRIPTS = Path(migration.__file__).with_name("migrations")


@pytest.fixture
def old(tmp_path: Path) -> str:
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.executescript(OLD.read_text())
    connection.close()
    return f"sqlite:///{tmp_path}/ledger.sqlite"


def rows(url: str, query: str) -> list[tuple]:
    with open_engine(url).connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_an_older_ledger_is_refused_until_it_is_migrated(old: str) -> None:
    with pytest.raises(BadSetting, match="schema is version 0001; this version of dpdau reads 0003") as refused:
        Database(old, SECRET)
    assert "dpdau migrate" in refused.value.remedy
    assert migrate(old, SETTINGS) == ("0001", schema.VERSION)
    Database(old, SECRET)


def test_a_later_ledger_is_refused(database_url: str) -> None:
    with Database(database_url, SECRET).write() as connection:
        connection.execute(schema.version.update().values(version_num="9999"))
    with pytest.raises(BadSetting, match="version 9999"):
        Database(database_url, SECRET)


def test_a_migrated_ledger_has_spent_the_same_and_can_be_believed(old: str, tmp_path: Path) -> None:
    charged = "SELECT metric, month, instance FROM charges ORDER BY id"
    numbers = "SELECT metric, day, revision, noisy_value, half_width, published_at FROM releases ORDER BY id"
    before = rows(old, charged), rows(old, numbers)
    ((instance, noise),) = rows(old, "SELECT * FROM shared_noise")
    statistics = [row[0] for row in rows(old, "SELECT statistic FROM stream_state ORDER BY day")]
    stones = rows(old, "SELECT erasure, epoch, encrypted_key, day, effective_from FROM tombstones ORDER BY id")
    migrate(old, SETTINGS)
    assert (rows(old, charged), rows(old, numbers)) == before
    outside = open_store(Settings(data_dir=tmp_path, hash_salt_secret=SECRET))
    assert ledger_check.problems(outside) == []
    with outside.ledger.transaction() as books:
        assert books.shared_noise(instance) == noise
        assert books.frozen(books.last_instance("mau", 30).name, 99) == statistics  # type: ignore[union-attr]
    assert rows(old, "SELECT erasure, epoch, encrypted_key, day, effective_from FROM tombstones ORDER BY id") == stones
    assert len(outside.erasures.tombstones(223).keys) == 3
    states = [one.state for one in outside.erasures.erasures()]
    assert sorted(states) == ["cancelled", "parked", "received", "verified", "verified"]
    assert restatement_due(date(2025, 2, 1), outside.ledger.instances(), outside.settings) == date(2025, 3, 5)


def test_a_migrated_month_keeps_the_cap_of_the_settings_it_was_migrated_with(old: str, tmp_path: Path) -> None:
    migrate(old, replace(SETTINGS, dau_budget_total=Fraction(5, 2)))
    outside = open_store(replace(SETTINGS, data_dir=tmp_path, dau_budget_total=Fraction(10)))
    february = date(2025, 2, 1)
    assert budget_of("dau", february, outside.ledger, outside.settings) == Budget(Fraction(5, 2), 1e-6)


def test_noise_and_statistics_do_not_stay_in_the_clear_after_a_migration(old: str, tmp_path: Path) -> None:
    with open_engine(old).begin() as connection:
        connection.execute(text("UPDATE shared_noise SET value = 20015998343868"))
    marked = (20015998343868).to_bytes(6, "big")
    assert any(marked in path.read_bytes() for path in tmp_path.iterdir())
    migrate(old, SETTINGS)
    assert not any(marked in path.read_bytes() for path in tmp_path.iterdir())


def test_a_migration_with_a_wrong_secret_changes_nothing(old: str) -> None:
    tables = "SELECT name, sql FROM sqlite_master ORDER BY name"
    before = rows(old, tables)
    with pytest.raises(BadSetting, match="HASH_SALT_SECRET"):
        migrate(old, replace(SETTINGS, hash_salt_secret="another secret for tests, of some length"))
    assert rows(old, tables) == before


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM charges WHERE id = 1", "lower what dau of 2025-01-01 was charged"),
        ("UPDATE charges SET instance = (SELECT min(name) FROM instances)", "lower what"),
        ("UPDATE releases SET noisy_value = noisy_value + 1 WHERE id = 5", r"lose or change 1 published number"),
        ("DELETE FROM releases WHERE metric = 'mau'", r"lose or change 6 published number"),
    ],
)
def test_a_migration_that_would_lower_what_was_spent_or_lose_a_number_is_refused_and_undone(
    old: str, tmp_path: Path, statement: str, reason: str
) -> None:
    migrate(old, SETTINGS)
    scripts = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "versions" / "0004_planted.py").write_text(
        "from alembic import op\nrevision, down_revision = '0004', '0003'\n"
        f"def upgrade():\n    op.execute({statement!r})\n"
    )
    before = [rows(old, f"SELECT * FROM {name} ORDER BY id") for name in ("charges", "releases")]
    with pytest.raises(Refused, match=reason):
        migrate(old, SETTINGS, scripts)
    assert [rows(old, f"SELECT * FROM {name} ORDER BY id") for name in ("charges", "releases")] == before
    assert rows(old, "SELECT * FROM alembic_version") == [(schema.VERSION,)]


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
    with engine.begin() as connection:  # a ledger as version 0001 would have made it, on either database
        migration.command.upgrade(migration._config(connection, SETTINGS, SCRIPTS), "0001")
    assert migrate(database_url, SETTINGS) == ("0001", schema.VERSION)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
