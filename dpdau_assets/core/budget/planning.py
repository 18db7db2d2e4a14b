"""What a release will open, count and charge, asked before anything is drawn: by it itself, and by who looks ahead.

Everything here follows from what was published, the settings and overrides; nothing here reads data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import takewhile

from dpdau_assets.core.budget.sketch_choice import configured, counting_of, not_set, suited_to
from dpdau_assets.core.dates import first_window_end, month_of, months_from, months_read, next_month
from dpdau_assets.core.errors import BadSetting, BudgetRefused, ParameterNotSet, Refused
from dpdau_assets.core.facts import Instance, ReleaseKey
from dpdau_assets.core.ports.ledger import ChargedBooks, Record
from dpdau_assets.core.privacy.accounting import Budget, Charge, admits, charges_for_release
from dpdau_assets.core.privacy.mechanisms import Mechanism, SharedNoise, Stream, longest_interval
from dpdau_assets.core.privacy.schedule import mechanism_for, restatement_slot
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import terms_of_counting
from dpdau_assets.core.sketches.base import Counting

# What an operator can set back when a stream's facts differ.
_SET_BY = {
    "sigma": "MAU_BUDGET_TOTAL and DELTA",
    "filter": "MAU_WINDOW_DAYS",
    "sensitivity2": "MAU_WINDOW_DAYS",
    "sketch_impl": "SKETCH_IMPL",
    "theta0": "MAU_THETA0",
    "kind": "MAU_MECHANISM",
}


@dataclass(frozen=True)
class Plan:
    """What a release needs on the books: its instance, whether that is new, and the charges not made yet."""

    instance: Instance
    is_new: bool
    charges: tuple[Charge, ...]


def plan(key: ReleaseKey, books: ChargedBooks, settings: Settings) -> Plan:
    """What this release would open and charge. Raises Refused when its day, a restore or a cap forbids it."""
    require_open(key, books)
    require_in_order(key, books, settings)
    living = living_instance(key, books, settings)
    instance = living or new_instance(key, books, settings)
    try:
        charges = tuple(_admitted(key, instance, books, settings))
    except BudgetRefused as refused:
        raise _explained(refused, key, instance, books) from None
    return Plan(instance, living is None, charges)


def require_room(key: ReleaseKey, books: ChargedBooks, settings: Settings) -> None:
    """Raise BudgetRefused for a release that a cap forbids: its own, or of a stream one of a day that comes before it.

    A stream is charged once a month, so it is enough to ask for the first day that reads each.
    """
    living, last = living_instance(key, books, settings), books.last_day(key.metric, key.window_days)
    instance, days = living or new_instance(key, books, settings), [key.day]
    if living and last and isinstance(living.mechanism, Stream):
        following = last + timedelta(days=1)
        begun = takewhile(lambda month: month < key.day, months_from(next_month(month_of(following))))
        days = [following, *begun, key.day]
    for day in days:
        asked = replace(key, day=day)
        try:
            deque(_admitted(asked, instance, books, settings), maxlen=0)
        except BudgetRefused as refused:
            raise _explained(refused, asked, instance, books) from None


def _admitted(key: ReleaseKey, instance: Instance, books: ChargedBooks, settings: Settings) -> Iterator[Charge]:
    for charge in charges_for_release(key.metric, key.day, key.window_days, instance.mechanism, instance.name):
        made = books.charges(key.metric, charge.month)
        if charge not in made:
            budget = budget_of(key.metric, charge.month, books, settings)
            admits(made, charge, budget)
            yield replace(charge, budget=budget)


def _explained(refused: BudgetRefused, key: ReleaseKey, instance: Instance, books: ChargedBooks) -> BudgetRefused:
    """Say so if it is refused because another stream would begin while months of the last one are still read."""
    last, last_day = books.last_instance(key.metric, key.window_days), books.last_day(key.metric, key.window_days)
    if last is None or last_day is None or not isinstance(last.mechanism, Stream) or last.name == instance.name:
        return refused
    old, new = ({**one.mechanism.to_json(), **one.terms} for one in (last, instance))
    differing = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    of_kind = differing & {"sketch_impl"} or differing & {"kind"}  # then the rest differs with it
    changed = sorted({_SET_BY.get(name, name) for name in of_kind or differing})
    free = first_window_end(next_month(month_of(last_day)), key.window_days)
    return BudgetRefused(
        f"The stream {last.name} was begun otherwise (see {', '.join(changed)}), so {key.day} would begin another "
        f"one, charged again to every month it reads. {refused.reason}",
        f"Set them back, or go on with {free}, the first day whose window reads no month of the old one.",
        **refused.fields,
        changed=changed,
        next_day=free.isoformat(),
    )


def budget_of(metric: Metric, month: date, books: Record, settings: Settings) -> Budget:
    """A month keeps the cap and the δ that it was first charged under; an override on record gives it another cap."""
    cap, delta = books.cap(metric, month), books.delta(metric, month)
    return Budget(settings.cap(metric) if cap is None else cap, settings.delta if delta is None else delta)


def require_in_order(key: ReleaseKey, books: ChargedBooks, settings: Settings) -> None:
    """A stream's days follow one another: its first is wherever it begins, then none is skipped or gone back to."""
    last = books.last_day(key.metric, key.window_days)
    if settings.mechanism(key.metric) != Stream.name or last is None:
        return
    following = last + timedelta(days=1)
    if key.day == following or (key.day > last and living_instance(key, books, settings) is None):
        return
    raise Refused(
        f"{key.metric} was last published for {last}; {key.day} does not follow it.",
        f"Publish {following} next; days before the first published one stay without a number.",
        day=key.day.isoformat(),
        next_day=following.isoformat(),
    )


