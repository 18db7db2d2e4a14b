"""The port Builds on every database that the ledger can live in: what each partition was last written as."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import delete, insert, select, update

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import Build, Partition, Version
from dpdau_tests.conftest import SECRET, everything_in
from resources.ledger_sql import schema
from resources.ledger_sql.builds import SqlBuilds
from resources.ledger_sql.database import Database
from resources.ledger_sql.ledger import SqlLedger

ONE, OTHER = (Partition("activity", date(2025, 1, day), 223) for day in (1, 2))
LATE = Partition("late", date(2025, 1, 1), 223)


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(database_url, SECRET)


@pytest.fixture
def builds(database: Database) -> SqlBuilds:
    return SqlBuilds(database)


def build(number: int, **also: object) -> Build:
    return Build(Version(bytes([number]) * 16, f"hash {number}"), **also)  # type: ignore[arg-type]


def test_what_is_put_is_there_whole_for_this_process_and_for_others(database: Database, builds: SqlBuilds) -> None:
    other = SqlBuilds(database)
    assert builds.all() == other.all() == {}
    kept = {ONE: build(1), OTHER: build(2, coming=Version(bytes(16), "coming"), without=7), LATE: build(3)}
    builds.put(kept)
    assert builds.all() == other.all() == kept
    builds.put({ONE: build(4), LATE: None})
    assert builds.all() == other.all() == {ONE: build(4), OTHER: kept[OTHER]}


def test_while_they_are_held_they_are_read_once_and_what_is_put_is_known(builds: SqlBuilds) -> None:
    with builds.held(), builds.held():
        builds.put({ONE: build(1)})
        assert builds.all() == {ONE: build(1)}
    assert builds.all() == {ONE: build(1)}


def test_what_was_replaced_stands_nowhere_any_more_and_nothing_of_it_is_in_the_clear(
    database: Database, builds: SqlBuilds
) -> None:
    builds.put({ONE: build(1)})
    with database.read() as connection:
        before = connection.scalar(select(schema.builds.c.encrypted))
    assert before and b"hash 1" not in everything_in(database)
    builds.put({ONE: build(2)})
    assert before not in everything_in(database)


def test_rows_that_are_set_back_with_the_digest_that_they_had_are_found(database: Database, builds: SqlBuilds) -> None:
    tables = (schema.builds, schema.build_digests)
    builds.put({ONE: build(1), OTHER: build(2)})
    with database.read() as connection:
        older = {table: [dict(row) for row in connection.execute(select(table)).mappings()] for table in tables}
    builds.put({ONE: build(3)})
    ledger = SqlLedger(database)
    assert ledger.problems() == []
    with database.write() as connection:
        for table, rows in older.items():
            connection.execute(delete(table))
            connection.execute(insert(table), rows)
    assert ledger.problems() != []


def test_a_row_that_the_ledger_did_not_write_is_refused_and_not_believed(database: Database, builds: SqlBuilds) -> None:
    builds.put({ONE: build(1), OTHER: build(2)})
    table = schema.builds
    with database.write() as connection:
        rows = {row.day: row.encrypted for row in connection.execute(select(table))}
        connection.execute(update(table).where(table.c.day == "2025-01-01").values(encrypted=rows["2025-01-02"]))
    with pytest.raises(Refused, match="activity/day=2025-01-01/epoch=223 was not written by it"):
        SqlBuilds(database).all()
