"""The rules of `core.events` as SQL for DuckDB: what a column says by its type, and which reason a row gets.

All text here is built from known column names, types and constants; no data and no secret ever stands in it.
A source is what follows FROM: it has `file` (int), `line` (bigint), perhaps `broken` (bool), and columns of an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from typing import cast

from duckdb.sqltypes import DuckDBPyType

from dpdau_assets.core import events
from dpdau_assets.core.dates import day_number
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import Limits, local_offset

Types = Mapping[str, DuckDBPyType]

USER_KEY = "('0x' || substr(sha256(? || unhex(sha256(? || encode(user_id)))), 1, 16))::UBIGINT"
"""`identity.user_key` of the column user_id; parameters: the outer and the inner key block of HMAC.

`encode` and not `::BLOB`: the cast takes a backslash in an id for an escape, and refuses what is not ASCII.
"""

BROKEN_RULES = {
    events.UNPARSABLE: "broken",
    events.NO_USER: "coalesce(user_id, '') = ''",
    events.BAD_OP: "op NOT IN ('+', '-')",
    events.BAD_DAY: "has_day AND day IS NULL",
    events.BAD_TS: "has_ts AND day IS NULL",
    events.NO_DAY: "op <> '-' AND day IS NULL",
    events.TOO_EARLY: "op <> '-' AND day < {first}",
    events.TOO_LATE: "day > {last}",
    events.BAD_LIST: "len(listed) = 0 OR len(list_filter(listed, lambda d: d IS NULL)) > 0",
    events.LIST_TOO_LATE: "list_max(listed) > {last}",
}

_NUMBERS = {"tinyint", "smallint", "integer", "bigint", "hugeint", "float", "double", "decimal"}
_NUMBERS |= {"utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"}
_LOCAL_TIMES = {"date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"}
_ZONED_TIMES = {"timestamp with time zone", "timestamptz_ns"}
_DAYS_UP = 200_000  # added before a division and taken off after it: `//` rounds towards zero, a day begins below


def judged(source: str, types: Types, limits: Limits) -> str:
    """A query for (file, line, user_id, op, day, listed, second, code), one row a row of `source`.

    `op` is never null in a valid row; `listed` are the days of a '-' row that lists some; `code` is 0 for a valid
    row, else the place of its reason in `events.REASONS`, counted from 1. Of a '-' row whose day follows from a moment,
    `second` is its Unix second: the zone's clock changes before the limits are not in this query, and only such a row
    may lie there.
    """
    first, last = (f"DATE '{day.isoformat()}'" for day in (limits.first, limits.last))
    cases = " ".join(
        f"WHEN {BROKEN_RULES[reason].format(first=first, last=last)} THEN {code}"
        for code, reason in enumerate(events.REASONS, start=1)
    )
    return f"""
        SELECT file, line, user_id, op, listed, CASE WHEN op = '-' AND listed IS NULL THEN second END AS second,
            CASE WHEN op = '-' THEN coalesce(list_max(listed), day, {last}) ELSE day END AS day,
            (CASE {cases} ELSE 0 END)::UTINYINT AS code
        FROM ({_fields(source, types, limits)})"""


def json_rows(lines: str) -> str:
    """A source from raw lines (file, line, raw); blank ones are no rows.

    Sound are plain objects in which no name stands twice, and neither in their metadata.
    """
    return f"""(
        SELECT file, line, doc IS NULL AS broken, CASE WHEN types[1] = 'VARCHAR' THEN texts[1] END AS user_id,
            texts[2] AS op, texts[3] AS day, texts[4] AS ts,
            CASE WHEN texts[2] = '-' THEN json_extract(doc, '$.metadata') END AS metadata
        FROM (SELECT *, json_extract_string(doc, ['$.user_id', '$.op', '$.day', '$.ts']) AS texts,
                json_type(doc, ['$.user_id']) AS types
            FROM (SELECT file, line, CASE WHEN {_is_plain_object("parsed")} THEN parsed END AS doc
                FROM (SELECT file, line, try_cast(raw AS JSON) AS parsed FROM {lines}
                    WHERE raw IS NULL OR NOT regexp_full_match(raw, '[ \t\r\n]*')))))"""


def require_types(types: Types, path: str) -> None:
    """Raise BadInput unless an event can be read from columns of these types."""
    times = _NUMBERS | _LOCAL_TIMES | _ZONED_TIMES
    for name, kinds, wanted in (("user_id", set(), "VARCHAR"), ("day", {"date"}, "DATE"), ("ts", times, "TIMESTAMPTZ")):
        if name in types and types[name].id not in {"varchar", "null", *kinds}:
            raise BadInput(
                f"The column {name} of {path} has the type {types[name].id}.",
                f"Write the file again with CAST({name} AS {wanted}).",
                path=path,
                column=name,
            )


def _fields(source: str, types: Types, limits: Limits) -> str:
    """The event's fields made out, whatever types they come in."""
    return f"""
        SELECT file, line, broken, user_id, op, has_day, has_ts, listed,
            CASE WHEN has_day THEN day WHEN has_ts THEN coalesce(local_day, {_day_of("second", limits)}) END AS day,
            CASE WHEN NOT has_day AND local_day IS NULL THEN second END AS second
        FROM (SELECT file, line, {"broken" if "broken" in types else "false"} AS broken, user_id::VARCHAR AS user_id,
            coalesce({_column("op", types)}::VARCHAR, '+') AS op, {_given("day", types)} AS has_day,
            {_given("ts", types)} AS has_ts, {_date(_column("day", types), types.get("day"))} AS day, local_day, second,
            CASE WHEN {_column("op", types)}::VARCHAR = '-' THEN {_listed(types)} END AS listed
            FROM {_with_moment(source, types)})"""


