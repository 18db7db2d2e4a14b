"""How long is kept what is remembered of what came in.

The quarantine for QUARANTINE_DAYS; whom a request names goes from it at once (`requests`). What the HTTP API remembers
of a day's requests until the end of the next day.
"""

from __future__ import annotations

from datetime import timedelta

from dpdau_assets.core.ports.store import Store


def expire(store: Store) -> None:
    """Let go of what was put into the quarantine more than QUARANTINE_DAYS ago, and of requests before yesterday's."""
    today = store.clock.today()
    store.events.quarantine.expire(today - timedelta(days=store.settings.quarantine_days))
    store.state.files.expire_requests(today - timedelta(days=1))
