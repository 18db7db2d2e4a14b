"""The main path: from a day's sketches to a published number, read downwards.

`publish` returns the one number of a key. The first call makes it: the days it reads are sealed, the statistic is
read, and one ledger transaction checks, charges, draws and stores. Every later call reads what was stored. `restate`
does the same for every DAU of a month at once, on the month's public day. Nothing but the noisy values depends on data:
docs/privacy.md, lemma 6.

Owns the rule: A day is sealed before it is read, and a number charged before it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from dpdau_assets.core.budget.planning import (
    Plan,
    enter,
    plan,
    planned_estimator,
    restated_keys,
    restatement_due,
)
from dpdau_assets.core.budget.sketch_choice import estimator_of
from dpdau_assets.core.budget.within_budget import next_day_that_fits
from dpdau_assets.core.dates import (
    days_between,
    epoch_of,
    first_window_end,
    month_days,
    month_end,
    month_of,
    window,
)
from dpdau_assets.core.errors import BudgetRefused, Refused
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ports.ledger import LedgerSnapshot, LedgerTransaction, LedgerView
from dpdau_assets.core.ports.store import Clock, Noise, Store
from dpdau_assets.core.privacy import mechanisms
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Gaussian, Laplace, SharedNoise, Stream
from dpdau_assets.core.privacy.schedule import due_on
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import unite
from dpdau_assets.core.sketches.base import Estimator
from dpdau_assets.core.state.activity import apply_pending, repair, require_ended, require_kept
from dpdau_assets.core.state.day_sketch import read_fresh, read_late, read_without, refresh
from dpdau_assets.core.version import VERSION


def publish(metric: Metric, day: date, store: Store) -> Release:
    """The release of this metric and day, made now if there is none.

    Raises Refused (BudgetRefused) when the contract or a month's cap forbids it; then nothing was charged or drawn.
    """
    key = ReleaseKey(metric, store.settings.window_days(metric), day)
    while True:
        with store.accountant.snapshot() as ledger:
            release = ledger.release(key)
            if release is not None:
                return release
            planned = require_publishable(key, ledger, store.settings, store.clock)
        releases = commit(*read_statistics({key: estimator_of(planned.run)}, store), store)
        if releases:
            return releases[0]


def restate(month: date, store: Store) -> list[Release]:
    """The restated DAU of every day of the month that was published: erased users gone, late events in.

    All in one transaction, whether or not anything changed; which days there are follows from what was published.
    Raises Refused before the month's restatement is due, and for a month without numbers or priced without one.
    """
    if month not in store.accountant.restated():
        require_restatable(month, store.settings, store.accountant)
        releases = None
        while releases is None:
            with store.accountant.snapshot() as ledger:
                keys = _restated_keys(month, ledger)
                estimators = {key: planned_estimator(key, ledger, store.settings) for key in keys}
            releases = commit(*read_statistics(estimators, store), store)
    again = [
        release
        for release in store.accountant.releases("dau")
        if release.key.revision and month_of(release.key.day) == month
    ]
    return sorted(again, key=lambda release: release.key)


def require_publishable(key: ReleaseKey, ledger: LedgerSnapshot, settings: Settings, clock: Clock) -> Plan:
    """Ask everything that can be asked before a day is sealed for it: the plan. Raises Refused for what fails first."""
    earliest = first_window_end(settings.start_date, key.window_days)
    if key.day < earliest:
        raise Refused(f"{key.metric} of {key.day} would read days before START_DATE.", f"Ask from {earliest} on.")
    require_ended(key.day, clock)
    require_kept(window(key.day, key.window_days), ledger)
    unprocessed = sorted(set(window(key.day, key.window_days)) - ledger.processed())
    if unprocessed:
        missing = f"There is no state for {unprocessed[0]}" + (" and later days" if len(unprocessed) > 1 else "")
        raise Refused(f"{missing}, which {key.metric} of {key.day} reads.", "Materialise `activity` for it.")
    try:
        return plan(key, ledger, settings)
    except BudgetRefused as refused:
        following = None if "next_day" in refused.fields else next_day_that_fits(key, ledger, settings)
        raise (refused.saying(next_day=following.isoformat()) if following else refused) from None


def require_restatable(month: date, settings: Settings, accountant: LedgerView) -> None:
    """Raise Refused for a month that has no numbers yet, that is never restated, or whose day has not come."""
    due = restatement_due(month, accountant.mechanism_runs(), settings)
    last = max((release.key.day for release in accountant.releases("dau")), default=date.min)
    if due is None:
        raise Refused(
            f"No number of DAU is published for {month:%Y-%m}, or none is to be restated.", "See `dpdau dau`."
        )
    if due_on(settings, last) < due:
        ready = due - timedelta(days=1 + settings.grace_days)
        raise Refused(
            f"{month:%Y-%m} is restated on {due}, and publication has come to {last} only.",
            f"Publish DAU up to {ready} first.",
            month=f"{month:%Y-%m}",
            due=due.isoformat(),
        )


@dataclass(frozen=True)
class Counted:
    """The exact integer that noise goes on, and what it counts."""

    statistic: int
    estimator: Estimator


def read_statistics(estimators: Mapping[ReleaseKey, Estimator], store: Store) -> tuple[dict[ReleaseKey, Counted], int]:
    """What is to be published, counted so, without noise; and the watermark of the removals it is without.

    From here on the days they read are sealed: the stream's noise is calibrated for bits that are final, which is
    condition 1 of docs/privacy.md, lemma 2.
    """
    _ = store.noise.private  # a store that cannot draw fails here, before it seals anything
    with store.state.activity.lock():
        apply_pending(store)  # all that was acknowledged by now, and whatever a killed fold left half done
        days = {day for key in estimators for day in window(key.day, key.window_days)}
        repair(sorted(days), store)  # older files that were put back
        store.accountant.seal(days)
        watermark = store.erasures.ledger.applied()
        return {key: Counted(read_statistic(key, how, store), how) for key, how in estimators.items()}, watermark


def read_statistic(key: ReleaseKey, estimator: Estimator, store: Store) -> int:
    """One statistic. The caller holds the lock and has sealed the days."""
    days = window(key.day, key.window_days)
    epoch = epoch_of(key.day, store.settings.hash_salt_rotation_days)
    refresh(days, store, estimator)
    if key.metric == "mau":
        removed = store.erasures.ledger.tombstones(epoch)
        excluded = {day: removed.excluded_from_windows(day, key.day) for day in days}
        sketches = [read_without(day, epoch, gone, estimator, store) for day, gone in excluded.items()]
    else:
        sketches = [read_fresh(day, epoch, estimator, store) for day in days]
    late = [read_late(key.day, epoch, estimator, store.state)] if key.revision else []
    return estimator.statistic(unite([*sketches, *late]))


def commit(statistics: Mapping[ReleaseKey, Counted], watermark: int, store: Store) -> list[Release] | None:
    """Check, charge, draw and store in one transaction; None when the statistics are not what is wanted any more.

    That is when a removal came since they were read, a first number of a month that is being restated, or one by which
    users are counted with other parameters.
    """
    with store.accountant.transaction() as ledger:
        stored = [release for key in statistics if (release := ledger.release(key))]
        if stored:  # by another process; and what is restated is restated whole
            return stored
        if _are_outdated(statistics, watermark, ledger, store.settings):
            return None
        releases = [
            _charge_and_draw(key, statistics[key].statistic, ledger, store.settings, store.noise)
            for key in sorted(statistics)
        ]
        for run in _runs_that_may_be_spent(releases, ledger):
            forget_spent_noise(run, ledger, store.settings)
    return releases


def _are_outdated(
    statistics: Mapping[ReleaseKey, Counted], watermark: int, ledger: LedgerTransaction, settings: Settings
) -> bool:
    if ledger.removals_recorded() != watermark or not _is_whole(statistics, ledger):
        return True
    return any(planned_estimator(key, ledger, settings) != counted.estimator for key, counted in statistics.items())


def _runs_that_may_be_spent(releases: Sequence[Release], ledger: LedgerTransaction) -> list[str]:
    """By name: those that gave these numbers, and with a restatement all whose noise is shared."""
    runs = {release.run for release in releases}
    if any(release.key.revision for release in releases):  # the month ends, under whatever it was begun
        runs |= {run.name for run in ledger.mechanism_runs() if isinstance(run.mechanism, SharedNoise)}
    return sorted(runs)


def _charge_and_draw(
    key: ReleaseKey, statistic: int, ledger: LedgerTransaction, settings: Settings, noise: Noise
) -> Release:
    """The one number of the key, planned, charged, drawn and stored in the caller's transaction."""
    planned, last = plan(key, ledger, settings), ledger.last_run(key.metric, key.window_days)
    if planned.is_new and last and isinstance(last.mechanism, Stream):
        ledger.destroy_frozen(last.name, keep_last=0)  # the last stream has ended, and nothing reads them any more
    enter(planned, ledger)
    noisy_value = draw(key, planned.run, statistic, ledger, noise)
    release = fact(key, planned.run, noisy_value, ledger, settings, noise)
    ledger.store(release)
    return release


