"""Named sources in TOML, and what is said of an input on the command line: how it is written, and which one wins."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.event_shape import PLAIN, ActiveWhen, Field
from resources.reading.columns_option import activity_written, column_written, fields_written, written
from resources.reading.input_options import InputOptions, delimiter_written, unit_written, zone_written
from resources.reading.presets import PRESETS
from resources.reading.source_file import source_named

WHERE = "--columns"


def field(*paths: tuple[str, ...], constant: str | None = None) -> Field:
    return Field(paths, constant)


def source(tmp_path: Path, text: str, name: str = "web") -> InputOptions:
    path = tmp_path / "sources.toml"
    path.write_text(text, encoding="utf-8")
    return source_named(name, path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("distinct_id", field(("distinct_id",))),
        ("context.userId", field(("context", "userId"))),
        ("userId|context.user.id", field(("userId",), ("context", "user", "id"))),
        (" my time | t ", field(("my time",), ("t",))),
        ('"a.b, |""c"|d', field(('a.b, |"c',), ("d",))),
        ("'2025-02-01'", field(constant="2025-02-01")),
        ("t|'it''s'", field(("t",), constant="it's")),
        ("$time|properties.$time", field(("$time",), ("properties", "$time"))),
    ],
)
def test_a_field_is_written_as_paths_and_perhaps_a_constant(text: str, expected: Field) -> None:
    assert fields_written(f"ts={text}", WHERE) == {"ts": expected}
    assert fields_written(f"ts={written(expected)}", WHERE) == {"ts": expected}


@settings(max_examples=50)
@given(st.lists(st.lists(st.text(min_size=1), min_size=1).map(tuple), min_size=1), st.none() | st.text())
def test_what_is_written_of_a_field_is_read_as_that_field(paths: list[tuple[str, ...]], constant: str | None) -> None:
    assert column_written(written(Field(tuple(paths), constant)), WHERE) == Field(tuple(paths), constant)


def test_several_fields_are_separated_by_commas() -> None:
    fields = fields_written("user_id=a|b, ts = c.d ,op='+',metadata.days=e", WHERE)
    assert fields == {
        "user_id": field(("a",), ("b",)),
        "ts": field(("c", "d")),
        "op": field(constant="+"),
        "metadata.days": field(("e",)),
    }


@pytest.mark.parametrize("op", ["+", "-"])
def test_an_op_is_a_constant_also_where_the_shell_took_the_quotes_away(op: str) -> None:
    assert fields_written(f"op={op}", WHERE) == fields_written(f"op='{op}'", WHERE) == {"op": field(constant=op)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a part names no field"),
        ("user_id", "a part names no field"),
        ("user_id=a,", "a part names no field"),
        ("user_id=", "not a column's name"),
        ("user_id=a..b", "not a column's name"),
        ("user_id=a|", "not a column's name"),
        ("user_id='x'|a", "not a column's name"),
        ('user_id="a', "cannot be read from character 9 on"),
        ("who=a", "events have no field who"),
        ("user_id=a,user_id=b", "a field stands there twice"),
        ("user_id='x'", "user_id cannot be this constant"),
        ("op='x'", "op cannot be this constant"),
    ],
)
def test_columns_that_cannot_be_read_are_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        fields_written(text, WHERE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event=open,login", ActiveWhen(field(("event",)), frozenset({"open", "login"}))),
        ("event!=push", ActiveWhen(field(("event",)), frozenset({"push"}), are_active=False)),
        ('a.b|"c="="x, y",1.5', ActiveWhen(field(("a", "b"), ("c=",)), frozenset({"x, y", "1.5"}))),
        ("type|'track'=track", ActiveWhen(field(("type",), constant="track"), frozenset({"track"}))),
    ],
)
def test_what_is_active_is_written_as_a_column_and_values(text: str, expected: ActiveWhen) -> None:
    assert activity_written(text, "--active-when") == expected


@pytest.mark.parametrize("text", ["", "event", "event=", "event=a,", "=a", "event=a=b", "event=a!=b", "event=a|b"])
def test_activity_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadSetting, match="--active-when"):
        activity_written(text, "--active-when")


WHOLE = """
[web]
location = ["s3://bucket/events/", "more/*.csv"]
format = "csv"
encoding = "cp1252"
delimiter = "\\t"
preset = "segment"
columns = { user_id = "userId|anonymousId", ts = "context.time", op = "'-'" }
active_when = { column = "event", is_not = ["push_delivered", "it's"] }
unit = "ms"
zone = "Europe/Berlin"

