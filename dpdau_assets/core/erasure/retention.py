"""Retention: what no planned release can need any more is purged, and the keys of epochs that are over are shredded.

It follows the publication calendar (the last published day), never the wall clock: publishing that stands still must
not lose what it still needs. The watchdog is the one that looks at the clock.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from datetime import date, timedelta

from dpdau_assets.core.budget.planning import restatement_due
from dpdau_assets.core.dates import days_between, epoch_of, month_of
from dpdau_assets.core.erasure.quarantine import expire
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.errors import BadSetting, Refused
from dpdau_assets.core.facts import Release
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.ports.store import State, Store, StoreView
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.state.touched import live_days

WATCHDOG_SLACK_DAYS = 7
"""How long a day may be overdue before the watchdog says so: a purge runs once a day, and may fail once or twice."""

_PlannedNumber = tuple[Metric, date, int]
"""Metric, day and revision."""


def purge(store: Store) -> date | None:
    """Unlink what is past retention; returns the last day that is gone, None while nothing is.

    Raises BadSetting while retention is off, and Refused, with nothing purged, while a planned release that reads
    one of these days is missing. What was cut short is completed by running it again.
    """
    with store.state.activity.lock():
        due = due_through(store.settings, store.accountant)
        expire(store)
        if due is not None and due > (store.accountant.purged_through() or date.min):
            require_nothing_missing(due, store.settings, store.accountant)
            apply_and_verify(store)
            store.accountant.purge_through(due)
        gone = store.accountant.purged_through()
        if gone is not None:
            store.state.rebuilds.drop_through(gone)
            _unlink_through(gone, store.state)
            _shred_through(gone, store)
    return gone


def due_through(settings: Settings, accountant: LedgerView) -> date | None:
    """The last day that retention lets go of, None while there is none. Raises BadSetting without RETENTION_DAYS."""
    kept_days = settings.retention_days
    if kept_days is None:
        raise BadSetting("RETENTION_DAYS is not set.", "Set it to have days purged; without it everything is kept.")
    last = [max(release.key.day for release in releases) for releases in _published(accountant) if releases]
    due = min(last, default=date.min + timedelta(days=kept_days)) - timedelta(days=kept_days)
    return due if due >= settings.start_date else None


def require_nothing_missing(due: date, settings: Settings, accountant: LedgerView) -> None:
    """Raise Refused for the first planned release that reads a day up to `due` and does not exist."""
    published = {
        (release.key.metric, release.key.day, release.key.revision)
        for releases in _published(accountant)
        for release in releases
    }
    missing = [number for number in _planned_numbers(due, settings, accountant) if number not in published]
    if missing:
        metric, day, revision = missing[0]
        what = f"the restatement of {day:%Y-%m}" if revision else f"{metric} of {day}"
        raise Refused(
            f"Days up to {due} are past retention, but {what} is missing, which reads one of them.",
            "Publish it first; nothing was purged.",
            day=day.isoformat(),
        )


def _planned_numbers(due: date, settings: Settings, accountant: LedgerView) -> list[_PlannedNumber]:
    """What reads a day up to `due`, from each metric's first published day on: first numbers, then restatements."""
    dau_days, mau_days = ([release.key.day for release in releases] for releases in _published(accountant))
    restated = accountant.restated()
    return [
        *_first_numbers_of_dau(dau_days, due, restated),
        *_first_numbers_of_mau(mau_days, due, settings),
        *_restatements(dau_days, due, restated, settings, accountant),
    ]


def _first_numbers_of_dau(dau_days: list[date], due: date, restated: Container[date]) -> Iterator[_PlannedNumber]:
    """Days of a restated month that have no number never get one."""
    if dau_days:
        for day in days_between(min(dau_days), due):
            if month_of(day) not in restated:
                yield "dau", day, 0


def _first_numbers_of_mau(mau_days: list[date], due: date, settings: Settings) -> Iterator[_PlannedNumber]:
    if mau_days:
        last_window = due + timedelta(days=settings.mau_window_days - 1)
        for day in days_between(min(mau_days), last_window):
            yield "mau", day, 0


def _restatements(
    dau_days: list[date], due: date, restated: frozenset[date], settings: Settings, accountant: LedgerView
) -> Iterator[_PlannedNumber]:
    """Restatements of every published day of a month that has days up to `due` and is still to be restated."""
    runs = accountant.mechanism_runs()
    months = {month_of(day) for day in dau_days if day <= due} - restated
    to_restate = {month for month in months if restatement_due(month, runs, settings)}
    for day in dau_days:
        if month_of(day) in to_restate:
            yield "dau", day, 1


def overdue(store: StoreView) -> list[date]:
    """The watchdog: days that still have state though they ended longer ago than retention allows, by the clock."""
    kept_days = store.settings.retention_days
    if kept_days is None:
        return []
    slack = 1 + store.settings.grace_days + WATCHDOG_SLACK_DAYS
    oldest = store.clock.today() - timedelta(days=kept_days + slack)
    return sorted(day for day in live_days(store.state) if day < oldest)


def _published(accountant: LedgerView) -> tuple[list[Release], list[Release]]:
    return accountant.releases("dau"), accountant.releases("mau")


def _unlink_through(gone: date, state: State) -> None:
    for store in (state.activity, state.late):
        store.discard(place for place in store.stored() if place[0] <= gone)
        store.forget_through(gone)  # also what had no file any more
    for day, epoch in state.sketches.stored():
        if day <= gone:
            state.sketches.discard(day, epoch)


def _shred_through(gone: date, store: Store) -> None:
    """The epochs of which every day is gone. The one that serves `gone` may still serve windows to come.

    Not while something is left of an erased person: without her key nobody could look for it again.
    """
    if store.erasures.ledger.erasures(("received", "applied")):
        return
    rotation = store.settings.hash_salt_rotation_days
    last_epoch = epoch_of(gone + timedelta(days=1), rotation) - 1
    if (store.state.salts.shredded_through() or -1) < last_epoch:
        store.state.salts.shred_through(last_epoch)
