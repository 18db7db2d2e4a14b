"""Posting to a webhook: a real receiver on this machine."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from dpdau_assets.core.errors import BadSetting
from dpdau_tests.support.receiving import TOKEN, Receiver, webhook_receiver
from resources.messages.delivery import NotDelivered, Unwanted
from resources.messages.webhook import Webhook
from resources.settings_env import read_settings

PAYLOAD = {"alert": "run_failed", "text": "publish_due has failed: There is no state."}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook_receiver() as receiver:
        yield receiver


def test_a_message_is_posted_as_json(receiver: Receiver) -> None:
    Webhook("ALERT_WEBHOOK", receiver.address)(PAYLOAD)
    assert receiver.bodies == [PAYLOAD]
    assert receiver.types == ["application/json"]


@pytest.mark.parametrize("status", [302, 403, 404, 429, 500, None])
def test_what_the_receiver_does_not_take_is_an_error_that_names_the_variable_and_never_its_address(
    receiver: Receiver, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = status
    with caplog.at_level(logging.DEBUG), pytest.raises(NotDelivered, match="ALERT_WEBHOOK did not take") as caught:
        Webhook("ALERT_WEBHOOK", receiver.address)(PAYLOAD)
    assert TOKEN not in str(caught.value) + str(caught.value.__cause__) + caplog.text
    assert receiver.bodies == []


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_message_that_the_receiver_refuses_for_good_is_told_from_one_that_may_arrive_later(
    receiver: Receiver, status: int
) -> None:
    receiver.status = status
    with pytest.raises(Unwanted, match=rf"ALERT_WEBHOOK refuses a message for good \({status}\)") as caught:
        Webhook("ALERT_WEBHOOK", receiver.address)(PAYLOAD)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("answer", [b"SSH-2.0-server\r\n", b"HTTP/1.1 200\r\n" + b"x" * 70_000, b""])
def test_what_answers_and_speaks_no_http_is_an_error_of_the_same_kind(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(NotDelivered):
            Webhook("ALERT_WEBHOOK", f"http://127.0.0.1:{server.getsockname()[1]}/")(PAYLOAD)
        thread.join()


def test_nobody_at_the_address_is_an_error_too() -> None:
    with pytest.raises(NotDelivered):
        Webhook("ALERT_WEBHOOK", "http://127.0.0.1:1/nobody")(PAYLOAD)


ADDRESSES = [
    "file:///etc/passwd",
    "ftp://example.org/x",
    "hooks.example.org",
    "http://",
    "https://bot:s3cret@hooks.example.org/x",
    "https://hooks.example.org:99999/x",
    "https://hooks.example.org:0/x",
    "https://hooks.example.org/a b",
    "https://hooks.example.org/\nX: y",
    "https://hooks.example.org/ε",
]


@pytest.mark.parametrize("variable", ["ALERT_WEBHOOK", "DIGEST_WEBHOOK"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_not_one_of_the_web_stops_the_start_and_is_not_quoted(
    address: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, address)
    with pytest.raises(BadSetting, match=variable) as caught:
        read_settings()
    assert address not in str(caught.value)
