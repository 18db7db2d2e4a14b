"""What is asked of a number or a restatement before any day is sealed for it."""

from __future__ import annotations

from datetime import date, timedelta

from dpdau_assets.core.budget.planning import Plan, plan, restatement_due
from dpdau_assets.core.budget.within_budget import next_day_that_fits
from dpdau_assets.core.dates import first_window_end, window
from dpdau_assets.core.errors import BudgetRefused, Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.ledger import BudgetReader, LedgerView
from dpdau_assets.core.ports.store import Clock
from dpdau_assets.core.privacy.schedule import due_on
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.activity import require_ended, require_kept


def require_readable(key: ReleaseKey, ledger: LedgerView, settings: Settings, clock: Clock) -> None:
    """Raise Refused for a number that reads a day which has not ended, or is not there to be read."""
    earliest = first_window_end(settings.start_date, key.window_days)
    if key.day < earliest:
        raise Refused(f"{key.metric} of {key.day} would read days before START_DATE.", f"Ask from {earliest} on.")
    require_ended(key.day, clock)
    require_kept(window(key.day, key.window_days), ledger)
    unprocessed = sorted(set(window(key.day, key.window_days)) - ledger.processed())
    if unprocessed:
        missing = f"There is no state for {unprocessed[0]}" + (" and later days" if len(unprocessed) > 1 else "")
        raise Refused(f"{missing}, which {key.metric} of {key.day} reads.", "Materialise `activity` for it.")


def require_admitted(key: ReleaseKey, ledger: BudgetReader, settings: Settings) -> Plan:
    """The plan of the number. Raises Refused, naming the next day that fits where the budget refuses this one."""
    try:
        return plan(key, ledger, settings)
    except BudgetRefused as refused:
        following = None if "next_day" in refused.fields else next_day_that_fits(key, ledger, settings)
        raise (refused.saying(next_day=following.isoformat()) if following else refused) from None


def require_restatable(month: date, settings: Settings, accountant: LedgerView) -> None:
    """Raise Refused for a month that has no numbers yet, that is never restated, or whose day has not come."""
    due = restatement_due(month, accountant.mechanism_runs(), settings)
    last = max((release.key.day for release in accountant.releases("dau")), default=date.min)
    if due is None:
        raise Refused(
            f"No number of DAU is published for {month:%Y-%m}, or none is to be restated.", "See `dpdau dau`."
        )
    if due_on(settings, last) < due:
        ready = due - timedelta(days=1 + settings.grace_days)
        raise Refused(
            f"{month:%Y-%m} is restated on {due}, and publication has come to {last} only.",
            f"Publish DAU up to {ready} first.",
            month=f"{month:%Y-%m}",
            due=due.isoformat(),
        )
