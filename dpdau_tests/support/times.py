"""Where the time of the tests goes: seconds of each test, by the wall and of the processor, kept for a table.

A run with DPDAU_TIMES=FOLDER/NAME.json keeps them there. `python -m dpdau_tests.support.times FOLDER` prints of all
that lies in the folder the seconds by suite and by file, and the slowest tests. No test asserts any of them.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

SLOWEST = 25
_SPENT = "seconds of the processor"


@dataclass(frozen=True)
class Spent:
    """Seconds of one test: by the wall, and of the processor, with the processes that it waited for."""

    suite: str
    test: str
    wall: float
    processor: float

    @property
    def file(self) -> str:
        return self.test.partition("::")[0].removeprefix("dpdau_tests/")


class Recorder:
    """Registered with pytest: measures in the process that runs a test, and sums up in the one that reports."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._last = 0.0
        self._wall: dict[str, float] = defaultdict(float)
        self._processor: dict[str, float] = defaultdict(float)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        self._last = _processor()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        now = _processor()
        report.user_properties = [*report.user_properties, (_SPENT, now - self._last)]
        self._last = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._wall[report.nodeid] += report.duration
        self._processor[report.nodeid] += sum(
            float(str(value)) for name, value in report.user_properties if name == _SPENT
        )

    def pytest_sessionfinish(self) -> None:
        if "PYTEST_XDIST_WORKER" in os.environ:
            return
        spent = [Spent(self._target.stem, test, wall, self._processor[test]) for test, wall in self._wall.items()]
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._target.write_text(json.dumps([asdict(test) for test in spent]))


def _processor() -> float:
    return sum(os.times()[:4])


def recorded(folder: Path) -> list[Spent]:
    """The times of every run that was kept there."""
    return [Spent(**row) for path in sorted(folder.glob("*.json")) for row in json.loads(path.read_text())]


def table(spent: Iterable[Spent]) -> Iterator[str]:
    """Lines for people: by suite, by file where it is a second or more, and the slowest tests."""
    spent = list(spent)
    yield f"{'wall':>8} {'processor':>9}  suite"
    yield from _sums([(test.suite, test) for test in spent])
    yield f"\n{'wall':>8} {'processor':>9}  file"
    yield from _sums([(f"{test.file} ({test.suite})", test) for test in spent], least=1.0)
    yield f"\n{'wall':>8} {'processor':>9}  slowest {SLOWEST} tests"
    for test in sorted(spent, key=lambda test: -test.wall)[:SLOWEST]:
        yield f"{test.wall:8.1f} {test.processor:9.1f}  {test.test.removeprefix('dpdau_tests/')} ({test.suite})"


def _sums(named: Iterable[tuple[str, Spent]], least: float = 0.0) -> Iterator[str]:
    sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for name, test in named:
        wall, processor = sums[name]
        sums[name] = wall + test.wall, processor + test.processor
    for name, (wall, processor) in sorted(sums.items(), key=lambda item: -item[1][1]):
        if max(wall, processor) >= least:
            yield f"{wall:8.1f} {processor:9.1f}  {name}"


if __name__ == "__main__":
    print(*table(recorded(Path(sys.argv[1]))), sep="\n")
