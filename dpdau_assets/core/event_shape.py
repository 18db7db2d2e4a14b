"""How the rows of somebody's files say who did something and when: where each field stands, and what is activity.

Plain rows, with the fields that docs/data.md names, have the shape `PLAIN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal
from zoneinfo import ZoneInfo

FieldName = Literal["user_id", "op", "day", "ts", "metadata", "metadata.days"]
FIELDS: tuple[FieldName, ...] = ("user_id", "op", "day", "ts", "metadata", "metadata.days")
UnixUnit = Literal["s", "ms", "us", "ns"]


@dataclass(frozen=True)
class Field:
    """Where a value stands in a row: at the first of `paths` that holds one, else it is `constant`.

    A path is a column's name, and the names inside of it from the outermost inwards. Null and the empty text are no
    values. A field with one path and no constant is what stands there, whatever it is.
    """

    paths: tuple[tuple[str, ...], ...] = ()
    constant: str | None = None


@dataclass(frozen=True)
class ActiveWhen:
    """Which '+' rows are activity: those whose field has one of the values, or those whose field has none of them."""

    field: Field
    values: frozenset[str]
    are_active: bool = True


@dataclass(frozen=True)
class EventShape:
    """Where the fields of an event stand. `unit` is that of Unix times, None to tell it by their size; `naive_zone` is
    the zone of times without one, None for the store's NAIVE_ZONE.
    """

    fields: Mapping[FieldName, Field] = field(
        default_factory=lambda: MappingProxyType({name: Field(((name,),)) for name in FIELDS})
    )
    active_when: ActiveWhen | None = None
    unit: UnixUnit | None = None
    naive_zone: ZoneInfo | None = None


PLAIN = EventShape()
