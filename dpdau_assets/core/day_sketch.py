"""The sketch of each day under each of its epochs, built from state and rebuilt when the state has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date

from dpdau_assets.core.activity import epochs_of, keyed_version, require_digest, require_kept
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import Keys
from dpdau_assets.core.keysets import EMPTY, subtract
from dpdau_assets.core.planning import widest_counting
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.sketches import build
from dpdau_assets.core.sketches.base import Counting, Header, Sketch, to_bytes
from dpdau_assets.core.threads import work_ahead


def refresh(days: Iterable[date], outside: Outside, counting: Counting | None = None) -> None:
    """Build what is missing, stale or cannot be counted so; without a `counting`, what the next numbers will count.

    Raises Refused for a day that was not processed, whoever was active on it.
    """
    days = list(days)
    require_kept(days, outside)
    unprocessed = sorted(set(days) - outside.ledger.processed())
    if unprocessed:
        raise Refused(f"There is no state for {unprocessed[0]}.", f"Materialise `activity` for {unprocessed[0]}.")
    wanted = [(day, epoch) for day in days for epoch in epochs_of(day, outside.settings)]
    countings = _countings(days, counting, outside)
    with outside.activity.lock():  # or a sketch of the state before a removal could be put where it was dropped
        outside.sketches.replace(_stale(wanted, countings, outside))


def build_sketch(day: date, outside: Outside) -> None:
    """Bring the day's sketches up to its state, and note that the day was rebuilt for the erasures that touched it.

    Not if some that are marked by now are not applied yet: never to claim more than was done.
    """
    with outside.activity.lock():
        refresh([day], outside)
        mark = outside.rebuilds.wanted(day)
        if mark and outside.erasures.applied() >= outside.rebuilds.marked():
            outside.rebuilds.mark_built(day, mark)


def read_fresh(day: date, epoch: int, counting: Counting, outside: Outside) -> Sketch:
    """What is counted of the day's sketch, built from the state as it is now; a damaged one is built again.

    The caller holds the state's lock. Raises Refused for a day without state.
    """
    try:
        sketch = outside.sketches.read(day, epoch)
    except BadInput:
        sketch = None
    if sketch is None or not _serves(sketch.header, counting, require_digest(day, epoch, outside)):
        sketch = _build(day, epoch, _countings([day], counting, outside)[day], outside)
        outside.sketches.replace([(day, sketch)])
    return counting.narrowed(sketch)


def read_without(day: date, epoch: int, gone: Keys, counting: Counting, outside: Outside) -> Sketch:
    """The same as if these users had never been active. The caller holds the state's lock."""
    left = read_fresh(day, epoch, counting, outside).without(gone)
    if left is not None:
        return left
    kept = subtract(_state(day, epoch, outside), gone)
    return build(counting.header(epoch, "held out"), kept)


def read_late(day: date, epoch: int, counting: Counting, outside: Outside) -> Sketch:
    """A sketch of the users who came after the day was sealed, to be united with the day's own.

    The caller holds the state's lock.
    """
    keys = outside.late.read(day, epoch)
    return build(counting.header(epoch, "late"), EMPTY if keys is None else keys)


def is_of_its_state(sketch: Sketch, day: date, outside: Outside) -> bool:
    """Whether the sketch is, to the byte, what the day's state gives: then it holds nobody whom that does not."""
    epoch = sketch.header.epoch
    source = require_digest(day, epoch, outside)
    again = build(replace(sketch.header, source=source), _state(day, epoch, outside))
    return b"".join(to_bytes(again)) == b"".join(to_bytes(sketch))


def sketch_version(day: date, outside: Outside) -> str:
    """The data version of the day's sketches: keyed, and the same for the same users, kind and parameters."""
    found = [outside.sketches.header(day, epoch) for epoch in epochs_of(day, outside.settings)]
    shapes = sorted({f"{header.kind} {header.parameters or ''}".strip() for header in found if header})
    return keyed_version(f"day_sketch {'/'.join(shapes)}", day, outside)


def _countings(days: list[date], counting: Counting | None, outside: Outside) -> dict[date, Counting]:
    """How each day's sketches are to be counted: one that serves both metrics, as far as one can."""
    with outside.ledger.transaction() as books:
        return {day: widest_counting(day, counting, books, outside.settings) for day in days}


def _stale(
    wanted: list[tuple[date, int]], countings: Mapping[date, Counting], outside: Outside
) -> Iterator[tuple[date, Sketch]]:
    stale = (
        (day, epoch) for day, epoch in wanted
        if not _serves(_header(day, epoch, outside), countings[day], require_digest(day, epoch, outside))
    )  # fmt: skip
    yield from work_ahead(lambda place: (place[0], _build(*place, countings[place[0]], outside)), stale)


def _build(day: date, epoch: int, counting: Counting, outside: Outside) -> Sketch:
    source = require_digest(day, epoch, outside)
    return build(counting.header(epoch, source), _state(day, epoch, outside))


def _state(day: date, epoch: int, outside: Outside) -> Keys:
    keys = outside.activity.read(day, epoch)
    assert keys is not None, "a file with a digest has keys"
    return keys


def _header(day: date, epoch: int, outside: Outside) -> Header | None:
    """None for a damaged one too: it is rebuilt like a missing one."""
    try:
        return outside.sketches.header(day, epoch)
    except BadInput:
        return None


def _serves(header: Header | None, counting: Counting, source: str) -> bool:
    return header is not None and header.source == source and counting.reads(header)
