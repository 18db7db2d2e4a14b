"""Where an event's fields stand in columns of any names and types, as DuckDB makes them out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import duckdb
import pytest
from duckdb.sqltypes import DuckDBPyType
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.event_shape import PLAIN, ActiveWhen, EventShape, Field, FieldName
from resources.reading.field_sql import Columns, EventFields, event_fields, require_distinct

FILE = "export.parquet"
DATABASE = duckdb.connect()


def shape(active_when: ActiveWhen | None = None, **fields: Field) -> EventShape:
    together: dict[FieldName, Field] = dict(PLAIN.fields)
    together.update({cast(FieldName, name): where for name, where in fields.items()})
    return EventShape(MappingProxyType(together), active_when)


def at(*paths: str, constant: str | None = None) -> Field:
    return Field(tuple(tuple(path.split("/")) for path in paths), constant)


def types(columns: Mapping[str, str]) -> dict[str, DuckDBPyType]:
    return {name: DuckDBPyType(kind) for name, kind in columns.items()}


def made(shape: EventShape, columns: Mapping[str, str], folder: Mapping[str, str] | None = None) -> EventFields:
    return event_fields(shape, Columns(FILE, types(columns), folder or {}))


def values(table: str, shape: EventShape, field: str, folder: Mapping[str, str] | None = None) -> list[Any]:
    """What a field holds in each row of a query's answer; "active" for what is activity."""
    with DATABASE.cursor() as connection:
        rows = connection.sql(table)
        fields = event_fields(shape, Columns(FILE, dict(zip(rows.columns, rows.types, strict=True)), folder or {}))
        sql = fields.active if field == "active" else fields.fields.get(cast(FieldName, field))
        return [value for (value,) in connection.sql(f"SELECT {sql.sql if sql else 'NULL'} FROM ({table})").fetchall()]


def test_plain_columns_are_taken_as_they_stand() -> None:
    fields = made(PLAIN, {"user_id": "VARCHAR", "op": "VARCHAR", "ts": "BIGINT", "other": "DOUBLE"})
    assert {name: (made.sql, str(made.type)) for name, made in fields.fields.items()} == {
        "user_id": ('"user_id"', "VARCHAR"),
        "op": ('"op"', "VARCHAR"),
        "ts": ('"ts"', "BIGINT"),
    }
    assert fields.needed == ("user_id", "op", "ts") and fields.active is None


def test_a_name_matches_without_regard_to_case_and_space_if_one_column_does() -> None:
    fields = made(PLAIN, {"USER_ID": "VARCHAR", " Day ": "DATE"})
    assert fields.needed == ("USER_ID", " Day ")


def test_the_very_name_comes_before_one_that_is_almost_it() -> None:
    fields = made(PLAIN, {"User_Id": "VARCHAR", "user_id": "VARCHAR", "day": "DATE"})
    assert fields.needed == ("user_id", "day")


def test_a_name_that_fits_several_columns_is_refused_with_their_names() -> None:
    with pytest.raises(BadInput, match=r"no column user_id, and several.*: USER_ID, User_Id"):
        made(PLAIN, {"USER_ID": "VARCHAR", "User_Id": "VARCHAR", "day": "DATE"})


def test_a_column_that_is_named_like_a_path_comes_before_what_stands_inside_of_one() -> None:
    table = "SELECT 'outer' AS \"user.id\", {'id': 'inner'} AS \"user\", '2025-02-01' AS day"
    assert values(table, shape(user_id=at("user/id")), "user_id") == ["outer"]


@pytest.mark.parametrize(
    "user", ["{'Id': 'ann'}", '\'{"id": "ann"}\'::JSON', '\'{"id": "ann"}\''], ids=["struct", "json", "text"]
)
def test_a_path_leads_into_structs_and_json_and_text_that_holds_json(user: str) -> None:
    table = f"SELECT {user} AS account, '2025-02-01' AS day"
    assert [value.strip('"') for value in values(table, shape(user_id=at("account/id")), "user_id")] == ["ann"]


def test_text_that_is_no_json_holds_nothing_under_a_path() -> None:
    table = "SELECT 'no json' AS account, '2025-02-01' AS day"
    assert values(table, shape(user_id=at("account/id")), "user_id") == [None]


def test_the_first_of_several_that_holds_a_value_is_taken() -> None:
    table = """SELECT * FROM (VALUES ('ann', 'x', 1), ('', 'bob', 2), (NULL, 'cyd', 3), (NULL, NULL, 4), (NULL, '', 5))
        AS t(userId, anonymousId, ts)"""
    some = shape(user_id=at("userId", "gone", "anonymousId"))
    assert values(table, some, "user_id") == ["ann", "bob", "cyd", None, None]


