"""The rules of `core.events` as SQL for DuckDB: what a column says by its type, and which reason a row gets.

All text here is built from known column names, types and constants; no data and no secret ever stands in it.
A source is what follows FROM: it has `file` (int), `line` (bigint), perhaps `broken` (bool), and columns of an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import cast
from zoneinfo import ZoneInfo

from duckdb.sqltypes import DuckDBPyType

from dpdau_assets.core import events
from dpdau_assets.core.dates import day_number
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import UNITS, Limits, local_offset
from dpdau_assets.core.user_ids import EXACT_BELOW, EXACT_BELOW_SINGLE, WHITE_SPACE
from resources.reading.sql_text import is_json

Types = Mapping[str, DuckDBPyType]

USER_KEY = "('0x' || substr(sha256(? || unhex(sha256(? || encode(user_id)))), 1, 16))::UBIGINT"
"""`identity.user_key` of the column user_id; parameters: the outer and the inner key block of HMAC.

`encode` and not `::BLOB`: the cast takes a backslash in an id for an escape, and refuses what is not ASCII.
"""

BROKEN_RULES = {
    events.UNPARSABLE: "broken",
    events.NO_USER: "coalesce({spelled}, '') = ''",
    events.BAD_OP: "op NOT IN ('+', '-')",
    events.BAD_DAY: "has_day AND day IS NULL",
    events.BAD_TS: "has_ts AND day IS NULL",
    events.NO_DAY: "op <> '-' AND day IS NULL",
    events.TOO_EARLY: "op <> '-' AND day < {first}",
    events.TOO_LATE: "day > {last}",
    events.BAD_LIST: "len(listed) = 0 OR len(list_filter(listed, lambda d: d IS NULL)) > 0",
    events.LIST_TOO_LATE: "list_max(listed) > {last}",
}

_INTEGERS = {"tinyint", "smallint", "integer", "bigint", "hugeint"}
_INTEGERS |= {"utinyint", "usmallint", "uinteger", "ubigint", "uhugeint", "bignum"}
_FLOATS = {"float": EXACT_BELOW_SINGLE, "double": EXACT_BELOW}
_NUMBERS = _INTEGERS | {*_FLOATS, "decimal"}
_NAIVE_TIMES = {"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"}
_ZONED_TIMES = {"timestamp with time zone", "timestamptz_ns"}
_TEXTS = {"varchar", "blob", "enum", "null"}
_FIELDS_OF_TEXT = ("op", "day", "ts", "metadata", "metadata.days")
_VARCHAR = DuckDBPyType("VARCHAR")
_DAYS_UP = 200_000  # added before a division and taken off after it: `//` rounds towards zero, a day begins below
_DAY = 86400
_UNREADABLE = "'[]'"
_FIRST_ZONES = date(1840, 1, 1)
"""Before any zone's first clock change."""


IDLE = 255
"""The code of a row that is no activity: one that is neither broken nor '-', and whose source says so."""


def judged(source: str, types: Types, limits: Limits) -> str:
    """A query for (file, line, user_id, op, day, listed, second, code), one row a row of `source`.

    A source may have a column `active`, a boolean that is never null: '+' rows without it get the code IDLE.

    `op` is never null in a valid row; `listed` are the days of a '-' row that lists some; `code` is 0 for a valid
    row, else the place of its reason in `events.REASONS`, counted from 1. Of a '-' row whose day follows from a moment,
    `second` is its Unix second: the zone's clock changes before the limits are not in this query, and only such a row
    may lie there. `user_id` is as it came: whoever keeps it spells it as `Limits.normalize` says.
    """
    first, last = (f"DATE '{day.isoformat()}'" for day in (limits.first, limits.last))
    spelled = f"trim(user_id, '{WHITE_SPACE}')" if "trim" in limits.normalize else "user_id"
    cases = " ".join(
        f"WHEN {BROKEN_RULES[reason].format(first=first, last=last, spelled=spelled)} THEN {code}"
        for code, reason in enumerate(events.REASONS, start=1)
    )
    idle = f"WHEN NOT (active OR broken OR op = '-') THEN {IDLE} " if "active" in types else ""
    is_plain = f"op = '+' AND day BETWEEN {first} AND {last} AND {spelled} <> '' AND NOT broken"
    is_plain += " AND active" if "active" in types else ""
    return f"""
        SELECT file, line, user_id, op, listed, CASE WHEN op = '-' AND listed IS NULL THEN second END AS second,
            CASE WHEN op = '-' THEN coalesce(list_max(listed), day, {last}) ELSE day END AS day,
            (CASE WHEN {is_plain} THEN 0 {idle}{cases} ELSE 0 END)::UTINYINT AS code
        FROM ({_fields(source, types, limits)})"""


