"""CSV: what a quoted field holds is never read as a row, and every line is accounted for."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import DOUBTFUL, NO_USER, UNPARSABLE, Limits
from dpdau_assets.core.ports.events import Scan
from dpdau_assets.core.publication.ingest import DoubtfulRemovals, IngestReport, NotTaken, ingest_scan
from dpdau_tests.core.publication.test_ingest import SETTINGS, Folder
from dpdau_tests.support.lengths import at_length, seed
from eval.moved_events import EVENTS
from resources.reading.engine_duckdb import DuckDBEngine
from resources.reading.event_csv import Meant, csv_rows
from resources.reading.event_files import MAX_LINE_BYTES, event_file

LIMITS = Limits(date(2025, 1, 1), date(2025, 4, 30), ZoneInfo("UTC"))
GHOST = "ghost,-,2025-02-01,x"
"""What would erase somebody if it were a row."""


@dataclass(frozen=True)
class Seen:
    """What one file was read as."""

    accepted: int
    rejected: list[int]
    removals: set[str]


def seen(content: bytes, folder: Path) -> Seen:
    path = folder / "e.csv"
    path.write_bytes(content)
    with DuckDBEngine().scan([event_file(path)], LIMITS) as scan:
        return Seen(scan.accepted, [row.line for row in scan.rejected()], {event.user_id for event in scan.removals()})


def refusal(content: bytes, folder: Path) -> BadInput:
    with pytest.raises(BadInput) as raised:
        seen(content, folder)
    assert "ghost" not in str(raised.value)
    return raised.value


# --- Quoted fields -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [100, 131_073, MAX_LINE_BYTES - 100])
def test_a_sound_quoted_field_is_read_whole_however_long_it_is(length: int, tmp_path: Path) -> None:
    filling = "x" * (length - len(GHOST) - 2)
    content = f'user_id,op,day,note\na,+,2025-02-01,"{filling}\n{GHOST}\n"\nb,-,2025-02-01,\n'
    assert seen(content.encode(), tmp_path) == Seen(2, [], {"b"})


def test_a_row_longer_than_the_limit_refuses_the_file_if_quotes_are_in_it(tmp_path: Path) -> None:
    rows = f'user_id,op,day,note\na,+,2025-02-01,"{"x" * 400_000}\n{"y" * 700_000}\n{GHOST}\n"\nb,+,2025-02-01,\n'
    assert refusal(rows.encode(), tmp_path).fields["lines"] == [2]
    one_line = f'user_id,op,day,note\nb,+,2025-02-01,\na,+,2025-02-01,{"x" * MAX_LINE_BYTES}"\n{GHOST}\n"\n'
    assert refusal(one_line.encode(), tmp_path).fields["lines"] == [3]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (f'a,+,2025-02-01,"never closed\n{GHOST}\n', 2),
        (f'a,+,2025-02-01,x\n"b,+,2025-02-01,x\n{GHOST}\n', 3),
        (f'a,+,2025-02-01,note\n{GHOST}\nmore"\n', 4),
        (f'a,+,2025-02-01,5" pipe\n{GHOST}\n', 2),
        (f'a,+,2025-02-01,"note" more\n{GHOST}\n', 2),
        (f'a,+,2025-02-01, "note\n{GHOST}\n"\n', 2),
        (f'a,+,2025-02-01,"he said \\"hi\\"\n{GHOST}\n"\n', 2),
    ],
)
def test_a_file_whose_quotes_do_not_say_where_a_row_ends_is_refused_with_the_line(
    rows: str, line: int, tmp_path: Path
) -> None:
    error = refusal(f"user_id,op,day,note\n{rows}".encode(), tmp_path)
    assert error.fields["lines"] == [line] and f"line {line}" in error.reason and "e.csv" in error.reason


# --- Backslashes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        '"C:\\",+,2025-02-01,x\n"D:\\",+,2025-02-01,x\n',
        'a,+,2025-02-01,"{""said"": ""so: \\""hi\\"", and went""}"\nb,+,2025-02-01,\n',
        'a,+,2025-02-01,"C:\\"\nb,+,2025-02-01,\n',
        'a,+,2025-02-01,"{""at"": ""C:\\\\dir\\\\""}"\nb,+,2025-02-01,\n',
        'CORP\\a,+,2025-02-01,"{""at"": ""C:\\\\dir\\\\""}"\nCORP\\b,+,2025-02-01,\n',
    ],
)
def test_a_backslash_before_a_quote_is_text_where_only_that_reading_is_sound(rows: str, tmp_path: Path) -> None:
    assert seen(f"user_id,op,day,note\n{rows}".encode(), tmp_path) == Seen(2, [], set())


@pytest.mark.parametrize(
    "rows",
    [
        f'a,+,2025-02-01,"note \\"\n{GHOST}\n"\n\\",+,2025-02-01,x\n',
        '"a\\",-,2025-02-01,x\n",+,2025-02-01,y\\"\n',
        f'a,+,2025-02-01,"note \\"\n{GHOST}\n"\n\\",+,2025-02-01,x\nx,y\n',
    ],
)
def test_a_file_that_is_sound_with_and_without_escapes_and_says_two_things_is_refused(
    rows: str, tmp_path: Path
) -> None:
    assert "a backslash stands before a quote" in refusal(f"user_id,op,day,note\n{rows}".encode(), tmp_path).reason


# --- Lines that are lost -----------------------------------------------------------------------------------------


def test_every_line_of_a_broken_row_is_counted(tmp_path: Path) -> None:
    swallowed = "\n".join(f"u{n},+,2025-02-01,x" for n in range(50))
    for row in (f'"{swallowed}",+,2025-02-01,x', f'a,+,"{swallowed}",x', f'"{swallowed}"', f'a,"{swallowed}",x'):
        outcome = seen(f"user_id,op,day,note\nb,+,2025-02-01,x\nc,+,2025-02-01,x\n{row}\n".encode(), tmp_path)
        assert outcome.rejected[-50:] == list(range(4, 54)) and not outcome.removals
        assert outcome.accepted + len(outcome.rejected) == 52


def test_an_id_may_have_a_line_break_and_a_note_may_have_rows_in_it(tmp_path: Path) -> None:
    content = f'user_id,op,day,note\n"line one\nline two",+,2025-02-01,x\na,+,2025-02-01,"{GHOST}\n{GHOST}"\n'
    assert seen(content.encode(), tmp_path) == Seen(2, [], set())
    content = 'user_id,op,day,reference,days\n"Doe,\nJane",+,2025-02-01,"see\nthere","1,\n2"\n'
    assert seen(content.encode(), tmp_path) == Seen(1, [], set())


def test_an_id_beside_a_line_without_a_comma_may_be_a_piece_of_one_and_is_nobodys(tmp_path: Path) -> None:
    """A line break has cut it off, at its end or at its beginning."""
    first = "a,+,2025-02-01,x\nmary-\nanna,+,2025-02-01,x\nb,+,2025-02-01,x\n"
    assert seen(f"user_id,op,day,note\n{first}".encode(), tmp_path) == Seen(2, [3, 4], set())
    last = "+,2025-02-01,a\n+,2025-02-01,anna\n\n-mary\n+,2025-02-01,b\n+,2025-02-01,c\n"
    assert seen(f"op,day,user_id\n{last}".encode(), tmp_path) == Seen(3, [3, 5], set())


@pytest.mark.parametrize(
    "rows",
    [
        "mary-\nghost,-,2025-02-01,x",
        "u1,+,forwarded:\\\nghost,-,please remove,2025-02-01",
        "u1,+,2025-02-01,foo\nb\xe4r\nghost,-,2025-02-01,x",
        "u1,+,hi\nghost,-,2025-02-01,x\nghost,-,2025-02-01,y\nghost,-,2025-02-01,z\nbye,2025-02-01",
        "u1,+,2025-02-01,foo\nbar\nsome,+,2025-02-01,x\nghost,-,2025-02-01,x",
        "u1,+,2025-02-01,foo\nb,a,r\r,q\nghost,-,2025-02-01,x",
        f"u1,+,2025-02-01,x\nghost,-,2025-02-01,x\n{'x' * (MAX_LINE_BYTES + 9)}",
        "u1,+,2025-02-01,x,y\nghost,-,2025-02-01,x",
        "u1,+,2025-02-01,Hello\nplease remove\n\n\nghost,-,2025-02-01,x\n\n\nbye",
        "u1,+,2025-02-01,Hello\nthese:\n" + "ghost,-,2025-02-01,x\n" * 12 + "bye",
    ],
)
def test_a_removal_near_a_row_that_fell_to_pieces_erases_nobody(rows: str, tmp_path: Path) -> None:
    """`ghost` has not asked: a line break, or a quote that is gone, has made a row of what was a note."""
    good = "".join(f"u{n},+,2025-02-01,x\n" for n in range(9))
    end = "b,+,2025-02-01,x\n" * 6 + "d,-,2025-02-01,x\n"
    content = f"user_id,op,day,note\n{good}{rows}\n{end}".encode("latin-1")
    outcome = seen(content, tmp_path)
    blank = content.split(b"\n")[:-1].count(b"")
    assert outcome.removals == {"d"} and outcome.accepted + len(outcome.rejected) == content.count(b"\n") - 1 - blank


@pytest.mark.parametrize(
    "content",
    [
        "day,op,user_id\n2025-02-01,+,a\n2025-02-01,-,she\n(301 rows)\n",
        "user_id,op,day,x\na,+,2025-02-01,y\n# removals\nshe,-,2025-02-01,y\n",
        "user_id,op,day,x\n# exported\nshe,-,2025-02-01,y\na,+,2025-02-01,y\n",
    ],
)
def test_a_sound_removal_beside_a_comment_is_doubtful_and_not_lost(content: str, tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text(content)
    with DuckDBEngine().scan([event_file(path)], LIMITS) as scan:
        assert scan.rejections().by_reason() == {UNPARSABLE: 1, DOUBTFUL: 1}


@pytest.mark.parametrize(
    "rows",
    [
        'u1,+,2025-02-01,x\nu2,-,2025-02-01,"{""a"":""x\\""y""}"\n',
        '"u1","+","2025-02-01","x"\n"u2","-","2025-02-01","C:\\d\\"\n',
        'u1,+,2025-02-01,"x,y"\r\r\nu2,-,2025-02-01,z\r\r\n',
        'u1,+,2025-02-01,"x,y"\r\nu2,-,2025-02-01,"z"\r',
    ],
)
def test_sound_files_of_other_programs_are_read(rows: str, tmp_path: Path) -> None:
    assert seen(f"user_id,op,day,note\n{rows}".encode(), tmp_path) == Seen(2, [], {"u2"})


def test_a_line_of_rows_between_carriage_returns_that_is_too_long_to_be_counted_refuses_the_file(
    tmp_path: Path,
) -> None:
    rows = "\r".join(f"u{n},-,2025-02-01,x" for n in range(60_000))
    assert refusal(f"user_id,op,day,note\na,+,2025-02-01,x\n{rows}\n".encode(), tmp_path).fields["lines"] == [3]


def test_doubtful_removals_refuse_the_file_and_are_left_out_of_what_is_taken_in_part(tmp_path: Path) -> None:
    good = "".join(f"u{n},+,2025-02-01,x\n" for n in range(400))
    path = tmp_path / "e.csv"
    path.write_text(f"user_id,op,day,note\nd,-,2025-02-01,x\n{good}u1,+,hi\nghost,-,2025-02-01,x\n")
    store = Folder(tmp_path / "store")
    with pytest.raises(DoubtfulRemovals, match="near rows that cannot be parsed") as raised:
        store.ingest(path)
    assert raised.value.exit_code == 4 and not store.erasures.noted and store.inbox.batches() == []
    assert (raised.value.report.removals_waiting, raised.value.report.rejected) == (2, 2)
    report = store.ingest(path, partial=True)
    assert (report.ingested, report.rejections.by_reason()) == (401, {UNPARSABLE: 1, DOUBTFUL: 1})
    assert report.removals_waiting == 1
    assert len(store.erasures.noted[0]) == 1


def test_a_removal_near_a_row_with_a_bad_value_is_taken(tmp_path: Path) -> None:
    for row in (b"a,+,never,x", b",,,", b"a,?,2025-02-01,x"):
        assert seen(b"user_id,op,day,note\n" + row + b"\nb,-,2025-02-01,x\n", tmp_path) == Seen(1, [2], {"b"})


def test_of_json_lines_a_removal_between_two_pieces_erases_nobody_and_one_beside_a_bad_line_does(
    tmp_path: Path,
) -> None:
    ghost = '{"user_id": "ghost", "op": "-", "day": "2025-02-01"}'
    for pieces in (
        f'{{"user_id": "u1", "note": "log:\n{ghost}\n"}}',
        f'{{"rel": [\n{ghost}\n\n]}}',
        f'["\n\n{ghost}\n"]',
    ):
        store, path = Folder(tmp_path / "store"), tmp_path / "e.jsonl"
        path.write_text('{"user_id": "a", "day": "2025-02-01"}\n' * 300 + pieces)
        with pytest.raises(DoubtfulRemovals):
            store.ingest(path)
    path.write_text(f'{{"user_id": "a", "day": "2025-02-01"}}\nno JSON\n{ghost.replace("ghost", "b")}\n')
    with DuckDBEngine().scan([event_file(path)], LIMITS) as scan:
        assert {event.user_id for event in scan.removals()} == {"b"}


def test_rows_between_carriage_returns_are_counted_one_by_one(tmp_path: Path) -> None:
    rows = "\r".join(f"u{n},+,2025-02-01,x" for n in range(50))
    outcome = seen(f"user_id,op,day,note\na,+,2025-02-01,x\n{rows}\nb,+,2025-02-01,car\rriage\n".encode(), tmp_path)
    assert outcome == Seen(1, [3] * 50 + [4], set())


def test_a_header_that_may_have_been_meant_otherwise_is_refused(tmp_path: Path) -> None:
    reason = refusal(b"user_id,day,metadata.day\na,2025-02-01,-\n", tmp_path).reason
    assert "the column metadata.day, and none that is called metadata.days" in reason
    assert seen(b"user_id,day,Op\na,2025-02-01,-\n", tmp_path) == Seen(1, [], {"a"})
    assert seen(b"user_id,day,op,OP,os,ip,date\na,2025-02-01,+,,,,\n", tmp_path).accepted == 1


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n", b"\r\n\n", b"user_id,op,day\n", b"\n\nuser_id,day\n"])
def test_a_csv_that_holds_nothing_has_no_rows(content: bytes, tmp_path: Path) -> None:
    assert seen(content, tmp_path) == Seen(0, [], set())


# --- Against what was written, and against another reading --------------------------------------------------------

texts = st.text(st.sampled_from("ab,\"\\\n'é "), max_size=8)


@settings(max_examples=at_length(test=60, ci=400, soak=5_000), deadline=None)
@given(
    rows=st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=6),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_what_another_program_writes_is_read_as_it_was_written(
    rows: list[tuple[str, str, str]], quoting: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.csv"
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator="\n").writerows([("one", "two", "three"), *rows])
    path.write_text(text.getvalue(), newline="")
    try:
        with csv_rows(event_file(path), ",", lambda _: Meant(frozenset())) as (header, numbered):
            read = [fields for _, fields in numbered]
    except BadInput as error:
        assert "backslash" in error.reason and '\\"' in text.getvalue()
        return
    assert header == ["one", "two", "three"] and read == [list(row) for row in rows]


def real_file(events: int, seed: int) -> bytes:
    """Rows of a real log, one of ten a removal, with notes as people write them: some of them look like rows."""
    choose = random.Random(seed)
    table = pq.read_table(EVENTS).slice(choose.randrange(10_000), events).to_pylist()
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=choose.choice(["\n", "\r\n"]))
    writer.writerow(["user_id", "op", "day", "note"])
    notes = [
        "",
        "x",
        'said "hi"',
        "two\nlines",
        f"a,b\n{GHOST}\n",
        f"{GHOST}\n{GHOST}",
        "C:\\dir\\",
        '{"a": "\\"b\\""}',
    ]
    for row in table:
        day = f"2025-02-{choose.randrange(1, 29):02}"
        writer.writerow([row["user_id"], choose.choice("+++++++++-"), day, choose.choice(notes)])
    return text.getvalue().encode()


def mutated(content: bytes, choose: random.Random) -> bytes:
    """One to three bytes changed, left out or put in, or the end cut off."""
    data = bytearray(content)
    for _ in range(choose.randrange(1, 4)):
        at = choose.randrange(len(data))
        match choose.choice(["flip", "insert", "insert", "leave out", "cut"]):
            case "flip":
                data[at] ^= 1 << choose.randrange(8)
            case "insert":
                data[at:at] = choose.choice([b'"', b'"', b"\\", b"\n", b"\r", b",", b'""', b'\\"', b"\0"])
            case "leave out":
                del data[at]
            case _:
                del data[max(at, len(data) - 40) :]
    return bytes(data)


@dataclass(frozen=True)
class Reading:
    """A row by the plain reading below: its lines, and its fields if each of these is text."""

    lines: int
    fields: list[str] | None


def plainly_read(content: bytes) -> Iterator[Reading]:
    """RFC 4180, a character at a time; ValueError where a quote is in a place that it has no word for."""
    fields, field, state, lines, sound = [], "", "begin", 1, True
    text = content.decode(errors="surrogateescape")
    for at, char in enumerate(text):
        end = char == "\n" and state != "quoted"
        if end or (char == "," and state != "quoted"):
            fields.append(field.rstrip("\r") if end and state != "closed" else field)
            field, state = "", "begin"
        elif char == '"' and state == "begin":
            state = "quoted"
        elif char == '"' and state == "quoted":
            state = "closed"
        elif char == '"' and state == "closed":
            field, state = field + char, "quoted"
        elif char == '"' or (state == "closed" and not ends_line(text, at)):
            raise ValueError
        elif state != "closed":
            field += char
            state = "quoted" if state == "quoted" else "plain"
            sound = (
                sound
                and not 0xDC80 <= ord(char) <= 0xDCFF
                and not (char == "\r" and state == "plain" and not ends_line(text, at))
            )
            lines += char == "\n"
        if end:
            yield Reading(lines, fields if sound else None)
            fields, lines, sound = [], 1, True
    if state == "quoted":
        raise ValueError
    if field or fields or state != "begin":
        yield Reading(lines, [*fields, field if state == "closed" else field.rstrip("\r")] if sound else None)


def ends_line(text: str, at: int) -> bool:
    """Whether nothing but carriage returns stands from here to where the line ends."""
    return text[at:].lstrip("\r")[:1] in ("\n", "") and text[at] == "\r"


def taken_or_not(scan: Scan, store: Folder) -> tuple[str, IngestReport]:
    try:
        return "taken", ingest_scan(scan, store.store(SETTINGS), progress=lambda _: None)
    except NotTaken as error:
        return "refused", error.report


def lines_of(content: bytes) -> int:
    return content.count(b"\n") + (not content.endswith(b"\n"))


@pytest.mark.also_long(weight=3)
def test_of_mutated_files_nobody_is_erased_that_no_row_names_and_every_line_is_accounted_for(
    tmp_path: Path,
) -> None:
    file_of = cache(real_file)
    choose, outcomes = random.Random(seed()), {"taken": 0, "refused": 0, "unreadable": 0}
    for number in range(at_length(test=20, ci=200, soak=20_000)):
        content = mutated(file_of(choose.choice([3, 40, 400]), seed() + number % 20), choose)
        try:
            rows = list(plainly_read(content.removeprefix(b"\xef\xbb\xbf")))
        except ValueError:
            rows = None
        store, path = Folder(tmp_path / "store"), tmp_path / "e.csv"
        path.write_bytes(content)
        try:
            with DuckDBEngine(threads=1).scan([event_file(path)], LIMITS) as scan:
                accepted, lost = scan.accepted, [row.line for row in scan.rejected()]
                asked = list(scan.removals())
                outcome, report = taken_or_not(scan, store)
        except BadInput:
            outcomes["unreadable"] += 1
            continue
        outcomes[outcome] += 1
        assert rows is not None, "it could not be told where a row ends"
        named = {fields[0] for fields in (row.fields for row in rows[1:]) if fields and fields[1:2] == ["-"]}
        assert {event.user_id for event in asked} <= named - {"ghost"}
        assert len(store.erasures.noted[0] if store.erasures.noted else []) == (len(asked) if outcome == "taken" else 0)
        assert report.ingested == (accepted if outcome == "taken" else 0)
        assert report.rejected == len(lost)
        kept = lines_of(content) - len(set(lost))
        within = sum(row.lines - 1 for row in rows)  # of sound rows, or of bad ones that are one row all the same
        blank = sum(row.fields is not None and len(row.fields) == 1 and not row.fields[0].strip() for row in rows)
        assert accepted <= kept - blank - 1 <= accepted + within
    assert at_length(test=True, ci=False, soak=False) or min(outcomes.values()) > 0, "each of them is reached"


def test_a_row_of_empty_fields_is_a_bad_row_and_no_blank_line(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user_id,op,day\n,,\n")
    with DuckDBEngine().scan([event_file(path)], LIMITS) as scan:
        assert [row.reason for row in scan.rejected()] == [NO_USER]
    path.write_text("user_id,op,day\na,+\n")
    with DuckDBEngine().scan([event_file(path)], LIMITS) as scan:
        assert [row.reason for row in scan.rejected()] == [UNPARSABLE]


@pytest.mark.parametrize("beyond", ["", ",", ",,,", ',"",', ",\\N,"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["read by DuckDB", "read here"])
def test_what_stands_beyond_the_last_name_may_be_nothing_and_is_else_a_broken_row(
    beyond: str, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / "e.csv"
    text = f"user_id,day\na,2025-02-01{beyond}\nb,2025-02-01\n"
    path.write_bytes(text.replace("\n", ending, 1).encode())  # line ends of two kinds are no matter of DuckDB
    with DuckDBEngine().scan([event_file(path)], LIMITS) as scan:
        assert (scan.accepted, scan.rejections().total) == (2, 0)
    path.write_bytes(text.replace("\nb", ",x\nb").replace("\n", ending, 1).encode())
    with DuckDBEngine().scan([event_file(path)], LIMITS) as scan:
        assert (scan.accepted, scan.rejections().by_reason()) == (1, {UNPARSABLE: 1})
