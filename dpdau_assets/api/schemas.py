"""The answers as the OpenAPI document describes them: every field of `as_json`, and no other.

Nothing is answered through these models; tests hold real answers to them. A field that not every answer has is not
required; one that may be null says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache, partial
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from dpdau_assets.api.access import SCHEMES, scopes_asked
from dpdau_assets.api.problems import MEDIA_TYPE
from dpdau_assets.core.events import calendar_day
from dpdau_assets.core.facts import ErasureState
from dpdau_assets.core.settings import Metric

Responses = dict[int | str, dict[str, Any]]


def _written_day(value: object) -> object:
    """pydantic's own date would take Unix seconds, too."""
    day = calendar_day(value) if isinstance(value, str) else value
    if not isinstance(day, date):
        raise ValueError("a real date, written YYYY-MM-DD")
    return day


Day = Annotated[date, BeforeValidator(_written_day)]
"""A day of a request: a real date written YYYY-MM-DD, and nothing else."""

Month = Annotated[str, Field(pattern="^[0-9]{4}-(0[1-9]|1[0-2])$")]
_Hex = Annotated[str, Field(pattern="^[0-9a-f]*$")]
_Name = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
_Count = Annotated[int, Field(ge=0)]


def not_always(description: str | None = None) -> Any:
    """A field that not every answer has: not required, and not null; without a default that the document would name."""
    return Field(default_factory=lambda: None, description=description)


class Schema(BaseModel):
    """An object that has these fields alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- Errors ------------------------------------------------------------------------------------------------------


class BrokenRule(Schema):
    """A field of the request, and the rule that it broke; never what stood in it."""

    field: str
    rule: str


class BadEvent(Schema):
    """A bad event: its place, counted from 0, and the rule that it breaks."""

    index: int = Field(ge=0)
    reason: str


class Problem(BaseModel):
    """Every error, as RFC 9457 has it. Which of the further members there are follows from the code."""

    model_config = ConfigDict(extra="allow", frozen=True, json_schema_extra={"additionalProperties": True})

    type: str = Field(description="The page that explains the code.", json_schema_extra={"format": "uri-reference"})
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What happened, for people.")
    instance: str = Field(description="The request, as the server's log names it.", json_schema_extra={"format": "uri"})
    code: str = Field(description="A word that stays the same, for machines.")
    remedy: str = Field(description="What to do, for people.")
    errors: list[BrokenRule | BadEvent] = not_always("What is wrong with the request, or with which of its events.")
    retry_after: int = not_always("Seconds to wait, where too much came at once.")
    scope: str = not_always("The scope that the key lacks.")
    metric: Metric = not_always()
    day: date = not_always("Of a number: its day.")
    never: bool = not_always("Of a missing number: nothing makes it, as things stand.")
    why: str = not_always("Of a missing number: a short code.")
    due: date = not_always("Of a missing number: when it comes.")
    month: Month = not_always("Refused by the budget: the month whose cap is reached.")
    spent: float = not_always("In epsilon: what the month's numbers that are out cost.")
    charged: float = not_always("In epsilon: what is held to the cap.")
    asked: float = not_always("In epsilon: what the number would be charged.")
    together: float = not_always("In epsilon: charged and asked.")
    cap: float = not_always("In epsilon: the month's cap.")
    delta: float = not_always("At which these epsilons hold.")
    next_day: date = not_always("The next day whose number fits.")


_ERROR = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
_WHEN: Mapping[int, str] = {
    400: "The body is not what its Content-Encoding says.",
    401: "No key, or none that is valid.",
    403: "The key has not the scope that this asks for.",
    404: "There is no such thing.",
    406: "None of the media types that are accepted is served.",
    408: "The request came too slowly.",
    409: "Refused as things stand.",
    413: "The body is too large.",
    415: "The body is of a media type that is not read.",
    422: "The request is wrong; `errors` names fields and rules.",
    429: "Too many requests, or refused by the budget.",
    503: "The server cannot do it now.",
}
_HEADERS: Mapping[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def errors(*statuses: int, links: Mapping[str, Any] | None = None) -> Responses:
    """A route's error answers, for FastAPI's `responses`: these statuses, and any other one as the default.

    `links` are those of its answer 202.
    """
    declared: Responses = {
        status: {"description": _WHEN[status], "content": _ERROR, "headers": _HEADERS.get(status, {})}
        for status in statuses
    }
    declared["default"] = {"description": "Any other error.", "content": _ERROR}
    return {**({202: {"links": dict(links)}} if links else {}), **declared}


def documented(app: FastAPI) -> FastAPI:
    """The app, whose document has the schema that all error answers name, which key of which scope each operation asks
    for, and no parameter that may be null. It is made once: no route may be added afterwards.
    """
    app.openapi = cache(partial(_document, app))  # type: ignore[method-assign]
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    document = FastAPI.openapi(app)
    components = document.setdefault("components", {})
    _, made = models_json_schema([(Problem, "validation")], ref_template="#/components/schemas/{model}")
    components.setdefault("schemas", {}).update(made["$defs"])
    components["securitySchemes"] = SCHEMES
    for (path, method), scope in scopes_asked(app).items():
        document["paths"][path][method.lower()]["security"] = [{scheme: [scope]} for scheme in SCHEMES]
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _not_null(parameter["schema"])
    return document


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is left out is not there: it cannot be sent as null."""
    several = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    if len(several) != 1:
        return schema
    return {**several[0], **{name: value for name, value in schema.items() if name != "anyOf"}}


