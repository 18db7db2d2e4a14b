"""How much the HTTP API takes: a real server with its durable log, and an open loop of requests beside it.

`python -m eval.api_load [--seconds N] [--workers N]` prints, for each load, what was offered and answered, errors, and
latencies from the moment at which a request was due, so that one that waits for its turn is not passed over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.activity import process_days
from dpdau_assets.core.state.day_sketch import refresh
from resources.store import SystemClock, open_store

KEY = "6f1d0c9b8a7e4f32b5d16a90c3e8f7d2415b6a09"
SECRET = "c0ffee5b9d2e4a7188f3016ad4b7e95263afcb108de7f4590b1c6d2a83e97f40"
USERS = 1_000_000
PUBLISHED = 60
BODIES = 100
CONNECTIONS = 48
console = Console()


@dataclass(frozen=True)
class Load:
    """Requests of one kind, so many a second, taken in turn."""

    name: str
    requests: Sequence[bytes]
    rate: float
    events_each: int = 0


@dataclass
class Heard:
    """What came of one load: seconds from when each request was due, and statuses."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def at(self, share: float) -> float:
        """Milliseconds within which this share of the requests was answered."""
        return 1000 * float(np.quantile(self.seconds, share)) if self.seconds else float("nan")


def main() -> None:
    """Measure each mix of loads against one server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=50_000, help="Events a second, in batches of 500.")
    parser.add_argument("--folder", type=Path, default=None, help="On the disk that is measured.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder, served(Path(folder), chosen.workers) as port:
        today = SystemClock("UTC").today()
        batches = Load("batches of 500", event_requests(500, today), chosen.rate / 500, 500)
        reads = Load("reads", read_requests(today), 500)
        singles = Load("single events", event_requests(1, today), 600, 1)
        table = Table(
            "loads", "of", "offered/s", "answered/s", "events/s", "p50 ms", "p95", "p99", "errors", box=box.SIMPLE
        )
        asyncio.run(offered([Load("", reads.requests, 100)], port, 10))  # a worker that has run for a while is warm
        for mix in ([batches], [batches, reads], [reads], [singles]):
            heard = asyncio.run(offered(mix, port, chosen.seconds))
            for load, of_load in zip(mix, heard, strict=True):
                add_row(table, " + ".join(each.name for each in mix), load, of_load, chosen.seconds)
        console.print(table)


def add_row(table: Table, mix: str, load: Load, heard: Heard, seconds: float) -> None:
    """One load of a mix."""
    good = sum(count for status, count in heard.statuses.items() if 200 <= status < 300)
    errors = sum(heard.statuses.values()) - good
    answered = good / max(seconds, max(heard.seconds, default=0))
    events = f"{answered * load.events_each:,.0f}" if load.events_each else ""
    times = (f"{heard.at(share):.1f}" for share in (0.5, 0.95, 0.99))
    table.add_row(mix, load.name, f"{load.rate:,.0f}", f"{answered:,.0f}", events, *times, str(errors))


# --- The server --------------------------------------------------------------------------------------------------


@contextmanager
def served(folder: Path, workers: int) -> Iterator[int]:
    """The port of a real server on a store with published numbers, until the end of the block."""
    today = SystemClock("UTC").today()
    settings = Settings(data_dir=folder / "data", hash_salt_secret=SECRET, start_date=today - timedelta(days=400))
    fill(settings, today)
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


def fill(settings: Settings, today: date) -> None:
    """Numbers to read: DAU of two months, MAU of one."""
    store = open_store(settings)
    days = days_between(today - timedelta(days=PUBLISHED), today - timedelta(days=1))
    read = days_between(days[0] - timedelta(days=settings.mau_window_days - 1), days[-1])
    process_days(read, store)
    refresh(read, store)
    for day in days:
        publish("dau", day, store)
        publish("mau", day, store)


def wait_until_ready(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Ends the measurement, with what the server said, if it does not start."""
    for _ in range(600):
        if server.poll() is not None:
            sys.exit(log.read_text())
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    sys.exit(f"The server is not ready after a minute.\n{log.read_text()}")


# --- Requests ----------------------------------------------------------------------------------------------------


def event_requests(size: int, today: date) -> list[bytes]:
    """POSTs of so many events each, of users and days at random."""
    chance = random.Random(size)
    days = [str(today - timedelta(days=back)) for back in range(3)]
    bodies = (
        [{"user_id": f"user-{chance.randrange(USERS)}", "op": "+", "day": chance.choice(days)} for _ in range(size)]
        for _ in range(BODIES)
    )
    return [request("POST", "/event", json.dumps({"events": body}).encode()) for body in bodies]


def read_requests(today: date) -> list[bytes]:
    """GETs of published numbers, of all kinds."""
    days = days_between(today - timedelta(days=PUBLISHED), today - timedelta(days=1))
    paths = [path for day in days for path in (f"/dau/{day}", f"/mau?end={day}&window=30")]
    paths += [f"/series/dau?from={days[0]}&to={days[-1]}", f"/budget/mau?day={days[-1]}"]
    return [request("GET", path) for path in paths]


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """The bytes of one request on a connection that stays open."""
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"X-API-Key: {KEY}"]
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


# --- An open loop ------------------------------------------------------------------------------------------------


async def offered(loads: Sequence[Load], port: int, seconds: float) -> list[Heard]:
    """What came of these loads, side by side, each on connections of its own."""
    return list(await asyncio.gather(*(_offered(load, port, seconds) for load in loads)))


async def _offered(load: Load, port: int, seconds: float) -> Heard:
    """Each request is sent when it is due, or as soon as a connection is free; its time counts from when it was due."""
    heard, due = Heard(), iter(range(int(load.rate * seconds)))
    # One after the other, as clients come: of many that come at once one worker may accept nearly all.
    connections = []
    for _ in range(CONNECTIONS):
        connections.append(await asyncio.open_connection("127.0.0.1", port))
        await asyncio.sleep(0.01)
    begun = time.perf_counter()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in due:
            at = begun + number / load.rate
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            writer.write(load.requests[number % len(load.requests)])
            heard.statuses[await _status(reader)] += 1
            heard.seconds.append(time.perf_counter() - at)
        writer.close()

    await asyncio.gather(*(client(*connection) for connection in connections))
    return heard


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    await reader.readexactly(length)
    return int(head[9:12])


if __name__ == "__main__":
    main()
