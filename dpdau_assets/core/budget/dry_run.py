"""A draft of the ledger, to plan on: begun from what the ledger says, kept in memory, never written back."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from functools import cache

from dpdau_assets.core.budget.planning import Plan, restated_keys, restatement_parameters
from dpdau_assets.core.budget.published_runs import PublishedRuns
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.privacy.accounting import Charge
from dpdau_assets.core.privacy.cost_so_far import Published
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Stream
from dpdau_assets.core.settings import Metric, Settings


class DryRunLedger:
    """The port BudgetLedger, on a copy; of one metric alone, if one is named.

    A number is a key and the mechanism run that gives it: a draft has no values and no noise.
    """

    def __init__(self, ledger: LedgerView, settings: Settings, metric: Metric | None = None) -> None:
        self._settings = settings
        self._numbers: dict[ReleaseKey, str] = {}
        self._first_numbers: dict[date, list[ReleaseKey]] = defaultdict(list)  # of DAU, by month
        self._last_releases: dict[Metric, Release] = {}
        self._published = PublishedRuns()
        self._last_days: dict[tuple[Metric, int], date] = {}
        self._restated: Counter[date] = Counter()
        # Numbers first, charges last: what is published meanwhile is at least among the charges.
        for release in sorted(ledger.releases(metric), key=lambda release: (release.key.day, release.key.revision)):
            self.publish(release.key, release.run)
            self._last_releases[release.key.metric] = release
        self._runs = {run.name: run for run in ledger.mechanism_runs()}
        self._living = frozenset(self._runs)
        self._added: dict[tuple[Metric, date], list[Charge]] = defaultdict(list)
        self._awaits_erasures = ledger.awaits_erasures()
        self._cap_on_record = cache(ledger.cap)
        self._delta_on_record = cache(ledger.delta)
        self._closures = cache(ledger.closures)
        self.charged_by_now = cache(ledger.charges)
        self.is_closed = cache(ledger.is_closed)

    # The port

    def last_day(self, metric: Metric, window_days: int) -> date | None:
        return self._last_days.get((metric, window_days))

    def restated(self) -> frozenset[date]:
        return frozenset(+self._restated)

    def last_release(self, metric: Metric) -> Release | None:
        """The last one there is by now: what the draft publishes has no value to go by."""
        return self._last_releases.get(metric)

    def mechanism_run(self, name: str) -> MechanismRun | None:
        return self._runs.get(name)

    def last_run(self, metric: Metric, window_days: int) -> MechanismRun | None:
        of_series = (
            run for run in reversed(self._runs.values()) if (run.metric, run.window_days) == (metric, window_days)
        )
        return next(of_series, None)

    def open_run(self, run: MechanismRun) -> None:
        self._runs[run.name] = run

    def charges(self, metric: Metric, month: date) -> list[Charge]:
        return [*self.charged_by_now(metric, month), *self._added[metric, month]]

    def charge(self, charge: Charge) -> None:
        self._added[charge.metric, charge.month].append(charge)

    def cap(self, metric: Metric, month: date) -> Fraction | None:
        on_record = self._cap_on_record(metric, month)
        here = (charge.budget.epsilon for charge in self._added[metric, month] if charge.budget)
        return next(here, None) if on_record is None else on_record

    def delta(self, metric: Metric, month: date) -> float | None:
        return self._delta_on_record(metric, month)

    def closures(self, metric: Metric, month: date | None = None) -> int:
        return self._closures(metric, month)

    def awaits_erasures(self) -> bool:
        return self._awaits_erasures

    # What only a draft has

    def publish(self, key: ReleaseKey, run: str) -> None:
        """From now on this key has its number, from this mechanism run."""
        self._numbers[key] = run
        if key.metric == "dau" and not key.revision:
            self._first_numbers[month_of(key.day)].append(key)
        series = key.metric, key.window_days
        self._last_days[series] = max(key.day, self._last_days.get(series, key.day))
        self._published.add(key, run)
        if key.revision:
            self._restated[month_of(key.day)] += 1

    def withdraw(self, key: ReleaseKey, planned: Plan) -> None:
        """Undo `enter` and `publish` for a number of a restatement: with one of them refused, it makes none."""
        name = planned.run.name
        del self._numbers[key]
        self._published.withdraw(key, name)
        self._restated[month_of(key.day)] -= 1
        if planned.is_new:
            del self._runs[name]
        for charge in planned.charges:
            self._added[charge.metric, charge.month].remove(charge)

    def days(self, metric: Metric) -> list[date]:
        """Days of which a number is published, in whatever window, sorted."""
        return sorted({key.day for key in self._numbers if key.metric == metric})

    def restatement(self, month: date) -> list[ReleaseKey]:
        """What it consists of by now."""
        return restated_keys(month, self._first_numbers[month])

    def parameters(self, month: date) -> Mapping[str, str]:
        """What DAU of the month was begun under, or will be."""
        begun = [run for run in self._runs.values() if run.metric == "dau" and month_of(run.first_day) == month]
        return (
            min(begun, key=lambda run: run.first_day).parameters
            if begun
            else restatement_parameters("dau", self._settings)
        )

    def published(self, metric: Metric, month: date) -> list[Published]:
        """How much is out of each mechanism run of which some number reads the month."""
        return self._published.reading(metric, month, self._runs)

    def begun_anew(self) -> list[MechanismRun]:
        """Streams that the draft has begun where the metric had one already."""
        streams = [run for run in self._runs.values() if isinstance(run.mechanism, Stream)]
        first = {run.metric: run for run in reversed(streams)}
        return [run for run in streams if run.name not in self._living and run != first[run.metric]]
