"""Erasure requests: how one is taken in, guarded, confirmed and cancelled, and which days it touches.

A request is recorded durably here and applied by whoever comes first: a release, the rebuild of a day,
`apply_and_verify`. Raw ids end here, as they do in `ingest`.

Owns the rule: A removal has its tombstone in every epoch that it reaches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from dpdau_assets.core.budget.sketch_choice import estimators
from dpdau_assets.core.dates import epoch_of
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import EpochKey, Erasure, Removal
from dpdau_assets.core.identity import Named, user_key
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Clock, Erasures, State, Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.limits import first_day
from dpdau_assets.core.tombstones import excluded_until

DEADLINE_DAYS = 30
"""Within how many days of its receipt a request is applied and verified: one month (GDPR, article 12(3))."""


@dataclass(frozen=True)
class Requested:
    """What became of a submission: the receipt of each of its rows, in order, and whether it waits to be confirmed.

    `references` and `passed_over` go with `receipts`: what each row is called, and its days that can hold nothing.
    """

    receipts: tuple[str, ...]
    batches: tuple[str, ...]
    parked: bool
    references: tuple[str | None, ...] = ()
    passed_over: tuple[tuple[date, ...], ...] = ()


NOTHING_REQUESTED = Requested((), (), False)


def request(asked: Sequence[Event], store: Store, *, confirmed: bool = False, already: int = 0) -> Requested:
    """Record these removals durably, all or none, whether anyone knows the people or not.

    More distinct people than the guard lets through at once are parked until they are confirmed. `already` is how many
    others whoever hands these in has asked for today, who count too: posts of one person each are guarded as one file
    is. Asking again for the same is answered with the same receipts. Nobody is refused for a day that can hold nothing:
    it is passed over. Whom the quarantine names is gone from it too, also while the request is parked: only now is the
    id known.
    """
    if not asked:
        return NOTHING_REQUESTED
    too_many = already + len({event.user_id for event in asked}) > guard_limit(store.settings, store.accountant)
    parked = too_many and not confirmed
    removals = keyed(asked, store)
    named = Named((event.user_id for event in asked), store.settings.user_id_normalize)
    store.events.quarantine.forget(named)  # first: who is cut short hands it in again
    receipts = store.erasures.ledger.record(removals, store.clock.today(), parked=parked)
    erasures = store.erasures.ledger.find(receipts)
    return Requested(
        tuple(receipts),
        batches=tuple(dict.fromkeys(erasure.batch for erasure in erasures)),
        parked=any(erasure.state == "parked" for erasure in erasures),
        references=tuple(removal.reference for removal in removals),
        passed_over=tuple(removal.passed_over for removal in removals),
    )


def guard_limit(settings: Settings, accountant: Ledger) -> float:
    """How many people one submission may name: a share of the last published MAU, and one at least.

    Without a published MAU there is nothing to measure by, and no limit. What is asked for counts, not what is found.
    """
    published = accountant.releases("mau")
    if not published:
        return math.inf
    last = max(published, key=lambda release: release.key.day)
    users = estimators(accountant)[last.run].users(last.noisy_value)
    return max(1.0, float(settings.erasure_guard_share) * users)


def confirm(names: Sequence[str], erasures: Erasures) -> list[Erasure]:
    """Bring parked requests into force, by receipt or batch. Raises BadInput for a name that nothing has."""
    erasures_named = named(names, erasures)
    erasures.ledger.confirm([erasure.receipt for erasure in erasures_named])
    return erasures.ledger.find(erasure.receipt for erasure in erasures_named)


def cancel(names: Sequence[str], state: State, erasures: Erasures) -> list[Erasure]:
    """Forget requests, by receipt or batch, until they are applied. Raises Refused, with none forgotten, after that.

    Under the state's lock: a request that is being applied is not one that can be forgotten.
    """
    erasures_named = named(names, erasures)
    with state.activity.lock():
        erasures.ledger.cancel([erasure.receipt for erasure in erasures_named])
    return erasures.ledger.find(erasure.receipt for erasure in erasures_named)


def named(names: Sequence[str], erasures: Erasures) -> list[Erasure]:
    """The requests of these receipts and batches. Raises BadInput for a name that nothing has."""
    erasures_named = erasures.ledger.find(names)
    unknown = sorted(
        set(names) - {erasure.receipt for erasure in erasures_named} - {erasure.batch for erasure in erasures_named}
    )
    if unknown:
        raise BadInput(f"No erasure has the receipt or batch {unknown[0]}.", "`dpdau erasures` lists them.")
    return erasures_named


def deadline(erasure: Erasure) -> date:
    """The last day on which the request may still be unverified."""
    return erasure.received_on + timedelta(days=DEADLINE_DAYS)


def overdue(clock: Clock, erasures: Erasures) -> list[Erasure]:
    """Requests that are past their deadline and not verified, whether they wait for us or to be confirmed."""
    unfinished = erasures.ledger.erasures(("parked", "received", "applied"))
    return [erasure for erasure in unfinished if deadline(erasure) < clock.today()]


# --- Keys --------------------------------------------------------------------------------------------------------


def keyed(asked: Iterable[Event], store: Store) -> list[Removal]:
    """Each removal under every living epoch that it reaches; the salts of all these epochs are made at once.

    One whose last day can hold nothing reaches none.
    """
    asked, first = list(asked), first_day(store.settings, store.accountant)
    reach = {
        day: removal_epochs(day, store.settings, store.state) if day >= first else []
        for day in {event.day for event in asked}
    }
    keys = store.state.salts.epoch_keys({epoch for epochs in reach.values() for epoch in epochs})
    return [_keyed(event, [keys[epoch] for epoch in reach[event.day]], first) for event in asked]


def removal_epochs(through: date, settings: Settings, state: State) -> list[int]:
    """The epochs that need a tombstone: from START_DATE's to that of the last window that excludes the user.

    Those that were shredded by now need none, since whatever was keyed under them is gone; those that were lost in a
    restore can have none.
    """
    shredded, lost = state.salts.shredded_through(), state.salts.lost()
    wanted = epochs_reached(through, settings)
    return [epoch for epoch in wanted if epoch not in lost and (shredded is None or epoch > shredded)]


def epochs_reached(through: date, settings: Settings) -> range:
    """From START_DATE's epoch to that of the last window that excludes the user."""
    rotation = settings.hash_salt_rotation_days
    last_window = excluded_until(through) + timedelta(days=settings.mau_window_days - 1)
    return range(epoch_of(settings.start_date, rotation), epoch_of(last_window, rotation) + 1)


def _keyed(event: Event, keys: Iterable[EpochKey], first: date) -> Removal:
    pairs = tuple((key.epoch, user_key(key.secret, event.user_id)) for key in keys)
    passed_over = tuple(day for day in event.days or (event.day,) if day < first)
    return Removal(event.day, event.days, pairs, event.reference, passed_over)


# --- Touched days ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WaitingDay:
    """A day on which requests came in that are not verified yet; how many there are is not said."""

    received_on: date
    age_days: int
    deadline: date
    is_overdue: bool


def waiting_days(clock: Clock, erasures: Erasures) -> list[WaitingDay]:
    """The days on which requests came in that are not verified yet, in order. Whose, and how many, is not said."""
    today = clock.today()
    late = {erasure.received_on for erasure in overdue(clock, erasures)}
    unfinished = erasures.ledger.erasures(("parked", "received", "applied"))
    until = {erasure.received_on: deadline(erasure) for erasure in unfinished}
    return [WaitingDay(day, (today - day).days, until[day], day in late) for day in sorted(until)]
