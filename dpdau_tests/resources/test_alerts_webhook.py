"""Alerts as they leave: a line of JSON in the log, and a POST to a real receiver on this machine."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.facts import Alert
from resources.alerts_webhook import NotDelivered, WebhookAlerts
from resources.settings_env import read_settings

ALERT = Alert("run_failed", "publish_due has failed: There is no state.", {"job": "publish_due", "run": "0001"})
TOKEN = "a-token-that-lets-anyone-post"


@dataclass
class Receiver:
    """What a receiver was sent, and how it answers; None hangs up."""

    status: int | None = 200
    bodies: list[dict] = field(default_factory=list)
    types: list[str | None] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver_state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if receiver_state.status is None:
                self.close_connection = True
                return
            receiver_state.bodies.append(json.loads(body))
            receiver_state.types.append(self.headers["Content-Type"])
            self.send_response(receiver_state.status)
            self.send_header("Location", self.path)
            self.end_headers()

        def do_GET(self) -> None:  # what a redirected POST would become
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        receiver_state.address = f"http://127.0.0.1:{server.server_port}/hooks/{TOKEN}"
        yield receiver_state
        server.shutdown()


def test_an_alert_is_posted_as_json_with_a_text_that_chat_services_show(receiver: Receiver) -> None:
    WebhookAlerts(receiver.address).send(ALERT)
    assert receiver.bodies == [{"alert": "run_failed", "text": ALERT.text, "job": "publish_due", "run": "0001"}]
    assert receiver.types == ["application/json"]


def test_an_alert_is_one_line_of_json_in_the_log_with_and_without_a_receiver(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    for address in (None, receiver.address):
        WebhookAlerts(address).send(ALERT)
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.levelno == logging.ERROR]
    assert [line["alert"] for line in lines] == ["run_failed", "run_failed"]
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("status", [302, 400, 403, 500, None])
def test_an_alert_that_the_receiver_does_not_take_is_an_error_that_never_tells_its_address(
    receiver: Receiver, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = status
    with pytest.raises(NotDelivered, match="did not take the alert run_failed") as caught:
        WebhookAlerts(receiver.address).send(ALERT)
    assert TOKEN not in str(caught.value) + str(caught.value.__cause__) + caplog.text


def test_nobody_at_the_address_is_the_same_error() -> None:
    with pytest.raises(NotDelivered):
        WebhookAlerts("http://127.0.0.1:1/nobody").send(ALERT)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://example.org/x", "hooks.example.org", "http://"])
def test_an_address_that_is_not_one_of_the_web_stops_the_start_and_is_not_quoted(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK", address)
    with pytest.raises(BadSetting, match="ALERT_WEBHOOK") as caught:
        read_settings()
    assert address not in str(caught.value)
