"""Which days are complete: by upstream's word, whoever was active on them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete, complete_all, is_declared, withdraw_all
from dpdau_assets.core.publication.release import publish
from dpdau_tests.conftest import prepare

TODAY = date(2025, 1, 10)
DAYS = days_between(date(2025, 1, 1), date(2025, 1, 3))


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store(today=TODAY)


def test_a_day_is_declared_and_its_declaration_is_taken_back(store: Store) -> None:
    complete_all(DAYS, store)
    complete_all(DAYS[:1], store)  # again
    assert is_declared(store.events, store.accountant) == frozenset(DAYS)
    withdraw_all(DAYS[1:], store)
    assert is_declared(store.events, store.accountant) == {DAYS[0]}


@pytest.mark.parametrize(
    ("day", "kind", "said"),
    [
        (date(2024, 12, 31), BadInput, "before START_DATE, 2025-01-01"),
        (TODAY, Refused, "2025-01-10"),
        (TODAY + timedelta(days=5), Refused, "2025-01-15"),
    ],
)
def test_one_day_that_cannot_be_declared_refuses_them_all(
    store: Store, day: date, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        complete_all([*DAYS, day], store)
    assert is_declared(store.events, store.accountant) == frozenset()


def test_a_day_that_a_number_has_read_is_declared_for_good(store: Store) -> None:
    complete_all(DAYS, store)
    prepare(store, DAYS)
    publish("dau", DAYS[1], store)
    with pytest.raises(Refused, match=f"{DAYS[1]} is sealed"):
        withdraw_all(DAYS, store)
    assert is_declared(store.events, store.accountant) == frozenset(DAYS)


def test_a_day_that_is_published_by_hand_needs_no_declaration(store: Store) -> None:
    prepare(store, DAYS)
    publish("dau", DAYS[1], store)
    assert is_declared(store.events, store.accountant) == {DAYS[1]}


def test_a_purged_day_cannot_be_declared(store: Store) -> None:
    store.accountant.purge_through(DAYS[1])
    with pytest.raises(Refused, match="past retention"):
        complete(DAYS[0], store)
    complete(DAYS[2], store)
