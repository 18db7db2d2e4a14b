"""`make soak`: the long tests again and again, for a time that the caller gives, each for its share of it.

    python -m dpdau_tests.support.soak --minutes 240 [--workers 2] [--seed N] [TEST...]

A round is one test function in a process of its own, at the length of a soak, under a seed that is printed before it
begins: whatever it chooses by chance follows from that. Next is always the function that has had the least time for
its weight, which stands in its marker (`slow(weight=5)`). A round that the end of the time meets is cut off, and counts
as neither passed nor failed. A finding is kept in .artifacts/soak with the line that repeats it, and the soak goes on;
it ends with 1 if there was any.
"""

from __future__ import annotations

import argparse
import math
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

LONG = "slow or also_long or weeks"
FINDINGS = Path(".artifacts/soak")
_LOOK_SECONDS, _PATIENCE_SECONDS = 0.5, 60


@dataclass
class LongTest:
    """A test function, and what it has had so far: seconds and rounds, by outcome."""

    name: str
    weight: float
    alone: bool
    seconds: float = 0.0
    rounds: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    running: bool = False


class Until:
    """When all rounds end: at a time of the monotonic clock, or as soon as somebody says so."""

    def __init__(self, moment: float) -> None:
        self._moment = moment

    def is_over(self) -> bool:
        return time.monotonic() >= self._moment

    def end(self) -> None:
        self._moment = -math.inf


@dataclass(frozen=True)
class Round:
    """One round to come: which test, and the seed that all of its choices follow from."""

    number: int
    test: LongTest
    seed: int

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "pytest", self.test.name, "-m", LONG, "--timeout", "20000", "-q", "-rs"]

    @property
    def replay(self) -> str:
        return f"DPDAU_LENGTH=soak DPDAU_SEED={self.seed} {shlex.join(self.command)}"


class _Collector:
    """What pytest found, by function: the weights of its cases add up."""

    def __init__(self) -> None:
        self.found: dict[str, LongTest] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            marker = next(mark for mark in item.iter_markers() if mark.name in ("slow", "also_long", "weeks"))
            test = self.found.setdefault(
                item.nodeid.partition("[")[0], LongTest(item.nodeid.partition("[")[0], 0, False)
            )
            test.weight += float(marker.kwargs.get("weight", 1))
            test.alone = test.alone or item.get_closest_marker("weeks") is not None


def collect(named: Sequence[str]) -> list[LongTest]:
    """Every long test below these paths, or of the project. Raises SystemExit where there is none."""
    collector = _Collector()
    ended = pytest.main(["--collect-only", "-qq", "-m", LONG, *named], plugins=[collector])
    if ended != pytest.ExitCode.OK or not collector.found:
        raise SystemExit(f"No long test was collected ({ended!r}).")
    return list(collector.found.values())


def next_test(tests: Iterable[LongTest]) -> LongTest | None:
    """The one that has had the least time for its weight, of those that are not under way and may run now.

    None while one runs that has to be alone, or while the one whose turn it is has to be alone and others still run.
    """
    tests = list(tests)
    running = [test for test in tests if test.running]
    if any(test.alone for test in running):
        return None
    waiting = [test for test in tests if not test.running]
    chosen = min(waiting, key=lambda test: test.seconds / test.weight, default=None)
    return None if chosen and chosen.alone and running else chosen


def soak(tests: Sequence[LongTest], minutes: float, workers: int, seed: int) -> bool:
    """Run rounds until the time is over, or until ^C. Whether nothing was found."""
    until = Until(time.monotonic() + 60 * minutes)
    numbers, under_way = count(1), set[Future[None]]()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while not until.is_over() or under_way:
                test = next_test(tests) if not until.is_over() and len(under_way) < workers else None
                if test:
                    test.running, number = True, next(numbers)
                    under_way.add(pool.submit(run_round, Round(number, test, (seed + number) % 2**32), until))
                    continue
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for ended in done:
                    ended.result()
        finally:
            until.end()
    return not any(test.rounds["failed"] for test in tests)


def run_round(planned: Round, until: Until) -> None:
    """One process; its outcome and its time are entered in its test."""
    print(f"round {planned.number} seed {planned.seed} {planned.test.name} begins", flush=True)
    began = time.monotonic()
    try:
        outcome, output = _outcome(planned, until)
    finally:
        seconds = time.monotonic() - began
        planned.test.seconds += seconds
        planned.test.running = False
    planned.test.rounds[outcome] += 1
    print(f"round {planned.number} seed {planned.seed} {planned.test.name} {outcome} in {seconds:.0f} s", flush=True)
    if outcome == "failed":
        FINDINGS.mkdir(parents=True, exist_ok=True)
        (FINDINGS / f"round-{planned.number}.log").write_text(f"{planned.replay}\n\n{output}")
        print(f"{output[-3000:]}\nRepeat it: {planned.replay}", flush=True)


def _outcome(planned: Round, until: Until) -> tuple[str, str]:
    environment = {**os.environ, "DPDAU_LENGTH": "soak", "DPDAU_SEED": str(planned.seed)}
    with subprocess.Popen(
        planned.command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if until.is_over():
                    return "cut off", _cut_off(process)
            else:
                return "passed" if process.returncode == 0 else "failed", output


def _cut_off(process: subprocess.Popen[str]) -> str:
    """End it as by ^C, so that a test ends what it has started; and if it does not, all of its group."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=_PATIENCE_SECONDS)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def summary(tests: Iterable[LongTest]) -> list[str]:
    """A line for each test: its seconds, and its rounds by outcome."""
    lines = []
    for test in sorted(tests, key=lambda test: -test.seconds):
        rounds = ", ".join(f"{number} {outcome}" for outcome, number in sorted(test.rounds.items())) or "no round"
        lines.append(f"{test.seconds:8.0f} s  {rounds:24} {test.name}")
    return lines


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 if anything was found."""
    parser = argparse.ArgumentParser(description="The long tests for a given time.")
    parser.add_argument("tests", nargs="*")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    chosen = parser.parse_args(arguments)
    os.environ["DPDAU_LENGTH"] = "soak"  # some tests have more cases then
    print(f"A soak of {chosen.minutes:g} minutes, seed {chosen.seed}")
    tests = collect(chosen.tests)
    holds = soak(tests, chosen.minutes, chosen.workers, chosen.seed)
    print("", *summary(tests), "Nothing was found." if holds else f"Found: see {FINDINGS}", sep="\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