# --- What comes in -----------------------------------------------------------------------------------------------


class EventsTaken(Schema):
    """How many events were taken, and how many were bad and why."""

    ingested: _Count
    rejected: _Count
    rejected_by_reason: dict[str, _Count]
    errors: list[BadEvent] = not_always("With `explain=1`.")


class PassedOver(Schema):
    """Days of a request that can hold nothing: before START_DATE, or past retention."""

    receipt: _Name
    days: list[date]


class Warned(Schema):
    """A request that may be meant for the person of another one."""

    line: int = Field(ge=1, description="Its place, counted from 1.")
    warning: str


class RequestsTaken(Schema):
    """The receipts of erasure requests, in order."""

    received: _Count
    receipts: list[_Name]
    references: list[str | None]
    parked: bool = Field(description="Whether they wait for `confirm`.")
    batches: list[_Name]
    passed_over: list[PassedOver]
    warnings: list[Warned]


class ErasureScope(Schema):
    """The last day that is erased; or just some days."""

    through: date
    days: list[date]


class ErasureRequest(Schema):
    """Where an erasure request stands, and until when it has to be done."""

    receipt: _Name
    batch: _Name
    state: ErasureState
    scope: ErasureScope
    received_on: date
    deadline: date
    overdue: bool


ErasureRequests = list[ErasureRequest]


class Confirmed(Schema):
    """How many requests are in force now."""

    confirmed: _Count
    erasures: list[ErasureRequest]


class Cancelled(Schema):
    """How many requests are forgotten now."""

    cancelled: _Count
    erasures: list[ErasureRequest]


class Survivor(Schema):
    """Where something of the person is left, or cannot be ruled out to be."""

    file: str
    how: str


class Remains(Schema):
    """What is kept all the same, why, and until when."""

    what: str
    until: str | None
    why: str


class Partition(Schema):
    """A partition that was read back, and what was found in it."""

    store: str
    day: date
    epoch: int
    version: str | None
    content_hash: str | None
    membership: Literal["not asked", "absent", "present"]
    bytes: Literal["not asked", "absent", "present"]


class Receipt(Schema):
    """The signed statement of what is left of a person; unsigned before anything was read back."""

    receipt: _Name
    state: ErasureState
    verified: bool
    received_on: date
    deadline: date
    inspected_on: date | None
    epochs: list[int]
    scope: ErasureScope
    survivors: list[Survivor]
    remains: list[Remains]
    reference_commitment: _Hex | None
    partitions_digest: _Hex
    previous: _Hex
    partitions: list[Partition] = not_always("Only with `verify`, or if nothing was read back for the request yet.")
    partitions_nonce: _Hex | None = not_always("Only with `verify`, or if nothing was read back for the request yet.")
    reference: str | None
    reference_opening: _Hex | None
    hash: _Hex | None
    signature: _Hex | None
