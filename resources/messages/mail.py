"""Sending a message by e-mail, through a server that SMTP_URL names."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from resources.messages.delivery import NotDelivered

PATIENCE_SECONDS = 10
_SUBMISSION, _OVER_TLS = 587, 465


class Mail:
    """A mailbox, or several, and the server that takes mail for them.

    `smtps://` speaks TLS from the first byte on. `smtp://` goes over to TLS where the server offers that, and has to
    before a password is sent. The server's certificate is verified in both.

    Args:
        url: smtp:// or smtps://, with user and password if the server asks for them (percent-encoded), host and port;
            without a port, 587 and 465.
        to: addresses; the first one is the sender's too.
    """

    def __init__(self, url: str, to: Sequence[str]) -> None:
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "smtps"
        self._host, self._port = parts.hostname or "", parts.port or (_OVER_TLS if self._is_tls else _SUBMISSION)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._to = list(to)

    def __call__(self, payload: Mapping[str, str]) -> None:
        """Send `subject` and `text`. Raises NotDelivered unless the server has taken it for every mailbox."""
        message = EmailMessage()
        message["Subject"] = payload["subject"]
        message["From"] = self._to[0]
        message["To"] = ", ".join(self._to)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(payload["text"])
        try:
            with self._connected() as server:
                if self._user:
                    server.login(self._user, self._password)
                refused = server.send_message(message)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise NotDelivered.by("SMTP_URL", error) from None
        if refused:
            raise NotDelivered("SMTP_URL did not take a message for every ADMIN_EMAIL.", "It is kept, and sent again.")

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
