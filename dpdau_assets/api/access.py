"""Who asks, and whether they may: keys, scopes, and how many requests are let through."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.routing import iter_route_contexts

from dpdau_assets.api.problems import (
    EXPIRED,
    FORBIDDEN,
    TOO_MANY_AT_ONCE,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    Problem,
    ProblemRaised,
)
from dpdau_assets.api.rate_limits import Refusal
from dpdau_assets.api.service import Service, service_of
from dpdau_assets.core.api_keys import ApiKey, Scope, authenticate


async def serving(request: Request) -> Service:
    """The worker's service; a coroutine, so that no thread is asked for it."""
    return service_of(request)


Serving = Annotated[Service, Depends(serving)]

SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "From `dpdau api-key new`."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same key as a bearer token."},
}
"""The ways in which a key is sent, for the OpenAPI document."""


class Allowed:
    """A dependency that lets requests with a key of this scope through, as many as the limits admit.

    It reads the headers by itself: FastAPI's own classes for that take a third of the time of a read.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope: Scope = scope

    async def __call__(self, request: Request) -> ApiKey:
        """The key that the request came with. Raises 401, 403 or 429."""
        service = service_of(request)
        presented = presented_in(request)
        known = presented and authenticate(presented, service.keys(), service.store.clock.today())
        name = known.name if isinstance(known, ApiKey) else None
        request.state.client = name
        await admit(request, name, self.scope)
        if presented and not isinstance(known, ApiKey):
            service.security.note("key_expired" if known == "expired" else "key_refused", self.scope)
        if not isinstance(known, ApiKey):
            raise ProblemRaised(EXPIRED if known == "expired" else UNAUTHORIZED)
        if self.scope not in known.scopes:
            service.security.note("scope_refused", self.scope, known.name)
            raise ProblemRaised(FORBIDDEN.saying(scope=self.scope))
        return known


def presented_in(request: Request) -> str | None:
    """What the request says is its key: X-API-Key, or else a bearer token."""
    key = request.headers.get("x-api-key")
    if key is not None:
        return key
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def scopes_asked(app: FastAPI) -> dict[tuple[str, str], Scope]:
    """The scope that a key needs for each operation, by path and method; those that need none are not among them."""
    found: dict[tuple[str, str], Scope] = {}
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        for needed in dependant.dependencies if dependant else ():
            if isinstance(needed.call, Allowed):
                found |= {(route.path or "", method): needed.call.scope for method in route.methods or ()}
    return found


async def admit(request: Request, key_name: str | None, scope: Scope) -> None:
    """Count this request to a route of this scope, by key, and by address and scope: or who reads would learn how much
    comes in from there. Those without a valid key are counted together.

    Raises 429 for what is too many.
    """
    service = service_of(request)
    refusal = await service.limits.admit(key_name, address_of(request), purpose=scope if key_name else "")
    _require(refusal, service, key_name, scope)


async def admit_events(request: Request, key_name: str, events: int, scope: Scope) -> None:
    """Count so many events, or erasure requests, of a request that was let through.

    Raises 429 for what is too many, and 413 for more at once than a minute's limit.
    """
    service = service_of(request)
    refusal = await service.limits.admit_events(key_name, address_of(request), events, purpose=scope)
    _require(refusal, service, key_name, scope)


def _require(refusal: Refusal | None, service: Service, key_name: str | None, scope: Scope) -> None:
    if refusal is not None:
        service.security.note_limit(refusal, key_name, scope)
    if refusal is not None and not refusal.fits:
        raise ProblemRaised(TOO_MANY_AT_ONCE)
    if refusal is not None:
        raise ProblemRaised(too_many(refusal.retry_after).saying(limit=refusal.limit, by=refusal.by))


def too_many(seconds: int) -> Problem:
    """The problem of who has to wait so long."""
    return replace(TOO_MANY_REQUESTS, headers={"Retry-After": str(seconds)}, fields={"retry_after": seconds})


def address_of(request: Request) -> str:
    """Where the request comes from: the client that a trusted proxy names, else whoever is connected."""
    return request.client.host if request.client else ""


Ingesting = Annotated[ApiKey, Depends(Allowed("ingest"))]
Erasing = Annotated[ApiKey, Depends(Allowed("erase"))]
