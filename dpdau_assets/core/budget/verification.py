"""Whether the ledger can be believed: nothing of it was changed, and every number in it was paid for."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Protocol

from dpdau_assets.core.budget.planning import budget_of
from dpdau_assets.core.budget.sketch_choice import estimators
from dpdau_assets.core.dates import day_number, months_read, window
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ports.ledger import Ledger, LedgerView
from dpdau_assets.core.privacy.accounting import cost, epsilon_of, fits, total
from dpdau_assets.core.privacy.mechanisms import SharedNoise, Stream, half_width_95
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches.base import Estimator


class Numbered(Protocol):
    """What somebody else knows of a published number: `noisy_value` is in users."""

    @property
    def key(self) -> ReleaseKey: ...

    @property
    def noisy_value(self) -> float: ...

    @property
    def noisy_statistic(self) -> float: ...

    @property
    def half_width(self) -> float: ...


def problems(settings: Settings, accountant: Ledger, published: Iterable[Numbered] = ()) -> list[str]:
    """A sentence for everything that does not hold, also of numbers that were `published` and should be there."""
    broken = accountant.problems()
    if broken:  # what cannot be believed cannot be added up either
        return broken
    with accountant.snapshot() as ledger:
        return [
            *_unpaid(ledger),
            *_over_cap(settings, ledger),
            *_out_of_order(ledger),
            *_unsealed(ledger),
            *_predictable(ledger),
            *_of_another_width(ledger),
            *_missing(published, ledger),
        ]


def require_nothing_lost(published: Iterable[Numbered], accountant: LedgerView) -> None:
    """Raises Refused if readers have seen a number that the ledger does not have: an older one was put in its place."""
    with accountant.snapshot() as ledger:
        lost = list(_missing(published, ledger))
        if lost:
            raise Refused(
                f"{lost[0]} {len(lost)} such number(s) in all.",
                "The ledger is not the one that they were published from: restore it, and keep the mart as it is.",
            )


def is_shown_as(release: Release, estimator: Estimator, shown: Numbered) -> bool:
    """The very statistic and noise, and the users that follow, but for what another machine's logarithm differs by."""
    users = estimator.users(release.noisy_value)
    kept, seen = (release.noisy_value, release.half_width), (shown.noisy_statistic, shown.half_width)
    return kept == seen and math.isclose(users, shown.noisy_value, rel_tol=1e-9)


def _unpaid(accountant: LedgerView) -> Iterator[str]:
    """No number without its charge, in every month that it reads; no run with more numbers than it was priced."""
    for (metric, month), runs in _read(accountant).items():
        for run in sorted(runs - {charge.run for charge in accountant.charges(metric, month)}):
            yield f"{metric} of {month:%Y-%m} was never charged for {run}, which has published numbers of it."
    given = Counter(release.run for release in accountant.releases())
    for run in accountant.mechanism_runs():
        priced = run.mechanism.releases if isinstance(run.mechanism, SharedNoise) else None
        if priced is not None and given[run.name] > priced:
            yield f"{run.name} has given {given[run.name]} numbers, and was priced for {priced}."


def _over_cap(settings: Settings, accountant: LedgerView) -> Iterator[str]:
    """No month was charged more than its cap; one that a restore closed may be, since it was not asked then."""
    for metric, month in _read(accountant):
        charged = total(cost(charge.mechanism) for charge in accountant.charges(metric, month))
        budget = budget_of(metric, month, accountant, settings)
        if not fits(charged, budget) and not accountant.is_closed(metric, month):
            yield (
                f"{metric} of {month:%Y-%m} was charged epsilon {epsilon_of(charged, budget.delta):.4g} at delta "
                f"{budget.delta:g}; its cap is {float(budget.epsilon):.4g}."
            )


def _out_of_order(accountant: LedgerView) -> Iterator[str]:
    """A stream's days follow one another."""
    for run in accountant.mechanism_runs():
        if isinstance(run.mechanism, Stream):
            numbers = [release for release in accountant.releases(run.metric) if release.run == run.name]
            days = [day_number(release.key.day) for release in numbers]
            if days != list(range(days[0], days[0] + len(days)) if days else []):
                yield f"{run.name} has published days that do not follow one another."


def _unsealed(accountant: LedgerView) -> Iterator[str]:
    """Every day that a number reads is sealed, or late events would enter later numbers; but where state was lost."""
    final = accountant.sealed() & accountant.processed()
    lost = {place for place in _read(accountant) if accountant.closures(*place)}
    keys = [release.key for release in accountant.releases()]
    kept = [
        key for key in keys if lost.isdisjoint((key.metric, month) for month in months_read(key.day, key.window_days))
    ]
    for day in sorted({day for key in kept for day in window(key.day, key.window_days)} - final):
        yield f"{day} is read by published numbers, and is not sealed."


def _predictable(accountant: LedgerView) -> Iterator[str]:
    for release in accountant.releases():
        if not release.private:
            key = release.key
            yield f"{key.metric} of {key.day} was drawn from predictable noise, and must not be published."


def _of_another_width(accountant: LedgerView) -> Iterator[str]:
    """The width that is kept with a number is that of its run's noise, and of a stream that of its day in it."""
    runs = {run.name: run for run in accountant.mechanism_runs()}
    for release in accountant.releases():
        key, run = release.key, runs[release.run]
        wanted = half_width_95(run.mechanism, (key.day - run.first_day).days + 1)
        if not math.isclose(release.half_width, wanted, rel_tol=1e-9):
            yield f"{key.metric} of {key.day} is kept with half_width {release.half_width}; {run.name} has {wanted}."


def _missing(published: Iterable[Numbered], accountant: LedgerView) -> Iterator[str]:
    """What readers have seen is in the ledger, with the same number."""
    how = estimators(accountant)
    there = {release.key: release for release in accountant.releases()}
    for number in published:
        kept = there.get(number.key)
        if kept is None or not is_shown_as(kept, how[kept.run], number):
            what = "is published with another number" if number.key in there else "is published, and not in the ledger"
            yield f"{number.key.metric} of {number.key.day}, revision {number.key.revision}, {what}."


def _read(accountant: LedgerView) -> dict[tuple[Metric, date], set[str]]:
    """Every month of every metric that published numbers read, with the mechanism runs that they are of."""
    read: dict[tuple[Metric, date], set[str]] = defaultdict(set)
    for release in accountant.releases():
        for month in months_read(release.key.day, release.key.window_days):
            read[release.key.metric, month].add(release.run)
    return read
