"""Posting to a webhook: a real receiver on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from dpdau_assets.core.errors import BadSetting
from dpdau_tests.support.receiving import TOKEN, Receiver, webhook_receiver
from resources.messages.delivery import NotDelivered
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


@pytest.mark.parametrize("status", [302, 400, 403, 500, None])
def test_what_the_receiver_does_not_take_is_an_error_that_names_the_variable_and_never_its_address(
    receiver: Receiver, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = status
    with caplog.at_level(logging.DEBUG), pytest.raises(NotDelivered, match="ALERT_WEBHOOK did not take") as caught:
        Webhook("ALERT_WEBHOOK", receiver.address)(PAYLOAD)
    assert TOKEN not in str(caught.value) + str(caught.value.__cause__) + caplog.text
    assert receiver.bodies == []


def test_nobody_at_the_address_is_an_error_too() -> None:
    with pytest.raises(NotDelivered):
        Webhook("ALERT_WEBHOOK", "http://127.0.0.1:1/nobody")(PAYLOAD)


@pytest.mark.parametrize("variable", ["ALERT_WEBHOOK", "DIGEST_WEBHOOK"])
@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://example.org/x", "hooks.example.org", "http://"])
def test_an_address_that_is_not_one_of_the_web_stops_the_start_and_is_not_quoted(
    address: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, address)
    with pytest.raises(BadSetting, match=variable) as caught:
        read_settings()
    assert address not in str(caught.value)
