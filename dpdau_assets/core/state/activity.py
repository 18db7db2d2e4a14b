"""The state of a day: a two-phase set of keys, present if there was a '+' and no removal, in any order.

What writes here takes the state's lock, under which a release also seals the days it reads.

Owns the rule: A removal wins for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache, partial

from dpdau_assets.core.dates import (
    epochs_of_day,
)
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import Build, DaySet, Partition, Version
from dpdau_assets.core.identity import data_version
from dpdau_assets.core.parallel import work_ahead
from dpdau_assets.core.ports.ledger import Ledger, LedgerView
from dpdau_assets.core.ports.state import StateStore
from dpdau_assets.core.ports.store import Clock, Erasures, Events, State, Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches.keysets import EMPTY, places, subtract
from dpdau_assets.core.state.folding import dropping_sketches, fold_inbox
from dpdau_assets.core.state.touched import live_days, mark, mark_all
from dpdau_assets.core.tombstones import Tombstones


def process_days(days: list[date], store: Store) -> None:
    """Fold the whole inbox, then make sure that each of these days has its files, empty ones too.

    Only days that were processed can be published: a file that is there because someone was active on the day must
    not decide that. Raises Refused for a processed day whose files are gone: empty ones would be a wrong number.
    """
    with store.state.activity.lock():
        require_kept(days, store.accountant)
        apply_pending(store)
        _create_missing(days, store)
        repair(days, store)
        store.accountant.mark_processed(days)


def repair(days: Iterable[date], store: Store) -> list[Partition]:
    """Put the newest content of these days in the place of older copies; returns which were old.

    The caller holds the lock. Raises Refused for a file that lacks events, or is gone, as reading it would.
    """
    places = [(day, epoch) for day in days for epoch in epochs_of(day, store.settings)]
    return _repaired(store.state.activity, "activity", places, store) + _repaired(
        store.state.late, "late", places, store
    )


def repair_all(store: Store) -> tuple[list[Partition], list[Partition]]:
    """Put the newest content in the place of every older copy: which files were old, and which cannot be repaired.

    The caller holds the lock.
    """
    repaired, broken = [], []
    for name, kept in (("activity", store.state.activity), ("late", store.state.late)):
        lost: list[tuple[date, int]] = []
        repaired += _repaired(kept, name, kept.places(), store, lost)
        broken += [Partition(name, *place) for place in lost]
    return repaired, broken


def _repaired(
    kept: StateStore,
    name: str,
    places: list[tuple[date, int]],
    store: Store,
    broken: list[tuple[date, int]] | None = None,
) -> list[Partition]:
    """Repair these. Where a removal that could not be applied has changed a content, Dagster is to be told."""
    known = {place: kept.build(*place) for place in places}
    repaired = kept.repair(places, broken)
    if any(kept.build(*place).current != known[place].current for place in repaired):
        mark_all(store)  # not that day alone: it would say that somebody was there who is gone
    return [Partition(name, *place) for place in repaired]


def apply_pending(store: Store) -> None:
    """Bring the state up to all that was acknowledged: removals, then the inbox. The caller holds the lock."""
    store.state.activity.resume()
    store.state.late.resume()
    apply_removals(store)
    fold_inbox(store)


def apply_removals(store: Store) -> None:
    """Rewrite every file that holds a removed key, each after the sketch that was built from it is dropped.

    The caller holds the lock. Running it again, also after it was cut short, changes nothing more. A day that it
    touches is marked before: a second run could no longer tell. A file that cannot be read holds up none of the
    others; whoever reads it once it can be applies the same to it.
    """
    watermark, applied = store.erasures.ledger.recorded(), store.erasures.ledger.applied()
    if watermark == applied:
        return
    store.state.files.sweep()
    store.erasures.ledger.begin_applying(watermark)
    _mark_changed(watermark, store)
    for kept, dropping in ((store.state.activity, dropping_sketches), (store.state.late, _as_they_come)):
        unreadable: list[tuple[date, int]] = []
        emptied: list[tuple[date, int]] = []
        changed = _rewritten(kept, watermark, unreadable, emptied, store.erasures, store.accountant)
        kept.replace(dropping(changed, store), before=lambda days: mark(days, watermark, store))
        kept.note_unreadable(unreadable, applied)
        kept.discard(emptied)
        if store.settings.erasure_mark == "all":
            kept.renew()
    store.state.builds.write_anew()
    store.erasures.receipts.forget_inspection()
    store.erasures.ledger.mark_applied(watermark)
    store.state.rebuilds.note_marked(watermark)
    store.state.builds.overwrite_deleted()


def _mark_changed(watermark: int, store: Store) -> None:
    """A change by arrivals that Dagster was not told of may be of the removed alone: from here on it is a mark.

    So it is gone before their receipts say that nothing is left. With ERASURE_MARK=all every day gets a mark.
    """
    changed = store.state.rebuilds.changed()
    mark(live_days(store.state) if store.settings.erasure_mark == "all" else changed, watermark, store)
    store.state.rebuilds.mark_reported(changed)


def is_clean(day: date, store: Store) -> bool:
    """Whether nobody is left in the day's state whose removal from it was applied by now."""
    return day in clean_days([day], store)


