"""The rules as SQL against the rules in Python: every field, in every type of column that a file may have."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pytest
from duckdb.sqltypes import DuckDBPyType
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core import events
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import UNITS, Event, Limits, Row, day_of_second, row_of_object, validate
from dpdau_assets.core.user_ids import EXACT_BELOW_SINGLE, NORMALIZATIONS, id_text, normalize
from dpdau_tests.support.lengths import at_length
from resources.reading.event_sql import id_text as sql_id_text
from resources.reading.event_sql import judged, require_types

FIRST, LAST = date(2025, 1, 1), date(2025, 4, 30)
UTC_ZONE = ZoneInfo("UTC")
ZONES = [
    *map(ZoneInfo, ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Beirut", "Pacific/Apia"])
]
LIMITS = st.builds(
    Limits,
    st.just(FIRST) | st.dates(date(1970, 1, 1), FIRST),
    st.just(LAST),
    st.sampled_from(ZONES),
    st.sampled_from(ZONES),
    st.none() | st.sampled_from(list(UNITS)),
    st.lists(st.sampled_from(NORMALIZATIONS), unique=True).map(tuple),
)
PLAIN = Limits(FIRST, LAST, UTC_ZONE)
TEXT, LIST = pa.string(), pa.list_(pa.string())

Column = tuple[str, Sequence[object]]
"""A column's type as DuckDB names it, and its values."""


# --- What the SQL makes of rows -----------------------------------------------------------------------------------


@cache
def connection() -> duckdb.DuckDBPyConnection:
    """One for all tests here: to open one takes longer than most of what is asked of it."""
    return duckdb.connect(config={"preserve_insertion_order": "true", "threads": 1})


def judged_by_sql(columns: dict[str, Column], limits: Limits, timezone: str = "UTC") -> list[Event | str]:
    """What the SQL makes of rows with these columns; ids are spelled as the limits say, as whoever keeps them does."""
    connection().execute(f"SET TimeZone = '{timezone}'")  # of which nothing may depend
    names = ", ".join(f'"{name}" {kind}' for name, (kind, _) in columns.items())
    connection().execute(f"CREATE OR REPLACE TABLE given (file INT, line BIGINT, {names})")
    values = zip(*(values for _, values in columns.values()), strict=True)
    places = ", ".join("?" * (len(columns) + 2))
    rows = [(0, line, *row) for line, row in enumerate(values)]
    connection().executemany(f"INSERT INTO given VALUES ({places})", rows)
    return judged_rows("given", limits)


def text_judged_by_sql(columns: dict[str, Column], limits: Limits) -> list[Event | str]:
    """What the SQL makes of rows with columns of text, which may be JSON, or of lists of it."""
    arrays = {name: pa.array(values, LIST if kind == "VARCHAR[]" else TEXT) for name, (kind, values) in columns.items()}
    casts = ", ".join(f'"{name}"::{kind} AS "{name}"' for name, (kind, _) in columns.items())
    return judged_arrow(arrays, limits, casts)


def judged_arrow(
    arrays: dict[str, pa.Array], limits: Limits, casts: str = "* EXCLUDE (file, line)"
) -> list[Event | str]:
    count = len(next(iter(arrays.values())))
    connection().register("arrays", pa.table({"file": [0] * count, "line": range(count), **arrays}))
    return judged_rows(f"(SELECT file, line, {casts} FROM arrays)", limits)


def judged_rows(source: str, limits: Limits) -> list[Event | str]:
    relation = connection().sql(f"SELECT * FROM {source}")
    types = dict(zip(relation.columns, relation.types, strict=True))
    query = f"SELECT user_id, op, day, listed, second, code FROM ({judged(source, types, limits)}) ORDER BY line"
    return [
        events.REASONS[code - 1]
        if code
        else Event(
            normalize(user_id, limits.normalize),
            op,
            day_of_second(second, limits.zone) or day if second is not None else day,
            tuple(sorted(set(listed or ()))),
        )
        for user_id, op, day, listed, second, code in connection().sql(query).fetchall()
    ]


