"""Which days erasures touch, and which of them wait to be rebuilt: marks are what Dagster is told, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.parallel import work_ahead
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import StateStore
from dpdau_assets.core.ports.store import Erasures, State, Store, StoreView
from dpdau_assets.core.sketches.keysets import places


def mark_touched(store: Store) -> None:
    """Mark the days that hold anyone whose removal came into force since the last time, and was not applied yet.

    The caller holds the state's lock. Marks are what tells Dagster which days to rebuild, and nothing more; with
    ERASURE_MARK=all every day that has state is marked each time, so that the marks tell nothing.
    """
    watermark, marked = store.erasures.ledger.recorded(), store.state.rebuilds.marked()
    if watermark == marked:
        return
    everything = store.settings.erasure_mark == "all"
    mark(
        live_days(store.state) if everything else touched_days(marked, watermark, store.state, store.erasures),
        watermark,
        store,
    )
    store.state.rebuilds.note_marked(watermark)


def mark(days: Iterable[date], watermark: int, store: Store) -> None:
    """Mark those of these days that were built before and are kept: the others nobody was told of."""
    store.state.rebuilds.mark(_built_before(days, store.accountant), watermark)


def mark_all(store: Store) -> None:
    """Mark every day that was built before and is kept, alike: which days waited, and since when, says nothing then."""
    store.state.rebuilds.mark_alike(
        _built_before(live_days(store.state), store.accountant), store.erasures.ledger.applied()
    )


def _built_before(days: Iterable[date], accountant: Ledger) -> Iterator[date]:
    gone, processed = accountant.purged_through() or date.min, accountant.processed()
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


def pending(store: Store) -> Pending:
    """What the next rebuilds and the next verification have to do. Parked requests wait for a person instead."""
    waiting = store.erasures.ledger.erasures(("received", "applied"))
    return Pending(tuple(days_to_rebuild(store)), tuple(erasure.receipt for erasure in waiting))


def days_to_rebuild(store: StoreView) -> list[tuple[date, int]]:
    """Days behind their mark that were built before and can be built again, with their marks.

    Not those that nobody has asked for yet: building them would make them ready to be published, and whether they are
    must not depend on who was active. Whatever state they have is rewritten all the same when removals are applied.
    """
    gone, processed = store.accountant.purged_through() or date.min, store.accountant.processed()
    can_be_built = {day for day in processed if gone < day < store.clock.today()}
    return [(day, mark) for day, mark in store.state.rebuilds.behind() if day in can_be_built]


def live_days(state: State) -> set[date]:
    """Every day that has state."""
    return {day for store in (state.activity, state.late) for day, _ in store.stored()}


def touched_days(after: int, through: int, state: State, erasures: Erasures) -> set[date]:
    """The days on which someone has state whose removal came into force between these watermarks."""
    return {day for store in (state.activity, state.late) for day in _touched(store, after, through, erasures)}


def _touched(store: StateStore, after: int, through: int, erasures: Erasures) -> Iterator[date]:
    """Days of this store, some of them twice."""
    stored = store.stored()
    epochs = {epoch for _, epoch in stored}
    tombstones = {epoch: erasures.ledger.tombstones(epoch, after=after, through=through) for epoch in epochs}

    def holds_one(place: tuple[date, int]) -> bool:
        removed = tombstones[place[1]].removed_on(place[0])
        try:
            keys = store.read(*place) if len(removed) else None
        except Refused:  # whoever reads it once it can be read applies the removals to it
            return False
        return keys is not None and len(places(keys, removed)) > 0

    touched = work_ahead(holds_one, stored)
    yield from (day for (day, _), is_touched in zip(stored, touched, strict=True) if is_touched)
