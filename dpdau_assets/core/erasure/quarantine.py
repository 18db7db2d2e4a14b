"""How long the quarantine keeps what it holds: QUARANTINE_DAYS. Whom a request names goes at once (`requests`)."""

from __future__ import annotations

from datetime import timedelta

from dpdau_assets.core.ports.store import Store


def expire(store: Store) -> None:
    """Let go of what was put there more than QUARANTINE_DAYS ago."""
    store.events.quarantine.expire(store.clock.today() - timedelta(days=store.settings.quarantine_days))
