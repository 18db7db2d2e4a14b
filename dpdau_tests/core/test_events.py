"""The rules of one row, each with what it lets through and what it stops."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core import events
from dpdau_assets.core.event_shape import EventShape
from dpdau_assets.core.events import (
    Event,
    Limits,
    Row,
    calendar_day,
    day_of_moment,
    limits_of,
    plain_day,
    row_of_object,
    validate,
)
from dpdau_assets.core.settings import Settings

UTC_ZONE = ZoneInfo("UTC")
LIMITS = Limits(date(2025, 1, 1), date(2025, 3, 2), UTC_ZONE)


def reason_of(**fields: object) -> str:
    """The reason for a row that is valid but for these fields."""
    found = validate(Row(**{"user_id": "u", "day": "2025-02-01", **fields}), LIMITS)  # type: ignore[arg-type]
    return "" if isinstance(found, Event) else found


def test_a_row_that_cannot_be_parsed_is_rejected_for_that() -> None:
    assert validate(None, LIMITS) == events.UNPARSABLE


def test_a_valid_row_is_an_event_and_an_absent_op_is_a_plus() -> None:
    assert validate(Row("u", day="2025-02-01"), LIMITS) == Event("u", "+", date(2025, 2, 1))
    assert validate(Row("u", "-", "2025-02-01"), LIMITS) == Event("u", "-", date(2025, 2, 1))


@pytest.mark.parametrize("user_id", [None, ""])
def test_a_row_without_a_user_is_rejected(user_id: str | None) -> None:
    assert reason_of(user_id=user_id) == events.NO_USER


@pytest.mark.parametrize("op", ["", "++", "add", " +", "−"])
def test_an_op_that_is_neither_plus_nor_minus_is_rejected(op: str) -> None:
    assert reason_of(op=op) == events.BAD_OP


@pytest.mark.parametrize(
    "day",
    [
        "",
        "2025-02-29",
        "2025-13-01",
        "2025-2-1",
        "20250230",
        "20251301",
        "00010101",
        "2025020",
        "202502010",
        "20250201.0",
        "٢٠٢٥٠٢٠١",
        "2025-02-01 ",
        "2025-02-01\n",
        "0000-01-01",
        "٢٠٢٥-02-01",
        "2025-02-01T00:00",
        "10000-01-01",
    ],
)
def test_a_day_that_is_no_real_date_is_rejected(day: str) -> None:
    assert reason_of(day=day) == events.BAD_DAY


def test_a_leap_day_is_a_real_date_in_leap_years_only() -> None:
    assert calendar_day("2024-02-29") == date(2024, 2, 29)
    assert calendar_day("1900-02-29") is None


def test_the_limits_belong_to_what_is_allowed() -> None:
    assert reason_of(day="2025-01-01") == reason_of(day="2025-03-02") == ""
    assert reason_of(day="2024-12-31") == events.TOO_EARLY
    assert reason_of(day="2025-03-03") == events.TOO_LATE


def test_the_day_wins_over_the_moment_even_when_it_is_bad() -> None:
    found = validate(Row("u", day="2025-02-01", ts="2025-01-05T00:00Z"), LIMITS)
    assert isinstance(found, Event) and found.day == date(2025, 2, 1)
    assert reason_of(day="nonsense", ts="2025-02-05T00:00Z") == events.BAD_DAY
    assert reason_of(ts="nonsense") == ""


def test_a_row_without_day_and_moment_is_rejected() -> None:
    assert reason_of(day=None) == events.NO_DAY


@pytest.mark.parametrize(
    "ts",
    [
        "",
        "yesterday",
        "2025-02-30T00:00Z",
        "2025-02-01T24:00Z",
        "2025-02-01T10:60",
        "2025-02-01T10:00:60Z",
        "2025-02-01T10",
        "2025-02-01T10:00+24:00",
        "2025-02-01T10:00+01:60",
        "2025-02-01T10:00  Z",
        "2025-02-01T10:00 UTC+1",
        "2025-02-01T10:00utc",
        "2025-02-01T10:00 Z ",
        "2025-02-01 +0000",
        "20250230T10:00",
        "1e9",
        "NaN",
        "1738400000.",
        ".5",
        "+1738400000",
        "17384000000",
        "9223372036854775807",
        "9300000000000000000",
        "17384000000000000000",
        "1 738 400 000",
        "2025-02-01T10:00Z ",
        "true",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00+14:00",
        "-9999999999.5",
    ],
)
def test_a_moment_that_is_neither_iso_nor_unix_time_is_rejected(ts: str) -> None:
    assert reason_of(day=None, ts=ts) in (events.BAD_TS, events.TOO_EARLY)
    assert reason_of(day=None, ts=ts) == events.BAD_TS or ts == "-9999999999.5"


@pytest.mark.parametrize(
    ("ts", "day"),
    [
        ("2025-02-01", date(2025, 2, 1)),
        ("2025-02-01T23:59", date(2025, 2, 1)),
        ("2025-02-01 23:59:59.999999999", date(2025, 2, 1)),
        ("2025-02-01T23:30Z", date(2025, 2, 1)),
        ("2025-02-01T23:30-01:00", date(2025, 2, 2)),
        ("2025-02-01T00:30+0100", date(2025, 1, 31)),
        ("2025-02-01T00:30+01", date(2025, 1, 31)),
        ("1738454399", date(2025, 2, 1)),
        ("1738454399.9999999999", date(2025, 2, 1)),
        ("1738454400", date(2025, 2, 2)),
        ("-0.5", date(1969, 12, 31)),
        ("-0", date(1970, 1, 1)),
    ],
)
def test_the_day_of_a_moment_follows_in_utc(ts: str, day: date) -> None:
    assert day_of_moment(ts, LIMITS) == day


@pytest.mark.parametrize(
    "ts",
    [
        "2025-02-01T23:30:00-01:00",
        "2025-02-01 23:30:00.000 -0100",
        "2025-02-01 23:30 -01",
        "2025-02-02T00:30Z",
        "2025-02-02T00:30:00.123456789 Z",
        "2025-02-02 00:30:00 UTC",
        "2025-02-02 00:30:00.5UTC",
        "2025-02-02t00:30:00z",
        "2025-02-02 00:30",
        "1738456200",
        "1738456200.25",
        "1738456200000",
        "1738456200000.5",
        "1738456200000000",
        "1738456200000000000",
        "20250202",
    ],
)
def test_a_moment_is_the_same_however_it_is_written(ts: str) -> None:
    assert day_of_moment(ts, LIMITS) == date(2025, 2, 2)
    assert reason_of(day=None, ts=ts) == ""


def test_the_unit_of_a_unix_time_is_the_first_that_puts_it_within_the_limits() -> None:
    early = Limits(date(1970, 1, 1), date(1970, 12, 31), UTC_ZONE)
    assert day_of_moment("86400", early) == date(1970, 1, 2)
    assert day_of_moment("31536000", early) == date(1970, 1, 1)  # as seconds it would be in 1971
    assert day_of_moment("20250201", early) == date(1970, 8, 23)


@pytest.mark.parametrize("seconds", [1, 1_000_000, 1_600_000_000])
@pytest.mark.parametrize("unit", events.UNITS)
def test_a_unix_time_of_before_start_date_is_too_early_and_not_unreadable(seconds: int, unit: str) -> None:
    assert reason_of(day=None, ts=str(seconds * events.UNITS[unit])) == events.TOO_EARLY  # type: ignore[index]


@pytest.mark.parametrize("unit", events.UNITS)
def test_a_declared_unit_is_believed(unit: events.UnixUnit) -> None:
    limits = replace(LIMITS, unit=unit)
    assert day_of_moment(str(1738456200 * events.UNITS[unit]), limits) == date(2025, 2, 2)
    assert day_of_moment("20250202", limits) != date(2025, 2, 2)
    assert day_of_moment("2025-02-02", limits) == date(2025, 2, 2)


def test_eight_digits_that_are_no_date_are_a_unix_time() -> None:
    assert day_of_moment("20250230", LIMITS) == date(1970, 8, 23)
    assert day_of_moment("20250202.0", LIMITS) == date(1970, 8, 23)


@pytest.mark.parametrize(("zone", "day"), [("America/New_York", date(2025, 3, 9)), ("Asia/Kolkata", date(2025, 3, 10))])
def test_the_day_of_a_moment_follows_in_the_zone_and_a_date_alone_is_already_there(zone: str, day: date) -> None:
    limits = Limits(LIMITS.first, LIMITS.last, ZoneInfo(zone))
    assert day_of_moment("2025-03-10T03:59:59Z", limits) == day
    assert day_of_moment("2025-03-10", limits) == date(2025, 3, 10)


def test_a_time_without_a_zone_is_of_naive_zone_and_its_day_follows_in_the_zone() -> None:
    in_utc = Limits(LIMITS.first, LIMITS.last, ZoneInfo("America/New_York"))
    assert day_of_moment("2025-03-10T03:59:59", in_utc) == date(2025, 3, 9)
    in_kolkata = replace(in_utc, naive_zone=ZoneInfo("Asia/Kolkata"))
    assert day_of_moment("2025-03-10T09:29:59", in_kolkata) == date(2025, 3, 9)
    assert day_of_moment("2025-03-10T09:30", in_kolkata) == date(2025, 3, 10)
    in_its_own = replace(in_utc, naive_zone=in_utc.zone)
    assert day_of_moment("2025-03-10T00:00", in_its_own) == date(2025, 3, 10)


def test_a_time_that_clocks_show_twice_is_the_first_and_one_that_they_pass_over_is_after_the_jump() -> None:
    limits = Limits(date(2025, 1, 1), date(2025, 12, 31), UTC_ZONE, ZoneInfo("America/New_York"))
    for ts, moment in (("2025-11-02T01:30", "2025-11-02T05:30Z"), ("2025-03-09T02:30", "2025-03-09T07:30Z")):
        for hours in range(-12, 15):  # in one of these zones a day begins between the two moments that it could be
            other = replace(limits, zone=timezone_of(hours))
            assert day_of_moment(ts, other) == day_of_moment(moment, other)


def timezone_of(hours: int) -> ZoneInfo:
    """So many hours ahead of UTC; the names of these zones have the other sign."""
    return ZoneInfo(f"Etc/GMT{-hours:+d}")


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)), st.integers(-1439, 1439))
def test_an_iso_time_with_an_offset_is_the_same_moment_as_its_unix_seconds(moment: datetime, ahead: int) -> None:
    sign, minutes = "-" if ahead < 0 else "+", abs(ahead)
    text = f"{moment.isoformat()}{sign}{minutes // 60:02}:{minutes % 60:02}"
    unix = (moment.replace(tzinfo=UTC) - timedelta(minutes=ahead)).timestamp()
    limits = Limits(date(1990, 1, 1), date(2100, 1, 1), ZoneInfo("Australia/Lord_Howe"), unit="s")
    assert day_of_moment(text, limits) == day_of_moment(str(int(unix // 1)), limits)


def test_listed_days_are_kept_sorted_and_once() -> None:
    row = Row("u", "-", "2025-02-01", days=("2025-01-09", "2025-01-03", "2025-01-09"))
    found = validate(row, LIMITS)
    assert isinstance(found, Event) and found.days == (date(2025, 1, 3), date(2025, 1, 9))


@pytest.mark.parametrize("days", [(), (None,), ("2025-01-03", "soon"), ("2025-02-29",)])
def test_a_removal_of_listed_days_needs_real_dates(days: tuple[str | None, ...]) -> None:
    assert reason_of(op="-", days=days) == events.BAD_LIST


@pytest.mark.parametrize("given", [{"day": "2024-12-31"}, {"day": None, "ts": "1000-01-01"}, {"day": None}])
def test_a_removal_is_never_bad_for_a_day_that_can_hold_nothing(given: dict[str, str | None]) -> None:
    assert reason_of(op="-", **given) == reason_of(op="-", days=("2025-01-03", "2024-12-31"), **given) == ""
    assert reason_of(**given) in (events.TOO_EARLY, events.NO_DAY)


@pytest.mark.parametrize(
    ("given", "through"),
    [
        ({"day": "2024-12-31"}, date(2024, 12, 31)),
        ({"day": None, "ts": "0"}, date(1970, 1, 1)),
        ({"day": None}, date(2025, 3, 2)),
    ],
)
def test_a_removal_reaches_its_own_day_or_the_last_listed_one_or_tomorrow(
    given: dict[str, str | None], through: date
) -> None:
    assert validate(Row("u", "-", **given), LIMITS) == Event("u", "-", through)  # type: ignore[arg-type]
    listed = validate(Row("u", "-", days=("2025-01-03", "2024-12-31"), **given), LIMITS)  # type: ignore[arg-type]
    assert listed == Event("u", "-", date(2025, 1, 3), (date(2024, 12, 31), date(2025, 1, 3)))


def test_a_removal_is_bad_for_what_cannot_be_read_and_for_a_day_after_tomorrow() -> None:
    listed = {"op": "-", "days": ("2024-12-31",)}
    assert reason_of(day="soon", **listed) == events.BAD_DAY
    assert reason_of(day=None, ts="noon", **listed) == events.BAD_TS
    assert reason_of(day="2025-03-03", **listed) == events.TOO_LATE
    assert reason_of(op="-", days=("2025-01-03", "2025-03-03")) == events.LIST_TOO_LATE


def test_a_plus_row_may_carry_any_metadata() -> None:
    assert reason_of(op="+", days=()) == reason_of(days=("soon",)) == ""


def test_the_first_broken_rule_is_the_reason() -> None:
    assert validate(Row("", "?", "?", "?", ()), LIMITS) == events.NO_USER
    assert validate(Row("u", "?", "?", "?", ()), LIMITS) == events.BAD_OP


def test_reasons_are_distinct_sentences_in_the_order_of_the_rules() -> None:
    assert len(set(events.REASONS)) == len(events.REASONS) == len(events.RULES) + 1
    assert events.REASONS[0] == events.UNPARSABLE


def test_a_row_and_an_event_do_not_print_their_user() -> None:
    assert "alice" not in repr(Row("alice")) + repr(Event("alice", "+", date(2025, 1, 1)))


@pytest.mark.parametrize("found", [None, [], "text", 3, ["user_id"]])
def test_only_an_object_is_a_row(found: object) -> None:
    assert row_of_object(found) is None


def test_half_a_surrogate_pair_cannot_be_an_id() -> None:
    assert row_of_object(json.loads('{"user_id": "a\\ud800"}')) is None
    assert row_of_object(json.loads('{"user_id": "a\\ud83d\\ude00"}')) == Row("a😀")


@pytest.mark.parametrize("user_id", [True, 1.5, ["u"], {"u": 1}, None, float("nan"), 2.0**53])
def test_an_id_that_is_neither_text_nor_a_whole_number_is_a_missing_id(user_id: object) -> None:
    assert row_of_object({"user_id": user_id}) == Row(None)


def test_a_number_and_its_digits_as_text_are_one_person() -> None:
    said = [
        row_of_object(json.loads(text)) for text in ('{"user_id": 101}', '{"user_id": 101.0}', '{"user_id": "101"}')
    ]
    assert said == [Row("101")] * 3
    assert row_of_object({"user_id": "101.0"}) == Row("101.0")


def test_a_day_may_be_a_json_number() -> None:
    assert validate(row_of_object({"user_id": "u", "day": 20250201}), LIMITS) == Event("u", "+", date(2025, 2, 1))
    listed = row_of_object({"user_id": "u", "op": "-", "metadata": {"days": [20250103, "20250104"]}})
    found = validate(listed, LIMITS)
    assert isinstance(found, Event) and found.days == (date(2025, 1, 3), date(2025, 1, 4))


@pytest.mark.parametrize(
    ("user_id", "spelled"), [(" Jose\u0301 ", "jos\u00e9"), ("STRASSE", "strasse"), ("Straße", "strasse"), ("a", "a")]
)
def test_an_event_names_its_person_as_the_store_spells_ids(user_id: str, spelled: str) -> None:
    limits = replace(LIMITS, normalize=("nfc", "trim", "casefold"))
    for op in ("+", "-"):
        found = validate(Row(user_id, op, "2025-02-01"), limits)
        assert isinstance(found, Event) and found.user_id == spelled


def test_an_id_that_is_empty_once_it_is_trimmed_is_a_missing_id() -> None:
    limits = replace(LIMITS, normalize=("trim",))
    assert validate(Row(" \u3000", day="2025-02-01"), limits) == events.NO_USER
    assert plain_day({"user_id": " \u3000", "day": "2025-02-01"}, limits) is None
    assert isinstance(validate(Row(" \u3000", day="2025-02-01"), LIMITS), Event)


def test_the_limits_of_a_source_are_those_of_the_store_but_for_what_its_shape_says() -> None:
    settings = Settings(timezone="Asia/Kolkata", naive_zone="Europe/Berlin", user_id_normalize=("trim",))
    first, last = LIMITS.first, LIMITS.last
    limits = limits_of(settings, first, last)
    assert limits == Limits(first, last, ZoneInfo("Asia/Kolkata"), ZoneInfo("Europe/Berlin"), None, ("trim",))
    shape = EventShape(unit="ms", naive_zone=UTC_ZONE)
    assert limits_of(settings, first, last, shape) == replace(limits, unit="ms", naive_zone=UTC_ZONE)


def test_unix_seconds_may_be_json_numbers() -> None:
    assert row_of_object({"user_id": "u", "ts": 1738400000}) == Row("u", ts="1738400000")
    assert row_of_object({"user_id": "u", "ts": 1738400000.5}) == Row("u", ts="1738400000.5")
    assert row_of_object({"user_id": "u", "ts": 1.7384e18}) == Row("u", ts="1738400000000000000")


@pytest.mark.parametrize("metadata", ["2025-01-03", 5, ["2025-01-03"], {"days": "2025-01-03"}, {"days": {}}])
def test_a_removal_with_unreadable_metadata_is_rejected_and_never_becomes_a_removal_of_everything(
    metadata: object,
) -> None:
    row = row_of_object({"user_id": "u", "op": "-", "day": "2025-02-01", "metadata": metadata})
    assert validate(row, LIMITS) == events.BAD_LIST


@pytest.mark.parametrize("metadata", [None, {}, {"days": None}, {"source": "web"}])
def test_a_removal_without_listed_days_reaches_through_its_day(metadata: object) -> None:
    row = row_of_object({"user_id": "u", "op": "-", "day": "2025-02-01", "metadata": metadata})
    assert validate(row, LIMITS) == Event("u", "-", date(2025, 2, 1))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["+", "-", "2025-02-01"]),
)
DATES = st.dates(date(2024, 12, 30), date(2025, 3, 4)).map(str)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.one_of(VALUES, st.text(min_size=1), st.just("half a pair \ud800")),
        "op": VALUES,
        "day": st.one_of(VALUES, DATES, DATES.map(lambda day: f"{day} ")),
        "ts": VALUES,
        "metadata": st.one_of(VALUES, st.fixed_dictionaries({"days": st.lists(DATES, max_size=2)})),
    },
)


@given(st.one_of(OBJECTS, VALUES, st.lists(VALUES, max_size=2)))
def test_the_short_way_says_of_a_day_what_the_rules_say_and_else_nothing(value: object) -> None:
    day = plain_day(value, LIMITS)
    judged = validate(row_of_object(value), LIMITS)
    if day is not None:
        assert isinstance(value, dict) and judged == Event(value["user_id"], "+", day)


@given(st.text(min_size=1).filter(lambda text: text.isprintable()), st.dates(LIMITS.first, LIMITS.last))
def test_plain_events_go_the_short_way(user_id: str, day: date) -> None:
    for event in ({"user_id": user_id, "day": str(day)}, {"user_id": user_id, "op": "+", "day": str(day), "ts": 1}):
        assert plain_day(event, LIMITS) == day


@given(st.text(max_size=14))
def test_a_day_that_is_remembered_is_what_it_was_read_as(text: str) -> None:
    assert calendar_day(text) == calendar_day(text)
    assert calendar_day(text) is None or str(calendar_day(text)) == text
