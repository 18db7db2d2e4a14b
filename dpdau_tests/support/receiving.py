"""Receivers of messages on this machine: one of webhooks, and a mail server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from dpdau_tests.support.certificates import certificate

Tls = Literal["none", "starttls", "whole"]
TOKEN = "a-token-that-lets-anyone-post"


@dataclass
class Receiver:
    """What a receiver of webhooks was sent, and how it answers; None hangs up."""

    status: int | None = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    types: list[str | None] = field(default_factory=list)
    address: str = ""


@contextmanager
def webhook_receiver() -> Iterator[Receiver]:
    """One that listens until the end of the block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if receiver.status is None:
                self.close_connection = True
                return
            if receiver.status < 300:
                receiver.bodies.append(json.loads(body))
                receiver.types.append(self.headers["Content-Type"])
            self.send_response(receiver.status)
            self.send_header("Location", self.path)
            self.end_headers()

        def do_GET(self) -> None:  # what a redirected POST would become
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        receiver.address = f"http://127.0.0.1:{server.server_port}/hooks/{TOKEN}"
        yield receiver
        server.shutdown()


@dataclass
class Mailbox:
    """What a mail server took, and how it answers."""

    refuses: str | None = None
    refuses_mailbox: str | None = None
    goodbye: str | None = None
    user: str = "dpdau"
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    over_tls: list[bool] = field(default_factory=list)
    port: int = 0


@contextmanager
def mail_server(
    folder: Path, *, tls: Literal["none", "starttls", "whole"], password: bool = False
) -> Iterator[Mailbox]:
    """A mail server that listens until the end of the block, with a certificate of its own in `folder`/cert.pem.

    With a password it takes mail from who has logged in alone, as the mailbox's `user` with `p@ss word`, over TLS.
    """
    mailbox = Mailbox()
    context = None if tls == "none" else certificate(folder)[1]

    class Handler:
        async def handle_RCPT(
            self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
        ) -> str:
            if mailbox.refuses_mailbox:
                return mailbox.refuses_mailbox
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
            return mailbox.goodbye or "221 Bye"

        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
            if mailbox.refuses:
                return mailbox.refuses
            mailbox.mails.append(message_from_bytes(envelope.content or b"", policy=policy.default))
            mailbox.recipients.append(list(envelope.rcpt_tos))
            mailbox.over_tls.append(session.ssl is not None or tls == "whole")
            return "250 OK"

    def authenticated(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword) -> Any:
        mailbox.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=mailbox.logins[-1] == (mailbox.user, "p@ss word"))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        mailbox.port = free.getsockname()[1]
    controller = Controller(
        Handler(),
        hostname="127.0.0.1",
        port=mailbox.port,
        tls_context=context if tls == "starttls" else None,
        authenticator=authenticated,
        auth_required=password,
        auth_require_tls=tls == "starttls",
        ssl_context=context if tls == "whole" else None,
    )
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