def clean_days(days: Iterable[date], store: Store) -> set[date]:
    """The days among these in whose state nobody is left whose removal from it was applied by now."""
    with store.state.activity.lock():
        tombstones = cache(partial(store.erasures.ledger.tombstones, through=store.erasures.ledger.applied()))
        return {
            day
            for day in days
            if not any(
                _holds_removed(day, epoch, tombstones(epoch), store.state) for epoch in epochs_of(day, store.settings)
            )
        }


def _holds_removed(day: date, epoch: int, tombstones: Tombstones, state: State) -> bool:
    removed = tombstones.removed_on(day)
    kept = (state.activity.read(day, epoch), state.late.read(day, epoch)) if len(removed) else ()
    return any(keys is not None and len(places(keys, removed)) for keys in kept)


def discard_batch(batch: str, events: Events, state: State) -> None:
    """Take back an import that was not folded yet. Raises Refused once it was, or if there never was such a batch."""
    with state.activity.lock():
        events.log.seal()  # what was sealed in part makes its batch again
        if batch not in events.inbox.batches():
            raise Refused(
                f"No batch {batch} waits in the inbox.",
                "A folded batch cannot be taken back: its users stay, or are erased one by one.",
                batch=batch,
            )
        events.inbox.discard([batch])


def require_kept(days: Iterable[date], accountant: LedgerView) -> None:
    """Raise Refused for a day past retention: it cannot be built any more, and nothing empty takes its place."""
    gone = accountant.purged_through()
    purged = sorted(day for day in days if gone is not None and day <= gone)
    if purged:
        raise Refused(f"{purged[0]} is past retention: days up to {gone} are purged.", "Ask for a later day.")


def day_version(day: date, store: Store) -> str:
    """The day's data version: the same until its users are others, and nothing by which they could be tried out."""
    return version_of_state("activity", day, store.settings, store.state)


def version_of_state(label: str, day: date, settings: Settings, state: State) -> str:
    """The data version of what is built from the day's state and nothing else.

    It goes by the nonces of the day's last builds. With ERASURE_MARK=all each application of removals gives every day
    another one, or those that stay would tell which days nobody left.
    """
    with state.activity.lock():  # or a file could be replaced between two looks at it
        versions = [require_version(day, epoch, state) for epoch in epochs_of(day, settings)]
    return data_version(f"{label} {day}", [version.hash for version in versions])


def require_digest(day: date, epoch: int, state: State) -> str:
    """Digest of the day's keys under this epoch. Raises Refused when the day was never processed."""
    content = state.activity.digest(day, epoch)
    if content is None:
        raise Refused(f"There is no state for {day}.", f"Materialise `activity` for {day}.", day=day.isoformat())
    return content


def require_version(day: date, epoch: int, state: State) -> Version:
    """What the day's content under this epoch is known by. Raises Refused when the day was never processed."""
    require_digest(day, epoch, state)
    version = state.activity.version(day, epoch)
    assert version is not None, "what has a digest has a version"
    return version


def epochs_of(day: date, settings: Settings) -> range:
    """The salt epochs under which this day is keyed."""
    return epochs_of_day(day, settings.hash_salt_rotation_days, settings.mau_window_days)


def _rewritten(
    store: StateStore,
    watermark: int,
    unreadable: list[tuple[date, int]],
    emptied: list[tuple[date, int]],
    erasures: Erasures,
    accountant: Ledger,
) -> Iterator[DaySet]:
    """The files of this store that change when the removals up to the watermark, not applied yet, are.

    Those that are damaged, older or gone are put into `unreadable`; and into `emptied` those that are left empty of a
    day that nobody has asked for: they are there for those who are gone.
    """
    applied, processed, stored = erasures.ledger.applied(), accountant.processed(), store.places()
    epochs = {epoch for _, epoch in stored}
    tombstones = {epoch: erasures.ledger.tombstones(epoch, after=applied, through=watermark) for epoch in epochs}

    def kept(place: tuple[date, int]) -> DaySet | None:
        day, epoch = place
        removed = tombstones[epoch].removed_on(day)
        try:
            before = store.read(day, epoch) if len(removed) else None
        except Refused:
            unreadable.append(place)
            return None
        if before is None or len(after := subtract(before, removed)) == len(before):
            return None
        return DaySet(day, epoch, after)

    for day_set in filter(None, work_ahead(kept, stored)):
        if len(day_set.keys) or day_set.day in processed:
            yield day_set
        else:
            emptied.append((day_set.day, day_set.epoch))


def _as_they_come(sets: Iterable[DaySet], _: Store) -> Iterable[DaySet]:
    return sets


def _create_missing(days: list[date], store: Store) -> None:
    promised, stored = (
        store.accountant.sealed() | store.accountant.processed(),
        set(store.state.activity.stored()),
    )
    missing = [(day, epoch) for day in days for epoch in epochs_of(day, store.settings) if (day, epoch) not in stored]
    lost = sorted(
        {day for day, epoch in missing if day in promised or store.state.activity.build(day, epoch) != Build()}
    )
    if lost:
        raise Refused(
            f"The state of {len(lost)} processed day(s), the first {lost[0]}, is gone.",
            "Restore the data directory and the ledger from the same backup; a day is never rebuilt from nothing.",
        )
    store.state.activity.replace(DaySet(day, epoch, EMPTY) for day, epoch in missing)


def require_ended(day: date, clock: Clock) -> None:
    """Raises Refused for today and later."""
    if day >= clock.today():
        raise Refused(f"{day} has not ended yet.", "A day is published once it is complete.", day=day.isoformat())
