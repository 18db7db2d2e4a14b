"""What a ledger that was restored from a backup may have lost, and how none of it is ever published a second time.

Nobody can tell which numbers came out after the backup, so all that may have are taken for published: they are charged,
and the months they read are closed. Numbers that the mart shows are taken back as they are.

Owns the rule: After a restore, what may have been published counts as published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from dpdau_assets.core.budget.numbers import interval, shown_in
from dpdau_assets.core.budget.overrides import declare_erasures_submitted
from dpdau_assets.core.budget.planning import Plan, budget_of, enter, living_run, new_run
from dpdau_assets.core.budget.settings_check import LONGEST_GRACE
from dpdau_assets.core.budget.sketch_choice import estimator_of, estimators
from dpdau_assets.core.budget.verification import is_shown_as
from dpdau_assets.core.dates import days_between, first_window_end, month_of, months_read, window
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ports.ledger import RestoreTransaction
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.accounting import charges_for_release
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import NoiseWidth, Stream, half_width_95
from dpdau_assets.core.privacy.schedule import METRICS, due_on, restatement_due_on
from dpdau_assets.core.publication.runs import restatements_due
from dpdau_assets.core.restored import Declared, MartRow, Restore
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import estimator_from
from dpdau_assets.core.sketches.base import Estimator
from dpdau_assets.core.state.touched import live_days


@dataclass(frozen=True)
class MaybePublished:
    """What a restore takes for published of one metric, in how many numbers, and the months that it closes for them.

    `taken_back` of the numbers are those that the mart shows.
    """

    metric: Metric
    numbers: int
    taken_back: int
    months: tuple[date, ...]

    def __str__(self) -> str:
        return f"{self.numbers} of {self.metric}, which close {self.months[0]:%Y-%m} to {self.months[-1]:%Y-%m}"


def last_possible_day(shown: Sequence[MartRow], declared: Declared | None, outside: Store) -> date:
    """The last day that may have been published by now. Raises BadInput for a declaration that numbers contradict."""
    yesterday = outside.clock.today() - timedelta(days=1)
    if declared is None:
        return yesterday
    last = max((one.key.day for one in (*shown, *outside.accountant.releases())), default=date.min)
    if declared.through < last:
        raise BadInput(f"{last} is published, which is after {declared.through}.", "Declare the last published day.")
    return min(yesterday, declared.through)


def lost_keys(shown: Sequence[MartRow], declared: Declared | None, outside: Store) -> list[ReleaseKey]:
    """Every release that may have been made since the backup, in the order of their slots.

    Unless it is declared how far publication had come, months may also have been restated under a longer GRACE_DAYS.
    """
    through = last_possible_day(shown, declared, outside)
    grace_days = LONGEST_GRACE if declared is None else outside.settings.grace_days
    there, how = {one.key: one for one in outside.accountant.releases()}, estimators(outside.accountant)
    for one in shown:
        kept = there.get(one.key)
        if kept and not is_shown_as(kept, how[kept.run], one):
            raise Refused(
                f"The mart shows another {one.key.metric} of {one.key.day} than the backup.",
                "Name the mart of the store that the backup is of.",
            )
    first_numbers = {*_first_numbers("dau", through, outside), *_first_numbers("mau", through, outside)}
    restated = _restated(first_numbers | there.keys(), through + timedelta(days=1 + grace_days), outside)
    lost = (first_numbers | set(restated) | {one.key for one in shown}) - there.keys()
    return sorted(lost, key=lambda key: (_slot(key, outside.settings), key.revision, key))


def maybe_published(lost: Sequence[ReleaseKey], shown: Sequence[MartRow]) -> list[MaybePublished]:
    """By metric, what the books are charged for."""
    there = {one.key for one in shown}
    found: list[tuple[Metric, list[ReleaseKey]]] = [
        (metric, [key for key in lost if key.metric == metric]) for metric in METRICS
    ]
    return [
        MaybePublished(metric, len(keys), len(there.intersection(keys)), tuple(_months_closed(keys)))
        for metric, keys in found
        if keys
    ]


def account_for(
    lost: Sequence[ReleaseKey],
    shown: Sequence[MartRow],
    restore: Restore,
    ledger: RestoreTransaction,
    settings: Settings,
) -> None:
    """Charge what was lost, whether or not it fits; take back what the mart shows; then close what was read.

    Noise that lost numbers share is destroyed: what comes after a closure has noise of its own. Raises Refused when the
    mart shows numbers of another mechanism than is configured: their price is not known.
    """
    numbers = {one.key: one for one in shown}
    estimators = _countings_of(lost, numbers)
    for key in lost:
        run = _charged(key, estimators[key], ledger, settings)
        ledger.destroy_shared_noise(run.name)
        if key in numbers:
            ledger.store(_taken_back(numbers[key], run, settings))
    for key in lost:
        if key not in numbers and estimators[key] is not None:  # it may have been counted as is configured by now:
            _charged(
                key, None, ledger, settings
            )  # for a stream that is another one, charged beside what the mart shows
    for closed in maybe_published(lost, shown):
        for month in closed.months:
            ledger.close(closed.metric, month, restore.restored_on)
    ledger.note_restore(restore)


def _countings_of(
    lost: Sequence[ReleaseKey], shown: Mapping[ReleaseKey, MartRow]
) -> dict[ReleaseKey, Estimator | None]:
    """How the mart says that each number was counted; of one it does not show, as the one before it, or the next.

    None where it shows none of the metric: nothing that the price depends on.
    """
    found: dict[ReleaseKey, Estimator | None] = {}
    for metric in {key.metric for key in lost}:
        keys = [key for key in lost if key.metric == metric]
        last = next((estimator_from(shown[key].parameters) for key in keys if key in shown), None)
        for key in keys:
            found[key] = last = estimator_from(shown[key].parameters) if key in shown else last
    return found


def account_for_files(lost: Iterable[ReleaseKey], ledger: RestoreTransaction, outside: Store) -> list[int]:
    """Seal the days that lost numbers may have read; give up, and return, the epochs whose keys are lost.

    A day without state is not sealed: its events can be brought in again, and nothing has read what they will build.
    """
    ledger.seal({day for key in lost for day in window(key.day, key.window_days)} & live_days(outside))
    return ledger.lose_epochs(_epochs_kept(outside))


def reopen(who: str, why: str, outside: Store) -> None:
    """Let publishing go on: every erasure request since the backup is submitted again. Raises Refused if none waits."""
    if not outside.accountant.awaits_erasures():
        raise Refused("The ledger waits for no erasure requests.", "Nothing is to be done: it is open.")
    declare_erasures_submitted(who, why, outside)


def _months_closed(lost: Iterable[ReleaseKey]) -> list[date]:
    """Every month that one of these releases reads."""
    return sorted({month for key in lost for month in months_read(key.day, key.window_days)})


def _epochs_kept(outside: Store) -> set[int]:
    """Every salt epoch under which something is kept."""
    stored = (*outside.state.activity.stored(), *outside.state.late.stored(), *outside.state.sketches.stored())
    waiting = outside.events.inbox.read(outside.events.inbox.batches())
    return {epoch for _, epoch in stored} | {found.epoch for found in waiting}


def _first_numbers(metric: Metric, through: date, outside: Store) -> Iterator[ReleaseKey]:
    """Keys of days up to `through` that could be published: of no purged day, and no DAU of a month that is restated.

    A stream only ever went on after its last day.
    """
    settings, restated = outside.settings, outside.accountant.restated()
    purged = outside.accountant.purged_through() or date.min
    window_days = settings.window_days(metric)
    first = first_window_end(settings.start_date, window_days)
    if settings.mechanism(metric) == Stream.name:
        published = (one.key.day for one in outside.accountant.releases(metric))
        first = max((day + timedelta(days=1) for day in published), default=first)
    for day in days_between(first, through):
        if window(day, window_days)[0] > purged and not (metric == "dau" and month_of(day) in restated):
            yield ReleaseKey(metric, window_days, day)


def _restated(first_numbers: Iterable[ReleaseKey], last_slot: date, outside: Store) -> Iterator[ReleaseKey]:
    """The restatement of each month whose day may have come, of all days that may have a number."""
    days = [key for key in first_numbers if key.metric == "dau" and not key.revision]
    due = restatements_due([key.day for key in days], outside)
    reached = {month for month, day in due.items() if day <= last_slot}
    return (replace(key, revision=1) for key in days if month_of(key.day) in reached)


def _slot(key: ReleaseKey, settings: Settings) -> date:
    return restatement_due_on(settings, month_of(key.day)) if key.revision else due_on(settings, key.day)


def _charged(
    key: ReleaseKey, estimator: Estimator | None, ledger: RestoreTransaction, settings: Settings
) -> MechanismRun:
    """The instance that the release would have gone on with when the backup was made; on the books from here on."""
    living = living_run(key, ledger, settings, estimator)
    run = living or new_run(key, ledger, settings, estimator)
    asked = charges_for_release(key.metric, key.day, key.window_days, run.mechanism, run.name)
    charges = tuple(
        replace(charge, budget=budget_of(charge.metric, charge.month, ledger, settings))
        for charge in asked
        if charge not in ledger.charges(charge.metric, charge.month)
    )
    enter(Plan(run, living is None, charges), ledger)
    return run


def _taken_back(shown: MartRow, instance: MechanismRun, settings: Settings) -> Release:
    """The release as it was: the same number, and noise of the very width that it is shown with."""
    key = shown.key
    if shown.mechanism != instance.mechanism.name:
        raise Refused(
            f"The mart shows {key.metric} of {key.day} by {shown.mechanism}; {instance.mechanism.name} is configured.",
            "Restore with the settings that it was published with, and change them afterwards.",
        )
    release = Release(
        key=key,
        run=instance.name,
        mechanism=shown.mechanism,
        noisy_value=shown.noisy_statistic,
        half_width=0.0,
        sketch_impl=estimator_of(instance).kind,
        private=True,
        version=shown.version,
        published_at=shown.published_at.astimezone(ZoneInfo(settings.timezone)).isoformat(),
    )
    for stream_day in _stream_days(key, instance, settings):
        release = replace(release, half_width=half_width_95(instance.mechanism, stream_day))
        if _is_shown_by(release, instance, shown):
            return release
    raise Refused(
        f"The mart shows {key.metric} of {key.day} with another noise or sketch than is configured.",
        "Restore with the settings that it was published with, and change them afterwards.",
    )


def _is_shown_by(release: Release, run: MechanismRun, shown: MartRow) -> bool:
    """Whether the mart shows this number with this interval; one without bounds says nothing of the noise it had.

    A mart may be of a version whose intervals of sketches took the noise for one without steps.
    """
    estimator, width = estimator_of(run), release.half_width
    without_steps = shown_in(estimator, release.noisy_value, NoiseWidth(width, width, 0.0))
    bounds = shown.lower_95, shown.upper_95
    if bounds == (0, None):
        return False
    again = ((one["lower_95"], one["upper_95"]) for one in (interval(release, run), without_steps))
    return bounds in again and is_shown_as(release, estimator, shown)


def _stream_days(key: ReleaseKey, run: MechanismRun, settings: Settings) -> Iterator[int]:
    """Which day of its stream the number may be of: as the ledger has it, or of one that began on another day."""
    yield (key.day - run.first_day).days + 1
    if isinstance(run.mechanism, Stream):
        yield from range(1, (key.day - first_window_end(settings.start_date, key.window_days)).days + 2)
