"""The measures against bare DuckDB, and of erasures: `python -m eval.bench` prints them, of one run on one machine.

Each piece of work runs in a fresh process, so that its peak memory is its own; ratios compare medians of the same run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np

from dpdau_assets.core.dates import UNIX_EPOCH, days_between, epochs_of_day
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.publication.release import read_alike
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.state.activity import apply_pending, process_days
from dpdau_assets.core.state.day_sketch import refresh
from eval.simulate import DEFAULT_SEED, generate_synthetic
from resources.reading.event_files import event_files
from resources.store import open_store

WINDOW_DAYS = 30
FIRST_DAY = UNIX_EPOCH + timedelta(days=90 * 225)  # an epoch of 90 days begins here

ERASED_AT_ONCE = (1_000, 10_000)
SECRET = sha256(b"a secret for measures only").hexdigest()  # the same in every process of one run

Parts = dict[str, float]
Work = Callable[[Path, Path, int], Parts | None]
"""(events, data directory, rotation days): something to measure; it may say how many seconds its parts took."""


@dataclass(frozen=True)
class Figure:
    """One run of one piece of work."""

    seconds: float
    peak_mb: int
    parts: Parts


def main() -> None:
    """Generate once, measure, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "dpdau-bench")
    options.add_argument("--events", type=int, default=30_000_000)
    options.add_argument("--users", type=int, default=1_000_000)
    options.add_argument("--days", type=int, default=30)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--process-events", type=int, default=10_000_000, help="for `dpdau ingest` as a process")
    options.add_argument("--only", choices=["state", "formats"], help="one half of the measures")
    chosen = options.parse_args()
    events = chosen.folder / f"events-{chosen.events}-{chosen.users}-{chosen.days}-{DEFAULT_SEED}.parquet"
    if not events.exists():
        generate_synthetic(events, days=chosen.days, users=chosen.users, events=chosen.events, first_day=FIRST_DAY)
    if chosen.only != "formats":
        bench(events, chosen.folder / "data", chosen.days, chosen.users, chosen.repeat)
    if chosen.only != "state":
        bench_formats(events, chosen.folder / "data", chosen.repeat, chosen.process_events)


def bench_formats(events: Path, data_dir: Path, repeat: int, process_events: int) -> None:
    """Measure each format of files, holding the same events, against the bare query over the very file.

    First from the file to sketches, with all of the events; then `dpdau ingest` as a whole process, with some of them,
    against the bare query as a whole process.
    """
    for suffix in (".parquet", ".csv", ".jsonl"):
        figures: dict[str, list[Figure]] = {}
        path, fewer = written_as(events, suffix), written_as(events, suffix, process_events)
        for _ in range(repeat):
            figures.setdefault(f"bare count(distinct), {suffix}", []).append(measure(bare_query, path, data_dir, 0))
            shutil.rmtree(data_dir, ignore_errors=True)
            figures.setdefault(f"ingest, state and sketches, {suffix}", []).append(
                measure(ingest_and_state, path, data_dir, 90)
            )
        show(figures)
        figures = {}
        for _ in range(repeat):
            figures.setdefault(f"bare query as a process, {suffix}", []).append(process(bare_command(fewer), data_dir))
            figures.setdefault(f"dpdau ingest as a process, {suffix}", []).append(
                process([str(Path(sys.executable).with_name("dpdau")), "ingest", "--from", str(fewer)], data_dir)
            )
        show(figures)


def written_as(events: Path, suffix: str, rows: int | None = None) -> Path:
    """A file of these events in another format, or of some of them, beside the one that they are in."""
    path = events.with_name(f"{events.stem}{f'-{rows}' if rows else ''}{suffix}")
    if not path.exists():
        options = {".parquet": "FORMAT parquet", ".csv": "FORMAT csv, HEADER", ".jsonl": "FORMAT json"}[suffix]
        some = "" if rows is None else f"LIMIT {rows}"
        with duckdb.connect() as connection:
            connection.execute("SET enable_progress_bar = false").fetchall()
            connection.execute(f"COPY (FROM '{events}' {some}) TO '{path}' ({options})").fetchall()
    return path


def bare_command(events: Path) -> list[str]:
    """The bare query as a process."""
    query = f"import duckdb; duckdb.sql({bare(events)!r}).fetchall()"
    return [sys.executable, "-c", query]


