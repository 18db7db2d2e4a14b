"""What a ledger that was restored from a backup may have lost, and how none of it is ever published a second time.

Nobody can tell which numbers came out after the backup, so all that may have are taken for published: they are charged,
and the months they read are closed. Numbers that the mart shows are taken back as they are.

Owns the rule: After a restore, what may have been published counts as published.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from dpdau_assets.core.budget.numbers import interval
from dpdau_assets.core.budget.overrides import declare_erasures_submitted
from dpdau_assets.core.budget.planning import Plan, budget_of, enter, living_run, new_run
from dpdau_assets.core.budget.settings_check import LONGEST_GRACE
from dpdau_assets.core.budget.sketch_choice import estimator_of, estimators
from dpdau_assets.core.budget.verification import is_shown_as
from dpdau_assets.core.dates import days_between, first_window_end, month_of, months_read, next_month, window
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ports.ledger import Ledger, RestoreTransaction
from dpdau_assets.core.ports.store import Clock, Events, State, Store
from dpdau_assets.core.privacy.accounting import charges_for_release
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Stream, half_width_95
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


def last_possible_day(shown: Sequence[MartRow], declared: Declared | None, clock: Clock, accountant: Ledger) -> date:
    """The last day that may have been published by now. Raises BadInput for a declaration that numbers contradict."""
    yesterday = clock.today() - timedelta(days=1)
    if declared is None:
        return yesterday
    last = max((number.key.day for number in (*shown, *accountant.releases())), default=date.min)
    if declared.through < last:
        raise BadInput(f"{last} is published, which is after {declared.through}.", "Declare the last published day.")
    return min(yesterday, declared.through)


def lost_keys(shown: Sequence[MartRow], declared: Declared | None, store: Store) -> list[ReleaseKey]:
    """Every release that may have been made since the backup, in the order in which they were due.

    Unless it is declared how far publication had come, months may also have been restated under a longer GRACE_DAYS.
    """
    through = last_possible_day(shown, declared, store.clock, store.accountant)
    grace_days = LONGEST_GRACE if declared is None else store.settings.grace_days
    there, how = {release.key: release for release in store.accountant.releases()}, estimators(store.accountant)
    for row in shown:
        kept = there.get(row.key)
        if kept and not is_shown_as(kept, how[kept.run], row):
            raise Refused(
                f"The mart shows another {row.key.metric} of {row.key.day} than the backup.",
                "Name the mart of the store that the backup is of.",
            )
    first_numbers = {
        *_first_numbers("dau", through, store.settings, store.accountant),
        *_first_numbers("mau", through, store.settings, store.accountant),
    }
    restated = _restated(
        first_numbers | there.keys(), through + timedelta(days=1 + grace_days), store.settings, store.accountant
    )
    lost = (first_numbers | set(restated) | {row.key for row in shown}) - there.keys()
    return sorted(lost, key=lambda key: (_due_on(key, store.settings), key.revision, key))


def maybe_published(lost: Sequence[ReleaseKey], shown: Sequence[MartRow]) -> list[MaybePublished]:
    """By metric, what the ledger is charged for."""
    there = {row.key for row in shown}
    lost_of_each: list[tuple[Metric, list[ReleaseKey]]] = [
        (metric, [key for key in lost if key.metric == metric]) for metric in METRICS
    ]
    return [
        MaybePublished(metric, len(keys), len(there.intersection(keys)), tuple(_months_closed(keys)))
        for metric, keys in lost_of_each
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
    mart shows numbers of another mechanism than is configured, since their price is not known, or of a run that the
    backup knows otherwise.
    """
    numbers = {row.key: row for row in shown}
    estimators, first_days = _estimators_of(lost, numbers), _first_days(lost, shown, ledger)
    ended: set[str] = set()
    for key in lost:
        run = _charged(key, estimators[key], first_days.get(key), ledger, settings)
        if run.name not in ended:
            ledger.destroy_shared_noise(run.name)
            ended.add(run.name)
        if key in numbers:
            row = numbers[key]
            _require_run_of(row, run)
            _require_scheduled(row, run, settings)
            ledger.store(_taken_back(row, run, settings))
    for key in lost:
        # It may have been counted as is configured by now: for a stream that is another one, charged beside the first.
        if key not in numbers and estimators[key] is not None:
            _charged(key, None, None, ledger, settings)
    for closed in maybe_published(lost, shown):
        for month in closed.months:
            ledger.close(closed.metric, month, restore.restored_on)
    ledger.note_restore(restore)


