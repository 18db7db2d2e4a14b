"""Killed at any moment, nothing is lost and nothing half written, and the same call again completes the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def killed(work: str, points: int, seed: int) -> dict:
    command = [sys.executable, "-m", "dpdau_tests.killing", work, str(points), str(seed)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("work", ["apply", "restatement", "retention"])
def test_work_that_was_killed_is_completed_by_the_next_run(work: str) -> None:
    found = killed(work, points=4, seed=1)
    assert found["problems"] == [] and found["killed"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("work", ["apply", "restatement", "retention"])
def test_work_that_was_killed_at_any_of_a_hundred_moments_is_completed(work: str) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    found = killed(work, points=100, seed=seed)
    assert found["problems"] == [], f"seed {seed}"
    assert found["killed"] == 100
