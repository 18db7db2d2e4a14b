"""The outer bounds of a request, before any route: how big, how slow and how odd it may be, and what answers carry.

Plain ASGI around the whole app, since a body must be counted as it comes. What a route itself says about a body (its
rows, ids, days) is no business of this module.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpdau_assets.api.problems import NOT_FOUND, UNEXPECTED, Problem, ProblemRaised, response
from dpdau_assets.api.request_log import LOGGER, described, new_request_id

Headers = list[tuple[bytes, bytes]]

MOST_UNPACKED = 64 * 1024 * 1024
"""Bytes of a body after it was unpacked."""

_MOST_MEMBERS = 2_048  # of one gzip body: bgzip writes one for each 64 kB, an attacker one for each 20 bytes
_PIECE = 64 * 1024  # what is unpacked at a time: what is left over is copied once for each member

_CLOSE = {"Connection": "close"}
_BEHIND = (".", "..")

HEADERS_TOO_LARGE = Problem(
    "HeadersTooLarge",
    431,
    "Too many headers",
    "The headers are more, or longer, than are read here.",
    "Send fewer: cookies and tracing headers are not used.",
)
URL_TOO_LONG = Problem(
    "UrlTooLong",
    414,
    "The URL is too long",
    "The URL is longer than any route needs.",
    "Send what is long in the body of a POST.",
)
BODY_TOO_LARGE = Problem(
    "BodyTooLarge",
    413,
    "The body is too large",
    "The body is larger than one request may be; nothing of it was taken.",
    "Send it in several requests.",
    headers=_CLOSE,
)
BODY_TOO_SLOW = Problem(
    "BodyTooSlow",
    408,
    "The body came too slowly",
    "The body had not arrived when its time was over; nothing of it was taken.",
    "Send it again, in smaller requests where the line is slow.",
    headers=_CLOSE,
)

_ALWAYS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_UNLESS_SET: Headers = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
_HTTPS: Headers = [(b"strict-transport-security", b"max-age=31536000")]
_REPLACED = frozenset({b"server", b"x-request-id", *(name for name, _ in _ALWAYS)})


@dataclass(frozen=True)
class Limits:
    """How much of a request is taken.

    Attributes:
        header_bytes, headers: names and values together; their number.
        url_bytes: path and query, as sent.
        body_bytes: of a body as sent, packed or not.
        body_seconds: from the end of the headers to the end of the body.
        idle_seconds: from one piece of the body to the next.
        linger_seconds: how long the rest of a refused body is read and thrown away. Without, the system resets the
            connection, and a client that is still sending never reads why it was refused.
    """

    header_bytes: int = 16 * 1024
    headers: int = 64
    url_bytes: int = 4 * 1024
    body_bytes: int = 8 * 1024 * 1024
    body_seconds: float = 30.0
    idle_seconds: float = 10.0
    linger_seconds: float = 2.0


class Bounds:
    """ASGI middleware around the whole app.

    Each request has an id of our own in `scope["state"]["request_id"]`, which the answer carries as X-Request-ID. The
    app sees a refused or late body as a client that has gone away, and what it still says is not sent. HEAD is
    answered as GET is, without the body. What escapes the app is logged by type and place, and is 500.

    Args:
        docs_url: where the pages of errors are, see `problems.response`.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits | None = None,
        docs_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._limits = limits or Limits()
        self._docs_url = docs_url
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(scope, receive, send, self._limits, self._docs_url, self._clock)
        problem = refused(scope, self._limits)
        if problem is not None:
            await exchange.refuse(problem)
            return
        inner = {**scope, "method": "GET"} if exchange.is_head else scope
        try:
            await self._app(inner, exchange.receive, exchange.send)
        except ClientDisconnect:
            pass  # nobody is left to be told
        except Exception as error:
            _log_error(request_id, error)
            await exchange.refuse(UNEXPECTED)
        if "route" in inner:
            scope["route"] = inner["route"]  # the log's, who asked by HEAD or not
        if not exchange.is_over:
            await exchange.refuse(UNEXPECTED)


