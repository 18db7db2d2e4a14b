"""What makes one row a valid event: the rules, in order, in plain Python. Bulk engines are held to this reference.

A day that nothing can be kept of is bad for a '+' row. A '-' row is never refused for one: what it asks of such a day
is done. It is bad only if what it says cannot be read, or lies after tomorrow.

A reason is a fixed sentence and never says what the row held. The patterns use only what Python's `re` and RE2 read
alike, so that an engine can match with the very same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property, lru_cache
from math import isfinite
from types import MappingProxyType
from zoneinfo import ZoneInfo

from dpdau_assets.core.dates import day_number
from dpdau_assets.core.event_shape import PLAIN, EventShape, UnixUnit
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.user_ids import Normalization, id_text, normalize

UNPARSABLE = "The row cannot be parsed."
NO_USER = "user_id is missing, empty, or neither text nor a whole number."
BAD_OP = "op is neither + nor -."
BAD_DAY = "day is not a real date written YYYY-MM-DD or YYYYMMDD."
BAD_TS = "ts is neither an ISO 8601 time nor a Unix time."
NO_DAY = "day and ts are both missing."
TOO_EARLY = "The day is before START_DATE, or past retention."
TOO_LATE = "The day is after tomorrow."
BAD_LIST = "metadata.days is not a non-empty list of real dates written YYYY-MM-DD or YYYYMMDD."
LIST_TOO_LATE = "metadata.days names a day after tomorrow."

DATE_PATTERN = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
UNIX_PATTERN = r"-?[0-9]{1,19}(?:\.[0-9]+)?"
ISO_PATTERN = (
    f"({DATE_PATTERN})"
    r"(?:[Tt ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:\.[0-9]+)?)?"
    r"( ?(?:[Zz]|UTC|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?))?)?"
)
MOMENT_LIMIT = 10**10
"""Moments this many seconds from 1970 or further (before 1653, after 2286) are not read as times at all."""
UNIX_LIMIT = 92 * 10**17
"""Numbers of this magnitude or a larger one are no Unix time, in whatever unit: they leave 64 bits."""
UNITS: Mapping[UnixUnit, int] = MappingProxyType({"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9})
"""How many of a unit are a second."""
UNIT_LIMITS: Mapping[UnixUnit, int] = MappingProxyType({"s": 10**11, "ms": 10**14, "us": 10**17, "ns": UNIX_LIMIT})
"""Below which magnitude a Unix time is of a unit, if in no unit it lies within the days that events may have."""
FIRST_COMPACT, LAST_COMPACT = 10_000_101, 99_991_231
"""The dates written YYYYMMDD lie between these numbers; with a zero in front it would be another number."""
UTC = ZoneInfo("UTC")

_DATE_LENGTH, _COMPACT_LENGTH = len("YYYY-MM-DD"), len("YYYYMMDD")
_DAY_FOLDER = re.compile(r"(?:day|dt|event_date|date)=([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})")
_DATE, _UNIX, _ISO = re.compile(DATE_PATTERN), re.compile(UNIX_PATTERN), re.compile(ISO_PATTERN)


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one row as they came: text, or None where a field is absent.

    `days` is the list in metadata.days; it is empty also when something stands there that is no list.
    """

    user_id: str | None = field(repr=False)
    op: str | None = None
    day: str | None = None
    ts: str | None = None
    days: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A valid row. `days` are the listed days of a '-' row, sorted and distinct; empty for all others.

    The day of a '-' row is the last that it reaches: of those listed, else its own, else tomorrow. `reference` is what
    a file of requests calls this row by; events have none.
    """

    user_id: str = field(repr=False)
    op: str
    day: date
    days: tuple[date, ...] = ()
    reference: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Limits:
    """What a row is judged by.

    Attributes:
        first: the first day that events may have.
        last: the last one.
        zone: where a moment's day follows.
        naive_zone: the zone of times that name none.
        unit: that of Unix times; None to tell it by their size.
        normalize: what makes the ids of one person one.
    """

    first: date
    last: date
    zone: ZoneInfo
    naive_zone: ZoneInfo = UTC
    unit: UnixUnit | None = None
    normalize: tuple[Normalization, ...] = ()

    @cached_property
    def seconds(self) -> range:
        """The Unix seconds from the midnight that begins the first day to the one that ends the last."""
        ends = (datetime.combine(day, time(), self.zone) for day in (self.first, self.last + timedelta(days=1)))
        return range(*(int(end.timestamp()) for end in ends))

    @property
    def is_naive_local(self) -> bool:
        """Whether times that name no zone are of the zone itself, so that their day is the one they say."""
        return self.naive_zone.key == self.zone.key


def limits_of(settings: Settings, first: date, last: date, shape: EventShape = PLAIN) -> Limits:
    """What the rows of a source of this shape are judged by, in a store with these settings."""
    return Limits(
        first,
        last,
        zone=ZoneInfo(settings.timezone),
        naive_zone=shape.naive_zone or ZoneInfo(settings.naive_zone),
        unit=shape.unit,
        normalize=settings.user_id_normalize,
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """The dates of a row; None stands where there is no real date."""

    day: date | None
    days: tuple[date | None, ...] | None
    limits: Limits

    def is_not_too_early(self, day: date | None) -> bool:
        """Whether there is no such day, or one that something may be kept of."""
        return day is None or day >= self.limits.first

    def is_not_too_late(self, day: date | None) -> bool:
        """Whether there is no such day, or one that events may have by now."""
        return day is None or day <= self.limits.last


Rule = tuple[str, Callable[[Row, Reading], bool]]

RULES: tuple[Rule, ...] = (
    (NO_USER, lambda row, _: bool(row.user_id)),
    (BAD_OP, lambda row, _: row.op in (None, "+", "-")),
    (BAD_DAY, lambda row, reading: row.day is None or reading.day is not None),
    (BAD_TS, lambda row, reading: row.day is not None or row.ts is None or reading.day is not None),
    (NO_DAY, lambda row, reading: row.op == "-" or reading.day is not None),
    (TOO_EARLY, lambda row, reading: row.op == "-" or reading.is_not_too_early(reading.day)),
    (TOO_LATE, lambda _, reading: reading.is_not_too_late(reading.day)),
    (BAD_LIST, lambda _, reading: reading.days is None or (len(reading.days) > 0 and None not in reading.days)),
    (LIST_TOO_LATE, lambda _, reading: reading.days is None or all(map(reading.is_not_too_late, reading.days))),
)
"""Each rule is what must hold, and the reason given when it is the first that does not."""

REASONS: tuple[str, ...] = (UNPARSABLE, *(reason for reason, _ in RULES))
"""Every reason that a row is bad by itself, in the order in which the rules are asked."""

DOUBTFUL = "A removal near rows that cannot be parsed: it may be a piece of one."
"""The reason of a `-` row that is sound by itself and stands where it may be text that a row has lost."""

TOO_LONG = "user_id or metadata is longer than an event over HTTP may have."
"""The reason of a row that is longer than what is taken over HTTP; files may hold it."""

GIVEN: tuple[str, ...] = (*REASONS, DOUBTFUL, TOO_LONG)
"""Every reason that the quarantine may give; an engine counts them from 1."""


def validate(row: Row | None, limits: Limits) -> Event | str:
    """The event that this row is, or the reason of the first rule it breaks. None is a row that cannot be parsed.

    The event's user_id is spelled as `Limits.normalize` says.
    """
    if row is None:
        return UNPARSABLE
    if row.user_id and limits.normalize:
        row = replace(row, user_id=normalize(row.user_id, limits.normalize))
    reading = _read(row, limits)
    for reason, holds in RULES:
        if not holds(row, reading):
            return reason
    listed = sorted({day for day in reading.days or () if day is not None})
    assert row.user_id is not None
    return Event(row.user_id, row.op or "+", listed[-1] if listed else reading.day or limits.last, tuple(listed))


def row_of_object(value: object) -> Row | None:
    """The row in one decoded JSON value; None when it is no object or its user_id cannot be written as UTF-8."""
    if not isinstance(value, Mapping):
        return None
    user_id = id_text(value.get("user_id"))
    if user_id is not None and not _has_utf8(user_id):
        return None
    op, day, ts = (_text(value.get(name)) for name in ("op", "day", "ts"))
    return Row(user_id, op, day, ts, _days_of_metadata(value.get("metadata")))


def plain_day(value: object, limits: Limits) -> date | None:
    """The day of an object that is plainly a valid '+' event; None says nothing, and the rules decide.

    A short way for who validates thousands of rows a second: most are such events. Its user_id is as it came.
    """
    if not isinstance(value, dict):
        return None
    user_id, op, text = value.get("user_id"), value.get("op"), value.get("day")
    if not (isinstance(user_id, str) and user_id and isinstance(text, str) and (op is None or op == "+")):
        return None
    if limits.normalize and not normalize(user_id, limits.normalize):
        return None
    day = calendar_day(text)
    return day if day is not None and limits.first <= day <= limits.last and _has_utf8(user_id) else None


def calendar_day(text: str) -> date | None:
    """The day written YYYY-MM-DD, if there is such a day."""
    return _day_written(text) if len(text) == _DATE_LENGTH else None


def event_day(text: str) -> date | None:
    """The day written YYYY-MM-DD or YYYYMMDD, if there is such a day."""
    if len(text) == _COMPACT_LENGTH and not text.startswith("0"):
        return _day_written(f"{text[:4]}-{text[4:6]}-{text[6:]}")
    return calendar_day(text)


@lru_cache(maxsize=4096)  # logs name the days of a few months, millions of times
def _day_written(text: str) -> date | None:
    if not _DATE.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def day_of_folder(path: str) -> date | None:
    """The day that the nearest folder around this file is of, named such as day=2025-02-01 or dt=20250201."""
    names = (_DAY_FOLDER.fullmatch(name) for name in reversed(path.split("/")[:-1]))
    return next((day for name in names if name and (day := calendar_day(f"{name[1]}-{name[3]}-{name[4]}"))), None)


def day_of_moment(text: str, limits: Limits) -> date | None:
    """The day in `Limits.zone` of an ISO 8601 time or of a Unix time, rounded down to the second.

    A date alone is that day. Eight digits that are a date and, within the limits, no Unix time are that day too, unless
    a unit is declared.
    """
    if _UNIX.fullmatch(text):
        return _day_of_number(text, limits)
    match = _ISO.fullmatch(text)
    day = calendar_day(match[1]) if match else None
    if match is None or day is None or match[2] is None:
        return day
    hours, minutes, seconds, ahead_hours, ahead_minutes = (int(match[group] or 0) for group in (2, 3, 4, 7, 8))
    if match[5] is None:
        return _day_of_naive(datetime.combine(day, time(hours, minutes, seconds)), limits)
    ahead = (ahead_hours * 60 + ahead_minutes) * (-60 if match[6] == "-" else 60)
    return day_of_second(day_number(day) * 86400 + hours * 3600 + minutes * 60 + seconds - ahead, limits.zone)


def _day_of_number(text: str, limits: Limits) -> date | None:
    whole, _, fraction = text.partition(".")
    number = int(whole) - (whole.startswith("-") and fraction.strip("0") != "")
    unit = limits.unit or _unit_within(number, limits)
    if unit is None and (day := event_day(text)):
        return day
    if abs(number) >= UNIX_LIMIT:
        return None
    return day_of_second(number // UNITS[unit or _likely_unit(number)], limits.zone)


def _unit_within(number: int, limits: Limits) -> UnixUnit | None:
    """The first unit in which this is a moment within the limits."""
    return next((unit for unit, size in UNITS.items() if number // size in limits.seconds), None)


def _likely_unit(number: int) -> UnixUnit:
    """The unit by magnitude alone, of a number below UNIX_LIMIT."""
    return next(unit for unit, limit in UNIT_LIMITS.items() if abs(number) < limit)


def _day_of_naive(clock: datetime, limits: Limits) -> date | None:
    """The day of a time that names no zone. Of two such moments in autumn it is the first; one that the clocks of
    spring pass over is as long after the jump as it would be without it.
    """
    if limits.is_naive_local:
        return clock.date()
    return day_of_second(int(clock.replace(tzinfo=limits.naive_zone).timestamp()), limits.zone)


def local_offset(second: int, zone: ZoneInfo) -> int:
    """How many seconds the zone's clocks are ahead of UTC at this Unix second."""
    return int((datetime.fromtimestamp(second, zone).utcoffset() or timedelta()).total_seconds())


