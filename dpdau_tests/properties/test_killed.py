"""Killed at any moment, nothing is lost and nothing half written, and the same call again completes the work."""

from __future__ import annotations

import pytest

from dpdau_tests.support import killing, killing_releases
from dpdau_tests.support.lengths import at_length, chance
from dpdau_tests.support.postgres import schema_url
from dpdau_tests.support.racing import apart

POINTS = at_length(test=2, ci=12, soak=150)
RELEASE_POINTS = at_length(test=4, ci=24, soak=250)
"""Drawn anew in every run: over a few runs they are everywhere."""


@pytest.mark.also_long(weight=4)
@pytest.mark.parametrize("work", ["apply", "restatement", "retention"])
def test_work_that_was_killed_is_completed_by_the_next_run(work: str) -> None:
    seed = chance(f"kill {work}").getrandbits(32)
    outcome = apart(killing.trials, work, POINTS, seed)
    assert outcome["problems"] == [], f"seed {seed}"
    assert outcome["killed"] == POINTS


@pytest.mark.also_long
def test_a_fold_that_was_killed_at_any_of_its_steps_is_completed_by_the_next_run() -> None:
    one_in = at_length(test=2, ci=1, soak=1)
    outcome = apart(killing.trials_at_steps, "fold", chance("kill folds").randint(1, one_in), one_in)
    assert outcome["problems"] == []
    assert outcome["killed"] == outcome["tried"] >= 15 // one_in


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    if request.param == "postgresql":
        with schema_url():  # or the test ends here, with the reason
            pass
    return request.param


@pytest.mark.also_long(weight=8)
def test_releases_that_were_killed_at_any_moment_are_charged_once_and_keep_their_numbers(database: str) -> None:
    seed = chance(f"kill releases on {database}").getrandbits(32)
    outcome = apart(killing_releases.trials, database, RELEASE_POINTS, seed)
    assert outcome["problems"] == [], f"seed {seed}"
    assert outcome["killed"] == RELEASE_POINTS
    kinds = {place.split(":")[0] for place in outcome["places"]}
    assert "a moment" in kinds and len(kinds) > at_length(test=1, ci=3, soak=5)  # and lines of several files