class _Exchange:
    """One request and its answer."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        limits: Limits,
        docs_url: str | None,
        clock: Callable[[], float],
    ) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._docs_url = docs_url
        self._clock = clock
        self._request_id: str = scope["state"]["request_id"]
        self._is_https = scope["scheme"] == "https"
        self._deadline = clock() + limits.body_seconds
        self._read = 0
        self._body_is_complete = False
        self._is_refused = False
        self._has_begun = False
        self._has_gone = False
        self.is_head = scope["method"] == "HEAD"

    @property
    def is_over(self) -> bool:
        """Whether an answer has begun, or nobody waits for one."""
        return self._has_begun or self._has_gone

    async def receive(self) -> Message:
        """What the client sends next; http.disconnect once the body has broken a bound, which is answered here."""
        if self._is_refused:
            return {"type": "http.disconnect"}
        if self._body_is_complete:
            return await self._noted(await self._receive())
        left = min(self._deadline - self._clock(), self._limits.idle_seconds)
        try:
            async with asyncio.timeout(max(left, 0)):
                message = await self._receive()
        except TimeoutError:
            return await self._broken(BODY_TOO_SLOW)
        if message.get("more_body", False) and self._clock() > self._deadline:  # what is there needs no waiting
            return await self._broken(BODY_TOO_SLOW)
        return await self._noted(message)

    async def _noted(self, message: Message) -> Message:
        if message["type"] == "http.disconnect":
            self._has_gone = True
            return message
        self._read += len(message.get("body", b""))
        self._body_is_complete = not message.get("more_body", False)
        return await self._broken(BODY_TOO_LARGE) if self._read > self._limits.body_bytes else message

    async def _broken(self, problem: Problem) -> Message:
        await self.refuse(problem)
        self._is_refused = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """What the app answers, with the headers that every answer has; nothing after a refusal."""
        if not self._is_refused:
            await self._pass_on(message)

    async def refuse(self, problem: Problem) -> None:
        """Answer the problem, unless an answer has begun: that one stays cut short."""
        if self.is_over:
            return
        answer = response(problem, self._request_id, self._docs_url)
        lingers = problem is BODY_TOO_LARGE and not self._body_is_complete
        await self._pass_on(
            {"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers}
        )
        await self._pass_on({"type": "http.response.body", "body": bytes(answer.body), "more_body": lingers})
        if lingers:
            await self._throw_away_the_rest()
            await self._pass_on({"type": "http.response.body", "body": b"", "more_body": False})

    async def _throw_away_the_rest(self) -> None:
        thrown = 0
        try:
            async with asyncio.timeout(self._limits.linger_seconds):
                while thrown <= self._limits.body_bytes:
                    message = await self._receive()
                    thrown += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
            headers = with_ours(list(message.get("headers", [])), self._request_id, is_https=self._is_https)
            message = {**message, "headers": headers}
        elif self.is_head:
            message = {**message, "body": b""}
        await self._send(message)


def with_ours(headers: Headers, request_id: str, *, is_https: bool) -> Headers:
    """The headers of an answer, with those that every answer has. A policy of its own that it has already stays."""
    kept = [header for header in headers if header[0] not in _REPLACED]
    there = {name for name, _ in kept}
    return [
        *kept,
        (b"x-request-id", request_id.encode()),
        *_ALWAYS,
        *(header for header in _UNLESS_SET if header[0] not in there),
        *(_HTTPS if is_https else []),
    ]


def refused(scope: Scope, limits: Limits) -> Problem | None:
    """Why a request is not even looked at, by its URL and headers alone; None for one that is."""
    raw_path: bytes = scope.get("raw_path") or b""
    if len(raw_path) + len(scope["query_string"]) > limits.url_bytes:
        return URL_TOO_LONG
    headers: Headers = scope["headers"]
    if len(headers) > limits.headers or sum(len(name) + len(value) for name, value in headers) > limits.header_bytes:
        return HEADERS_TOO_LARGE
    if not is_plain(scope["path"], raw_path):
        return NOT_FOUND
    length = dict(headers).get(b"content-length", b"")
    if length.isdigit() and int(length[:20]) > limits.body_bytes:
        return BODY_TOO_LARGE
    return None


def is_plain(path: str, raw_path: bytes) -> bool:
    """Whether a path can only be read in one way: as ASCII, with nothing escaped that divides it, and going down only.

    Args:
        path: after unescaping.
        raw_path: as it was sent, without the query.
    """
    segments = path.split("/")
    return (
        path.startswith("/")
        and path.isascii()
        and path.isprintable()
        and not any(odd in path for odd in "\\%")
        and not any(segment in _BEHIND for segment in segments)
        and "" not in segments[1:-1]
        and b"%2f" not in raw_path.lower()
    )


class BadBody(ProblemRaised):
    """A body cannot be unpacked; `problem` says why."""


def unpacked(body: bytes, encoding: str | None, most: int = MOST_UNPACKED) -> bytes:
    """The body without its Content-Encoding, which is gzip, identity or none.

    Several gzip members one after another are one body, as RFC 1952 says. No more than `most` bytes and one piece are
    ever held, whatever the body would become.

    Raises:
        BadBody: another encoding (415); more than `most` bytes (413); cut short, followed by something else, made of
            very many members, or no gzip at all (400).
    """
    name = (encoding or "identity").strip().lower()
    if name == "identity":
        if len(body) > most:
            raise _too_large(most)
        return body
    if name not in ("gzip", "x-gzip"):
        raise BadBody(
            Problem(
                "EncodingUnknown",
                415,
                "The encoding is not known",
                "The body has a Content-Encoding that is not unpacked here.",
                "Send it as gzip, or as it is.",
                headers={"Accept-Encoding": "gzip"},
            )
        )
    return _gunzipped(memoryview(body), most)


def _gunzipped(body: memoryview, most: int) -> bytes:
    pieces: list[bytes] = []
    size = at = members = 0
    while at < len(body) or not members:
        members += 1
        if members > _MOST_MEMBERS:
            raise _not_gzip("is made of very many parts")
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            packed = member.unconsumed_tail or body[at : at + _PIECE]
            at += 0 if member.unconsumed_tail else len(packed)
            try:
                piece = member.decompress(packed, min(most - size + 1, _PIECE * 16))
            except zlib.error as error:
                raise _not_gzip("is not gzip, or is damaged") from error
            if not packed and not piece and not member.eof:  # some may be left inside when all was handed over
                raise _not_gzip("ends before its end")
            size += len(piece)
            if size > most:
                raise _too_large(most)
            pieces.append(piece)
        at -= len(member.unused_data)
    return b"".join(pieces)


def _not_gzip(what: str) -> BadBody:
    return BadBody(
        Problem(
            "BodyNotGzip",
            400,
            "The body is not gzip",
            f"The body says that it is gzip, and {what}.",
            "Pack it anew, or send it as it is, without Content-Encoding.",
        )
    )


def _too_large(most: int) -> BadBody:
    return BadBody(
        Problem(
            "BodyTooLarge",
            413,
            "The body is too large",
            f"The body is more than {most} bytes when it is unpacked; nothing of it was taken.",
            "Send it in several requests.",
        )
    )


def _log_error(request_id: str, error: Exception) -> None:
    fields = {"request_id": request_id, "errors": described(error)}
    logging.getLogger(LOGGER).error("unexpected", extra={"fields": fields})  # whoever formats it sees no text of it
