"""Events that were acknowledged over HTTP, before anybody has sealed them: user data like any other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.byte_scan import Needles
from dpdau_assets.core.erasure.inspection import IN_SET, Survivor, inspect, left_of_anyone
from dpdau_assets.core.erasure.receipts import apply_and_verify, receipt
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.events import Event
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.state.rebuilding import days_behind
from dpdau_tests.conftest import prepare, put
from dpdau_tests.support.acknowledging import acknowledge
from resources.storage.backup_files import back_up

Make = Callable[..., Store]
DAYS = days_between(date(2025, 1, 1), date(2025, 1, 4))
HERS = [("her", day) for day in DAYS]


@pytest.fixture
def store(make_store: Make) -> Store:
    store = make_store(today=date(2025, 1, 20))
    put(store, [("someone", day) for day in DAYS])
    prepare(store, DAYS)
    return store


def users_of(day: date, store: Store) -> int:
    epoch = store.state.activity.stored()[0][1]
    keys = store.state.activity.read(day, epoch)
    return 0 if keys is None else len(keys)


def erase(store: Store, through: date) -> str:
    return request([Event("her", "-", through)], store).receipts[0]


def test_a_number_misses_no_acknowledged_event_whoever_holds_the_segment(store: Store) -> None:
    segment = acknowledge(store, HERS)
    publish("dau", DAYS[0], store)
    assert users_of(DAYS[0], store) == 2 and store.events.log.segments() == []
    segment.close()
    acknowledge(store, [("too late", DAYS[0])])
    prepare(store, [DAYS[1]])
    assert users_of(DAYS[0], store) == 2 and len(store.state.late.stored()) > 0


def test_what_was_acknowledged_before_or_after_an_erasure_never_brings_a_person_back(store: Store) -> None:
    acknowledge(store, HERS)
    name = erase(store, DAYS[2])
    acknowledge(store, HERS)
    assert apply_and_verify(store).unverified == ()
    assert receipt(name, store)["verified"]
    assert [users_of(day, store) for day in DAYS] == [1, 1, 1, 2]


def test_a_receipt_names_the_segment_in_which_a_removed_day_waits_and_the_next_fold_takes_it_out(store: Store) -> None:
    name = erase(store, DAYS[1])
    apply_and_verify(store)
    segment = acknowledge(store, HERS)
    with store.state.activity.lock():
        left = inspect(store.erasures.ledger.find([name]), store).survivors
    assert left == {name: [Survivor(f"wal/{segment.path.name}", IN_SET)]}
    assert left_of_anyone(store) == []
    (survivor,) = receipt(name, store)["survivors"]  # which seals before it looks
    assert survivor["file"].startswith("inbox/") and not segment.is_there
    assert apply_and_verify(store).unverified == () and receipt(name, store)["verified"]
    assert [users_of(day, store) for day in DAYS] == [1, 1, 2, 2]


def test_days_that_a_request_does_not_remove_may_wait_in_a_segment(store: Store) -> None:
    name = erase(store, DAYS[1])
    apply_and_verify(store)
    acknowledge(store, HERS[2:])
    assert receipt(name, store)["verified"]


def test_a_segment_that_cannot_be_read_may_hold_anyone_and_holds_up_what_folds(store: Store) -> None:
    name = erase(store, DAYS[1])
    apply_and_verify(store)
    segment = acknowledge(store, [("someone", DAYS[0])])
    acknowledge(store, [("someone else", DAYS[0])], segment)  # so that the first frame is not the last
    content = bytearray(segment.path.read_bytes())
    content[20] ^= 1
    segment.path.write_bytes(content)
    assert not receipt(name, store)["verified"]
    with pytest.raises(Refused, match=r"Move .* away"):
        publish("dau", DAYS[0], store)


def test_a_backup_holds_what_was_acknowledged(store: Store, tmp_path: Path) -> None:
    acknowledge(store, HERS)
    back_up(tmp_path / "backup", store)
    copies = [path for path in (tmp_path / "backup" / "files").rglob("*") if path.is_file()]
    epoch = store.state.activity.stored()[0][1]
    her = user_key(store.state.salts.epoch_keys([epoch])[epoch].secret, "her")
    needles = Needles(np.array([her], dtype=np.uint64))
    assert any(len(needles.found_in([path.read_bytes()])) for path in copies)


def test_a_day_of_which_something_was_acknowledged_is_to_be_built(store: Store) -> None:
    complete(DAYS[0], store)
    before = days_behind(store)
    acknowledge(store, HERS[:1])
    assert days_behind(store) == {**before, DAYS[0]: [*before[DAYS[0]], "waiting"]}


def test_no_segment_holds_an_id_as_it_was_sent(store: Store) -> None:
    segment = acknowledge(store, [("an id that is long enough to be found", DAYS[0])])
    assert b"long enough" not in segment.path.read_bytes()
