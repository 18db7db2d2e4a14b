"""The measures against bare DuckDB: `python -m eval.bench` prints them. Figures of one run on one machine.

Each piece of work runs in a fresh process, so that its peak memory is its own; ratios compare medians of the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

from dpdau_assets.core.ingest import ingest
from dpdau_assets.core.ports import EpochKey, Removal
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.windows import UNIX_EPOCH, days_between, epochs_of_day
from eval.simulate import DEFAULT_SEED, generate_synthetic
from resources.engine_duckdb import DuckDBEngine
from resources.inbox_files import FileInbox, FileQuarantine

WINDOW_DAYS = 30
FIRST_DAY = UNIX_EPOCH + timedelta(days=90 * 225)  # an epoch of 90 days begins here

Work = Callable[[Path, Path, int], None]
"""(events, data directory, rotation days): something to measure."""


@dataclass(frozen=True)
class Figure:
    """One run of one piece of work."""

    seconds: float
    peak_mb: int


def main() -> None:
    """Generate once, measure, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "dpdau-bench")
    options.add_argument("--events", type=int, default=30_000_000)
    options.add_argument("--users", type=int, default=1_000_000)
    options.add_argument("--days", type=int, default=30)
    options.add_argument("--repeat", type=int, default=3)
    chosen = options.parse_args()
    events = chosen.folder / f"events-{chosen.events}-{chosen.users}-{chosen.days}-{DEFAULT_SEED}.parquet"
    if not events.exists():
        generate_synthetic(
            events, days=chosen.days, users=chosen.users, events=chosen.events, first_day=FIRST_DAY
        )  # fmt: skip
    bench(events, chosen.folder / "data", chosen.days, chosen.repeat)


def bench(events: Path, data_dir: Path, days: int, repeat: int, then: Mapping[str, Work] | None = None) -> None:
    """Measure the bare query, the ingest under one and under two epochs, and what comes `then`, by its name.

    Works run in this order within one repetition, each finding in `data_dir` what the one before left there.
    """
    works: dict[str, Work] = {"ingest": ingest_files, "inbox read back": read_inbox, **(then or {})}
    figures: dict[str, list[Figure]] = {}
    for _ in range(repeat):
        figures.setdefault("bare count(distinct)", []).append(measure(bare_query, events, data_dir, 0))
        for label, rotation in (("one epoch", 90), ("two epochs", rotation_for_two_epochs(days))):
            shutil.rmtree(data_dir, ignore_errors=True)
            for name, work in works.items():
                figures.setdefault(f"{name}, {label}", []).append(measure(work, events, data_dir, rotation))
    shutil.rmtree(data_dir, ignore_errors=True)
    show(figures)


def show(figures: Mapping[str, list[Figure]]) -> None:
    """Print medians of seconds, the ratio to the first line, and the highest peak."""
    bare = statistics.median(figure.seconds for figure in next(iter(figures.values())))
    print(f"{'work':32}{'seconds':>9}{'x bare':>9}{'peak MB':>9}   all runs")
    for name, found in figures.items():
        seconds = statistics.median(figure.seconds for figure in found)
        runs = ", ".join(f"{figure.seconds:.1f}" for figure in found)
        print(f"{name:32}{seconds:9.2f}{seconds / bare:9.2f}{max(f.peak_mb for f in found):9d}   {runs}")


def measure(work: Work, events: Path, data_dir: Path, rotation_days: int) -> Figure:
    """Run it in a fresh process; its imports are not counted."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(_timed, (work, events, data_dir, rotation_days))


def bare_query(events: Path, data_dir: Path, rotation_days: int) -> None:  # noqa: ARG001
    """What everything is compared with: plain DuckDB, all memory, no privacy."""
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        query = "SELECT day, count(DISTINCT user_id) FROM read_parquet(?) GROUP BY day"
        connection.execute(query, [str(events)]).fetchall()


def ingest_files(events: Path, data_dir: Path, rotation_days: int) -> None:
    """Raw Parquet to the durable inbox."""
    ingest(
        [events], engine=DuckDBEngine("UTC"), salts=BenchSalts(), inbox=FileInbox(data_dir),
        quarantine=FileQuarantine(data_dir), removals=NoRemovals(), clock=BenchClock(),
        settings=Settings(start_date=FIRST_DAY, hash_salt_rotation_days=rotation_days, mau_window_days=WINDOW_DAYS),
    )  # fmt: skip


def read_inbox(events: Path, data_dir: Path, rotation_days: int) -> None:  # noqa: ARG001
    """Every key of every batch, read back."""
    inbox = FileInbox(data_dir)
    for _ in inbox.read(inbox.batches()):
        pass


def rotation_for_two_epochs(days: int) -> int:
    """The rotation under which most of the days need two epochs."""
    calendar = days_between(FIRST_DAY, FIRST_DAY + timedelta(days=days - 1))
    return max(range(60, 366), key=lambda rotation: sum(len(epochs_of_day(d, rotation, WINDOW_DAYS)) for d in calendar))


class BenchSalts:
    """Keys that anyone can know; the data are made up."""

    def epoch_keys(self, epochs: Iterable[int]) -> Mapping[int, EpochKey]:
        return {epoch: EpochKey(epoch, hashlib.sha256(str(epoch).encode()).digest()) for epoch in epochs}


class BenchClock:
    """A day after all of the events."""

    def today(self) -> date:
        return date(2100, 1, 1)


class NoRemovals:
    """For events without any '-' row."""

    def record(self, removals: list[Removal]) -> None:
        raise NotImplementedError


def _timed(work: Work, events: Path, data_dir: Path, rotation_days: int) -> Figure:
    start = time.perf_counter()
    work(events, data_dir, rotation_days)
    seconds = time.perf_counter() - start
    return Figure(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


if __name__ == "__main__":
    main()
