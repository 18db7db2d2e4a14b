"""Erasure requests: how one is taken in, guarded, confirmed and cancelled, and which days it touches.

A request is recorded durably here and applied by whoever comes first: a release, the rebuild of a day,
`apply_and_verify`. Raw ids end here, as they do in `ingest`.

Owns the rule: A removal has its tombstone in every epoch that it reaches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from dpdau_assets.core.budget.sketch_choice import estimators
from dpdau_assets.core.dates import epoch_of
from dpdau_assets.core.erasure.quarantine import Named
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import EpochKey, Erasure, Removal
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.limits import first_day
from dpdau_assets.core.parallel import work_ahead
from dpdau_assets.core.ports.state import StateStore
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches.keysets import places
from dpdau_assets.core.tombstones import excluded_until

DEADLINE_DAYS = 30
"""Within how many days of its receipt a request is applied and verified: one month (GDPR, article 12(3))."""


@dataclass(frozen=True)
class Requested:
    """What became of a submission: the receipt of each of its rows, in order, and whether it waits to be confirmed.

    `references` and `passed_over` go with `receipts`: what each row is called, and its days that can hold nothing.
    """

    receipts: tuple[str, ...]
    batches: tuple[str, ...]
    parked: bool
    references: tuple[str | None, ...] = ()
    passed_over: tuple[tuple[date, ...], ...] = ()


NOTHING_REQUESTED = Requested((), (), False)


def request(asked: Sequence[Event], outside: Store, *, confirmed: bool = False) -> Requested:
    """Record these removals durably, all or none, whether anyone knows the people or not.

    More distinct people than the guard lets through at once are parked until they are confirmed. Asking again for the
    same is answered with the same receipts. Nobody is refused for a day that can hold nothing: it is passed over.
    Whom the quarantine names is gone from it too, also while the request is parked: only now is the id known.
    """
    if not asked:
        return NOTHING_REQUESTED
    parked = not confirmed and len({event.user_id for event in asked}) > guard_limit(outside)
    removals = keyed(asked, outside)
    outside.events.quarantine.forget(
        Named(event.user_id for event in asked)
    )  # first: who is cut short hands it in again
    receipts = outside.erasures.ledger.record(removals, outside.clock.today(), parked=parked)
    found = outside.erasures.ledger.find(receipts)
    return Requested(
        tuple(receipts),
        batches=tuple(dict.fromkeys(one.batch for one in found)),
        parked=any(one.state == "parked" for one in found),
        references=tuple(removal.reference for removal in removals),
        passed_over=tuple(removal.passed_over for removal in removals),
    )


def guard_limit(outside: Store) -> float:
    """How many people one submission may name: a share of the last published MAU, and one at least.

    Without a published MAU there is nothing to measure by, and no limit. What is asked for counts, not what is found.
    """
    published = outside.accountant.releases("mau")
    if not published:
        return math.inf
    last = max(published, key=lambda found: found.key.day)
    users = estimators(outside.accountant)[last.run].users(last.noisy_value)
    return max(1.0, float(outside.settings.erasure_guard_share) * users)


def confirm(names: Sequence[str], outside: Store) -> list[Erasure]:
    """Bring parked requests into force, by receipt or batch. Raises BadInput for a name that nothing has."""
    found = named(names, outside)
    outside.erasures.ledger.confirm([one.receipt for one in found])
    return outside.erasures.ledger.find(one.receipt for one in found)


def cancel(names: Sequence[str], outside: Store) -> list[Erasure]:
    """Forget requests, by receipt or batch, until they are applied. Raises Refused, with none forgotten, after that.

    Under the state's lock: a request that is being applied is not one that can be forgotten.
    """
    found = named(names, outside)
    with outside.state.activity.lock():
        outside.erasures.ledger.cancel([one.receipt for one in found])
    return outside.erasures.ledger.find(one.receipt for one in found)


def named(names: Sequence[str], outside: Store) -> list[Erasure]:
    """The requests of these receipts and batches. Raises BadInput for a name that nothing has."""
    found = outside.erasures.ledger.find(names)
    unknown = sorted(set(names) - {one.receipt for one in found} - {one.batch for one in found})
    if unknown:
        raise BadInput(f"No erasure has the receipt or batch {unknown[0]}.", "`dpdau erasures` lists them.")
    return found


def deadline(erasure: Erasure) -> date:
    """The last day on which the request may still be unverified."""
    return erasure.received_on + timedelta(days=DEADLINE_DAYS)


def overdue(outside: Store) -> list[Erasure]:
    """Requests that are past their deadline and not verified, whether they wait for us or to be confirmed."""
    unfinished = outside.erasures.ledger.erasures(("parked", "received", "applied"))
    return [one for one in unfinished if deadline(one) < outside.clock.today()]


# --- Keys --------------------------------------------------------------------------------------------------------


def keyed(asked: Iterable[Event], outside: Store) -> list[Removal]:
    """Each removal under every living epoch that it reaches; the salts of all these epochs are made at once.

    One whose last day can hold nothing reaches none.
    """
    asked, first = list(asked), first_day(outside)
    reach = {day: removal_epochs(day, outside) if day >= first else [] for day in {event.day for event in asked}}
    keys = outside.state.salts.epoch_keys({epoch for epochs in reach.values() for epoch in epochs})
    return [_keyed(event, [keys[epoch] for epoch in reach[event.day]], first) for event in asked]


def removal_epochs(through: date, outside: Store) -> list[int]:
    """The epochs that need a tombstone: from START_DATE's to that of the last window that holds the user out.

    Those that were shredded by now need none, since whatever was keyed under them is gone; those that were lost in a
    restore can have none.
    """
    shredded, lost = outside.state.salts.shredded_through(), outside.state.salts.lost()
    wanted = epochs_reached(through, outside.settings)
    return [epoch for epoch in wanted if epoch not in lost and (shredded is None or epoch > shredded)]


def epochs_reached(through: date, settings: Settings) -> range:
    """From START_DATE's epoch to that of the last window that holds the user out."""
    rotation = settings.hash_salt_rotation_days
    last_window = excluded_until(through) + timedelta(days=settings.mau_window_days - 1)
    return range(epoch_of(settings.start_date, rotation), epoch_of(last_window, rotation) + 1)