def require_open(key: ReleaseKey, books: ChargedBooks) -> None:
    """With its restatement a month is closed, since the noise that its numbers share is destroyed.

    So is one that a restored ledger may have lost numbers of, and every month until erasures are in force again.
    """
    if key.metric == "dau" and month_of(key.day) in books.restated() and not key.revision:
        raise Refused(
            f"{key.day:%Y-%m} was restated, so {key.day} gets no number any more.",
            "Days that were not published by then stay without one.",
            day=key.day.isoformat(),
        )
    if books.awaits_erasures():
        raise Refused(
            "The ledger was restored, and erasure requests made since the backup may be missing.",
            "Submit them again, then `dpdau reopen --who NAME --why TEXT`.",
        )
    closed = [month for month in months_read(key.day, key.window_days) if books.is_closed(key.metric, month)]
    if closed:
        raise Refused(
            f"{key.metric} of {key.day} reads {closed[-1]:%Y-%m}, of which numbers may have been lost in a restore.",
            "Go on with the first day that reads no such month, or have the month opened on the record: "
            "`dpdau reset-budget`.",
            day=key.day.isoformat(),
            month=f"{closed[-1]:%Y-%m}",
        )


def living_instance(
    key: ReleaseKey, books: ChargedBooks, settings: Settings, counting: Counting | None = None
) -> Instance | None:
    """The instance that the release goes on with, None where one is to be opened.

    A month of shared noise keeps what it was opened with, whatever the settings say by now. A stream is one mechanism
    for ever: with other settings, or after a restore that may have lost numbers of it, another one begins. A
    `counting` stands in for what the settings choose.
    """
    wanted = new_instance(key, books, settings, counting)
    if not isinstance(wanted.mechanism, Stream):
        return books.instance(wanted.name)
    last = books.last_instance(key.metric, key.window_days)
    same = last is not None and (last.mechanism, last.terms) == (wanted.mechanism, wanted.terms)
    return last if same else None


def new_instance(
    key: ReleaseKey, books: ChargedBooks, settings: Settings, counting: Counting | None = None
) -> Instance:
    """The instance that this release would open under these settings, or with this counting."""
    mechanism, month = mechanism_for(settings, key.metric, month_of(key.day)), month_of(key.day)
    counting = counting or _counting_to_open(key, books, settings)
    _require_countable(mechanism, counting, settings)
    terms = {**terms_of_counting(counting), **terms_of(key.metric, settings)}
    match mechanism:
        case SharedNoise():
            first_day, label, lost = month, f"{month:%Y-%m}", books.closures(key.metric, month)
        case Stream():
            first_day, label, lost = key.day, f"from-{key.day}", books.closures(key.metric)
        case _:
            first_day, label = key.day, f"{key.day}-r{key.revision}"
            lost = sum(books.closures(key.metric, read) for read in months_read(key.day, key.window_days))
    if lost:  # numbers of an instance before it, which another one must not share noise or charges with
        label, terms = f"{label}-after-{lost}", {**terms, "closures_before": str(lost)}
    name = f"{key.metric}-{key.window_days}-{mechanism.name}-{label}"
    return Instance(name, key.metric, key.window_days, first_day, mechanism, terms)


