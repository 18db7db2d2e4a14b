"""What people are told of a store: in the log, by webhook and by mail, to real receivers on this machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from dpdau_assets.core.facts import Alert, Override
from dpdau_assets.core.reporting.digest import Digest, NewestNumber
from dpdau_assets.core.reporting.report_model import Number
from dpdau_assets.core.security_events import SUMMED_SECONDS, SecurityEvent, override_alerts
from dpdau_assets.core.settings import Settings
from dpdau_tests.support.receiving import TOKEN, Mailbox, Receiver, mail_server, webhook_receiver
from resources.messages.delivery import NotDelivered, NotKept
from resources.messages.messages import LONGEST_TEXT, Messages

ALERT = Alert("run_failed", "publish_due has failed: There is no state.", {"job": "publish_due", "run": "0001"})
POSTED = {"alert": "run_failed", "text": ALERT.text, "job": "publish_due", "run": "0001"}
DIGEST = Digest(date(2025, 3, 3), (), (), ())
REFUSED = SecurityEvent("key_refused")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook_receiver() as receiver:
        yield receiver


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    with mail_server(tmp_path, tls="none") as mailbox:
        yield mailbox


@pytest.fixture
def settings(receiver: Receiver, mailbox: Mailbox, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "store",
        alert_webhook=receiver.address,
        smtp_url=f"smtp://127.0.0.1:{mailbox.port}",
        admin_email=("privacy@example.org",),
    )


def test_an_alert_goes_to_log_webhook_and_mail(
    settings: Settings, receiver: Receiver, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    Messages(settings).send(ALERT)
    assert receiver.bodies == mailbox.mails == [], "who tells waits for no receiver"
    Messages(settings).deliver()
    assert receiver.bodies == [POSTED]
    (mail,) = mailbox.mails
    assert mail["Subject"] == "dpdau: run_failed"
    assert mail.get_content().splitlines() == [ALERT.text, "", "job: publish_due", "run: 0001"]
    (line,) = [json.loads(record.getMessage()) for record in caplog.records if record.levelno == logging.ERROR]
    assert line == POSTED and TOKEN not in caplog.text


def test_without_receivers_an_alert_is_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Messages(Settings(data_dir=tmp_path)).send(ALERT)
    assert [json.loads(record.getMessage()) for record in caplog.records] == [POSTED]


def test_what_one_receiver_does_not_take_is_sent_again_to_it_alone(
    settings: Settings, receiver: Receiver, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 503
    messages = Messages(settings)
    messages.send(ALERT)
    with pytest.raises(NotDelivered, match="ALERT_WEBHOOK"):
        messages.deliver()
    messages = Messages(settings)
    with pytest.raises(NotDelivered, match="ALERT_WEBHOOK"):
        messages.deliver()
    receiver.status = 200
    Messages(settings).deliver()
    Messages(settings).deliver()
    assert (len(receiver.bodies), len(mailbox.mails)) == (1, 1)
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1, "logged once"
    assert TOKEN not in caplog.text


def test_an_alert_under_a_name_is_told_once_by_whoever_tells_it(settings: Settings, receiver: Receiver) -> None:
    for _ in range(3):
        Messages(settings).send(ALERT, once="override 0")
        Messages(settings).deliver()
    assert len(receiver.bodies) == 1


def test_a_process_without_receivers_logs_what_it_notes_and_leaves_the_telling_to_one_that_has_some(
    settings: Settings, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    alone = Messages(Settings(data_dir=settings.data_dir))
    alone.note({REFUSED: 3})
    alone.deliver()
    assert "3 times since" in caplog.text and receiver.bodies == []
    Messages(settings).deliver()
    assert [body["count"] for body in receiver.bodies] == ["3"]


def test_how_many_requests_to_routes_of_erasures_were_refused_is_not_told(
    settings: Settings, receiver: Receiver, mailbox: Mailbox
) -> None:
    messages = Messages(settings)
    messages.note({SecurityEvent("key_refused", is_counted=False): 98_765})
    messages.deliver()
    (body,), (mail,) = receiver.bodies, mailbox.mails
    assert "on a route of erasures" in body["text"] and "98765" not in json.dumps(body) + mail.get_content()


def test_a_flood_of_refused_keys_is_two_alerts_with_its_sum(
    settings: Settings, receiver: Receiver, mailbox: Mailbox
) -> None:
    now = [1_000.0]
    workers = [Messages(settings, lambda: now[0]) for _ in range(2)]
    for second in range(100):
        now[0] += 1
        workers[second % 2].note({REFUSED: 7})
        workers[second % 2].deliver()
    assert [body["count"] for body in receiver.bodies] == ["7"]
    now[0] += SUMMED_SECONDS
    workers[0].deliver()
    workers[1].deliver()
    assert [body["count"] for body in receiver.bodies] == ["7", "693"]
    assert [mail["Subject"] for mail in mailbox.mails] == ["dpdau: key_refused"] * 2


def test_the_digest_of_a_day_is_sent_once_and_to_its_own_webhook(settings: Settings, receiver: Receiver) -> None:
    with webhook_receiver() as channel:
        chosen = replace(settings, digest_webhook=channel.address)
        for day in (3, 3, 4):
            Messages(chosen).digest(replace(DIGEST, as_of=date(2025, 3, day)))
        Messages(chosen).deliver()
        assert [body["text"].partition(":")[0][-10:] for body in channel.bodies] == ["2025-03-03", "2025-03-04"]
    assert receiver.bodies == []


def test_a_digest_that_nobody_gets_is_not_kept(settings: Settings, receiver: Receiver) -> None:
    """One that is configured later begins with the day's own."""
    Messages(settings).digest(DIGEST)
    assert not (settings.data_dir / "messages").exists()
    later = Messages(replace(settings, digest_webhook=receiver.address))
    later.digest(DIGEST)
    later.deliver()
    assert len(receiver.bodies) == 1