def process(command: Sequence[str], data_dir: Path) -> Figure:
    """Run a command on an empty data directory, from its start to its end."""
    shutil.rmtree(data_dir, ignore_errors=True)
    settings = {"DATA_DIR": str(data_dir), "START_DATE": FIRST_DAY.isoformat(), "HASH_SALT_SECRET": SECRET}
    start = time.perf_counter()
    child = subprocess.Popen(
        command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{command[0]} failed: {os.waitstatus_to_exitcode(status)}")
    return Figure(time.perf_counter() - start, usage.ru_maxrss // 1024, {})


def bench(events: Path, data_dir: Path, days: int, users: int, repeat: int) -> None:
    """Measure the bare query, and the whole way to sketches under one and under two epochs; then one MAU.

    Under one epoch people are then erased, each of them known: 1,000 at once, and 10,000 others.

    Works run in this order within one repetition, each finding in `data_dir` what the one before left there.
    """
    works: dict[str, Work] = {"ingest, state and sketches": ingest_and_state, "one 30-day MAU": one_mau}
    erasures = {f"erase {len(ids):,} people": partial(erase, ids) for ids in some_people(users, ERASED_AT_ONCE)}
    figures: dict[str, list[Figure]] = {}
    for _ in range(repeat):
        figures.setdefault("bare count(distinct)", []).append(measure(bare_query, events, data_dir, 0))
        two_epochs = rotation_for_two_epochs(days)
        for label, rotation, wanted in (("one epoch", 90, works | erasures), ("two epochs", two_epochs, works)):
            shutil.rmtree(data_dir, ignore_errors=True)
            for name, work in wanted.items():
                figures.setdefault(f"{name}, {label}", []).append(measure(work, events, data_dir, rotation))
    shutil.rmtree(data_dir, ignore_errors=True)
    show(figures)


def show(figures: Mapping[str, list[Figure]]) -> None:
    """Print medians of seconds, the ratio to the first line, and the highest peak."""
    bare = statistics.median(figure.seconds for figure in next(iter(figures.values())))
    print(f"{'work':39}{'seconds':>9}{'x bare':>9}{'peak MB':>9}   all runs")
    for name, repeats in figures.items():
        seconds = statistics.median(figure.seconds for figure in repeats)
        runs = ", ".join(f"{figure.seconds:.1f}" for figure in repeats)
        print(f"{name:39}{seconds:9.2f}{seconds / bare:9.2f}{max(f.peak_mb for f in repeats):9d}   {runs}")
        for part in repeats[0].parts:
            print(f"  {part:37}{statistics.median(figure.parts[part] for figure in repeats):9.2f}")


def measure(work: Work, events: Path, data_dir: Path, rotation_days: int) -> Figure:
    """Run it in a fresh process; its imports are not counted."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(_timed, (work, events, data_dir, rotation_days))


def bare_query(events: Path, data_dir: Path, rotation_days: int) -> None:  # noqa: ARG001
    """What everything is compared with: plain DuckDB, all memory, no privacy."""
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false").fetchall()
        connection.execute(bare(events)).fetchall()


def bare(events: Path) -> str:
    """The query that everything is compared with."""
    return f"SELECT day, count(DISTINCT user_id) FROM '{events}' GROUP BY day"


def ingest_and_state(events: Path, data_dir: Path, rotation_days: int) -> None:
    """Raw Parquet to the durable inbox, and from there to keyed state and exact sketches; all of it on disk."""
    store = open_bench_store(data_dir, rotation_days)
    report = ingest(event_files(events), store)
    process_days(list(report.days), store)
    refresh(report.days, store)


def one_mau(events: Path, data_dir: Path, rotation_days: int) -> None:  # noqa: ARG001
    """The exact statistic of one window from its sketches, as a release reads it."""
    store = open_bench_store(data_dir, rotation_days)
    last = max(day for day, _ in store.state.activity.stored())
    dict(read_alike([ReleaseKey("mau", WINDOW_DAYS, last)], ExactEstimator(), store))


def some_people(users: int, counts: Sequence[int]) -> list[list[str]]:
    """Ids of as many users as asked for, nobody twice; fewer where there are not so many."""
    places = np.random.default_rng(DEFAULT_SEED).permutation(users)
    edges = np.cumsum([0, *counts])
    groups = [places[first:last] for first, last in pairwise(edges)]
    return [[f"user-{place:010}" for place in group] for group in groups if len(group)]


def erase(user_ids: Sequence[str], events: Path, data_dir: Path, rotation_days: int) -> Parts:  # noqa: ARG001
    """Everything that is stored of these people: asked for, taken out of every file, read back, and receipts written.

    What `apply_and_verify` would do is done here in two steps, so that each has its time.
    """
    store = open_bench_store(data_dir, rotation_days)
    through = max(day for day, _ in store.state.activity.stored())
    parts: Parts = {}
    with timed("request", parts):
        request([Event(user_id, "-", through) for user_id in user_ids], store)
    with timed("rewrite state", parts), store.state.activity.lock():
        apply_pending(store)
    with timed("sketches, read back, receipts", parts):
        settled = apply_and_verify(store)
    assert settled.verified == len(user_ids) and not settled.unverified, "someone was not erased"
    return parts


@contextmanager
def timed(part: str, parts: Parts) -> Iterator[None]:
    """Note how long the block took."""
    start = time.perf_counter()
    yield
    parts[part] = time.perf_counter() - start


def open_bench_store(data_dir: Path, rotation_days: int) -> Store:
    """A store of its own, with real adapters."""
    settings = Settings(
        data_dir=data_dir, start_date=FIRST_DAY, hash_salt_rotation_days=rotation_days, hash_salt_secret=SECRET
    )
    return open_store(settings)


def rotation_for_two_epochs(days: int) -> int:
    """The rotation under which most of the days need two epochs."""
    calendar = days_between(FIRST_DAY, FIRST_DAY + timedelta(days=days - 1))
    return max(range(60, 366), key=lambda rotation: sum(len(epochs_of_day(d, rotation, WINDOW_DAYS)) for d in calendar))


def _timed(work: Work, events: Path, data_dir: Path, rotation_days: int) -> Figure:
    start = time.perf_counter()
    parts = work(events, data_dir, rotation_days) or {}
    seconds = time.perf_counter() - start
    return Figure(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, parts)


if __name__ == "__main__":
    main()
