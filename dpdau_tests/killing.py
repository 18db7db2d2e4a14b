"""Kills one operation on a store at random moments, again and again: `python -m dpdau_tests.killing WORK POINTS SEED`.

Everything is imported once; each trial copies a prepared store, forks, and sends SIGKILL to the fork after a random
part of the time that the operation takes. What is left is looked at, the operation is run again to its end, and the
outcome is compared with that of a run that nobody killed. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from dpdau_assets.core.erasure import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.receipts import receipt, settle
from dpdau_assets.core.release import publish, restate
from dpdau_assets.core.retention import purge
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.windows import days_between
from dpdau_tests.conftest import SECRET, FixedClock, prepare, put
from resources.store import open_store

START = date(2025, 1, 1)
LAST = date(2025, 3, 20)
JANUARY = START


def open_at(root: Path, **chosen: Any) -> Outside:
    open_store.cache_clear()
    settings = Settings(data_dir=root, hash_salt_secret=SECRET, retention_days=40, **chosen)
    return replace(open_store(settings), clock=FixedClock(LAST + timedelta(days=2)))


def prepare_apply(outside: Outside) -> None:
    days = days_between(START, date(2025, 1, 25))
    put(outside, [(f"user {n}", day) for day in days for n in range(30)])
    prepare(outside, days)
    outside.ledger.seal(days[:5])
    put(outside, [("late", days[2]), ("user 3", days[4]), ("someone", days[9])])
    request([Event(f"user {n}", "-", days[20]) for n in range(0, 30, 3)], outside)
    request([Event("late", "-", days[2]), Event("nobody", "-", days[2])], outside)


def apply(outside: Outside) -> None:
    settle(outside)


def prepare_restatement(outside: Outside) -> None:
    days = days_between(START, date(2025, 2, 3))
    put(outside, [(f"user {n}", day) for day in days for n in range(30)])
    prepare(outside, days)
    for day in days:
        publish("dau", day, outside)
    put(outside, [("late", day) for day in days[:9]])
    request([Event("user 3", "-", days[20])], outside)


def restatement(outside: Outside) -> None:
    restate(JANUARY, outside)


def prepare_retention(outside: Outside) -> None:
    days = days_between(START, LAST)
    put(outside, [(f"user {n}", day) for day in days for n in range(30)])
    prepare(outside, days)
    for day in days:
        publish("dau", day, outside)
    put(outside, [("late", days[2]), ("user 40", days[-1])])
    restate(JANUARY, outside)
    restate(date(2025, 2, 1), outside)


def retention(outside: Outside) -> None:
    purge(outside)


Act = Callable[[Outside], None]
WORKS: dict[str, tuple[Act, Act]] = {
    "apply": (prepare_apply, apply),
    "restatement": (prepare_restatement, restatement),
    "retention": (prepare_retention, retention),
}


def outcome(outside: Outside) -> dict[str, object]:
    """All that must be the same in the end: live bytes, requests, numbers that are there, salts."""
    root = outside.settings.data_dir
    folders = ("activity", "late", "sketches", "inbox", "quarantine")
    files = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {
        "files": {path.relative_to(root).as_posix(): path.read_bytes().hex() for path in sorted(files)},
        "keys": [str(found.key) for found in outside.ledger.releases()],
        "states": [one.state for one in outside.erasures.erasures()],
        "behind": [(str(day), mark) for day, mark in outside.rebuilds.behind()],
        "purged": str(outside.ledger.purged_through()),
        "shredded": outside.salts.shredded_through(),
    }


def damage(outside: Outside, numbers_before: dict[str, float]) -> list[str]:
    """What must not be, right after a kill: a file that cannot be read, a number lost, a month restated in part."""
    found = []
    for name, store in (("activity", outside.activity), ("late", outside.late)):
        found += [f"{name} {place} cannot be read" for place in store.stored() if store.read(*place) is None]
    numbers = {str(release.key): release.noisy_value for release in outside.ledger.releases()}
    found += [f"{key} was lost" for key, value in numbers_before.items() if numbers.get(key) != value]
    again = sum(release.key.revision > 0 for release in outside.ledger.releases())
    if again not in (0, 31, 59):
        found.append(f"{again} numbers were restated")
    return found


def damage_in_the_end(outside: Outside) -> list[str]:
    """A receipt that does not hold, a temporary file that stayed."""
    left = [str(path) for folder in ("activity", "late", "sketches", "inbox")
            for path in (outside.settings.data_dir / folder).rglob("*.tmp")]  # fmt: skip
    names = [one.receipt for one in outside.erasures.erasures(["verified"])]
    return left + [f"receipt {name}" for name in names[:2] if not receipt(name, outside)["verified"]]


def numbers_of(outside: Outside) -> dict[str, float]:
    return {str(release.key): release.noisy_value for release in outside.ledger.releases()}


@contextmanager
def in_a_fork(work: Callable[[], object]) -> Iterator[int]:
    """A process of its own that does the work, and ends with 1 if that fails."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    yield child


def waited(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def told_by_a_fork(tell: Callable[[], object], root: Path) -> object:
    """What a process of its own finds out; so that this one never opens a store, and its forks begin clean."""
    told = root / "told.json"
    with in_a_fork(lambda: told.write_text(json.dumps(tell()))) as child:
        assert waited(child) == 0
    return json.loads(told.read_text())


def main(work: str, points: int, seed: int) -> None:
    shared = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else None))
    try:
        print(json.dumps(trials(work, points, random.Random(seed), root)))
    finally:
        shutil.rmtree(root)


def trials(work: str, points: int, rng: random.Random, root: Path) -> dict[str, object]:
    prepare_store, act = WORKS[work]
    template, place = root / "template", root / "store"
    told_by_a_fork(lambda: prepare_store(open_at(template)), root)
    numbers = told_by_a_fork(lambda: numbers_of(open_at(template)), root)
    shutil.copytree(template, place)
    began = time.monotonic()
    told_by_a_fork(lambda: act(open_at(place)), root)
    seconds = time.monotonic() - began
    wanted = told_by_a_fork(lambda: outcome(open_at(place)), root)
    killed, problems = 0, []
    for _ in range(5 * points):
        if killed == points:
            break
        shutil.rmtree(place)
        shutil.copytree(template, place)
        with in_a_fork(lambda: act(open_at(place))) as child:
            time.sleep(rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            in_time = waited(child) == -signal.SIGKILL
        killed += in_time
        if not in_time:
            seconds *= 0.9  # it was quicker than the run that was measured
        problems += told_by_a_fork(lambda: damage(open_at(place), numbers), root)  # type: ignore[operator, arg-type]
        told_by_a_fork(lambda: act(open_at(place)), root)
        if told_by_a_fork(lambda: outcome(open_at(place)), root) != wanted:
            problems.append("the outcome differs")
        problems += told_by_a_fork(lambda: damage_in_the_end(open_at(place)), root)  # type: ignore[operator]
    return {"points": points, "killed": killed, "problems": problems}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
