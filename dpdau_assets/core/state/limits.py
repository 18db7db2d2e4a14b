"""Which days events may have: none before them and none after them is ever kept."""

from __future__ import annotations

from datetime import date, timedelta

from dpdau_assets.core.ports.store import Clock, Store


def first_day(outside: Store) -> date:
    """START_DATE, or the first day that is not past retention."""
    gone = outside.accountant.purged_through()
    return outside.settings.start_date if gone is None else max(outside.settings.start_date, gone + timedelta(days=1))


def last_day(clock: Clock) -> date:
    """Tomorrow, since somewhere it has begun."""
    return clock.today() + timedelta(days=1)
