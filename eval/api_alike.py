"""Whether the time of an answer tells if a person is known: requests for erasure in pairs, of one who is and of nobody.

`python -m eval.api_alike [--pairs N]` starts a real server on a store with known users, sends the two requests of each
pair in a random order on one connection, and prints for each route what they took, how much longer the known one's did,
and how well the times tell which is which.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import stats

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.activity import process_days
from dpdau_assets.core.state.day_sketch import refresh
from eval.api_load import KEY, SECRET, wait_until_ready
from resources.reading.event_files import event_file
from resources.store import SystemClock, open_store

USERS = 20_000
DAYS = 60
EACH = 10
"""Days on which a user is active."""
WARM = 100
"""Pairs that are sent first, and not counted."""
console = Console(width=120)

Body = Callable[[str], Any]


@dataclass(frozen=True)
class Pair:
    """Milliseconds until each of two answers was read."""

    known: float
    unknown: float


@dataclass(frozen=True)
class Told:
    """What the times of pairs tell.

    Attributes:
        median_known, median_unknown, difference, interval: milliseconds; `difference` is the mean of known less
            unknown, and `interval` its 95 %.
        p_value: of Wilcoxon's signed-rank test that neither takes longer.
        auc: how often a known one's time is longer than an unknown one's, ties being halves; 0.5 tells nothing.
        auc_by_chance: from 0.5, how far `auc` lies in 95 % of cases where the times tell nothing.
    """

    pairs: int
    median_known: float
    median_unknown: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    auc: float
    auc_by_chance: float


def main() -> None:
    """Measure each route that takes requests for erasure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None, help="On the disk that is measured.")
    chosen = parser.parse_args()
    routes: dict[str, tuple[str, Body]] = {
        "POST /erasure": ("/erasure", lambda user: {"user_id": user}),
        "POST /event, `-`": ("/event", lambda user: {"event": {"user_id": user, "op": "-", "day": str(today)}}),
    }
    needed, today = chosen.pairs + WARM, SystemClock("UTC").today()
    known, unknown = two_groups(max(USERS, needed * len(routes)), needed * len(routes))
    table = Table(
        "route", "pairs", "known ms", "unknown ms", "mean difference ms", "p", "AUC", "by chance", box=box.SIMPLE
    )
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        settings = Settings(data_dir=Path(folder) / "data", hash_salt_secret=SECRET, start_date=first_day(today))
        fill(settings, known, today)
        with serving(settings, Path(folder), chosen.workers) as port:
            for number, (name, (path, body)) in enumerate(routes.items()):
                own = slice(number * needed, (number + 1) * needed)
                pairs = measured(port, path, body, known[own], unknown[own])[WARM:]
                add_row(table, name, told_by(pairs))
    console.print(table)


def add_row(table: Table, route: str, told: Told) -> None:
    """One route."""
    low, high = told.interval
    table.add_row(
        route,
        f"{told.pairs:,}",
        f"{told.median_known:.3f}",
        f"{told.median_unknown:.3f}",
        f"{told.difference:+.3f} ({low:+.3f} to {high:+.3f})",
        f"{told.p_value:.2f}",
        f"{told.auc:.3f}",
        f"0.5 ± {told.auc_by_chance:.3f}",
    )


# --- People ------------------------------------------------------------------------------------------------------


def two_groups(known: int, unknown: int) -> tuple[list[str], list[str]]:
    """Ids that nobody could tell apart by their looks."""
    numbers = random.Random(1).sample(range(10**8), known + unknown)
    users = [f"user-{number:08}" for number in numbers]
    return users[:known], users[known:]


def first_day(today: date) -> date:
    """The first of the days on which somebody was active."""
    return today - timedelta(days=DAYS)


def fill(settings: Settings, known: Sequence[str], today: date) -> None:
    """Every known user on some of the days, folded and sketched; nothing is published, so that no guard parks."""
    days, chance = days_between(first_day(today), today - timedelta(days=1)), random.Random(2)
    events = settings.data_dir.parent / "events.csv"
    with events.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "op", "day"])
        rows.writerows((user, "+", day) for user in known for day in chance.sample(days, EACH))
    store = open_store(settings)
    ingest([event_file(events)], store)
    process_days(days, store)
    refresh(days, store)


@contextmanager
def serving(settings: Settings, folder: Path, workers: int) -> Iterator[int]:
    """The port of a real server on this store, until the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "PYTHONPATH")},
        "DATA_DIR": str(settings.data_dir),
        "START_DATE": str(settings.start_date),
        "HASH_SALT_SECRET": SECRET,
        "SERVICE_API_KEY": KEY,
        "RATE_LIMIT_PER_MINUTE": "100000000",
        "RATE_LIMIT_EVENTS_PER_MINUTE": "10000000000",
    }
    command = [sys.executable, "-m", "dpdau_assets.cli", "serve", "--port", str(port), "--workers", str(workers)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until_ready(port, server, folder / "log")
            yield port
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


# --- Pairs -------------------------------------------------------------------------------------------------------


def measured(port: int, path: str, body: Body, known: Sequence[str], unknown: Sequence[str]) -> list[Pair]:
    """What both requests of each pair took, one after the other; which comes first is left to chance."""
    connection, chance = http.client.HTTPConnection("127.0.0.1", port), random.Random(3)
    pairs = []
    for one, other in zip(known, unknown, strict=True):
        order = [one, other] if chance.random() < 0.5 else [other, one]
        took = {user: _milliseconds(connection, path, json.dumps(body(user)).encode()) for user in order}
        pairs.append(Pair(took[one], took[other]))
    connection.close()
    return pairs


def _milliseconds(connection: http.client.HTTPConnection, path: str, body: bytes) -> float:
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    begun = time.perf_counter_ns()
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    answer.read()
    took = time.perf_counter_ns() - begun
    assert answer.status == 202, answer.status
    return took / 1e6


def told_by(pairs: Sequence[Pair]) -> Told:
    """What these times tell."""
    known, unknown = (np.array([getattr(pair, name) for pair in pairs]) for name in ("known", "unknown"))
    differences, count = known - unknown, len(pairs)
    half = float(stats.t.ppf(0.975, count - 1) * stats.sem(differences))
    mean = float(differences.mean())
    signed_ranks: Any = stats.wilcoxon(known, unknown)
    return Told(
        pairs=count,
        median_known=float(np.median(known)),
        median_unknown=float(np.median(unknown)),
        difference=mean,
        interval=(mean - half, mean + half),
        p_value=signed_ranks.pvalue,
        auc=float(stats.mannwhitneyu(known, unknown).statistic) / count**2,
        auc_by_chance=float(stats.norm.ppf(0.975)) * ((2 * count + 1) / (12 * count**2)) ** 0.5,
    )


if __name__ == "__main__":
    main()
