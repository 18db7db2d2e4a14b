"""What a worker of the API does with one request, without HTTP: sort out, key, append to a segment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.arrivals import Keying, sorted_out
from resources.storage.write_ahead_log import FOLDER, Segment


def acknowledge(store: Store, people: Iterable[tuple[str, date]], segment: Segment | None = None) -> Segment:
    """Make events of these people and days durable, in this segment or one of their own, which stays open."""
    keying = Keying(store)
    events = [{"user_id": user_id, "day": day.isoformat()} for user_id, day in people]
    segment = segment or Segment(store.settings.data_dir / FOLDER)
    segment.append([keying.arrivals(sorted_out(events, keying.limits), "0123456789abcdef")])
    return segment
