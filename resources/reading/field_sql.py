"""Where each field of an event stands in a file's columns, as SQL for DuckDB.

The SQL holds names that the operator or the file's writer chose, each quoted, and constants of the shape; no value of
a row ever stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import cast

from duckdb.sqltypes import DuckDBPyType

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.event_shape import PLAIN, ActiveWhen, EventShape, Field, FieldName
from dpdau_assets.core.events import calendar_day
from resources.reading.event_sql import Types, id_text
from resources.reading.presets import looks_like
from resources.reading.sql_text import identifier, is_json, literal

JSON, VARCHAR, DATE = DuckDBPyType("JSON"), DuckDBPyType("VARCHAR"), DuckDBPyType("DATE")

_DAY_FOLDERS = ("day", "dt", "date", "event_date")
_NEEDED_EXACTLY: tuple[FieldName, ...] = ("op", "metadata", "metadata.days")
_COMPACT_DAY = re.compile("([0-9]{4})([0-9]{2})([0-9]{2})")
_LARGE_INTEGERS = {"integer", "bigint", "hugeint", "uinteger", "ubigint", "uhugeint"}
_LOCAL_TIMES = {"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"}
_CLOSE = 0.85


@dataclass(frozen=True)
class Columns:
    """What is known of a file's columns before its rows are read.

    `folder_values` are the partitions `name=value` in its path. Of a sample (JSON), other rows may hold more columns:
    one that is asked for and was not seen is taken for there, of type JSON.
    """

    file: str
    types: Types
    folder_values: Mapping[str, str] = field(default_factory=dict)
    is_sample: bool = False


@dataclass(frozen=True)
class Place:
    """A value in a row: the top-level column, the names inside of it, and the value as SQL with its type.

    `is_seen` is False for a column that a sample did not show.
    """

    column: str
    inside: tuple[str, ...]
    sql: str
    type: DuckDBPyType
    is_seen: bool = True


@dataclass(frozen=True)
class FieldSql:
    """One field of an event: the SQL expression and its type, and the places it is made of, in their order."""

    sql: str
    type: DuckDBPyType
    places: tuple[Place, ...] = ()


@dataclass(frozen=True)
class EventFields:
    """All that a file's rows say of events.

    `needed` are the columns to read, by their exact names; `fields` has those that are there; `active` is a boolean
    that is never null, and None where every row counts; `folder_day` is the day by the file's path, YYYY-MM-DD.
    """

    needed: tuple[str, ...]
    fields: Mapping[FieldName, FieldSql]
    active: FieldSql | None = None
    folder_day: str | None = None

    def all_made(self) -> list[FieldSql]:
        """Each field, and what says whether a row is activity."""
        return [*self.fields.values(), *([self.active] if self.active else [])]


def event_fields(shape: EventShape, columns: Columns) -> EventFields:
    """Make out where each field stands.

    Raises BadInput if no event can be read from such columns, if a name fits several columns, or if a column is there
    that may be meant and would be passed over.
    """
    fields: dict[FieldName, FieldSql] = {}
    fields |= {name: made for name, where in shape.fields.items() if (made := _field_sql(name, where, columns))}
    folder_day = _day_of_path(shape, columns.folder_values)
    if folder_day:
        fields["day"] = _with_folder_day(fields.get("day"), fields.get("ts"), fields.get("op"), folder_day)
    _require(shape, columns, fields)
    active = _active(shape.active_when, columns) if shape.active_when else None
    used = [place for made in (*fields.values(), *([active] if active else [])) for place in made.places]
    return EventFields(tuple(dict.fromkeys(place.column for place in used)), fields, active, folder_day)


def require_distinct(names: Sequence[str], shape: EventShape, file: str) -> None:
    """Raise BadInput if a column that the shape asks for stands there twice.

    Tell it the names as they stand in the file: DuckDB gives the second one another name.
    """
    wanted = {_plain(name) for name in _wanted_names(shape)}
    twice = sorted({name for name in names if _plain(name) in wanted and names.count(name) > 1})
    if twice:
        raise BadInput(
            f"{file} has the column {twice[0]} more than once.", "Write it with one column of that name.", path=file
        )


def remedy_for(names: Sequence[str]) -> str:
    """What to do where a file's columns are not those of the shape; it names no column of the file."""
    preset = looks_like(names)
    if preset:
        return f"These look like {preset.title}'s: add --preset {preset.name}."
    return (
        "It must name user_id and day or ts, each once; a CSV does so in its first line. If they are called otherwise, "
        "say so: --columns user_id=NAME,ts=NAME, or --preset NAME for a vendor's export."
    )


def _field_sql(name: FieldName, where: Field, columns: Columns) -> FieldSql | None:
    places = _all_places(where, columns)
    if not places and where.constant is None:
        return None
    if len(places) == 1 and where.constant is None:
        return FieldSql(places[0].sql, places[0].type, places)
    if name == "user_id":
        return FieldSql(_first(places, [id_text(place.sql, place.type) for place in places], None), VARCHAR, places)
    if len({str(place.type) for place in places}) == 1 and where.constant is None:
        return FieldSql(_first(places, [place.sql for place in places], None), places[0].type, places)
    constant = None if where.constant is None else literal(where.constant)
    return FieldSql(_first(places, [_text(place.sql, place.type) for place in places], constant), VARCHAR, places)