def of_texts(rows: list[Row]) -> dict[str, Column]:
    """Rows as columns of text, and a list."""
    columns: dict[str, Column] = {
        name: ("VARCHAR", [getattr(row, name) for row in rows]) for name in ("user_id", "op", "day", "ts")
    }
    return {**columns, "metadata.days": ("VARCHAR[]", [None if row.days is None else list(row.days) for row in rows])}


# --- Text -----------------------------------------------------------------------------------------------------------

dates = st.dates(FIRST - timedelta(days=3), LAST + timedelta(days=3))
long_ago = st.dates(date(1653, 2, 12), FIRST)
written_dates = (dates | long_ago).flatmap(lambda day: st.sampled_from([f"{day}", f"{day:%Y%m%d}"]))
odd_text = st.text(max_size=8) | st.text("0123456789-:TtZz +.UC\u0661\n", max_size=25)
days = written_dates | st.sampled_from(["0000-01-01", "00010101", "20250230", "2025-02-30", "99991231", "10000101"])
unix_times = st.builds(
    lambda second, size, more: str(second * size + more % size),
    st.integers(1_735_000_000, 1_747_000_000) | st.integers(-(10**10), 10**10),
    st.sampled_from(list(UNITS.values())),
    st.integers(0, 10**9),
)
clocks = st.builds(
    "{}{}{:02}:{:02}{}".format,
    days,
    st.sampled_from(["T", " ", "t", "", "  "]),
    st.integers(0, 24),
    st.integers(0, 60),
    st.sampled_from(["", ":00", ":59", ":60", ":59.5", ":59.999999999", ":7", ":00,5"]),
)
zones = st.builds(
    "{}{}".format,
    st.sampled_from(["", " ", "  "]),
    st.sampled_from(
        ["", "Z", "z", "UTC", "utc", "+00:00", "-05:00", "+0530", "+14", "-23:59", "+24:00", "+05:60", "+5"]
    ),
)
moments = st.one_of(
    unix_times,
    st.builds("{}.{}".format, unix_times, st.sampled_from(["0", "5", "000000001", ""])),
    st.sampled_from(
        ["1e9", "-0", "-0.0", "-0.5", "00001738454399", "1.", ".1", "9999999999.9", "-9999999999.9", "NaN"]
    ),
    st.integers(-(10**20), 10**20).map(str),
    days,
    st.builds("{}{}".format, clocks, zones),
    odd_text,
)
ops = st.sampled_from([None, "+", "-", "-"])
users = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3) | st.sampled_from(
    [" ", "\u3000\n", "A"]
)
rows = st.builds(
    Row,
    st.none() | odd_text,
    ops | odd_text,
    st.none() | days | odd_text,
    st.none() | moments,
    st.none() | st.lists(st.none() | days, max_size=3).map(tuple),
)
moments_alone = st.builds(Row, users, ops, st.none(), moments)
removals = st.builds(
    Row, users, st.just("-"), st.none() | days, moments, st.none() | st.lists(days, min_size=1, max_size=3).map(tuple)
)


@pytest.mark.also_long
@settings(max_examples=at_length(test=8, ci=80, soak=2_000), deadline=None)
@given(st.lists(rows | moments_alone | removals, min_size=1, max_size=100), LIMITS)
def test_the_sql_says_of_every_row_what_the_rules_say(found: list[Row], limits: Limits) -> None:
    assert text_judged_by_sql(of_texts(found), limits) == [validate(row, limits) for row in found]


def clock_times(zone: ZoneInfo) -> list[str]:
    """What its clocks show around midnight and around each of its changes, and half an hour to both sides."""
    days = [date(2025, month, day) for month in (1, 3, 4, 10, 11) for day in (1, 2, 6, 9, 26, 30)]
    days += [date(2011, 12, day) for day in (29, 30, 31)] + [date(1883, 11, 18), date(1970, 1, 1), date(1919, 3, 30)]
    return [
        f"{day} {hour:02}:{minute}" for day in days for hour in (0, 1, 2, 3, 12, 23) for minute in ("00", "29", "30")
    ]