def _estimators_of(
    lost: Sequence[ReleaseKey], shown: Mapping[ReleaseKey, MartRow]
) -> dict[ReleaseKey, Estimator | None]:
    """How the mart says that each number was counted; of one it does not show, as the one before it, or the next.

    None where it shows none of the metric: nothing that the price depends on.
    """
    estimators: dict[ReleaseKey, Estimator | None] = {}
    for metric in {key.metric for key in lost}:
        keys = [key for key in lost if key.metric == metric]
        last = next((estimator_from(shown[key].parameters) for key in keys if key in shown), None)
        for key in keys:
            estimators[key] = last = estimator_from(shown[key].parameters) if key in shown else last
    return estimators


def account_for_files(
    lost: Iterable[ReleaseKey], ledger: RestoreTransaction, events: Events, state: State
) -> list[int]:
    """Seal the days that lost numbers may have read; give up, and return, the epochs whose keys are lost.

    A day without state is not sealed: its events can be brought in again, and nothing has read what they will build.
    """
    ledger.seal({day for key in lost for day in window(key.day, key.window_days)} & live_days(state))
    return ledger.lose_epochs(_epochs_kept(events, state))


def reopen(who: str, why: str, clock: Clock, accountant: Ledger) -> None:
    """Let publishing go on: every erasure request since the backup is submitted again. Raises Refused if none waits."""
    if not accountant.awaits_erasures():
        raise Refused("The ledger waits for no erasure requests.", "Nothing is to be done: it is open.")
    declare_erasures_submitted(who, why, clock, accountant)


def _months_closed(lost: Iterable[ReleaseKey]) -> list[date]:
    """Every month that one of these releases reads."""
    return sorted({month for key in lost for month in months_read(key.day, key.window_days)})


def _epochs_kept(events: Events, state: State) -> set[int]:
    """Every salt epoch under which something is kept."""
    stored = (*state.activity.stored(), *state.late.stored(), *state.sketches.stored())
    return {epoch for _, epoch in stored} | events.inbox.epochs() | events.log.epochs()


def _first_numbers(metric: Metric, through: date, settings: Settings, accountant: Ledger) -> Iterator[ReleaseKey]:
    """Keys of days up to `through` that could be published: of no purged day, and no DAU of a month that is restated.

    A stream only ever went on after its last day.
    """
    restated = accountant.restated()
    purged = accountant.purged_through() or date.min
    window_days = settings.window_days(metric)
    first = first_window_end(settings.start_date, window_days)
    if settings.mechanism(metric) == Stream.name:
        published = (release.key.day for release in accountant.releases(metric))
        first = max((day + timedelta(days=1) for day in published), default=first)
    for day in days_between(first, through):
        if window(day, window_days)[0] > purged and not (metric == "dau" and month_of(day) in restated):
            yield ReleaseKey(metric, window_days, day)


def _restated(
    first_numbers: Iterable[ReleaseKey], through: date, settings: Settings, accountant: Ledger
) -> Iterator[ReleaseKey]:
    """The restatement of each month whose day may have come, of all days that may have a number."""
    days = [key for key in first_numbers if key.metric == "dau" and not key.revision]
    due = restatements_due([key.day for key in days], settings, accountant)
    reached = {month for month, day in due.items() if day <= through}
    return (replace(key, revision=1) for key in days if month_of(key.day) in reached)


def _due_on(key: ReleaseKey, settings: Settings) -> date:
    return restatement_due_on(settings, month_of(key.day)) if key.revision else due_on(settings, key.day)


def _charged(
    key: ReleaseKey,
    estimator: Estimator | None,
    first_day: date | None,
    ledger: RestoreTransaction,
    settings: Settings,
) -> MechanismRun:
    """The run that the release went on with, or that began with it; a stream began on `first_day`, where that is known.

    It is on record, and charged, from here on.
    """
    living = living_run(key, ledger, settings, estimator)
    run = living or new_run(replace(key, day=first_day or key.day), ledger, settings, estimator)
    asked = charges_for_release(key.metric, key.day, key.window_days, run.mechanism, run.name)
    charges = tuple(
        replace(charge, budget=budget_of(charge.metric, charge.month, ledger, settings))
        for charge in asked
        if charge not in ledger.charges(charge.metric, charge.month)
    )
    enter(Plan(run, living is None, charges), ledger)
    return run


