"""The port Rebuilds on every database that the ledger can live in: what changed days, until Dagster was told."""

from __future__ import annotations

from datetime import date

import pytest

from dpdau_tests.conftest import SECRET, everything_in
from resources.ledger_sql.database import Database
from resources.ledger_sql.rebuilds import SqlRebuilds

ONE, OTHER, THIRD = date(2025, 1, 1), date(2025, 1, 2), date(2025, 1, 3)


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(database_url, SECRET)


@pytest.fixture
def rebuilds(database: Database) -> SqlRebuilds:
    return SqlRebuilds(database)


def test_a_day_that_changed_stays_until_that_very_change_was_told(rebuilds: SqlRebuilds) -> None:
    rebuilds.mark_changed([ONE, OTHER])
    first = dict(rebuilds.changed())
    rebuilds.mark_changed([ONE])  # while the first was being told
    rebuilds.mark_reported(first)
    left = dict(rebuilds.changed())
    assert left.keys() == {ONE} and left[ONE] != first[ONE]
    rebuilds.mark_reported(left)
    assert dict(rebuilds.changed()) == {}


def test_days_that_are_purged_have_changed_no_more_and_are_behind_no_mark(rebuilds: SqlRebuilds) -> None:
    rebuilds.mark_changed([ONE, OTHER, THIRD])
    rebuilds.mark([ONE, OTHER, THIRD], 5)
    rebuilds.drop_through(OTHER)
    assert rebuilds.changed().keys() == {THIRD}
    assert rebuilds.behind() == [(THIRD, 1)]


def test_a_day_is_behind_until_it_was_built_for_its_newest_mark(rebuilds: SqlRebuilds) -> None:
    rebuilds.mark([ONE], 3)
    rebuilds.mark([ONE, OTHER], 4)
    rebuilds.mark_built(ONE, 1)  # an older rebuild that ends late
    assert rebuilds.behind() == [(ONE, 2), (OTHER, 2)]  # marks count up, whatever the watermark of what they are for
    rebuilds.mark_built(ONE, 2)
    assert rebuilds.behind() == [(OTHER, 2)] and rebuilds.wanted(ONE) == 0


def test_a_day_that_waits_for_the_same_removals_keeps_its_mark(rebuilds: SqlRebuilds) -> None:
    rebuilds.mark([ONE], 3)
    rebuilds.mark([ONE, OTHER], 3)
    assert rebuilds.behind() == [(ONE, 1), (OTHER, 2)]
    rebuilds.mark([ONE], 2)
    assert rebuilds.wanted(ONE) == 1


def test_the_next_mark_is_higher_than_any_before_though_no_day_has_one_any_more(rebuilds: SqlRebuilds) -> None:
    rebuilds.mark([ONE], 3)
    rebuilds.mark_built(ONE, 1)
    rebuilds.mark([ONE], 3)
    assert rebuilds.behind() == [(ONE, 2)]
    rebuilds.mark([], 9)
    assert rebuilds.behind() == [(ONE, 2)] and rebuilds.marked() == 0
    rebuilds.note_marked(9)
    assert rebuilds.marked() == 9


def test_a_day_that_was_rebuilt_is_named_nowhere_any_more(database: Database, rebuilds: SqlRebuilds) -> None:
    rebuilds.mark([THIRD], 3)
    rebuilds.mark_changed([THIRD])
    assert str(THIRD).encode() in everything_in(database)
    rebuilds.mark_built(THIRD, 1)
    rebuilds.mark_reported(rebuilds.changed())
    assert str(THIRD).encode() not in everything_in(database)