def test_alternatives_of_different_types_are_one_canonical_id() -> None:
    table = "SELECT * FROM (VALUES (101, 'x', 1), (NULL, '101', 2)) AS t(n, s, ts)"
    assert values(table, shape(user_id=at("n", "s")), "user_id") == ["101", "101"]


def test_alternatives_of_json_are_told_apart_by_what_they_hold() -> None:
    table = """SELECT a::JSON AS a, b::JSON AS b, 1 AS ts
        FROM (VALUES ('"ann"', '"x"'), ('null', '7'), ('""', '"cyd"'), (NULL, 'null')) AS t(a, b)"""
    assert values(table, shape(user_id=at("a", "b")), "user_id") == ["ann", "7", "cyd", None]


def test_times_of_different_types_are_brought_to_text() -> None:
    table = """SELECT 'a' AS user_id, * FROM (VALUES (TIMESTAMP '2025-02-01 10:00:00', NULL::DOUBLE),
        (NULL, 1738404000123456.0)) AS t(a, b)"""
    assert values(table, shape(ts=at("a", "b")), "ts") == ["2025-02-01 10:00:00", "1738404000123456"]


def test_a_constant_stands_where_no_column_holds_a_value() -> None:
    table = "SELECT * FROM (VALUES ('a', 1, '-'), ('b', 2, NULL)) AS t(user_id, ts, kind)"
    assert values(table, shape(op=at("kind", constant="+")), "op") == ["-", "+"]
    assert values(table, shape(op=at(constant="+")), "op") == ["+", "+"]


FOLDERS = [{"day": "2025-02-01"}, {"dt": "20250201"}, {"date": "2025-02-01"}, {"event_date": "2025-02-01", "hour": "3"}]


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_the_day_of_the_path_is_the_day_where_the_file_has_none(folder: dict[str, str]) -> None:
    assert [str(day) for day in values("SELECT 'a' AS user_id", PLAIN, "day", folder)] == ["2025-02-01"]


def test_a_folder_may_be_named_as_the_day_by_the_shape() -> None:
    folder = {"part": "2025-02-03", "day": "2025-02-01"}
    assert [str(day) for day in values("SELECT 'a' AS user_id", shape(day=at("part")), "day", folder)] == ["2025-02-03"]


@pytest.mark.parametrize(
    "rows",
    [
        "('2025-02-03', NULL), (NULL, '2025-02-02T10:00'), (NULL, NULL)",
        "('\"2025-02-03\"'::JSON, NULL::JSON), ('null', '5'), (NULL, 'null')",
        "(20250203, NULL), (NULL, 5), (NULL, NULL)",
        "(DATE '2025-02-03', NULL), (NULL, 5), (NULL, NULL)",
        "(TIMESTAMP_NS '2025-02-03', NULL), (NULL, 5), (NULL, NULL)",
        "('2025-02-03'::BLOB, NULL), (NULL, 5), (NULL, NULL)",
    ],
    ids=["text", "json", "integer", "date", "timestamp", "blob"],
)
def test_a_row_s_own_day_or_time_comes_before_the_day_of_the_path(rows: str) -> None:
    table = f"SELECT 'a' AS user_id, * FROM (VALUES {rows}) AS t(day, ts)"
    days = [str(day) for day in values(table, PLAIN, "day", {"day": "2025-02-01"})]
    assert [day.strip('"').replace("-", "")[:8] for day in days] == ["20250203", "None", "20250201"]


def test_a_time_comes_before_the_day_of_the_path_where_there_is_no_column_day() -> None:
    table = "SELECT 'a' AS user_id, * FROM (VALUES ('2025-02-03T10:00'), (NULL)) AS t(ts)"
    assert [str(day) for day in values(table, PLAIN, "day", {"dt": "2025-02-01"})] == ["None", "2025-02-01"]


@pytest.mark.parametrize("folder", [{"day": "2025-02-30"}, {"day": "today"}, {"hour": "20250201"}], ids=str)
def test_a_folder_that_names_no_real_day_says_nothing(folder: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="of which known: user_id"):
        made(PLAIN, {"user_id": "VARCHAR"}, folder)