def _is_whole(statistics: Mapping[ReleaseKey, Counted], ledger: LedgerTransaction) -> bool:
    """Whether a restatement has every day that was published by now; a first number stands for itself."""
    months = {month_of(key.day) for key in statistics if key.revision}
    return all(set(statistics) == set(_restated_keys(month, ledger)) for month in months)


def _restated_keys(month: date, ledger: LedgerTransaction | LedgerView) -> list[ReleaseKey]:
    return restated_keys(month, (release.key for release in ledger.releases("dau")))


def draw(key: ReleaseKey, run: MechanismRun, statistic: int, ledger: LedgerTransaction, noise: Noise) -> float:
    """The noisy value, from noise that is drawn here and nowhere else."""
    match run.mechanism:
        case SharedNoise() as shared:
            return _draw_shared(run.name, shared, statistic, ledger, noise)
        case Stream() as stream:
            ledger.freeze(run.name, key.day, statistic)
            (fresh,) = noise.gaussian(stream.sigma)
            output = mechanisms.stream_output(stream, ledger.frozen(run.name, len(stream.filter)), fresh)
            ledger.destroy_frozen(run.name, keep_last=len(stream.filter) - 1)  # all that tomorrow's number reads
            return mechanisms.stream_number(stream, output, ledger.numbers(run.name))
        case Gaussian(sigma):
            return mechanisms.independent_number(statistic, noise.gaussian(sigma)[0])
        case Laplace() as laplace:
            return mechanisms.independent_number(statistic, noise.laplace(laplace.scale)[0])


