"""What becomes of a number that is not published: it never comes, and why; or when it is due, and what makes it.

It follows from the calendar, the settings and what was published, charged, restated, purged and closed: all of it
public. Nothing here reads data. What it says is what a release would say, in the words of who asks for a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from dpdau_assets.core.budget.dry_run import DryRunLedger
from dpdau_assets.core.budget.planning import budget_of, require_room, restatement_due_under
from dpdau_assets.core.budget.within_budget import next_day_that_fits
from dpdau_assets.core.dates import (
    days_of_epoch,
    epoch_of,
    first_window_end,
    month_of,
    months_read,
    window,
)
from dpdau_assets.core.errors import BadSetting, BudgetRefused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import StoreView
from dpdau_assets.core.privacy.accounting import epsilon_of
from dpdau_assets.core.privacy.cost_so_far import cost_so_far
from dpdau_assets.core.privacy.mechanisms import Stream
from dpdau_assets.core.privacy.schedule import due_on
from dpdau_assets.core.settings import Settings

_ONE_DAY = timedelta(days=1)
FORESEEN = timedelta(days=10 * 366)
"""Nobody asks for the calendar of a day that lies so far off, nor does that reach the year 10000."""


@dataclass(frozen=True)
class Prospect:
    """What becomes of one number, for people and for machines.

    Attributes:
        never: whether nothing makes it under the settings and the ledger as they are.
        why: a short code.
        because: the same in words, "" where there is nothing to explain.
        remedy: what to do instead, or what makes it.
        due: the day on which it is due, of one that comes later.
        refusal: of one that the budget refuses, the fields of BudgetRefused, and in epsilon what the numbers of that
            `month` that are out have cost, `spent`; empty for all others.
    """

    never: bool
    why: str
    because: str
    remedy: str
    due: date | None = None
    refusal: Mapping[str, object] = field(default_factory=dict)


def prospect(key: ReleaseKey, store: StoreView) -> Prospect:
    """What becomes of a number that is not published."""
    with store.snapshot() as snapshot:
        ledger = DryRunLedger(snapshot.accountant, store.settings)
        prospects = (rule(key, ledger, snapshot) for rule in (_RESTATED_RULES if key.revision else _RULES))
        found = next(prospect for prospect in prospects if prospect)
        return replace(found, refusal=_in_full(found.refusal, key, ledger, store.settings)) if found.refusal else found


def _in_full(
    refusal: Mapping[str, object], key: ReleaseKey, ledger: DryRunLedger, settings: Settings
) -> Mapping[str, object]:
    """With what the month that refuses it has cost, and the next day that fits, where none is named yet."""
    month = date.fromisoformat(f"{refusal['month']}-01")
    delta = budget_of(key.metric, month, ledger, settings).delta
    spent = epsilon_of(cost_so_far(ledger.published(key.metric, month), month), delta)
    following = None if key.revision or "next_day" in refusal else next_day_that_fits(key, ledger, settings)
    return {**refusal, "spent": spent, **({"next_day": following.isoformat()} if following else {})}


# --- What never comes --------------------------------------------------------------------------------------------

_Rule = Callable[[ReleaseKey, DryRunLedger, StoreView], Prospect | None]


def _never(why: str, because: str, remedy: str, refusal: Mapping[str, object] | None = None) -> Prospect:
    return Prospect(True, why, because, remedy, refusal=refusal or {})


def _not_made(key: ReleaseKey, _: DryRunLedger, store: StoreView) -> Prospect | None:
    revisions = (0, 1) if key.metric == "dau" else (0,)
    if key.window_days == store.settings.window_days(key.metric) and key.revision in revisions:
        return None
    remedy = "Only the configured window is published, and only DAU has a revision 1: its restatement."
    return _never("not_made", "no job makes such a number", remedy)


def _before_start(key: ReleaseKey, _: DryRunLedger, store: StoreView) -> Prospect | None:
    start = store.settings.start_date
    first = first_window_end(start, key.window_days)
    remedy = f"Ask from {first} on."
    if key.day < start:
        return _never("before_start", f"it lies before START_DATE, {start}", remedy)
    if key.day < first:
        return _never("before_first_window", f"its window reads days before START_DATE, {start}", remedy)
    return None


def _past_retention(key: ReleaseKey, _: DryRunLedger, store: StoreView) -> Prospect | None:
    gone = store.accountant.purged_through()
    if gone is None or window(key.day, key.window_days)[0] > gone:
        return None
    first = first_window_end(gone + _ONE_DAY, key.window_days)
    return _never("past_retention", f"it reads days up to {gone}, which are past retention", f"Ask from {first} on.")


def _restated(key: ReleaseKey, ledger: DryRunLedger, _: StoreView) -> Prospect | None:
    if key.metric != "dau" or month_of(key.day) not in ledger.restated():
        return None
    because = f"{key.day:%Y-%m} was restated without it, and with that a month is closed"
    return _never("restated", because, "Days that were not published by then stay without a number.")


def _closed(key: ReleaseKey, ledger: DryRunLedger, _: StoreView) -> Prospect | None:
    closed = [month for month in months_read(key.day, key.window_days) if ledger.is_closed(key.metric, month)]
    if not closed:
        return None
    because = f"it reads {closed[-1]:%Y-%m}, of which numbers may have been lost in a restore"
    return _never("closed", because, "It stays so unless the month is opened on the record: `dpdau reset-budget`.")


def _lost(key: ReleaseKey, _: DryRunLedger, store: StoreView) -> Prospect | None:
    rotation = store.settings.hash_salt_rotation_days
    epoch = epoch_of(key.day, rotation)
    if epoch not in store.state.salts.lost():
        return None
    because = f"the key of its salt epoch {epoch} was lost in a restore"
    return _never("lost_epoch", because, f"Ask from {days_of_epoch(epoch, rotation, 1)[1] + _ONE_DAY} on.")


def _far_off(key: ReleaseKey, _: DryRunLedger, store: StoreView) -> Prospect | None:
    """The calendar of a number so far off is asked by nobody, and does not reach the year 10000."""
    if key.day - store.clock.today() < FORESEEN:
        return None
    return Prospect(False, "not_due", f"{key.day} is not over", "Ask for a day that is.")


def _passed(key: ReleaseKey, ledger: DryRunLedger, store: StoreView) -> Prospect | None:
    """A stream goes on from its last day and never back."""
    last, name = ledger.last_day(key.metric, key.window_days), key.metric.upper()
    if store.settings.mechanism(key.metric) != Stream.name or last is None or key.day > last:
        return None
    days = ledger.days(key.metric)
    if key.day < days[0]:
        because = f"the series of {name} begins with {days[0]}, which is fixed for ever"
        return _never("before_series", because, f"Ask from {days[0]} on.")
    following = next(day for day in days if day > key.day)
    because = f"the series of {name} went on with {following}, and never goes back"
    return _never("between_series", because, f"Ask from {following} on.")


def _no_room(key: ReleaseKey, ledger: DryRunLedger, store: StoreView) -> Prospect | None:
    try:
        require_room(key, ledger, store.settings)
    except BudgetRefused as refused:
        because = f"as things stand its budget does not admit it. {refused.reason}"
        return _never("no_budget", because, refused.remedy, refused.fields)
    except BadSetting as error:  # nothing says how to count: a person has to decide that
        return Prospect(False, "settings", error.reason.removesuffix("."), error.remedy)
    return None


# --- What comes --------------------------------------------------------------------------------------------------


def _waits(_key: ReleaseKey, ledger: DryRunLedger, _: StoreView) -> Prospect | None:
    if not ledger.awaits_erasures():
        return None
    because = "the ledger was restored, and nothing is published before erasure requests are handed in again"
    return Prospect(False, "awaits_erasures", because, "Then `dpdau reopen --who NAME --why TEXT`.")


def _comes(key: ReleaseKey, ledger: DryRunLedger, store: StoreView) -> Prospect:
    due_day, today = due_on(store.settings, key.day), store.clock.today()
    made_by = " ".join(_made_by(key, ledger, store))
    if due_day <= today:
        return Prospect(False, "to_come", "", made_by)
    if key.day >= today:
        return Prospect(False, "not_due", f"{key.day} is not over", f"It is due on {due_day}. {made_by}", due_day)
    return Prospect(False, "not_due", f"it is due on {due_day}, and `dpdau run` makes it at once", made_by, due_day)


def _made_by(key: ReleaseKey, ledger: DryRunLedger, store: StoreView) -> Iterator[str]:
    last = ledger.last_day(key.metric, key.window_days)
    if key.metric == "mau" and last:
        following = _following(last, key, ledger, store)
        yield f"Days of MAU follow one another: materialising `mau_release` makes {following} next."
        yield f"So does `dpdau run --from {following} --to DAY`, up to the day that is named."
    else:
        yield f"Materialising `{key.metric}_release` for the day makes it, as does `dpdau run`."


def _following(last: date, key: ReleaseKey, ledger: DryRunLedger, store: StoreView) -> date:
    """The first day after the last published one that gets a number, if that is not after the one that is asked for."""
    day = last + _ONE_DAY
    while day < key.day and any(rule(replace(key, day=day), ledger, store) for rule in (_closed, _lost, _no_room)):
        day += _ONE_DAY
    return day


# --- Restatements ------------------------------------------------------------------------------------------------


def _never_restated(key: ReleaseKey, ledger: DryRunLedger, store: StoreView) -> Prospect | None:
    month = month_of(key.day)
    if restatement_due_under(ledger.parameters(month), month, store.settings) is not None:
        return None
    return _never("not_restated", f"{month:%Y-%m} is priced without a restatement", "Ask for revision 0.")


def _without_a_first(key: ReleaseKey, _ledger: DryRunLedger, store: StoreView) -> Prospect | None:
    """What has no first number, and never gets one, is not restated."""
    if store.accountant.release(replace(key, revision=0)):
        return None
    first = prospect(replace(key, revision=0), store)
    return first if first.never else None


def _comes_again(key: ReleaseKey, ledger: DryRunLedger, store: StoreView) -> Prospect:
    month = month_of(key.day)
    due_day = restatement_due_under(ledger.parameters(month), month, store.settings)
    made_by = (
        "Materialising `dau_restatement` for the month makes it from its public day on, as does `dpdau run` when it "
        "passes that day."
    )
    if due_day is None or due_day <= store.clock.today():
        return Prospect(False, "to_come", "", made_by)
    return Prospect(False, "not_due", f"it is due on {due_day}", made_by, due_day)


_RULES: tuple[_Rule, ...] = (
    _not_made,
    _before_start,
    _far_off,
    _past_retention,
    _restated,
    _closed,
    _lost,
    _passed,
    _no_room,
    _waits,
    _comes,
)
_RESTATED_RULES: tuple[_Rule, ...] = (
    _not_made,
    _far_off,
    _restated,
    _never_restated,
    _closed,
    _lost,
    _without_a_first,
    _no_room,
    _waits,
    _comes_again,
)
