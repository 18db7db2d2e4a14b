"""A reverse proxy before a real server, in this process, that passes on what it gets, or spoils it in one way."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
