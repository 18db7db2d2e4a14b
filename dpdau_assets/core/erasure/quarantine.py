"""What the quarantine must not keep: raw ids of people who are erased, and anything for longer than it has to."""

from __future__ import annotations

from datetime import timedelta

from dpdau_assets.core.ports.store import Store


def expire(outside: Store) -> None:
    """Let go of what was put there more than QUARANTINE_DAYS ago."""
    outside.events.quarantine.expire(outside.clock.today() - timedelta(days=outside.settings.quarantine_days))
