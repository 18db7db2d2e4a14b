"""What a release will open, count and charge, asked before anything is drawn: by it itself, and by who looks ahead.

Everything here follows from what was published, the settings and overrides; nothing here reads data.

Owns the rule: A stream skips no day and keeps what it was begun with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import takewhile

from dpdau_assets.core.budget.sketch_choice import configured, estimator_of, not_set, suited_to
from dpdau_assets.core.dates import (
    first_window_end,
    month_of,
    months_from,
    months_read,
    next_month,
)
from dpdau_assets.core.errors import BadSetting, BudgetRefused, ParameterNotSet, Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.ledger import BudgetLedger, BudgetReader, LedgerReader
from dpdau_assets.core.privacy.accounting import Budget, Charge, admits, charges_for_release
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Mechanism, SharedNoise, Stream, longest_interval
from dpdau_assets.core.privacy.schedule import mechanism_for, restatement_due_on
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import parameters_of
from dpdau_assets.core.sketches.base import Estimator

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
    """What a release needs of the ledger: its mechanism run, whether that is new, and the charges not made yet."""

    run: MechanismRun
    is_new: bool
    charges: tuple[Charge, ...]


def plan(key: ReleaseKey, ledger: BudgetReader, settings: Settings) -> Plan:
    """What this release would open and charge. Raises Refused when its day, a restore or a cap forbids it."""
    require_open(key, ledger)
    require_in_order(key, ledger, settings)
    living = living_run(key, ledger, settings)
    run = living or new_run(key, ledger, settings)
    try:
        charges = tuple(_admitted(key, run, ledger, settings))
    except BudgetRefused as refused:
        raise _explained(refused, key, run, ledger) from None
    return Plan(run, living is None, charges)


def require_room(key: ReleaseKey, ledger: BudgetReader, settings: Settings) -> None:
    """Raise BudgetRefused for a release that a cap forbids: its own, or of a stream one of a day that comes before it.

    A stream is charged once a month, so it is enough to ask for the first day that reads each.
    """
    living, last = living_run(key, ledger, settings), ledger.last_day(key.metric, key.window_days)
    run, days = living or new_run(key, ledger, settings), [key.day]
    if living and last and isinstance(living.mechanism, Stream):
        following = last + timedelta(days=1)
        begun = takewhile(lambda month: month < key.day, months_from(next_month(month_of(following))))
        days = [following, *begun, key.day]
    for day in days:
        asked = replace(key, day=day)
        try:
            deque(_admitted(asked, run, ledger, settings), maxlen=0)
        except BudgetRefused as refused:
            raise _explained(refused, asked, run, ledger) from None


def _admitted(key: ReleaseKey, run: MechanismRun, ledger: BudgetReader, settings: Settings) -> Iterator[Charge]:
    for charge in charges_for_release(key.metric, key.day, key.window_days, run.mechanism, run.name):
        charges = ledger.charges(key.metric, charge.month)
        if charge not in charges:
            budget = budget_of(key.metric, charge.month, ledger, settings)
            admits(charges, charge, budget)
            yield replace(charge, budget=budget)


def _explained(refused: BudgetRefused, key: ReleaseKey, run: MechanismRun, ledger: BudgetReader) -> BudgetRefused:
    """Say so if it is refused because another stream would begin while months of the last one are still read."""
    last, last_day = ledger.last_run(key.metric, key.window_days), ledger.last_day(key.metric, key.window_days)
    if last is None or last_day is None or not isinstance(last.mechanism, Stream) or last.name == run.name:
        return refused
    old, new = ({**begun.mechanism.to_json(), **begun.parameters} for begun in (last, run))
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


def budget_of(metric: Metric, month: date, ledger: LedgerReader, settings: Settings) -> Budget:
    """A month keeps the cap and the δ that it was first charged under; an override on record gives it another cap."""
    cap, delta = ledger.cap(metric, month), ledger.delta(metric, month)
    return Budget(settings.cap(metric) if cap is None else cap, settings.delta if delta is None else delta)


def require_in_order(key: ReleaseKey, ledger: BudgetReader, settings: Settings) -> None:
    """A stream's days follow one another: its first is wherever it begins, then none is skipped or gone back to.

    Raises Refused with the fields day and next_day.
    """
    last = ledger.last_day(key.metric, key.window_days)
    if settings.mechanism(key.metric) != Stream.name or last is None:
        return
    following = last + timedelta(days=1)
    if key.day == following or (key.day > last and living_run(key, ledger, settings) is None):
        return
    raise Refused(
        f"{key.metric} was last published for {last}; {key.day} does not follow it.",
        f"Publish {following} next; days before the first published one stay without a number.",
        day=key.day.isoformat(),
        next_day=following.isoformat(),
    )


def require_open(key: ReleaseKey, ledger: BudgetReader) -> None:
    """With its restatement a month is closed, since the noise that its numbers share is destroyed.

    So is one that a restored ledger may have lost numbers of, and every month until erasures are in force again.
    Raises Refused.
    """
    if key.metric == "dau" and month_of(key.day) in ledger.restated() and not key.revision:
        raise Refused(
            f"{key.day:%Y-%m} was restated, so {key.day} gets no number any more.",
            "Days that were not published by then stay without one.",
            day=key.day.isoformat(),
        )
    if ledger.awaits_erasures():
        raise Refused(
            "The ledger was restored, and erasure requests made since the backup may be missing.",
            "Submit them again, then `dpdau reopen --who NAME --why TEXT`.",
        )
    closed = [month for month in months_read(key.day, key.window_days) if ledger.is_closed(key.metric, month)]
    if closed:
        raise Refused(
            f"{key.metric} of {key.day} reads {closed[-1]:%Y-%m}, of which numbers may have been lost in a restore.",
            "Go on with the first day that reads no such month, or have the month opened on the record: "
            "`dpdau reset-budget`.",
            day=key.day.isoformat(),
            month=f"{closed[-1]:%Y-%m}",
        )


def living_run(
    key: ReleaseKey, ledger: BudgetReader, settings: Settings, estimator: Estimator | None = None
) -> MechanismRun | None:
    """The mechanism run that the release goes on with, None where one is to be opened.

    A month of shared noise keeps what it was opened with, whatever the settings say by now. A stream is one mechanism
    for ever: with other settings, or after a restore that may have lost numbers of it, another one begins. A
    `estimator` stands in for what the settings choose.
    """
    wanted = new_run(key, ledger, settings, estimator)
    if not isinstance(wanted.mechanism, Stream):
        return ledger.mechanism_run(wanted.name)
    last = ledger.last_run(key.metric, key.window_days)
    same = last is not None and (last.mechanism, last.parameters) == (wanted.mechanism, wanted.parameters)
    return last if same else None


def new_run(
    key: ReleaseKey, ledger: BudgetReader, settings: Settings, estimator: Estimator | None = None
) -> MechanismRun:
    """The mechanism run that this release would open under these settings, or with this estimator."""
    mechanism, month = mechanism_for(settings, key.metric, month_of(key.day)), month_of(key.day)
    estimator = estimator or _estimator_to_open(key, ledger, settings)
    _require_countable(mechanism, estimator, settings)
    parameters = {**parameters_of(estimator), **restatement_parameters(key.metric, settings)}
    match mechanism:
        case SharedNoise():
            first_day, label, lost = month, f"{month:%Y-%m}", ledger.closures(key.metric, month)
        case Stream():
            first_day, label, lost = key.day, f"from-{key.day}", ledger.closures(key.metric)
        case _:
            first_day, label = key.day, f"{key.day}-r{key.revision}"
            lost = sum(ledger.closures(key.metric, read) for read in months_read(key.day, key.window_days))
    if lost:  # numbers of a run before it, which another one must not share noise or charges with
        label, parameters = f"{label}-after-{lost}", {**parameters, "closures_before": str(lost)}
    name = f"{key.metric}-{key.window_days}-{mechanism.name}-{label}"
    return MechanismRun(name, key.metric, key.window_days, first_day, mechanism, parameters)


def _require_countable(mechanism: Mechanism, estimator: Estimator, settings: Settings) -> None:
    """Conditions 3 and 4 of docs/privacy.md, lemma 2, asked again where a stream begins. Raises BadSetting."""
    if not isinstance(mechanism, Stream):
        return
    if not estimator.linear:
        raise BadSetting(f"SKETCH_IMPL={estimator.kind}: not for a stream.", "Set MAU_MECHANISM=gaussian.")
    if estimator.samples and settings.hash_salt_rotation_days < longest_interval(mechanism.window_days):
        days = settings.hash_salt_rotation_days
        raise BadSetting(f"HASH_SALT_ROTATION_DAYS={days}: too few for a sample in a stream.", "Set SKETCH_IMPL=set.")


def restatement_parameters(metric: Metric, settings: Settings) -> dict[str, str]:
    """The parameters of a mechanism run besides its estimator's: of DAU, when its month is restated."""
    if metric == "mau":
        return {}
    return {
        "restatements_per_month": str(settings.restatements_per_month),
        "restatement_day": str(settings.restatement_day),
    }


