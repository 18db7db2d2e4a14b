"""What every ledger must do, on real databases; a new one is finished when it passes."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from functools import partial

import pytest

from dpdau_assets.core.errors import BadSetting, BudgetRefused
from dpdau_assets.core.facts import Override, Release, ReleaseKey, Removal
from dpdau_assets.core.privacy.accounting import Budget, Charge, admits
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Laplace, shared_noise, stream
from dpdau_assets.core.restored import Restore
from dpdau_tests.conftest import SECRET, everything_in
from dpdau_tests.support.racing import race
from resources.ledger_sql.backup import restore_transaction
from resources.ledger_sql.completions import SqlCompletions
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasures import SqlErasures
from resources.ledger_sql.ledger import SqlLedger
from resources.ledger_sql.salts import SqlSalts

MONTH = date(2025, 1, 1)
CAP = Budget(Fraction(3), 1e-6)
PRICE = Laplace(Fraction(3, 10))  # ten fit


@pytest.fixture
def ledger(database_url: str) -> SqlLedger:
    return open_ledger(database_url)


def open_ledger(url: str) -> SqlLedger:
    return SqlLedger(Database(url, SECRET))


def release(number: int = 0, noisy_value: float = 1.5) -> Release:
    key = ReleaseKey("dau", 1, date(2025, 1, 1 + number % 31), number // 31)
    return Release(key, f"run {number}", "laplace", noisy_value, 3.0, "set", "2025-01-03", True, "0.1.0")


def run(number: int = 0) -> MechanismRun:
    return MechanismRun(f"run {number}", "dau", 1, MONTH, PRICE, {"sketch_impl": "set"})


def test_what_is_stored_is_read_back_alike(ledger: SqlLedger) -> None:
    runs = [
        run(),
        MechanismRun("shared", "dau", 1, MONTH, shared_noise(62, 3.0, 1e-6), {}),
        MechanismRun("stream", "mau", 30, MONTH, stream(30, 3.5, 1e-6), {"a": "b"}),
    ]
    with ledger.transaction() as transaction:
        for opened in runs:
            transaction.open_run(opened)
        transaction.charge(Charge("dau", MONTH, "run 0", PRICE))
        transaction.store(release())
    assert ledger.mechanism_runs() == runs
    assert ledger.charges("dau", MONTH) == [Charge("dau", MONTH, "run 0", PRICE)]
    assert ledger.release(release().key) == release()
    assert ledger.releases() == ledger.releases("dau") == [release()]
    assert ledger.releases("mau") == []


def test_the_edition_is_another_one_after_all_that_numbers_and_budgets_follow_from(database_url: str) -> None:
    database = Database(database_url, SECRET)
    ledger = SqlLedger(database)

    def published() -> None:
        with ledger.transaction() as transaction:
            transaction.open_run(run())
            transaction.charge(Charge("dau", MONTH, "run 0", PRICE))
            transaction.store(release())

    def restated() -> None:
        with ledger.transaction() as transaction:
            transaction.open_run(run(31))
            transaction.store(release(31))

    def restored() -> None:
        with restore_transaction(database) as transaction:
            transaction.close("dau", MONTH, MONTH)
            transaction.note_restore(Restore(MONTH, MONTH, None))

    override = Override("cap", "Ada", "a test", MONTH, "dau", MONTH, Fraction(4))
    changes = [published, restated, restored, partial(ledger.override, override), partial(ledger.purge_through, MONTH)]
    seen = [ledger.edition()]
    for change in changes:
        change()
        seen.append(ledger.edition())
        with ledger.snapshot() as snapshot:
            assert snapshot.edition() == ledger.edition() == seen[-1]
    assert len(set(seen)) == len(changes) + 1


def test_events_and_requests_leave_the_edition_as_it_is_and_so_does_what_failed(database_url: str) -> None:
    """Who measures how long an answer takes must not learn of them."""
    database = Database(database_url, SECRET)
    ledger = SqlLedger(database)
    before = ledger.edition()
    ledger.seal([MONTH])
    ledger.mark_processed([MONTH])
    SqlSalts(database).epoch_keys([7])
    SqlErasures(database, SqlSalts(database), MONTH).record([Removal(MONTH, (), ((7, 70),))], MONTH, parked=False)
    SqlCompletions(database).complete(MONTH)
    with pytest.raises(RuntimeError), ledger.transaction() as transaction:
        transaction.open_run(run())
        raise RuntimeError
    assert ledger.edition() == before


def test_an_aborted_transaction_leaves_nothing(ledger: SqlLedger) -> None:
    with pytest.raises(RuntimeError), ledger.transaction() as transaction:
        transaction.open_run(run())
        transaction.charge(Charge("dau", MONTH, "run 0", PRICE))
        transaction.keep_shared_noise("run 0", 7)
        transaction.store(release())
        raise RuntimeError
    assert (ledger.mechanism_runs(), ledger.charges("dau", MONTH), ledger.releases()) == ([], [], [])


def test_a_key_is_stored_once(ledger: SqlLedger) -> None:
    from sqlalchemy.exc import IntegrityError

    with ledger.transaction() as transaction:
        transaction.open_run(run())
        transaction.store(release())
    with pytest.raises(IntegrityError), ledger.transaction() as transaction:
        transaction.store(release(noisy_value=2.5))
    assert ledger.releases() == [release()]


def test_an_error_does_not_quote_what_was_bound(ledger: SqlLedger) -> None:
    from sqlalchemy.exc import IntegrityError

    with pytest.raises(IntegrityError) as caught, ledger.transaction() as transaction:
        transaction.open_run(run())
        transaction.keep_shared_noise("run 0", 987_654_321)
        transaction.keep_shared_noise("run 0", 987_654_321)
    assert "987654321" not in str(caught.value)


def test_terms_are_fixed_at_the_first_opening_and_a_change_is_named(ledger: SqlLedger) -> None:
    ledger.fix_settings({"TIMEZONE": "UTC", "START_DATE": "2025-01-01"})
    ledger.fix_settings({"TIMEZONE": "UTC", "START_DATE": "2025-01-01"})
    with pytest.raises(BadSetting, match=r"TIMEZONE=Asia/Kolkata: this store was begun with UTC"):
        ledger.fix_settings({"TIMEZONE": "Asia/Kolkata", "START_DATE": "2025-01-01"})


def test_a_store_of_before_naive_zone_read_such_times_in_its_own_zone_and_no_id_in_another_spelling(
    ledger: SqlLedger,
) -> None:
    begun = {"TIMEZONE": "Asia/Kolkata"}
    ledger.fix_settings(begun)
    of_today = {**begun, "NAIVE_ZONE": "UTC", "USER_ID_NORMALIZE": "nfc"}
    with pytest.raises(BadSetting) as refused:
        ledger.fix_settings(of_today)
    assert "NAIVE_ZONE=UTC" in refused.value.reason and "keep to NAIVE_ZONE=Asia/Kolkata" in refused.value.reason
    assert "keep to USER_ID_NORMALIZE=none" in refused.value.reason
    as_it_was = {**begun, "NAIVE_ZONE": "Asia/Kolkata", "USER_ID_NORMALIZE": "none"}
    ledger.fix_settings(as_it_was)
    ledger.fix_settings(as_it_was)
    with pytest.raises(BadSetting, match="NAIVE_ZONE=UTC: this store was begun with Asia/Kolkata"):
        ledger.fix_settings({**as_it_was, "NAIVE_ZONE": "UTC"})


def test_a_seal_is_for_ever(database_url: str) -> None:
    open_ledger(database_url).seal([date(2025, 1, 2), MONTH])
    reopened = open_ledger(database_url)
    reopened.seal([MONTH])
    assert reopened.sealed() == {MONTH, date(2025, 1, 2)}


def test_salts_are_made_once_and_only_the_secret_opens_them(database_url: str) -> None:
    keys = SqlSalts(Database(database_url, SECRET)).epoch_keys([7, 8])
    assert SqlSalts(Database(database_url, SECRET)).epoch_keys([8, 7]) == keys
    assert len({key.secret for key in keys.values()}) == 2
    with pytest.raises(BadSetting, match="does not open"):
        SqlSalts(Database(database_url, "t" * 40)).epoch_keys([7])
    with pytest.raises(BadSetting, match="HASH_SALT_SECRET is not set"):
        SqlSalts(Database(database_url)).epoch_keys([7])


def test_no_secret_stands_in_the_clear_in_the_database(database_url: str) -> None:
    database = Database(database_url, SECRET)
    salt = SqlSalts(database).epoch_keys([7])[7]
    with SqlLedger(database).transaction() as transaction:
        transaction.open_run(run())
        transaction.keep_shared_noise("run 0", 7_190_283_746_501)
        transaction.freeze("run 0", MONTH, 8_190_283_746_502)
    seen = everything_in(database)
    for secret in (salt.secret, salt.secret.hex().encode(), b"7190283746501", b"8190283746502"):
        assert secret not in seen
    for number in (7_190_283_746_501, 8_190_283_746_502):
        assert number.to_bytes(8, "little") not in seen and number.to_bytes(6, "big") not in seen
    assert salt.secret.hex() not in repr(salt)
    with SqlLedger(database).transaction() as transaction:
        assert transaction.shared_noise("run 0") == 7_190_283_746_501
        assert transaction.frozen("run 0", 9) == [8_190_283_746_502]


def spend(url: str, worker: int) -> int:
    """Try to make twenty releases, each its own key, with a price of which ten fit; how many went through."""
    ledger, spent = open_ledger(url), 0
    for number in range(20):
        name = worker * 20 + number
        try:
            with ledger.transaction() as transaction:
                charge = Charge("dau", MONTH, f"run {name}", PRICE)
                admits(transaction.charges("dau", MONTH), charge, CAP)
                transaction.open_run(run(name))
                transaction.charge(charge)
                transaction.store(release(name))
            spent += 1
        except BudgetRefused:
            pass
    return spent


def test_processes_that_race_for_a_budget_never_overspend_it(database_url: str) -> None:
    spent = race(spend, [(database_url, worker) for worker in range(4)])
    assert sum(spent) == 10
    ledger = open_ledger(database_url)
    assert len(ledger.charges("dau", MONTH)) == len(ledger.releases()) == 10