def _first(places: Sequence[Place], values: Sequence[str], constant: str | None) -> str:
    """The first value whose place holds one, else the constant.

    Not coalesce: a value that is there and cannot be used must not give way to the next, which is somebody else's.
    """
    if not places:
        return constant or "NULL"
    cases = " ".join(f"WHEN {_holds(place)} THEN {value}" for place, value in zip(places, values, strict=True))
    return f"CASE {cases} ELSE {constant or 'NULL'} END"


def _holds(place: FieldSql | Place) -> str:
    """Whether a value stands there: null and the empty text are none."""
    if is_json(place.type):
        return f"({place.sql})::VARCHAR NOT IN ('null', '\"\"')"
    if place.type.id in ("varchar", "enum"):
        return f"({place.sql})::VARCHAR <> ''"
    return f"octet_length({place.sql}) > 0" if place.type.id == "blob" else f"({place.sql}) IS NOT NULL"


def _text(value: str, kind: DuckDBPyType) -> str:
    """A value as text that the rules read as they read the value itself."""
    if is_json(kind):
        return f"json_extract_string({value}, '$')"
    if kind.id == "blob":
        return f"try(decode({value}))"
    if kind.id in ("struct", "list", "map", "array"):
        return f"to_json({value})::VARCHAR"
    if kind.id in ("float", "double"):
        whole = f"CASE WHEN {value} = floor({value}) THEN try_cast({value} AS HUGEINT)::VARCHAR END"
        return f"coalesce({whole}, ({value})::VARCHAR)"
    return f"({value})::VARCHAR"


def _all_places(where: Field, columns: Columns) -> tuple[Place, ...]:
    """The places of all its paths that are there, each once."""
    places = [place for path in where.paths for place in _places(path, columns)]
    return tuple({place.sql: place for place in places}.values())


def _places(path: tuple[str, ...], columns: Columns) -> Iterator[Place]:
    """The place that a path names, if it is there: a column of that very name comes before one with names inside."""
    for length in range(len(path), 0, -1):
        column = _match(".".join(path[:length]), columns.types, columns.file)
        found = (
            None if column is None else _inside(identifier(column), columns.types[column], path[length:], columns.file)
        )
        if column is not None and found is not None:
            yield Place(column, path[length:], *found)
            return
    if columns.is_sample:
        sql, kind = _in_json(identifier(path[0]), path[1:]) if path[1:] else identifier(path[0]), JSON
        yield Place(path[0], path[1:], sql, kind, is_seen=False)


def _inside(value: str, kind: DuckDBPyType, path: tuple[str, ...], file: str) -> tuple[str, DuckDBPyType] | None:
    """What stands under these names inside a value, and its type; None where no such thing can be."""
    if not path:
        return value, kind
    if kind.id == "struct":
        return _in_struct(value, dict(cast("list[tuple[str, DuckDBPyType]]", kind.children)), path, file)
    if is_json(kind):
        return _in_json(value, path), JSON
    return (_in_json(f"try_cast({value} AS JSON)", path), JSON) if kind.id == "varchar" else None


def _in_struct(value: str, children: Types, path: tuple[str, ...], file: str) -> tuple[str, DuckDBPyType] | None:
    for length in range(len(path), 0, -1):
        name = _match(".".join(path[:length]), children, file)
        if name is not None:
            found = _inside(f"struct_extract({value}, {literal(name)})", children[name], path[length:], file)
            if found is not None:
                return found
    return None


def _in_json(value: str, path: tuple[str, ...]) -> str:
    """The JSON value under these keys; null where there is none, or a JSON null."""
    if any(key.isdigit() for key in path):  # a pointer would take a number for a place in an array
        for key in path:
            value = f"json_extract({value}, {literal(_json_path(key) if key.isdigit() else _json_pointer(key))})"
    else:
        value = f"json_extract({value}, {literal(''.join(map(_json_pointer, path)))})"
    return f"nullif({value}, 'null'::JSON)"


def _json_path(key: str) -> str:
    return f'$."{key}"'


def _json_pointer(key: str) -> str:
    """One step of a JSON pointer: unlike a JSON path it has no wildcards, and may be empty."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _match(wanted: str, names: Mapping[str, object], file: str) -> str | None:
    """The name that is meant: the very same, else the only one that is equal but for case and space around it."""
    if wanted in names:
        return wanted if wanted else None
    alike = [name for name in names if name and _plain(name) == _plain(wanted)]
    if len(alike) > 1:
        raise BadInput(
            f"{file} has no column {wanted}, and several that are almost called so: {', '.join(sorted(alike))}.",
            "Name the one that is meant exactly, with --columns.",
            path=file,
        )
    return alike[0] if alike else None


def _plain(name: str) -> str:
    return name.strip().casefold()


def _day_of_path(shape: EventShape, folder_values: Mapping[str, str]) -> str | None:
    """The day that the file's path gives, YYYY-MM-DD: the first real date among the folders that are called so."""
    where = shape.fields.get("day", Field())
    for name in (*(".".join(path) for path in where.paths), *_DAY_FOLDERS):
        written = _COMPACT_DAY.sub(r"\1-\2-\3", folder_values.get(name, ""))
        if calendar_day(written) is not None:
            return written
    return None


