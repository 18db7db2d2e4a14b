"""Mail to a real mail server on this machine: with and without TLS, with and without a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpdau_assets.core.errors import BadSetting
from dpdau_tests.support.receiving import Tls, mail_server
from resources.messages.delivery import NotDelivered, Unwanted
from resources.messages.mail import Mail
from resources.settings_env import read_settings

PAYLOAD = {"subject": "dpdau: run_failed", "text": "publish_due has failed: ε is spent.\n\njob: publish_due\n"}
TO = "privacy@example.org"
PASSWORD = "p%40ss%20word"


def test_a_message_reaches_its_mailbox_with_subject_and_text(tmp_path: Path) -> None:
    with mail_server(tmp_path, tls="none") as mailbox:
        Mail(f"smtp://127.0.0.1:{mailbox.port}", TO)(PAYLOAD)
    (mail,) = mailbox.mails
    assert mail["Subject"] == PAYLOAD["subject"] and mail["From"] == mail["To"] == TO
    assert mail.get_content().replace("\r\n", "\n") == PAYLOAD["text"]
    assert mailbox.recipients == [[TO]] and mailbox.over_tls == [False]


@pytest.mark.parametrize("tls", ["starttls", "whole"])
def test_mail_goes_over_tls_where_the_server_has_it_and_the_password_over_nothing_else(
    tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    scheme = "smtps" if tls == "whole" else "smtp"
    with mail_server(tmp_path, tls=tls, password=True) as mailbox:
        Mail(f"{scheme}://dpdau:{PASSWORD}@127.0.0.1:{mailbox.port}", TO)(PAYLOAD)
    assert mailbox.over_tls == [True] and mailbox.logins == [("dpdau", "p@ss word")]


def test_a_server_that_offers_no_tls_is_sent_no_password(tmp_path: Path) -> None:
    with mail_server(tmp_path, tls="none", password=True) as mailbox, pytest.raises(NotDelivered, match="SMTP_URL did"):
        Mail(f"smtp://dpdau:{PASSWORD}@127.0.0.1:{mailbox.port}", TO)(PAYLOAD)
    assert mailbox.logins == [] and mailbox.mails == []


def test_a_server_whose_certificate_nobody_vouches_for_is_sent_nothing(tmp_path: Path) -> None:
    with mail_server(tmp_path, tls="starttls", password=True) as mailbox, pytest.raises(NotDelivered):
        Mail(f"smtp://dpdau:{PASSWORD}@127.0.0.1:{mailbox.port}", TO)(PAYLOAD)
    assert mailbox.logins == [] and mailbox.mails == []


def test_text_that_is_none_of_unicode_is_sent_all_the_same(tmp_path: Path) -> None:
    with mail_server(tmp_path, tls="none") as mailbox:
        Mail(f"smtp://127.0.0.1:{mailbox.port}", TO)({"subject": "dpdau: x", "text": "half of a pair: \ud800.\n"})
    assert mailbox.mails[0].get_content().rstrip() == "half of a pair: ?."


def test_a_message_that_the_server_refuses_for_good_is_told_from_one_that_may_arrive_later(tmp_path: Path) -> None:
    with mail_server(tmp_path, tls="none") as mailbox:
        mailbox.refuses = "554 no"
        with pytest.raises(Unwanted, match=r"SMTP_URL refuses a message for good \(554\)"):
            Mail(f"smtp://127.0.0.1:{mailbox.port}", TO)(PAYLOAD)


def test_a_mailbox_that_the_server_refuses_for_good_is_such_a_message_too(tmp_path: Path) -> None:
    with mail_server(tmp_path, tls="none") as mailbox:
        mailbox.refuses_mailbox = "550 no such mailbox"
        with pytest.raises(Unwanted, match=r"\(550\)"):
            Mail(f"smtp://127.0.0.1:{mailbox.port}", TO)(PAYLOAD)
        mailbox.refuses_mailbox = "450 later"
        with pytest.raises(NotDelivered):
            Mail(f"smtp://127.0.0.1:{mailbox.port}", TO)(PAYLOAD)


def test_what_a_server_has_taken_stays_taken_however_it_says_good_bye(tmp_path: Path) -> None:
    with mail_server(tmp_path, tls="none") as mailbox:
        mailbox.goodbye = "421 closing"
        Mail(f"smtp://127.0.0.1:{mailbox.port}", TO)(PAYLOAD)
    assert len(mailbox.mails) == 1


def test_the_sender_is_the_servers_user_where_that_is_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with mail_server(tmp_path, tls="starttls", password=True) as mailbox:
        mailbox.user = "dpdau@example.org"
        Mail(f"smtp://dpdau%40example.org:{PASSWORD}@127.0.0.1:{mailbox.port}", TO)(PAYLOAD)
    assert (mailbox.mails[0]["From"], mailbox.mails[0]["To"]) == ("dpdau@example.org", TO)


@pytest.mark.parametrize("answer", ["451 later", None])
def test_mail_that_is_not_taken_is_an_error_that_tells_no_password(answer: str | None, tmp_path: Path) -> None:
    with mail_server(tmp_path, tls="none") as mailbox:
        mailbox.refuses = answer
        port = 1 if answer is None else mailbox.port
        with pytest.raises(NotDelivered) as caught:
            Mail(f"smtp://127.0.0.1:{port}", TO)(PAYLOAD)
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"SMTP_URL": "http://mail.example.org"}, "SMTP_URL=...: not the address"),
        ({"SMTP_URL": "smtp://word:s3cret/../@mail", "ADMIN_EMAIL": "a@example.org"}, "SMTP_URL=...: not the address"),
        ({"SMTP_URL": "smtp://mail.example.org"}, "ADMIN_EMAIL=: not set, and SMTP_URL is"),
        ({"ADMIN_EMAIL": "privacy@example.org"}, "SMTP_URL=: not set, and ADMIN_EMAIL is"),
        (
            {"SMTP_URL": "smtp://mail", "ADMIN_EMAIL": "privacy@example.org, nobody"},
            "ADMIN_EMAIL=nobody: not an e-mail",
        ),
        ({"SMTP_URL": "smtp://mail", "ADMIN_EMAIL": "a@b\nBcc: c@d"}, "not an e-mail"),
        ({"SMTP_URL": "smtp://mail", "ADMIN_EMAIL": "a@["}, "not an e-mail"),
        ({"SMTP_URL": "smtp://user:s3cret#x@mail:587", "ADMIN_EMAIL": "a@b"}, "SMTP_URL=...: not the address"),
        ({"SMTP_URL": "smtps://user:12?s3cret@mail", "ADMIN_EMAIL": "a@b"}, "SMTP_URL=...: not the address"),
        ({"SMTP_URL": "smtp://user:s3cret@mail:99999", "ADMIN_EMAIL": "a@b"}, "SMTP_URL=...: not the address"),
        ({"SMTP_URL": "smtp://user:[s3cret@mail", "ADMIN_EMAIL": "a@b"}, "SMTP_URL=...: not the address"),
    ],
)
def test_settings_with_which_no_mail_could_be_sent_stop_the_start_and_a_password_is_not_quoted(
    values: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting, match=named) as caught:
        read_settings()
    assert "s3cret" not in str(caught.value)


def test_several_mailboxes_are_set_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "smtps://user:p%40ss@mail.example.org:465")
    monkeypatch.setenv("ADMIN_EMAIL", "privacy@example.org, data@example.org")
    settings = read_settings()
    assert settings.admin_email == ("privacy@example.org", "data@example.org")
    assert "p%40ss" not in repr(settings)