[other]
location = "here"
"""


def test_a_source_says_where_an_input_lies_and_how_it_is_read(tmp_path: Path) -> None:
    assert source(tmp_path, WHOLE) == InputOptions(
        ("s3://bucket/events/", "more/*.csv"),
        "csv",
        "cp1252",
        "\t",
        "segment",
        {"user_id": field(("userId",), ("anonymousId",)), "ts": field(("context", "time")), "op": field(constant="-")},
        ActiveWhen(field(("event",)), frozenset({"push_delivered", "it's"}), are_active=False),
        "ms",
        ZoneInfo("Europe/Berlin"),
    )
    assert source(tmp_path, WHOLE, "other") == InputOptions(("here",))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('locations = "x"', "locations is not known. Is location meant?"),
        ("location = 3", "location = is not text"),
        ('encoding = "a\\u0000"', "encoding = is not text"),
        ('location = ["a", 3]', "location = is not text"),
        ('format = "xml"', "format = xml: not known. It can be json, csv, parquet"),
        ('unit = "h"', "unit = h: not known"),
        ('zone = "Mars/Base"', "zone = Mars/Base: no such time zone"),
        ('delimiter = "ab"', "delimiter = ab: not a delimiter"),
        ('preset = "x"', "There is no preset x. There are segment"),
        ('columns = "a"', "columns = is no table"),
        ('columns = { who = "a" }', "events have no field who"),
        ("columns = { ts = 3 }", "columns.ts = is not text"),
        ('active_when = { column = "a" }', "does not say a column and a list of values"),
        ('active_when = { column = "a", is = [] }', "does not say a column and a list of values"),
        ('active_when = { column = "a", is = ["x"], is_not = ["y"] }', "does not say a column and a list of values"),
        ('active_when = { column = "a", are = ["x"] }', "active_when.are is not known"),
        ("active_when = 3", "active_when = is no table"),
        ("unit", "is no TOML"),
    ],
)
def test_a_source_that_says_something_wrong_is_refused_with_its_place(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(BadSetting, match=said.replace("(", r"\(")):
        source(tmp_path, f"[web]\n{table}\n")


def test_a_source_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"has no source app\. It has web, other"):
        source(tmp_path, WHOLE, "app")
    with pytest.raises(BadSetting, match="cannot be read: No such file"):
        source_named("web", tmp_path / "none.toml")
    with pytest.raises(BadSetting, match="SOURCES_FILE is not set"):
        source_named("web", None)


def test_the_command_line_wins_over_the_source_and_the_source_over_the_preset(tmp_path: Path) -> None:
    said = InputOptions(unit="us", columns=fields_written("user_id=me", WHERE))
    shape = said.over(source(tmp_path, WHOLE)).shape()
    assert shape.unit == "us" and shape.naive_zone == ZoneInfo("Europe/Berlin")
    assert shape.fields["user_id"] == field(("me",)) and shape.fields["ts"] == field(("context", "time"))
    assert shape.active_when == source(tmp_path, WHOLE).active_when


def test_what_nobody_says_is_the_preset_s(tmp_path: Path) -> None:
    options = source(tmp_path, '[web]\npreset = "ga4"\n')
    assert options.shape() == PRESETS["ga4"].shape


def test_a_preset_on_the_command_line_takes_the_place_of_the_source_s(tmp_path: Path) -> None:
    options = InputOptions(preset="posthog").over(source(tmp_path, '[web]\npreset = "ga4"\n'))
    assert options.shape() == PRESETS["posthog"].shape


def test_without_options_rows_are_plain() -> None:
    assert InputOptions().shape() == PLAIN


def test_who_names_one_time_names_all_of_them() -> None:
    ts = InputOptions(columns=fields_written("ts=when", WHERE)).shape()
    assert ts.fields["ts"] == field(("when",)) and "day" not in ts.fields
    assert ts.fields["op"] == PLAIN.fields["op"]
    day = InputOptions(preset="segment", columns=fields_written("day=date", WHERE)).shape()
    assert day.fields["day"] == field(("date",)) and "ts" not in day.fields


@pytest.mark.parametrize("text", ["", "ab", '"', "'", "\n", "a", "1"])
def test_what_cannot_separate_columns_is_no_delimiter(text: str) -> None:
    with pytest.raises(BadSetting, match="not a delimiter"):
        delimiter_written(text, "--delimiter")


def test_a_tab_may_be_written_as_a_word_or_an_escape() -> None:
    assert delimiter_written(r"\t", "-") == delimiter_written("tab", "-") == delimiter_written("\t", "-") == "\t"


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "Europe", "\0"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(BadSetting, match="no such time zone"):
        zone_written(zone, "--zone")


def test_a_unit_that_is_none_is_refused() -> None:
    with pytest.raises(BadSetting, match="It can be s, ms, us, ns"):
        unit_written("min", "--unit")
