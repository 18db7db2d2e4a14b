"""What every erasure ledger must do, on real databases; a new one is finished when it passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from dpdau_assets.core.dates import day_number
from dpdau_assets.core.errors import BadSetting, Refused
from dpdau_assets.core.facts import Inspected, ReceiptRow, Release, ReleaseKey, Removal
from dpdau_assets.core.identity import REFERENCE, commitment
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Laplace
from dpdau_tests.conftest import SECRET, everything_in
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasures import SqlErasures
from resources.ledger_sql.ledger import SqlLedger
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
    with SqlLedger(database).transaction() as transaction:
        if transaction.mechanism_run("stream") is None:
            transaction.open_run(MechanismRun("stream", "mau", 30, FIRST_MAU, Laplace(1), {}))  # type: ignore[arg-type]
        transaction.store(Release(ReleaseKey("mau", 30, day), "stream", "x", 1.0, 1.0, "set", "", True, ""))


def in_force(erasures: SqlErasures, epoch: int = 5) -> dict[int, int]:
    """Key to e."""
    tombstones = erasures.tombstones(epoch)
    return dict(zip(tombstones.keys.tolist(), tombstones.effective_from.tolist(), strict=True))


def test_the_same_removal_again_is_the_same_request_and_keeps_its_first_day_in_force(
    database: Database, erasures: SqlErasures
) -> None:
    (first,) = erasures.record([removal(7)], TODAY, parked=False)
    publish_mau(database, date(2025, 2, 3))
    again, other = erasures.record([removal(7), removal(8)], TODAY + timedelta(days=3), parked=False)
    assert again == first and other != first
    assert in_force(erasures) == {12: day_number(FIRST_MAU), 13: day_number(date(2025, 2, 4))}
    assert [erasure.received_on for erasure in erasures.find([first])] == [TODAY]


def test_the_same_removal_twice_at_once_has_two_receipts_and_asking_again_has_the_same_two(
    erasures: SqlErasures,
) -> None:
    asked = [removal(7), removal(8), removal(7), replace(removal(7), reference="T-1")]
    first = erasures.record(asked, TODAY, parked=False)
    assert len(set(first)) == 4
    assert erasures.record(asked, TODAY, parked=False) == first
    assert erasures.record([asked[3], asked[0]], TODAY, parked=False) == [first[3], first[0]]
    more = erasures.record([removal(7), removal(7), removal(7)], TODAY, parked=False)
    assert more[:2] == [first[0], first[2]] and more[2] not in first
    erasures.cancel([first[0]])
    assert erasures.record([removal(7)], TODAY, parked=False) == [first[2]]


def test_a_duplicate_keeps_the_first_day_in_force_of_the_same_person_and_days(
    database: Database, erasures: SqlErasures
) -> None:
    listed = removal(7, days=(date(2025, 1, 2), DAY))
    erasures.record([removal(7), listed], TODAY, parked=False)
    publish_mau(database, date(2025, 2, 3))
    again = [replace(asked, reference="T-1") for asked in (removal(7), listed, removal(8), removal(7, TODAY))]
    (parked,) = erasures.record([replace(listed, reference="T-2")], TODAY, parked=True)
    new = erasures.record(again, TODAY, parked=False)
    erasures.confirm([parked])
    with database.read() as connection:
        query = select(schema.erasures.c.receipt, schema.tombstones.c.effective_from).join(schema.erasures)
        e = {receipt: day for receipt, day in connection.execute(query)}
    first, later = day_number(FIRST_MAU), day_number(date(2025, 2, 4))
    assert [e[name] for name in (*new, parked)] == [first, first, later, later, first]
    assert SqlLedger(database).problems() == []


def test_a_removal_without_keys_is_applied_once_it_is_in_force_and_the_same_as_no_other(
    database: Database, erasures: SqlErasures
) -> None:
    empty = Removal(DAY, (), (), "T-1", (DAY,))
    (at_once,) = erasures.record([empty], TODAY, parked=False)
    (parked, other) = erasures.record([empty, removal(7)], TODAY, parked=True)
    assert len({at_once, parked, other}) == 3
    assert [erasure.state for erasure in erasures.find([at_once, parked, other])] == ["applied", "parked", "parked"]
    erasures.confirm([parked, other])
    assert [erasure.state for erasure in erasures.find([at_once, parked, other])] == ["applied", "applied", "received"]
    with pytest.raises(Refused, match=parked):
        erasures.cancel([parked])
    assert erasures.keys_of([at_once, parked]) == {} == erasures.references([at_once, parked])
    assert SqlLedger(database).problems() == []


def test_days_that_are_passed_over_are_part_of_the_request_and_have_no_tombstone(erasures: SqlErasures) -> None:
    early = date(2024, 12, 30)
    asked = replace(removal(7, days=(early, DAY)), passed_over=(early,))
    (name,) = erasures.record([asked], TODAY, parked=False)
    assert [erasure.days for erasure in erasures.find([name])] == [(early, DAY)]
    assert erasures.tombstones(5).days.tolist() == [day_number(DAY)]
    assert erasures.record([asked], TODAY, parked=False) == [name]


def test_a_reference_is_returned_and_stands_in_no_byte_of_the_database(
    database: Database, erasures: SqlErasures, tmp_path: Path
) -> None:
    long, short = "ticket-" + "9" * 57, "T.2025_03-planted"
    asked = [
        replace(removal(7), reference=long),
        removal(8),
        *[replace(removal(key), reference=short) for key in (9, 7)],
    ]
    names = erasures.record(asked, TODAY, parked=False)
    references = erasures.references(names)
    assert {name: erasure.text for name, erasure in references.items()} == {
        names[0]: long,
        names[2]: short,
        names[3]: short,
    }
    for name, erasure in references.items():
        assert erasure.commitment == commitment(bytes.fromhex(str(erasure.opening)), REFERENCE, name, erasure.text)
    assert [erasure.receipt for erasure in erasures.referred_to(short)] == [names[2], names[3]]
    assert erasures.referred_to("T") == []
    stored = b"".join([everything_in(database), *(path.read_bytes() for path in tmp_path.iterdir())])
    assert long.encode() not in stored and short.encode() not in stored
    with database.read() as connection:
        lengths = connection.scalars(select(func.length(schema.erasure_references.c.encrypted)))
        assert len(set(lengths)) == 1, "which tells how long none of them is"
    assert SqlLedger(database).problems() == []


@pytest.mark.parametrize("end", ["cancelled", "shredded"])
def test_a_reference_is_destroyed_with_the_requests_last_tombstone(
    database: Database, erasures: SqlErasures, end: str
) -> None:
    asked = [replace(removal(key, epochs=epochs), reference="T-1") for key, epochs in ((7, (4, 5)), (8, (4, 5, 6)))]
    names = erasures.record(asked, TODAY, parked=False)
    if end == "cancelled":
        erasures.cancel(names[:1])
    else:
        SqlSalts(database).shred_through(4)
        assert len(erasures.referred_to("T-1")) == 2
        SqlSalts(database).shred_through(5)
    before = erasures.references(names)
    assert (before[names[0]].text, before[names[0]].opening, before[names[1]].text) == (None, None, "T-1")
    assert [erasure.receipt for erasure in erasures.referred_to("T-1")] == names[1:]
    assert SqlLedger(database).problems() == []


def test_other_days_of_the_same_person_are_another_request(erasures: SqlErasures) -> None:
    listed = removal(7, days=(date(2025, 1, 2), DAY))
    receipts = erasures.record([removal(7), listed, removal(7, DAY + timedelta(days=1))], TODAY, parked=False)
    assert len(set(receipts)) == 3
    tombstones = erasures.tombstones(4)
    rows = sorted(zip(tombstones.days.tolist(), tombstones.listed.tolist(), strict=True))
    assert rows == sorted(
        [
            (day_number(DAY), False),
            (day_number(DAY), True),
            (day_number(date(2025, 1, 2)), True),
            (day_number(DAY) + 1, False),
        ]
    )
    assert [erasure.days for erasure in erasures.find(receipts)] == [(), (date(2025, 1, 2), DAY), ()]


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
    assert [erasure.state for erasure in erasures.erasures()] == ["received"]


def test_asking_for_a_parked_removal_in_force_confirms_it(erasures: SqlErasures) -> None:
    (parked,) = erasures.record([removal(7)], TODAY, parked=True)
    assert erasures.record([removal(7)], TODAY, parked=False) == [parked]
    assert [erasure.state for erasure in erasures.find([parked])] == ["received"] and len(in_force(erasures)) == 1


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
    assert [(erasure.receipt, erasure.state) for erasure in erasures.erasures()] == [
        (first, "applied"),
        (second, "received"),
    ]
    assert erasures.applied() == watermark < erasures.recorded()
    assert erasures.tombstones(5, after=watermark).keys.tolist() == [13]


def row(receipt: str, number: int, inspected: Inspected) -> ReceiptRow:
    return ReceiptRow(receipt, f"body {number}", f"hash {number}", "signature", inspected.digest, inspected)


def test_receipts_are_a_chain_that_two_writers_cannot_fork(database: Database, erasures: SqlErasures) -> None:
    receipts, inspected = SqlReceipts(database), Inspected("nonce", "[1]")
    (receipt,) = erasures.record([removal(7)], TODAY, parked=False)
    erasures.mark_applied(erasures.recorded())
    receipts.append([row(receipt, 1, inspected)], "", [])
    with pytest.raises(Refused, match="Another process"):
        receipts.append([row(receipt, 2, Inspected("nonce", "[2]"))], "", [receipt])
    assert [erasure.state for erasure in erasures.find([receipt])] == ["applied"]
    second = row(receipt, 2, inspected)
    receipts.append([second], "hash 1", [receipt])
    assert receipts.last(receipt) == replace(second, inspected=None) and receipts.last_hash() == "hash 2"
    assert [erasure.state for erasure in erasures.find([receipt])] == ["verified"]
    assert receipts.last("nobody's") is None


def test_of_receipts_the_newest_text_is_kept_and_of_inspections_the_newest(
    database: Database, erasures: SqlErasures
) -> None:
    receipts, newest = SqlReceipts(database), Inspected("nonce", "[2]")
    (receipt,) = erasures.record([removal(7)], TODAY, parked=False)
    erasures.mark_applied(erasures.recorded())
    receipts.append([row(receipt, 1, Inspected("nonce", "[1]"))], "", [])
    receipts.append([row(receipt, 2, newest)], "hash 1", [])
    assert receipts.inspection() == newest
    stored = everything_in(database)
    assert b"body 1" not in stored and b"hash 1" in stored and b"body 2" in stored
    receipts.forget_inspection()
    assert receipts.inspection() is None


def test_shredding_takes_an_epochs_tombstones_and_no_key_is_ever_made_for_it_again(
    database: Database, erasures: SqlErasures
) -> None:
    salts = SqlSalts(database)
    (receipt,) = erasures.record([removal(7)], TODAY, parked=False)
    salts.shred_through(4)
    assert erasures.keys_of([receipt]) == {receipt: {5: 12}} and not len(erasures.tombstones(6).keys)
    for opened in (salts, SqlSalts(database)):
        with pytest.raises(Refused, match="salt epoch 4 was shredded"):
            opened.epoch_keys([4, 5])
        assert opened.shredded_through() == 4
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
    requests = erasures.find(receipts)
    assert [erasure.receipt for erasure in requests] == receipts and len({erasure.batch for erasure in requests}) == 1
    assert erasures.find([requests[0].batch]) == requests
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
    tombstones = erasures.tombstones(5, after=marks[1], through=marks[2])
    assert tombstones.keys.tolist() == [13]
    assert sorted(erasures.tombstones(5, through=marks[2]).keys.tolist()) == [12, 13]


def test_a_wrong_secret_makes_no_signing_key(database: Database, database_url: str) -> None:
    SqlSalts(database).epoch_keys([4])
    with pytest.raises(BadSetting, match="HASH_SALT_SECRET does not open"):
        SqlSalts(Database(database_url, "a wrong secret for tests, of some length")).signing_key()
    assert len(SqlSalts(database).signing_key()) == 32
