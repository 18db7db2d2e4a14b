"""How what came enters its day, and what becomes of events that come late.

An open day gains its users. Those of a sealed day, which a release has read, are late: kept apart, out of every MAU,
and counted in DAU from the restatement on. After that, and for a day past retention, they are dropped, and the
quarantine says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache, partial

from dpdau_assets.core.dates import epoch_of, month_of
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import DaySet, Keys, RejectedRow
from dpdau_assets.core.ports.store import State, Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches.keysets import EMPTY, subtract, unite

PAST_RETENTION = "came for a day that is past retention"
AFTER_RESTATEMENT = "came after the month of their day was restated"


def fold(before: Keys, arrived: Keys, removed: Keys) -> Keys:
    """The two-phase set: what was there or came, less what was ever removed."""
    return subtract(unite([before, arrived]), removed)


def fold_inbox(store: Store) -> None:
    """Fold every batch that waits into state, and let go of it. The caller holds the lock, and has applied removals.

    What the write-ahead log has acknowledged comes first into the inbox, so that no number misses it. A batch that
    holds events of a day whose files cannot be read waits on, for that day's sake.
    """
    store.events.log.seal()
    batches = store.events.inbox.batches()
    if not batches:
        return
    late: list[DaySet] = []
    dropped: list[RejectedRow] = []
    changed: set[date] = set()
    broken: set[date] = set()
    known = store.state.rebuilds.changed()
    # Before anything is written: what is cut short stays noted.
    store.state.rebuilds.mark_changed(store.events.inbox.days())
    arrivals = _folded(store.events.inbox.read(batches), late, dropped, broken, store)
    store.state.activity.replace(dropping_sketches(_noting(arrivals, changed), store))
    store.state.late.replace(late)
    store.events.quarantine.keep(dropped)
    noted = store.state.rebuilds.changed()
    nothing_new = noted.keys() - known.keys() - changed
    store.state.rebuilds.mark_reported({day: noted[day] for day in nothing_new})
    waiting = store.events.inbox.holding(broken) if broken else []
    store.events.inbox.discard([batch for batch in batches if batch not in waiting])


def _noting(sets: Iterable[DaySet], changed: set[date]) -> Iterator[DaySet]:
    for day_set in sets:
        changed.add(day_set.day)
        yield day_set


def _folded(
    arrivals: Iterable[DaySet], late: list[DaySet], dropped: list[RejectedRow], broken: set[date], store: Store
) -> Iterator[DaySet]:
    """The new state of every open day that gained a user, or had no state yet: then an empty one too.

    What came for sealed days is put into `late`.

    A day whose files cannot be read is put into `broken`: what came for it waits until they can, and holds up no other.

    What came for a day past retention, or for a restated month, is noted in `dropped`: no number can hold it.
    """
    sealed, restated = store.accountant.sealed(), store.accountant.restated()
    gone = store.accountant.purged_through() or date.min
    tombstones = cache(partial(store.erasures.ledger.tombstones, through=store.erasures.ledger.applied()))
    for arrived in arrivals:
        day, epoch = arrived.day, arrived.epoch
        if day <= gone:
            dropped.append(_dropped(arrived, PAST_RETENTION))
            continue
        removed = tombstones(epoch).removed_on(day)
        try:
            before = store.state.activity.read(day, epoch)
            store.state.late.digest(day, epoch)  # raises Refused for a late file that cannot be read
        except Refused:
            broken.add(day)
            continue
        if day in sealed and month_of(day) in restated:
            dropped += _after_restatement(arrived, before, removed, store.settings, store.state)
        elif day in sealed:
            late.extend(_late_set(arrived, before, removed, store.state))
        elif len(after := fold(_or_empty(before), arrived.keys, removed)) > len(_or_empty(before)) or before is None:
            yield DaySet(day, epoch, after)


def _late_set(arrived: DaySet, sealed_state: Keys | None, removed: Keys, state: State) -> list[DaySet]:
    """The day's late set with these arrivals, if they change it: users that the sealed state does not have."""
    before = _or_empty(state.late.read(arrived.day, arrived.epoch))
    new = subtract(arrived.keys, _or_empty(sealed_state))
    after = fold(before, new, removed)
    return [DaySet(arrived.day, arrived.epoch, after)] if len(after) > len(before) else []


def _after_restatement(
    arrived: DaySet, sealed_state: Keys | None, removed: Keys, settings: Settings, state: State
) -> list[RejectedRow]:
    """A rejected row if some users of these arrivals were never counted, by the epoch that the day's number reads."""
    own_epoch = epoch_of(arrived.day, settings.hash_salt_rotation_days)
    known = unite([_or_empty(sealed_state), _or_empty(state.late.read(arrived.day, arrived.epoch)), removed])
    new = subtract(arrived.keys, known)
    return [_dropped(arrived, AFTER_RESTATEMENT)] if len(new) and arrived.epoch == own_epoch else []


def _dropped(arrived: DaySet, reason: str) -> RejectedRow:
    """A line of the quarantine without a place in a file: the rows were good, and came too late.

    It does not say of how many: where it was one, that would be somebody.
    """
    return RejectedRow(f"day={arrived.day}", 0, f"Dropped: some users {reason}.")


def dropping_sketches(sets: Iterable[DaySet], store: Store) -> Iterator[DaySet]:
    """Each set once the sketch of what it replaces is gone: a sketch is of its state, or not there to be built."""
    for day_set in sets:
        store.state.sketches.discard(day_set.day, day_set.epoch)
        yield day_set


def _or_empty(keys: Keys | None) -> Keys:
    return EMPTY if keys is None else keys
