"""What a mart shows, and what is put on record of a restore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from dpdau_assets.core.facts import ReleaseKey


@dataclass(frozen=True)
class MartRow:
    """A published number as the mart shows it.

    `noisy_value` is in users, and `noisy_statistic` what the ledger keeps; bounds are rounded, and never below 0.
    `parameters` say how its users are counted, as the run of a mechanism keeps them.
    """

    key: ReleaseKey
    noisy_value: float
    noisy_statistic: float
    lower_95: float
    upper_95: float | None
    mechanism: str
    parameters: Mapping[str, str]
    published_at: datetime
    version: str


@dataclass(frozen=True)
class Declared:
    """Somebody's word that no day after `through` was published before the ledger was lost."""

    through: date
    who: str
    why: str


@dataclass(frozen=True)
class Restore:
    """One restore, as it is kept on record: from a backup of which day, on which day, and what was declared."""

    made_on: date
    restored_on: date
    declared: Declared | None
