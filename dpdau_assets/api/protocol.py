"""uvicorn's HTTP/1.1 protocol with the bounds that it leaves open: connections, slow headers, slow readers, framing.

What is here happens before a request is one, so that no ASGI middleware can see it. Bodies are bounded in `bounds.py`.
"""

from __future__ import annotations

import asyncio
import resource
from asyncio.events import TimerHandle

from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from dpdau_assets.api.bounds import HEADERS_TOO_LARGE, with_ours
from dpdau_assets.api.problems import Problem, response
from dpdau_assets.api.request_log import new_request_id

_FILES_FOR_THE_REST = 128  # descriptors that a worker needs beside its connections

MALFORMED = Problem(
    "MalformedRequest",
    400,
    "Not a request",
    "What came is not HTTP/1.1, or could be read in more than one way.",
    "Look at the client, or at a proxy before it: one Host, one length, CRLF after each header, ASCII URLs, and no "
    "upgrade of a request with a body.",
)
HEADERS_TOO_SLOW = Problem(
    "HeadersTooSlow",
    408,
    "The headers came too slowly",
    "The headers had not arrived when their time was over.",
    "Send it again.",
)
TOO_MANY_CONNECTIONS = Problem(
    "TooManyConnections",
    503,
    "Too many connections",
    "The server has as many connections as it takes.",
    "Come back later, and keep fewer connections open.",
    headers={"Retry-After": "10"},
)


class BoundedHttpToolsProtocol(HttpToolsProtocol):
    """One connection. Give the class to uvicorn as `http`, with `ws="none"`.

    Headers must be complete HEADER_SECONDS after the connection opened, or after the first byte of a later request;
    the rest of a request that is answered already must have come by then too. An answer must have been read
    SEND_SECONDS after it was made, and a long one must get on in that time. What is not is cut off.

    `app_state["docs_url"]`, which the app's lifespan may yield, is where the pages of errors are.
    """

    HEADER_SECONDS = 10.0
    HEADER_BYTES = 64 * 1024
    """What may be read without a request, a piece of a body or an end coming of it: headers, trailers."""
    SEND_SECONDS = 30.0
    MAX_CONNECTIONS = 2_000
    """Of this worker; fewer where the system allows it fewer open files."""

    _header_timer: TimerHandle | None = None
    _send_timer: TimerHandle | None = None
    _is_in_body = False
    _is_refused = False
    _has_sent_anything = False
    _unread = 0

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections():
            self._refuse(TOO_MANY_CONNECTIONS)
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        self._stop_send_timer()
        super().connection_lost(exc)

    @classmethod
    def most_connections(cls) -> int:
        """MAX_CONNECTIONS, or what the limit of open files leaves: a server that cannot accept answers nobody."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls.MAX_CONNECTIONS if files < 0 else max(1, min(cls.MAX_CONNECTIONS, files - _FILES_FOR_THE_REST))

    # What comes

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._has_sent_anything = True
        if not self._is_in_body or self.cycle.response_complete:  # nobody waits for the rest under a time-out
            self._expect_headers()
        self._unread += len(data)
        super().data_received(data)
        if self._unread > self.HEADER_BYTES:
            self._refuse(HEADERS_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._expect_headers()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_body:  # trailers come when the request is being answered; they may not become its headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_framed_plainly(self.parser):  # type: ignore[arg-type]
            raise ValueError("ambiguous framing")  # the parser stops, and data_received answers
        super().on_headers_complete()  # which may find that the URL is none
        self._unread = 0
        self._is_in_body = True
        self._stop_header_timer()
        if self.transport.get_write_buffer_size() == 0:
            self._stop_send_timer()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        self._is_in_body = False
        self._stop_header_timer()
        super().on_message_complete()

    def _is_framed_plainly(self, parser: HttpRequestParser) -> bool:
        """Whether a proxy before us must have seen the same end of the request as we do (RFC 9112, 3.2, 6.1, 6.3)."""
        version = parser.get_http_version()
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        hosts = sum(name == b"host" for name, _ in self.headers)
        has_body = bool(codings) or any(name == b"content-length" and int(value) for name, value in self.headers)
        return (
            version in ("1.0", "1.1")
            and codings in ([], [b"chunked"])
            and not (codings and version == "1.0")
            and (hosts == 1 or (hosts == 0 and version == "1.0"))
            and not (has_body and parser.should_upgrade())  # the parser would take the body for a request
        )

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade is ignored, and the connection is closed after the answer: what comes next is no HTTP/1.1."""
        self._is_refused = True
        self._close_after_the_answer()

    # What goes

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words, in plain text
        self._refuse(MALFORMED)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size() > 0:
            self._expect_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        self._stop_send_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._expect_reading()  # closing waits for what was not read yet

    def _refuse(self, problem: Problem) -> None:
        """Answer the problem, unless the answer of an earlier request would be taken for it, and close."""
        self._is_refused = True
        self._stop_header_timer()
        self._unset_keepalive_if_required()
        waits = self.cycle is not None and not self.cycle.response_complete
        if waits and (self.pipeline or not self._is_in_body):
            self._close_after_the_answer()
            return
        if waits:
            self.cycle.disconnected = True  # the app's own answer comes too late
            self.cycle.message_event.set()
        if not (self._is_in_body and self.cycle.response_started):
            self.transport.write(self._as_bytes(problem))
        self.transport.close()
        self._expect_reading()

    def _as_bytes(self, problem: Problem) -> bytes:
        request_id = new_request_id()
        answer = response(problem, request_id, self.app_state.get("docs_url"))
        headers = [
            *self.server_state.default_headers,
            *with_ours(list(answer.raw_headers), request_id, is_https=self.scheme == "https"),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        return STATUS_LINE[problem.status] + lines + b"\r\n" + bytes(answer.body)

    def _close_after_the_answer(self) -> None:
        """After the last of the requests that were read; at once where all are answered."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    # Time

    def _expect_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.HEADER_SECONDS, self._headers_are_late)

    def _headers_are_late(self) -> None:
        self._header_timer = None
        if self._has_sent_anything:
            self._refuse(HEADERS_TOO_SLOW)
        else:
            self.transport.close()

    def _expect_reading(self) -> None:
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self.SEND_SECONDS, self._reading_is_late)

    def _reading_is_late(self) -> None:
        self._send_timer = None
        if self.transport.get_write_buffer_size() > 0:
            self.transport.abort()

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
