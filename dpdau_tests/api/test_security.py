"""Security events of the API: refused keys and limits, counted by workers and told to a real receiver, in sum."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dpdau_assets.api.security import SecurityWatch
from dpdau_assets.core.api_keys import Scope
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.security_events import SUMMED_SECONDS, SecurityEvent
from dpdau_tests.api.asking import asking
from dpdau_tests.api.serving import serve
from dpdau_tests.dagster.world import KeptAlerts
from dpdau_tests.support.receiving import Receiver, webhook_receiver
from resources.messages.delivery import NotDelivered
from resources.messages.messages import Messages

ADDRESS = "testclient"
WRONG = "a wrong key, and a long one of its kind"
MakeStore = Callable[..., Store]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook_receiver() as receiver:
        yield receiver


def tell(client: TestClient) -> None:
    """What the worker does each few seconds."""
    service(client).security.keep()
    service(client).security.deliver()


def service(client: TestClient) -> Any:
    app: Any = client.app
    while not hasattr(app, "state"):
        app = app._app
    return app.state.service


def wrong(client: TestClient, times: int = 1) -> None:
    for _ in range(times):
        assert client.get("/status", headers={"X-API-Key": WRONG}).status_code == 401


def test_a_refused_key_is_told_and_a_request_without_a_key_is_not(make_store: MakeStore, receiver: Receiver) -> None:
    with asking(make_store(), alert_webhook=receiver.address) as client:
        assert TestClient(client.app).get("/status").status_code == 401
        tell(client)
        assert receiver.bodies == []
        wrong(client)
        tell(client)
    (body,) = receiver.bodies
    assert (body["alert"], body["count"]) == ("key_refused", "1")


def test_refused_keys_that_repeat_are_one_alert_with_their_number_by_the_end_of_the_time(
    make_store: MakeStore, receiver: Receiver
) -> None:
    now = [1_750_000_000.0]
    with asking(make_store(), alert_webhook=receiver.address) as client:
        service(client).security = SecurityWatch(Messages(service(client).settings, lambda: now[0]))
        for _ in range(10):
            wrong(client, 5)
            tell(client)
            now[0] += 1
        assert [body["count"] for body in receiver.bodies] == ["5"]
        now[0] += SUMMED_SECONDS
        tell(client)
    assert [body["count"] for body in receiver.bodies] == ["5", "45"]
    assert "45 times since" in receiver.bodies[1]["text"]


def test_a_key_that_asks_for_more_than_its_scopes_is_told_by_its_name(
    make_store: MakeStore, receiver: Receiver
) -> None:
    with asking(make_store(), alert_webhook=receiver.address) as client:
        narrow = key_of(client, "dashboard", "read")
        assert client.get("/status", headers={"X-API-Key": narrow}).status_code == 403
        tell(client)
    (body,) = receiver.bodies
    assert (body["alert"], body["about"]) == ("scope_refused", "dashboard") and narrow not in json.dumps(body)


@pytest.mark.parametrize("scopes", [("erase",), ("read",)])
def test_of_refused_requests_for_erasures_no_number_is_told(
    scopes: tuple[Scope, ...], make_store: MakeStore, receiver: Receiver
) -> None:
    """A client with an expired key asks for one person after the other; so does one that reaches its limit."""
    with asking(make_store(), alert_webhook=receiver.address, rate_limit_per_minute=9) as client:
        key = key_of(client, "crm", *scopes)
        for headers in ({"X-API-Key": WRONG}, {"X-API-Key": key}):
            for number in range(12):
                client.post("/erasure", json={"user_id": f"user {number}"}, headers=headers)
        tell(client)
    alerts = {body["alert"]: body for body in receiver.bodies}
    assert alerts.keys() == {"key_refused", "limit_reached", *(["scope_refused"] if scopes == ("read",) else [])}
    for body in alerts.values():
        assert "count" not in body and body["text"].endswith(", on a route of erasures.")


def test_a_limit_that_is_reached_is_told_with_the_key_and_without_an_address(
    make_store: MakeStore, receiver: Receiver
) -> None:
    with asking(make_store(), alert_webhook=receiver.address, rate_limit_per_minute=3) as client:
        name = key_of(client, "dashboard", "read")
        answers = [client.get("/budget/dau", headers={"X-API-Key": name}).status_code for _ in range(6)]
        assert answers[-1] == 429
        tell(client)
    (body,) = receiver.bodies
    assert body["alert"] == "limit_reached" and body["text"].startswith(
        "The key dashboard has sent more than its limit"
    )
    assert body["count"] == str(answers.count(429)) and ADDRESS not in json.dumps(body)


def test_a_batch_that_is_larger_than_a_minutes_limit_is_a_mistake_and_no_security_event(
    make_store: MakeStore, receiver: Receiver
) -> None:
    with asking(make_store(), alert_webhook=receiver.address, rate_limit_events_per_minute=2) as client:
        events = {"events": [{"user_id": f"u{n}", "day": "2025-01-01"} for n in range(3)]}
        assert client.post("/event", json=events).status_code == 413
        tell(client)
    assert receiver.bodies == []


def test_what_was_counted_is_kept_when_the_worker_ends_and_delivered_by_the_next(
    make_store: MakeStore, receiver: Receiver
) -> None:
    store = make_store()
    with asking(store, alert_webhook=receiver.address) as client:
        wrong(client, 3)
    with asking(store, alert_webhook=receiver.address) as client:
        tell(client)
    assert [body["count"] for body in receiver.bodies] == ["3"]


def test_no_request_waits_for_a_receiver_and_nothing_is_lost_that_cannot_be_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full(KeptAlerts):
        full = True

        def note(self, events: Any) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().note(events)

    alerts = Full()
    watch = SecurityWatch(alerts)
    for _ in range(4):
        watch.note("key_refused", "read")
    watch.keep()
    assert "cannot be kept (OSError)" in caplog.text
    watch.note("key_refused", "read")
    alerts.full = False
    watch.keep()
    assert alerts.noted == {SecurityEvent("key_refused"): 5}


def test_a_receiver_that_does_not_answer_is_told_in_the_log_and_holds_up_no_other_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Away(KeptAlerts):
        def deliver(self) -> None:
            raise NotDelivered("ALERT_WEBHOOK did not take a message (URLError).", "It is kept, and sent again.")

    alerts = Away()
    watch = SecurityWatch(alerts)
    watch.note("key_refused", "read")
    for _ in range(2):
        watch.keep()
        watch.deliver()
    assert alerts.noted == {SecurityEvent("key_refused"): 1} and "ALERT_WEBHOOK did not take" in caplog.text


def test_workers_of_one_server_tell_one_alert_of_a_flood_and_its_whole_sum_is_kept(
    tmp_path: Path, receiver: Receiver
) -> None:
    asked = 60
    with serve(tmp_path, workers=2, ALERT_WEBHOOK=receiver.address) as served:
        for _ in range(asked):
            assert served.ask("GET", "/status", key=WRONG).status == 401
    kept = json.loads((tmp_path / "store" / "messages" / "outbox.json").read_text())
    (waiting,) = kept["sums"]
    told = [int(body["count"]) for body in receiver.bodies if body["alert"] == "key_refused"]
    told += [int(payloads["alert_webhook"]["count"]) for payloads in kept["waiting"].values()]
    assert len(told) == 1 and told[0] + waiting["count"] == asked


def key_of(client: TestClient, name: str, *scopes: Scope) -> str:
    return service(client).key_file.add(name, frozenset(scopes), date(2025, 1, 1))[1]


def test_the_worker_goes_on_telling_whatever_a_receiver_or_the_disk_does() -> None:
    class Broken(KeptAlerts):
        delivered = 0

        def deliver(self) -> None:
            self.delivered += 1
            if self.delivered == 1:
                raise RuntimeError("of no kind that anybody knows")

    alerts = Broken()
    watch = SecurityWatch(alerts)

    async def some_rounds() -> None:
        task = asyncio.create_task(watch.keep_telling(0.001))
        for _ in range(6_000):
            await asyncio.sleep(0.01)
            if alerts.delivered >= 3:
                break
        task.cancel()

    asyncio.run(some_rounds())
    assert alerts.delivered >= 3
