"""POST /event: acknowledged once durable. Removals are erasure requests first, then the rows go to the log."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from dpdau_assets.api.access import Ingesting, Serving, admit_events
from dpdau_assets.api.bodies import body_of, values_of
from dpdau_assets.api.idempotency import IdempotencyKey, once
from dpdau_assets.api.problems import Problem, ProblemRaised
from dpdau_assets.api.request_schemas import EVENT_BODY
from dpdau_assets.api.schemas import EventsTaken, errors
from dpdau_assets.api.service import Service
from dpdau_assets.core.erasure.requests import request as request_erasure
from dpdau_assets.core.publication.arrivals import Keying, SortedOut, sorted_out
from dpdau_assets.core.reporting.taken import rows_taken
from resources.storage.write_ahead_log import size_of

router = APIRouter(tags=["events"])

NO_VALID_ROW = Problem(
    "NoValidRow",
    422,
    "No valid event",
    "None of the events is valid; nothing was taken.",
    "Correct what `rejected_by_reason` names, and send them again; `?explain=1` says which.",
)


@router.post(
    "/event",
    status_code=202,
    operation_id="postEvents",
    summary="Take events in",
    response_model=EventsTaken,
    responses=errors(400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
    openapi_extra=EVENT_BODY,
)
async def post_events(
    request: Request,
    key: Ingesting,
    service: Serving,
    idempotency_key: IdempotencyKey = None,
    explain: Annotated[bool, Query(description="Name each bad event by its place, counted from 0.")] = False,
) -> Response:
    """Take the valid events in; the answer comes once they are on disk, and says how many were bad and why.

    A `-` event is an erasure request, recorded before any `+` event of the same body is acknowledged. What comes twice
    counts once. Events of a day that a number has read are late: they enter with its month's restatement.
    """
    body = await body_of(request)
    values = values_of(body, request.headers.get("content-type"), "event", "events")
    await admit_events(request, key.name, len(values), "ingest")

    async def take() -> tuple[int, dict[str, Any]]:
        keying = await service.keying()
        rows = sorted_out(values, keying.limits)
        if not rows.accepted:
            raise ProblemRaised(_none_valid(rows, explain=explain))
        await _take(rows, keying, key.name, request.state.request_id, service)
        return 202, rows_taken(rows, explain=explain)

    return await once(request, idempotency_key, body, take)


async def _take(rows: SortedOut, keying: Keying, client: str, request_id: str, service: Service) -> None:
    """Durable in this order: removals, then events with the places of bad rows."""
    if rows.removals:
        await run_in_threadpool(_request_removals, rows, client, service)
    if keying.has_keys_of(rows):
        arrivals = keying.arrivals(rows, request_id)
    else:  # which asks the ledger, and may wait for it
        arrivals = await run_in_threadpool(keying.arrivals, rows, request_id)
    await asyncio.wrap_future(service.writer.append(arrivals))
    rejected = len(rows.rejected)
    service.metrics.took(
        log_bytes=size_of(arrivals),
        rows=rows.accepted + rejected,
        rejected=rejected,
        removals=len(rows.removals),
    )


def _request_removals(rows: SortedOut, client: str, service: Service) -> None:
    service.watch.require_same()
    store = service.store
    already = service.seen.people_asked(store.clock.today(), client, {event.user_id for event in rows.removals})
    request_erasure(rows.removals, store, already=already)


def _none_valid(rows: SortedOut, *, explain: bool) -> Problem:
    return NO_VALID_ROW.saying(**rows_taken(rows, explain=explain))