@pytest.mark.parametrize("naive_zone", ZONES, ids=str)
def test_times_without_a_zone_are_read_by_the_clocks_of_their_zone_however_long_ago(naive_zone: ZoneInfo) -> None:
    rows = [Row("u", "-", ts=ts) for ts in clock_times(naive_zone)]
    for zone in (ZoneInfo("UTC"), ZoneInfo("America/New_York"), ZoneInfo("Asia/Kathmandu")):
        limits = Limits(date(2010, 1, 1), date(2026, 1, 1), zone, naive_zone)
        assert text_judged_by_sql(of_texts(rows), limits) == [validate(row, limits) for row in rows]


def test_a_unix_time_at_the_edges_of_the_limits_and_of_each_unit_is_read_alike() -> None:
    limits = Limits(FIRST, LAST, ZoneInfo("America/New_York"))
    edges = [limits.seconds.start, limits.seconds.stop, -1, 0, 10**10, 10**11]
    numbers = {edge * size + more for edge in edges for size in UNITS.values() for more in (-1, 0, 1)}
    numbers |= {sign * limit + more for limit in events.UNIT_LIMITS.values() for sign in (1, -1) for more in (-1, 0, 1)}
    rows = [Row("u", op, ts=f"{number}{end}") for number, end, op in product(sorted(numbers), ("", ".5"), ("+", "-"))]
    for unit in (None, *UNITS):
        with_unit = replace(limits, unit=unit)
        assert text_judged_by_sql(of_texts(rows), with_unit) == [validate(row, with_unit) for row in rows]


# --- Columns of other types -----------------------------------------------------------------------------------------


def number_text(value: float | Decimal) -> str:
    """A typed number as the digits that the rules read."""
    if not math.isfinite(value):
        return "[]"
    return str(int(value)) if value == int(value) else f"{Decimal(value):f}"


def time_text(value: datetime | date) -> str:
    return value.isoformat()


def midnight_text(value: datetime | date) -> str:
    """A typed time as a day: its date at midnight, and no day at any other time."""
    if isinstance(value, datetime):
        return value.date().isoformat() if value == datetime.combine(value.date(), datetime.min.time()) else "[]"
    return value.isoformat()


def utf8_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "[]"


def itself(value: Any) -> Any:
    return value


bits = {"TINYINT": 7, "SMALLINT": 15, "INTEGER": 31, "BIGINT": 63, "HUGEINT": 127}
integers = {name: st.integers(-(2**width), 2**width - 1) for name, width in bits.items()}
integers |= {f"U{name}": st.integers(0, 2 ** (width + 1) - 1) for name, width in bits.items()}
single = st.floats(width=32)
decimals = {
    f"DECIMAL({width},{scale})": st.integers(-(10**width) + 1, 10**width - 1).map(
        lambda number, scale=scale: Decimal(number).scaleb(-scale)
    )
    | st.integers(0, 10 ** (width - scale) - 1).map(
        lambda number, scale=scale: Decimal(number).quantize(Decimal(10) ** -scale)
    )
    for width, scale in ((4, 2), (18, 3), (28, 0), (28, 9))
}
naive_times = st.datetimes(datetime(1653, 2, 12), datetime(2286, 1, 1)) | st.datetimes(
    datetime(2024, 12, 30), datetime(2025, 5, 3)
)
naive_times |= dates.map(lambda day: datetime.combine(day, datetime.min.time()))
numbers_near = st.integers(1_735_000_000, 1_747_000_000)

