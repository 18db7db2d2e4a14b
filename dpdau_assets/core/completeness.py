"""Which days are complete, by upstream's own word, and what is taken from the landing folder for them.

A day is published for what upstream says of the day, never for what was found in it: a mark says nothing of anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from dpdau_assets.core.activity import require_kept
from dpdau_assets.core.errors import BadInput, DpdauError, Refused
from dpdau_assets.core.ingest import IngestReport, ingest
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.release import require_ended


def complete(day: date, outside: Outside, landed: str | None = None) -> None:
    """Declare that every event of this day has been handed in; from now on it is published when it is due.

    Raises Refused for a day that has not ended or is past retention, and BadInput for one before START_DATE.
    """
    require_completable(day, outside)
    outside.completions.complete(day, landed)


def complete_all(days: Iterable[date], outside: Outside) -> None:
    """The same for each of these days, or for none: a day that cannot be declared refuses them all."""
    wanted = list(days)
    for day in wanted:
        require_completable(day, outside)
    for day in wanted:
        outside.completions.complete(day)


def withdraw_all(days: Iterable[date], outside: Outside) -> None:
    """Take declarations back, all or none. Raises Refused once a number has read one of the days."""
    wanted = list(days)
    with outside.activity.lock():
        read = sorted(outside.ledger.sealed().intersection(wanted))
        if read:
            raise Refused(
                f"{read[0]} was read by a published number.",
                "What comes for it now enters with its month's restatement.",
            )
        for day in wanted:
            outside.completions.withdraw(day)


def take_landed(day: date, outside: Outside) -> IngestReport | None:
    """Take in what landed for this day and declare it complete; None for a day without event files.

    Raises BadInput for a file that cannot be read, and then nothing is kept and the day is not declared.
    """
    require_completable(day, outside)
    fingerprint = outside.landing.days().get(day)
    if fingerprint is None:
        raise BadInput(f"No finished folder day={day} is in the landing folder.", "Its last file is _SUCCESS.")
    files = outside.landing.files(day)
    report = ingest(files, outside) if files else None
    complete(day, outside, fingerprint)
    return report


def take_all_landed(days: Iterable[date], outside: Outside) -> dict[date, DpdauError]:
    """The same for each of these days; returns those that could not be taken, and why."""
    refused: dict[date, DpdauError] = {}
    for day in sorted(days):
        try:
            take_landed(day, outside)
        except DpdauError as error:
            refused[day] = error
    return refused


def landed(outside: Outside) -> dict[date, str]:
    """Days that landed, or landed anew, and were not taken in yet, with the fingerprint of what lies there.

    Not what lies there for days that cannot be taken in: before START_DATE, not over yet, or past retention.
    """
    known, gone = outside.completions.completed(), outside.ledger.purged_through() or date.min
    first, today = outside.settings.start_date, outside.clock.today()
    return {
        day: fingerprint for day, fingerprint in outside.landing.days().items()
        if known.get(day) != fingerprint and max(first, gone) <= day < today and day > gone
    }  # fmt: skip


def is_declared(outside: Outside) -> frozenset[date]:
    """Days of which nothing more is waited for: declared complete, or read by a published number."""
    return outside.ledger.sealed() | frozenset(outside.completions.completed())


def require_completable(day: date, outside: Outside) -> None:
    """Raise BadInput or Refused for a day that cannot be declared complete."""
    if day < outside.settings.start_date:
        raise BadInput(f"{day} is before START_DATE, {outside.settings.start_date}.", "Name a day that counts.")
    require_ended(day, outside.clock)
    require_kept([day], outside)
