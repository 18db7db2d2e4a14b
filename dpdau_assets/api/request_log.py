"""Structured logs of the server: JSON, one line a request or event, on stderr.

A line says which route was asked and what came of it, and never for whom: no path or query values, no bodies, no
addresses, no user agents, and of an exception its type and place alone, since its text may hold a value.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from traceback import walk_tb
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpdau_assets.core.errors import BadSetting

LOGGER = "dpdau.api"
_DRAWN_AHEAD = 256

_drawn: Iterator[str] = iter(())


def new_request_id() -> str:
    """A name of our own for a request: 16 hex digits that nobody can predict, so that they tell no count of requests.

    From the system's randomness, of which some is drawn ahead: each draw is a system call.
    """
    global _drawn
    drawn = next(_drawn, None)
    if drawn is None:
        _drawn = _cut(secrets.token_hex(_DRAWN_AHEAD * 8))
        drawn = next(_drawn)
    return drawn


def _cut(digits: str) -> Iterator[str]:
    return (digits[at : at + 16] for at in range(0, len(digits), 16))


UNMATCHED = "unmatched"
"""The route of a request that met none."""

_ERASURE = "/erasure"  # whose bodies are as long as the id in them
_LEVELS = ("debug", "info", "warning", "error")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True)
class Answered:
    """One request and what came of it, in words that may be told to operators.

    Attributes:
        request_id: see `bounds.Bounds`; None where that does not run.
        method: "other" for one that HTTP does not name.
        route: the template, such as /dau/{day}, or "unmatched".
        status: None where nobody was left to answer.
        bytes_in, bytes_out: of bodies as they went over the wire, without headers.
        client: the name of the key.
    """

    request_id: str | None
    method: str
    route: str
    status: int | None
    seconds: float
    bytes_in: int
    bytes_out: int
    client: str | None


class RequestLog:
    """ASGI middleware, the outermost: a line for each request when it has been answered.

    The route is as the router has left it in `scope["route"]`; `request_id` and `client` are read from
    `scope["state"]`, where what runs inside has put them.

    Args:
        also: who else is told, such as the metrics; after the line was written.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        app: ASGIApp,
        also: Callable[[Answered], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._also = also
        self._clock = clock
        self._logger = logging.getLogger(LOGGER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = self._clock()
        traffic = _Traffic(receive, send)
        try:
            await self._app(scope, traffic.receive, traffic.send)
        finally:
            answered = _answered(scope, traffic, self._clock() - begun)
            self._logger.info("request", extra={"fields": _line(answered)})
            if self._also is not None:
                self._also(answered)


class _Traffic:
    """What goes in and out in one request."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.status: int | None = None
        self.bytes_in = 0
        self.bytes_out = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.bytes_out += len(message.get("body", b""))
        await self._send(message)


def _answered(scope: Scope, traffic: _Traffic, seconds: float) -> Answered:
    state = scope.get("state", {})
    return Answered(
        request_id=state.get("request_id"),
        method=scope["method"] if scope["method"] in _METHODS else "other",
        route=getattr(scope.get("route"), "path", UNMATCHED),
        status=traffic.status,
        seconds=seconds,
        bytes_in=traffic.bytes_in,
        bytes_out=traffic.bytes_out,
        client=state.get("client"),
    )


def _line(answered: Answered) -> dict[str, Any]:
    said = dict(vars(answered))
    milliseconds = round(said.pop("seconds") * 1000, 1)
    if answered.route.startswith(_ERASURE):
        del said["bytes_in"]
    return {**said, "milliseconds": milliseconds}


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (ISO, UTC), level, logger, message, and the record's own `fields`.

    Only the first line of a message is kept: asyncio writes the text of an exception on the next ones.
    """

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": next(iter(record.getMessage().splitlines()), ""),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            said["errors"] = described(record.exc_info[1])
        return json.dumps(said, separators=(",", ":"), default=lambda value: type(value).__name__)


def described(error: BaseException) -> list[dict[str, Any]]:
    """Type and frames (`file:line function`, outermost first) of an exception and of what led to it; never a text."""
    return [
        {
            "type": f"{type(each).__module__}.{type(each).__qualname__}",
            "frames": [
                f"{frame.f_code.co_filename}:{number} {frame.f_code.co_name}"
                for frame, number in walk_tb(each.__traceback__)
            ],
        }
        for each in _led_to(error, set())
    ]


def _led_to(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    """The exception, those that it groups, and its causes; each once, since causes may go in circles."""
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                yield from _led_to(part, seen)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def log_config(level: str = "info") -> dict[str, Any]:
    """uvicorn's `log_config`: its own messages as JSON lines too, and no access log, which would hold paths.

    Raises:
        BadSetting: another level than debug, info, warning or error. uvicorn's `trace` would log addresses and headers.
    """
    if level not in _LEVELS:
        raise BadSetting(f"There is no log level of this name ({len(level)} letters).", f"One of {', '.join(_LEVELS)}.")
    ours = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": f"{JsonLines.__module__}.{JsonLines.__qualname__}"}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"},
        },
        "loggers": {
            "dpdau": ours,
            "uvicorn": ours,
            "uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }
