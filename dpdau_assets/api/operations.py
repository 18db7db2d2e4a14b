"""For operators: what is coming, where everything stands, and declaring days complete."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from dpdau_assets.api.access import Allowed, Serving
from dpdau_assets.api.answer_schemas import DeclaredDays as Declared
from dpdau_assets.api.answer_schemas import Plan
from dpdau_assets.api.answer_schemas import Status as Standing
from dpdau_assets.api.answer_schemas import WithdrawnDays as Withdrawn
from dpdau_assets.api.answering import JSON, answered, to_json
from dpdau_assets.api.idempotency import IdempotencyKey, once
from dpdau_assets.api.numbers import ETAG, Whole, require_from_to
from dpdau_assets.api.schemas import Day, Responses, errors
from dpdau_assets.core.budget.forecast import forecast
from dpdau_assets.core.budget.prospects import FORESEEN
from dpdau_assets.core.publication.completeness import complete_all, withdraw_all
from dpdau_assets.core.reporting.answer_model import DeclaredDays, WithdrawnDays
from dpdau_assets.core.reporting.as_json import as_json
from dpdau_assets.core.reporting.status import status
from resources.schedule_probe import schedule_probe
from resources.store import open_mart

router = APIRouter(tags=["operation"], dependencies=[Depends(Allowed("admin"))])

Complete = Annotated[Day, Path(description="The day.", examples=["2025-10-01"])]
_UNDO: Responses = {
    200: {"links": {"undo": {"operationId": "withdrawDay", "parameters": {"day": "$response.body#/complete/0"}}}}
}


@router.get(
    "/plan",
    operation_id="getPlan",
    summary="What is coming",
    response_model=Plan,
    responses={**ETAG, **errors(401, 403, 422, 429, 503)},
)
async def get_plan(
    request: Request,
    service: Serving,
    months: Annotated[
        Annotated[int, Field(ge=1, le=120), Whole], Query(description="How many months from the next number on.")
    ] = 12,
    first: Annotated[
        Day | None,
        Query(alias="from", description="Publish nothing before this day.", examples=["2025-11-01"]),
    ] = None,
) -> Response:
    """What will be published and charged, month by month, and the first number that will be refused, if one is.

    It follows from the ledger and the settings; nothing is written.
    """
    settings = service.settings
    if first is not None:
        last = service.store.clock.today() + FORESEEN - timedelta(days=1)
        require_from_to("query.from", first, settings.start_date, last)

    def plan() -> bytes:
        coming = forecast(service.store.accountant, settings, months, first)
        return to_json({"changed": {}, **as_json(coming)})

    return await answered(request, ("plan", months, first), {JSON: plan})


@router.get(
    "/status",
    operation_id="getStatus",
    summary="Where everything stands",
    response_model=Standing,
    responses=errors(401, 403, 422, 429, 503),
)
def get_status(service: Serving) -> Response:
    """What is published, pending, overdue and spent. It changes nothing, and works beside everything else."""
    store = replace(service.store, is_scheduled=schedule_probe(service.settings).is_scheduled)
    return Response(to_json(status(store, open_mart(store.settings))), media_type=JSON)


@router.post(
    "/complete/{day}",
    operation_id="completeDay",
    summary="Declare a day complete",
    response_model=Declared,
    responses={**_UNDO, **errors(401, 403, 409, 422, 429, 503)},
)
async def complete_day(
    request: Request, service: Serving, day: Complete, idempotency_key: IdempotencyKey = None
) -> Response:
    """Say that all events of a day have been handed in: it is published when it is due. Again, it changes nothing.

    An event that comes after its day's publication is late. 409 for a day that is not over, or past retention.
    """

    def declare() -> tuple[int, dict[str, Any]]:
        complete_all([day], service.store)
        return 200, as_json(DeclaredDays((day,)))

    return await once(request, idempotency_key, await request.body(), partial(run_in_threadpool, declare))


@router.delete(
    "/complete/{day}",
    operation_id="withdrawDay",
    summary="Take a declaration back",
    response_model=Withdrawn,
    responses=errors(401, 403, 409, 422, 429, 503),
)
def withdraw_day(service: Serving, day: Complete) -> Response:
    """Say that events of a day may still come. 409 once a number has read the day."""
    withdraw_all([day], service.store)
    return Response(to_json(WithdrawnDays((day,))), media_type=JSON)