def id_text(value: str, kind: DuckDBPyType) -> str:
    """`core.user_ids.id_text` of an expression of this type, as VARCHAR; null for what is no id."""
    if is_json(kind):
        number = f"try_cast({value}::VARCHAR AS DOUBLE)"
        digits = _whole_digits(number, f"abs({number}) < {EXACT_BELOW}")
        return _of_json(value, digits)
    if kind.id == "varchar":
        return f"({value})"
    if kind.id == "blob":
        return f"try(decode({value}))"
    if kind.id in _INTEGERS | {"uuid", "enum"}:
        return f"({value})::VARCHAR"
    if kind.id in _FLOATS:
        return _whole_digits(value, f"abs({value}) < {_FLOATS[kind.id]}")
    if kind.id == "decimal":
        return _whole_digits(value, "true")
    return "NULL::VARCHAR"


def require_types(types: Types, path: str) -> None:
    """Raise BadInput unless an event can be read from columns of these types."""
    days = _TEXTS | _NUMBERS | _NAIVE_TIMES | {"date"}
    for name, kinds, wanted in (
        ("user_id", _TEXTS | _NUMBERS | {"uuid"}, "VARCHAR"),
        ("day", days, "DATE"),
        ("ts", days | _ZONED_TIMES, "TIMESTAMPTZ"),
    ):
        if name in types and types[name].id not in kinds:
            raise BadInput(
                f"The column {name} of {path} has the type {types[name].id}.",
                f"Write the file again with CAST({name} AS {wanted}).",
                path=path,
                column=name,
            )


# --- What a column says by its type -------------------------------------------------------------------------------


def _fields(source: str, types: Types, limits: Limits) -> str:
    """The event's fields made out, whatever types they come in."""
    user_id = id_text('"user_id"', types["user_id"]) if "user_id" in types else "NULL::VARCHAR"
    active = ", active" if "active" in types else ""
    source, types = _with_texts(source, types)
    return f"""
        SELECT file, line, broken{active}, user_id, op, has_day, has_ts, listed,
            CASE WHEN has_day THEN day WHEN has_ts THEN coalesce(local_day, {_day_of("second", limits)}) END AS day,
            CASE WHEN NOT has_day AND local_day IS NULL THEN second END AS second
        FROM (SELECT file, line, {"broken" if "broken" in types else "false"} AS broken{active}, {user_id} AS user_id,
            coalesce({_column("op", types)}::VARCHAR, '+') AS op, {_given("day", types)} AS has_day,
            {_given("ts", types)} AS has_ts, {_date(_column("day", types), types.get("day"))} AS day, local_day, second,
            CASE WHEN {_column("op", types)}::VARCHAR = '-' THEN {_listed(types)} END AS listed
            FROM {_with_moment(source, types, limits)})"""


def _column(name: str, types: Types) -> str:
    return f'"{name}"' if name in types else "NULL"


def _given(name: str, types: Types) -> str:
    return f"{_column(name, types)} IS NOT NULL"


def _with_texts(source: str, types: Types) -> tuple[str, Types]:
    """The source with every column that may hold text in another form as VARCHAR, and the types that it has then."""
    texts = {name: text for name in _FIELDS_OF_TEXT if name in types and (text := _as_text(name, types[name]))}
    if not texts:
        return source, types
    replaced = ", ".join(f'{text} AS "{name}"' for name, text in texts.items())
    return f"(SELECT * REPLACE ({replaced}) FROM {source})", {**types, **dict.fromkeys(texts, _VARCHAR)}


