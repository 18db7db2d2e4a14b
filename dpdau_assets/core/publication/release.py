"""The main path: from a day's sketches to a published number, read downwards.

`publish_in_order` makes a list of numbers, and every way to publish goes through it: they are planned, the days they
read are sealed, their statistics are read in one pass, and one ledger transaction a number checks, charges, draws and
stores. A restatement is every DAU of a month in one transaction, on the month's public day. What is out is never made
again, but read. Nothing but the noisy values depends on data: docs/privacy.md, lemma 6.

Owns the rule: A day is sealed before it is read, and a number charged before it is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date, datetime, time
from itertools import takewhile
from zoneinfo import ZoneInfo

from dpdau_assets.core.budget.dry_run import DryRunLedger
from dpdau_assets.core.budget.planning import enter, plan, planned_estimator, restated_keys, restatement_due
from dpdau_assets.core.budget.sketch_choice import estimator_of
from dpdau_assets.core.dates import days_between, month_days, month_end, month_of, window
from dpdau_assets.core.errors import DpdauError, Refused
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ports.ledger import LedgerSnapshot, LedgerTransaction, LedgerView
from dpdau_assets.core.ports.store import Noise, Store
from dpdau_assets.core.privacy import mechanisms
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Gaussian, Laplace, SharedNoise, Stream
from dpdau_assets.core.privacy.schedule import due_on
from dpdau_assets.core.publication.admission import require_admitted, require_readable, require_restatable
from dpdau_assets.core.publication.runs import DAU, MAU, RESTATEMENT, Step
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches.base import Estimator
from dpdau_assets.core.state.activity import apply_pending, repair
from dpdau_assets.core.state.day_sketch import refresh
from dpdau_assets.core.state.folding import fold_inbox
from dpdau_assets.core.state.windows import day_statistic, window_statistics
from dpdau_assets.core.version import VERSION

READ_AT_ONCE = 128
"""How many numbers are planned and read at once, and so far ahead a list seals: two months of DAU and MAU."""


def publish(metric: Metric, day: date, store: Store) -> Release:
    """The release of this metric and day, made now if there is none.

    Raises Refused (BudgetRefused) when the contract or a month's cap forbids it; then nothing was charged or drawn.
    """
    ((_, (release,)),) = publish_in_order([Step(DAU if metric == "dau" else MAU, day)], store)
    return release


def restate(month: date, store: Store) -> list[Release]:
    """The restated DAU of every day of the month that was published: erased users gone, late events in.

    All in one transaction, whether or not anything changed; which days there are follows from what was published.
    Raises Refused before the month's restatement is due, and for a month without numbers or priced without one.
    """
    ((_, releases),) = publish_in_order([Step(RESTATEMENT, month)], store)
    return releases


def publish_in_order(
    steps: Iterable[Step], store: Store, declared: Callable[[], Set[date]] | None = None
) -> Iterator[tuple[Step, list[Release]]]:
    """The releases of each step, a number or a month's restatement, in this order; made now where there are none.

    Each step is planned, and its statistic read, together with those after it; each is committed by itself, and handed
    over then. What was planned and read is thrown away as soon as it is not what is wanted any more. With `declared`
    the list ends before the first new number of a day that it does not name when the days are sealed.

    Raises Refused for the first step that is refused, when those before it are out; then nothing was charged or drawn
    for it.
    """
    left, most = list(steps), READ_AT_ONCE
    at_once = most
    while left:
        with store.accountant.snapshot() as ledger:
            planned = plan_together(left[:at_once], ledger, store)
        wanted = {key: estimator for step in planned for key, estimator in step.estimators.items()}
        try:
            statistics, watermark = read_statistics(wanted, store, declared) if wanted else ({}, 0)
        except DpdauError:  # of a file that only some of them read: each by itself, so that the others come out
            if at_once == 1 or len(planned) == 1:
                raise
            at_once = most = 1
            continue
        done = 0
        for step in planned:
            if not step.estimators.keys() <= statistics.keys():
                return
            releases = step.releases or commit({key: statistics[key] for key in step.estimators}, watermark, store)
            if releases is None:
                break
            done += 1
            yield step.step, releases
        left = left[done:]
        # Where removals come faster than so many are read, fewer are: none of them holds up a number.
        at_once = min(most, 2 * at_once) if done else max(1, len(planned) // 2)


# --- What is asked before anything is done -----------------------------------------------------------------------


@dataclass(frozen=True)
class PlannedStep:
    """A step with its releases, if they are out; else with how the users of each of its numbers will be counted."""

    step: Step
    releases: list[Release] = field(default_factory=list)
    estimators: Mapping[ReleaseKey, Estimator] = field(default_factory=dict)


def plan_together(steps: Sequence[Step], ledger: LedgerSnapshot, store: Store) -> list[PlannedStep]:
    """The first of these steps that are read together: one restatement, or numbers up to the next one.

    Raises Refused for the first step; with one that is refused later the plan ends.
    """
    if steps[0].kind == RESTATEMENT:
        return [_planned_restatement(steps[0], ledger, store.settings)]
    numbers = list(takewhile(lambda step: step.kind != RESTATEMENT, steps))
    # A number is planned on top of those before it, which are not out yet.
    draft = ledger if len(numbers) == 1 else DryRunLedger(ledger, store.settings)
    planned: list[PlannedStep] = []
    for step in numbers:
        try:
            planned.append(_planned_number(step, ledger, draft, store))
        except DpdauError:
            if not planned:
                raise
            break
    return planned


def _planned_number(
    step: Step, ledger: LedgerSnapshot, draft: LedgerSnapshot | DryRunLedger, store: Store
) -> PlannedStep:
    key = step.key(store.settings)
    release = ledger.release(key)
    if release is not None:
        return PlannedStep(step, [release])
    require_readable(key, ledger, store.settings, store.clock)
    planned = require_admitted(key, draft, store.settings)
    if isinstance(draft, DryRunLedger):
        enter(planned, draft)
        draft.publish(key, planned.run.name)
    return PlannedStep(step, estimators={key: estimator_of(planned.run)})


def _planned_restatement(step: Step, ledger: LedgerSnapshot, settings: Settings) -> PlannedStep:
    month = step.key(settings).day
    if month in ledger.restated():
        again = [release for release in ledger.releases("dau") if release.key.revision]
        of_month = [release for release in again if month_of(release.key.day) == month]
        return PlannedStep(step, sorted(of_month, key=lambda release: release.key))
    require_restatable(month, settings, ledger)
    keys = _restated_keys(month, ledger)
    return PlannedStep(step, estimators={key: planned_estimator(key, ledger, settings) for key in keys})


# --- Reading -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """The exact integer that noise goes on, and what it counts."""

    statistic: int
    estimator: Estimator


def read_statistics(
    estimators: Mapping[ReleaseKey, Estimator], store: Store, declared: Callable[[], Set[date]] | None = None
) -> tuple[dict[ReleaseKey, Counted], int]:
    """Seal the days that these numbers read, and count each number without its noise.

    Also returns the watermark of the removals that the counts are without. From here on what comes for these days is
    late: a stream's noise is calibrated for bits that are final, which is condition 1 of docs/privacy.md, lemma 2. With
    `declared`, which is asked under the lock that a declaration is taken back under, it stops at a day not named.
    """
    _ = store.noise.private  # a store that cannot draw fails here, before it seals anything
    with store.state.activity.lock():
        apply_pending(store)  # all that was acknowledged by now, and whatever a killed fold left half done
        estimators = _up_to_undeclared(estimators, declared() if declared else None)
        days = {day for key in estimators for day in window(key.day, key.window_days)}
        repair(sorted(days), store)  # older files that were put back
        fold_inbox(store)  # what was acknowledged meanwhile: repairing may take long
        store.accountant.seal(days)
        watermark = store.erasures.ledger.applied()
        statistics: dict[ReleaseKey, Counted] = {}
        for estimator in dict.fromkeys(estimators.values()):
            alike = [key for key in estimators if estimators[key] == estimator]
            statistics |= {key: Counted(count, estimator) for key, count in read_alike(alike, estimator, store)}
        return statistics, watermark


def _up_to_undeclared(
    estimators: Mapping[ReleaseKey, Estimator], declared: Set[date] | None
) -> Mapping[ReleaseKey, Estimator]:
    """The first of these keys: restated ones, and those whose day is among these; None is every day."""
    keys = takewhile(lambda key: declared is None or key.revision > 0 or key.day in declared, estimators)
    return {key: estimators[key] for key in keys}


def read_alike(keys: Sequence[ReleaseKey], estimator: Estimator, store: Store) -> Iterator[tuple[ReleaseKey, int]]:
    """The statistic of each key, all counted alike. The caller holds the lock and has sealed the days."""
    refresh(sorted({day for key in keys for day in window(key.day, key.window_days)}), store, estimator)
    windows: dict[int, list[date]] = {}
    for key in sorted(keys):
        if key.metric == "dau":
            yield key, day_statistic(key.day, estimator, store, with_late=key.revision > 0)
        else:
            windows.setdefault(key.window_days, []).append(key.day)
    for window_days, ends in windows.items():
        for day, statistic in window_statistics(ends, window_days, estimator, store).items():
            yield ReleaseKey("mau", window_days, day), statistic


# --- Committing --------------------------------------------------------------------------------------------------


class _Outdated(Exception):
    """What was read is not what is wanted any more."""


def commit(statistics: Mapping[ReleaseKey, Counted], watermark: int, store: Store) -> list[Release] | None:
    """Check, charge, draw and store in one transaction; None when the statistics are not what is wanted any more.

    That is when a removal came since they were read, a first number of a month that is being restated, or one by which
    users are counted with other parameters.
    """
    try:
        with store.accountant.transaction() as ledger:
            stored = [release for key in statistics if (release := ledger.release(key))]
            if stored:  # by another process; and what is restated is restated whole
                return stored
            if ledger.removals_recorded() != watermark or not _is_whole(statistics, ledger):
                return None
            releases = [
                _charge_and_draw(key, statistics[key], ledger, store.settings, store.noise)
                for key in sorted(statistics)
            ]
            for run in _runs_that_may_be_spent(releases, ledger):
                forget_spent_noise(run, ledger, store.settings)
    except _Outdated:
        return None
    return releases


def _runs_that_may_be_spent(releases: Sequence[Release], ledger: LedgerTransaction) -> list[str]:
    """By name: those that gave these numbers, and with a restatement all whose noise is shared."""
    runs = {release.run for release in releases}
    if any(release.key.revision for release in releases):  # the month ends, under whatever it was begun
        runs |= {run.name for run in ledger.mechanism_runs() if isinstance(run.mechanism, SharedNoise)}
    return sorted(runs)


def _charge_and_draw(
    key: ReleaseKey, counted: Counted, ledger: LedgerTransaction, settings: Settings, noise: Noise
) -> Release:
    """The one number of the key, planned, charged, drawn and stored in the caller's transaction."""
    planned, last = plan(key, ledger, settings), ledger.last_run(key.metric, key.window_days)
    if estimator_of(planned.run) != counted.estimator:
        raise _Outdated
    if planned.is_new and last and isinstance(last.mechanism, Stream):
        ledger.destroy_frozen(last.name, keep_last=0)  # the last stream has ended, and nothing reads them any more
    enter(planned, ledger)
    noisy_value = draw(key, planned.run, counted.statistic, ledger, noise)
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
            return mechanisms.stream_number(stream, output, ledger.numbers(run.name, last=len(stream.filter) - 1))
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
