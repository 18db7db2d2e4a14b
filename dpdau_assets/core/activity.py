"""The state of a day: a two-phase set of keys, present if there was a '+' and no removal, in any order.

What writes here takes the state's lock, under which a release also seals the days it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache, partial

from dpdau_assets.core.erasure import mark_touched
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import DaySet, Keys, RejectedRow
from dpdau_assets.core.identity import content_version
from dpdau_assets.core.keysets import EMPTY, places, subtract, unite
from dpdau_assets.core.ports import Outside, StateStore
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.threads import work_ahead
from dpdau_assets.core.windows import epoch_of, epochs_of_day, month_of

PAST_RETENTION = "came for a day that is past retention"
AFTER_RESTATEMENT = "came after the month of their day was restated"


def process_days(days: list[date], outside: Outside) -> None:
    """Fold the whole inbox, then make sure that each of these days has its files, empty ones too.

    Only days that were processed can be published: a file that is there because someone was active on the day must
    not decide that. Raises Refused for a processed day whose files are gone: empty ones would be a wrong number.
    """
    with outside.activity.lock():
        require_kept(days, outside)
        take_in(outside)
        _create_missing(days, outside)
        outside.ledger.mark_processed(days)


def take_in(outside: Outside) -> None:
    """Bring the state up to all that was acknowledged: removals, then the inbox. The caller holds the lock."""
    apply_removals(outside)
    _fold_inbox(outside)


def apply_removals(outside: Outside) -> None:
    """Rewrite every file that holds a removed key, each after the sketch that was built from it is dropped.

    The caller holds the lock. Running it again, also after it was cut short, changes nothing more. What it touches is
    marked first: a second run could no longer tell.
    """
    watermark = outside.erasures.recorded()
    if watermark == outside.erasures.applied():
        return
    outside.premises.sweep()
    mark_touched(outside)
    outside.erasures.begin_applying(watermark)
    outside.activity.replace(_dropping_sketches(_rewritten(outside.activity, watermark, outside), outside))
    outside.late.replace(_rewritten(outside.late, watermark, outside))
    outside.erasures.mark_applied(watermark)


def is_clean(day: date, outside: Outside) -> bool:
    """Whether nobody is left in the day's state whose removal from it was applied by now."""
    with outside.activity.lock():
        applied = outside.erasures.applied()
        for store in (outside.activity, outside.late):
            for epoch in epochs_of(day, outside.settings):
                removed = outside.erasures.tombstones(epoch, through=applied).removed_on(day)
                keys = store.read(day, epoch) if len(removed) else None
                if keys is not None and len(places(keys, removed)):
                    return False
    return True


def discard_batch(batch: str, outside: Outside) -> None:
    """Take back an import that was not folded yet. Raises Refused once it was, or if there never was such a batch."""
    with outside.activity.lock():
        if batch not in outside.inbox.batches():
            raise Refused(
                f"No batch {batch} waits in the inbox.",
                "A folded batch cannot be taken back: its users stay, or are erased one by one.", batch=batch,
            )  # fmt: skip
        outside.inbox.discard([batch])


def require_kept(days: Iterable[date], outside: Outside) -> None:
    """Raise Refused for a day past retention: it cannot be built any more, and nothing empty takes its place."""
    gone = outside.ledger.purged_through()
    purged = sorted(day for day in days if gone is not None and day <= gone)
    if purged:
        raise Refused(f"{purged[0]} is past retention: days up to {gone} are purged.", "Ask for a later day.")


def day_version(day: date, outside: Outside) -> str:
    """The day's data version: a keyed hash of what its files hold, so the same users give the same version."""
    return keyed_version("activity", day, outside)


def keyed_version(label: str, day: date, outside: Outside) -> str:
    """Hash of the day's state under the key of its own epoch, for what is built from nothing else.

    With ERASURE_MARK=all each rebuild is another version, or those that stay would tell which days nobody left.
    """
    mark = f" {outside.rebuilds.wanted(day)}" if outside.settings.erasure_mark == "all" else ""
    digests = [require_digest(day, epoch, outside) for epoch in epochs_of(day, outside.settings)]
    own_epoch = epoch_of(day, outside.settings.hash_salt_rotation_days)
    key = outside.salts.epoch_keys([own_epoch])[own_epoch]
    return content_version(key, f"{label} {day}{mark}", "/".join(digests).encode())


def require_digest(day: date, epoch: int, outside: Outside) -> str:
    """Digest of the day's keys under this epoch. Raises Refused when the day was never processed."""
    found = outside.activity.digest(day, epoch)
    if found is None:
        raise Refused(f"There is no state for {day}.", f"Materialise `activity` for {day}.", day=day.isoformat())
    return found


def epochs_of(day: date, settings: Settings) -> range:
    """The salt epochs under which this day is keyed."""
    return epochs_of_day(day, settings.hash_salt_rotation_days, settings.mau_window_days)


def fold(before: Keys, arrived: Keys, removed: Keys) -> Keys:
    """The two-phase set: what was there or came, less what was ever removed."""
    return subtract(unite([before, arrived]), removed)


