"""What stands between an acknowledgement and the state, seen through the API: damage, a store that was replaced, a full
disk in the middle of an answer.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from datetime import date

import pytest

from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.state.activity import apply_pending
from dpdau_tests.api.asking import asking
from dpdau_tests.support.acknowledging import acknowledge
from resources.storage.seen_requests import SeenRequests

Make = Callable[..., Store]
DAY = date(2025, 1, 1)
EVENT = {"event": {"user_id": "somebody", "day": str(DAY)}}


@pytest.fixture
def store(make_store: Make) -> Store:
    return make_store(today=date(2025, 1, 20))


def users(store: Store) -> int:
    with store.state.activity.lock():
        apply_pending(store)
    sets = (store.state.activity.read(*place) for place in store.state.activity.stored())
    return sum(len(keys) for keys in sets if keys is not None)


def test_what_is_acknowledged_is_durable_before_the_answer(store: Store) -> None:
    with asking(store) as client:
        assert client.post("/event", json=EVENT).status_code == 202
        assert sum(len(store.events.log.read(name)) for name in store.events.log.segments()) > 0
    assert store.events.log.segments() == [] and users(store) == 1


def test_beside_a_damaged_segment_a_worker_starts_and_answers_and_says_what_is_wrong(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    segment = acknowledge(store, [("somebody", DAY)])
    acknowledge(store, [("another", DAY)], segment)
    content = bytearray(segment.path.read_bytes())
    content[20] ^= 1
    segment.path.write_bytes(content)
    with caplog.at_level(logging.ERROR, "dpdau.api"), asking(store) as client:
        assert client.get("/budget/dau?day=2025-01-01").status_code == 200
        assert client.post("/event", json=EVENT).status_code == 202
    assert any("is damaged at byte" in message and "Move" in message for message in caplog.messages)
    assert len(store.events.log.segments()) >= 1


def test_a_worker_whose_store_was_replaced_takes_nothing_any_more(store: Store) -> None:
    with asking(store) as client:
        assert client.post("/erasure", json={"user_id": "somebody"}).status_code == 202
        ledger = store.settings.data_dir / "ledger.sqlite"
        ledger.rename(ledger.with_name("ledger.old"))
        shutil.copy(ledger.with_name("ledger.old"), ledger)
        for path, body in (("/erasure", {"user_id": "another"}), ("/event", {"event": {"user_id": "x", "op": "-"}})):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "Damaged")
            assert str(store.settings.data_dir) not in answer.text


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with asking(store) as client:
        monkeypatch.setattr(SeenRequests, "finish", full)
        first = client.post("/erasure", json={"user_id": "somebody"}, headers={"Idempotency-Key": "k"})
        monkeypatch.undo()
        again = client.post("/erasure", json={"user_id": "somebody"}, headers={"Idempotency-Key": "k"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["receipts"] == again.json()["receipts"] and len(store.erasures.ledger.erasures()) == 1
    assert any("could not be kept" in message for message in caplog.messages)


def test_bad_events_fail_no_check_of_files_and_stand_in_the_quarantine_under_their_request(store: Store) -> None:
    with asking(store) as client:
        body = {"events": [EVENT["event"], {"user_id": ""}]}
        request_id = client.post("/event", json=body).headers["x-request-id"]
    assert store.events.quarantine.shares() == []
    (kept,) = (store.settings.data_dir / "quarantine").glob("*.csv")
    assert f"POST /event {request_id},2," in kept.read_text()
