"""Telling people of what a step has done or found: it never fails the step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from dpdau_assets.core.errors import DpdauError

_log = logging.getLogger("dpdau.alerts")


@contextmanager
def telling() -> Iterator[None]:
    """A block in which people are told something. What cannot be kept for them is in the log instead."""
    try:
        yield
    except DpdauError as error:
        _log.error("%s %s", error.reason, error.remedy)
