"""A file of erasure requests says exactly whom and which days, or is refused whole: by line, without its content."""

from __future__ import annotations

import bz2
import gzip
import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from dpdau_assets.core import events
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import Event, Limits
from resources.reading.erasure_files import (
    BAD_REFERENCE,
    MISSPELT,
    REFERENCE_IS_ID,
    TWO_LIMITS,
    people_of,
    read_requests,
    request_of,
)

LIMITS = Limits(date(2025, 1, 1), date(2025, 3, 11), ZoneInfo("UTC"))


def read(folder: Path, name: str, content: str | bytes) -> list[Event]:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return list(read_requests(folder / name, LIMITS).asked)


def refusal(folder: Path, name: str, content: str | bytes) -> BadInput:
    with pytest.raises(BadInput) as raised:
        read(folder, name, content)
    return raised.value


def through(user_id: str, day: date = LIMITS.last) -> Event:
    return Event(user_id, "-", day)


def listed(user_id: str, *days: date) -> Event:
    return Event(user_id, "-", days[-1], days)


@pytest.mark.parametrize("name", ["requests.csv", "requests.csv.gz"])
def test_csv_says_through_a_day_or_just_some_days_and_through_tomorrow_by_default(name: str, tmp_path: Path) -> None:
    text = (
        "user_id,through,days\nanna,,\n"
        "ben,2025-02-03,\n"
        'cleo,,2025-02-05 2025-02-03;2025-02-03 ; 2025-01-09\ndora,,"[""2025-01-02""]"\n'
    )
    assert read(tmp_path, name, text) == [
        through("anna"),
        through("ben", date(2025, 2, 3)),
        listed("cleo", date(2025, 1, 9), date(2025, 2, 3), date(2025, 2, 5)),
        listed("dora", date(2025, 1, 2)),
    ]


@pytest.mark.parametrize("name", ["requests.jsonl", "requests.ndjson.gz"])
def test_json_lines_say_the_same(name: str, tmp_path: Path) -> None:
    rows = [
        {"user_id": "anna"},
        {"user_id": "ben", "through": "2025-02-03", "days": None},
        {"user_id": "cleo", "days": ["2025-02-03", "2025-01-09"]},
    ]
    text = "\n \n".join(json.dumps(row) for row in rows)
    assert read(tmp_path, name, text) == [
        through("anna"),
        through("ben", date(2025, 2, 3)),
        listed("cleo", date(2025, 1, 9), date(2025, 2, 3)),
    ]


@pytest.mark.parametrize("column", ["through", "erase_day"])
def test_the_through_day_has_two_names(column: str, tmp_path: Path) -> None:
    wanted = [through("anna", date(2025, 2, 3))]
    assert read(tmp_path, "a.csv", f"{column},user_id\n2025-02-03,anna\n") == wanted
    assert read(tmp_path, "a.jsonl", json.dumps({"user_id": "anna", column: "2025-02-03"})) == wanted


def test_listed_days_may_stand_in_metadata_days_as_in_events(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "user_id,metadata.days\nanna,2025-02-03;2025-01-09\n") == [
        listed("anna", date(2025, 1, 9), date(2025, 2, 3))
    ]


def test_days_that_can_hold_nothing_are_taken_like_any_other(tmp_path: Path) -> None:
    rows = [{"user_id": "anna", "through": "2024-12-31"}, {"user_id": "ben", "days": ["2025-01-09", "1999-01-01"]}]
    assert read(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))) == [
        through("anna", date(2024, 12, 31)),
        listed("ben", date(1999, 1, 1), date(2025, 1, 9)),
    ]


def test_a_row_may_have_a_reference_of_up_to_64_characters(tmp_path: Path) -> None:
    longest = "T-2025.03_" + "x" * 54
    asked = read(tmp_path, "a.csv", f"user_id,reference\nanna,{longest}\nben,\nben,T-1\n")
    assert [event.reference for event in asked] == [longest, None, "T-1"]


def test_a_reference_that_is_an_id_of_the_file_refuses_it_without_quoting_the_id(tmp_path: Path) -> None:
    error = refusal(tmp_path, "a.csv", "user_id,reference\nanna,T-1\nben,secret-cleo\nsecret-cleo,T-3\n")
    assert error.fields["lines"] == [3] and REFERENCE_IS_ID in error.reason
    assert "secret" not in str(error)


def test_ids_that_differ_by_case_space_or_unicode_form_alone_are_taken_and_their_lines_warned_of(
    tmp_path: Path,
) -> None:
    people = ["anna", "Anna", "ben", " ben ", "zo\u00eb", "zoe\u0308", "\u017fam", "SAM", "cleo", "cleo", "dora"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"user_id": user_id}) + "\n" for user_id in people))
    requests = read_requests(tmp_path / "a.jsonl", LIMITS)
    assert [event.user_id for event in requests.asked] == people
    assert requests.alike == (1, 2, 3, 4, 5, 6, 7, 8)


