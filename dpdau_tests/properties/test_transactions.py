"""How many transactions of the ledger a number and an answer take: each answer is of one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta

import pytest

from dpdau_assets.assets.mart import refresh_budget_report
from dpdau_assets.core.budget.forecast import forecast
from dpdau_assets.core.budget.within_budget import within_budget
from dpdau_assets.core.errors import NotPublished
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.ledger import Ledger, LedgerSnapshot
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.due import due
from dpdau_assets.core.publication.release import publish, publish_in_order
from dpdau_assets.core.publication.runs import DAU, Step, plan_run
from dpdau_assets.core.reporting.answers import (
    budget_answer,
    budget_rows,
    latest_number,
    mart_rows,
    release_answer,
    series,
)
from dpdau_assets.core.reporting.budget_bars import budget_bars
from dpdau_assets.core.reporting.checks import CHECKS, Verdict, answer
from dpdau_assets.core.reporting.report import readers_report
from dpdau_assets.core.reporting.status import status
from dpdau_tests.conftest import prepare, put
from dpdau_tests.support.stores import DAYS, a_month_published
from resources.ledger_sql.database import Database
from resources.published.mart_duckdb import MartFiles

NEXT = DAYS[-1] + timedelta(days=1)


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    """A month is published, and the next day built."""
    store = make_store(today=NEXT + timedelta(days=2), recipe=a_month_published)
    put(store, [("user 1", NEXT)])
    prepare(store, [NEXT])
    return store


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Tells the transactions since it was last asked, each as what it does."""
    begun: list[str] = []

    def noting(kind: str) -> Callable[[Database], object]:
        real = getattr(Database, kind)

        @contextmanager
        def transaction(database: Database) -> Iterator[object]:
            begun.append(kind)
            with real(database) as connection:
                yield connection

        return transaction

    for kind in ("read", "write"):
        monkeypatch.setattr(Database, kind, noting(kind))

    def since() -> list[str]:
        seen = list(begun)
        begun.clear()
        return seen

    return since


@pytest.mark.parametrize(("metric", "most"), [("dau", 10), ("mau", 12)])
def test_a_number_takes_at_most_twelve_transactions_of_which_two_write(
    metric: str, most: int, store: Store, counted: Callable[[], list[str]]
) -> None:
    counted()
    publish(metric, NEXT, store)
    begun = counted()
    assert len(begun) <= most and begun.count("write") <= 2
    assert publish(metric, NEXT, store).key.day == NEXT
    assert counted() == ["read"], "a number that is there is only looked up"


def test_of_a_list_each_number_takes_one_transaction_beside_those_of_a_number_alone(
    make_store: Callable[..., Store], counted: Callable[[], list[str]]
) -> None:
    store = make_store(today=NEXT + timedelta(days=2), recipe=days_of_someone)
    counted()
    publish("dau", DAYS[0], store)
    alone = len(counted())
    assert len(list(publish_in_order([Step(DAU, day) for day in DAYS[1:13]], store))) == 12
    assert len(counted()) <= alone + 11


def days_of_someone(store: Store) -> None:
    """Somebody comes on every day."""
    put(store, [("user 1", day) for day in DAYS])
    prepare(store, DAYS)


ANSWERS: dict[str, Callable[[Store], object]] = {
    "a number": lambda store: release_answer(store.accountant.releases("mau")[-1], store.settings, store.accountant),
    "a number by its day": lambda store: latest_number("dau", DAYS[0], 1, None, store),
    "a number that is not there": lambda store: not_published(store),
    "a month's budget": lambda store: budget_answer("dau", DAYS[0], store.settings, store.accountant),
    "all budgets": lambda store: budget_rows(store.settings, store.accountant),
    "the mart": lambda store: mart_rows(store.accountant),
    "a series": lambda store: series("dau", DAYS[0], DAYS[-1], store.settings, store.accountant),
    "the plan": lambda store: forecast(store.accountant, store.settings, 3),
    "the plan of a run": lambda store: plan_run(DAYS[0], NEXT, store),
    "the bars": lambda store: budget_bars(store.settings, store.accountant),
    "a check": lambda store: within_budget(ReleaseKey("dau", 1, DAYS[-1]), store.accountant, store.settings),
    "the readers' report": lambda store: readers_report(store.settings, store.accountant),
    "the budget report": refresh_budget_report,
    "what is due": due,
    "publication on time": lambda store: watched("published_on_time", store),
    "restatement on time": lambda store: watched("restatement_on_time", store),
    "the status": lambda store: status(store, MartFiles(store.settings.data_dir / "mart")),
}
MOST = {"a number that is not there": 2, "what is due": 2, "publication on time": 2, "the status": 9}
"""Where more is asked than the ledger: lost epochs, declarations, what waits to be built, and erasures."""


def not_published(store: Store) -> NotPublished:
    with pytest.raises(NotPublished) as error:
        latest_number("dau", NEXT, 1, None, store)
    return error.value


def watched(name: str, store: Store) -> Verdict:
    check = next(check for check in CHECKS if check.name == name)
    return answer(check, store, MartFiles(store.settings.data_dir / "mart"))


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_is_made_of_one_moment_of_the_ledger(
    what: str, store: Store, counted: Callable[[], list[str]]
) -> None:
    counted()
    assert ANSWERS[what](store)
    begun = counted()
    assert set(begun) == {"read"} and len(begun) <= (2 if what == "a number" else MOST.get(what, 1))


class OneSnapshot:
    """A ledger that gives out one snapshot, and answers nothing else."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._is_asked = False

    @contextmanager
    def snapshot(self) -> Iterator[LedgerSnapshot]:
        assert not self._is_asked
        self._is_asked = True
        with self._ledger.snapshot() as snapshot:
            yield snapshot


@pytest.mark.parametrize("what", sorted(ANSWERS.keys() - {"a number"}))
def test_whatever_an_answer_says_of_the_ledger_is_of_one_snapshot(what: str, store: Store) -> None:
    assert ANSWERS[what](replace(store, accountant=OneSnapshot(store.accountant)))  # type: ignore[arg-type]


def test_an_answer_that_is_asked_of_a_snapshot_takes_no_transaction_and_sees_nothing_later(
    store: Store, counted: Callable[[], list[str]]
) -> None:
    with store.accountant.snapshot() as ledger:
        before = mart_rows(ledger)
        publish("dau", NEXT, store)
        counted()
        assert mart_rows(ledger) == before and ledger.release(ReleaseKey("dau", 1, NEXT)) is None
        assert readers_report(store.settings, ledger).as_of and counted() == []
    assert len(mart_rows(store.accountant)) == len(before) + 1


def test_a_snapshot_says_what_the_ledger_says(store: Store) -> None:
    ledger = store.accountant
    with ledger.snapshot() as snapshot:
        assert snapshot.releases() == ledger.releases() and snapshot.releases("mau") == ledger.releases("mau")
        assert snapshot.mechanism_runs() == ledger.mechanism_runs() and snapshot.overrides() == ledger.overrides()
        assert snapshot.processed() == ledger.processed() and snapshot.sealed() == ledger.sealed()
        assert snapshot.purged_through() == ledger.purged_through() is None
        for metric, month in (("dau", date(2025, 1, 1)), ("mau", date(2025, 2, 1))):
            assert snapshot.charges(metric, month) == ledger.charges(metric, month) != []
            assert snapshot.cap(metric, month) == ledger.cap(metric, month)
        releases = {release.key: release for release in ledger.releases()}
        assert all(snapshot.release(key) == ledger.release(key) == release for key, release in releases.items())