IDS: dict[str, tuple[st.SearchStrategy, Callable[[Any], str | None]]] = {
    **{name: (values, id_text) for name, values in (integers | decimals).items()},
    "DOUBLE": (st.floats() | st.integers(-(2**60), 2**60).map(float), id_text),
    "FLOAT": (
        single | st.integers(-(2**30), 2**30).map(lambda n: struct.unpack("f", struct.pack("f", n))[0]),
        lambda value: id_text(value) if abs(value) < EXACT_BELOW_SINGLE else None,
    ),
    "UUID": (st.uuids(), id_text),
    "BLOB": (st.binary(max_size=4) | users.map(str.encode), id_text),
    "ENUM('a', 'B', ' ', '101')": (st.sampled_from(["a", "B", " ", "101"]), id_text),
    "BOOLEAN": (st.booleans(), id_text),
    "INTEGER[]": (st.lists(st.integers(0, 3), max_size=2), id_text),
    "DATE": (dates, lambda _: None),
    "STRUCT(a INTEGER)": (st.fixed_dictionaries({"a": st.integers(0, 3)}), id_text),
}


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.also_long
@settings(max_examples=at_length(test=3, ci=20, soak=300), deadline=None)
@given(data=st.data())
def test_an_id_in_a_column_of_any_type_is_its_canonical_text(kind: str, data: st.DataObject) -> None:
    values, text_of = IDS[kind]
    ids = data.draw(st.lists(st.none() | values, min_size=1, max_size=20))
    limits = replace(PLAIN, normalize=data.draw(st.sampled_from([(), ("trim",), NORMALIZATIONS])))
    found = judged_by_sql({"user_id": (kind, ids), "day": ("VARCHAR", ["2025-02-01"] * len(ids))}, limits)
    texts = [None if value is None else text_of(value) for value in ids]
    assert found == [validate(Row(text, day="2025-02-01"), limits) for text in texts]


TIMES: dict[str, tuple[st.SearchStrategy, Callable[[Any], str]]] = {
    **{
        name: (values | (numbers_near if values is integers.get("BIGINT") else values), str)
        for name, values in integers.items()
    },
    **{name: (values, number_text) for name, values in decimals.items()},
    "DOUBLE": (st.floats() | numbers_near.map(lambda n: n + 0.25) | numbers_near.map(lambda n: n * 1e9), number_text),
    "FLOAT": (single, number_text),
    "DATE": (dates | long_ago, time_text),
    "TIMESTAMP": (naive_times, time_text),
    "TIMESTAMP_S": (naive_times.map(lambda time: time.replace(microsecond=0)), time_text),
    "TIMESTAMP_MS": (naive_times.map(lambda time: time.replace(microsecond=0)), time_text),
    "TIMESTAMP WITH TIME ZONE": (naive_times.map(lambda time: time.replace(tzinfo=UTC)), time_text),
    "BLOB": (st.binary(max_size=3) | moments.map(lambda text: text.encode(errors="replace")), utf8_text),
    "ENUM('2025-02-01', '1738454400', '20250202', 'x')": (
        st.sampled_from(["2025-02-01", "1738454400", "20250202", "x"]),
        itself,
    ),
    "BOOLEAN": (st.booleans(), lambda _: "[]"),
    "INTEGER[]": (st.lists(st.integers(0, 3), max_size=2), lambda _: "[]"),
}


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.also_long
@settings(max_examples=at_length(test=3, ci=20, soak=300), deadline=None)
@given(data=st.data())
def test_a_time_in_a_column_of_any_type_is_read_as_its_text_is(kind: str, data: st.DataObject) -> None:
    values, text_of = TIMES[kind]
    times = data.draw(st.lists(st.none() | values, min_size=1, max_size=20))
    limits, removed = data.draw(LIMITS), data.draw(st.lists(ops, min_size=len(times), max_size=len(times)))
    columns: dict[str, Column] = {"user_id": ("VARCHAR", ["u"] * len(times)), "op": ("VARCHAR", removed)}
    found = judged_by_sql({**columns, "ts": (kind, times)}, limits, data.draw(st.sampled_from(["UTC", "Asia/Kolkata"])))
    texts = [None if value is None else text_of(value) for value in times]
    assert found == [validate(Row("u", op, ts=text), limits) for op, text in zip(removed, texts, strict=True)]