def _as_text(name: str, kind: DuckDBPyType) -> str | None:
    """What makes text of a column; None where it stays as it is."""
    value = f'"{name}"'
    if is_json(kind):
        return None if name == "metadata" else _json_text(value)
    if kind.id == "blob":
        return f"coalesce(try(decode({value})), CASE WHEN {value} IS NOT NULL THEN {_UNREADABLE} END)"
    if kind.id == "enum":
        return f"{value}::VARCHAR"
    if name == "day" and kind.id in _NUMBERS:
        return _number_text(value, kind)
    if name in ("day", "ts") and kind.id not in _TEXTS | _NUMBERS | _NAIVE_TIMES | _ZONED_TIMES | {"date"}:
        return f"CASE WHEN {value} IS NOT NULL THEN {_UNREADABLE} END"
    return None


def _json_text(value: str) -> str:
    """A JSON value as text, as `core.events` makes it: null for null, a number in digits."""
    number = _number_text(f"try_cast({value}::VARCHAR AS DOUBLE)", DuckDBPyType("DOUBLE"))
    return _of_json(value, f"coalesce({number}, {_UNREADABLE})")


def _of_json(value: str, number: str) -> str:
    """The text of a JSON value, null for null; `number` is that of one with a point or exponent, and of all others.

    A string without an escape stands between its quotes; it is not parsed, for speed.
    """
    text = f"({value})::VARCHAR"
    is_string = f"""{text} LIKE '"%"'"""
    parsed, between = f"try(json_extract_string({value}, '$'))", f"substr({text}, 2, length({text}) - 2)"
    return f"""CASE
        WHEN {is_string} THEN CASE WHEN contains({text}, '\\') THEN {parsed} ELSE {between} END
        WHEN {value} IS NULL OR {text} = 'null' THEN NULL
        WHEN regexp_full_match({text}, '-?[0-9]+') THEN CASE WHEN {text} = '-0' THEN '0' ELSE {text} END
        ELSE {number} END"""


def _whole_digits(number: str, is_sure: str) -> str:
    """The decimal digits of a number without a fraction; null for any other, and where it is not sure."""
    return f"CASE WHEN {is_sure} AND trunc({number}) = {number} THEN trunc({number})::HUGEINT::VARCHAR END"


def _number_text(number: str, kind: DuckDBPyType) -> str:
    """A number as text that is read as this number is: of a fraction it only says that there is one."""
    if kind.id in _INTEGERS:
        return f"{number}::VARCHAR"
    is_infinite = f"NOT isfinite({number})" if kind.id in _FLOATS else "false"
    sign = f"CASE WHEN {number} < 0 THEN '-' ELSE '' END"
    return f"""CASE WHEN {number} IS NULL THEN NULL WHEN {is_infinite} THEN {_UNREADABLE}
        WHEN trunc({number}) = {number} THEN coalesce(try_cast(trunc({number}) AS HUGEINT)::VARCHAR, {_UNREADABLE})
        ELSE {sign} || try_cast(trunc(abs({number})) AS HUGEINT)::VARCHAR || '.5' END"""


# --- Days and moments ---------------------------------------------------------------------------------------------


def _date(value: str, kind: DuckDBPyType | None) -> str:
    """A value as DATE: null where it is no real date, or a time that is not midnight."""
    if kind is None or kind.id in ("date", "null"):
        return f"{value}::DATE"
    if kind.id in _NAIVE_TIMES:
        epoch, size = _epoch(value, kind.id)
        return f"CASE WHEN {epoch} % {size * _DAY} = 0 THEN {_date_of(_floored(epoch, size * _DAY))} END"
    text = f"({value})::VARCHAR"
    day = f"try_cast({text} AS DATE)"
    is_itself = f"strlen({text}) = {len('YYYY-MM-DD')} AND {day}::VARCHAR = {text}"  # half the time of a pattern
    return f"""CASE WHEN {is_itself} THEN {day}
        WHEN regexp_full_match({text}, '[1-9][0-9]{{7}}') THEN {_compact_date(text)} END"""


def _compact_date(digits: str) -> str:
    """YYYYMMDD as DATE, if there is such a day."""
    return f"try_cast(({digits})[1:4] || '-' || ({digits})[5:6] || '-' || ({digits})[7:8] AS DATE)"


