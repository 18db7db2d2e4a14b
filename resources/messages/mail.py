"""Sending a message by e-mail, through a server that SMTP_URL names."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from resources.messages.delivery import NotDelivered, Payload, Unwanted

PATIENCE_SECONDS = 10
_SUBMISSION, _OVER_TLS = 587, 465


class Mail:
    """One mailbox, and the server that takes mail for it.

    `smtps://` speaks TLS from the first byte on. `smtp://` goes over to TLS where the server offers that, and has to
    before a password is sent. The server's certificate is verified in both.

    Args:
        url: smtp:// or smtps://, with user and password if the server asks for them (percent-encoded), host and port;
            without a port, 587 and 465.
        to: the address, which is the sender's too.
    """

    def __init__(self, url: str, to: str) -> None:
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "smtps"
        self._host, self._port = parts.hostname or "", parts.port or (_OVER_TLS if self._is_tls else _SUBMISSION)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._to = to

    def __call__(self, payload: Payload) -> None:
        """Send `subject` and `text`. Raises Unwanted if the server refuses what is in it, NotDelivered for all else."""
        try:
            message = self._message(payload)
            with self._connected() as server:
                if self._user:
                    server.login(self._user, self._password)
                server.send_message(message)
        except smtplib.SMTPDataError as error:
            if 500 <= error.smtp_code < 600:
                raise Unwanted.by("SMTP_URL", error.smtp_code) from None
            raise NotDelivered.by("SMTP_URL", error) from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise NotDelivered.by("SMTP_URL", error) from None

    def _message(self, payload: Payload) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = payload["subject"]
        message["From"] = message["To"] = self._to
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(payload["text"].encode(errors="replace").decode())  # halves of surrogate pairs are no text
        return message

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._is_tls:
            return smtplib.SMTP_SSL(self._host, self._port, timeout=PATIENCE_SECONDS, context=context)
        server = smtplib.SMTP(self._host, self._port, timeout=PATIENCE_SECONDS)
        try:
            server.ehlo()
            if self._user or server.has_extn("starttls"):
                server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server
