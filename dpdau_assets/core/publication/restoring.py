"""What a ledger that was restored from a backup may have lost, and how none of it is ever published a second time.

Nobody can tell which numbers came out after the backup, so all that may have are taken for published: they are charged,
and the months they read are closed. Numbers that the mart shows are taken back as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from dpdau_assets.core.budget.overrides import declare_erasures_submitted
from dpdau_assets.core.budget.planning import Plan, budget_of, enter, living_instance, new_instance
from dpdau_assets.core.budget.settings_check import LONGEST_GRACE
from dpdau_assets.core.budget.sketch_choice import counting_of, countings
from dpdau_assets.core.budget.verification import is_shown_as
from dpdau_assets.core.dates import days_between, first_window_end, month_of, months_read, window
from dpdau_assets.core.erasure.requests import live_days
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import Instance, Release, ReleaseKey
from dpdau_assets.core.ports.ledger import RestoredBooks
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.accounting import charges_for_release
from dpdau_assets.core.privacy.mechanisms import NoiseWidth, Stream, half_width_95
from dpdau_assets.core.privacy.schedule import METRICS, restatement_slot, slot_of
from dpdau_assets.core.publication.runs import restatements_due
from dpdau_assets.core.reporting.answers import interval, shown_in
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches.base import Counting


@dataclass(frozen=True)
class Shown:
    """A published number as the mart shows it.

    `noisy_value` is in users, and `noisy_statistic` what the ledger keeps; bounds are rounded, and never below 0.
    """

    key: ReleaseKey
    noisy_value: float
    noisy_statistic: float
    lower_95: float
    upper_95: float | None
    mechanism: str
    counting: Counting
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


def last_possible_day(shown: Sequence[Shown], declared: Declared | None, outside: Store) -> date:
    """The last day that may have been published by now. Raises BadInput for a declaration that numbers contradict."""
    yesterday = outside.clock.today() - timedelta(days=1)
    if declared is None:
        return yesterday
    last = max((one.key.day for one in (*shown, *outside.accountant.releases())), default=date.min)
    if declared.through < last:
        raise BadInput(f"{last} is published, which is after {declared.through}.", "Declare the last published day.")
    return min(yesterday, declared.through)


def lost_keys(shown: Sequence[Shown], declared: Declared | None, outside: Store) -> list[ReleaseKey]:
    """Every release that may have been made since the backup, in the order of their slots.

    Unless it is declared how far publication had come, months may also have been restated under a longer GRACE_DAYS.
    """
    through = last_possible_day(shown, declared, outside)
    grace_days = LONGEST_GRACE if declared is None else outside.settings.grace_days
    there, how = {one.key: one for one in outside.accountant.releases()}, countings(outside.accountant)
    for one in shown:
        kept = there.get(one.key)
        if kept and not is_shown_as(kept, how[kept.instance], one):
            raise Refused(
                f"The mart shows another {one.key.metric} of {one.key.day} than the backup.",
                "Name the mart of the store that the backup is of.",
            )
    first_numbers = {*_first_numbers("dau", through, outside), *_first_numbers("mau", through, outside)}
    restated = _restated(first_numbers | there.keys(), through + timedelta(days=1 + grace_days), outside)
    lost = (first_numbers | set(restated) | {one.key for one in shown}) - there.keys()
    return sorted(lost, key=lambda key: (_slot(key, outside.settings), key.revision, key))


def maybe_published(lost: Sequence[ReleaseKey], shown: Sequence[Shown]) -> list[MaybePublished]:
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
    lost: Sequence[ReleaseKey], shown: Sequence[Shown], restore: Restore, books: RestoredBooks, settings: Settings
) -> None:
    """Charge what was lost, whether or not it fits; take back what the mart shows; then close what was read.

    Noise that lost numbers share is destroyed: what comes after a closure has noise of its own. Raises Refused when the
    mart shows numbers of another mechanism than is configured: their price is not known.
    """
    numbers = {one.key: one for one in shown}
    countings = _countings_of(lost, numbers)
    for key in lost:
        instance = _charged(key, countings[key], books, settings)
        books.destroy_shared_noise(instance.name)
        if key in numbers:
            books.store(_taken_back(numbers[key], instance, settings))
    for key in lost:
        if key not in numbers and countings[key] is not None:  # it may have been counted as is configured by now:
            _charged(key, None, books, settings)  # for a stream that is another one, charged beside what the mart shows
    for closed in maybe_published(lost, shown):
        for month in closed.months:
            books.close(closed.metric, month, restore.restored_on)
    books.note_restore(restore)


def _countings_of(lost: Sequence[ReleaseKey], shown: Mapping[ReleaseKey, Shown]) -> dict[ReleaseKey, Counting | None]:
    """How the mart says that each number was counted; of one it does not show, as the one before it, or the next.

    None where it shows none of the metric: nothing that the price depends on.
    """
    found: dict[ReleaseKey, Counting | None] = {}
    for metric in {key.metric for key in lost}:
        keys = [key for key in lost if key.metric == metric]
        last = next((shown[key].counting for key in keys if key in shown), None)
        for key in keys:
            found[key] = last = shown[key].counting if key in shown else last
    return found


def account_for_files(lost: Iterable[ReleaseKey], books: RestoredBooks, outside: Store) -> list[int]:
    """Seal the days that lost numbers may have read; give up, and return, the epochs whose keys are lost.

    A day without state is not sealed: its events can be brought in again, and nothing has read what they will build.
    """
    books.seal({day for key in lost for day in window(key.day, key.window_days)} & live_days(outside))
    return books.lose_epochs(_epochs_kept(outside))


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
    return restatement_slot(settings, month_of(key.day)) if key.revision else slot_of(settings, key.day)


def _charged(key: ReleaseKey, counting: Counting | None, books: RestoredBooks, settings: Settings) -> Instance:
    """The instance that the release would have gone on with when the backup was made; on the books from here on."""
    living = living_instance(key, books, settings, counting)
    instance = living or new_instance(key, books, settings, counting)
    asked = charges_for_release(key.metric, key.day, key.window_days, instance.mechanism, instance.name)
    charges = tuple(
        replace(charge, budget=budget_of(charge.metric, charge.month, books, settings))
        for charge in asked
        if charge not in books.charges(charge.metric, charge.month)
    )
    enter(Plan(instance, living is None, charges), books)
    return instance


def _taken_back(shown: Shown, instance: Instance, settings: Settings) -> Release:
    """The release as it was: the same number, and noise of the very width that it is shown with."""
    key = shown.key
    if shown.mechanism != instance.mechanism.name:
        raise Refused(
            f"The mart shows {key.metric} of {key.day} by {shown.mechanism}; {instance.mechanism.name} is configured.",
            "Restore with the settings that it was published with, and change them afterwards.",
        )
    release = Release(
        key=key,
        instance=instance.name,
        mechanism=shown.mechanism,
        noisy_value=shown.noisy_statistic,
        half_width=0.0,
        sketch_impl=counting_of(instance).kind,
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


def _is_shown_by(release: Release, instance: Instance, shown: Shown) -> bool:
    """Whether the mart shows this number with this interval; one without bounds says nothing of the noise it had.

    A mart may be of a version whose intervals of sketches took the noise for one without steps.
    """
    counting, width = counting_of(instance), release.half_width
    without_steps = shown_in(counting, release.noisy_value, NoiseWidth(width, width, 0.0))
    bounds = shown.lower_95, shown.upper_95
    if bounds == (0, None):
        return False
    again = ((one["lower_95"], one["upper_95"]) for one in (interval(release, instance), without_steps))
    return bounds in again and is_shown_as(release, counting, shown)


def _stream_days(key: ReleaseKey, instance: Instance, settings: Settings) -> Iterator[int]:
    """Which day of its stream the number may be of: as the ledger has it, or of one that began on another day."""
    yield (key.day - instance.first_day).days + 1
    if isinstance(instance.mechanism, Stream):
        yield from range(1, (key.day - first_window_end(settings.start_date, key.window_days)).days + 2)
