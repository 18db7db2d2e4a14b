"""What every erasure ledger must do, on real databases; a new one is finished when it passes."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from dpdau_assets.core.errors import BadSetting, Refused
from dpdau_assets.core.facts import Instance, ReceiptRow, Release, ReleaseKey, Removal
from dpdau_assets.core.mechanisms import Laplace
from dpdau_assets.core.windows import day_number
from dpdau_tests.conftest import SECRET, everything_in
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasures import SqlErasures
from resources.ledger_sql.ledger import SqlLedger
from resources.ledger_sql.rebuilds import SqlRebuilds
from resources.ledger_sql.receipts import SqlReceipts
from resources.ledger_sql.salts import SqlSalts

DAY = date(2025, 1, 9)
TODAY = date(2025, 2, 1)
FIRST_MAU = date(2025, 1, 30)


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(database_url, SECRET)


@pytest.fixture
def erasures(database: Database) -> SqlErasures:
    return SqlErasures(database, SqlSalts(database), FIRST_MAU)


def removal(key: int, through: date = DAY, days: tuple[date, ...] = (), epochs: tuple[int, ...] = (4, 5)) -> Removal:
    return Removal(through, days, tuple((epoch, key + epoch) for epoch in epochs))


def publish_mau(database: Database, day: date) -> None:
    with SqlLedger(database).transaction() as books:
        if books.instance("stream") is None:
            books.open_instance(Instance("stream", "mau", 30, FIRST_MAU, Laplace(1), {}))  # type: ignore[arg-type]
        books.store(Release(ReleaseKey("mau", 30, day), "stream", "x", 1.0, 1.0, "set", "", True, ""))


def in_force(erasures: SqlErasures, epoch: int = 5) -> dict[int, int]:
    """Key to e."""
    found = erasures.tombstones(epoch)
    return dict(zip(found.keys.tolist(), found.effective_from.tolist(), strict=True))


def test_the_same_removal_again_is_the_same_request_and_keeps_its_first_day_in_force(
    database: Database, erasures: SqlErasures
) -> None:
    (first,) = erasures.record([removal(7)], TODAY, parked=False)
    publish_mau(database, date(2025, 2, 3))
    again, other = erasures.record([removal(7), removal(8)], TODAY + timedelta(days=3), parked=False)
    assert again == first and other != first
    assert in_force(erasures) == {12: day_number(FIRST_MAU), 13: day_number(date(2025, 2, 4))}
    assert [one.received_on for one in erasures.find([first])] == [TODAY]


def test_other_days_of_the_same_person_are_another_request(erasures: SqlErasures) -> None:
    listed = removal(7, days=(date(2025, 1, 2), DAY))
    receipts = erasures.record([removal(7), listed, removal(7, DAY + timedelta(days=1))], TODAY, parked=False)
    assert len(set(receipts)) == 3
    found = erasures.tombstones(4)
    rows = sorted(zip(found.days.tolist(), found.listed.tolist(), strict=True))
    assert rows == sorted([(day_number(DAY), False), (day_number(DAY), True), (day_number(date(2025, 1, 2)), True),
                           (day_number(DAY) + 1, False)])  # fmt: skip
    assert [one.days for one in erasures.find(receipts)] == [(), (date(2025, 1, 2), DAY), ()]


def test_keys_come_back_whole_and_stand_in_no_byte_of_the_database(
    database: Database, erasures: SqlErasures, tmp_path: Path
) -> None:
    keys = [0, 2**64 - 6, 2**63 + 0x1122334455667788, 0xFEDCBA9876543210, 0x123456789ABCDEF0]
    receipts = erasures.record([removal(key) for key in keys], TODAY, parked=False)
    assert sorted(erasures.tombstones(5).keys.tolist()) == sorted(key + 5 for key in keys)
    assert erasures.keys_of(receipts) == {
        name: {4: key + 4, 5: key + 5} for name, key in zip(receipts, keys, strict=True)
    }
    stored = b"".join([everything_in(database), *(path.read_bytes() for path in tmp_path.iterdir())])
    for key in keys[2:]:
        for epoch in (4, 5):
            assert (key + epoch).to_bytes(8, "big") not in stored and (key + epoch).to_bytes(8, "little") not in stored


def test_a_parked_request_is_not_in_force_until_it_is_confirmed(database: Database, erasures: SqlErasures) -> None:
    (receipt,) = erasures.record([removal(7)], TODAY, parked=True)
    assert in_force(erasures) == {} and erasures.recorded() == 0
    publish_mau(database, date(2025, 2, 9))
    erasures.confirm([receipt])
    assert in_force(erasures) == {12: day_number(date(2025, 2, 10))}  # the day of the confirmation counts
    assert erasures.recorded() > 0
    erasures.confirm([receipt])
    assert [one.state for one in erasures.erasures()] == ["received"]


def test_asking_for_a_parked_removal_in_force_confirms_it(erasures: SqlErasures) -> None:
    (parked,) = erasures.record([removal(7)], TODAY, parked=True)
    assert erasures.record([removal(7)], TODAY, parked=False) == [parked]
    assert [one.state for one in erasures.find([parked])] == ["received"] and len(in_force(erasures)) == 1


def test_a_cancelled_request_leaves_no_tombstone_and_can_be_made_again(erasures: SqlErasures) -> None:
    (receipt,) = erasures.record([removal(7)], TODAY, parked=False)
    before = erasures.recorded()
    erasures.cancel([receipt])
    assert in_force(erasures) == {} and erasures.keys_of([receipt]) == {} and erasures.recorded() == before
    (again,) = erasures.record([removal(7)], TODAY, parked=False)
    assert again != receipt and len(in_force(erasures)) == 1 and erasures.recorded() > before


def test_what_is_being_applied_cannot_be_cancelled_and_none_of_a_batch_is(erasures: SqlErasures) -> None:
    (first,) = erasures.record([removal(7)], TODAY, parked=False)
    erasures.begin_applying(erasures.recorded())
    (second,) = erasures.record([removal(8)], TODAY, parked=False)
    with pytest.raises(Refused, match=first):
        erasures.cancel([second, first])
    assert len(in_force(erasures)) == 2
    erasures.mark_applied(erasures.recorded())
    with pytest.raises(Refused, match=second):
        erasures.cancel([second])


def test_applying_moves_only_what_its_watermark_holds(erasures: SqlErasures) -> None:
    (first,) = erasures.record([removal(7)], TODAY, parked=False)
    watermark = erasures.recorded()
    (second,) = erasures.record([removal(8)], TODAY, parked=False)
    erasures.mark_applied(watermark)
    assert [(one.receipt, one.state) for one in erasures.erasures()] == [(first, "applied"), (second, "received")]
    assert erasures.applied() == watermark < erasures.recorded()
    assert erasures.tombstones(5, after=watermark).keys.tolist() == [13]


def test_marks_grow_with_each_batch_and_a_rebuilt_day_is_no_longer_behind(database: Database) -> None:
    rebuilds = SqlRebuilds(database)
    rebuilds.mark([DAY, TODAY], 3)
    rebuilds.mark([TODAY], 5)
    assert rebuilds.behind() == [(DAY, 1), (TODAY, 2)] and rebuilds.marked() == 5
    rebuilds.mark_built(TODAY, 1)  # an older rebuild that ends late
    assert rebuilds.behind() == [(DAY, 1), (TODAY, 2)]
    rebuilds.mark_built(TODAY, 2)
    rebuilds.mark_built(DAY, 1)
    assert rebuilds.behind() == [] and rebuilds.wanted(TODAY) == 2 and rebuilds.wanted(FIRST_MAU) == 0
    rebuilds.mark([], 9)
    assert rebuilds.behind() == [] and rebuilds.marked() == 9


def test_receipts_are_a_chain_that_two_writers_cannot_fork(database: Database, erasures: SqlErasures) -> None:
    receipts = SqlReceipts(database)
    (receipt,) = erasures.record([removal(7)], TODAY, parked=False)
    erasures.mark_applied(erasures.recorded())
    first = ReceiptRow(receipt, "body 1", "hash 1", "signature", "[1]")
    receipts.append([first], "", [])
    with pytest.raises(Refused, match="Another process"):
        receipts.append([ReceiptRow(receipt, "body 2", "hash 2", "signature", "[2]")], "", [receipt])
    assert [one.state for one in erasures.find([receipt])] == ["applied"]
    second = ReceiptRow(receipt, "body 2", "hash 2", "signature", "[1]")
    receipts.append([second], "hash 1", [receipt])
    assert receipts.last(receipt) == second and receipts.last_hash() == "hash 2"
    assert [one.state for one in erasures.find([receipt])] == ["verified"]
    assert receipts.last("nobody's") is None


def test_shredding_takes_an_epochs_tombstones_and_no_key_is_ever_made_for_it_again(
    database: Database, erasures: SqlErasures
) -> None:
    salts = SqlSalts(database)
    (receipt,) = erasures.record([removal(7)], TODAY, parked=False)
    salts.shred_through(4)
    assert erasures.keys_of([receipt]) == {receipt: {5: 12}} and not len(erasures.tombstones(6).keys)
    for one in (salts, SqlSalts(database)):
        with pytest.raises(Refused, match="salt epoch 4 was shredded"):
            one.epoch_keys([4, 5])
        assert one.shredded_through() == 4
    salts.shred_through(3)
    assert salts.shredded_through() == 4


def test_a_new_master_secret_opens_the_same_keys_and_the_old_one_nothing(database: Database, database_url: str) -> None:
    salts = SqlSalts(database)
    keys, signing = salts.epoch_keys([4, 5]), salts.signing_key()
    salts.rewrap("another secret for tests, as long")
    assert salts.epoch_keys([6])[6].secret not in {key.secret for key in keys.values()}
    again = SqlSalts(Database(database_url, "another secret for tests, as long"))
    assert again.epoch_keys([4, 5]) == keys and again.signing_key() == signing
    for epoch in (4, 9):  # one that is there, and one that would be made anew
        with pytest.raises(BadSetting, match="HASH_SALT_SECRET does not open"):
            SqlSalts(Database(database_url, SECRET)).epoch_keys([epoch])
    with pytest.raises(BadSetting, match="HASH_SALT_SECRET does not open"):
        SqlSalts(Database(database_url, SECRET)).signing_key()


def test_thousands_of_requests_are_found_again_by_receipt_and_by_batch(erasures: SqlErasures) -> None:
    rng = np.random.default_rng(0)
    keys = sorted({int(key) for key in rng.integers(0, 2**60, size=6_000)})
    receipts = erasures.record([removal(key) for key in keys], TODAY, parked=False)
    found = erasures.find(receipts)
    assert [one.receipt for one in found] == receipts and len({one.batch for one in found}) == 1
    assert erasures.find([found[0].batch]) == found
    assert erasures.record([removal(key) for key in reversed(keys)], TODAY, parked=False) == receipts[::-1]


def test_a_request_that_was_keyed_before_its_epoch_was_shredded_leaves_no_tombstone_there(
    database: Database, erasures: SqlErasures
) -> None:
    erasures.record([removal(7)], TODAY, parked=False)  # opens the keys, which this process then still has
    SqlSalts(database).shred_through(4)
    (receipt,) = erasures.record([removal(8)], TODAY, parked=False)
    assert SqlErasures(database, SqlSalts(database), FIRST_MAU).keys_of([receipt]) == {receipt: {5: 13}}


def test_tombstones_between_two_watermarks_are_those_that_came_into_force_there(erasures: SqlErasures) -> None:
    marks = [erasures.recorded()]
    for key in (7, 8, 9):
        erasures.record([removal(key)], TODAY, parked=False)
        marks.append(erasures.recorded())
    found = erasures.tombstones(5, after=marks[1], through=marks[2])
    assert found.keys.tolist() == [13]
    assert sorted(erasures.tombstones(5, through=marks[2]).keys.tolist()) == [12, 13]


def test_a_wrong_secret_makes_no_signing_key(database: Database, database_url: str) -> None:
    SqlSalts(database).epoch_keys([4])
    with pytest.raises(BadSetting, match="HASH_SALT_SECRET does not open"):
        SqlSalts(Database(database_url, "a wrong secret for tests, of some length")).signing_key()
    assert len(SqlSalts(database).signing_key()) == 32
