"""Reading what is published: numbers, series, budgets, labels. It draws, spends and publishes nothing."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BeforeValidator, Field

from dpdau_assets.api.access import Allowed
from dpdau_assets.api.answer_schemas import Budget, Label, Number, Row
from dpdau_assets.api.answering import ARROW, CSV, JSON, answered, to_json
from dpdau_assets.api.problems import ProblemRaised, invalid
from dpdau_assets.api.schemas import Day, Responses, errors
from dpdau_assets.api.service import service_of
from dpdau_assets.core.budget.prospects import FORESEEN
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.errors import BudgetRefused, NotPublished
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.reporting.answers import (
    budget_answer,
    last_published_month,
    latest_number,
    latest_row,
    series,
)
from dpdau_assets.core.reporting.label import label_of, label_on_record
from dpdau_assets.core.settings import Metric
from resources.published.row_formats import to_arrow, to_csv

router = APIRouter(tags=["numbers"], dependencies=[Depends(Allowed("read"))])

LONGEST_SERIES = 3_700
"""Days."""

_WHOLE = re.compile(r"0|[1-9][0-9]{0,8}")


def _whole_number(value: object) -> object:
    """pydantic's own int would take 1.0 and 1_0, too."""
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        raise ValueError("a whole number in plain digits")
    return value


Whole = BeforeValidator(_whole_number)
Revision = Annotated[
    Annotated[int, Field(ge=0, le=9), Whole] | None,
    Query(description="0 is the first that was published; default: the latest."),
]

ETAG: Responses = {
    200: {"headers": {"ETag": {"description": "Changes with the answer.", "schema": {"type": "string"}}}},
    304: {"description": "The answer that If-None-Match names is still the one."},
}


def tables(columns: str) -> Responses:
    """The other representations of an answer, for FastAPI's `responses`."""
    csv = {"schema": {"type": "string", "description": f"A header line; {columns}"}}
    arrow = {"schema": {"type": "string", "format": "binary", "description": f"An Arrow IPC stream; {columns}"}}
    return {**ETAG, 200: {**ETAG[200], "content": {CSV.partition(";")[0]: csv, ARROW: arrow}}}


@router.get(
    "/dau/{day}",
    operation_id="getDau",
    summary="The DAU of a day",
    response_model=Number,
    responses={**tables("one row in the mart's columns."), **errors(401, 403, 404, 406, 422, 429, 503)},
)
async def get_dau(
    request: Request,
    day: Annotated[Day, Path(description="The day that is counted.", examples=["2025-10-01"])],
    revision: Revision = None,
) -> Response:
    """The published number of a day with its interval, how it was made, and what its month had cost by then.

    404 says which job makes it and when it is due, or that it never comes and why; 429, code BudgetRefused, that the
    budget refuses it, and which day fits next. As CSV and Arrow it is one row in the mart's columns.
    """
    return await _number(request, "dau", day, 1, revision)


@router.get(
    "/mau",
    operation_id="getMau",
    summary="The MAU of a window",
    response_model=Number,
    responses={**tables("one row in the mart's columns."), **errors(401, 403, 404, 406, 422, 429, 503)},
)
async def get_mau(
    request: Request,
    end: Annotated[Day, Query(description="The last day of the window.", examples=["2025-10-31"])],
    window: Annotated[
        Annotated[int, Field(ge=1, le=9_999), Whole] | None,
        Query(description="Days in the window; only MAU_WINDOW_DAYS, the default, is published."),
    ] = None,
    revision: Revision = None,
) -> Response:
    """The published number of the window that ends on a day, answered as that of a day of DAU is."""
    window_days = service_of(request).settings.mau_window_days if window is None else window
    return await _number(request, "mau", end, window_days, revision)


