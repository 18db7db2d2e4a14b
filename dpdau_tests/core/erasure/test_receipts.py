"""What a receipt says: that nothing is left, read back from everything; and, where something is, what and where."""

from __future__ import annotations

import copy
import gzip
import json
import sqlite3
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from dpdau_assets.core.dates import days_between, epoch_of
from dpdau_assets.core.erasure.byte_scan import Needles
from dpdau_assets.core.erasure.inspection import HOLDS_USER_DATA, IN_BYTES, IN_SET, Survivor, inspect
from dpdau_assets.core.erasure.receipts import (
    Document,
    apply,
    apply_and_verify,
    document_of,
    is_genuine,
    receipt,
    receipts_of,
)
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import DaySet
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.state.touched import days_to_rebuild
from dpdau_tests.conftest import SECRET, FixedClock, prepare, put

pytestmark = pytest.mark.every_sketch(since="soak")
Make = Callable[..., Store]

START = date(2025, 2, 20)  # epoch 224 of 90 days begins on 13 March: the first days have two epochs
DAYS = [
    *days_between(START, date(2025, 2, 23)),
    date(2025, 3, 2),
    *days_between(date(2025, 3, 9), date(2025, 3, 14)),
    date(2025, 3, 20),
    *days_between(date(2025, 3, 24), date(2025, 3, 25)),
]
THROUGH = date(2025, 3, 10)
EPOCH = epoch_of(START, 90)


def all_came(store: Store) -> None:
    """Her and twenty others on every day, state and sketches built."""
    put(store, [(user, day) for day in DAYS for user in ("her", *(f"user {n}" for n in range(20)))])
    prepare(store, DAYS)


def two_erased(store: Store) -> None:
    """User 3 was erased, and she after him. What a day's files were before is kept in its own folder."""
    all_came(store)
    before = [(path, path.read_bytes()) for path in files_of_a_day(store.settings.data_dir)]
    for user in ("user 3", "her"):
        erase(store, user)
        assert apply_and_verify(store).unverified == ()
    kept = store.settings.data_dir / "before"
    kept.mkdir()
    for path, content in before:
        (kept / path.name).write_bytes(content)


def files_of_a_day(data: Path) -> list[Path]:
    return [data / "activity/day=2025-02-21/epoch=223.parquet", data / "sketches/day=2025-02-21/epoch=223.sketch"]


@pytest.fixture
def opened(make_store: Make) -> Make:
    """Stores that begin as the recipe says; Dagster's home is outside of the data directory."""

    def make(recipe: Callable[[Store], None]) -> Store:
        store = make_store(recipe=recipe, start_date=START, today=date(2025, 3, 26))
        home = store.settings.data_dir.parent / "home"
        return make_store(start_date=START, today=date(2025, 3, 26), dagster_home=home)

    return make


@pytest.fixture
def store(opened: Make) -> Store:
    return opened(all_came)


@pytest.fixture
def empty(make_store: Make) -> Store:
    """Nobody was ever there: what a receipt is called does not depend on it."""
    return make_store(start_date=START, today=date(2025, 3, 26))


@dataclass(frozen=True)
class Erased:
    """A store, the receipts of her and of user 3, and the files of a day that they were in."""

    store: Store
    name: str
    other: str
    before: dict[str, bytes]


@pytest.fixture
def erased(opened: Make, tmp_path: Path) -> Erased:
    store = opened(two_erased)
    before = (store.settings.data_dir / "before").rename(tmp_path / "before")
    other, name = (erasure.receipt for erasure in store.erasures.ledger.erasures(["verified"]))
    activity, sketches = ((before / path.name).read_bytes() for path in files_of_a_day(before))
    return Erased(store, name, other, {"activity": activity, "sketches": sketches})


def erase(store: Store, user: str = "her", through: date = THROUGH, days: tuple[date, ...] = ()) -> str:
    (name,) = request([Event(user, "-", through, days)], store).receipts
    return name