def _rewritten(store: StateStore, watermark: int, outside: Outside) -> Iterator[DaySet]:
    """The files of this store that change when the removals up to the watermark, not applied yet, are.

    Only marked days can: whoever touched a day has marked it, and it stays so until it was built without them.
    """
    marked, applied = {day for day, _ in outside.rebuilds.behind()}, outside.erasures.applied()
    stored = [place for place in store.stored() if place[0] in marked]
    epochs = {epoch for _, epoch in stored}
    tombstones = {epoch: outside.erasures.tombstones(epoch, after=applied, through=watermark) for epoch in epochs}

    def kept(place: tuple[date, int]) -> DaySet | None:
        day, epoch = place
        removed = tombstones[epoch].removed_on(day)
        before = store.read(day, epoch) if len(removed) else None
        if before is None or len(after := subtract(before, removed)) == len(before):
            return None
        return DaySet(day, epoch, after)

    yield from filter(None, work_ahead(kept, stored))


def _dropping_sketches(sets: Iterable[DaySet], outside: Outside) -> Iterator[DaySet]:
    """Each set once the sketch of what it replaces is gone: a sketch is of its state, or not there to be built."""
    for found in sets:
        outside.sketches.discard(found.day, found.epoch)
        yield found


def _fold_inbox(outside: Outside) -> None:
    batches = outside.inbox.batches()
    late: list[DaySet] = []
    dropped: list[RejectedRow] = []
    changed: set[date] = set()
    known = outside.rebuilds.arrived()
    outside.rebuilds.arrive(outside.inbox.days())  # before anything is written: what is cut short stays noted
    arrivals = _folded(outside.inbox.read(batches), late, dropped, outside)
    outside.activity.replace(_dropping_sketches(_noting(arrivals, changed), outside))
    outside.late.replace(late)
    outside.quarantine.keep(dropped)
    noted = outside.rebuilds.arrived()
    outside.rebuilds.told({day: noted[day] for day in noted.keys() - known.keys() - changed})  # nothing new came
    outside.inbox.discard(batches)


def _noting(sets: Iterable[DaySet], changed: set[date]) -> Iterator[DaySet]:
    for found in sets:
        changed.add(found.day)
        yield found


def _folded(
    arrivals: Iterable[DaySet], late: list[DaySet], dropped: list[RejectedRow], outside: Outside
) -> Iterator[DaySet]:
    """The new state of every open day that gained a user; what came for sealed days is put into `late`.

    What came for a day past retention, or for a restated month, is counted in `dropped`: no number can hold it.
    """
    sealed, restated = outside.ledger.sealed(), outside.ledger.restated()
    gone = outside.ledger.purged_through() or date.min
    tombstones = cache(partial(outside.erasures.tombstones, through=outside.erasures.applied()))
    for arrived in arrivals:
        day, epoch = arrived.day, arrived.epoch
        if day <= gone:
            dropped.append(_dropped(arrived, len(arrived.keys), PAST_RETENTION))
            continue
        removed = tombstones(epoch).removed_on(day)
        before = outside.activity.read(day, epoch)
        if day in sealed and month_of(day) in restated:
            dropped += _too_late(arrived, before, removed, outside)
        elif day in sealed:
            late.extend(_late(arrived, before, removed, outside))
        elif len(after := fold(_or_empty(before), arrived.keys, removed)) > len(_or_empty(before)) or before is None:
            yield DaySet(day, epoch, after)


def _late(arrived: DaySet, sealed_state: Keys | None, removed: Keys, outside: Outside) -> list[DaySet]:
    """The day's late set with these arrivals, if they change it: users that the sealed state does not have."""
    before = _or_empty(outside.late.read(arrived.day, arrived.epoch))
    new = subtract(arrived.keys, _or_empty(sealed_state))
    after = fold(before, new, removed)
    return [DaySet(arrived.day, arrived.epoch, after)] if len(after) > len(before) else []


def _too_late(arrived: DaySet, sealed_state: Keys | None, removed: Keys, outside: Outside) -> list[RejectedRow]:
    """How many users of these arrivals were never counted, under the epoch that the day's own number reads."""
    own_epoch = epoch_of(arrived.day, outside.settings.hash_salt_rotation_days)
    known = unite([_or_empty(sealed_state), _or_empty(outside.late.read(arrived.day, arrived.epoch)), removed])
    new = subtract(arrived.keys, known)
    return [_dropped(arrived, len(new), AFTER_RESTATEMENT)] if len(new) and arrived.epoch == own_epoch else []


def _dropped(arrived: DaySet, users: int, reason: str) -> RejectedRow:
    """A line of the quarantine without a place in a file: the rows were good, and came too late."""
    return RejectedRow(f"day={arrived.day}", 0, f"Dropped: {users} user(s) {reason}.")


def _create_missing(days: list[date], outside: Outside) -> None:
    promised = outside.ledger.sealed() | outside.ledger.processed()
    missing = [(day, epoch) for day in days for epoch in epochs_of(day, outside.settings)
               if outside.activity.digest(day, epoch) is None]  # fmt: skip
    lost = sorted({day for day, _ in missing if day in promised})
    if lost:
        raise Refused(
            f"The state of {len(lost)} processed day(s), the first {lost[0]}, is gone.",
            "Restore the data directory and the ledger from the same backup; a day is never rebuilt from nothing.",
        )
    outside.activity.replace(DaySet(day, epoch, EMPTY) for day, epoch in missing)


def _or_empty(keys: Keys | None) -> Keys:
    return EMPTY if keys is None else keys