def _first_days(
    lost: Iterable[ReleaseKey], shown: Sequence[MartRow], ledger: RestoreTransaction
) -> dict[ReleaseKey, date]:
    """On which day the stream began that each lost number was of, by the next number of it in the mart.

    Only where the mart knows better than the backup: of a stream that the backup has, nothing is said.
    """
    began: dict[str, date] = {}
    for row in sorted(shown, key=lambda row: row.key.day, reverse=True):
        if row.mechanism == Stream.name and ledger.mechanism_run(row.mechanism_run) is None:
            began[row.mechanism_run] = row.key.day
    streams = sorted((row for row in shown if row.mechanism_run in began), key=lambda row: row.key.day)
    first_days: dict[ReleaseKey, date] = {}
    for key in lost:
        later = (row for row in streams if row.key.metric == key.metric and row.key.day >= key.day)
        if (following := next(later, None)) is not None:
            first_days[key] = began[following.mechanism_run]
    return first_days


def _require_run_of(shown: MartRow, run: MechanismRun) -> None:
    """Raises Refused unless the number is of the run that is charged, and has its very noise: another run, or less
    noise, would have cost more.
    """
    key = shown.key
    if shown.mechanism != run.mechanism.name:
        raise Refused(
            f"The mart shows {key.metric} of {key.day} by {shown.mechanism}; {run.mechanism.name} is configured.",
            "Restore with the settings that it was published with, and change them afterwards.",
        )
    if shown.mechanism_run != run.name:
        raise Refused(
            f"The mart shows {key.metric} of {key.day} as a number of {shown.mechanism_run}, which cannot be by the "
            f"backup: it would be one of {run.name}.",
            "Name the mart of the store that the backup is of, and restore with the settings that it was published "
            "with; if there was another restore since the backup, use a backup that was made after it.",
        )
    stream_day = (key.day - run.first_day).days + 1
    if not math.isclose(shown.half_width, half_width_95(run.mechanism, stream_day), rel_tol=1e-9):
        raise _otherwise(key)


def _require_scheduled(shown: MartRow, run: MechanismRun, settings: Settings) -> None:
    """Raises Refused for a number that no schedule publishes, or not at that time, whatever the settings were."""
    key, zone = shown.key, ZoneInfo(settings.timezone)
    at = shown.published_at.astimezone(zone)
    if key.revision:
        is_restated = (key.metric, key.revision) == ("dau", 1) and run.parameters["restatements_per_month"] != "0"
        is_due = is_restated and month_of(at.date()) == next_month(month_of(key.day))
    else:
        is_due = 1 <= (at.date() - key.day).days <= 1 + LONGEST_GRACE
    midnight = datetime.combine(at.date(), time(), zone)  # which a change of the clock may have moved
    if not is_due or midnight.astimezone(UTC) != shown.published_at.astimezone(UTC):
        raise Refused(
            f"The mart shows {key.metric} of {key.day}, revision {key.revision}, published at {at.isoformat()}, when "
            "none was due.",
            "Name the mart as dpdau wrote it.",
        )


def _taken_back(shown: MartRow, run: MechanismRun, settings: Settings) -> Release:
    """The release as it was. Raises Refused where the mart shows what does not follow from it."""
    release = Release(
        key=shown.key,
        run=run.name,
        mechanism=shown.mechanism,
        noisy_value=shown.noisy_statistic,
        half_width=shown.half_width,
        sketch_impl=estimator_of(run).kind,
        private=True,
        version=shown.version,
        published_at=shown.published_at.astimezone(ZoneInfo(settings.timezone)).isoformat(),
    )
    again = interval(release, run)
    bounds = (shown.estimate, shown.lower_95, shown.upper_95)
    if bounds != (again.estimate, again.lower_95, again.upper_95):
        raise _otherwise(shown.key)
    if not is_shown_as(release, estimator_of(run), shown):
        raise _otherwise(shown.key)
    return release


def _otherwise(key: ReleaseKey) -> Refused:
    return Refused(
        f"The mart shows {key.metric} of {key.day} with another noise or sketch than is configured.",
        "Restore with the settings that it was published with, and change them afterwards.",
    )