def key_of(user: str, store: Store, epoch: int = EPOCH) -> int:
    return user_key(store.state.salts.epoch_keys([epoch])[epoch].secret, user)


def old_parquet(store: Store, _: int, before: dict[str, bytes]) -> str:
    path = store.settings.data_dir / "activity/day=2025-02-21/epoch=223.parquet.old"
    path.write_bytes(before["activity"])
    return "activity/day=2025-02-21/epoch=223.parquet.old"


def wal_page(store: Store, key: int, _: dict[str, bytes]) -> str:
    connection = sqlite3.connect(store.settings.data_dir / "ledger.sqlite")
    connection.execute("CREATE TABLE scratch (key INTEGER)")
    connection.execute("INSERT INTO scratch VALUES (?)", [int(np.uint64(key).astype(np.int64))])
    connection.commit()
    store.__dict__["_kept_open"] = connection  # closing it would move the page into the database itself
    return "ledger.sqlite-wal"


def inbox_batch(store: Store, _: int, __: dict[str, bytes]) -> str:
    put(store, [("her", THROUGH)])
    return f"inbox/{store.events.inbox.batches()[0]}.parquet"


def quarantine_row(store: Store, key: int, _: dict[str, bytes]) -> str:
    path = store.settings.data_dir / "quarantine/rows.csv"
    path.write_text(f"file,line,reason\nevents.csv,3,{key}\n")
    return "quarantine/rows.csv"


def sketch(store: Store, _: int, before: dict[str, bytes]) -> str:
    (store.settings.data_dir / "sketches/day=2025-02-21/epoch=223.sketch").write_bytes(before["sketches"])
    return "sketches/day=2025-02-21/epoch=223"  # by its file, or by its reader alone: no key stands in registers


def temp_file(store: Store, key: int, _: dict[str, bytes]) -> str:
    path = store.settings.data_dir / "activity/day=2025-02-21/.0123456789abcdef.tmp"
    path.write_bytes(b"half" + key.to_bytes(8, "little"))
    return "activity/day=2025-02-21/.0123456789abcdef.tmp"


def late_file(store: Store, key: int, _: dict[str, bytes]) -> str:
    store.state.late.replace([DaySet(THROUGH, EPOCH, np.array([key], dtype=np.uint64))])
    return f"late/day={THROUGH}/epoch={EPOCH}"


def log_line(store: Store, key: int, _: dict[str, bytes]) -> str:
    home = store.settings.dagster_home
    assert home
    home.mkdir(exist_ok=True)
    (home / "debug.log").write_text(f"2025-03-11 12:00:00 folded key={key:x} again\n")
    return "dagster_home/debug.log"


def backup(store: Store, _: int, before: dict[str, bytes]) -> str:
    copy_of = store.settings.data_dir.parent / "copy.parquet"
    copy_of.write_bytes(before["activity"])
    path = store.settings.data_dir / "backups/march.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        archive.add(copy_of)
    return "backups/march.tar.gz"


def dagster_metadata(store: Store, key: int, _: dict[str, bytes]) -> str:
    home = store.settings.dagster_home
    assert home
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        note = dg.AssetMaterialization("activity", metadata={"debug": str(key)})
        instance.report_runless_asset_event(note)
    return "dagster_home/"


