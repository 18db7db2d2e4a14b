"""Kills the publication of days, again and again.

One store goes on day by day. Each day is killed some times, at a line of the release path or at a moment, and looked at
after each; then it is completed, and the next one begins. Everything is imported once, and only forks open the store.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from types import FrameType
from typing import Any

from dpdau_assets.core.budget import verification
from dpdau_assets.core.budget.planning import restated_keys
from dpdau_assets.core.dates import days_between, month_of, months_read
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import Release
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.mechanisms import Stream
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.publication.runs import DAU, MAU, RESTATEMENT, plan_run
from dpdau_assets.core.settings import Metric
from dpdau_tests.conftest import prepare, put
from dpdau_tests.support.fast_folder import fast_folder
from dpdau_tests.support.killing import (
    LAST,
    START,
    in_a_fork,
    open_at,
    spread,
    told_by_a_fork,
    waited,
)
from dpdau_tests.support.postgres import schema_url
from dpdau_tests.support.project import PROJECT

FIRST_MAU = date(2025, 1, 30)
# Charged with the first number of a month or stream, and with every number.
SHARED: Mapping[str, Any] = {}
INDEPENDENT = {
    "dau_mechanism": "laplace",
    "epsilon_dau": Fraction(1, 100),
    "mau_mechanism": "gaussian",
    "epsilon_mau": Fraction(1, 100),
}
KILLS_A_STORE = 25  # then another one, of the other kind, with everything to be opened anew
KILLED_AGAIN = 0.75  # how often a day that was killed is killed again before it is completed
BOOKKEEPING = (
    "dpdau_assets/core/publication/release.py",
    "dpdau_assets/core/budget/planning.py",
    "resources/ledger_sql/chain.py",
    "resources/ledger_sql/secret_values.py",
)
WHOLE_PATH = (
    *BOOKKEEPING,
    "dpdau_assets/core/state/activity.py",
    "dpdau_assets/core/privacy/accounting.py",
    "resources/ledger_sql/",
    "resources/storage/durable.py",
    "resources/storage/state_files.py",
)
A_MOMENT = ()
KINDS = (BOOKKEEPING, WHOLE_PATH, A_MOMENT)
LONGEST = {BOOKKEEPING: 500.0, WHOLE_PATH: 4_500.0, A_MOMENT: 0.1}  # lines or seconds of a day, to begin with


def prepare_releases(store: Store) -> None:
    days = days_between(START, LAST)
    put(store, [(f"user {n}", day) for day in days for n in range(5)])
    prepare(store, days)


def released(day: date, store: Store) -> Iterator[Release]:
    """The numbers that a run of this day makes, one by one: DAU, MAU, and the restatement that is due."""
    for step in plan_run(day, day, store):
        if step.day is None:
            continue
        if step.kind == DAU:
            yield publish("dau", step.day, store)
        elif step.kind == MAU:
            yield publish("mau", step.day, store)
        elif step.kind == RESTATEMENT:
            yield from restate(step.day, store)


def happen(day: date, store: Store) -> None:
    """What the next release has to take in first: someone in time, someone late, and a removal."""
    put(store, [(f"user of {day}", day + timedelta(days=1)), (f"late {day}", day)])
    request([Event(f"user {day.day % 5}", "-", day)], store, confirmed=True)


@dataclass
class Lines:
    """Counts the lines of these files that are executed, and kills its own process at the fatal one."""

    files: tuple[str, ...]
    fatal: int
    note: Path
    passed: int = 0

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Lines | None:
        if event == "call":
            loop = frame.f_code.co_name.startswith("<")  # a comprehension, the same line many times
            return self if frame.f_code.co_filename.startswith(self.files) and not loop else None
        if event == "line":
            self.passed += 1
            if self.passed == self.fatal:
                self.note.write_text(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
                os.kill(os.getpid(), signal.SIGKILL)
        return self


@dataclass
class Releasing:
    """One store on its way through the days. Only forks of this process open it."""

    root: Path
    settings: Mapping[str, Any]
    rng: random.Random
    places: Iterator[tuple[tuple[str, ...], float]]
    day: date = FIRST_MAU
    longest: dict[tuple[str, ...], float] = field(default_factory=lambda: dict(LONGEST))
    head: str = ""
    killed: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def run(self, kills: int) -> None:
        told_by_a_fork(lambda: prepare_releases(self.opened()), self.root)
        while self.killed.total() < kills:
            done = self.rng.random() > KILLED_AGAIN
            if place := self.kill():
                self.killed[place] += 1
            else:  # it came to its end before
                done = True
            outcome: Any = told_by_a_fork(lambda done=done: self.aftermath(complete=done), self.root)
            self.head = outcome["head"]
            self.problems += [f"{self.day}, killed at {place}: {problem}" for problem in outcome["problems"]]
            self.day += timedelta(days=done)

    def opened(self) -> Store:
        return open_at(self.root / "store", **self.settings)

    def kill(self) -> str:
        """Where a process that publishes the day was killed, "" if it came to its end."""
        files, part = next(self.places)
        fatal = part * self.longest[files]
        note = self.root / "note"
        lines = Lines(tuple(str(PROJECT / file) for file in files), 1 + int(fatal), note)
        with in_a_fork(lambda: self.publish(lines if files else None)) as child:
            if not files:
                time.sleep(fatal)
                os.kill(child, signal.SIGKILL)
            ended = waited(child)
        assert ended in (0, -signal.SIGKILL)
        killed = ended != 0
        self.longest[files] *= 1.02 if killed else 0.95  # so that no part of the path is left out or hit in vain
        if not killed:
            return ""
        return note.read_text() if files else "a moment"

    def publish(self, lines: Lines | None) -> None:
        """Every number is told to the world before the next one is made."""
        store = self.opened()
        with (self.root / "seen").open("ab", buffering=0) as seen:
            sys.settrace(lines)
            for release in released(self.day, store):
                seen.write(pickle.dumps(release))

    def aftermath(self, *, complete: bool) -> dict[str, object]:
        """What is wrong now, and after the same again without a kill."""
        store = self.opened()
        with store.accountant.transaction():
            pass  # a server may still be busy with the last statement of the one that was killed
        problems = [] if not self.head or store.accountant.holds(self.head) else ["What was there before is gone."]
        problems += inconsistent(store, self.seen())
        if complete:
            before = store.accountant.releases()
            again = list(released(self.day, store))
            problems += inconsistent(store, [*self.seen(), *before, *again])
            happen(self.day, store)
        return {"problems": problems, "head": store.accountant.head()}

    def seen(self) -> list[Release]:
        releases = []
        with (self.root / "seen").open("a+b") as file:
            end = file.tell()
            file.seek(0)
            while file.tell() < end:
                releases.append(pickle.load(file))
        return releases


def inconsistent(store: Store, seen: list[Release]) -> list[str]:
    """Numbers that were seen and are not there, and whatever is there without what belongs to it."""
    problems = verification.problems(store.settings, store.accountant, seen)
    releases = store.accountant.releases()
    owed: set[tuple[Metric, date, str]] = {
        (release.key.metric, month, release.run)
        for release in releases
        for month in months_read(release.key.day, release.key.window_days)
    }
    months = {month for _, month, _ in owed} | {date(2024, 12, 1), date(2025, 4, 1)}
    for metric in ("dau", "mau"):
        for month in months:
            charged = sorted(charge.run for charge in store.accountant.charges(metric, month))
            if charged != sorted(name for asked, read, name in owed if (asked, read) == (metric, month)):
                problems.append(f"{metric} of {month} was charged for {charged}.")
    given = Counter(release.run for release in releases)
    for run in store.accountant.mechanism_runs():
        if not given[run.name]:
            problems.append(f"{run.name} has no number.")
        if isinstance(run.mechanism, Stream):
            with store.accountant.transaction() as transaction:
                kept = min(given[run.name], len(run.mechanism.filter) - 1)  # the others nobody reads again
                if len(transaction.frozen(run.name, 10_000)) != kept:
                    problems.append(f"{run.name} has frozen a statistic without a number.")
    for month in store.accountant.restated():
        restated = sorted(
            release.key for release in releases if release.key.revision and month_of(release.key.day) == month
        )
        if restated != restated_keys(month, (release.key for release in store.accountant.releases())):
            problems.append(f"{month:%Y-%m} was restated in part.")
    return problems


def places(rng: random.Random) -> Iterator[tuple[tuple[str, ...], float]]:
    """Which files' lines are counted, or none, and the part of the way to the kill: spread over each of them."""
    parts = {kind: spread(rng) for kind in KINDS}
    return ((kind, next(parts[kind])) for kind in cycle(rng.sample(KINDS, len(KINDS))))


def trials(database: str, points: int, seed: int) -> dict[str, object]:
    """Stores one after the other, until there were so many kills; `database` is sqlite or postgresql."""
    rng, killed, problems = random.Random(seed), Counter[str](), []
    kinds, places_to_kill = cycle(rng.sample([SHARED, INDEPENDENT], 2)), places(rng)
    while killed.total() < points:
        ledger: AbstractContextManager[str | None] = schema_url() if database == "postgresql" else nullcontext()
        with fast_folder() as root, ledger as url:
            store = Releasing(root, {**next(kinds), "ledger_url": url}, rng, places_to_kill)
            store.run(min(KILLS_A_STORE, points - killed.total()))
        killed += store.killed
        problems += store.problems
    return {"killed": killed.total(), "places": dict(killed), "problems": problems}
