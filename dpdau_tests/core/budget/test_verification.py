"""What a whole ledger is still held to: every number paid for, of a sealed day, and as wide as its noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from dpdau_assets.core.budget import verification
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_tests.conftest import prepare
from resources.ledger_sql.ledger import SqlLedger, SqlLedgerTransaction

Make = Callable[..., Store]
JANUARY, FEBRUARY = date(2025, 1, 1), date(2025, 2, 1)
DAYS = days_between(JANUARY, date(2025, 2, 3))
TODAY = date(2025, 2, 5)


def test_a_month_that_a_number_reads_and_was_never_charged_for_it_is_found(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window reads two months; nothing of the ledger was changed, so its chain holds."""
    store = make_store(today=TODAY, mau_mechanism="gaussian", mau_window_days=7)
    days = days_between(date(2025, 1, 28), date(2025, 2, 3))
    real = SqlLedgerTransaction.charge
    monkeypatch.setattr(
        SqlLedgerTransaction, "charge", lambda books, charge: None if charge.month == JANUARY else real(books, charge)
    )
    prepare(store, days)
    publish("mau", days[-1], store)
    name = "mau-7-gaussian-2025-02-03-r0"
    assert [charge.run for charge in store.accountant.charges("mau", FEBRUARY)] == [name]
    assert verification.problems(store.settings, store.accountant) == [
        f"mau of 2025-01 was never charged for {name}, which has published numbers of it."
    ]


def test_a_day_that_is_read_and_no_longer_sealed_is_found(make_store: Make) -> None:
    store = make_store(today=TODAY)
    prepare(store, DAYS[:2])
    publish("dau", DAYS[0], store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlLedger, "seal", lambda *_: None)
        publish("dau", DAYS[1], store)
    assert verification.problems(store.settings, store.accountant) == [
        "2025-01-02 is read by published numbers, and is not sealed."
    ]


@pytest.mark.parametrize(("metric", "days"), [("dau", DAYS[:2]), ("mau", DAYS[29:31])])
def test_a_number_that_is_kept_with_another_width_than_its_noise_has_is_found(
    make_store: Make, monkeypatch: pytest.MonkeyPatch, metric: str, days: list[date]
) -> None:
    """Each day of a stream has a width of its own, by its place in the stream."""
    store = make_store(today=TODAY)
    prepare(store, DAYS)
    first = publish(metric, days[0], store)
    assert verification.problems(store.settings, store.accountant) == []
    real, width = SqlLedgerTransaction.store, first.half_width * 1.5
    monkeypatch.setattr(
        SqlLedgerTransaction, "store", lambda books, release: real(books, replace(release, half_width=width))
    )
    publish(metric, days[1], store)
    (problem,) = verification.problems(store.settings, store.accountant)
    assert problem.startswith(f"{metric} of {days[1]} is kept with half_width {width}; {first.run} has ")
