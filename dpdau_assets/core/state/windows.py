"""The statistics of windows and of days, without noise: what a number is drawn from.

Many window ends are counted in one pass over their days; a new day costs one window. The caller holds the state's lock,
has sealed the days and keeps what is read here secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import groupby

from dpdau_assets.core.dates import days_between, epoch_of, window
from dpdau_assets.core.facts import Keys
from dpdau_assets.core.parallel import work_ahead
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.sketches import unite
from dpdau_assets.core.sketches.base import Estimator, require_same
from dpdau_assets.core.sketches.sliding import distinct_in_windows
from dpdau_assets.core.state.day_sketch import read_fresh, read_late, read_without
from dpdau_assets.core.tombstones import Tombstones


def window_statistics(ends: Sequence[date], window_days: int, estimator: Estimator, store: Store) -> dict[date, int]:
    """Distinct users of every window that ends on one of these days (sorted, distinct), less those who are removed.

    Memory: that of `distinct_in_windows`, and one day's sketch a core.
    """
    statistics: dict[date, int] = {}
    for epoch, of_epoch in groupby(ends, key=lambda end: epoch_of(end, store.settings.hash_salt_rotation_days)):
        removed = store.erasures.ledger.tombstones(epoch)
        for _, alike in groupby(of_epoch, key=removed.in_force):
            for together in _overlapping(list(alike), window_days):
                statistics.update(_slide(together, window_days, epoch, removed, estimator, store))
    return statistics


def day_statistic(day: date, estimator: Estimator, store: Store, *, with_late: bool) -> int:
    """Who was active on the day; with those who came after it was sealed, if they are to count."""
    epoch = epoch_of(day, store.settings.hash_salt_rotation_days)
    sketch = read_fresh(day, epoch, estimator, store)
    late = [read_late(day, epoch, estimator, store.state)] if with_late else []
    return estimator.statistic(unite([sketch, *late]))


def _overlapping(ends: list[date], window_days: int) -> Iterator[list[date]]:
    """Ends of which no two neighbours are a window apart: no day between them is read in vain."""
    together: list[date] = []
    for end in ends:
        if together and (end - together[-1]).days >= window_days:
            yield together
            together = []
        together.append(end)
    if together:
        yield together


def _slide(
    ends: Sequence[date], window_days: int, epoch: int, removed: Tombstones, estimator: Estimator, store: Store
) -> dict[date, int]:
    """The statistics of overlapping windows for which one set of removals is in force, by their ends."""

    def words(day: date) -> Keys:
        gone = removed.excluded_from_windows(day, ends[0])
        sketch = read_without(day, epoch, gone, estimator, store)
        require_same([estimator.header(epoch, "window"), sketch.header])
        return estimator.words(sketch)

    days = days_between(window(ends[0], window_days)[0], ends[-1])
    distinct = dict(zip(days, distinct_in_windows(work_ahead(words, days), window_days), strict=True))
    return {end: estimator.counted(distinct[end]) for end in ends}
