"""Idempotency-Key: a POST that is sent again within a day is answered as it was, and done once.

As the IETF's draft "The Idempotency-Key HTTP Header Field" has it: the same key with another request is 422, and with
one that is still running 409. What is kept of a request is in `resources.storage.seen_requests`.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Header, Request, Response
from starlette.concurrency import run_in_threadpool

from dpdau_assets.api.problems import Problem, ProblemRaised
from dpdau_assets.api.request_log import LOGGER
from dpdau_assets.api.service import Service, service_of
from resources.storage.seen_requests import InProgress, New, OtherBody, Replayed
from resources.store import CANNOT_KEEP

_log = logging.getLogger(LOGGER)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Any text of the client's, for one request: within a day the same one is answered as it was.",
        pattern=r"^[\x21-\x7e]+$",
    ),
]

OTHER_REQUEST = Problem(
    "IdempotencyKeyReused",
    422,
    "The Idempotency-Key is another request's",
    "This Idempotency-Key came with another body, or to another path, within a day.",
    "Take a new key for a new request.",
)
RUNNING = Problem(
    "RequestRunning",
    409,
    "The same request is running",
    "A request with this Idempotency-Key has not been answered yet.",
    "Send it again after Retry-After.",
)

Made = tuple[int, dict[str, Any]]


async def once(request: Request, key: str | None, body: bytes, make: Callable[[], Awaitable[Made]]) -> Response:
    """What `make` answers, status and JSON; or what it answered when this request came before.

    What fails is forgotten, and runs again.
    """
    if key is None:
        return answer(*await make())
    service = service_of(request)
    begun = await run_in_threadpool(_begun, request, key, body, service)
    if isinstance(begun, OtherBody):
        raise ProblemRaised(OTHER_REQUEST)
    if isinstance(begun, InProgress):
        seconds = max(1, math.ceil(begun.seconds_left))
        raise ProblemRaised(replace(RUNNING, headers={"Retry-After": str(seconds)}))
    if isinstance(begun, Replayed):
        return Response(begun.body, begun.status, {"Idempotency-Replayed": "true"}, "application/json")
    return await _made(begun, make, service)


def answer(status: int, said: dict[str, Any]) -> Response:
    """A JSON answer."""
    return Response(json.dumps(said, separators=(",", ":")).encode(), status, media_type="application/json")


def _begun(request: Request, key: str, body: bytes, service: Service) -> Any:
    target = f"{request.url.path}?{request.url.query}".encode()
    kind = request.headers.get("content-type", "").encode()
    return service.seen.begin(
        service.store.clock.today(),
        request.state.client,
        key,
        (request.method.encode(), target, kind, body),
        time.time(),
    )


async def _made(begun: New, make: Callable[[], Awaitable[Made]], service: Service) -> Response:
    try:
        made = answer(*await make())
    except BaseException:
        with suppress(*CANNOT_KEEP):
            await run_in_threadpool(service.seen.abandon, begun)
        raise
    try:
        await run_in_threadpool(service.seen.finish, begun, made.status_code, {}, bytes(made.body))
    except CANNOT_KEEP as error:  # it is done all the same, and once more does no harm
        _log.error("An answer could not be kept for its Idempotency-Key: %s.", type(error).__name__)
        with suppress(*CANNOT_KEEP):
            await run_in_threadpool(service.seen.abandon, begun)
    return made