def _column(name: str, types: Types) -> str:
    return f'"{name}"' if name in types else "NULL"


def _given(name: str, types: Types) -> str:
    return f"{_column(name, types)} IS NOT NULL"


def _date(value: str, kind: DuckDBPyType | None) -> str:
    """A value as DATE: null where it is no real date written YYYY-MM-DD."""
    if kind is None or kind.id in ("date", "null"):
        return f"{value}::DATE"
    text = f"({value})::VARCHAR"
    matches = f"regexp_full_match({text}, '{events.DATE_PATTERN}') AND {text} >= '0001'"
    return f"CASE WHEN {matches} THEN try_cast({text} AS DATE) END"


def _with_moment(source: str, types: Types) -> str:
    """The source with the column ts made out as local_day or as second (Unix); at most one of them is not null."""
    kind = types["ts"].id if "ts" in types else "null"
    if kind == "varchar":
        return _with_moment_of_text(source)
    local_day, second = "NULL::DATE", "NULL::BIGINT"
    if kind in _LOCAL_TIMES:
        local_day = "try_cast(ts AS DATE)"
    elif kind in _ZONED_TIMES:
        second = "try_cast(floor(epoch(ts::TIMESTAMPTZ)) AS BIGINT)"
    elif kind in _NUMBERS:
        second = "try_cast(floor(ts) AS BIGINT)"
    return f"(SELECT *, {local_day} AS local_day, {second} AS second FROM {source})"


def _with_moment_of_text(source: str) -> str:
    """In layers, so that each row is matched once; what matches is then read by place, as in 2025-02-01T10:30:59Z."""
    below = r"CASE WHEN regexp_full_match(ts, '-[0-9]+\.0*[1-9].*') THEN 1 ELSE 0 END"
    return f"""(
        SELECT *, CASE WHEN is_iso AND ahead IS NULL THEN iso_day END AS local_day,
            CASE WHEN is_unix THEN {_number("split_part(ts, '.', 1)")} - {below}
                WHEN is_iso THEN (iso_day - DATE '1970-01-01') * 86400 + iso_second - ahead END AS second
        FROM (SELECT *, CASE WHEN is_iso AND ts >= '0001' THEN try_cast(substr(ts, 1, 10) AS DATE) END AS iso_day,
                {_number("substr(ts, 12, 2)")} * 3600 + {_number("substr(ts, 15, 2)")} * 60
                    + CASE WHEN after_minutes LIKE ':%' THEN {_number("substr(after_minutes, 2, 2)")} ELSE 0 END
                    AS iso_second,
                CASE WHEN after_minutes LIKE '%Z' THEN 0
                    WHEN contains(after_minutes, '+') THEN {_offset_of_text("split_part(after_minutes, '+', 2)")}
                    WHEN contains(after_minutes, '-') THEN -{_offset_of_text("split_part(after_minutes, '-', 2)")}
                    END AS ahead
            FROM (SELECT *, regexp_full_match(ts, '{events.UNIX_PATTERN}') AS is_unix,
                    regexp_full_match(ts, '{events.ISO_PATTERN}') AS is_iso, substr(ts, 17) AS after_minutes
                FROM {source})))"""


