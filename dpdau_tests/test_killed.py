"""Killed at any moment, nothing is lost and nothing half written, and the same call again completes the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpdau_tests.postgres import schema_url
from dpdau_tests.support.lengths import at_length

PROJECT = Path(__file__).parents[1]
POINTS = at_length(ci=34, soak=100)
RELEASE_POINTS = at_length(ci=100, soak=500)
"""Drawn anew in every run: over a few runs they are everywhere."""


def killed(work: str, points: int, seed: int, module: str = "dpdau_tests.killing") -> dict:
    command = [sys.executable, "-m", module, work, str(points), str(seed)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("work", ["apply", "restatement", "retention"])
def test_work_that_was_killed_is_completed_by_the_next_run(work: str) -> None:
    found = killed(work, points=4, seed=1)
    assert found["problems"] == [] and found["killed"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("work", ["apply", "restatement", "retention"])
def test_work_that_was_killed_at_any_moment_is_completed(work: str) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    found = killed(work, points=POINTS, seed=seed)
    assert found["problems"] == [], f"seed {seed}"
    assert found["killed"] == POINTS


def killed_releases(database: str, points: int, seed: int) -> dict:
    return killed(database, points, seed, "dpdau_tests.killing_releases")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    if request.param == "postgresql":
        with schema_url():  # or the test ends here, with the reason
            pass
    return request.param


def test_a_release_that_was_killed_leaves_no_number_without_its_charge_and_is_completed(database: str) -> None:
    found = killed_releases(database, points=12, seed=1)
    assert found["problems"] == [] and found["killed"] == 12


@pytest.mark.slow
def test_releases_that_were_killed_at_any_moment_are_charged_once_and_keep_their_numbers(database: str) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    found = killed_releases(database, points=RELEASE_POINTS, seed=seed)
    assert found["problems"] == [], f"seed {seed}"
    assert found["killed"] == RELEASE_POINTS
    assert {place.split(":")[0] for place in found["places"]} > {"a moment", "release.py", "chain.py", "ledger.py"}
