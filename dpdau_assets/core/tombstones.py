"""What a removal takes out: of the state (exactly its days) and of MAU (until the end of its month).

Removal wins for ever, in any order; the arrays here are the tombstones of one salt epoch, as the ledger gives them.

Owns the rule: Who is removed is out of every window until the month ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

from dpdau_assets.core.dates import day_number, month_end, month_of
from dpdau_assets.core.facts import Keys

Days = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Tombstones:
    """The removals of one epoch as parallel arrays, one row a (key, through-day) or (key, listed day).

    Attributes:
        keys: uint64, any order, repeats allowed.
        days: day numbers: the through-day, or the listed day.
        listed: True where only this very day is removed, False where it and all before it are.
        excluded_until: H, the last day of the month in which the removal ends.
        effective_from: e, the first MAU day that the removal reaches; fixed when the request was recorded.
    """

    keys: Keys
    days: Days
    listed: npt.NDArray[np.bool_]
    excluded_until: Days
    effective_from: Days

    def removed_on(self, day: date) -> Keys:
        """Keys that are not in this day's state, whatever '+' events say."""
        number = day_number(day)
        gone = np.where(self.listed, self.days == number, self.days >= number)
        return np.unique(self.keys[gone])

    def in_force(self, window_end: date) -> int:
        """How many rows the MAU window that ends on this day is without: of two windows with as many, the same ones."""
        return int(np.count_nonzero(self.effective_from <= day_number(window_end)))

    def excluded_from_windows(self, day: date, window_end: date) -> Keys:
        """Keys to subtract from this day before it enters the MAU window that ends on `window_end`.

        A removal that only reached its own days would let the user's bit come back inside the month: two intervals
        where the stream's noise is calibrated for one. So each day up to H is without her, for all windows from e on:
        condition 2 of docs/privacy.md, lemma 2.
        """
        held = (self.excluded_until >= day_number(day)) & (self.effective_from <= day_number(window_end))
        return np.unique(self.keys[held])


def excluded_until(through: date) -> date:
    """H: the last day of the month of the removal's through-day, or of its last listed day."""
    return month_end(month_of(through))