def fact(
    key: ReleaseKey,
    run: MechanismRun,
    noisy_value: float,
    ledger: LedgerTransaction,
    settings: Settings,
    noise: Noise,
) -> Release:
    """The release as it is stored and shown, with its scheduled day for a time: the real one could tell tales."""
    day = due_on(settings, key.day)
    if key.revision:
        day = restatement_due(month_of(key.day), ledger.mechanism_runs(), settings) or day
    published_at = datetime.combine(day, time(), ZoneInfo(settings.timezone))
    stream_day = (key.day - run.first_day).days + 1
    return Release(
        key=key,
        run=run.name,
        mechanism=run.mechanism.name,
        noisy_value=noisy_value,
        half_width=mechanisms.half_width_95(run.mechanism, stream_day),
        sketch_impl=estimator_of(run).kind,
        published_at=published_at.isoformat(),
        private=noise.private,
        version=VERSION,
    )


def forget_spent_noise(name: str, ledger: LedgerTransaction, settings: Settings) -> None:
    """Destroy the shared noise with the last number that it can serve; days before START_DATE never have one."""
    run = ledger.mechanism_run(name)
    if run is None or not isinstance(run.mechanism, SharedNoise):
        return
    month = run.first_day
    days = len(days_between(max(month, settings.start_date), month_end(month)))
    if month in ledger.restated() or len(ledger.numbers(name)) == days * run.mechanism.releases // month_days(month):
        ledger.destroy_shared_noise(name)


def _draw_shared(name: str, shared: SharedNoise, statistic: int, ledger: LedgerTransaction, noise: Noise) -> float:
    if len(ledger.numbers(name)) >= shared.releases:
        raise Refused(f"{name} has given all of its {shared.releases} numbers.", "Ask for one of those.")
    in_common = ledger.shared_noise(name)
    if in_common is None:
        (in_common,) = noise.gaussian(shared.sigma_month)
        ledger.keep_shared_noise(name, in_common)
    (fresh,) = noise.gaussian(shared.sigma_day)
    return mechanisms.shared_number(statistic, fresh, in_common)
