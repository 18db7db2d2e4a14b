"""The bodies of POSTs as the OpenAPI document describes them; they are read by `bodies`, without a model."""

from __future__ import annotations

from typing import Any

from dpdau_assets.api.bodies import JSON, MOST_ROWS, NDJSON
from dpdau_assets.core.publication.arrivals import LONGEST_ID

Schema = dict[str, Any]

_DAY: Schema = {"type": "string", "format": "date", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
_USER_ID: Schema = {
    "type": ["string", "integer"],
    "minLength": 1,
    "maxLength": LONGEST_ID,
    "description": 'Who; 101 and "101" are one person. It is turned into a key at once, and never written.',
}
_DAYS: Schema = {"type": ["array", "null"], "items": _DAY, "minItems": 1}
_DAY_OR_NONE: Schema = {**_DAY, "type": ["string", "null"]}

EVENT: Schema = {
    "title": "Event",
    "type": "object",
    "required": ["user_id"],
    "properties": {
        "user_id": _USER_ID,
        "op": {
            "enum": ["+", "-", None],
            "default": "+",
            "description": "`-` asks for an erasure: of the days through `day`, or of those in `metadata.days`.",
        },
        "day": {**_DAY_OR_NONE, "description": "The day; or `ts`."},
        "ts": {
            "type": ["string", "number", "null"],
            "description": "An ISO 8601 or Unix time; its day follows in TIMEZONE. Not read beside `day`.",
        },
        "metadata": {
            "type": ["object", "null"],
            "properties": {"days": {**_DAYS, "description": "With `-`: just these days."}},
            "additionalProperties": True,
        },
    },
    "additionalProperties": True,
    "examples": [{"user_id": "u1", "op": "+", "day": "2025-10-01"}],
}

ERASURE: Schema = {
    "title": "ErasureRequestBody",
    "type": "object",
    "required": ["user_id"],
    "properties": {
        "user_id": _USER_ID,
        "through": {**_DAY_OR_NONE, "description": "The last day to erase; without, tomorrow, the last there can be."},
        "days": {**_DAYS, "description": "Just these days; not beside `through`."},
        "reference": {
            "type": ["string", "null"],
            "pattern": "^[A-Za-z0-9._-]{1,64}$",
            "description": "What whoever asks calls it, such as a ticket. It must name nobody.",
        },
    },
    "additionalProperties": True,
    "examples": [{"user_id": "u1", "through": "2025-10-01", "reference": "ticket-17"}],
}


def _many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1, "maxItems": MOST_ROWS}


def _object(name: str, schema: Schema) -> Schema:
    return {"type": "object", "required": [name], "properties": {name: schema}}


def _body(schema: Schema, lines: str) -> Schema:
    described = {"type": "string", "description": lines}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}, NDJSON: {"schema": described}}}}


EVENT_BODY = _body(
    {"title": "EventBody", "oneOf": [_object("event", EVENT), _object("events", _many(EVENT))]},
    "One event a line, each a JSON object.",
)
ERASURE_BODY = _body(
    {
        "title": "ErasureBody",
        "anyOf": [ERASURE, _many(ERASURE), _object("erasure", ERASURE), _object("erasures", _many(ERASURE))],
    },
    "One erasure request a line, each a JSON object.",
)

_RECEIPT = {"receipt": "$response.body#/receipts/0"}
ERASURE_LINKS: Schema = {
    "receipt": {"operationId": "getErasure", "parameters": _RECEIPT},
    "confirm": {"operationId": "confirmErasure", "parameters": _RECEIPT},
    "cancel": {"operationId": "cancelErasure", "parameters": _RECEIPT},
}
"""What a client does next with the first receipt of an answer."""
