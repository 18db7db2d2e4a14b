"""DAU and MAU as known at the end of each day, with and without the rule that holds an erased user out of MAU.

A second way to count, from the event log and the list of erasures, with nothing of ours in it: each active day of a
user counts in the windows that end on it and on the 29 days after, until her next active day takes over, or until the
day of the first erasure that reaches it. `python -m dpdau_tests.eval.asof_reference` prints what the rule changes.
"""

from __future__ import annotations

import calendar
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import accumulate

import pyarrow.parquet as pq

from dpdau_tests.eval.logs import ERASURES, erasures_of, file_of

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Activity:
    """Who was active when, and who was erased when; the days of a user are sorted."""

    active: dict[str, list[date]]
    erased: dict[str, list[date]]

    @property
    def days(self) -> list[date]:
        """Every day from the first event to the last."""
        first = min(days[0] for days in self.active.values())
        last = max(days[-1] for days in self.active.values())
        return [first + n * ONE_DAY for n in range((last - first).days + 1)]


@dataclass(frozen=True)
class Effect:
    """On how many days the rule makes MAU smaller than it would be, of how many, and by how many users."""

    days: int
    of_days: int
    most: int
    mean: float
    mean_share: float


@cache
def read_activity(name: str, which: str) -> Activity:
    """From `events.parquet` and the file of erasures."""
    erased: dict[str, set[date]] = defaultdict(set)
    for user, day in erasures_of(name, which):
        erased[user].add(day)
    return Activity(_active(name), {user: sorted(days) for user, days in erased.items()})


@cache
def _active(name: str) -> dict[str, list[date]]:
    active: dict[str, set[date]] = defaultdict(set)
    table = pq.read_table(file_of(name, "events.parquet"), columns=["user_id", "day"])
    for user, day in zip(*(column.to_pylist() for column in table.columns), strict=True):
        active[user].add(day)
    return {user: sorted(days) for user, days in active.items()}


def dau_asof(log: Activity) -> dict[date, int]:
    """An erasure that is known at the end of a day and reaches that day is one of that very day."""
    seen = Counter(day for user, days in log.active.items() for day in days if day not in log.erased.get(user, []))
    return {day: seen[day] for day in log.days}


def mau_asof(log: Activity, *, hold_out: bool) -> dict[date, int]:
    """Users with an active day in the 30 days that end on the day, as known then.

    With `hold_out` an erasure reaches all days to the end of its month, also those after it; else to its own day.
    """
    change: Counter[date] = Counter()
    for user, days in log.active.items():
        erasures = log.erased.get(user, [])
        for day, next_day in zip(days, [*days[1:], date.max], strict=True):
            reached = (end for end in erasures if (end_of_month(end) if hold_out else end) >= day)
            over = min(day + 30 * ONE_DAY, next_day, next(reached, date.max))
            if over > day:
                change[day] += 1
                change[over] -= 1
    return dict(zip(log.days, accumulate(change[day] for day in log.days), strict=True))


def end_of_month(day: date) -> date:
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def effect_of_hold_out(name: str, which: str) -> Effect:
    """Over the days that have a whole window."""
    log = read_activity(name, which)
    plain, held = (mau_asof(log, hold_out=hold_out) for hold_out in (False, True))
    published = log.days[29:]
    assert all(held[day] <= plain[day] for day in published), "holding out adds nobody"
    lost = {day: plain[day] - held[day] for day in published if held[day] < plain[day]}
    shares = [users / plain[day] for day, users in lost.items()]
    return Effect(
        len(lost), len(published), max(lost.values()), sum(lost.values()) / len(lost), sum(shares) / len(shares)
    )


def show_effects() -> None:
    """A table of what the rule costs in accuracy."""
    print("| log | erasures | days with a smaller MAU | most users | mean on those days | mean share of MAU |")
    print("|---|---|---|---|---|---|")
    for name, which in ERASURES:
        found = effect_of_hold_out(name, which)
        days = f"{found.days:,} of {found.of_days:,}"
        print(f"| {name} | {which} | {days} | {found.most} | {found.mean:.1f} | {found.mean_share:.2%} |")


if __name__ == "__main__":
    show_effects()