PLANTED = [
    old_parquet,
    wal_page,
    inbox_batch,
    quarantine_row,
    sketch,
    temp_file,
    late_file,
    log_line,
    backup,
    dagster_metadata,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_survivor_is_named_and_the_receipt_is_not_verified(
    erased: Erased, plant: Callable[[Store, int, dict[str, bytes]], str]
) -> None:
    store, name = erased.store, erased.name
    assert receipt(name, store)["verified"] is True
    place = plant(store, key_of("her", store), erased.before)
    document = receipt(name, store)
    assert document["verified"] is False and document["state"] == "applied"
    assert any(survivor["file"].startswith(place) for survivor in document["survivors"]), document["survivors"]
    assert is_genuine(document, store.state.salts.signing_key())
    whole_copies = (old_parquet, sketch, backup)  # hold user 3 as well
    assert receipt(erased.other, store)["verified"] is (plant not in whole_copies)


def test_a_late_event_of_hers_is_found_by_its_store_and_by_its_bytes(erased: Erased) -> None:
    """Each for itself: either alone would do to find her, and hide that the other looks elsewhere."""
    store, name = erased.store, erased.name
    place = late_file(store, key_of("her", store), erased.before)
    with store.state.activity.lock():
        survivors = inspect(store.erasures.ledger.find([name]), store).survivors[name]
    assert survivors == [Survivor(place, IN_SET), Survivor(f"{place}.parquet", IN_BYTES)]


def test_what_is_planted_before_the_erasure_is_named_too_and_she_stays_unverified(store: Store) -> None:
    path = store.settings.data_dir / "activity" / "copy of a day"
    path.write_bytes((store.settings.data_dir / "activity/day=2025-02-21/epoch=223.parquet").read_bytes())
    name = erase(store)
    assert apply_and_verify(store).unverified == (name,)
    assert [erasure.state for erasure in store.erasures.ledger.find([name])] == ["applied"]
    path.unlink()
    assert apply_and_verify(store).unverified == ()
    assert [erasure.state for erasure in store.erasures.ledger.find([name])] == ["verified"]


def test_a_file_that_cannot_be_read_is_named_for_everyone(erased: Erased) -> None:
    store, name = erased.store, erased.name
    (store.settings.data_dir / "export.zst").write_bytes(bytes.fromhex("28b52ffd") + bytes(100))
    (survivor,) = receipt(name, store)["survivors"]
    assert survivor["file"] == "export.zst" and "cannot be read" in survivor["how"]


def test_a_damaged_partition_is_named(erased: Erased) -> None:
    store, name = erased.store, erased.name
    path = store.settings.data_dir / "activity/day=2025-02-21/epoch=223.parquet"
    damaged = bytearray(path.read_bytes())
    keys = store.state.activity.read(date(2025, 2, 21), EPOCH)
    assert keys is not None
    damaged[damaged.index(int(keys[7]).to_bytes(8, "little"))] ^= 0xFF  # not the first or last, which the header has
    path.write_bytes(damaged)
    assert {survivor["file"] for survivor in receipt(name, store)["survivors"]} == {"activity/day=2025-02-21/epoch=223"}


def test_a_receipt_names_every_live_partition_of_everything_that_holds_people(store: Store) -> None:
    publish("dau", DAYS[0], store)
    put(store, [("late", DAYS[0])])
    name = erase(store)
    assert apply_and_verify(store).unverified == ()
    document = receipt(name, store)
    named = {(row["store"], row["day"], row["epoch"]) for row in document["partitions"]}
    stores = {"activity": store.state.activity, "late": store.state.late, "sketches": store.state.sketches}
    assert named == {
        (name, day.isoformat(), epoch) for name, kept in stores.items() for day, epoch in kept.stored()
    } and set(stores) | {"inbox", "wal"} == {folder for folders in HOLDS_USER_DATA.values() for folder in folders}
    for row in document["partitions"]:
        asked = date.fromisoformat(row["day"]) <= THROUGH
        assert (row["membership"], row["bytes"]) == (("absent", "absent") if asked else ("not asked", "not asked"))
        assert len(row["content_hash"]) == 64 and len(row["version"]) == 32


def test_a_receipt_has_the_same_shape_whether_or_not_the_person_was_there(store: Store) -> None:
    known, unknown = erase(store), erase(store, "nobody")
    before = [receipt(name, store) for name in (known, unknown)]
    apply_and_verify(store)
    after = [receipt(name, store) for name in (known, unknown)]
    private = ("receipt", "previous", "hash", "signature")
    for document, other in (before, after):
        assert list(document) == list(other)
        assert {name: document[name] for name in document if name not in private} == {
            name: other[name] for name in other if name not in private
        }
    assert before[0]["verified"] is False and before[0]["signature"] is None and after[0]["verified"] is True


def test_her_later_days_are_not_asked_about_and_do_not_spoil_the_receipt(erased: Erased) -> None:
    store, name = erased.store, erased.name
    keys = store.state.activity.read(date(2025, 3, 12), EPOCH)
    assert keys is not None and key_of("her", store) in keys.tolist()
    put(store, [("her", date(2025, 3, 20))])
    assert receipt(name, store)["verified"] is True


def test_listed_days_leave_the_others_alone(store: Store) -> None:
    listed = (date(2025, 2, 22), date(2025, 3, 2))
    name = erase(store, through=listed[-1], days=listed)
    apply_and_verify(store)
    document = receipt(name, store)
    assert document["verified"] is True and document["scope"]["days"] == ["2025-02-22", "2025-03-02"]
    asked = {row["day"] for row in document["partitions"] if row["membership"] == "absent"}
    assert asked == {"2025-02-22", "2025-03-02"}


def test_receipts_are_a_chain_and_none_can_be_changed(store: Store) -> None:
    first, second = erase(store), erase(store, "user 3")
    apply_and_verify(store)
    earlier, later = receipt(first, store), receipt(second, store)
    assert (earlier["previous"], later["previous"]) == ("", earlier["hash"])
    assert receipt(first, store) == earlier, "asked again and nothing changed: the same receipt"
    key = store.state.salts.signing_key()
    changes: list[Callable[[Document], object]] = [
        lambda document: document.update(verified=False),
        lambda document: document["partitions"].pop(),
        lambda document: document["partitions"][0].update(bytes="present"),
        lambda document: document["partitions"][0].update(content_hash="0" * 64),
        lambda document: document.update(previous="0" * 64),
        lambda document: document["remains"].pop(),
    ]
    assert is_genuine(earlier, key) and not is_genuine(earlier, bytes(32))
    for change in changes:
        forged = copy.deepcopy(earlier)
        change(forged)
        assert not is_genuine(forged, key)


def test_what_was_read_back_before_an_erasure_is_kept_no_longer_than_until_it_is_applied(erased: Erased) -> None:
    """Beside what is there now it would say which days the erasure has changed."""
    store = erased.store
    assert store.erasures.receipts.inspection() is not None
    erase(store, "user 5")
    apply(store)
    assert store.erasures.receipts.inspection() is None
    document = receipt(erased.name, store)
    assert (
        document["verified"] is True
        and document["partitions"]
        and is_genuine(document, store.state.salts.signing_key())
    )


def test_two_inspections_of_the_same_state_have_digests_that_do_not_say_so(erased: Erased) -> None:
    """Whoever has a receipt's digest cannot try out whether a state that he knows is the one it was made of."""
    store = erased.store
    first = receipt(erased.name, store)
    store.erasures.receipts.forget_inspection()
    second = receipt(erased.name, store)
    assert first["partitions"] == second["partitions"]
    assert first["partitions_digest"] != second["partitions_digest"]


def test_flush_deletes_reads_back_again_what_a_receipt_said_was_left(erased: Erased) -> None:
    """The text that names where she was found is superseded as soon as she is gone from there."""
    store, name = erased.store, erased.name
    path, _ = files_of_a_day(store.settings.data_dir)
    path.write_bytes(erased.before["activity"])
    assert receipt(name, store)["verified"] is False
    assert apply_and_verify(store).unverified == ()
    row = store.erasures.receipts.last(name)
    assert row is not None and json.loads(row.body)["verified"] is True


def test_a_receipt_holds_no_user_id_key_or_secret(store: Store) -> None:
    planted = "planted-person-31337"
    put(store, [(planted, day) for day in DAYS])
    prepare(store, DAYS)
    (name,) = request([Event(planted, "-", THROUGH)], store).receipts
    keys = store.erasures.ledger.keys_of([name])[name]
    assert len(keys) == 2
    apply_and_verify(store)
    text = json.dumps(receipt(name, store)).encode()
    assert planted.encode() not in text and SECRET.encode() not in text
    assert not len(Needles(np.array(sorted(keys.values()), dtype=np.uint64)).found_in([text]))


def test_a_receipt_still_checks_after_the_master_secret_was_rotated(erased: Erased, make_store: Make) -> None:
    document = receipt(erased.name, erased.store)
    erased.store.state.salts.rewrap("another secret for tests, just as long")
    again = make_store(hash_salt_secret="another secret for tests, just as long", start_date=START)
    assert is_genuine(document, again.state.salts.signing_key())


def test_a_later_replay_waits_in_the_inbox_and_is_gone_after_the_next_fold(erased: Erased) -> None:
    store, name = erased.store, erased.name
    put(store, [("her", THROUGH - timedelta(days=1))])
    assert receipt(name, store)["verified"] is False
    apply_and_verify(store)
    assert receipt(name, store)["verified"] is True


@pytest.mark.every_sketch
def test_the_inspection_reads_what_stands_there_now(erased: Erased) -> None:
    store, name = erased.store, erased.name
    day_after = replace(store, clock=FixedClock(date(2025, 3, 27)))
    first = receipt(name, store)
    put(day_after, [("someone new", date(2025, 3, 24))])
    apply_and_verify(day_after)
    second = receipt(name, day_after)
    before, after = (
        {(row["store"], row["day"], row["epoch"]): row["content_hash"] for row in document["partitions"]}
        for document in (first, second)
    )
    assert after.keys() == before.keys(), "which rows there are tells nothing of whoever came"
    changed = {place[:2] for place in after if after[place] != before[place]}
    assert changed == {("activity", "2025-03-24"), ("sketches", "2025-03-24")}
    assert second["inspected_on"] == "2025-03-27" and second["previous"] == first["hash"]


def called(store: Store, user: str, reference: str, through: date = THROUGH) -> str:
    (name,) = request([Event(user, "-", through, reference=reference)], store).receipts
    return name


def test_a_receipt_is_bound_to_its_reference_and_whoever_exchanges_it_is_found_out(empty: Store) -> None:
    name, other = called(empty, "her", "T-1"), called(empty, "user 3", "T-2")
    assert receipt(name, empty)["reference"] == "T-1", "before it is applied too"
    apply_and_verify(empty)
    document, key = receipt(name, empty), empty.state.salts.signing_key()
    assert document["reference"] == "T-1" and is_genuine(document, key)
    opening = empty.erasures.ledger.references([other])[other].opening
    for forged in (
        {"reference": "T-2"},
        {"reference": "T-2", "reference_opening": opening},
        {"reference_opening": opening},
        {"reference_opening": None},
        {"reference_commitment": None},
    ):
        assert not is_genuine({**document, **forged}, key), forged
    bare = {
        field: document[field] for field in document if field not in ("reference", "reference_opening", "partitions")
    }
    assert is_genuine(bare, key) and "T-1" not in json.dumps(bare)
    assert not is_genuine({**receipt(erase(empty, "user 4"), empty), "reference": "T-1"}, key)
    last = empty.erasures.receipts.last(name)
    assert last and "T-1" not in last.body and document["reference_opening"] not in last.body


def test_one_document_covers_every_request_of_a_reference_in_order(empty: Store) -> None:
    names = [called(empty, "her", "T-1"), called(empty, "user 3", "T-1"), called(empty, "nobody", "T-1")]
    called(empty, "user 4", "T-2")
    assert [covered["receipt"] for covered in receipts_of("T-1", empty)["receipts"]] == names
    apply_and_verify(empty)
    document = receipts_of("T-1", empty)
    assert (document["verified"], [covered["verified"] for covered in document["receipts"]]) == (True, [True] * 3)
    later = called(empty, "user 5", "T-1", THROUGH - timedelta(days=1))
    document = receipts_of("T-1", empty)
    assert (document["reference"], document["verified"]) == ("T-1", False)
    assert [(covered["receipt"], covered["verified"]) for covered in document["receipts"]] == [
        *((name, True) for name in names),
        (later, False),
    ]
    with pytest.raises(BadInput, match="No erasure has the reference T-3"):
        receipts_of("T-3", empty)


def test_a_receipt_shows_no_reference_once_its_tombstone_is_gone_and_stays_genuine(empty: Store) -> None:
    name = called(empty, "her", "T-1", DAYS[0])
    apply_and_verify(empty)
    before, key = receipt(name, empty), empty.state.salts.signing_key()
    empty.state.salts.shred_through(EPOCH + 1)
    row = empty.erasures.receipts.last(name)
    assert row
    document = document_of(row, empty.erasures.ledger.references([name]).get(name))
    assert (document["reference"], document["reference_opening"]) == (None, None)
    assert document["reference_commitment"] == before["reference_commitment"]
    assert is_genuine(document, key) and is_genuine(before, key)


def test_a_batch_is_no_receipt(store: Store) -> None:
    batches = request([Event("user 1", "-", THROUGH), Event("user 2", "-", THROUGH)], store).batches
    with pytest.raises(BadInput, match="is a batch of requests"):
        receipt(batches[0], store)


def test_a_day_that_nobody_asked_for_is_purged_of_her_and_waits_for_no_rebuild(make_store: Make) -> None:
    """Whether a day can be published must not depend on who was active on it."""
    store = make_store(start_date=START, today=date(2025, 3, 26))
    put(store, [("her", day) for day in DAYS])
    prepare(store, DAYS[:3])
    assert apply_and_verify(store).unverified == ()
    name = erase(store)
    assert apply_and_verify(store).unverified == () and receipt(name, store)["verified"] is True
    assert [day for day, _ in days_to_rebuild(store)] == DAYS[:3]
    assert store.accountant.processed() == frozenset(DAYS[:3])


@pytest.mark.parametrize(
    "name",
    [
        "activity/day=2025-02-30/epoch=223.parquet",
        "activity/day=2025-03-20/epoch=9.parquet",
        "activity/day=2025-03-20/epoch=224.bak",
        "activity/day=2025-03-20/epoch=0224.parquet",
    ],
)
def test_a_copy_that_is_only_named_like_a_partition_is_searched_like_any_file(erased: Erased, name: str) -> None:
    path = erased.store.settings.data_dir / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(erased.before["activity"])
    assert name in {survivor["file"] for survivor in receipt(erased.name, erased.store)["survivors"]}


def test_a_file_that_is_named_after_her_key_is_found(erased: Erased) -> None:
    store, name = erased.store, erased.name
    (store.settings.data_dir / f"user-{key_of('her', store)}.txt").write_text("nothing")
    assert receipt(name, store)["verified"] is False


def test_a_file_that_may_pack_its_bytes_is_named_and_nobody_is_vouched_for(erased: Erased) -> None:
    """A packed file is not opened: this one holds nobody, and the next could."""
    path = erased.store.settings.data_dir / "notes.txt.gz"
    path.write_bytes(gzip.compress(b"nobody is in here"))
    document = receipt(erased.name, erased.store)
    assert document["verified"] is False
    (survivor,) = document["survivors"]
    assert survivor["file"] == "notes.txt.gz" and survivor["how"].endswith("is not opened, and cannot be vouched for.")
    path.unlink()
    assert receipt(erased.name, erased.store)["verified"] is True


def test_other_programs_temporary_files_are_left_alone(store: Store) -> None:
    other = store.settings.data_dir / "thesis.tmp"
    other.write_text("not ours")
    erase(store)
    apply_and_verify(store)
    assert other.exists()
