"""What a mart shows, and what is put on record of a restore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from dpdau_assets.core.facts import ReleaseKey


@dataclass(frozen=True)
class MartRow:
    """A published number as the mart shows it, with all that an answer or a restore needs of it. All of it is public.

    Attributes:
        noisy_value: as drawn, in users.
        estimate, lower_95, upper_95: the number and its 95 % interval for display, in users: rounded, and never below
            0. None where the sketch is full and nothing bounds the number from above.
        noisy_statistic: what the noise was added to, and the ledger keeps; the number itself with the exact set.
        half_width: 95 % of the noise lies within it; in units of `noisy_statistic`.
        mechanism, mechanism_run: the kind of noise, and the run of it that the number is of.
        parameters: how its users are counted, as the run keeps them.
        published_at: midnight, in TIMEZONE, of the day on which it was due.
    """

    key: ReleaseKey
    noisy_value: float
    estimate: float
    lower_95: float
    upper_95: float | None
    noisy_statistic: float
    half_width: float
    mechanism: str
    mechanism_run: str
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
