"""What a POST carries: bytes, unpacked, and the JSON values in them. Nothing of a body is ever repeated in an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from anyio import CapacityLimiter
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from dpdau_assets.api.bounds import MOST_UNPACKED, unpacked
from dpdau_assets.api.problems import Problem, ProblemRaised, invalid

JSON = "application/json"
NDJSON = "application/x-ndjson"
_LINES = (NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines")
MOST_ROWS = 10_000
"""Events, or erasure requests, of one POST."""

UNSUPPORTED = Problem(
    "UnsupportedMediaType",
    415,
    "Unsupported media type",
    "The body is said to be of a media type that is not read here.",
    f"Send {JSON}, or one JSON object a line as {NDJSON}, in UTF-8; packed by gzip or not.",
)
_NOT_JSON = "is JSON in UTF-8, without NaN, and not nested deeper than a few hundred times"
_unpacking = CapacityLimiter(2)
_decode = msgspec.json.Decoder().decode


async def body_of(request: Request) -> bytes:
    """The whole body, unpacked: beside other requests, and few at once. Raises the problem that it is where it cannot
    be.
    """
    body, encoding = await request.body(), request.headers.get("content-encoding")
    if encoding is None:
        return body
    async with _unpacking:
        return await run_in_threadpool(unpacked, body, encoding, MOST_UNPACKED)


def values_of(
    body: bytes, content_type: str | None, one: str, many: str, *, bare: str | None = None
) -> Sequence[object]:
    """The JSON values that a body brings: `{one: value}`, `{many: [value, ...]}`, or a value a line.

    With `bare`, the name of a field that every value has, also a value or a list of them by itself. A line that is no
    JSON is None, so that it is one bad row among the others. Raises a problem for any other body.
    """
    kind = _media_type(content_type)
    if kind in _LINES:
        return _counted([_line(line) for line in body.split(b"\n") if line.strip()], many)
    if kind != JSON:
        raise ProblemRaised(UNSUPPORTED)
    value = _decoded(body)
    if bare is not None and isinstance(value, list):
        value = {many: value}
    elif bare is not None and isinstance(value, dict) and bare in value:
        value = {one: value}
    return _counted(_members(value, one, many), many)


def _decoded(body: bytes) -> Any:
    """The one JSON value of a body."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise ProblemRaised(invalid("body", f"the body {_NOT_JSON}")) from None


def _media_type(content_type: str | None) -> str:
    """In lower case and without parameters; "" for one that names another charset than UTF-8."""
    kind, _, parameters = (content_type or "").lower().partition(";")
    charset = [
        value.strip(' "')
        for name, _, value in (each.partition("=") for each in parameters.split(";"))
        if name.strip() == "charset"
    ]
    return "" if any(value not in ("utf-8", "utf8") for value in charset) else kind.strip()


def _members(value: Any, one: str, many: str) -> list[object]:
    rule = f'the body is {{"{one}": {{...}}}} or {{"{many}": [...]}}'
    if not isinstance(value, dict) or (one in value) == (many in value):
        raise ProblemRaised(invalid("body", rule))
    if one in value:
        return [value[one]]
    if not isinstance(value[many], list):
        raise ProblemRaised(invalid(many, rule))
    return value[many]


def _counted(values: list[object], many: str) -> list[object]:
    if not values:
        raise ProblemRaised(invalid(many, "there is at least one"))
    if len(values) > MOST_ROWS:
        raise ProblemRaised(invalid(many, f"one request has at most {MOST_ROWS}"))
    return values


def _line(line: bytes) -> object:
    try:
        return _decode(line)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
