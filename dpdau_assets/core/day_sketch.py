"""The sketch of each day under each of its epochs, built from state and rebuilt when the state has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

from dpdau_assets.core.activity import epochs_of, require_digest
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.identity import content_version
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.sketches import KINDS
from dpdau_assets.core.sketches.base import Header, Sketch
from dpdau_assets.core.windows import epoch_of


def refresh(days: Iterable[date], outside: Outside) -> None:
    """Build what is missing or stale. Raises Refused for a day without state."""
    wanted = [(day, epoch) for day in days for epoch in epochs_of(day, outside.settings)]
    outside.sketches.replace(_stale(wanted, outside))


def read_fresh(day: date, epoch: int, outside: Outside) -> Sketch:
    """The day's sketch, which was built from the state as it is now. Raises Refused for one that was not."""
    sketch = outside.sketches.read(day, epoch)
    if sketch is None or not _is_of(sketch.header, require_digest(day, epoch, outside), outside):
        raise Refused(f"The sketch of {day} is missing or stale.", f"Materialise `day_sketch` for {day}.")
    return sketch


def sketch_version(day: date, outside: Outside) -> str:
    """The data version of the day's sketches: keyed, and the same for the same users and kind."""
    sources = [require_digest(day, epoch, outside) for epoch in epochs_of(day, outside.settings)]
    own_epoch = epoch_of(day, outside.settings.hash_salt_rotation_days)
    key = outside.salts.epoch_keys([own_epoch])[own_epoch]
    return content_version(key, f"day_sketch {outside.settings.sketch_impl} {day}", "/".join(sources).encode())


def _stale(wanted: list[tuple[date, int]], outside: Outside) -> Iterator[tuple[date, Sketch]]:
    kind = KINDS[outside.settings.sketch_impl]
    for day, epoch in wanted:
        source = require_digest(day, epoch, outside)
        if not _is_of(_header(day, epoch, outside), source, outside):
            keys = outside.activity.read(day, epoch)
            assert keys is not None, "a file with a digest has keys"
            yield day, kind.build(keys, epoch, source)


def _header(day: date, epoch: int, outside: Outside) -> Header | None:
    """None for a damaged one too: it is rebuilt like a missing one."""
    try:
        return outside.sketches.header(day, epoch)
    except BadInput:
        return None


def _is_of(header: Header | None, source: str, outside: Outside) -> bool:
    return header is not None and header.source == source and header.kind == outside.settings.sketch_impl
