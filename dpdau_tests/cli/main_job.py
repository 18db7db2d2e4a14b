"""The main job by hand, whose store several tests of the command line begin with."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

from dpdau_tests.cli.conftest import Answer, Dpdau

WHOLE = ("--from", "2025-01-29", "--to", "2025-01-30")


MAIN_JOB = f"{__name__} is done"
"""What the recipe below is known by, among the prepared folders."""


def the_main_job_is_done(dpdau: Dpdau) -> None:
    """Ingest, then run: two days of DAU and one of MAU. What `run` answered is kept, for `ran_in`."""
    (dpdau.folder / "events.jsonl").write_text(
        "".join(f'{{"user_id": "user {n}", "day": "2025-01-{1 + n % 31:02}"}}\n' for n in range(200))
        + '{"user_id": "", "day": "2025-01-01"}\n'
    )
    taken = dpdau("ingest", "--from", "events.jsonl")
    assert taken.code == 0, taken.said
    (dpdau.folder / "ran.json").write_text(json.dumps(astuple(dpdau("run", *WHOLE))))


def ran_in(folder: Path) -> Answer:
    """What `run` answered when the main job was done in this folder, or in the one it is a copy of."""
    return Answer(*json.loads((folder / "ran.json").read_text()))