def day_of_second(second: int, zone: ZoneInfo) -> date | None:
    """The day in `zone` of a Unix second; None for one that is too far from 1970."""
    return datetime.fromtimestamp(second, zone).date() if abs(second) < MOMENT_LIMIT else None


def _read(row: Row, limits: Limits) -> Reading:
    """Make out the dates: `day` decides, `ts` only where there is no `day`, the list only for a '-' row."""
    day = None
    if row.day is not None:
        day = event_day(row.day)
    elif row.ts is not None:
        day = day_of_moment(row.ts, limits)
    listed = None
    if row.op == "-" and row.days is not None:
        listed = tuple(None if text is None else event_day(text) for text in row.days)
    return Reading(day, listed, limits)


def _days_of_metadata(metadata: object) -> tuple[str | None, ...] | None:
    """The listed days. What is no list counts as an empty one: a removal must never grow by being misread."""
    if metadata is None:
        return None
    days = metadata.get("days") if isinstance(metadata, Mapping) else ()
    if isinstance(metadata, Mapping) and any(is_almost_days(name) for name in metadata):
        return ()
    if days is None:
        return None
    return tuple(_text(day) for day in days) if isinstance(days, list) else ()


def is_almost_days(name: object) -> bool:
    """Whether a name in the metadata is that of the list but for case and space: it must not be passed over."""
    return isinstance(name, str) and name != "days" and name.strip(" ").lower() == "days"


def _text(value: object) -> str | None:
    """A JSON value as text: a number in digits; an array, an object or a boolean as text that no rule accepts."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return "[]"
    return str(int(value)) if value == int(value) else f"{Decimal(value):f}"


def _has_utf8(text: str) -> bool:
    """False for half a surrogate pair, which JSON can escape and nothing can encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
