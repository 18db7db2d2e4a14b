"""kill −9 under load: whatever was acknowledged is in the state once, no erasure is lost, and no id is in any file.

Four clients send batches of events of people of their own, some with a removal, and erasure requests, to a real server
with two workers on a disk; meanwhile another process folds, and so seals segments under the workers' hands. At a moment
by chance a worker is killed, or all, or the process that seals; or the disk is full. Then everything is folded, and
compared with what the clients were answered.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import pytest

from dpdau_assets.core.dates import days_between, epochs_of_day
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.activity import apply_pending
from dpdau_tests.api.serving import KEY, Served, serve
from dpdau_tests.conftest import FixedClock
from dpdau_tests.support.lengths import at_length, chance
from dpdau_tests.support.master_secret import SECRET
from resources.store import open_store

pytestmark = pytest.mark.slow(weight=3)

TRIALS = at_length(ci=5, soak=50)
KINDS = ("worker", "all", "sealing", "worker and sealing", "full disk")
DAYS = days_between(date(2026, 1, 1), date(2026, 1, 3))
MARK = "a-raw-id-"
BATCH = 20
FULL = "dpdau-full"


@dataclass
class Sent:
    """What one client has sent, and what of it was acknowledged: (user, day) of events, users of erasures."""

    events: set[tuple[str, date]] = field(default_factory=set)
    acknowledged: set[tuple[str, date]] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    receipts: set[str] = field(default_factory=set)
    unavailable: int = 0


def client(number: int, port: int, until: threading.Event, sent: Sent) -> None:
    """Send one request after another, each by a connection that is opened anew where the last one broke."""
    draw, connection = random.Random(f"{chance('clients').random()} {number}"), None
    for turn in range(100_000):
        if until.is_set():
            return
        users = [f"{MARK}{number}-{turn}-{each}" for each in range(BATCH)]
        rows: list[dict[str, object]] = [{"user_id": user, "day": str(draw.choice(DAYS))} for user in users]
        is_erasure, with_removal = turn % 7 == 3, turn % 5 == 2
        leaver = f"{MARK}{number}-{max(0, turn - 1)}-0"
        if is_erasure:
            path, body = "/erasure", {"user_id": leaver}
            sent.asked.add(leaver)
        else:
            path = "/event"
            body = {"events": [*rows, *([{"user_id": leaver, "op": "-"}] if with_removal else [])]}
            sent.events |= {(str(row["user_id"]), date.fromisoformat(str(row["day"]))) for row in rows}
            sent.asked |= {leaver} if with_removal else set()
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            if connection:
                connection.close()
            connection = None
            time.sleep(0.01)
            continue
        if answer.status == 503:
            sent.unavailable += 1
            time.sleep(0.01)
            continue
        assert answer.status == 202, (answer.status, said)
        if is_erasure:
            sent.erased.add(leaver)
            sent.receipts |= set(said["receipts"])
        else:
            assert said["rejected"] == 0
            sent.acknowledged |= {(str(row["user_id"]), date.fromisoformat(str(row["day"]))) for row in rows}
            sent.erased |= {leaver} if with_removal else set()


FOLD = """
import sys
from datetime import date
from pathlib import Path
from dpdau_tests.api.test_killed import opened
from dpdau_assets.core.state.activity import apply_pending
store = opened(Path(sys.argv[1]))
while True:
    with store.state.activity.lock():
        apply_pending(store)