def _offset_of_text(text: str) -> str:
    """HH, HHMM or HH:MM in seconds."""
    digits = f"replace({text}, ':', '')"
    return f"({_number(f'substr({digits}, 1, 2)')} * 3600 + {_number(f'substr({digits}, 3, 2)')} * 60)"


def _number(text: str) -> str:
    return f"coalesce(try_cast({text} AS BIGINT), 0)"


def _day_of(second: str, limits: Limits) -> str:
    """The day of a Unix second in the limits' zone; null when it is further from 1970 than a moment may be."""
    near = f"{second} > -{events.MOMENT_LIMIT} AND {second} < {events.MOMENT_LIMIT}"
    seconds = f"({second} + {_offset(second, limits)} + {_DAYS_UP * 86400})"
    return f"CASE WHEN {near} THEN DATE '1970-01-01' + ({seconds} // 86400 - {_DAYS_UP})::INTEGER END"


def _offset(second: str, limits: Limits) -> str:
    changes = list(_offset_changes(limits))
    cases = " ".join(f"WHEN {second} < {until} THEN {offset}" for until, offset in changes[:-1])
    return f"CASE {cases} ELSE {changes[-1][1]} END" if cases else str(changes[-1][1])


def _offset_changes(limits: Limits) -> Iterator[tuple[int, int]]:
    """(first second from which it no longer holds, offset) of each stretch of one offset, in order.

    By Python's zone data, as in the reference: DuckDB brings its own, which may be of another year, and is slower.
    """
    days = range(day_number(limits.first - timedelta(days=2)), day_number(limits.last + timedelta(days=3)) + 1)
    for before, after in pairwise(day * 86400 for day in days):
        old, new = local_offset(before, limits.zone), local_offset(after, limits.zone)
        while old != new and after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if local_offset(middle, limits.zone) == old else (before, middle)
        if old != new:
            yield after, old
    yield days[-1] * 86400, local_offset(days[-1] * 86400, limits.zone)


def _listed(types: Types) -> str:
    """The days of metadata.days as a DATE list; empty when something stands there that is no list of days."""
    lists = []
    if "metadata.days" in types:
        lists.append(_dates('"metadata.days"', types["metadata.days"]))
    if "metadata" in types:
        lists.append(_listed_in_metadata(types["metadata"]))
    return f"coalesce({', '.join([*lists, 'NULL::DATE[]'])})"


def _listed_in_metadata(kind: DuckDBPyType) -> str:
    if kind.id == "struct":
        days = _child(kind, "days")
        return _dates('"metadata"."days"', days) if days else "NULL::DATE[]"
    if kind.id != "varchar":
        return _unusable('"metadata"')
    metadata = "try_cast(metadata AS JSON)"
    days = f"json_extract({metadata}, '$.days')"
    return f"""CASE WHEN metadata IS NULL OR json_type({metadata}) = 'NULL' THEN NULL
        WHEN coalesce(json_type({metadata}), '') <> 'OBJECT' THEN []::DATE[]
        WHEN coalesce(json_type({days}), 'NULL') = 'NULL' THEN NULL ELSE {_json_dates(days)} END"""


def _dates(value: str, kind: DuckDBPyType) -> str:
    """A value as a DATE list: a list of anything, or text: a JSON list, or dates separated by ';'."""
    if kind.id == "list":
        return f"list_transform({value}, lambda d: {_date('d', _child(kind, 'child'))})"
    if kind.id != "varchar":
        return _unusable(value)
    split = f"list_transform(string_split({value}, ';'), lambda d: {_date('trim(d)', DuckDBPyType('VARCHAR'))})"
    return f"""CASE WHEN {value} LIKE '[%' THEN {_json_dates(f"try_cast({value} AS JSON)")} ELSE {split} END"""


def _json_dates(value: str) -> str:
    """A JSON array as a DATE list; empty for anything else."""
    date = _date("d", DuckDBPyType("VARCHAR"))
    return f"coalesce(list_transform(json_extract_string({value}, '$[*]'), lambda d: {date}), []::DATE[])"


def _child(kind: DuckDBPyType, name: str) -> DuckDBPyType | None:
    """The type inside a struct or a list."""
    return cast("dict[str, DuckDBPyType]", dict(kind.children)).get(name)


def _unusable(value: str) -> str:
    return f"CASE WHEN {value} IS NOT NULL THEN []::DATE[] END"


def _is_plain_object(parsed: str) -> str:
    names = f"json_keys({parsed}, ['$', '$.metadata'])"
    return f"json_type({parsed}) = 'OBJECT' AND len(list_filter({names}, lambda k: list_unique(k) < len(k))) = 0"