@router.get(
    "/series/{metric}",
    operation_id="getSeries",
    summary="The numbers of a range of days",
    response_model=list[Row],
    responses={**tables("a row a day, in the mart's columns."), **errors(401, 403, 406, 409, 422, 429, 503)},
)
async def get_series(
    request: Request,
    metric: Annotated[Metric, Path(description="Which of the two.", examples=["dau"])],
    first: Annotated[Day, Query(alias="from", description="The first day.", examples=["2025-10-01"])],
    last: Annotated[
        Day,
        Query(
            alias="to",
            description=f"The last day, not before the first; a range has at most {LONGEST_SERIES:,} days.",
            examples=["2025-10-31"],
        ),
    ],
    as_published: Annotated[
        bool, Query(description="The numbers that came out first; default: the latest of each day.")
    ] = False,
) -> Response:
    """The published numbers of a range of days, in order. Days without a number are left out."""
    if last < first:
        raise ProblemRaised(invalid("query.to", "it is not before `from`"))
    if last - first >= timedelta(days=LONGEST_SERIES):
        raise ProblemRaised(invalid("query.to", f"a range has at most {LONGEST_SERIES:,} days"))

    store = service_of(request).store

    def rows() -> Any:
        return series(metric, first, last, store.settings, store.accountant, as_published=as_published)

    forms = {JSON: lambda: to_json(rows()), CSV: lambda: to_csv(rows()), ARROW: lambda: to_arrow(rows())}
    return await answered(request, ("series", metric, first, last, as_published), forms)


@router.get(
    "/budget/{metric}",
    operation_id="getBudget",
    summary="What a month has spent of its cap",
    response_model=Budget,
    responses={**ETAG, **errors(401, 403, 404, 422, 429, 503)},
)
async def get_budget(
    request: Request,
    metric: Annotated[Metric, Path(description="Which of the two.", examples=["mau"])],
    day: Annotated[
        Day | None,
        Query(description="A day of the month; default: the last month that was published.", examples=["2025-10-31"]),
    ] = None,
) -> Response:
    """What the month's published numbers have cost, what is charged and held to its cap, and what is left."""
    store = service_of(request).store
    if day is not None:
        _require_foreseen(day, store)

    def budget() -> bytes:
        with store.accountant.snapshot() as ledger:
            month = last_published_month(metric, ledger) if day is None else month_of(day)
            return to_json(budget_answer(metric, month, store.settings, ledger))

    return await answered(request, ("budget", metric, day and month_of(day)), {JSON: budget})


@router.get(
    "/label/{metric}",
    operation_id="getLabel",
    summary="The privacy label",
    response_model=Label,
    responses={**ETAG, **errors(401, 403, 409, 422, 429, 503)},
)
async def get_label(
    request: Request,
    metric: Annotated[
        Literal["dau", "mau", "joint"],
        Path(description="One of the two; or `joint`, the whole label: each of them, and both together."),
    ],
) -> Response:
    """What the published data sets promise, in the shape of OpenDP's registry. `joint` is what `dpdau label` prints.

    409 where numbers were published by another mechanism than is configured: one label cannot state both.
    """

    store = service_of(request).store

    def label() -> bytes:
        whole = label_on_record(store.accountant, store.settings)
        return to_json(whole if metric == "joint" else label_of(metric, whole))

    return await answered(request, ("label", metric), {JSON: label})


async def _number(request: Request, metric: Metric, day: date, window_days: int, revision: int | None) -> Response:
    asked: tuple[Metric, date, int, int | None] = (metric, day, window_days, revision)
    store = service_of(request).store
    forms = {
        JSON: lambda: to_json(latest_number(*asked, store)),
        CSV: lambda: to_csv([latest_row(*asked, store)]),
        ARROW: lambda: to_arrow([latest_row(*asked, store)]),
    }
    try:
        return await answered(request, asked, forms)
    except NotPublished as missing:
        if missing.fields.get("why") == "no_budget":
            raise BudgetRefused(missing.reason, missing.remedy, **missing.fields) from None
        raise


def _require_foreseen(day: date, store: Store) -> None:
    """Months before the first, and far beyond today, have no budget, and no calendar."""
    first = month_of(store.settings.start_date)
    require_from_to("query.day", day, first, store.clock.today() + FORESEEN - timedelta(days=1))


def require_from_to(field: str, day: date, first: date, last: date) -> None:
    """Raise the problem that a day of this field lies outside of a range."""
    if not first <= day <= last:
        raise ProblemRaised(invalid(field, f"it lies from {first} to {last}"))
