"""Decisions against a rule of the ledger: only ever added, with who and why, and shown in every later report."""

from __future__ import annotations

from datetime import date
from fractions import Fraction

from dpdau_assets.core.budget.settings_check import LARGEST_EPSILON, LEAST_EPSILON
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import Override
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Clock, Store
from dpdau_assets.core.privacy.accounting import (
    Budget,
    Cost,
    cost,
    epsilon_of,
    fits,
    total,
)
from dpdau_assets.core.privacy.mechanisms import Stream
from dpdau_assets.core.settings import Metric, Settings


def reset_budget(metric: Metric, month: date, epsilon: Fraction, who: str, why: str, store: Store) -> Override:
    """Give one month of one metric another cap; what it was charged stays charged.

    It opens a month that a restore has closed, where new numbers are then charged on top of those that may be lost.
    Raises BadInput for a cap that protects nobody or admits nothing, a month before START_DATE, or a missing name or
    reason, and Refused for one below what the month was charged or the MAU stream will charge it.
    """
    if not LEAST_EPSILON <= epsilon <= LARGEST_EPSILON:
        raise BadInput(
            f"{str(epsilon)[:20]} is no cap.", f"Give an epsilon of {float(LEAST_EPSILON):g} to {LARGEST_EPSILON}."
        )
    if month < month_of(store.settings.start_date):
        raise BadInput(f"{month:%Y-%m} lies before START_DATE and has no budget.", "Name a later month.")
    override = Override("cap", *_signed(who, why), store.clock.today(), metric, month_of(month), epsilon)
    _require_enough(override, store.settings, store.accountant)
    store.accountant.override(override)
    return override


def _require_enough(override: Override, settings: Settings, accountant: Ledger) -> None:
    """A month that was charged more would never hold again; a stream that could not be charged would never go on."""
    assert override.metric and override.month and override.epsilon
    price = total(cost(charge.mechanism) for charge in accountant.charges(override.metric, override.month))
    streams = [run.mechanism for run in accountant.mechanism_runs() if run.metric == override.metric]
    if streams and isinstance(streams[-1], Stream) and price == Cost():
        price = cost(streams[-1])
    delta = accountant.delta(override.metric, override.month) or settings.delta
    if not fits(price, Budget(override.epsilon, delta)):
        raise Refused(
            f"{override.metric} of {override.month:%Y-%m} is charged epsilon {epsilon_of(price, delta):.4g}, which a "
            f"cap of {float(override.epsilon):g} does not hold.",
            "Nothing that is spent can be given back; give a larger cap.",
        )


def declare_erasures_submitted(who: str, why: str, clock: Clock, accountant: Ledger) -> Override:
    """After a restore: every erasure request since the backup was handed in again, so publication may go on."""
    override = Override("erasures_submitted", *_signed(who, why), clock.today())
    accountant.override(override)
    return override


def _signed(who: str, why: str) -> tuple[str, str]:
    if not who.strip() or not why.strip():
        raise BadInput("An override needs a name and a reason.", "Say who decided it, and why: both stay on record.")
    return who.strip(), why.strip()
