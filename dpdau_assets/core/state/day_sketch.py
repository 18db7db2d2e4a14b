"""The sketch of each day under each of its epochs, built from state and rebuilt when the state has changed.

Owns the rule: A sketch is of the state beside it, or not there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date

from dpdau_assets.core.budget.planning import widest_estimator
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.errors import BadInput, ParameterNotSet, Refused
from dpdau_assets.core.facts import Keys, Partition
from dpdau_assets.core.parallel import work_ahead
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.ports.store import State, Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches import build
from dpdau_assets.core.sketches.base import Estimator, Header, Sketch, to_bytes
from dpdau_assets.core.sketches.keysets import EMPTY, subtract
from dpdau_assets.core.state.activity import epochs_of, require_digest, require_kept, version_of_state


def refresh(days: Iterable[date], store: Store, estimator: Estimator | None = None) -> None:
    """Build what is missing or not as it should be: of the state as it is, in the shape that numbers are counted by.

    That is `estimator`, if one is given, and as far as one sketch can what the next numbers count by. Raises Refused
    for a day that was not processed, whoever was active on it, and ParameterNotSet when nothing says how to count.
    """
    days = list(days)
    with store.accountant.snapshot() as ledger:
        require_kept(days, ledger)
        unprocessed = sorted(set(days) - ledger.processed())
        if unprocessed:
            raise Refused(f"There is no state for {unprocessed[0]}.", f"Materialise `activity` for {unprocessed[0]}.")
        shapes = _shapes(days, estimator, store.settings, ledger)
    wanted = [(day, epoch) for day in days for epoch in epochs_of(day, store.settings)]
    with store.state.activity.lock():  # or a sketch of the state before a removal could be put where it was dropped
        store.state.sketches.replace(_rebuilt(wanted, shapes, store.state))


def refresh_all(store: Store, *, missing_only: bool = False) -> None:
    """Build the sketches of all state of days that were asked for, or just those that are not there, as far as it goes.

    So neither the shape of a sketch nor its being there tells from which days somebody was erased; and where nothing
    says how to count, or nobody has asked for the day, none is kept. What cannot be read is left as it is, for the
    inspection to name. The caller holds the state's lock.
    """
    processed = store.accountant.processed()
    built = store.state.sketches.stored()
    wanted = _living_state(processed, store)
    shapes = _shapes_if_set({day for day, _ in wanted}, store)
    if shapes is None:
        processed, wanted, shapes = frozenset(), [], {}
    _discard_but_of(processed, built, store.state)
    if missing_only:
        wanted = sorted(set(wanted) - set(built))
    for place in wanted:
        with suppress(Refused):
            store.state.sketches.replace(_rebuilt([place], shapes, store.state))


def _living_state(processed: Container[date], store: Store) -> list[tuple[date, int]]:
    """Each (day, epoch) that has state, of days that were asked for and are not past retention; sorted."""
    gone = store.accountant.purged_through() or date.min
    return [(day, epoch) for day, epoch in store.state.activity.stored() if gone < day and day in processed]


def _shapes_if_set(days: Iterable[date], store: Store) -> dict[date, Estimator] | None:
    """What each day's sketches are built for; None where nothing says how to count."""
    try:
        return _shapes(sorted(days), None, store.settings, store.accountant)
    except ParameterNotSet:
        return None


def _discard_but_of(days: Container[date], built: Iterable[tuple[date, int]], state: State) -> None:
    for day, epoch in built:
        if day not in days:
            state.sketches.discard(day, epoch)


def of_another_state(state: State) -> list[Partition]:
    """Sketches that are not of the state beside them: older ones that were put back. The caller holds the lock."""
    return [Partition("sketches", *place) for place in state.sketches.stored() if not _is_of_its_state(*place, state)]


def _is_of_its_state(day: date, epoch: int, state: State) -> bool:
    header = _header(day, epoch, state)
    try:
        return header is not None and header.source == state.activity.digest(day, epoch)
    except Refused:  # of a file that lacks events; that is named itself
        return True


def build_sketch(day: date, store: Store) -> None:
    """Bring the day's sketches up to its state, and note that the day was rebuilt for the erasures that touched it.

    Not if some that are marked by now are not applied yet: never to claim more than was done.
    """
    with store.state.activity.lock():
        refresh([day], store)
        mark = store.state.rebuilds.wanted(day)
        if mark and store.erasures.ledger.applied() >= store.state.rebuilds.marked():
            store.state.rebuilds.mark_built(day, mark)