def _with_folder_day(day: FieldSql | None, ts: FieldSql | None, op: FieldSql | None, folder_day: str) -> FieldSql:
    """The row's own day, else nothing where it has a time, else the folder's day.

    A '-' row without a day gets none either: what it asks for must not shrink to the day on which it was written down.
    """
    timed = f"WHEN {_holds(ts)} THEN NULL" if ts else ""
    timed += f" WHEN {_text(op.sql, op.type)} = '-' THEN NULL" if op else ""
    if day is None:
        constant = f"DATE '{folder_day}'"
        return FieldSql(f"CASE {timed} ELSE {constant} END" if timed else constant, DATE, ())
    value, kind, constant = day.sql, day.type, f"DATE '{folder_day}'"
    if is_json(kind):
        constant = f"'\"{folder_day}\"'::JSON"
    elif kind.id in _LARGE_INTEGERS:
        constant = f"{folder_day.replace('-', '')}::{kind}"
    elif kind.id in _LOCAL_TIMES:
        constant = f"{constant}::{kind}"
    elif kind.id != "date":
        value, kind, constant = _text(value, kind), VARCHAR, f"'{folder_day}'"
    own = f"WHEN {_holds(day)} THEN {value}"
    return FieldSql(f"CASE {own} {timed} ELSE {constant} END", kind, day.places)


def _active(active_when: ActiveWhen, columns: Columns) -> FieldSql:
    """Whether a row's field has, or has none of, the values. Raises BadInput if there is no such field."""
    where, wanted = active_when.field, active_when.values
    places = _all_places(where, columns)
    constant = where.constant
    for path in where.paths if not places else ():
        constant = columns.folder_values.get(".".join(path), constant)
    if not places and constant is None:
        raise BadInput(
            f"{columns.file} has no column {' or '.join('.'.join(path) for path in where.paths)}, which says what is "
            "activity.",
            "Correct active_when, or take this file in without it.",
            path=columns.file,
        )
    if not places:
        return FieldSql("true" if (constant in wanted) == active_when.are_active else "false", DuckDBPyType("BOOLEAN"))
    given = _first(places, [_text(place.sql, place.type) for place in places], constant and literal(constant))
    has_one = f"coalesce(({given}) IN ({', '.join(map(literal, sorted(wanted)))}), false)"
    return FieldSql(has_one if active_when.are_active else f"NOT {has_one}", DuckDBPyType("BOOLEAN"), places)


def _require(shape: EventShape, columns: Columns, fields: Mapping[FieldName, FieldSql]) -> None:
    """Raise BadInput for columns of which no event can be made, or of which one may be meant that is not read.

    It tells known names only: where the header is missing, people stand there.
    """
    names, wanted = list(columns.types), {_plain(name) for name in _wanted_names(shape)}
    if "user_id" not in fields or not ("day" in fields or "ts" in fields):
        known = ", ".join(name for name in names if _plain(name) in wanted)
        raise BadInput(
            f"{columns.file} has {len(names)} column(s), of which known: {known or 'none'}.",
            remedy_for(names),
            path=columns.file,
        )
    for name, where in shape.fields.items():
        if name not in fields and where != PLAIN.fields[name]:
            raise BadInput(
                f"{columns.file} has no column {' or '.join('.'.join(path) for path in where.paths)}, which is to be "
                f"{name}.",
                "Correct the columns that are named, or the file.",
                path=columns.file,
            )
    for meant in _NEEDED_EXACTLY if not columns.is_sample else ():
        almost = [name for name in names if _is_almost(name, meant)]
        if almost and meant not in fields and shape.fields.get(meant) == PLAIN.fields[meant]:
            raise BadInput(
                f"{columns.file} has the column {almost[0]}, and none that is called {meant}.",
                f"Name it {meant}, or otherwise if it is something else: what it says would be passed over.",
                path=columns.file,
            )


def _wanted_names(shape: EventShape) -> frozenset[str]:
    """Every name that a column may have for a path of the shape: the first of its names, or several with dots."""
    paths = [path for where in shape.fields.values() for path in where.paths]
    return frozenset(".".join(path[:length]) for path in paths for length in range(1, len(path) + 1))


def _is_almost(name: str, meant: str) -> bool:
    """Whether a long name is equal but for a letter or two."""
    return meant == "metadata.days" and bool(get_close_matches(_plain(name), [meant], 1, _CLOSE))
