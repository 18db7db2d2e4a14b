"""A POST that is sent again under its Idempotency-Key is answered as it was, and done once."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.ports.store import Store
from dpdau_tests.api.asking import KEY, asking
from dpdau_tests.conftest import FixedClock
from resources.storage.api_key_file import api_key_file
from resources.storage.seen_requests import FOLDER, New, SeenRequests

TODAY = date(2025, 2, 8)
EVENT = {"event": {"user_id": "u1", "day": "2025-02-01"}}
PERSON = {"user_id": "u1", "through": "2025-02-01", "reference": "ticket-1"}

MakeStore = Callable[..., Store]


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store(today=TODAY)


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    with asking(store) as client:
        yield client


def post(client: TestClient, path: str, body: Any, key: str = "a", **headers: str) -> Any:
    return client.post(path, json=body, headers={"Idempotency-Key": key, **headers})


def written(store: Store) -> tuple[int, int]:
    """Bytes in the log, and erasures on record: both grow with whatever is done."""
    return store.events.log.size(), len(store.erasures.ledger.erasures())


def require_replayed(answer: Any, first: Any) -> None:
    assert (answer.status_code, answer.content) == (first.status_code, first.content)
    assert answer.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
    assert answer.headers["content-type"] == first.headers["content-type"]


@pytest.mark.parametrize(("path", "body"), [("/event", EVENT), ("/event?explain=1", EVENT), ("/erasure", PERSON)])
def test_the_same_request_is_answered_as_it_was_and_done_once(
    store: Store, client: TestClient, path: str, body: Any
) -> None:
    first = post(client, path, body)
    done = written(store)
    assert first.status_code == 202 and done != (0, 0)
    for _ in range(2):
        require_replayed(post(client, path, body), first)
        assert written(store) == done
    assert post(client, path, body, key="b").status_code == 202
    assert client.post(path, json=body).status_code == 202


def test_confirming_and_cancelling_are_done_once_too(store: Store, client: TestClient) -> None:
    receipt = client.post("/erasure", json=PERSON).json()["receipts"][0]
    for action in ("confirm", "cancel"):
        first = client.post(f"/erasure/{receipt}/{action}", headers={"Idempotency-Key": action})
        assert first.status_code == 200
        require_replayed(client.post(f"/erasure/{receipt}/{action}", headers={"Idempotency-Key": action}), first)
    again = client.post(f"/erasure/{receipt}/confirm", headers={"Idempotency-Key": "confirm"})
    assert again.json()["erasures"][0]["state"] == "received", "what was answered then, and not how it stands now"
    assert client.post(f"/erasure/{receipt}/confirm").json()["erasures"][0]["state"] == "cancelled"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/event", {"event": {"user_id": "u2", "day": "2025-02-01"}}),
        ("/event", {"events": [EVENT["event"]]}),
        ("/event?explain=1", EVENT),
        ("/erasure", PERSON),
    ],
)
def test_another_request_under_the_same_key_is_refused_and_not_done(
    store: Store, client: TestClient, path: str, body: Any
) -> None:
    first = post(client, "/event", EVENT)
    done = written(store)
    answer = post(client, path, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "IdempotencyKeyReused")
    assert written(store) == done
    require_replayed(post(client, "/event", EVENT), first)
    assert client.get("/healthz").status_code == 200


def test_the_same_request_packed_or_not_is_the_same(client: TestClient) -> None:
    body = json.dumps(EVENT).encode()
    headers = {"Idempotency-Key": "a", "Content-Type": "application/json"}
    first = client.post("/event", content=body, headers=headers)
    packed = client.post("/event", content=gzip.compress(body), headers={**headers, "Content-Encoding": "gzip"})
    require_replayed(packed, first)


def test_the_same_bytes_as_another_media_type_are_another_request(store: Store, client: TestClient) -> None:
    body = json.dumps(PERSON).encode()
    kinds = ("application/json", "application/x-ndjson")
    first, other = (
        client.post("/erasure", content=body, headers={"Idempotency-Key": "a", "Content-Type": kind}) for kind in kinds
    )
    assert (first.status_code, other.status_code) == (202, 422)
    assert other.json()["code"] == "IdempotencyKeyReused" and written(store)[1] == 1


def test_a_key_is_each_clients_own(store: Store, client: TestClient) -> None:
    _, other = api_key_file(store.settings).add("other", frozenset({"ingest"}), TODAY)
    assert post(client, "/event", EVENT).status_code == 202
    answer = post(client, "/event", {"event": {"user_id": "u2", "day": "2025-02-01"}}, **{"X-API-Key": other})
    assert answer.status_code == 202 and "idempotency-replayed" not in answer.headers


def test_what_was_refused_is_forgotten_and_runs_again(store: Store, client: TestClient) -> None:
    late = {"event": {"user_id": "u1", "day": "2025-02-11"}}
    for _ in range(2):
        answer = post(client, "/event", late)
        assert (answer.status_code, answer.json()["code"]) == (422, "NoValidRow")
    assert post(client, "/event", EVENT).status_code == 202
    bad = post(client, "/erasure", {**PERSON, "reference": "u1"}, key="c")
    assert (bad.status_code, written(store)[1]) == (422, 0)
    assert post(client, "/erasure", PERSON, key="c").status_code == 202


def test_a_request_that_is_still_running_is_409_and_runs_once_the_other_is_given_up(
    store: Store, client: TestClient
) -> None:
    """The other one is another worker's."""
    body = json.dumps(EVENT).encode()
    headers = {"Idempotency-Key": "a", "Content-Type": "application/json"}
    elsewhere = SeenRequests(store.settings.data_dir / FOLDER)
    running = elsewhere.begin(TODAY, "service", "a", (b"POST", b"/event?", b"application/json", body), time.time())
    assert isinstance(running, New)
    before = written(store)
    answer = client.post("/event", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "RequestRunning")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    other = client.post("/event", content=body + b" ", headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "IdempotencyKeyReused")
    assert written(store) == before
    elsewhere.abandon(running)
    assert client.post("/event", content=body, headers=headers).status_code == 202
    elsewhere.close()


