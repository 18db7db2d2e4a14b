"""The port Rebuilds on every database that the ledger can live in: what changed days, until Dagster was told."""

from __future__ import annotations

from datetime import date

import pytest

from dpdau_tests.conftest import SECRET
from resources.ledger_sql.database import Database
from resources.ledger_sql.rebuilds import SqlRebuilds

ONE, OTHER, THIRD = date(2025, 1, 1), date(2025, 1, 2), date(2025, 1, 3)


@pytest.fixture
def rebuilds(database_url: str) -> SqlRebuilds:
    return SqlRebuilds(Database(database_url, SECRET))


def test_a_day_that_changed_stays_until_that_very_change_was_told(rebuilds: SqlRebuilds) -> None:
    rebuilds.arrive([ONE, OTHER])
    first = dict(rebuilds.arrived())
    rebuilds.arrive([ONE])  # while the first was being told
    rebuilds.told(first)
    left = dict(rebuilds.arrived())
    assert left.keys() == {ONE} and left[ONE] != first[ONE]
    rebuilds.told(left)
    assert dict(rebuilds.arrived()) == {}


def test_days_that_are_purged_have_changed_no_more_and_are_behind_no_mark(rebuilds: SqlRebuilds) -> None:
    rebuilds.arrive([ONE, OTHER, THIRD])
    rebuilds.mark([ONE, OTHER, THIRD], 5)
    rebuilds.drop_through(OTHER)
    assert rebuilds.arrived().keys() == {THIRD}
    assert rebuilds.behind() == [(THIRD, 1)]
    assert rebuilds.wanted(ONE) == 1  # the next mark of the day must be another one


def test_a_day_is_behind_until_it_was_built_for_its_newest_mark(rebuilds: SqlRebuilds) -> None:
    rebuilds.mark([ONE], 3)
    rebuilds.mark([ONE, OTHER], 4)
    rebuilds.mark_built(ONE, 1)
    assert rebuilds.behind() == [(ONE, 2), (OTHER, 2)]  # marks count up, whatever the watermark of what they are for
    rebuilds.mark_built(ONE, 2)
    assert (rebuilds.behind(), rebuilds.marked()) == ([(OTHER, 2)], 4)
