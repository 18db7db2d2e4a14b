"""Sending a message by e-mail, through a server that SMTP_URL names."""

from __future__ import annotations

import smtplib
import ssl
from contextlib import suppress
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
        to: the address. The sender is the server's user where that is an address, else the mailbox itself.
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
            self._send(self._message(payload))
        except (smtplib.SMTPException, OSError, ValueError) as error:
            if refused := _for_good(error):
                raise Unwanted.by("SMTP_URL", refused) from None
            raise NotDelivered.by("SMTP_URL", error) from None

    def _send(self, message: EmailMessage) -> None:
        server = self._connected()
        try:
            if self._user:
                server.login(self._user, self._password)
            server.send_message(message)
        finally:
            with suppress(smtplib.SMTPException, OSError):  # what was taken stays taken, however the server ends it
                server.quit()
            server.close()

    def _message(self, payload: Payload) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = payload["subject"]
        message["From"] = self._user if "@" in self._user else self._to
        message["To"] = self._to
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


def _for_good(error: Exception) -> int | None:
    """The server's code, if it will never take this message for this mailbox."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()]
    else:
        codes = [error.smtp_code] if isinstance(error, smtplib.SMTPDataError) else []
    return next((code for code in codes if 500 <= code < 600), None)