@pytest.mark.parametrize("columns", [{"day": "DATE"}, {"user_id": "VARCHAR"}, {"ann": "DATE", "bob": "VARCHAR"}, {}])
def test_columns_of_which_no_event_can_be_made_are_refused_without_their_unknown_names(
    columns: dict[str, str],
) -> None:
    with pytest.raises(BadInput, match=rf"has {len(columns)} column.*--columns user_id=NAME,ts=NAME") as error:
        made(PLAIN, columns)
    assert "ann" not in str(error.value) and "bob" not in str(error.value)


def test_a_column_that_is_named_and_not_there_is_refused_though_an_event_could_do_without() -> None:
    with pytest.raises(BadInput, match=r"has no column kind or a\.kind, which is to be op"):
        made(shape(op=at("kind", "a/kind")), {"user_id": "VARCHAR", "day": "DATE"})


def test_a_removal_s_days_by_an_almost_right_name_are_refused() -> None:
    with pytest.raises(BadInput, match=r"the column metadata\.day, and none that is called metadata\.days"):
        made(PLAIN, {"user_id": "VARCHAR", "day": "DATE", "metadata.day": "VARCHAR"})


def test_a_column_that_stands_twice_is_refused_if_it_is_asked_for() -> None:
    require_distinct(["user_id", "day", "x", "x"], PLAIN, FILE)
    with pytest.raises(BadInput, match="has the column day more than once"):
        require_distinct(["user_id", "day", "day"], PLAIN, FILE)
    with pytest.raises(BadInput, match="has the column Day more than once"):
        require_distinct(["user_id", "Day", "Day"], PLAIN, FILE)


def test_a_name_that_a_sample_of_json_did_not_show_may_yet_come() -> None:
    fields = event_fields(PLAIN, Columns("e.jsonl", types({"User_ID": "JSON"}), is_sample=True))
    assert fields.needed == ("User_ID", "op", "day", "ts", "metadata", "metadata.days")
    assert [made.places[0].is_seen for made in fields.fields.values()] == [True, *[False] * 5]


ROWS = "SELECT * FROM (VALUES ('a', 1, 'open'), ('b', 2, 'push'), ('c', 3, NULL), ('d', 4, '')) AS t(user_id, ts, kind)"


def test_activity_is_what_has_one_of_the_values() -> None:
    active = ActiveWhen(at("kind"), frozenset({"open", "it's"}))
    assert values(ROWS, shape(active), "active") == [True, False, False, False]


def test_activity_is_what_has_none_of_the_values_and_null_has_none() -> None:
    active = ActiveWhen(at("kind"), frozenset({"push"}), are_active=False)
    assert values(ROWS, shape(active), "active") == [True, False, True, True]


@pytest.mark.parametrize("value", ["true", "'true'", "'true'::JSON", "'\"true\"'::JSON"])
def test_what_says_activity_is_compared_as_text(value: str) -> None:
    table = f"SELECT 'a' AS user_id, 1 AS ts, {value} AS seen"
    assert values(table, shape(ActiveWhen(at("seen"), frozenset({"true"}))), "active") == [True]


def test_a_file_without_the_column_that_says_activity_is_refused() -> None:
    with pytest.raises(BadInput, match="no column kind or type, which says what is activity"):
        made(shape(ActiveWhen(at("kind", "type"), frozenset({"x"}))), {"user_id": "VARCHAR", "day": "DATE"})


def test_a_constant_or_the_path_may_say_activity_for_a_file_without_the_column() -> None:
    table = "SELECT 'a' AS user_id, 1 AS ts"
    by_constant = shape(ActiveWhen(at("kind", constant="track"), frozenset({"track"})))
    by_path = shape(ActiveWhen(at("kind"), frozenset({"track"})))
    assert values(table, by_constant, "active") == [True]
    assert values(table, by_path, "active", {"kind": "push"}) == [False]


NAMES = ("id", "ID", " id", "a.id", "a", "ä'b", 'q"q', "0", "x y", "*", "$", "id~1", "ß", "SS")
Value = Any
Reading = tuple[str, Value]
"""A row's value with what it is: "struct", "json" (decoded), "text" (perhaps of JSON) or "number"."""

leaves = st.one_of(st.none(), st.sampled_from(["", "ann", "it's", "null"]))
nested_json = st.recursive(leaves, lambda inside: st.dictionaries(st.sampled_from([*NAMES, ""]), inside, max_size=3))