def planned_estimator(key: ReleaseKey, ledger: BudgetReader, settings: Settings) -> Estimator:
    """How this release's users are counted: as those of the mechanism run that it goes on with, or opens."""
    return estimator_of(living_run(key, ledger, settings) or new_run(key, ledger, settings))


def widest_estimator(month: date, wanted: Estimator | None, ledger: BudgetReader, settings: Settings) -> Estimator:
    """What a month's sketches are built for: `wanted`, or DAU of the month; and the other metric too if it can be.

    One sketch serves both if the one with the larger θ0 is built. It follows from the settings and the ledger alone, so
    that all of a month are alike whoever was erased from some. Raises ParameterNotSet if no metric says how to count.
    """
    keys = (ReleaseKey("dau", 1, month), ReleaseKey("mau", settings.mau_window_days, month))
    estimators, unknown = [] if wanted is None else [wanted], []
    for key in keys:
        try:
            estimators.append(planned_estimator(key, ledger, settings))
        except ParameterNotSet as error:
            unknown.append(error)
    if not estimators:
        raise unknown[0]
    alike = [estimator for estimator in estimators if estimator.kind == estimators[0].kind]
    return next(
        (estimator for estimator in alike if all(other.reads(estimator.header(0, "")) for other in alike)),
        estimators[0],
    )


