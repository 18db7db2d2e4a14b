"""Many windows at once: `python -m eval.windows` prints what 1,000 windows of 30 days cost, against reading the state.

State of random keys is written as folding writes it, each day under all epochs that its windows reach; then the exact
statistic of each window is counted from the sketches, all in one pass as a list of numbers does, and some one by one.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from dpdau_assets.core.dates import UNIX_EPOCH, days_between, epoch_of, epochs_of_day, window
from dpdau_assets.core.facts import DaySet
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.state.day_sketch import refresh
from dpdau_assets.core.state.windows import window_statistics
from eval.bench import SECRET
from eval.simulate import DEFAULT_SEED
from resources.store import open_store

WINDOW_DAYS, ROTATION = 30, 360
FIRST_DAY = UNIX_EPOCH + timedelta(days=ROTATION * 55)
SOME = 20  # windows that are counted one by one


def main() -> None:
    """Write the state once, and print each measure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--windows", type=int, default=1_000)
    options.add_argument("--users", type=int, default=1_000_000)
    options.add_argument("--users-a-day", type=int, default=50_000)
    chosen = options.parse_args()
    days = days_between(FIRST_DAY, FIRST_DAY + timedelta(days=chosen.windows + WINDOW_DAYS - 2))
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(
            Settings(
                data_dir=Path(folder), start_date=FIRST_DAY, hash_salt_rotation_days=ROTATION, hash_salt_secret=SECRET
            )
        )
        fill(days, chosen.users, chosen.users_a_day, store)
        measure(days, store)


def fill(days: list[date], users: int, users_a_day: int, store: Store) -> None:
    """State and exact sketches of all days; everyone has another key in each epoch."""
    random = np.random.default_rng(DEFAULT_SEED)
    everyone: dict[int, np.ndarray] = {}

    def sets() -> Iterator[DaySet]:
        for day in days:
            came = random.choice(users, users_a_day, replace=False)
            for epoch in epochs_of_day(day, ROTATION, WINDOW_DAYS):
                if epoch not in everyone:
                    everyone[epoch] = random.integers(0, 2**64, users, dtype=np.uint64)
                yield DaySet(day, epoch, np.unique(everyone[epoch][came]))

    with store.state.activity.lock():
        store.state.activity.replace(sets())
        store.accountant.mark_processed(days)
        refresh(days, store, ExactEstimator())


def measure(days: list[date], store: Store) -> None:
    """Print seconds, and what reading the state once is of them."""
    ends = days[WINDOW_DAYS - 1 :]
    read = [(day, epoch) for day in days for epoch in epochs_of_day(day, ROTATION, WINDOW_DAYS)]
    with store.state.activity.lock():
        with timed("reading the state once") as once:
            people = sum(len(keys) for place in read if (keys := store.state.activity.read(*place)) is not None)
        print(f"  {len(read):,} files, {people:,} keys")
        with timed(f"{len(ends):,} windows of {WINDOW_DAYS} days in one pass", once):
            together = window_statistics(ends, WINDOW_DAYS, ExactEstimator(), store)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        with timed(f"{SOME} of them one by one", once):
            alone = {end: united(end, store) for end in ends[:: len(ends) // SOME][:SOME]}
    assert alone.items() <= together.items(), "one way of counting is wrong"
    print(f"  peak memory {peak} MB")


def united(end: date, store: Store) -> int:
    """One window by the union of its days."""
    epoch = epoch_of(end, ROTATION)
    keys = [store.state.activity.read(day, epoch) for day in window(end, WINDOW_DAYS)]
    return len(np.unique(np.concatenate([day for day in keys if day is not None])))


@contextmanager
def timed(what: str, against: list[float] | None = None) -> Iterator[list[float]]:
    """Print how long the block took; the list that it hands out has it then."""
    took: list[float] = []
    began = time.perf_counter()
    yield took
    took.append(time.perf_counter() - began)
    print(f"{what}: {took[0]:.1f} s" + (f", {took[0] / against[0]:.2f} x reading once" if against else ""))


if __name__ == "__main__":
    main()
