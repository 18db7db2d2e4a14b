"""The sketch of each day under each of its epochs, built from state and rebuilt when the state has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

from dpdau_assets.core.activity import epochs_of, keyed_version, require_digest, require_kept
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.keysets import EMPTY
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.sketches import KINDS
from dpdau_assets.core.sketches.base import Header, Sketch
from dpdau_assets.core.threads import work_ahead


def refresh(days: Iterable[date], outside: Outside) -> None:
    """Build what is missing or stale. Raises Refused for a day that was not processed, whoever was active on it."""
    days = list(days)
    require_kept(days, outside)
    unprocessed = sorted(set(days) - outside.ledger.processed())
    if unprocessed:
        raise Refused(f"There is no state for {unprocessed[0]}.", f"Materialise `activity` for {unprocessed[0]}.")
    wanted = [(day, epoch) for day in days for epoch in epochs_of(day, outside.settings)]
    with outside.activity.lock():  # or a sketch of the state before a removal could be put where it was dropped
        outside.sketches.replace(_stale(wanted, outside))


def build_sketch(day: date, outside: Outside) -> None:
    """Bring the day's sketches up to its state, and note that the day was rebuilt for the erasures that touched it.

    Not if some that are marked by now are not applied yet: never to claim more than was done.
    """
    with outside.activity.lock():
        refresh([day], outside)
        mark = outside.rebuilds.wanted(day)
        if mark and outside.erasures.applied() >= outside.rebuilds.marked():
            outside.rebuilds.mark_built(day, mark)


def read_fresh(day: date, epoch: int, outside: Outside) -> Sketch:
    """The day's sketch, built from the state as it is now; a damaged one is built again.

    The caller holds the state's lock. Raises Refused for a day without state.
    """
    try:
        sketch = outside.sketches.read(day, epoch)
    except BadInput:
        sketch = None
    if sketch is None or not _is_of(sketch.header, require_digest(day, epoch, outside), outside):
        sketch = _build(day, epoch, outside)
        outside.sketches.replace([(day, sketch)])
    return sketch


def read_late(day: date, epoch: int, outside: Outside) -> Sketch:
    """A sketch of the users who came after the day was sealed. The caller holds the state's lock."""
    keys = outside.late.read(day, epoch)
    return KINDS[outside.settings.sketch_impl].build(EMPTY if keys is None else keys, epoch, "late")


def sketch_version(day: date, outside: Outside) -> str:
    """The data version of the day's sketches: keyed, and the same for the same users and kind."""
    return keyed_version(f"day_sketch {outside.settings.sketch_impl}", day, outside)


def _stale(wanted: list[tuple[date, int]], outside: Outside) -> Iterator[tuple[date, Sketch]]:
    stale = (
        place for place in wanted if not _is_of(_header(*place, outside), require_digest(*place, outside), outside)
    )
    yield from work_ahead(lambda place: (place[0], _build(*place, outside)), stale)


def _build(day: date, epoch: int, outside: Outside) -> Sketch:
    source = require_digest(day, epoch, outside)
    keys = outside.activity.read(day, epoch)
    assert keys is not None, "a file with a digest has keys"
    return KINDS[outside.settings.sketch_impl].build(keys, epoch, source)


def _header(day: date, epoch: int, outside: Outside) -> Header | None:
    """None for a damaged one too: it is rebuilt like a missing one."""
    try:
        return outside.sketches.header(day, epoch)
    except BadInput:
        return None


def _is_of(header: Header | None, source: str, outside: Outside) -> bool:
    return header is not None and header.source == source and header.kind == outside.settings.sketch_impl