def test_what_another_worker_has_answered_is_answered_by_this_one_and_after_midnight(make_store: MakeStore) -> None:
    store = make_store(today=TODAY)
    with asking(store) as client:
        first = post(client, "/erasure", PERSON)
    tomorrow = replace(make_store(today=TODAY), clock=FixedClock(TODAY + timedelta(days=1)))
    with asking(tomorrow) as client:
        require_replayed(post(client, "/erasure", PERSON), first)
    assert written(store)[1] == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=12) | st.sampled_from([b"x" * 255, b"x" * 256, b""]))
def test_a_key_is_1_to_255_visible_characters_and_is_never_repeated(client: TestClient, key: bytes) -> None:
    answer = client.post("/event", json=EVENT, headers=[(b"Idempotency-Key", key)])  # type: ignore[arg-type]
    is_one = 1 <= len(key) <= 255 and all(0x21 <= byte <= 0x7E for byte in key)
    assert answer.status_code == (202 if is_one else 422)
    if not is_one:
        assert answer.json()["errors"][0]["field"] == "header.Idempotency-Key"


def test_nothing_of_a_key_or_a_body_is_in_any_file(store: Store) -> None:
    with asking(store) as client:
        body = {**PERSON, "user_id": "QZXWVJKY"}
        assert post(client, "/erasure", body, key="an-idempotency-key").status_code == 202
        assert post(client, "/event", EVENT, key="another-idempotency-key").status_code == 202
    for path in store.settings.data_dir.rglob("*"):
        if path.is_file():
            found = path.read_bytes()
            assert b"idempotency-key" not in found and b"QZXWVJKY" not in found and KEY.encode() not in found
