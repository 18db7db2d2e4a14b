"""Which days are complete, by upstream's own word, and what is taken from the landing folder for them.

A day is published for what upstream says of the day, never for what was found in it: a mark says nothing of anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from dpdau_assets.core.errors import BadInput, DpdauError, Refused
from dpdau_assets.core.ports.events import NamedFile
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.ports.store import Events, Store, StoreView
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.state.activity import require_ended, require_kept

_SHOWN = 8  # characters of what tells one version of a folder from another


def complete(day: date, store: Store, landed: str | None = None) -> None:
    """Declare that every event of this day has been handed in; from now on it is published when it is due.

    Raises Refused for a day that has not ended or is past retention, and BadInput for one before START_DATE.
    """
    require_completable(day, store)
    store.events.completions.complete(day, landed)


def complete_all(days: Iterable[date], store: Store) -> None:
    """Declare each of these days complete, or none: a day that cannot be declared refuses them all."""
    wanted = list(days)
    for day in wanted:
        require_completable(day, store)
    for day in wanted:
        store.events.completions.complete(day)


def withdraw_all(days: Iterable[date], store: Store) -> None:
    """Take declarations back, all or none. Raises Refused once one of the days is sealed."""
    wanted = list(days)
    with store.state.activity.lock():
        read = sorted(store.accountant.sealed().intersection(wanted))
        if read:
            raise Refused(
                f"{read[0]} is sealed: a number has read it, or is about to.",
                "What comes for it now enters with its month's restatement.",
            )
        for day in wanted:
            store.events.completions.withdraw(day)


@dataclass(frozen=True)
class TakenLandings:
    """What became of some folders: in words why one was refused, by day; which share of one's events is of other days.

    A file is told by its place among those of the folder, and not by its name: it may be named after a person.
    """

    refused: Mapping[date, str]
    elsewhere: Mapping[date, float]


def take_all_landed(days: Iterable[date], store: Store) -> TakenLandings:
    """Take in what landed for each of these days, and declare it complete; one that is refused holds up no other.

    The day of a refused folder is not declared, and nothing of it is taken, but of one that was changed meanwhile: that
    is taken in anew. Which share is of other days decides nothing.
    """
    refused: dict[date, str] = {}
    elsewhere: dict[date, float] = {}
    for day in sorted(days):
        try:
            elsewhere.update(_take_landed(day, store))
        except NotLanded as error:
            refused[day] = error.reason
    return TakenLandings(refused, elsewhere)


class NotLanded(DpdauError):
    """A folder was not taken in. Its words name no file: Dagster keeps them, and a file may be named after a person."""


def _take_landed(day: date, store: Store) -> Mapping[date, float]:
    """Returns which share of its events is of other days, if any is. Raises NotLanded, with nothing taken."""
    files: Sequence[NamedFile] = []
    version = ""
    try:
        fingerprint = store.events.landing.fingerprint(day)
        version = f" (version {fingerprint[:_SHOWN]})" if fingerprint else ""
        require_completable(day, store)
        _require_finished(day, fingerprint)
        files = store.events.landing.files(day)
        elsewhere = ingest(files, store).elsewhere if files else {}
        _require_same(day, fingerprint, store.events)
        complete(day, store, fingerprint)
    except DpdauError as error:
        raise NotLanded(f"{_by_place(error.reason, files, store.events.landing.folder(day))}{version}", "") from None
    except OSError as error:  # its own words name the file
        raise NotLanded(f"Something of it cannot be read: {error.strerror}.{version}", "") from None
    except Exception as error:  # whatever it is, no other folder waits for it; its words may quote what was read
        raise NotLanded(f"It failed with {type(error).__name__}.{version}", "") from None
    store.events.quarantine.made_good(frozenset(), within=store.events.landing.folder(day))
    return elsewhere


def _require_finished(day: date, fingerprint: str | None) -> None:
    if fingerprint is None:
        raise BadInput(
            f"No finished folder for {day} is in LANDING_DIR.",
            "Write _SUCCESS into the day's folder, or into LANDING_DIR last of all.",
        )


def _require_same(day: date, fingerprint: str | None, events: Events) -> None:
    """Raise BadInput for a folder that was written to, or is gone, since it had this fingerprint."""
    if events.landing.fingerprint(day) != fingerprint:
        raise BadInput("It was changed while it was taken in.", "It is taken in anew once nothing writes to it.")


def _by_place(reason: str, files: Sequence[NamedFile], folder: Path | None) -> str:
    """The reason with files told by their place in the order of names; where another name is left, without it."""
    for path, place in sorted(((file.name, place) for place, file in enumerate(files, 1)), reverse=True):
        reason = reason.replace(path, f"file {place} of {len(files)}")  # a name that begins another one comes after it
    return "Something of it cannot be read." if folder and f"{folder}/" in reason else reason


def landed(store: Store) -> dict[date, str]:
    """Days that landed, or landed anew, and were not taken in yet, with the fingerprint of what lies there.

    Not what lies there for days that cannot be taken in: before START_DATE, not over yet, or past retention.
    """
    known, days = store.events.completions.completed(), store.events.landing.days()
    wanted = _that_can_be_taken(days, store)
    return {day: days[day] for day in wanted if known.get(day) != days[day]}


def without_marker(store: StoreView) -> list[date]:
    """Days whose folder has event files, and that neither a _SUCCESS nor anybody else has declared complete, in order.

    Not days that cannot be taken in. Raises BadSetting for a LANDING_DIR that is no folder.
    """
    unmarked = _that_can_be_taken(store.events.landing.unmarked(), store)
    return sorted(set(unmarked) - is_declared(store.events, store.accountant)) if unmarked else []


def _that_can_be_taken(days: Iterable[date], store: StoreView) -> list[date]:
    gone, first = store.accountant.purged_through() or date.min, store.settings.start_date
    return [day for day in days if max(first, gone) <= day < store.clock.today() and day > gone]


def is_declared(events: Events, accountant: LedgerView) -> frozenset[date]:
    """Days of which nothing more is waited for: declared complete, or sealed by numbers that are out.

    A run that was stopped may have sealed days after the last published one, and those wait for upstream's word. After
    a restore all sealed days count, since numbers of them may be out.
    """
    with accountant.snapshot() as ledger:
        last = max((release.key.day for release in ledger.releases()), default=date.min)
        was_restored = any(ledger.closures(metric) for metric in METRICS)
        sealed = frozenset(day for day in ledger.sealed() if day <= last or was_restored)
    return sealed | frozenset(events.completions.completed())


def require_completable(day: date, store: Store) -> None:
    """Raise BadInput or Refused for a day that cannot be declared complete."""
    if day < store.settings.start_date:
        raise BadInput(f"{day} is before START_DATE, {store.settings.start_date}.", "Name a day that counts.")
    require_ended(day, store.clock)
    require_kept([day], store.accountant)
