"""Nobody is erased by what a row does not say, and everybody who asked is, however their file is written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.event_shape import PLAIN, ActiveWhen, EventShape, Field
from dpdau_assets.core.events import BAD_LIST, DOUBTFUL, UNPARSABLE, Event, Limits
from resources.reading.engine_duckdb import DuckDBEngine, DuckDBScan
from resources.reading.event_files import event_files

LIMITS = Limits(date(2025, 1, 1), date(2025, 4, 30), ZoneInfo("UTC"))
DAY = "2025-02-01"
Seen = tuple[set[Event], list[tuple[int, str]], int, int]


def asked(user_id: str, day: date = LIMITS.last, *days: date) -> Event:
    return Event(user_id, "-", day, days)


def seen(path: Path, shape: EventShape = PLAIN) -> Seen:
    """Removals, bad rows, rows that are accepted, and rows that are no activity."""
    with DuckDBEngine().scan(event_files(path), LIMITS, shape=shape) as scan:
        return _of(scan)


def _of(scan: DuckDBScan) -> Seen:
    rejected = [(row.line, row.reason) for row in scan.rejected()]
    return set(scan.removals()), rejected, scan.accepted, scan.idle


def lines(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def mapped(active: ActiveWhen | None = None, **columns: str) -> EventShape:
    fields = {name: Field((tuple(where.split(".")),)) for name, where in columns.items()}
    return EventShape({**PLAIN.fields, **fields}, active)  # type: ignore[dict-item]


OPENED = [
    ActiveWhen(Field((("event",),)), frozenset(["open"])),
    ActiveWhen(Field((("event",),)), frozenset(["x"]), False),
]


# --- What counts as active ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("active", OPENED)
def test_a_piece_of_a_broken_row_erases_nobody_whatever_counts_as_active(active: ActiveWhen, tmp_path: Path) -> None:
    csv = lines(
        tmp_path / "e.csv",
        ["user_id,op,day,event", f"a,+,{DAY},open", "evil", f"victim,-,{DAY},x", "rest,", f"b,+,{DAY},open"],
    )
    removals, rejected, _, _ = seen(csv, mapped(active))
    assert not removals and (4, DOUBTFUL) in rejected and {3, 5} <= {line for line, _ in rejected}
    rows = [
        {"user_id": "a", "day": DAY, "event": "open"},
        '{"user_id": "evil',
        {"user_id": "victim", "op": "-"},
        'rest"}',
    ]
    removals, rejected, _, _ = seen(lines(tmp_path / "e.jsonl", rows), mapped(active))
    assert not removals and rejected == [(2, UNPARSABLE), (3, DOUBTFUL), (4, UNPARSABLE)]


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl"])
def test_rows_that_are_no_activity_are_counted_apart_and_move_no_line_of_a_bad_one(name: str, tmp_path: Path) -> None:
    rows = [*[("i", DAY, "push")] * 5, ("b", "x", "open"), ("c", DAY, "open"), ("d", "x", "push")]
    if name == "e.csv":
        path = lines(tmp_path / name, ["user_id,day,event", *(",".join(row) for row in rows)])
    else:
        path = lines(tmp_path / name, [dict(zip(("user_id", "day", "event"), row, strict=True)) for row in rows])
    removals, rejected, accepted, idle = seen(path, mapped(OPENED[0]))
    assert (removals, [line for line, _ in rejected], accepted, idle) == (set(), [6 + (name == "e.csv")], 1, 6)


def test_a_removal_is_a_request_whatever_counts_as_active_and_however_it_is_escaped(tmp_path: Path) -> None:
    rows = ['{"user_id": "v", "op": "\\u002d", "event": "push"}', {"user_id": "w", "op": "-"}]
    assert seen(lines(tmp_path / "e.jsonl", rows), mapped(OPENED[0]))[0] == {asked("v"), asked("w")}
    shape = mapped(ActiveWhen(Field((("op",),)), frozenset(["open"])))
    assert seen(lines(tmp_path / "f.jsonl", rows), shape)[0] == {asked("v"), asked("w")}


# --- Names --------------------------------------------------------------------------------------------------------


IN_CI = ["line", "broken", "Line", "file_index", "is_broken", "raw"]


@pytest.mark.parametrize(
    "column", ["file", "chunk", "doc", *(pytest.param(name, marks=pytest.mark.slow) for name in IN_CI)]
)
def test_a_column_may_be_called_as_one_of_ours(column: str, tmp_path: Path) -> None:
    shape = mapped(user_id=column)
    expected = ({asked("anna")}, [], 2, 0)
    rows = [{column: "anna", "op": "-"}, {column: "b", "day": DAY}]
    assert seen(lines(tmp_path / "e.jsonl", rows), shape) == expected
    assert seen(lines(tmp_path / "f.jsonl", [{"batch": rows}]), shape) == expected
    (tmp_path / "g.json").write_text(json.dumps(rows))
    assert seen(tmp_path / "g.json", shape) == expected
    csv = [f"{column},op,day,note", "anna,-,,", f'b,+,{DAY},"x"']
    assert seen(lines(tmp_path / "e.csv", csv), shape) == expected
    far = [f"u{n},+,{DAY}," for n in range(30)]
    assert seen(lines(tmp_path / "f.csv", [*csv, *far, 'c,+,x,"a\nb",c']), shape)[0] == {asked("anna")}
    table = pa.table({column: ["anna", "b"], "op": ["-", "+"], "day": [None, DAY]})
    pq.write_table(table, tmp_path / "e.parquet")
    assert seen(tmp_path / "e.parquet", shape) == expected


@pytest.mark.parametrize(
    ("first", "row"),
    [
        ({"OP": "+"}, {"user_id": "v", "day": DAY, "op": "-"}),
        ({"Metadata": {"x": 1}}, {"user_id": "v", "op": "-", "metadata": {"days": [DAY]}}),
        ({}, {"user_id": "v", "day": DAY, "OP": "-"}),
        ({}, {"user_id": "v", "op": "-", "Metadata": {"days": [DAY]}}),
        ({}, {"user_id": "v", "op": "-", "Day": DAY}),
    ],
)
def test_a_removal_that_names_a_field_otherwise_than_the_first_rows_do_is_a_bad_row(
    first: dict[str, object], row: dict[str, object], tmp_path: Path
) -> None:
    rows = [{"user_id": "a", "day": DAY, **first} for _ in range(1001)]
    removals, rejected, _, _ = seen(lines(tmp_path / "e.jsonl", [*rows, row]))
    assert not removals and rejected == [(1002, UNPARSABLE)]


def test_days_beside_metadata_limit_a_removal_in_any_row(tmp_path: Path) -> None:
    rows = [{"user_id": "a", "day": DAY} for _ in range(1001)]
    late = {"user_id": "v", "op": "-", "metadata.days": [DAY]}
    day = date.fromisoformat(DAY)
    assert seen(lines(tmp_path / "e.jsonl", [*rows, late]))[0] <= {asked("v", day, day)}


# --- Objects that hold rows ---------------------------------------------------------------------------------------


def test_an_object_that_has_an_id_is_a_row_itself_and_nothing_in_it_is_one(tmp_path: Path) -> None:
    inside = [{"userId": "friend", "op": "-"}]
    path = lines(tmp_path / "e.jsonl", [{"userId": "u1", "day": DAY, "data": inside}])
    assert seen(path, mapped(user_id="userId")) == (set(), [], 1, 0)
    first = {"events": [{"user_id": "f", "day": DAY}]}
    later = {"user_id": "g", "op": "-", "events": [{"user_id": "h", "op": "-"}]}
    removals, rejected, accepted, _ = seen(lines(tmp_path / "f.jsonl", [first, later]))
    assert (removals, [reason for _, reason in rejected], accepted) == (set(), [UNPARSABLE], 1)


def test_an_object_that_holds_two_arrays_of_one_name_is_a_bad_row(tmp_path: Path) -> None:
    twice = f'{{"batch": [{{"user_id": "a", "day": "{DAY}"}}], "batch": [{{"user_id": "v", "op": "-"}}]}}'
    path = lines(tmp_path / "e.jsonl", [{"batch": [{"user_id": "b", "day": DAY}]}, twice])
    removals, rejected, accepted, _ = seen(path)
    assert (removals, [reason for _, reason in rejected], accepted) == (set(), [UNPARSABLE], 1)


@pytest.mark.parametrize(
    "content",
    [
        f'[{{"user_id": "secretone", "day": "{DAY}"}}] {{"user_id": "v", "op": "-"}}',
        f'[{{"user_id": "secretone", "day": "{DAY}"}}, {{"user_id": "b"',
        '{"batch": [{"user_id": "secretone", "op": "-"}, ',
    ],
)
def test_json_that_is_damaged_is_refused_in_our_words_and_erases_nobody(content: str, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(content)
    with pytest.raises(BadInput) as raised:
        seen(tmp_path / "e.json")
    assert "secretone" not in str(raised.value) and "cannot be read as json" in raised.value.reason


# --- How far a removal reaches -------------------------------------------------------------------------------------


def test_a_removal_never_grows_by_days_that_are_named_twice_or_almost_as_days(tmp_path: Path) -> None:
    metadata = ['{"days": null, "days": ["2025-03-01"]}', '{"Days": ["2025-03-01"]}', '{" days": ["2025-03-01"]}']
    quoted = [text.replace('"', '""') for text in metadata]
    removals, rejected, _, _ = seen(
        lines(tmp_path / "e.csv", ["user_id,op,day,metadata", *(f'v,-,,"{text}"' for text in quoted)])
    )
    assert not removals and [reason for _, reason in rejected] == [BAD_LIST] * 3
    rows = [f'{{"user_id": "v", "op": "-", "metadata": {text}}}' for text in metadata]
    removals, rejected, _, _ = seen(lines(tmp_path / "e.jsonl", rows))
    assert not removals and len(rejected) == 3
    columns = {"user_id": ["v"], "op": ["-"], "ts": [None], "metadata": [{"Days": ["2025-03-01"]}]}
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "e.parquet")
    assert seen(tmp_path / "e.parquet")[:2] == (set(), [(1, BAD_LIST)])


def test_a_removal_whose_person_is_named_twice_inside_erases_nobody(tmp_path: Path) -> None:
    row = '{"context": {"userId": "a", "userId": "b"}, "op": "-"}'
    removals, rejected, _, _ = seen(lines(tmp_path / "e.jsonl", [row]), mapped(user_id="context.userId"))
    assert not removals and rejected == [(1, UNPARSABLE)]


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl", "e.parquet"])
def test_a_folder_that_is_named_after_a_day_limits_no_removal(name: str, tmp_path: Path) -> None:
    folder = tmp_path / f"day={DAY}"
    folder.mkdir()
    path = folder / name
    if name == "e.csv":
        lines(path, ["user_id,op,note", "v,-,", "a,+,"])
    elif name == "e.jsonl":
        lines(path, [{"user_id": "v", "op": "-"}, {"user_id": "a"}])
    else:
        pq.write_table(pa.table({"user_id": ["v", "a"], "op": ["-", "+"]}), path)
    with DuckDBEngine().scan(event_files(path), LIMITS) as scan:
        assert _of(scan) == ({asked("v")}, [], 2, 0)
        assert scan.days() == [date.fromisoformat(DAY)]


# --- Parts --------------------------------------------------------------------------------------------------------


def test_what_too_little_memory_interrupts_is_not_counted_twice(tmp_path: Path) -> None:
    lines(tmp_path / "a.csv", ["user_id,op,day", f"v,-,{DAY}", "x,+,never"])
    pq.write_table(
        pa.table({"user_id": [f"user-{n:012}" for n in range(150_000)], "day": [DAY] * 150_000}), tmp_path / "b.parquet"
    )
    with DuckDBEngine("24MB", threads=1).scan(event_files(tmp_path), LIMITS) as scan:
        assert scan.part_count > 1
        removals, rejected, accepted, _ = _of(scan)
    assert (removals, len(rejected), accepted) == ({asked("v", date.fromisoformat(DAY))}, 1, 150_001)