def test_fields_that_say_nothing_about_days_are_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "ticket,user_id,reason\n7,anna,asked\n") == [through("anna")]
    assert read(tmp_path, "a.jsonl", '{"user_id": "anna", "request_id": 7, "note": null}') == [through("anna")]


def test_a_file_without_rows_asks_for_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "user_id,through\n") == []
    assert read(tmp_path, "a.jsonl", "") == []


def test_one_bad_row_refuses_the_whole_file_by_line_and_reason_and_never_by_content(tmp_path: Path) -> None:
    text = "user_id,through\nanna,2025-02-03\n,2025-02-03\nsecret-ben,someday\nsecret-cleo,2025-03-12\n"
    error = refusal(tmp_path, "requests.csv", text)
    assert error.fields["lines"] == [3, 4, 5]
    assert "requests.csv has 3 bad row(s)" in error.reason
    assert f"line 3: {events.NO_USER}" in error.reason
    assert "line 4: through is not a real date" in error.reason
    assert f"line 5: {events.TOO_LATE}" in error.reason
    assert "secret" not in str(error) and "someday" not in str(error)


def test_at_most_twenty_lines_are_shown(tmp_path: Path) -> None:
    error = refusal(tmp_path, "requests.csv", "user_id,through\n" + ",2025-02-03\n" * 25)
    assert error.reason.count("\n  line ") == 20
    assert error.reason.endswith("and 5 more")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"user_id": 7.5}, events.NO_USER),
        ({"user_id": True}, events.NO_USER),
        ({"user_id": ""}, events.NO_USER),
        ({"through": "2025-02-03"}, events.NO_USER),
        ({"user_id": "\ud800"}, events.UNPARSABLE),
        (["anna"], events.UNPARSABLE),
        ({"user_id": "anna", "through": ""}, "through is not a real date written YYYY-MM-DD or YYYYMMDD."),
        ({"user_id": "anna", "through": 20250230}, "through is not a real date written YYYY-MM-DD or YYYYMMDD."),
        ({"user_id": "anna", "days": []}, "days is not a non-empty list of real dates written YYYY-MM-DD or YYYYMMDD."),
        (
            {"user_id": "anna", "days": "2025-02-03"},
            "days is not a non-empty list of real dates written YYYY-MM-DD or YYYYMMDD.",
        ),
        (
            {"user_id": "anna", "days": ["2025-02-30"]},
            "days is not a non-empty list of real dates written YYYY-MM-DD or YYYYMMDD.",
        ),
        ({"user_id": "anna", "days": ["2025-03-12"]}, "days names a day after tomorrow."),
        ({"user_id": "anna", "reference": 7}, BAD_REFERENCE),
        ({"user_id": "anna", "reference": ""}, BAD_REFERENCE),
        ({"user_id": "anna", "reference": "T 7"}, BAD_REFERENCE),
        ({"user_id": "anna", "reference": "x" * 65}, BAD_REFERENCE),
        ({"user_id": "ben", "reference": "ben"}, REFERENCE_IS_ID),
        ({"user_id": "ben", "reference": "anna"}, REFERENCE_IS_ID),
        ({"user_id": "anna", "through": "2025-02-03", "erase_day": "2025-02-03"}, TWO_LIMITS),
        ({"user_id": "anna", "through": "2025-02-03", "days": ["2025-02-03"]}, TWO_LIMITS),
        ({"user_id": "anna", "throu": "2025-02-03"}, MISSPELT),
        ({"user_id": "anna", "day": "2025-02-03", "op": "-"}, MISSPELT),
        ({"user_id": "anna", "metadata": {"days": ["2025-02-03"]}}, MISSPELT),
    ],
)
def test_a_bad_json_row_is_refused_and_never_widened(row: object, reason: str, tmp_path: Path) -> None:
    error = refusal(tmp_path, "a.jsonl", '{"user_id": "anna"}\n' + json.dumps(row))
    assert f"line 2: {reason}" in error.reason
    assert error.fields["lines"] == [2]


@pytest.mark.parametrize(
    "row",
    ["anna,[", "anna,[]", "anna,{}", "anna,;", "anna,2025-02-03;;2025-02-04", "anna", "anna,2025-02-03,x"],
)
def test_a_bad_csv_row_is_refused_and_never_widened(row: str, tmp_path: Path) -> None:
    assert 2 in cast(list[int], refusal(tmp_path, "a.csv", f"user_id,days\n{row}\n").fields["lines"])