def _require_countable(mechanism: Mechanism, counting: Counting, settings: Settings) -> None:
    """Conditions 3 and 4 of docs/privacy.md, lemma 2, asked again where a stream begins. Raises BadSetting."""
    if not isinstance(mechanism, Stream):
        return
    if not counting.linear:
        raise BadSetting(f"SKETCH_IMPL={counting.kind}: not for a stream.", "Set MAU_MECHANISM=gaussian.")
    if counting.samples and settings.hash_salt_rotation_days < longest_interval(mechanism.window_days):
        days = settings.hash_salt_rotation_days
        raise BadSetting(f"HASH_SALT_ROTATION_DAYS={days}: too few for a sample in a stream.", "Set SKETCH_IMPL=set.")


def terms_of(metric: Metric, settings: Settings) -> dict[str, str]:
    """What an instance is opened under besides how it is counted: of DAU, when its month is restated."""
    if metric == "mau":
        return {}
    return {
        "restatements_per_month": str(settings.restatements_per_month),
        "restatement_day": str(settings.restatement_day),
    }


def planned_counting(key: ReleaseKey, books: ChargedBooks, settings: Settings) -> Counting:
    """How this release's users are counted: as those of the instance that it goes on with, or opens."""
    return counting_of(living_instance(key, books, settings) or new_instance(key, books, settings))


def widest_counting(month: date, wanted: Counting | None, books: ChargedBooks, settings: Settings) -> Counting:
    """What a month's sketches are built for: `wanted`, or DAU of the month; and the other metric too if it can be.

    One sketch serves both if the one with the larger θ0 is built. It follows from the settings and the ledger alone, so
    that all of a month are alike whoever was erased from some. Raises ParameterNotSet if no metric says how to count.
    """
    keys = (ReleaseKey("dau", 1, month), ReleaseKey("mau", settings.mau_window_days, month))
    found, unknown = [] if wanted is None else [wanted], []
    for key in keys:
        try:
            found.append(planned_counting(key, books, settings))
        except ParameterNotSet as error:
            unknown.append(error)
    if not found:
        raise unknown[0]
    alike = [one for one in found if one.kind == found[0].kind]
    return next((one for one in alike if all(other.reads(one.header(0, "")) for other in alike)), found[0])


def _counting_to_open(key: ReleaseKey, books: ChargedBooks, settings: Settings) -> Counting:
    """As configured; else a stream keeps what it has, and other instances follow the metric's last published number."""
    chosen = configured(key.metric, settings)
    if chosen is not None:
        return chosen
    stream = books.last_instance(key.metric, key.window_days)
    if stream is not None and isinstance(stream.mechanism, Stream) and settings.mechanism(key.metric) == Stream.name:
        kept = counting_of(stream)
        if kept.kind == settings.sketch_impl:
            return kept
    last = books.last_release(key.metric)
    instance = None if last is None else books.instance(last.instance)
    if last is None or instance is None:
        raise not_set([key.metric], settings)
    return suited_to(counting_of(instance).users(last.noisy_value), settings)


def enter(planned: Plan, books: ChargedBooks) -> None:
    """Put the instance and the charges on the books."""
    if planned.is_new:
        books.open_instance(planned.instance)
    for charge in planned.charges:
        books.charge(charge)


def restated_keys(month: date, published: Iterable[ReleaseKey]) -> list[ReleaseKey]:
    """What the restatement of a month of DAU consists of: one number for each day that has a first one."""
    return sorted(
        replace(key, revision=1)
        for key in published
        if key.metric == "dau" and month_of(key.day) == month and not key.revision
    )


def restatement_slot_under(terms: Mapping[str, str], month: date, settings: Settings) -> date | None:
    """The public day on which a month is restated that was begun under these terms; None if it never is."""
    if terms.get("restatements_per_month") == "0":
        return None
    day = int(terms.get("restatement_day", settings.restatement_day))
    return restatement_slot(replace(settings, restatement_day=day), month)
