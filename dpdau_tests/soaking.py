"""How long the longest tests are: long enough for every change in `.ci/run`, and at full length in `make soak`."""

from __future__ import annotations

import os

SOAKS = "DPDAU_SOAK" in os.environ


def at_length(usual: int, soaked: int) -> int:
    """So many examples, points or trials; what is chosen by chance is chosen anew in every run."""
    return soaked if SOAKS else usual
