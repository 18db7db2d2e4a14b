"""Erasure requests over HTTP: taken, listed, read back, confirmed and cancelled. Known and unknown ids are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from dpdau_assets.api.access import Erasing, Serving, admit_events
from dpdau_assets.api.bodies import body_of, values_of
from dpdau_assets.api.idempotency import IdempotencyKey, answer, once
from dpdau_assets.api.numbers import Whole
from dpdau_assets.api.problems import INVALID, Problem, ProblemRaised
from dpdau_assets.api.request_schemas import ERASURE_BODY, ERASURE_LINKS
from dpdau_assets.api.schemas import Cancelled, Confirmed, ErasureRequests, Receipt, RequestsTaken, errors
from dpdau_assets.api.service import Service, service_of
from dpdau_assets.core.erasure import receipts, requests
from dpdau_assets.core.events import Event, Limits, limits_of
from dpdau_assets.core.facts import Erasure, ErasureState
from dpdau_assets.core.publication.arrivals import LONGEST_ID
from dpdau_assets.core.reporting.answers import erasure_rows
from dpdau_assets.core.reporting.as_json import as_json
from dpdau_assets.core.reporting.taken import requests_taken
from dpdau_assets.core.state.limits import first_day, last_day
from resources.reading.erasure_files import REFERENCE_IS_ID, alike, people_of, request_of

router = APIRouter(prefix="/erasure", tags=["erasure"])

Name = Annotated[
    str, Path(pattern="^[0-9a-f]{16}$", description="The receipt of a request.", examples=["0123456789abcdef"])
]
_UNKNOWN = Problem(
    "UnknownReceipt",
    404,
    "No such request",
    "No erasure request has this receipt.",
    "GET /erasure lists them.",
)
_BAD = replace(INVALID, detail="Not every erasure request can be read as one; nothing was recorded.")
_SHOWN = 100
MOST_LISTED = 1_000
_TOO_LONG = f"user_id is longer than {LONGEST_ID:,} characters."


@router.post(
    "",
    status_code=202,
    operation_id="postErasures",
    summary="Ask for people to be erased",
    response_model=RequestsTaken,
    responses=errors(400, 401, 403, 408, 409, 413, 415, 422, 429, 503, links=ERASURE_LINKS),
    openapi_extra=ERASURE_BODY,
)
async def post_erasures(
    request: Request, key: Erasing, service: Serving, idempotency_key: IdempotencyKey = None
) -> Response:
    """Record erasure requests durably, all or none. The answer is alike whether anyone knows the people or not.

    Without `through` and `days` everything is erased through tomorrow. Applied by the next number or at the erasure
    sensor's next tick. More people a day and key than ERASURE_GUARD_SHARE lets through are parked, and wait for
    `confirm`; asking for the very same again is answered with the same receipts.
    """
    body = await body_of(request)
    fields = values_of(body, request.headers.get("content-type"), "erasure", "erasures", bare="user_id")
    await admit_events(request, key.name, len(fields), "erase")

    async def take() -> tuple[int, dict[str, Any]]:
        said = await run_in_threadpool(_recorded, fields, key.name, service)
        service.metrics.asked(said["received"])
        return 202, said

    return await once(request, idempotency_key, body, take)


@router.get(
    "",
    operation_id="listErasures",
    summary="List erasure requests",
    response_model=ErasureRequests,
    responses=errors(401, 403, 422, 429, 503),
)
def list_erasures(
    _: Erasing,
    service: Serving,
    state: Annotated[ErasureState | None, Query(description="Only these.")] = None,
    after: Annotated[str | None, Query(pattern="^[0-9a-f]{16}$", description="Those after this receipt.")] = None,
    limit: Annotated[
        Annotated[int, Field(ge=1, le=MOST_LISTED), Whole], Query(description="At most so many.")
    ] = MOST_LISTED,
) -> Response:
    """Where requests stand and until when each has to be done, in order of arrival. Whose they are is not said."""
    store = service.store
    known = store.erasures.ledger.erasures()
    if after is not None:
        known = known[known.index(_named(after, service)) + 1 :]
    wanted = [erasure for erasure in known if state in (None, erasure.state)]
    return answer(200, as_json(erasure_rows(wanted[:limit], store.clock, store.erasures)))


@router.get(
    "/{receipt}",
    operation_id="getErasure",
    summary="Show a request and its receipt",
    response_model=Receipt,
    responses=errors(401, 403, 404, 422, 429, 503),
)
async def get_erasure(
    receipt: Name,
    _: Erasing,
    service: Serving,
    verify: Annotated[bool, Query(description="Read everything that is kept back, now.")] = False,
) -> Response:
    """The receipt as it was last written; with `verify=1` everything is read back for it now, which takes a while.

    Of a request that is not applied yet nothing is read back.
    """
    if verify:
        return answer(200, await to_thread.run_sync(_verified, receipt, service, limiter=service.waiting))
    return answer(200, await run_in_threadpool(_last, receipt, service))


def _verified(receipt: str, service: Service) -> dict[str, Any]:
    return receipts.receipt(_named(receipt, service).receipt, service.store)


def _last(receipt: str, service: Service) -> dict[str, Any]:
    return receipts.last_receipt(_named(receipt, service), service.store)


@router.post(
    "/{receipt}/confirm",
    operation_id="confirmErasure",
    summary="Bring a parked request into force",
    response_model=Confirmed,
    responses=errors(401, 403, 404, 409, 422, 429, 503),
)
async def confirm_erasure(
    request: Request, receipt: Name, _: Erasing, service: Serving, idempotency_key: IdempotencyKey = None
) -> Response:
    """Let a request through that the guard has parked. One that is in force, or cancelled, stays so."""

    def confirmed() -> dict[str, Any]:
        store = service.store
        _named(receipt, service)
        found = requests.confirm([receipt], store.erasures)
        in_force = sum(erasure.state != "cancelled" for erasure in found)
        return {"confirmed": in_force, "erasures": as_json(erasure_rows(found, store.clock, store.erasures))}

    return await _changed(request, idempotency_key, confirmed)


@router.post(
    "/{receipt}/cancel",
    operation_id="cancelErasure",
    summary="Forget a request",
    response_model=Cancelled,
    responses=errors(401, 403, 404, 409, 422, 429, 503),
)
async def cancel_erasure(
    request: Request, receipt: Name, _: Erasing, service: Serving, idempotency_key: IdempotencyKey = None
) -> Response:
    """Forget a request that is not being applied yet; one that is, or was, is 409: what is erased cannot come back."""

    def cancelled() -> dict[str, Any]:
        store = service.store
        _named(receipt, service)
        found = requests.cancel([receipt], store.state, store.erasures)
        return {"cancelled": len(found), "erasures": as_json(erasure_rows(found, store.clock, store.erasures))}

    return await _changed(request, idempotency_key, cancelled)


async def _changed(request: Request, key: str | None, change: Callable[[], dict[str, Any]]) -> Response:
    async def make() -> tuple[int, dict[str, Any]]:
        return 200, await to_thread.run_sync(change, limiter=service_of(request).waiting)

    return await once(request, key, await request.body(), make)


# --- What was asked for ------------------------------------------------------------------------------------------


def _recorded(fields: Sequence[object], client: str, service: Service) -> dict[str, Any]:
    """Raises the problem that names each bad one by its place; then nothing is recorded."""
    service.watch.require_same()
    store = service.store
    limits = limits_of(store.settings, first_day(store.settings, store.accountant), last_day(store.clock))
    asked = {place: _request_of(value, limits) for place, value in enumerate(fields)}
    bad = {place: said for place, said in asked.items() if isinstance(said, str)}
    good = {place: event for place, event in asked.items() if isinstance(event, Event)}
    people = people_of(good.values(), limits)
    bad |= {place: REFERENCE_IS_ID for place, event in good.items() if event.reference in people}
    if bad:
        broken = [{"field": f"erasures[{place}]", "rule": said} for place, said in sorted(bad.items())]
        raise ProblemRaised(_BAD.saying(errors=broken[:_SHOWN]))
    already = service.seen.people_asked(store.clock.today(), client, people)
    done = requests.request(list(good.values()), store, already=already)
    return requests_taken(done, [place + 1 for place in alike(good)])


def _request_of(value: object, limits: Limits) -> Event | str:
    asked = request_of(value, limits)
    return _TOO_LONG if isinstance(asked, Event) and len(asked.user_id) > LONGEST_ID else asked


def _named(receipt: str, service: Service) -> Erasure:
    """The request of this receipt; a batch's name is none."""
    for erasure in service.store.erasures.ledger.find([receipt]):
        if erasure.receipt == receipt:
            return erasure
    raise ProblemRaised(_UNKNOWN)
