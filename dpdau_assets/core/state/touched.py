"""Which days erasures touch, and which of them wait to be rebuilt: marks are what Dagster is told, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.parallel import work_ahead
from dpdau_assets.core.ports.state import StateStore
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.sketches.keysets import places


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