def _keyed(event: Event, keys: Iterable[EpochKey], first: date) -> Removal:
    pairs = tuple((key.epoch, user_key(key.secret, event.user_id)) for key in keys)
    passed_over = tuple(day for day in event.days or (event.day,) if day < first)
    return Removal(event.day, event.days, pairs, event.reference, passed_over)


# --- Touched days ------------------------------------------------------------------------------------------------


def mark_touched(outside: Store) -> None:
    """Mark the days that hold anyone whose removal came into force since the last time, and was not applied yet.

    The caller holds the state's lock. Marks are what tells Dagster which days to rebuild, and nothing more; with
    ERASURE_MARK=all every day that has state is marked each time, so that the marks tell nothing.
    """
    watermark, marked = outside.erasures.ledger.recorded(), outside.state.rebuilds.marked()
    if watermark == marked:
        return
    everything = outside.settings.erasure_mark == "all"
    mark(live_days(outside) if everything else touched_days(marked, watermark, outside), watermark, outside)
    outside.state.rebuilds.note_marked(watermark)


def mark(days: Iterable[date], watermark: int, outside: Store) -> None:
    """Mark those of these days that were built before and are kept: the others nobody was told of."""
    outside.state.rebuilds.mark(_built_before(days, outside), watermark)


def mark_all(outside: Store) -> None:
    """Mark every day that was built before and is kept, alike: which days waited, and since when, says nothing then."""
    outside.state.rebuilds.mark_alike(_built_before(live_days(outside), outside), outside.erasures.ledger.applied())


def _built_before(days: Iterable[date], outside: Store) -> Iterator[date]:
    gone, processed = outside.accountant.purged_through() or date.min, outside.accountant.processed()
    return (day for day in days if day in processed and day > gone)


@dataclass(frozen=True)
class Pending:
    """What is in force and not done: days to rebuild with their marks, and the receipts that are not verified."""

    days: tuple[tuple[date, int], ...]
    receipts: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        """Whether everything is done."""
        return not (self.days or self.receipts)

    @property
    def sentence(self) -> str:
        """For operators: which work is open, and not whose or of how many people."""
        if self.days:
            return f"{len(self.days)} day(s) wait to be rebuilt."
        return "An erasure waits to be verified." if self.receipts else "Every erasure is applied and verified."


def pending(outside: Store) -> Pending:
    """What the next rebuilds and the next verification have to do. Parked requests wait for a person instead."""
    waiting = outside.erasures.ledger.erasures(("received", "applied"))
    return Pending(tuple(days_to_rebuild(outside)), tuple(one.receipt for one in waiting))


def days_to_rebuild(outside: Store) -> list[tuple[date, int]]:
    """Days behind their mark that were built before and can be built again, with their marks.

    Not those that nobody has asked for yet: building them would make them ready to be published, and whether they are
    must not depend on who was active. Whatever state they have is rewritten all the same when removals are applied.
    """
    gone, processed = outside.accountant.purged_through() or date.min, outside.accountant.processed()
    can_be_built = {day for day in processed if gone < day < outside.clock.today()}
    return [(day, mark) for day, mark in outside.state.rebuilds.behind() if day in can_be_built]


def live_days(outside: Store) -> set[date]:
    """Every day that has state."""
    return {day for store in (outside.state.activity, outside.state.late) for day, _ in store.stored()}


def touched_days(after: int, through: int, outside: Store) -> set[date]:
    """The days on which someone has state whose removal came into force between these watermarks."""
    return {
        day
        for store in (outside.state.activity, outside.state.late)
        for day in _touched(store, after, through, outside)
    }


def _touched(store: StateStore, after: int, through: int, outside: Store) -> Iterator[date]:
    """Days of this store, some of them twice."""
    stored = store.stored()
    epochs = {epoch for _, epoch in stored}
    tombstones = {epoch: outside.erasures.ledger.tombstones(epoch, after=after, through=through) for epoch in epochs}

    def holds_one(place: tuple[date, int]) -> bool:
        removed = tombstones[place[1]].removed_on(place[0])
        try:
            keys = store.read(*place) if len(removed) else None
        except Refused:  # whoever reads it once it can be read applies the removals to it
            return False
        return keys is not None and len(places(keys, removed)) > 0

    touched = work_ahead(holds_one, stored)
    yield from (day for (day, _), is_touched in zip(stored, touched, strict=True) if is_touched)
