"""Every error that the API answers, in the one shape of RFC 9457, and which status each of our own errors has.

`type` is the page on which the error's code is explained, `code` the same word that the command line prints. Nothing
that was sent is repeated: an answer names fields, rules, days and metrics, and never what stood in a field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from starlette.responses import Response

from dpdau_assets.core.errors import BadInput, BadSetting, BudgetRefused, Damaged, DpdauError, NotPublished, Refused
from dpdau_assets.core.reporting.as_json import as_json

MEDIA_TYPE = "application/problem+json"
ERRORS_PAGE = "/docs/errors"
"""Where the API itself explains its codes, for who has set no DOCS_URL."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Problem:
    """What went wrong, for people and for machines.

    Attributes:
        code: a word that stays the same, such as NotPublished.
        detail: what happened, one sentence; `remedy` says what to do.
        fields: what else machines are told, as plain JSON, beside the five members of the standard.
        headers: of the answer, such as Retry-After.
    """

    code: str
    status: int
    title: str
    detail: str
    remedy: str
    fields: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    headers: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def saying(self, **fields: Any) -> Problem:
        """The problem with these fields besides its own."""
        return replace(self, fields={**self.fields, **fields})


class ProblemRaised(Exception):
    """A problem on its way to the client."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def response(problem: Problem, request_id: str, docs_url: str | None = None) -> Response:
    """The answer, whose `instance` names the request as the log does."""
    pages = f"{docs_url.rstrip('/')}/errors" if docs_url else ERRORS_PAGE
    said = {
        "type": f"{pages}#{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": f"urn:dpdau:request:{request_id}",
        "code": problem.code,
        "remedy": problem.remedy,
        **problem.fields,
    }
    body = json.dumps(said, separators=(",", ":")).encode()
    return Response(body, problem.status, {**problem.headers, "Cache-Control": "no-store"}, MEDIA_TYPE)


# --- Problems of HTTP itself -------------------------------------------------------------------------------------

UNAUTHORIZED = Problem(
    "Unauthorized",
    401,
    "No valid key",
    "The request came without a key that is valid here.",
    "Send one as X-API-Key, or as a bearer token; `dpdau api-key new` makes one.",
    headers={"WWW-Authenticate": 'Bearer realm="dpdau"'},
)
ORIGIN_REFUSED = Problem(
    "OriginRefused",
    400,
    "Another origin",
    "Pages of this origin may not call the API, or not with this method or these headers.",
    "An operator allows an origin in CORS_ORIGINS.",
)
EXPIRED = replace(
    UNAUTHORIZED,
    code="KeyExpired",
    title="The key has expired",
    detail="The key was valid, and is no more.",
    remedy="Ask for a new one: `dpdau api-key new`.",
)
FORBIDDEN = Problem(
    "Forbidden",
    403,
    "The key may not do this",
    "The key is valid, and has not the scope that this route asks for.",
    "Use a key with the scope that is named, or have one made: `dpdau api-key new NAME --scope SCOPE`.",
)
NOT_FOUND = Problem(
    "NotFound", 404, "Nothing is here", "No route has this path.", "The routes are listed at /docs and /openapi.json."
)
METHOD_NOT_ALLOWED = Problem(
    "MethodNotAllowed",
    405,
    "Method not allowed",
    "The path takes other methods than this one.",
    "Use one that the Allow header names.",
)
TOO_MANY_REQUESTS = Problem(
    "TooManyRequests",
    429,
    "Too many requests",
    "More came in a minute than is let through.",
    "Wait as long as Retry-After says.",
)
TOO_MANY_AT_ONCE = Problem(
    "TooManyAtOnce",
    413,
    "More at once than a minute's limit",
    "The request has more events or erasure requests than RATE_LIMIT_EVENTS_PER_MINUTE lets through in a minute.",
    "Send them in several requests.",
)
UNAVAILABLE = Problem(
    "Unavailable",
    503,
    "Not now",
    "The server cannot write or reach what it keeps at the moment, and acknowledges nothing.",
    "Send it again later: what comes twice counts once. An operator finds the reason at /readyz and in the log.",
    headers={"Retry-After": "10"},
)
UNEXPECTED = Problem(
    "Unexpected",
    500,
    "An error of the server",
    "Something failed that should not.",
    "An operator finds the reason in the log, under the request's id.",
)
INVALID = Problem(
    "InvalidRequest",
    422,
    "The request cannot be read as one",
    "A part of the request is missing, or not what the route takes.",
    "Correct what `errors` names.",
)


def invalid(field_name: str, rule: str, *, detail: str | None = None) -> Problem:
    """Bad input of one field, which broke this rule."""
    problem = INVALID if detail is None else replace(INVALID, detail=detail)
    return problem.saying(errors=[{"field": field_name, "rule": rule}])


# --- Errors of ours ----------------------------------------------------------------------------------------------

_OF_OPERATORS = (BadSetting, Damaged)
"""Errors that only an operator can mend: their words may name files, and are for the log."""
MISCONFIGURED = Problem(
    "BadSetting",
    503,
    "Not set up for this",
    "The server's settings, or files that it was given, do not allow this.",
    "An operator finds the reason in the log, under the request's id.",
    headers={"Retry-After": "60"},
)
DAMAGED = Problem(
    "Damaged",
    503,
    "Something is damaged",
    "Something that the server keeps is damaged, or of another store.",
    "An operator finds the reason in the log, under the request's id.",
    headers={"Retry-After": "60"},
)

_STATUS: tuple[tuple[type[DpdauError], int, str], ...] = (
    (BudgetRefused, 429, "Refused by the budget"),
    (NotPublished, 404, "Not published"),
    (Refused, 409, "Refused"),
    (BadInput, 422, "Bad input"),
)


def is_for_operators(error: DpdauError) -> bool:
    """Whether a client can do nothing about it, so that the log has to say what it was."""
    return isinstance(error, _OF_OPERATORS)


def problem_of(error: DpdauError) -> Problem:
    """The problem that one of our errors is to a client: its sentences, and its fields for machines."""
    if is_for_operators(error):
        return DAMAGED if isinstance(error, Damaged) else MISCONFIGURED
    code, fields = type(error).__name__, as_json(error.fields)
    for kind, status, title in _STATUS:
        if isinstance(error, kind):
            return Problem(code, status, title, error.reason, error.remedy, fields)
    return UNEXPECTED
