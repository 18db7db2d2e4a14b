"""The bundled log as the demo hands it in: its days moved by whole weeks, so that it goes on today.

Whole weeks keep the days of the week. Users stay who they are, and nothing is handed in of the days before the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

from dpdau_assets.core.dates import days_between, first_window_end
from dpdau_assets.core.settings import Settings

EVENTS = Path(__file__).resolve().parent / "data" / "oulad_register_submit" / "events.parquet"
YESTERDAY_AT_LATEST = date(2014, 4, 14)
"""In the log: yesterday is one of the seven days that end with it."""
LOG_ENDS = date(2015, 9, 15)
DAYS_OF_MAU = 121
SUCCESS = "_SUCCESS"

_MOVED = """
    CREATE TABLE moved AS
    SELECT user_id, ts + 86400 * $days AS ts, op, day + $days AS day FROM read_parquet($log) ORDER BY day, user_id
"""


@dataclass(frozen=True)
class Move:
    """How far the log is moved, and the days of the demo that follow from it.

    Attributes:
        first: the first day, START_DATE.
        begun_with: the last day of the events that the store is begun with; those after it land one by one.
    """

    weeks: int
    first: date
    begun_with: date

    @property
    def last(self) -> date:
        """Where the log ends."""
        return LOG_ENDS + timedelta(weeks=self.weeks)

    @property
    def landing_days(self) -> list[date]:
        """Days whose events wait in a folder each; of some nobody was active, which is told by a file without rows."""
        return days_between(self.begun_with + timedelta(days=1), self.last)


def move_until(yesterday: date) -> Move:
    """The move with which DAYS_OF_MAU windows end by yesterday, the first of them with the first whole window."""
    weeks = -((YESTERDAY_AT_LATEST - yesterday).days // 7)  # rounded up
    return Move(weeks, yesterday - timedelta(days=days_begun_with() - 1), yesterday)


def move_from(weeks: int, first: date) -> Move:
    """The move that was kept as these two values."""
    return Move(weeks, first, first + timedelta(days=days_begun_with() - 1))


def days_begun_with() -> int:
    """How many days of DAU there are with DAYS_OF_MAU."""
    first = date(2000, 1, 1)
    return (first_window_end(first, Settings.mau_window_days) - first).days + DAYS_OF_MAU


def lay_out(move: Move, file: Path, landing: Path) -> None:
    """Write the events that the store is begun with, and a finished folder for each day after; once.

    What was cut short is written anew: nothing is taken in before the last folder is there.
    """
    if (_folder(landing, move.last) / SUCCESS).exists():
        return
    with duckdb.connect() as log:
        log.execute(_MOVED, {"days": 7 * move.weeks, "log": str(EVENTS)})
        _write(log, move.first, move.begun_with, file)
        for day in move.landing_days:
            folder = _folder(landing, day)
            folder.mkdir(parents=True, exist_ok=True)
            _write(log, day, day, folder / EVENTS.name)
            (folder / SUCCESS).touch()


def _write(log: duckdb.DuckDBPyConnection, first: date, last: date, file: Path) -> None:
    query = "SELECT * FROM moved WHERE day BETWEEN $first AND $last"
    log.sql(query, params={"first": first, "last": last}).write_parquet(str(file))


def _folder(landing: Path, day: date) -> Path:
    return landing / f"day={day}"