def _estimator_to_open(key: ReleaseKey, ledger: BudgetReader, settings: Settings) -> Estimator:
    """The configured estimator; without one a stream keeps its own, and other runs follow the last published number.

    Raises ParameterNotSet where there is no number to follow.
    """
    chosen = configured(key.metric, settings)
    if chosen is not None:
        return chosen
    stream = ledger.last_run(key.metric, key.window_days)
    if stream is not None and isinstance(stream.mechanism, Stream) and settings.mechanism(key.metric) == Stream.name:
        kept = estimator_of(stream)
        if kept.kind == settings.sketch_impl:
            return kept
    last = ledger.last_release(key.metric)
    run = None if last is None else ledger.mechanism_run(last.run)
    if last is None or run is None:
        raise not_set([key.metric], settings)
    return suited_to(estimator_of(run).users(last.noisy_value), settings)


def enter(planned: Plan, ledger: BudgetLedger) -> None:
    """Enter the mechanism run and the charges in the ledger."""
    if planned.is_new:
        ledger.open_run(planned.run)
    for charge in planned.charges:
        ledger.charge(charge)


def restated_keys(month: date, published: Iterable[ReleaseKey]) -> list[ReleaseKey]:
    """What the restatement of a month of DAU consists of: one number for each day that has a first one."""
    return sorted(
        replace(key, revision=1)
        for key in published
        if key.metric == "dau" and month_of(key.day) == month and not key.revision
    )


def restatement_due_under(parameters: Mapping[str, str], month: date, settings: Settings) -> date | None:
    """The public day on which a month is restated that was begun under these parameters; None if it never is."""
    if parameters.get("restatements_per_month") == "0":
        return None
    day = int(parameters.get("restatement_day", settings.restatement_day))
    return restatement_due_on(replace(settings, restatement_day=day), month)


def restatement_due(month: date, runs: Iterable[MechanismRun], settings: Settings) -> date | None:
    """The public day on which the month is restated, as fixed with its first number; None if it never is."""
    first = min(
        (run for run in runs if run.metric == "dau" and month_of(run.first_day) == month),
        key=lambda run: run.first_day,
        default=None,
    )
    return None if first is None else restatement_due_under(first.parameters, month, settings)