def test_a_digest_that_did_not_arrive_is_sent_again(settings: Settings, receiver: Receiver) -> None:
    receiver.status = 500
    chosen = replace(settings, digest_webhook=receiver.address)
    Messages(chosen).digest(DIGEST)
    with pytest.raises(NotDelivered, match="DIGEST_WEBHOOK"):
        Messages(chosen).deliver()
    receiver.status = 200
    Messages(chosen).deliver()
    Messages(chosen).digest(DIGEST)
    Messages(chosen).deliver()
    assert len(receiver.bodies) == 1


def test_a_digest_of_more_numbers_of_the_same_day_is_another_one(settings: Settings, receiver: Receiver) -> None:
    """For example where DAU is published by hand, the mart refreshed, and MAU follows."""
    messages = Messages(replace(settings, digest_webhook=receiver.address))
    number = Number(0, 5.0, 5.0, 0.0, 20.0, date(2025, 3, 3))
    for metrics in (("dau",), ("dau", "mau"), ("dau", "mau")):
        newest = tuple(NewestNumber(metric, 1, date(2025, 3, 1), number, (), 0) for metric in metrics)  # type: ignore[arg-type]
        messages.digest(replace(DIGEST, numbers=newest, needs=(f"{len(receiver.bodies)}",)))
        messages.deliver()
    assert len(receiver.bodies) == 2


def test_each_mailbox_is_told_for_itself(settings: Settings, mailbox: Mailbox) -> None:
    both = replace(settings, admin_email=("privacy@example.org", "data@example.org"))
    Messages(both).send(ALERT)
    Messages(both).deliver()
    assert sorted(mailbox.recipients) == [["data@example.org"], ["privacy@example.org"]]


def test_what_people_wrote_is_no_markup_in_a_chat_and_no_field_in_a_mail(
    settings: Settings, receiver: Receiver, mailbox: Mailbox
) -> None:
    override = Override(
        "cap", "a", "<!channel>\nwho: the board", date(2025, 3, 4), "mau", date(2025, 3, 1), Fraction(4)
    )
    ((name, alert),) = override_alerts([override], 0)
    Messages(settings).send(alert, once=name)
    Messages(settings).deliver()
    (body,), (mail,) = receiver.bodies, mailbox.mails
    assert "&lt;!channel&gt;" in body["text"] and "<" not in body["text"]
    assert [line for line in mail.get_content().splitlines() if line.startswith("who:")] == ["who: a"]


def test_a_very_long_alert_is_shortened_where_it_is_sent_and_whole_in_the_log(
    settings: Settings, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    Messages(settings).send(Alert("run_failed", "x" * 1_000_000))
    Messages(settings).deliver()
    assert len(receiver.bodies[0]["text"]) == LONGEST_TEXT + 1
    assert "x" * 1_000_000 in caplog.text


def test_an_alert_that_can_be_kept_nowhere_is_logged_and_an_error(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "messages").write_text("a file in the way")
    with pytest.raises(NotKept):
        Messages(settings).send(ALERT)
    assert "run_failed" in caplog.text