def _date_of(days: str) -> str:
    """The DATE so many days after 1970 has begun."""
    return f"DATE '1970-01-01' + ({days})::INTEGER"


def _floored(number: str, size: int) -> str:
    """An integer divided by a positive one, rounded down; `//` alone rounds towards zero."""
    if size == 1:
        return number
    return f"(CASE WHEN {number} < 0 THEN {number} - {size - 1} ELSE {number} END // {size})"


def _epoch(value: str, kind: str) -> tuple[str, int]:
    """A time since 1970, and how many such units are a second; null if it is infinite.

    Exactly: what DuckDB casts to microseconds from nanoseconds is rounded up, into the next day.
    """
    if kind.endswith("_ns"):
        return f"epoch_ns({value})", 10**9
    return (f"try(epoch_us({value}))" if kind in ("timestamp_s", "timestamp_ms") else f"epoch_us({value})"), 10**6


def _with_moment(source: str, types: Types, limits: Limits) -> str:
    """The source with the column ts made out as local_day or as second (Unix); at most one of them is not null."""
    kind = types["ts"].id if "ts" in types else "null"
    if kind == "varchar":
        return _with_moment_of_text(source, limits)
    if kind in _NUMBERS:
        return _with_moment_of_number(source, kind, limits)
    if kind in _NAIVE_TIMES and not limits.is_naive_local:
        source = f"(SELECT *, {_floored(*_epoch('ts', kind))} AS clock FROM {source})"
        return f"(SELECT *, NULL::DATE AS local_day, {_second_of_clock('clock', limits)} AS second FROM {source})"
    local_day, second = "NULL::DATE", "NULL::BIGINT"
    if kind == "timestamp_ns":
        local_day = _date_of(_floored("epoch_ns(ts)", _DAY * 10**9))
    elif kind in _NAIVE_TIMES | {"date"}:
        local_day = "CASE WHEN isfinite(ts) THEN try_cast(ts AS DATE) END"
    elif kind in _ZONED_TIMES:
        second = _floored(*_epoch("ts", kind))
    return f"(SELECT *, {local_day} AS local_day, {second} AS second FROM {source})"


def _with_moment_of_number(source: str, kind: str, limits: Limits) -> str:
    whole, is_whole = ("ts", "true") if kind in _INTEGERS else ("floor(ts)", "floor(ts) = ts")
    unix = _within_bits(f"try_cast({whole} AS BIGINT)")
    rows = f"""(SELECT *, {unix} AS unix, {is_whole} AS may_be_day, NULL::DATE AS said_day, NULL::BIGINT AS said_second
        FROM {source})"""
    return _with_moment_of_unix(rows, limits)


def _with_moment_of_text(source: str, limits: Limits) -> str:
    """In layers, so that each row is matched once; what matches is then read by place, as in 2025-02-01T10:30:59Z."""
    whole = _within_bits("try_cast(split_part(ts, '.', 1) AS BIGINT)")
    below = r"CASE WHEN regexp_full_match(ts, '-[0-9]+\.0*[1-9].*') THEN 1 ELSE 0 END"
    is_said_day = "ahead IS NULL" if limits.is_naive_local else "length(ts) = 10"
    rows = f"""(
        SELECT *, {_within_bits("rounded")} AS unix, length(ts) = 8 AS may_be_day,
            CASE WHEN {is_said_day} THEN iso_day END AS said_day,
            CASE WHEN ahead IS NOT NULL THEN clock - ahead
                WHEN NOT ({is_said_day}) THEN {_second_of_clock("clock", limits)} END AS said_second
        FROM (SELECT *, CASE WHEN is_unix THEN {whole} - {below} END AS rounded,
                (iso_day - DATE '1970-01-01') * {_DAY} + iso_second AS clock
            FROM (SELECT *, CASE WHEN is_iso AND ts >= '0001' THEN try_cast(substr(ts, 1, 10) AS DATE) END AS iso_day,
                    {_number("substr(ts, 12, 2)")} * 3600 + {_number("substr(ts, 15, 2)")} * 60
                        + CASE WHEN after_minutes LIKE ':%' THEN {_number("substr(after_minutes, 2, 2)")} ELSE 0 END
                        AS iso_second,
                    CASE WHEN is_iso THEN false ELSE regexp_full_match(ts, '{events.UNIX_PATTERN}') END AS is_unix,
                    CASE WHEN after_minutes LIKE '%Z' OR after_minutes LIKE '%z' OR after_minutes LIKE '%UTC' THEN 0
                        WHEN contains(after_minutes, '+') THEN {_offset_of_text("split_part(after_minutes, '+', 2)")}
                        WHEN contains(after_minutes, '-') THEN -{_offset_of_text("split_part(after_minutes, '-', 2)")}
                        END AS ahead
                FROM (SELECT *, regexp_full_match(ts, '{events.ISO_PATTERN}') AS is_iso, substr(ts, 17) AS after_minutes
                    FROM {source}))))"""
    return _with_moment_of_unix(rows, limits)


