"""What an erasure leaves on purpose, why, and until when: just this and no more, as each receipt says.

Every sentence here is held against a store in which it is true and one in which it is not by test_remains.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from dpdau_assets.core.dates import days_of_epoch
from dpdau_assets.core.erasure.requests import DEADLINE_DAYS, epochs_reached
from dpdau_assets.core.facts import Erasure
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.privacy.mechanisms import Stream
from dpdau_assets.core.settings import Settings

Rest = dict[str, str | None]
"""`what`, `why`, and `until`, which is None for what stays for ever or ends as `why` says."""


def remains(
    erasure: Erasure, settings: Settings, accountant: Ledger, *, has_tombstone: bool, has_reference: bool
) -> list[Rest]:
    """Follows from the request, the settings and what was published; never from whether the person was there."""
    return [
        _rest(
            "published noisy numbers",
            "A published number is never changed, so that no change tells whose it is. "
            "Those from before count the person, and noise protects everybody in them.",
        ),
        *_stream_counts(accountant),
        *([_tombstone(erasure, settings)] if has_tombstone else []),
        *([_reference()] if has_reference else []),
        _rest(
            "the request",
            "Its receipt, its dates and the days that it named show that it was done. No id of the "
            "person is with it, and no day on which the person was active but those that it named.",
        ),
        _rest("Dagster's log", _dagsters_log(settings)),
        _rest(
            "the quarantine",
            "Of rows that were bad, the file's name, the line and the reason. Those that named the "
            "person as a whole word were dropped when the request came, and every other goes after "
            f"{settings.quarantine_days} days.",
        ),
        _rest(
            "requests of the API",
            "If it came by the HTTP API, hashes of the id and of what was sent are kept that day and the next, so that "
            "one client's requests are counted together and one that is sent twice is known. Their key is random, of "
            "that day, and lies beside them in api/: whoever has the data directory could try out guesses of the id. "
            "Both are unlinked together as soon as the API runs, events come, erasures are verified or days are purged "
            "after that.",
            "the day after it was last sent has ended",
        ),
        _rest(
            "backups made before the erasure",
            "Backups are kept outside this system, hold the person, and each expires within its own deadline.",
            f"{DEADLINE_DAYS} days after the request was applied",
        ),
        _rest(
            "what lies elsewhere",
            "Event files, the systems they came from, and copies that were taken of DATA_DIR "
            "are not read back, nor what a file system keeps of its own: times of files, free blocks, snapshots. An "
            "id that is spelt in another way is another person here.",
        ),
    ]


def _stream_counts(accountant: Ledger) -> Iterator[Rest]:
    """The numbers to come of a stream are made from its last counts too, as they were when they were published."""
    last = {run.metric: run for run in accountant.mechanism_runs()}
    for run in last.values():
        if isinstance(run.mechanism, Stream):
            kept = len(run.mechanism.filter) - 1
            yield _rest(
                f"the last counts of {run.metric}",
                f"The exact counts of the last {kept} published windows, encrypted in the ledger, enter the numbers to "
                f"come. Each is destroyed when {kept} later ones are published, or another stream begins.",
            )


def _tombstone(erasure: Erasure, settings: Settings) -> Rest:
    why = "The key, encrypted in the ledger, keeps late and replayed events of the removed days out."
    return _rest("tombstone", why, _end_of_tombstone(erasure, settings))


def _end_of_tombstone(erasure: Erasure, settings: Settings) -> str | None:
    epochs = epochs_reached(erasure.through, settings)
    if settings.retention_days is None or not epochs:
        return None
    last: date = days_of_epoch(epochs[-1], settings.hash_salt_rotation_days, settings.mau_window_days)[1]
    return f"{last} is past retention"


def _reference() -> Rest:
    return _rest(
        "reference",
        "What whoever asked calls the request, encrypted in the ledger; it is destroyed with the tombstone.",
    )


def _dagsters_log(settings: Settings) -> str:
    if settings.erasure_mark == "all":
        return "Dagster keeps for ever that every day was rebuilt, and when; no id, key or count is with it."
    return (
        "Dagster keeps for ever which days were rebuilt for erasures, and when: of a request that was applied "
        "alone, the days on which the person was. No id, key or count is with it."
    )


def _rest(what: str, why: str, until: str | None = None) -> Rest:
    return {"what": what, "until": until, "why": why}
