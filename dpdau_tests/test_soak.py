"""`make soak`: the caller's time is shared by weight, and a finding is repeated by the line that is kept of it."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dpdau_tests.support import soak
from dpdau_tests.support.project import PROJECT
from dpdau_tests.support.soak import LongTest, Round, Until, next_test, run_round

_TEST = """
import os, random, pytest

@pytest.mark.slow
def test_that_fails_by_chance() -> None:
    assert os.environ["DPDAU_LENGTH"] == "soak"
    assert random.Random(os.environ["DPDAU_SEED"]).random() < 0.5

def test_that_is_short() -> None:
    assert False
"""

_ENDLESS = """
import threading, pytest

@pytest.mark.slow
def test_that_fails_by_chance() -> None:
    threading.Event().wait()
"""


def test_next_is_the_test_that_has_had_the_least_time_for_its_weight() -> None:
    tests = [LongTest("a", 1, False), LongTest("b", 3, False), LongTest("c", 2, False)]
    for _ in range(600):
        test = next_test(tests)
        assert test
        test.seconds += 1
    assert [test.seconds for test in tests] == [100, 300, 200]


def test_one_test_is_never_under_way_twice() -> None:
    tests = [LongTest("a", 9, False, running=True), LongTest("b", 1, False, seconds=5)]
    assert next_test(tests) is tests[1]
    tests[1].running = True
    assert next_test(tests) is None


def test_what_has_to_be_alone_waits_for_the_others_and_they_for_it() -> None:
    alone, other = LongTest("weeks", 1, True), LongTest("a", 1, False, seconds=1, running=True)
    assert next_test([alone, other]) is None
    other.running = False
    assert next_test([alone, other]) is alone
    alone.running = True
    assert next_test([alone, other]) is None


@pytest.mark.slow
def test_every_long_test_of_the_project_is_collected_with_its_weight() -> None:
    listed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os; os.environ['DPDAU_LENGTH'] = 'soak'\n"
            "from dpdau_tests.support.soak import collect\n"
            "for test in collect([]): print('FOUND', test.name, test.weight, test.alone)",
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = {line.split()[1]: line.split()[2:] for line in listed.stdout.splitlines() if line.startswith("FOUND")}
    assert len(found) > 30
    assert all(float(weight) > 0 for weight, _ in found.values())
    assert [name for name, (_, alone) in found.items() if alone == "True"] != []
    assert not any("test_soak.py::test_next" in name for name in found)


@pytest.fixture
def by_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LongTest:
    """A long test of a project of its own, which is where we are; half of all seeds fail it."""
    (tmp_path / "test_long.py").write_text(_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n    also_long\n    weeks\n")
    monkeypatch.chdir(tmp_path)
    return LongTest("test_long.py::test_that_fails_by_chance", 1, False)


@pytest.mark.slow
def test_a_rounds_choices_follow_from_its_seed_and_a_finding_is_repeated_by_the_line_that_is_kept(
    by_chance: LongTest,
) -> None:
    holds = {seed: random.Random(str(seed)).random() < 0.5 for seed in range(4)}
    for seed in holds:
        run_round(Round(seed, by_chance, seed), Until(math.inf))
    assert by_chance.rounds == {"passed": sum(holds.values()), "failed": 4 - sum(holds.values())}
    found = {int(path.stem.removeprefix("round-")): path.read_text() for path in soak.FINDINGS.glob("*.log")}
    assert set(found) == {seed for seed, held in holds.items() if not held} != set()
    for seed, kept in found.items():
        line = kept.splitlines()[0]
        assert f"DPDAU_SEED={seed} " in line
        assert "1 failed" in subprocess.run(line, shell=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_round_that_the_end_of_the_time_meets_is_no_finding(by_chance: LongTest, tmp_path: Path) -> None:
    (tmp_path / "test_long.py").write_text(_ENDLESS)
    run_round(Round(1, by_chance, 1), Until(-math.inf))
    assert by_chance.rounds == {"cut off": 1}
    assert soak.soak([by_chance], minutes=0, workers=1, seed=1)
    assert not soak.FINDINGS.exists()
    assert "1 cut off" in soak.summary([by_chance])[0]