def _with_moment_of_unix(rows: str, limits: Limits) -> str:
    """Rows with `unix`, a Unix time in whatever unit, made out; what they say otherwise are said_day and said_second.

    Where `may_be_day`, the digits of `unix` may be a date.
    """
    if limits.unit is not None:
        by_unit = _floored("unix", UNITS[limits.unit])
        return f"(SELECT *, said_day AS local_day, coalesce(said_second, {by_unit}) AS second FROM {rows})"
    is_compact = f"may_be_day AND fitting IS NULL AND unix BETWEEN {events.FIRST_COMPACT} AND {events.LAST_COMPACT}"
    likely = " ".join(
        f"WHEN abs(unix) < {limit} THEN {_floored('unix', UNITS[unit])}" for unit, limit in events.UNIT_LIMITS.items()
    )
    return f"""(
        SELECT *, coalesce(said_day, compact) AS local_day,
            coalesce(said_second, fitting, CASE WHEN compact IS NULL THEN CASE {likely} END END) AS second
        FROM (SELECT *, CASE WHEN {is_compact} THEN {_compact_date("unix::VARCHAR")} END AS compact
            FROM (SELECT *, {_fitting_second(limits)} AS fitting FROM {rows})))"""


def _fitting_second(limits: Limits) -> str:
    """The second by the first unit that puts it within the limits; null if none does."""
    first, beyond = limits.seconds.start, limits.seconds.stop
    cases = " ".join(
        f"WHEN unix BETWEEN {first * size} AND {min(beyond * size, events.UNIX_LIMIT) - 1} "
        f"THEN {_floored('unix', size)}"
        for size in UNITS.values()
        if abs(first * size) < events.UNIX_LIMIT
    )
    return f"CASE {cases} END"


def _within_bits(number: str) -> str:
    return f"CASE WHEN {number} > -{events.UNIX_LIMIT} AND {number} < {events.UNIX_LIMIT} THEN {number} END"


def _offset_of_text(text: str) -> str:
    """HH, HHMM or HH:MM in seconds."""
    digits = f"replace({text}, ':', '')"
    return f"({_number(f'substr({digits}, 1, 2)')} * 3600 + {_number(f'substr({digits}, 3, 2)')} * 60)"


def _number(text: str) -> str:
    return f"coalesce(try_cast({text} AS BIGINT), 0)"


def _day_of(second: str, limits: Limits) -> str:
    """The day of a Unix second in the limits' zone; null when it is further from 1970 than a moment may be."""
    near = f"{second} > -{events.MOMENT_LIMIT} AND {second} < {events.MOMENT_LIMIT}"
    seconds = f"({second} + {_offset(second, limits)} + {_DAYS_UP * _DAY})"
    return f"CASE WHEN {near} THEN {_date_of(f'{seconds} // {_DAY} - {_DAYS_UP}')} END"


# --- Zones --------------------------------------------------------------------------------------------------------


def _offset(second: str, limits: Limits) -> str:
    changes = _offset_changes(limits.zone, limits.first, limits.last)
    cases = " ".join(f"WHEN {second} < {until} THEN {offset}" for until, offset in changes[:-1])
    return f"CASE {cases} ELSE {changes[-1][1]} END" if cases else str(changes[-1][1])


