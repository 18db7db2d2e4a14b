"""What no scheduled release can need is purged and its keys shredded; nothing that is still needed ever is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from dpdau_assets.core.dates import days_between, epoch_of
from dpdau_assets.core.erasure.receipts import apply_and_verify, receipt
from dpdau_assets.core.erasure.requests import confirm, request
from dpdau_assets.core.erasure.retention import overdue, purge
from dpdau_assets.core.errors import BadSetting, Refused
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.state.activity import process_days
from dpdau_assets.core.state.day_sketch import refresh
from dpdau_tests.conftest import FixedClock, prepare, put, silent
from resources.reading.event_files import event_file

Make = Callable[..., Store]
START = date(2025, 1, 27)
LAST = date(2025, 3, 22)
TODAY = date(2025, 3, 24)
DAYS = days_between(START, LAST)
FIRST_MAU = date(2025, 2, 25)
KEPT = 40
PURGED = date(2025, 2, 10)  # the last one that is past retention then, and the last one of a salt epoch of 30 days
MISSING = (date(2025, 1, 29), date(2025, 2, 2))
NO_RESTATEMENT = {"restatements_per_month": 0, "hash_salt_rotation_days": 30}


def most_published(store: Store) -> None:
    """She and another come every day; DAU of all days but those that are MISSING, without noise."""
    put(store, [(user, day) for day in DAYS for user in ("her", "a")])
    prepare(store, DAYS)
    for day in DAYS:
        if day not in MISSING:
            publish("dau", day, silent(store))


def all_published(store: Store) -> None:
    """DAU and MAU of all days, January and February restated."""
    most_published(store)
    completed(store)
    for day in days_between(FIRST_MAU, LAST):
        publish("mau", day, silent(store))
    restate_both(silent(store))


def completed(store: Store) -> Store:
    for day in MISSING:
        publish("dau", day, silent(store))
    return store


def restate_both(store: Store) -> None:
    restate(date(2025, 1, 1), store)
    restate(date(2025, 2, 1), store)


@pytest.fixture
def opened(make_store: Make) -> Make:
    """Opens stores without noise as the days are published, by default when most DAU are."""

    def make(name: str = "store", recipe: Callable[[Store], None] = most_published, **chosen: object) -> Store:
        return silent(make_store(name, TODAY, recipe, start_date=START, retention_days=KEPT, **chosen))

    return make


@pytest.fixture
def store(opened: Make) -> Store:
    return opened(recipe=all_published)


def test_days_past_retention_are_unlinked(store: Store) -> None:
    put(store, [("late", date(2025, 1, 28)), ("late", LAST)])
    assert purge(store) == PURGED
    for kept in (store.state.activity, store.state.late, store.state.sketches):
        assert min(day for day, _ in kept.stored()) > PURGED
    assert purge(store) == PURGED, "again, and nothing more"


@pytest.mark.every_sketch
def test_what_follows_is_published_as_if_nothing_had_been_purged(store: Store) -> None:
    purge(store)
    more = days_between(LAST + timedelta(days=1), LAST + timedelta(days=12))
    later = replace(store, clock=FixedClock(date(2025, 5, 1)))
    put(later, [("a", day) for day in more])
    prepare(later, more)
    assert [publish("mau", day, later).noisy_value for day in more] == pytest.approx([2] * 12)
    assert [publish("dau", day, later).noisy_value for day in more] == [1] * 12


def test_nothing_is_purged_while_a_restatement_that_reads_it_is_missing(opened: Make) -> None:
    store = completed(opened())
    before = store.state.activity.stored()
    with pytest.raises(Refused, match="the restatement of 2025-01 is missing"):
        purge(store)
    assert store.state.activity.stored() == before and store.accountant.purged_through() is None
    restate_both(store)
    assert purge(store) == PURGED


def test_nothing_is_purged_while_a_number_that_reads_it_is_missing(opened: Make) -> None:
    store = opened(**NO_RESTATEMENT)
    publish("dau", MISSING[0], store)
    with pytest.raises(Refused, match="dau of 2025-02-02 is missing"):
        purge(store)
    publish("dau", MISSING[1], store)
    assert purge(store) == PURGED


def test_nothing_is_purged_while_the_last_window_that_reads_it_is_missing(make_store: Make) -> None:
    """With independent noise, whose days need not follow one another; windows are of a week."""
    days = days_between(date(2025, 2, 1), date(2025, 2, 16))
    store = silent(
        make_store(
            start_date=days[0], retention_days=8, mau_window_days=7, mau_mechanism="gaussian", restatements_per_month=0
        )
    )
    prepare(store, days)
    for day in days:
        publish("dau", day, store)
        if day > date(2025, 2, 11) and day != date(2025, 2, 14):
            publish("mau", day, store)
    with pytest.raises(Refused, match="Days up to 2025-02-08 are past retention, but mau of 2025-02-14 is missing"):
        purge(store)
    publish("mau", date(2025, 2, 14), store)
    assert purge(store) == date(2025, 2, 8)


def test_a_mau_that_lags_behind_holds_its_window_back(opened: Make) -> None:
    store = completed(opened(**NO_RESTATEMENT))
    for day in days_between(FIRST_MAU, date(2025, 3, 9)):
        publish("mau", day, store)
    assert purge(store) == date(2025, 1, 28)
    assert publish("mau", date(2025, 3, 10), store).noisy_value == pytest.approx(2)


@pytest.mark.slow
def test_a_removal_of_days_past_retention_takes_the_living_ones_and_names_the_others(store: Store) -> None:
    purge(store)
    path = store.settings.data_dir.parent / "e.jsonl"
    rows = [{"days": ["2025-01-20", "2025-02-10", "2025-02-12"]}, {"days": ["2025-02-09"]}]
    asked: list[dict[str, object]] = [{"user_id": "her", "op": "-", "metadata": row} for row in rows]
    asked.append({"user_id": "a", "op": "-", "day": str(PURGED)})
    path.write_text("".join(json.dumps(row) + "\n" for row in asked))
    done = ingest([event_file(path)], store).removals
    named = dict(
        zip([erasure.through for erasure in store.erasures.ledger.find(done.receipts)], done.passed_over, strict=True)
    )
    assert named == {
        date(2025, 2, 12): (date(2025, 1, 20), PURGED),
        date(2025, 2, 9): (date(2025, 2, 9),),
        PURGED: (PURGED,),
    }
    assert {erasure.state for erasure in confirm(done.receipts, store.erasures)} == {"received", "applied"}, (
        "two are more than a fifth"
    )
    assert apply_and_verify(store).verified == 3
    left = {
        day: len(keys)
        for day in days_between(PURGED + timedelta(days=1), LAST)
        if (keys := store.state.activity.read(day, epoch_of(day, 90))) is not None and len(keys) != 2
    }
    assert left == {date(2025, 2, 12): 1}


def test_a_purged_day_is_never_rebuilt_and_its_events_are_rejected(store: Store) -> None:
    path = store.settings.data_dir.parent / "e.jsonl"
    path.write_text('{"user_id": "x", "day": "2025-02-10"}\n{"user_id": "x", "day": "2025-02-11"}\n')
    put(store, [("waiting", PURGED)])
    purge(store)
    for act in (process_days, refresh):
        with pytest.raises(Refused, match="2025-02-10 is past retention"):
            act([PURGED], store)
    report = ingest([event_file(path)], store)
    assert (report.ingested, report.rejected, report.days) == (1, 1, (date(2025, 2, 11),))
    put(store, [("her", LAST)])
    process_days([LAST], store)
    assert min(day for day, _ in store.state.activity.stored()) == date(2025, 2, 11)


def test_a_day_that_waited_in_the_inbox_when_its_state_was_purged_is_dropped(store: Store) -> None:
    put(store, [("waiting", PURGED)])
    waiting = store.events.inbox.batches()
    purge(store)
    assert waiting and store.events.inbox.batches() == []
    assert min(day for day, _ in store.state.activity.stored()) == date(2025, 2, 11)


def test_no_number_that_reads_a_purged_day_is_made(opened: Make) -> None:
    store = completed(opened(**NO_RESTATEMENT))
    purge(store)  # no MAU was ever published, so none was scheduled that reads these days
    with pytest.raises(Refused, match="2025-02-10 is past retention"):
        publish("mau", date(2025, 3, 11), store)
    assert publish("mau", date(2025, 3, 12), store).noisy_value == pytest.approx(2)


def test_an_erasure_of_living_days_works_on_after_a_purge_and_shreds_with_its_epoch(opened: Make) -> None:
    store = completed(opened(**NO_RESTATEMENT))
    (early,) = request([Event("a", "-", START)], store).receipts
    apply_and_verify(store)
    purge(store)
    gone = store.state.salts.shredded_through()
    assert gone is not None and gone >= epoch_of(START, 30)
    assert min(store.erasures.ledger.keys_of([early])[early], default=gone + 1) > gone
    (name,) = request([Event("her", "-", LAST)], store).receipts
    assert min(store.erasures.ledger.keys_of([name])[name]) > gone
    apply_and_verify(store)
    assert receipt(name, store)["verified"] is True
    assert receipt(early, store)["state"] == "verified"
    with pytest.raises(Refused, match="was shredded"):
        store.state.salts.epoch_keys([gone])


def test_without_retention_everything_is_kept(make_store: Make) -> None:
    store = make_store()
    prepare(store, DAYS[:3])
    with pytest.raises(BadSetting, match="RETENTION_DAYS is not set"):
        purge(store)
    assert overdue(store) == []


def test_nothing_is_due_before_anything_is_published(make_store: Make) -> None:
    store = make_store(retention_days=KEPT)
    prepare(store, DAYS[:3])
    assert purge(store) is None and len(store.state.activity.stored()) >= 3


def test_the_watchdog_names_days_that_are_kept_too_long_even_when_publishing_stands_still(store: Store) -> None:
    assert overdue(store)[:1] == [START], "nothing was purged yet, and January is long past"
    purge(store)
    assert overdue(store) == []
    stands_still = replace(store, clock=FixedClock(date(2025, 6, 1)))
    assert overdue(stands_still)[0] == PURGED + timedelta(days=1)


def test_what_a_month_was_priced_with_decides_whether_its_restatement_is_waited_for(opened: Make) -> None:
    """A month without a restatement never gets one, and one with it keeps its days until then."""
    without, with_one = completed(opened("without", **NO_RESTATEMENT)), completed(opened("with"))
    assert purge(replace(without, settings=replace(without.settings, restatements_per_month=1))) == PURGED
    changed = replace(with_one, settings=replace(with_one.settings, restatements_per_month=0))
    with pytest.raises(Refused, match="the restatement of 2025-01 is missing"):
        purge(changed)


def test_requests_for_days_that_are_all_purged_are_each_their_own_and_verified_without_a_key(
    make_store: Make,
) -> None:
    """All salt epochs that the last day of January reaches are gone; windows are of a week."""
    first_day = date(2025, 1, 31)
    store = silent(
        make_store(
            retention_days=20,
            hash_salt_rotation_days=7,
            mau_window_days=7,
            mau_mechanism="gaussian",
            restatements_per_month=0,
            start_date=first_day,
        )
    )
    days = days_between(first_day, date(2025, 3, 5))
    put(store, [("a", day) for day in days])
    prepare(store, days)
    for day in days:
        publish("dau", day, store)
    purge(store)
    first, second = request([Event("a", "-", first_day), Event("b", "-", first_day)], store).receipts
    assert first != second and store.erasures.ledger.keys_of([first, second]) == {}
    assert apply_and_verify(store).verified == 2
    assert receipt(first, store)["epochs"] == []


def test_a_day_that_a_restated_month_left_without_a_number_is_not_waited_for(opened: Make) -> None:
    store = opened()
    publish("dau", MISSING[1], store)
    restate_both(store)
    assert purge(store) == PURGED


def store_with_a_copy(opened: Make) -> tuple[Store, str, Path]:
    """Everything published, somebody erased, and a copy of a day of hers left in the data directory."""
    store = completed(opened(**NO_RESTATEMENT))
    copied = store.settings.data_dir / "export.parquet"
    folder = store.settings.data_dir / f"activity/day={START + timedelta(days=1)}"
    (state,) = [path for path in folder.iterdir() if path.stem == f"epoch={epoch_of(START, 30)}"]
    copied.write_bytes(state.read_bytes())
    (name,) = request([Event("her", "-", date(2025, 1, 29))], store).receipts
    return store, name, copied


def test_no_key_is_shredded_while_something_is_left_of_an_erased_person(opened: Make) -> None:
    store, name, copied = store_with_a_copy(opened)
    assert apply_and_verify(store).unverified == (name,)
    purge(store)
    assert store.state.salts.shredded_through() is None
    assert receipt(name, store)["verified"] is False
    copied.unlink()
    apply_and_verify(store)
    purge(store)
    assert (store.state.salts.shredded_through() or 0) >= epoch_of(START, 30)
    assert receipt(name, store)["verified"] is True


def test_what_a_receipt_has_named_stays_named_when_its_key_is_shredded(opened: Make) -> None:
    store, name, copied = store_with_a_copy(opened)
    kept = copied.read_bytes()
    copied.unlink()
    assert apply_and_verify(store).verified == 1
    copied.write_bytes(kept)
    assert receipt(name, store)["verified"] is False
    purge(store)
    gone = store.state.salts.shredded_through()
    assert gone is not None and gone >= epoch_of(START, 30)
    assert [left["file"] for left in receipt(name, store)["survivors"]] == ["export.parquet"]
    copied.unlink()
    assert receipt(name, store)["verified"] is True


def test_state_of_a_day_whose_keys_are_shredded_cannot_be_vouched_for(make_store: Make) -> None:
    store = silent(make_store(hash_salt_rotation_days=30))
    put(store, [("a", START)])
    prepare(store, DAYS[:2])
    (name,) = request([Event("a", "-", START)], store).receipts
    apply_and_verify(store)
    store.state.salts.shred_through(epoch_of(date(2025, 3, 30), 30))  # no purge does this while there is state
    document = receipt(name, store)
    assert document["verified"] is False
    assert any("shredded" in survivor["how"] for survivor in document["survivors"])