compact = dates.map(lambda day: int(f"{day:%Y%m%d}"))
DAYS: dict[str, tuple[st.SearchStrategy, Callable[[Any], str]]] = {
    **{name: (integers[name] | compact, str) for name in ("INTEGER", "BIGINT", "UINTEGER", "UBIGINT", "HUGEINT")},
    "DECIMAL(28,0)": (decimals["DECIMAL(28,0)"] | compact.map(Decimal), number_text),
    "DECIMAL(18,3)": (decimals["DECIMAL(18,3)"] | compact.map(Decimal), number_text),
    "DOUBLE": (st.floats() | compact.map(float) | compact.map(lambda number: number + 0.5), number_text),
    **{name: TIMES[name] for name in ("DATE", "BLOB", "BOOLEAN", "ENUM('2025-02-01', '1738454400', '20250202', 'x')")},
    **{name: (TIMES[name][0], midnight_text) for name in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS")},
}


@pytest.mark.parametrize("kind", DAYS)
@pytest.mark.also_long
@settings(max_examples=at_length(test=3, ci=20, soak=300), deadline=None)
@given(data=st.data())
def test_a_day_in_a_column_of_any_type_is_read_as_its_text_is(kind: str, data: st.DataObject) -> None:
    values, text_of = DAYS[kind]
    days = data.draw(st.lists(st.none() | values, min_size=1, max_size=20))
    found = judged_by_sql({"user_id": ("VARCHAR", ["u"] * len(days)), "day": (kind, days)}, PLAIN)
    assert found == [validate(Row("u", day=None if day is None else text_of(day)), PLAIN) for day in days]


@pytest.mark.also_long
@settings(max_examples=at_length(test=6, ci=40, soak=1_000), deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(ZONES),
    st.lists(st.integers(-(8 * 10**9), 8 * 10**9) | numbers_near, min_size=1, max_size=10),
)
def test_nanoseconds_are_never_rounded_into_the_next_day(
    zone: ZoneInfo, naive_zone: ZoneInfo, seconds: list[int]
) -> None:
    limits = replace(PLAIN, zone=zone, naive_zone=naive_zone)
    midnights = [int(datetime(2025, 2, day, tzinfo=zone).timestamp()) for day in (1, 2)]
    nanos = [second * 10**9 + more for second in (*seconds, *midnights) for more in (-1, 0, 1, 999_999_999)]
    users = pa.array(["u"] * len(nanos))
    clock = [datetime(1970, 1, 1) + timedelta(seconds=number // 10**9) for number in nanos]
    for stamp, end in ((pa.timestamp("ns", "UTC"), "Z"), (pa.timestamp("ns"), "")):
        found = judged_arrow({"user_id": users, "ts": pa.array(nanos, stamp)}, limits)
        assert found == [validate(Row("u", ts=f"{time.isoformat()}{end}"), limits) for time in clock]
    as_days = judged_arrow({"user_id": users, "day": pa.array(nanos, pa.timestamp("ns"))}, limits)
    is_midnight = [number % (86400 * 10**9) == 0 for number in nanos]
    expected = [str(time.date()) if midnight else "[]" for time, midnight in zip(clock, is_midnight, strict=True)]
    assert as_days == [validate(Row("u", day=day), limits) for day in expected]


def test_dates_of_arrow_are_days_in_both_widths() -> None:
    for width in (pa.date32(), pa.date64()):
        for name in ("day", "ts"):
            found = judged_arrow({"user_id": pa.array(["u"]), name: pa.array([date(2025, 2, 1)], width)}, PLAIN)
            assert found == [Event("u", "+", date(2025, 2, 1))]


def test_an_infinite_or_far_time_is_no_time() -> None:
    for kind in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "DATE", "TIMESTAMP WITH TIME ZONE"):
        found = judged_by_sql({"user_id": ("VARCHAR", ["u"] * 2), "ts": (kind, ["infinity", "-infinity"])}, PLAIN)
        assert found == [events.BAD_TS] * 2
    for kind in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS"):
        found = judged_by_sql({"user_id": ("VARCHAR", ["u"]), "day": (kind, ["infinity"])}, PLAIN)
        assert found == [events.BAD_DAY]
    far = pa.array([9 * 10**18], pa.timestamp("s"))
    for name, reason in (("day", events.BAD_DAY), ("ts", events.BAD_TS)):
        assert judged_arrow({"user_id": pa.array(["u"]), name: far}, replace(PLAIN, naive_zone=ZONES[1])) == [reason]


# --- JSON -----------------------------------------------------------------------------------------------------------

tokens = st.sampled_from(
    ["-0", "0", "1e3", "1E-2", "101.0", "9007199254740992.0", "1e22", "1738454400.5", "1.7384544e18"]
)
json_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    users,
    days,
    moments,
    dates.map(lambda day: int(f"{day:%Y%m%d}")),
    numbers_near,
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(users, st.integers(0, 3), max_size=2),
).flatmap(lambda value: st.sampled_from([json.dumps(value), json.dumps(value, ensure_ascii=False)]))
json_texts = st.none() | json_values | tokens
listed = st.one_of(
    json_values,
    st.lists(days | compact, max_size=3).map(lambda days: json.dumps({"days": days})),
    json_values.map(lambda value: f'{{"days": {value}}}'),
)
json_rows = st.tuples(
    json_texts, st.sampled_from(['"-"', '"+"', None]) | json_texts, json_texts, json_texts, st.none() | listed
)


@pytest.mark.also_long
@settings(max_examples=at_length(test=8, ci=80, soak=2_000), deadline=None)
@given(st.lists(json_rows, min_size=1, max_size=50), LIMITS)
def test_columns_of_json_are_read_as_the_decoded_values_are(
    found: list[tuple[str | None, ...]], limits: Limits
) -> None:
    names = ("user_id", "op", "day", "ts", "metadata")
    columns: dict[str, Column] = {
        name: ("JSON", list(values)) for name, values in zip(names, zip(*found, strict=True), strict=True)
    }
    objects = [
        {name: json.loads(text) for name, text in zip(names, row, strict=True) if text is not None} for row in found
    ]
    assert text_judged_by_sql(columns, limits) == [validate(row_of_object(value), limits) for value in objects]


def test_a_json_text_that_is_no_json_is_nobody_and_no_time() -> None:
    broken = ['"a" ', '"', '"a\\x"', "nul", "NaN", "-Infinity", "1e999", "[", ""]
    for text in broken:
        [(found,)] = connection().sql(f"""SELECT {sql_id_text(f"'{text}'", DuckDBPyType("JSON"))}""").fetchall()
        assert not found, text


# --- Which columns there may be -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["user_id", "day", "ts"])
def test_a_column_of_which_nothing_can_be_read_is_refused_with_its_type_and_what_to_write(name: str) -> None:
    taken = {"user_id": [k for k in IDS if k.split("(")[0] not in ("BOOLEAN", "INTEGER[]", "DATE", "STRUCT")]}
    taken |= {"day": list(DAYS), "ts": list(TIMES)}
    for kind in taken[name]:
        if kind not in ("BOOLEAN", "INTEGER[]"):
            require_types({name: DuckDBPyType(kind)}, "f")
    for kind in ("BOOLEAN", "INTEGER[]", "STRUCT(a INTEGER)", "TIME", "INTERVAL"):
        with pytest.raises(BadInput, match=f"The column {name} of f has the type"):
            require_types({name: DuckDBPyType(kind)}, "f")
