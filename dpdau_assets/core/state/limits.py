"""Which days events may have: none before them and none after them is ever kept."""

from __future__ import annotations

from datetime import date, timedelta

from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Clock
from dpdau_assets.core.settings import Settings


def first_day(settings: Settings, accountant: Ledger) -> date:
    """START_DATE, or the first day that is not past retention."""
    gone = accountant.purged_through()
    return settings.start_date if gone is None else max(settings.start_date, gone + timedelta(days=1))


def last_day(clock: Clock) -> date:
    """Tomorrow, since somewhere it has begun."""
    return clock.today() + timedelta(days=1)
