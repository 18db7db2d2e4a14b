"""What commands tell those who get alerts, and the daily digest by hand: JSON, exit codes and a real receiver."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date

import pytest

from dpdau_tests.cli.conftest import Dpdau
from dpdau_tests.dagster.world import stop_the_clock
from dpdau_tests.support.receiving import TOKEN, Receiver, webhook_receiver

DAYS = ("2025-01-01", "2025-01-02")
OVERRIDE = ("reset-budget", "dau", "--month", "2025-01", "--cap", "3.25", "--who", "The board", "--why", "A launch")


def two_days_are_published(dpdau: Dpdau) -> None:
    rows = [{"user_id": f"person-{n}@planted.example", "day": day} for day in DAYS for n in range(50)]
    (dpdau.folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert dpdau("ingest", "--from", "events.jsonl").code == 0
    assert dpdau("run", "--from", DAYS[0], "--to", DAYS[-1]).code == 0


@pytest.fixture
def dpdau(begun: Callable[..., Dpdau]) -> Dpdau:
    """A store with two days of DAU."""
    return begun(two_days_are_published)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook_receiver() as receiver:
        yield receiver


def test_an_override_is_told_at_once_and_its_command_does_not_fail_for_a_receiver_that_is_away(
    dpdau: Dpdau, receiver: Receiver
) -> None:
    receiver.status = 503
    done = dpdau(*OVERRIDE, ALERT_WEBHOOK=receiver.address)
    assert done.code == 0 and len(done.json["overrides"]) == 1 and TOKEN not in dpdau.printed
    receiver.status = 200
    again = dpdau(*OVERRIDE[:-1], "Another launch", ALERT_WEBHOOK=receiver.address)
    assert again.code == 0
    assert [body["why"] for body in receiver.bodies] == ["A launch", "Another launch"], "the first was kept"


def test_an_override_that_is_refused_tells_nobody(dpdau: Dpdau, receiver: Receiver) -> None:
    done = dpdau(
        "reset-budget", "dau", "--month", "2025-01", "--cap", "0.1", *OVERRIDE[6:], ALERT_WEBHOOK=receiver.address
    )
    assert done.code == 4 and receiver.bodies == []


def test_what_a_check_and_verify_ledger_find_that_somebody_may_have_done_is_told(
    dpdau: Dpdau, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_clock(monkeypatch, date(2025, 1, 4))
    assert dpdau("check", ALERT_WEBHOOK=receiver.address).code == 0
    assert dpdau("verify-ledger", ALERT_WEBHOOK=receiver.address).code == 0 and receiver.bodies == []
    (file,) = (dpdau.folder / "data" / "activity" / f"day={DAYS[0]}").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    assert dpdau("check", ALERT_WEBHOOK=receiver.address).code == 4
    assert {body["alert"] for body in receiver.bodies} == {"tampering_found"}
    assert any(body["about"].startswith("state_is_keyed: ") for body in receiver.bodies)


def test_a_head_that_the_ledger_does_not_have_is_told(dpdau: Dpdau, receiver: Receiver) -> None:
    assert dpdau("verify-ledger", "--head", "0" * 64, ALERT_WEBHOOK=receiver.address).code == 4
    assert [body["about"] for body in receiver.bodies] == ["verify-ledger: 1 problem(s)."]


def test_the_digest_is_shown_as_json_and_sent_once_if_that_is_asked_for(dpdau: Dpdau, receiver: Receiver) -> None:
    shown = dpdau("digest", DIGEST_WEBHOOK=receiver.address)
    number = dpdau("dau", DAYS[-1]).json
    (newest,) = shown.json["numbers"]
    assert (shown.code, newest["day"], newest["metric"]) == (0, DAYS[-1], "dau")
    assert newest["number"]["estimate"] == number["estimate"] and newest["number"]["upper_95"] == number["upper_95"]
    assert receiver.bodies == [], "showing sends nothing"
    first, again = (dpdau("digest", "--send", DIGEST_WEBHOOK=receiver.address) for _ in range(2))
    assert (first.code, again.code) == (0, 0)
    assert "sent before" not in first.said and "A digest of exactly these days was sent before" in again.said
    (body,) = receiver.bodies
    assert body["blocks"][0]["type"] == "header" and "planted" not in dpdau.printed + json.dumps(body)


def test_a_digest_without_a_receiver_or_before_the_first_number_says_what_to_do(begun: Callable[..., Dpdau]) -> None:
    empty = begun(lambda dpdau: dpdau("status"))
    assert (none := empty("digest")).code == 3 and "No number is published yet" in none.said
    assert (sent := empty("digest", "--send")).code == 2 and "DIGEST_WEBHOOK is not set" in sent.said


def test_a_digest_that_does_not_arrive_ends_with_an_error_and_is_kept(dpdau: Dpdau, receiver: Receiver) -> None:
    receiver.status = 500
    failed = dpdau("digest", "--send", DIGEST_WEBHOOK=receiver.address)
    assert failed.code == 4 and "DIGEST_WEBHOOK did not take a message" in failed.said and TOKEN not in failed.said
    receiver.status = 200
    assert dpdau("digest", "--send", DIGEST_WEBHOOK=receiver.address).code == 0
    assert len(receiver.bodies) == 1