def _second_of_clock(clock: str, limits: Limits) -> str:
    """The Unix second of a time of the naive zone, from the second that its clocks show.

    At a change an offset holds on until the clocks have shown both what it and what the next one would make of it:
    Python's fold=0. All that ever were are asked, the latest first: few rows get beyond those of the limits.
    """
    changes = _offset_changes(limits.naive_zone, _FIRST_ZONES, limits.last)
    cases = " ".join(
        f"WHEN {clock} >= {until + max(before, after)} THEN {after}"
        for (until, before), (_, after) in reversed(list(pairwise(changes)))
    )
    return f"({clock} - {f'CASE {cases} ELSE {changes[0][1]} END' if cases else changes[0][1]})"


def _offset_changes(zone: ZoneInfo, first: date, last: date) -> tuple[tuple[int, int], ...]:
    """(first second from which it no longer holds, offset) of each stretch of one offset, in order.

    By Python's zone data, as in the reference: DuckDB brings its own, which may be of another year, and is slower.
    """
    return _changes_between(zone, first, date(last.year, 12, 31))


@lru_cache(maxsize=64)
def _changes_between(zone: ZoneInfo, first: date, last: date) -> tuple[tuple[int, int], ...]:
    days = range(day_number(first - timedelta(days=2)), day_number(last + timedelta(days=3)) + 1)
    if zone.utcoffset(None) is not None:  # it never changes
        days = days[-1:]
    return (*_changes(zone, days), (days[-1] * _DAY, local_offset(days[-1] * _DAY, zone)))


def _changes(zone: ZoneInfo, days: range) -> Iterator[tuple[int, int]]:
    offsets = ((day * _DAY, local_offset(day * _DAY, zone)) for day in days)
    for (before, old), (after, new) in pairwise(offsets):
        while old != new and after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if local_offset(middle, zone) == old else (before, middle)
        if old != new:
            yield after, old


# --- The days of a '-' row ----------------------------------------------------------------------------------------


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
        if days is None and any(events.is_almost_days(name) for name, _ in kind.children):
            return _unusable('"metadata"')
        return _dates('"metadata"."days"', days) if days else "NULL::DATE[]"
    if kind.id != "varchar":
        return _unusable('"metadata"')
    metadata = "try_cast(metadata AS JSON)"
    days = f"json_extract({metadata}, '$.days')"
    keys = f"json_keys({metadata})"
    is_doubtful = f"""len({keys}) > len(list_distinct({keys}))
            OR len(list_filter({keys}, lambda k: lower(trim(k)) = 'days' AND k <> 'days')) > 0"""
    return f"""CASE WHEN metadata IS NULL OR json_type({metadata}) = 'NULL' THEN NULL
        WHEN coalesce(json_type({metadata}), '') <> 'OBJECT' THEN []::DATE[]
        WHEN {is_doubtful} THEN []::DATE[]
        WHEN coalesce(json_type({days}), 'NULL') = 'NULL' THEN NULL ELSE {_json_dates(days)} END"""


def _dates(value: str, kind: DuckDBPyType) -> str:
    """A value as a DATE list: a list of anything, or text: a JSON list, or dates separated by ';'."""
    if kind.id == "list":
        return f"list_transform({value}, lambda d: {_date('d', _child(kind, 'child'))})"
    if kind.id != "varchar":
        return _unusable(value)
    split = f"list_transform(string_split({value}, ';'), lambda d: {_date('trim(d)', _VARCHAR)})"
    return f"""CASE WHEN {value} LIKE '[%' THEN {_json_dates(f"try_cast({value} AS JSON)")} ELSE {split} END"""


def _json_dates(value: str) -> str:
    """A JSON array as a DATE list; empty for anything else."""
    text = _json_text("d")
    return f"""coalesce(list_transform(list_transform(json_extract({value}, '$[*]'), lambda d: {text}),
        lambda d: {_date("d", _VARCHAR)}), []::DATE[])"""


def _child(kind: DuckDBPyType, name: str) -> DuckDBPyType | None:
    """The type inside a struct or a list."""
    return cast("dict[str, DuckDBPyType]", dict(kind.children)).get(name)


def _unusable(value: str) -> str:
    return f"CASE WHEN {value} IS NOT NULL THEN []::DATE[] END"