"""


def opened(folder: Path) -> Store:
    """The store that the server works on, opened in this process."""
    open_store.cache_clear()
    settings = Settings(data_dir=folder / "store", hash_salt_secret=SECRET, start_date=DAYS[0])
    return replace(open_store(settings), clock=FixedClock(date(2026, 11, 30)))


@contextmanager
def folding(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that folds without end."""
    process = subprocess.Popen([sys.executable, "-c", FOLD, str(folder)], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def strike(kind: str, served: Served, folder: subprocess.Popen[bytes], draw: random.Random) -> None:
    if "worker" in kind:
        with suppress(ProcessLookupError):
            os.kill(draw.choice(served.workers()), signal.SIGKILL)
    if "sealing" in kind:
        folder.kill()
    if kind == "all":
        served.end(signal.SIGKILL)


@contextmanager
def disk_of(folder: Path, kind: str) -> Iterator[None]:
    """For the full disk a small one of its own, where the system lets us mount one."""
    if kind != "full disk":
        yield
        return
    (folder / "store").mkdir(mode=0o700)
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size=6m,mode=700,uid={os.geteuid()},gid={os.getegid()}"
    command = [*as_root, "mount", "-t", "tmpfs", "-o", options, FULL, str(folder / "store")]
    if shutil.which(command[0]) is None or subprocess.run(command, capture_output=True, check=False).returncode:
        assert not os.environ.get("DPDAU_CI"), "CI must be able to mount a small disk"
        pytest.skip("no small disk can be mounted here: this needs root")
    try:
        yield
    finally:
        subprocess.run([*as_root, "umount", "--lazy", str(folder / "store")], check=True)


@pytest.mark.parametrize("trial", range(TRIALS))
def test_what_was_acknowledged_under_a_kill_is_in_the_state_once_and_no_erasure_is_lost(
    trial: int, tmp_path: Path
) -> None:
    kind, draw = KINDS[trial % len(KINDS)], chance(f"kill {trial}")
    with disk_of(tmp_path, kind):
        sent = under_load(kind, tmp_path, draw)
        if kind == "full disk":
            assert any(each.unavailable for each in sent) and any(each.acknowledged for each in sent)
            (tmp_path / "store" / "ballast").unlink()
        look(opened(tmp_path), sent)


def under_load(kind: str, folder: Path, draw: random.Random) -> list[Sent]:
    """What the clients were answered before, while and after it struck."""
    settings = {"START_DATE": str(DAYS[0]), "RATE_LIMIT_EVENTS_PER_MINUTE": "1000000000"}
    sent, until = [Sent() for _ in range(4)], threading.Event()
    with serve(folder, workers=2, **settings) as served, folding(folder) as folder_process:
        arguments = [(number, served.port, until, each) for number, each in enumerate(sent)]
        clients = [threading.Thread(target=client, args=each) for each in arguments]
        for thread in clients:
            thread.start()
        wait_for_answers(sent, draw.randrange(5, 40))
        if kind == "full disk":
            fill_disk(folder / "store" / "ballast")
            while not any(each.unavailable for each in sent):
                time.sleep(0.01)
        else:
            strike(kind, served, folder_process, draw)
        if kind not in ("all", "full disk"):  # the other worker goes on, and another one is started
            wait_for_answers(sent, sum(len(each.acknowledged) for each in sent) // BATCH + 10)
        until.set()
        for thread in clients:
            thread.join()
        served.end(signal.SIGKILL if draw.random() < 0.5 else signal.SIGTERM)
    return sent


def wait_for_answers(sent: list[Sent], batches: int) -> None:
    while sum(len(each.acknowledged) for each in sent) < batches * BATCH:
        time.sleep(0.005)


def fill_disk(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def look(store: Store, sent: list[Sent]) -> None:
    """Fold everything, and compare."""
    with store.state.activity.lock():
        apply_pending(store)
    assert store.events.log.segments() == [] and store.events.inbox.batches() == []
    erased, asked = set().union(*(each.erased for each in sent)), set().union(*(each.asked for each in sent))
    events, acknowledged = (
        set().union(*(each.events for each in sent)),
        set().union(*(each.acknowledged for each in sent)),
    )
    assert len(acknowledged) > 0
    for day in DAYS:
        for epoch in epochs_of_day(day, 90, 30):
            secret = store.state.salts.epoch_keys([epoch])[epoch].secret
            keys = {user: user_key(secret, user) for user, of_day in events if of_day == day}
            stored = store.state.activity.read(day, epoch)
            there = set() if stored is None else set(stored.tolist())
            assert len(there) == (0 if stored is None else len(stored)), "a key twice"
            must = {keys[user] for user, of_day in acknowledged if of_day == day and user not in asked}
            assert must <= there, f"{len(must - there)} acknowledged users are missing on {day}"
            assert there <= set(keys.values()), "somebody whom nobody has sent"
            assert not {keys[user] for user in erased if user in keys} & there, "an erased user is there"
    receipts = set().union(*(each.receipts for each in sent))
    assert {erasure.receipt for erasure in store.erasures.ledger.find(receipts)} == receipts
    assert apply_and_verify(store).unverified == ()
    needle = MARK.encode()
    files = [path for path in store.settings.data_dir.rglob("*") if path.is_file()]
    assert [path for path in files if needle in path.read_bytes()] == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_is_told_to_end_answers_what_is_under_way_and_leaves_nothing_unsealed(
    workers: int, tmp_path: Path
) -> None:
    with serve(tmp_path, workers=workers, START_DATE=str(DAYS[0])) as served:
        rows = [{"user_id": f"{MARK}{number}", "day": str(DAYS[0])} for number in range(BATCH)]
        assert served.ask("POST", "/event", {"events": rows}).status == 202
        assert served.end(signal.SIGTERM) in (0, -signal.SIGTERM)  # after it has ended well, uvicorn ends by the signal
    store = opened(tmp_path)
    assert store.events.log.segments() == [] and len(store.events.inbox.batches()) > 0
