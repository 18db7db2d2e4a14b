"""Every check of the whole store: what it guards, and how it is asked. Dagster, the CLI and the report say the same.

A check only asks. What it answers is for operators: which partitions, never whose or how many users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from dpdau_assets.core.budget import verification
from dpdau_assets.core.budget.forecast import forecast
from dpdau_assets.core.budget.planning import restatement_due
from dpdau_assets.core.budget.settings_check import check as require_feasible
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.erasure import requests, retention
from dpdau_assets.core.erasure.inspection import left_of_anyone, partition_of
from dpdau_assets.core.errors import DpdauError, Refused
from dpdau_assets.core.ports.state import StateStore
from dpdau_assets.core.ports.store import Mart, State, Store, StoreView
from dpdau_assets.core.privacy.schedule import due_on
from dpdau_assets.core.publication.due import due, overdue_days
from dpdau_assets.core.publication.ingest import in_whole_per_cent
from dpdau_assets.core.security_events import SecurityEvent
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches import build
from dpdau_assets.core.sketches.base import to_bytes
from dpdau_assets.core.state import touched
from dpdau_assets.core.state.activity import epochs_of, require_digest

MONTHS_AHEAD = 12
_NAMED = 3  # as many days as one sentence names


@dataclass(frozen=True)
class Verdict:
    """What a check found, in words.

    Attributes:
        places: partitions that it found something in.
        is_asked: False where it could not be asked, which says nothing of what it guards.
    """

    passed: bool
    sentence: str
    places: tuple[str, ...] = ()
    is_asked: bool = True


@dataclass(frozen=True)
class Check:
    """One question about the whole store.

    Attributes:
        blocking: whether a wrong number could leave, or data stay, where it fails.
        waiting: whether it only says that work is under way: no failure of anything yet.
        watched: whether it is cheap, and asked every few minutes to raise an alert.
        tampering: whether somebody's hand may be behind its failing: whoever finds it so tells of a security event.
    """

    name: str
    guards: str
    ask: Callable[[Store, Mart], Verdict]
    blocking: bool = False
    waiting: bool = False
    watched: bool = False
    tampering: bool = False


def ask_all(store: Store, mart: Mart) -> dict[str, Verdict]:
    """Every check by name; one that cannot be asked has failed, and says why."""
    return {check.name: answer(check, store, mart) for check in CHECKS}


def answer(check: Check, store: Store, mart: Mart) -> Verdict:
    """What the check finds; an error that it meets is a finding too."""
    try:
        return check.ask(store, mart)
    except DpdauError as error:
        return Verdict(False, f"It could not be asked: {error.reason}", is_asked=False)


def tampering_in(verdicts: Iterable[tuple[Check, Verdict]]) -> dict[SecurityEvent, int]:
    """The security events in what checks have found."""
    found = (
        f"{check.name}: {verdict.sentence}"
        for check, verdict in verdicts
        if check.tampering and verdict.is_asked and not verdict.passed
    )
    return {SecurityEvent("tampering_found", about): 1 for about in found}


# --- Erasures ----------------------------------------------------------------------------------------------------


def _no_pending_erasures(store: Store, _: Mart) -> Verdict:
    pending = touched.pending(store)
    return Verdict(pending.is_none, pending.sentence, tuple(str(day) for day, _ in pending.days))


def _erasures_within_deadline(store: StoreView, _: Mart) -> Verdict:
    overdue = requests.overdue(store.clock, store.erasures)
    if overdue:
        return Verdict(False, "An erasure is past its deadline: `dpdau erasures` lists it.")
    return Verdict(True, "None is overdue.")


def _no_erased_user_in_live_state(store: Store, _: Mart) -> Verdict:
    files = sorted({_shown(survivor.file, store.settings) for survivor in left_of_anyone(store)})
    if files:
        return Verdict(False, "Something is left of an erased person: `dpdau receipt` says where.", tuple(files))
    return Verdict(True, "None is left.")


def _shown(file: str, settings: Settings) -> str:
    """A partition by its name; any other file not, since whoever put it there may have named it after a person."""
    places = (partition_of(name, settings) for name in (file, f"{file}.parquet", f"{file}.sketch"))
    return next((str(place) for place in places if place), "a file that is no partition")


# --- State -------------------------------------------------------------------------------------------------------


def _state_is_keyed(store: Store, _: Mart) -> Verdict:
    with store.state.activity.lock():
        wrong = [
            *_not_keyed("activity", store.state.activity, store.settings),
            *_not_keyed("late", store.state.late, store.settings),
            *_lost(store),
        ]
    return _places(
        wrong,
        "day(s) with state that is damaged, gone, or holds something else than keys",
        "Every day's state is whole, and keys alone.",
    )


def _not_keyed(name: str, store: StateStore, settings: Settings) -> Iterator[tuple[date, str]]:
    for day, epoch in store.stored():
        if epoch not in epochs_of(day, settings) or not store.is_keyed(day, epoch):
            yield day, f"{name}/day={day}/epoch={epoch}"


def _no_older_files(store: Store, _: Mart) -> Verdict:
    with store.state.activity.lock():
        wrong = [*_older("activity", store.state.activity), *_older("late", store.state.late)]
    return _places(
        wrong,
        "day(s) with a file that is not the one that was written last: `dpdau flush-deletes` repairs what can be",
        "Every file of the state is the one that was written last.",
    )


def _older(name: str, store: StateStore) -> Iterator[tuple[date, str]]:
    for day, epoch in store.places():
        try:
            is_old = store.is_old(day, epoch)
        except Refused:
            is_old = True
        if is_old:
            yield day, f"{name}/day={day}/epoch={epoch}"


def _lost(store: Store) -> Iterator[tuple[date, str]]:
    """Days that were built and have no file."""
    stored, gone = set(store.state.activity.stored()), store.accountant.purged_through() or date.min
    for day in sorted(day for day in store.accountant.processed() if day > gone):
        for epoch in epochs_of(day, store.settings):
            if (day, epoch) not in stored:
                yield day, f"activity/day={day}/epoch={epoch}"


def _sketches_are_fresh(store: Store, _: Mart) -> Verdict:
    with store.state.activity.lock():
        wrong = [place for place in store.state.sketches.stored() if not _is_of_its_state(*place, store.state)]
    names = [(day, f"sketches/day={day}/epoch={epoch}") for day, epoch in wrong]
    return _places(
        names,
        "day(s) with a sketch that is not of the state beside it: materialise `day_sketch`",
        "Every sketch is of its day's state.",
    )


def _is_of_its_state(day: date, epoch: int, state: State) -> bool:
    """To the byte, not by what the header says of itself alone."""
    try:
        sketch = state.sketches.read(day, epoch)
        keys = state.activity.read(day, epoch)
        if sketch is None or keys is None or sketch.header.source != require_digest(day, epoch, state):
            return False
        return b"".join(to_bytes(build(sketch.header, keys))) == b"".join(to_bytes(sketch))
    except DpdauError:
        return False


# --- What came in ------------------------------------------------------------------------------------------------


def _few_rows_rejected(store: Store, _: Mart) -> Verdict:
    """Each ingest is looked at by itself: among many good rows those of one bad file would not be seen."""
    limit = store.settings.max_rejected_share
    since = store.clock.today() - timedelta(days=store.settings.quarantine_days)
    bad = [
        share
        for share in store.events.quarantine.shares()
        if (share.share > limit or not share.taken) and share.seen_on >= since
    ]
    if not bad:
        return Verdict(
            True, "No ingest was refused for its bad rows, or taken with more than MAX_REJECTED_SHARE admits."
        )
    worst = max(bad, key=lambda share: share.share)
    return Verdict(
        False,
        f"{len(bad)} ingest(s) had bad rows that matter. Of the worst, on {worst.seen_on}, "
        f"{in_whole_per_cent(worst.share)} were bad, and {_WHAT_NOW[worst.taken]}",
    )


_WHAT_NOW = {
    False: "nothing was taken: a CSV of that day in quarantine/ says which. Hand the files in again without them, "
    "together and by the same names, or remove that CSV if they are not wanted.",
    True: "the others were taken all the same: a CSV of that day in quarantine/ says which. This passes after "
    "QUARANTINE_DAYS, or once that CSV is removed.",
}
"""By whether it was taken in part. No CSV is named: its name follows from names of files, and Dagster keeps it."""


# --- Numbers -----------------------------------------------------------------------------------------------------


def _ledger_holds(store: Store, mart: Mart) -> Verdict:
    problems = len(verification.problems(store.settings, store.accountant, mart.read()))
    return Verdict(
        not problems, f"{problems} problem(s): `dpdau verify-ledger` lists them." if problems else "It is whole."
    )


def _noise_is_private(store: Store, _: Mart) -> Verdict:
    if not store.noise.private:
        return Verdict(False, "The noise of this process can be predicted: nothing drawn from it may be published.")
    predictable = sorted({release.key.day for release in store.accountant.releases() if not release.private})
    return _days(predictable, "day(s) with a number of predictable noise", "All noise is private.")


def _configuration_is_feasible(store: Store, _: Mart) -> Verdict:
    """Whether the configuration fits its caps, as a whole and on what this ledger was charged by now."""
    require_feasible(store.settings)
    refused = forecast(store.accountant, store.settings, MONTHS_AHEAD).refused
    if refused:
        first = refused[0]
        return Verdict(False, f"{first.release.metric} of {first.release.day} will be refused: `dpdau plan` says why.")
    return Verdict(True, f"Every number of the next {MONTHS_AHEAD} months fits.")


def _published_on_time(store: StoreView, _: Mart) -> Verdict:
    with store.snapshot() as snapshot:
        numbers_due, first = due(snapshot), _waited_for_from(snapshot)
    waiting = [day for day in numbers_due.unmarked if first and day >= first]
    if waiting:
        return _days(waiting, "day(s) are due and not declared complete: upstream, or `dpdau complete`", "")
    missing = overdue_days(numbers_due, store.settings, store.clock)
    if missing:
        return _days(missing, "day(s) are overdue: the schedule of publication, or `dpdau run`, publishes", "")
    if numbers_due.refused and first:
        return Verdict(False, numbers_due.refused)
    return Verdict(True, "Every day that is due and complete is published.")


def _waited_for_from(store: StoreView) -> date | None:
    """Every day once something was published or the schedule is on; else each from the first declared one on, if any.

    Before all of these nobody waits: events may be brought in for as long as anybody likes.
    """
    if store.accountant.releases() or store.is_scheduled():
        return store.settings.start_date
    return min(store.events.completions.completed(), default=None)


def _restatement_on_time(store: StoreView, _: Mart) -> Verdict:
    """By the calendar of publication: a month waits while its numbers do, and then no longer."""
    with store.accountant.snapshot() as ledger:
        numbers, restated, runs = ledger.releases("dau"), ledger.restated(), ledger.mechanism_runs()
    last = max((release.key.day for release in numbers), default=None)
    months = {month_of(release.key.day) for release in numbers} - restated
    dates = {month: restatement_due(month, runs, store.settings) for month in sorted(months)}
    missed = [month for month, day in dates.items() if last and day and day < due_on(store.settings, last)]
    if missed:
        return Verdict(False, f"{missed[0]:%Y-%m} should be restated by now: materialise `dau_restatement` for it.")
    return Verdict(True, "Every month that is due is restated.")


def _retention_on_time(store: StoreView, _: Mart) -> Verdict:
    kept = retention.overdue(store)
    if kept:
        return Verdict(False, f"{len(kept)} day(s) up to {kept[-1]} should be purged by now.")
    return Verdict(True, "No day is overdue.")


# --- Words -------------------------------------------------------------------------------------------------------


def _places(wrong: Iterable[tuple[date, str]], problem: str, fine: str) -> Verdict:
    listed = list(wrong)
    verdict = _days(sorted({day for day, _ in listed}), problem, fine)
    return Verdict(verdict.passed, verdict.sentence, tuple(place for _, place in listed))


def _days(days: list[date], problem: str, fine: str) -> Verdict:
    if not days:
        return Verdict(True, fine)
    named = ", ".join(map(str, days[:_NAMED])) + (" and later" if len(days) > _NAMED else "")
    return Verdict(False, f"{len(days)} {problem} ({named}).")


CHECKS = (
    Check(
        "no_pending_erasures",
        "No day waits to be rebuilt, and no erasure to be verified.",
        _no_pending_erasures,
        waiting=True,
    ),
    Check(
        "erasures_within_deadline",
        f"Every erasure was applied and verified within {requests.DEADLINE_DAYS} days of its receipt.",
        _erasures_within_deadline,
        blocking=True,
        watched=True,
    ),
    Check(
        "no_erased_user_in_live_state",
        "Nobody whose erasure was applied is left in any file.",
        _no_erased_user_in_live_state,
        blocking=True,
    ),
    Check(
        "state_is_keyed",
        "The state of every day that was built is there, whole, and holds keys alone.",
        _state_is_keyed,
        blocking=True,
        tampering=True,
    ),
    Check(
        "no_older_files",
        "Every file of the state is the one that was written last: none was put back.",
        _no_older_files,
        blocking=True,
        tampering=True,
    ),
    Check(
        "sketches_are_fresh",
        "Every sketch is, to the byte, what the state beside it gives.",
        _sketches_are_fresh,
        blocking=True,
    ),
    Check(
        "few_rows_rejected",
        "No ingest of the last QUARANTINE_DAYS days was refused for bad rows, or had too many.",
        _few_rows_rejected,
    ),
    Check(
        "ledger_holds",
        "The ledger is as it was written, every number was charged within its cap, the mart shows no other.",
        _ledger_holds,
        blocking=True,
        tampering=True,
    ),
    Check(
        "noise_is_private",
        "No number was, or will be, drawn from noise that can be predicted.",
        _noise_is_private,
        blocking=True,
        tampering=True,
    ),
    Check(
        "configuration_is_feasible",
        f"Every number of the next {MONTHS_AHEAD} months fits, on what the ledger was charged by now.",
        _configuration_is_feasible,
    ),
    Check(
        "published_on_time",
        "Every day was declared complete and published by the day on which it is due.",
        _published_on_time,
        watched=True,
    ),
    Check("restatement_on_time", "Every month is restated on its public day.", _restatement_on_time, watched=True),
    Check("retention_on_time", "No day is kept for longer than RETENTION_DAYS.", _retention_on_time, watched=True),
)