@pytest.mark.parametrize(
    "line", [b"\xff", b"{", b'{"user_id": "a", "user_id": "b"}', b"[" * 100_000, b'{"user_id": "' + b"a" * (1 << 20)]
)
def test_a_line_that_is_no_json_object_is_a_bad_row(line: bytes, tmp_path: Path) -> None:
    assert f"line 1: {events.UNPARSABLE}" in refusal(tmp_path, "a.jsonl", line + b'\n{"user_id": "anna"}').reason


@pytest.mark.parametrize("column", ["throu", "Through", "erase_date", "until", "day", "Days", "op", "metadata"])
def test_a_column_that_may_have_been_meant_to_limit_the_removal_is_refused_by_name(column: str, tmp_path: Path) -> None:
    assert f"the column {column}, which is not known" in refusal(tmp_path, "a.csv", f"user_id,{column}\na,b\n").reason


def test_a_file_without_user_id_is_refused_without_telling_its_first_line(tmp_path: Path) -> None:
    error = refusal(tmp_path, "a.csv", "secret-anna,2025-02-03\nben,2025-02-03\n")
    assert "does not name user_id" in error.reason
    assert "secret" not in str(error)
    assert "does not name user_id" in refusal(tmp_path, "empty.csv", "").reason


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert "twice" in refusal(tmp_path, "a.csv", "user_id,through,through\na,2025-02-03,2025-02-04\n").reason


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv.gz", gzip.compress(b"user_id\nanna\n", mtime=0)[:-6], "cannot be read as gzip"),
        ("a.jsonl.gz", b"", "cannot be read as gzip"),
        ("none.csv", None, "cannot be opened"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(name: str, content: bytes | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=says):
        read_requests(tmp_path / name, LIMITS)


ENDINGS = (".jsonl", ".ndjson", ".json", ".csv")
PACKED = (".gz", ".gzip", ".zst", ".zstd", ".bz2")


def packed(content: bytes, ending: str) -> bytes:
    """What a file with this ending holds."""
    if ending.endswith((".gz", ".gzip")):
        return gzip.compress(content)
    if ending.endswith(".bz2"):
        return bz2.compress(content)
    return pa.compress(content, codec="zstd", asbytes=True) if ending.endswith((".zst", ".zstd")) else content


@pytest.mark.parametrize(
    ("name", "says"),
    [("a.parquet", "Parquet"), ("a.PARQUET.gz", "Parquet"), ("a.txt", "no known ending"), ("a.gz", "no known ending")],
)
def test_a_file_of_another_kind_is_answered_with_the_endings_that_requests_are_read_from(
    name: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(BadInput) as refused:
        read_requests(tmp_path / name, LIMITS)
    assert says in refused.value.reason
    assert re.findall(r"\.[a-z0-9]+", refused.value.remedy) == [*ENDINGS, *PACKED]


@pytest.mark.parametrize("ending", [f"{ending}{packing}" for ending in ENDINGS for packing in ("", *PACKED)])
def test_each_of_the_endings_that_are_listed_is_read(ending: str, tmp_path: Path) -> None:
    content = b"user_id\nanna\n" if ending.startswith(".csv") else b'{"user_id": "anna"}\n'
    path = tmp_path / f"a{ending}"
    path.write_bytes(packed(content, ending))
    assert [event.user_id for event in read_requests(path, LIMITS).asked] == ["anna"]


def test_a_request_may_name_a_person_by_a_number_and_a_day_without_hyphens() -> None:
    for user_id in (7, 7.0, "7"):
        assert request_of({"user_id": user_id}, LIMITS) == through("7")
    for day in (20250203, "20250203", "2025-02-03"):
        assert request_of({"user_id": "anna", "through": day}, LIMITS) == through("anna", date(2025, 2, 3))
        assert request_of({"user_id": "anna", "days": [day]}, LIMITS) == listed("anna", date(2025, 2, 3))


def test_a_request_names_whom_the_events_of_this_spelling_are_of() -> None:
    spelled = replace(LIMITS, normalize=("nfc", "trim", "casefold"))
    for user_id in ("jos\u00e9@example.org", "Jose\u0301@example.org", " JOS\u00c9@Example.org\t"):
        assert request_of({"user_id": user_id}, spelled) == through("jos\u00e9@example.org")
        assert request_of({"user_id": user_id}, LIMITS) == through(user_id)
    assert request_of({"user_id": " "}, spelled) == events.NO_USER


def test_a_reference_may_be_nobodys_id_in_another_spelling_either() -> None:
    spelled = replace(LIMITS, normalize=("casefold",))
    assert request_of({"user_id": "ben", "reference": "BEN"}, spelled) == REFERENCE_IS_ID
    asked = [request_of({"user_id": "ben"}, spelled), request_of({"user_id": "cleo", "reference": "Ben"}, spelled)]
    assert "Ben" in people_of([event for event in asked if isinstance(event, Event)], spelled)
