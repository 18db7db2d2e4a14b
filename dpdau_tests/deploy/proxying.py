"""A reverse proxy before a real server, in this process, that passes on what it gets, or spoils it in one way."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PER_CONNECTION = ("connection", "transfer-encoding", "content-length", "date", "server")


@dataclass
class Passed:
    """An answer on its way back."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Spoiling:
    """What the proxy does besides passing on: nothing, unless it is told."""

    sent: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    answers: dict[str, Passed] = field(default_factory=dict)
    hides: tuple[str, ...] = ()


@contextmanager
def proxy(port: int, spoiling: Spoiling | None = None, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a proxy before the server at `port`, until the end of the block."""
    chosen = spoiling or Spoiling()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a test's output is its own."""

        def _answer(self, body: bytes | None) -> None:
            passed = chosen.answers.get(self.path) or self._asked(body)
            self.send_response_only(passed.status)
            for name, value in passed.headers.items():
                if name.lower() not in (*PER_CONNECTION, *chosen.hides):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(passed.body)))
            self.end_headers()
            self.wfile.write(passed.body)

        def _asked(self, body: bytes | None) -> Passed:
            kept = {name: value for name, value in self.headers.items() if name.lower() not in chosen.without}
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.request(self.command, self.path, body, kept | chosen.sent)
                response = connection.getresponse()
                return Passed(response.status, dict(response.getheaders()), response.read())
            finally:
                connection.close()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(folder: Path, days: int) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that signs itself, for so many days: its file, and what a server with it needs."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, secret)
    return cert, context