def read_fresh(day: date, epoch: int, estimator: Estimator, store: Store) -> Sketch:
    """What is counted of the day's sketch, built from the state as it is now; a damaged one is built again.

    The caller holds the state's lock. Raises Refused for a day without state.
    """
    try:
        sketch = store.state.sketches.read(day, epoch)
    except BadInput:
        sketch = None
    digest = require_digest(day, epoch, store.state)
    if sketch is None or sketch.header.source != digest or not estimator.reads(sketch.header):
        sketch = _build(day, epoch, _shapes([day], estimator, store.settings, store.accountant)[day], store.state)
        store.state.sketches.replace([(day, sketch)])
    return estimator.narrowed(sketch)


def read_without(day: date, epoch: int, gone: Keys, estimator: Estimator, store: Store) -> Sketch:
    """A day's sketch as if these users had never been active. The caller holds the state's lock."""
    left = read_fresh(day, epoch, estimator, store).without(gone)
    if left is not None:
        return left
    kept = subtract(_state(day, epoch, store.state), gone)
    return build(estimator.header(epoch, "excluded"), kept)


def read_late(day: date, epoch: int, estimator: Estimator, state: State) -> Sketch:
    """A sketch of the users who came after the day was sealed, to be united with the day's own.

    The caller holds the state's lock.
    """
    keys = state.late.read(day, epoch)
    return build(estimator.header(epoch, "late"), EMPTY if keys is None else keys)


def traces_in(sketch: Sketch, day: date, wanted: Keys, state: State) -> Keys:
    """Which of these keys (sorted, distinct) the day's sketch may know something of that its state does not.

    All, if it is not of the state as it is: its header alone tells of the state that it is of. None, if it is to the
    byte what the state gives.
    """
    epoch = sketch.header.epoch
    if sketch.header.source != require_digest(day, epoch, state):
        return wanted
    left = sketch.traces(wanted)
    if not len(left):
        return left
    again = build(sketch.header, _state(day, epoch, state))
    return left if b"".join(to_bytes(again)) != b"".join(to_bytes(sketch)) else EMPTY


def is_fresh(day: date, store: Store) -> bool:
    """Whether each of the day's sketches is there, and is of the state beside it by what its header says of itself."""
    with store.state.activity.lock():
        return all(_is_of_its_state(day, epoch, store.state) for epoch in epochs_of(day, store.settings))


def sketch_version(day: date, store: Store) -> str:
    """The data version of the day's sketches: keyed, and the same for the same users, kind and parameters."""
    headers = [store.state.sketches.header(day, epoch) for epoch in epochs_of(day, store.settings)]
    shapes = sorted({f"{header.kind} {header.parameters or ''}".strip() for header in headers if header})
    return version_of_state(f"day_sketch {'/'.join(shapes)}", day, store.settings, store.state)


def _shapes(
    days: list[date], estimator: Estimator | None, settings: Settings, accountant: LedgerView
) -> dict[date, Estimator]:
    """What each day's sketches are to be built for: to serve both metrics, as far as one sketch can."""
    if estimator is not None and not estimator.samples:
        return dict.fromkeys(days, estimator)
    with accountant.snapshot() as ledger:
        months = {
            month: widest_estimator(month, estimator, ledger, settings) for month in {month_of(day) for day in days}
        }
    return {day: months[month_of(day)] for day in days}


def _rebuilt(
    wanted: list[tuple[date, int]], shapes: Mapping[date, Estimator], state: State
) -> Iterator[tuple[date, Sketch]]:
    other = (
        (day, epoch)
        for day, epoch in wanted
        if _header(day, epoch, state) != shapes[day].header(epoch, require_digest(day, epoch, state))
    )
    yield from work_ahead(lambda place: (place[0], _build(*place, shapes[place[0]], state)), other)


def _build(day: date, epoch: int, estimator: Estimator, state: State) -> Sketch:
    source = require_digest(day, epoch, state)
    return build(estimator.header(epoch, source), _state(day, epoch, state))


def _state(day: date, epoch: int, state: State) -> Keys:
    keys = state.activity.read(day, epoch)
    assert keys is not None, "a file with a digest has keys"
    return keys


def _header(day: date, epoch: int, state: State) -> Header | None:
    """The header of the stored sketch; None for a damaged one too, which is rebuilt like a missing one."""
    try:
        return state.sketches.header(day, epoch)
    except BadInput:
        return None
