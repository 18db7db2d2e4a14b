"""One run of a mechanism, as it was opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from dpdau_assets.core.privacy.mechanisms import Mechanism
from dpdau_assets.core.settings import Metric


@dataclass(frozen=True)
class MechanismRun:
    """One run of a mechanism: a month of shared noise, a stream, or a single independent release.

    `parameters` are the settings it was opened under, which must not change while it lives.
    """

    name: str
    metric: Metric
    window_days: int
    first_day: date
    mechanism: Mechanism
    parameters: Mapping[str, str]