def columns_of(names: Sequence[str], content: st.SearchStrategy) -> st.SearchStrategy[dict[str, Reading]]:
    """Names that DuckDB can hold side by side, each with a value."""

    def distinct(picked: Mapping[str, Reading]) -> dict[str, Reading]:
        first_alike = {name.lower(): name for name in reversed(list(picked))}
        return {name: picked[name] for name in first_alike.values()}

    return st.dictionaries(st.sampled_from(names), content, min_size=1, max_size=4).map(distinct)


def contents(depth: int) -> st.SearchStrategy[Reading]:
    plain = [
        leaves.map(lambda value: ("text", value)),
        nested_json.map(lambda value: ("text", json.dumps(value))),
        nested_json.map(lambda value: ("json", value)),
        st.one_of(st.none(), st.integers(0, 9)).map(lambda value: ("number", value)),
    ]
    if depth:
        plain.append(columns_of(NAMES, contents(depth - 1)).filter(bool).map(lambda inside: ("struct", inside)))
    return st.one_of(plain)


def sql_of(reading: Reading) -> str:
    kind, value = reading
    if kind == "struct":
        return "struct_pack(" + ", ".join(f"{quoted(name)} := {sql_of(inside)}" for name, inside in value.items()) + ")"
    text = json.dumps(value) if kind == "json" else value
    escaped = "NULL" if text is None else "'" + str(text).replace("'", "''") + "'"
    return f"{escaped}::{ {'json': 'JSON', 'text': 'VARCHAR', 'number': 'BIGINT'}[kind] }"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Ambiguous(Exception):
    """A name fits several."""


def slow_match(wanted: str, names: Sequence[str]) -> str | None:
    if wanted in names:
        return wanted
    alike = [name for name in names if name.strip().casefold() == wanted.strip().casefold()]
    if len(alike) > 1:
        raise Ambiguous
    return alike[0] if alike else None


def slow_lookup(columns: Mapping[str, Reading], path: Sequence[str]) -> tuple[bool, Value]:
    """Whether the path leads anywhere in rows of this kind, and what stands there in this row."""
    for length in range(len(path), 0, -1):
        name = slow_match(".".join(path[:length]), list(columns))
        if name is None:
            continue
        kind, value = columns[name]
        rest = path[length:]
        if not rest:
            return True, value
        if kind == "struct":
            found = slow_lookup(value, rest)
            if found[0]:
                return found
        elif kind in ("json", "text"):
            return True, slow_json(value, kind, rest)
    return False, None


def slow_json(value: Value, kind: str, path: Sequence[str]) -> Value:
    if kind == "text":
        try:
            value = json.loads(value) if value is not None else None
        except ValueError:
            return None
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def slow_pick(columns: Mapping[str, Reading], where: Field) -> tuple[bool, Value]:
    found = [slow_lookup(columns, path) for path in where.paths]
    there = [value for is_there, value in found if is_there]
    held = [value for value in there if value not in (None, "")]
    return bool(there) or where.constant is not None, held[0] if held else where.constant


def plain(value: Value) -> str | None:
    """A value as text; what holds others is not told apart."""
    if isinstance(value, dict):
        return "{}"
    return None if value is None or value == "" else str(value)


paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple)


@settings(max_examples=200)
@given(columns_of(NAMES, contents(2)), st.lists(paths, min_size=1, max_size=3), st.sampled_from([None, "+", "it's"]))
def test_what_is_picked_is_what_a_slow_lookup_in_nested_rows_picks(
    columns: dict[str, Reading], picked: list[tuple[str, ...]], constant: str | None
) -> None:
    where = Field(tuple(picked), constant)
    rows = "SELECT " + ", ".join(f"{sql_of(reading)} AS {quoted(name)}" for name, reading in columns.items())
    with DATABASE.cursor() as connection:
        relation = connection.sql(rows)
        known = Columns(FILE, dict(zip(relation.columns, relation.types, strict=True)), {"day": "2025-02-01"})
        some = EventShape(MappingProxyType({"user_id": Field(constant="a"), "op": where}))
        try:
            there, expected = slow_pick(columns, where)
        except Ambiguous:
            with pytest.raises(BadInput, match="several that are almost called so"):
                event_fields(some, known)
            return
        if not there:
            with pytest.raises(BadInput, match="which is to be op"):
                event_fields(some, known)
        else:
            made = event_fields(some, known).fields["op"]
            [(value,)] = connection.sql(f"SELECT {made.sql} FROM ({rows})").fetchall()
            decoded = json.loads(value) if str(made.type) == "JSON" and value is not None else value
            is_text_of_object = isinstance(expected, dict) and str(decoded).startswith("{")
            assert is_text_of_object or plain(decoded) == plain(expected)
