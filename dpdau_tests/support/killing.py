"""Kills one operation on a store again and again: at moments, or at each of its steps.

Everything is imported once; each trial copies a prepared store, forks, and the fork is killed after some part of the
time that the operation takes, or before one of its steps. What is left is looked at, the operation is run again to its
end, and the outcome is compared with that of a run that nobody killed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import Engine, event

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.receipts import apply_and_verify, receipt
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.erasure.retention import purge
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.activity import apply_pending
from dpdau_tests.conftest import SECRET, FixedClock, prepare, put
from dpdau_tests.support.fast_folder import fast_folder
from resources.store import open_store

START = date(2025, 1, 1)
LAST = date(2025, 3, 20)
JANUARY, FEBRUARY = START, date(2025, 2, 1)
FIRST = date(2025, 1, 22)  # of those that are published: ten in January
KEPT = 20


def open_at(root: Path, **chosen: Any) -> Store:
    open_store.cache_clear()
    settings = Settings(data_dir=root, hash_salt_secret=SECRET, retention_days=KEPT, **chosen)
    return replace(open_store(settings), clock=FixedClock(LAST + timedelta(days=2)))


def prepare_apply(store: Store) -> None:
    days = days_between(START, date(2025, 1, 15))
    put(store, [(f"user {n}", day) for day in days for n in range(30)])
    prepare(store, days)
    store.accountant.seal(days[:5])
    put(store, [("late", days[2]), ("user 3", days[4]), ("someone", days[9])])
    request([Event(f"user {n}", "-", days[12]) for n in range(0, 30, 3)], store)
    request([Event("late", "-", days[2]), Event("nobody", "-", days[2])], store)


def apply(store: Store) -> None:
    apply_and_verify(store)


def prepare_restatement(store: Store) -> None:
    days = days_between(FIRST, date(2025, 2, 3))
    put(store, [(f"user {n}", day) for day in days for n in range(30)])
    prepare(store, days)
    for day in days:
        publish("dau", day, store)
    put(store, [("late", day) for day in days[:4]])
    request([Event("user 3", "-", days[7])], store)


def restatement(store: Store) -> None:
    restate(JANUARY, store)


def prepare_retention(store: Store) -> None:
    """The first 21 days are past retention."""
    days = days_between(FIRST, date(2025, 3, 3))
    put(store, [(f"user {n}", day) for day in days for n in range(30)])
    prepare(store, days)
    for day in days:
        publish("dau", day, store)
    put(store, [("late", days[2]), ("user 40", days[-1])])
    restate(JANUARY, store)
    restate(FEBRUARY, store)


def retention(store: Store) -> None:
    purge(store)


def prepare_fold(store: Store) -> None:
    days = days_between(START, date(2025, 1, 3))
    put(store, [(f"user {n}", day) for day in days for n in range(3)])
    prepare(store, days)
    store.accountant.seal(days[:1])
    put(store, [("late", days[0]), ("in time", days[1])])


def fold(store: Store) -> None:
    with store.state.activity.lock():
        apply_pending(store)


Act = Callable[[Store], None]
WORKS: dict[str, tuple[Act, Act]] = {
    "apply": (prepare_apply, apply),
    "restatement": (prepare_restatement, restatement),
    "retention": (prepare_retention, retention),
    "fold": (prepare_fold, fold),
}


def outcome(store: Store) -> dict[str, object]:
    """All that must be the same in the end: live bytes, requests, numbers that are there, salts."""
    root = store.settings.data_dir
    folders = ("activity", "late", "sketches", "inbox", "quarantine")
    files = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {
        "files": {path.relative_to(root).as_posix(): path.read_bytes().hex() for path in sorted(files)},
        "keys": [str(found.key) for found in store.accountant.releases()],
        "states": [one.state for one in store.erasures.ledger.erasures()],
        "behind": [[str(day), mark] for day, mark in store.state.rebuilds.behind()],
        "purged": str(store.accountant.purged_through()),
        "shredded": store.state.salts.shredded_through(),
    }


def damage(store: Store, numbers_before: dict[str, float]) -> list[str]:
    """What must not be, right after a kill: a file that cannot be read, a number lost, a month restated in part."""
    found = []
    for name, files in (("activity", store.state.activity), ("late", store.state.late)):
        found += [f"{name} {place} cannot be read" for place in files.stored() if files.read(*place) is None]
    numbers = {str(release.key): release.noisy_value for release in store.accountant.releases()}
    found += [f"{key} was lost" for key, value in numbers_before.items() if numbers.get(key) != value]
    again = sum(release.key.revision > 0 for release in store.accountant.releases())
    if again not in (0, 10, 38):
        found.append(f"{again} numbers were restated")
    return found


def damage_in_the_end(store: Store) -> list[str]:
    """A receipt that does not hold, a temporary file that stayed."""
    left = [
        str(path)
        for folder in ("activity", "late", "sketches", "inbox")
        for path in (store.settings.data_dir / folder).rglob("*.tmp")
    ]
    names = [one.receipt for one in store.erasures.ledger.erasures(["verified"])]
    return left + [f"receipt {name}" for name in names[:2] if not receipt(name, store)["verified"]]


def numbers_of(store: Store) -> dict[str, float]:
    return {str(release.key): release.noisy_value for release in store.accountant.releases()}


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


def spread(rng: random.Random) -> Iterator[float]:
    """Numbers from 0 to 1 that begin anywhere, and lie evenly however many of them are taken."""
    at = rng.random()
    while True:
        yield at
        at = (at + GOLDEN) % 1


GOLDEN = (5**0.5 - 1) / 2


def trials(work: str, points: int, seed: int) -> dict[str, object]:
    with fast_folder() as root:
        return trials_in(root, *WORKS[work], points, random.Random(seed))


def trials_in(root: Path, prepare_store: Act, act: Act, points: int, rng: random.Random) -> dict[str, object]:
    template, place = root / "template", root / "store"
    told_by_a_fork(lambda: prepare_store(open_at(template)), root)
    numbers = told_by_a_fork(lambda: numbers_of(open_at(template)), root)
    shutil.copytree(template, place)
    seconds, wanted = told_by_a_fork(lambda: done_in_one_go(place, act), root)  # type: ignore[misc]
    killed, problems = 0, []
    for part in islice(spread(rng), 5 * points):
        if killed == points:
            break
        shutil.rmtree(place)
        shutil.copytree(template, place)
        with in_a_fork(lambda: act(open_at(place))) as child:
            time.sleep(part * seconds)
            os.kill(child, signal.SIGKILL)
            in_time = waited(child) == -signal.SIGKILL
        killed += in_time
        if not in_time:
            seconds *= 0.9  # it was quicker than the run that was measured
        problems += told_by_a_fork(partial(aftermath, place, act, numbers, wanted), root)  # type: ignore[operator, arg-type]
    return {"points": points, "killed": killed, "problems": problems}


def trials_at_steps(work: str, begin: int, apart: int) -> dict[str, object]:
    """A trial at the step `begin` of the work, and at one in so many from there on."""
    prepare_store, act = WORKS[work]
    with fast_folder() as root:
        template, place = root / "template", root / "store"
        told_by_a_fork(lambda: prepare_store(open_at(template)), root)
        shutil.copytree(template, place)
        steps = told_by_a_fork(partial(steps_of, place, act), root)
        wanted = told_by_a_fork(lambda: outcome(open_at(place)), root)
        killed, problems, tried = 0, [], range(begin, steps + 1, apart)  # type: ignore[operator]
        for step in tried:
            shutil.rmtree(place)
            shutil.copytree(template, place)
            with in_a_fork(partial(steps_of, place, act, dies_at=step)) as child:
                killed += waited(child) == DIED
            found = told_by_a_fork(partial(aftermath, place, act, {}, wanted), root)
            problems += [f"at step {step}: {problem}" for problem in found]  # type: ignore[attr-defined]
    return {"tried": len(tried), "killed": killed, "problems": problems}


def steps_of(place: Path, act: Act, dies_at: int | None = None) -> int:
    store = open_at(place)
    with counted_steps(dies_at) as taken:
        act(store)
    return taken()


DIED = 9


@contextmanager
def counted_steps(dies_at: int | None = None) -> Iterator[Callable[[], int]]:
    """How many there were: files that are synced, put in their place or removed, changes of a ledger, and commits.

    This process ends before the step `dies_at`. It is to be a fork: what counts stays in place.
    """
    steps, counting_on = 0, Lock()

    def count(*_: object) -> None:
        nonlocal steps
        with counting_on:  # files are synced by several threads
            steps += 1
            if steps == dies_at:
                os._exit(DIED)

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            count()
            return real(*given, **named)

        return counted

    os.fsync = counting(os.fsync)
    for name in ("rename", "replace", "unlink"):
        setattr(Path, name, counting(getattr(Path, name)))
    event.listen(Engine, "before_cursor_execute", lambda at, cursor, said, *_: count() if is_change(said) else None)
    event.listen(Engine, "commit", count)
    yield lambda: steps


def is_change(statement: str) -> bool:
    return statement.startswith(("INSERT", "UPDATE", "DELETE", "CREATE", "DROP"))


def done_in_one_go(place: Path, act: Act) -> tuple[float, dict[str, object]]:
    """How many seconds it takes, with all that a process does first, and what comes of it."""
    began = time.monotonic()
    act(open_at(place))
    return time.monotonic() - began, outcome(open_at(place))


def aftermath(place: Path, act: Act, numbers: dict[str, float], wanted: dict[str, object]) -> list[str]:
    """What is wrong now, and after the same once more without a kill."""
    problems = damage(open_at(place), numbers)
    act(open_at(place))
    problems += ["the outcome differs"] if outcome(open_at(place)) != wanted else []
    return problems + damage_in_the_end(open_at(place))
