"""Calendar arithmetic: which days a release reads, under which salt epoch, and which months it is charged to.

A day is a `datetime.date`; a month is its first day. Nothing here knows today's date.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache
from itertools import takewhile

UNIX_EPOCH = date(1970, 1, 1)


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - UNIX_EPOCH).days


def days_between(first: date, last: date) -> list[date]:
    """Every day from `first` to `last`, both included; empty when `last` is earlier."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def window(end: date, window_days: int) -> list[date]:
    """The `window_days` days that end on `end`, oldest first."""
    return days_between(end - timedelta(days=window_days - 1), end)


def month_of(day: date) -> date:
    """The first day of the day's month, which is how a month is named everywhere."""
    return day.replace(day=1)


def month_days(month: date) -> int:
    """28 to 31."""
    return monthrange(month.year, month.month)[1]


def month_end(month: date) -> date:
    """The last day of the month."""
    return month.replace(day=month_days(month))


def next_month(month: date) -> date:
    """The month after this one."""
    return month_end(month) + timedelta(days=1)


def months_from(month: date) -> Iterator[date]:
    """`month` and all months that follow, without end."""
    while True:
        yield month
        month = next_month(month)


def months_read(end: date, window_days: int) -> list[date]:
    """Every month whose data a window reads: two for most 30-day windows, three for 1 March of a common year."""
    return list(_months_read(end, window_days))


@lru_cache(maxsize=4096)  # plans ask it several times a number
def _months_read(end: date, window_days: int) -> tuple[date, ...]:
    first, last = month_of(end - timedelta(days=window_days - 1)), month_of(end)
    return tuple(takewhile(lambda month: month <= last, months_from(first)))


def first_window_end(start: date, window_days: int) -> date:
    """The first day on which a whole window lies inside the data."""
    return start + timedelta(days=window_days - 1)


def epoch_of(day: date, rotation_days: int) -> int:
    """The salt epoch that serves the releases whose window ends on this day."""
    return day_number(day) // rotation_days


def epochs_of_day(day: date, rotation_days: int, longest_window: int) -> range:
    """Every epoch whose windows can reach this day: one or two, since `rotation_days` >= `longest_window`."""
    last = day + timedelta(days=longest_window - 1)
    return range(epoch_of(day, rotation_days), epoch_of(last, rotation_days) + 1)


def days_of_epoch(epoch: int, rotation_days: int, longest_window: int) -> tuple[date, date]:
    """First and last day that are keyed under this epoch: its own days, and the reach of its first window."""
    first = UNIX_EPOCH + timedelta(days=epoch * rotation_days)
    return first - timedelta(days=longest_window - 1), first + timedelta(days=rotation_days - 1)
