"""How much is out of each mechanism run, month by month, as numbers come out one after the other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import date

from dpdau_assets.core.dates import months_read
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.privacy.cost_so_far import Published
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.settings import Metric


class PublishedRuns:
    """A count of numbers by the month that they read and the mechanism run that gave them."""

    def __init__(self) -> None:
        self._reading: dict[tuple[Metric, date], Counter[str]] = defaultdict(Counter)
        self._last_days: dict[str, date] = {}

    def add(self, key: ReleaseKey, run: str) -> None:
        """From now on this key has its number, from this mechanism run."""
        self._last_days[run] = max(key.day, self._last_days.get(run, key.day))
        for month in months_read(key.day, key.window_days):
            self._reading[key.metric, month][run] += 1

    def withdraw(self, key: ReleaseKey, run: str) -> None:
        """Undo `add`; the run's last day stays."""
        for month in months_read(key.day, key.window_days):
            self._reading[key.metric, month][run] -= 1

    def reading(self, metric: Metric, month: date, runs: Mapping[str, MechanismRun]) -> list[Published]:
        """What is public by now of every mechanism run of which some number reads the month; `runs` are by name."""
        counts = ((runs[name], count) for name, count in (+self._reading[metric, month]).items())
        return [Published(run.mechanism, count, run.first_day, self._last_days[run.name]) for run, count in counts]
