"""The port Completions on every database that the ledger can live in."""

from __future__ import annotations

from datetime import date

import pytest

from dpdau_tests.conftest import SECRET
from resources.ledger_sql.completions import SqlCompletions
from resources.ledger_sql.database import Database

ONE, OTHER = date(2025, 1, 1), date(2025, 1, 2)


@pytest.fixture
def completions(database_url: str) -> SqlCompletions:
    return SqlCompletions(Database(database_url, SECRET))


def test_a_day_is_declared_once_and_again_with_what_landed_last(completions: SqlCompletions) -> None:
    completions.complete(OTHER)
    completions.complete(ONE, "first")
    completions.complete(ONE, "second")
    assert dict(completions.completed()) == {ONE: "second", OTHER: None}


def test_a_declaration_by_hand_keeps_what_landed(completions: SqlCompletions) -> None:
    """Otherwise the same folder would be taken in again."""
    completions.complete(ONE, "landed")
    completions.complete(ONE)
    assert dict(completions.completed()) == {ONE: "landed"}


def test_a_declaration_that_is_taken_back_is_gone_and_one_that_never_was_is_no_error(
    completions: SqlCompletions,
) -> None:
    completions.complete(ONE)
    completions.withdraw(ONE)
    completions.withdraw(OTHER)
    assert dict(completions.completed()) == {}
