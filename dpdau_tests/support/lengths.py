"""How long a test is, and what its random choices are drawn from.

There are three lengths: that of `make test`, where every behaviour is asked once; that of `.ci/run`, for each change;
and that of `make soak`, before a release. DPDAU_LENGTH says which it is. A test marked `slow` runs in the latter two
only; one marked `also_long` runs in all three, with `at_length` saying how many examples, points or trials each time.

What a test chooses by chance comes from DPDAU_SEED, which every run draws anew and prints first: setting it again
repeats the choices of that run. Noise, salts and names that the project itself draws are nobody's to choose.
"""

from __future__ import annotations

import os
import random
import secrets
from typing import Literal

Length = Literal["test", "ci", "soak"]

LENGTH: Length = os.environ.get("DPDAU_LENGTH", "test")  # type: ignore[assignment]
assert LENGTH in ("test", "ci", "soak"), f"DPDAU_LENGTH={LENGTH}: it is test, ci or soak."


def at_length(*, ci: int, soak: int, test: int | None = None) -> int:
    """How many examples, points or trials there are at this length; `test` is of those that run in `make test` too."""
    return {"test": ci if test is None else test, "ci": ci, "soak": soak}[LENGTH]


def seed() -> int:
    """The seed of this run and all of its workers."""
    return int(os.environ.setdefault("DPDAU_SEED", str(secrets.randbits(32))))


def chance(purpose: str) -> random.Random:
    """A source of choices of its own for each purpose, the same in every run with this seed."""
    return random.Random(f"{seed()} {purpose}")
