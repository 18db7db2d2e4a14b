"""Which days have to be built anew, and building them all at once: what arrived is folded in one pass.

Dagster is told afterwards, day by day, under the data versions that are returned here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from dpdau_assets.core.ports.store import State, Store, StoreView
from dpdau_assets.core.state.activity import clean_days, day_version, process_days
from dpdau_assets.core.state.day_sketch import is_fresh, refresh, sketch_version
from dpdau_assets.core.state.touched import days_to_rebuild

MARK = "mark"


@dataclass(frozen=True)
class Built:
    """A day that was built: what Dagster is to be told, and what for.

    Attributes:
        mark: of the erasures that touched the day, as it was before anything was applied.
        change: name of the last change by arrivals that the state has, None if Dagster knows them all.
    """

    day: date
    mark: int
    change: str | None
    state_version: str
    sketch_version: str
    is_clean: bool
    sketch_is_fresh: bool


def days_behind(store: StoreView) -> dict[date, list[str]]:
    """Days that are to be built, each with names for what it is to be built for: marks, arrivals, declarations.

    A day that nobody has asked for is none of them, whoever was active on it: built, it could be published, and
    whether it can must not depend on that. A declaration asks for its day, and so does whoever builds it by hand.
    """
    processed, complete = store.accountant.processed(), frozenset(store.events.completions.completed())
    gone, today = store.accountant.purged_through() or date.min, store.clock.today()
    reasons = [
        *((day, f"{MARK} {mark}") for day, mark in days_to_rebuild(store)),
        *((day, f"change {change}") for day, change in store.state.rebuilds.changed().items()),
        *((day, "declared") for day in complete - processed),
        *((day, "waiting") for day in store.events.inbox.days() | store.events.log.days()),
    ]
    behind: dict[date, list[str]] = {}
    for day, reason in sorted(reasons):
        if day in processed | complete and gone < day < today:
            behind.setdefault(day, []).append(reason)
    return behind


def build_days(marks: Mapping[date, int], store: Store) -> list[Built]:
    """Fold everything, build these days and their sketches, and say under which versions, in order of days.

    Their marks were read before: so nothing is claimed that was not applied.
    """
    wanted = sorted(marks)
    with store.state.activity.lock():  # what each file was last written as is then looked up once
        process_days(wanted, store)
        refresh(wanted, store)
        changes, clean = store.state.rebuilds.changed(), clean_days(wanted, store)
        return [
            Built(
                day,
                marks[day],
                changes.get(day),
                day_version(day, store),
                sketch_version(day, store),
                day in clean,
                is_fresh(day, store),
            )
            for day in wanted
        ]


def mark_reported(built: Iterable[Built], state: State) -> None:
    """Dagster was told of these days."""
    built = list(built)
    state.rebuilds.mark_reported({day_built.day: day_built.change for day_built in built if day_built.change})
    for day_built in built:
        if day_built.mark:
            state.rebuilds.mark_built(day_built.day, day_built.mark)
