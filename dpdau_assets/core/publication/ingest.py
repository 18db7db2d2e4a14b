"""From event files to keyed batches: the one path by which people's events come in. Raw ids end here.

What is durable comes in this order: removals, then the batch, then the quarantine; each can be repeated without harm,
so an ingest that was cut short is completed by running it again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from dpdau_assets.core.dates import days_of_epoch, epochs_of_day
from dpdau_assets.core.erasure.quarantine import expire
from dpdau_assets.core.erasure.requests import NOTHING_REQUESTED, Requested, request
from dpdau_assets.core.errors import BadInput, DpdauError, Refused
from dpdau_assets.core.event_shape import PLAIN, EventShape
from dpdau_assets.core.events import DOUBTFUL, TOO_EARLY, Event, Limits, Row, day_of_folder, limits_of, validate
from dpdau_assets.core.facts import NOTHING_REJECTED, DaySet, EpochKey, RejectedRow, Rejections
from dpdau_assets.core.identity import Named, user_key
from dpdau_assets.core.parallel import made_ahead
from dpdau_assets.core.ports.events import NamedFile, Scan, Tell, nothing_told
from dpdau_assets.core.ports.state import Salts
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.limits import first_day, last_day

Progress = Callable[[str], None]

NAME_LEFT_OUT = "(a name that is left out)"
_SHOWN_REASONS = 3
_KEYED_AHEAD_BYTES = 1 << 27  # while the days before are being written


@dataclass(frozen=True)
class IngestReport:
    """What one ingest took: rows accepted and rejected, the days that gained '+' rows, and the names of what it wrote.

    `batch` is None without '+' rows, `quarantine` without bad ones; `removals` are the requests that '-' rows made.
    `rejections` says how many bad rows there are by file and reason. `elsewhere` says of each folder that is named
    after a day which share of its '+' rows is of other days. `removals_waiting` removals were not taken, and erase
    nobody before the input is mended and handed in again: the doubtful ones, or all of them if nothing was taken.
    `idle` rows are no activity by the source's `active_when`; `remarks` say what was taken for granted of the files.
    """

    ingested: int
    rejected: int
    days: tuple[date, ...]
    batch: str | None
    quarantine: Path | None
    removals: Requested = NOTHING_REQUESTED
    rejections: Rejections = NOTHING_REJECTED
    elsewhere: Mapping[date, float] = field(default_factory=dict)
    removals_waiting: int = 0
    idle: int = 0
    remarks: Sequence[str] = ()


class NotTaken(DpdauError):
    """An input that could be read and was not taken, with what there is to say of it."""

    def __init__(self, reason: str, remedy: str, report: IngestReport, **fields: object) -> None:
        super().__init__(reason, remedy, **fields)
        self.report = report


class NoValidRow(NotTaken, BadInput):
    """None of the rows is valid."""


class TooManyRejected(NotTaken, Refused):
    """More of the rows are bad than MAX_REJECTED_SHARE admits."""


class DoubtfulRemovals(NotTaken, Refused):
    """Some removals may be text of rows that fell to pieces."""


def ingest(
    files: Sequence[NamedFile],
    store: Store,
    progress: Progress | None = None,
    tell: Tell = nothing_told,
    *,
    shape: EventShape = PLAIN,
    partial: bool = False,
) -> IngestReport:
    """Validate, key and durably keep the events of these files; `tell` hears which share of them is read.

    Raises BadInput, with nothing kept, for a broken file, and NotTaken as `ingest_scan` does. Twice the same files are
    the same batch, the same quarantine and the same removals.
    """
    say = progress or (lambda _: None)
    say(f"Reading {len(files)} file(s).")
    limits = limits_of(store.settings, first_day(store.settings, store.accountant), last_day(store.clock), shape)
    with store.events.engine.scan(files, limits, tell, shape) as scan:
        report = ingest_scan(scan, store, say, partial=partial)
    store.events.quarantine.made_good(frozenset(file.name for file in files))
    return report


def ingest_scan(scan: Scan, store: Store, progress: Progress, *, partial: bool = False) -> IngestReport:
    """Key what was scanned and keep it durably: removals first, so that a batch never arrives ahead of them.

    Raises NotTaken, with only the quarantine written, if rows were scanned and none of them is valid; and, unless it is
    to be taken in part, if more than MAX_REJECTED_SHARE of them are bad, or a removal is doubtful.
    """
    asked, rejections = list(scan.removals()), scan.rejections()
    share = bad_share(scan.accepted, rejections)
    limit = store.settings.max_rejected_share
    if rejections.total and not scan.accepted:
        raise _none_valid(_left(scan, asked, share, store))
    if share > limit and not partial:
        raise _too_many(_left(scan, asked, share, store), share, limit)
    if DOUBTFUL in rejections.by_reason() and not partial:
        raise _doubtful(_left(scan, asked, share, store))
    if asked:
        progress("Recording removals.")
    requested = request(asked, store)
    keyed = keyed_days(scan, store.state.salts, store.settings, progress)
    batch = store.events.inbox.append(made_ahead(keyed, lambda made: made.keys.nbytes, _KEYED_AHEAD_BYTES))
    kept = _quarantine(scan, asked, share, store, taken=True)
    return IngestReport(
        scan.accepted,
        rejections.total,
        tuple(scan.days()),
        batch,
        kept,
        requested,
        rejections,
        scan.elsewhere(),
        removals_waiting=rejections.by_reason().get(DOUBTFUL, 0),
        idle=scan.idle,
        remarks=tuple(scan.remarks),
    )


def bad_share(accepted: int, rejections: Rejections) -> Fraction:
    """Which share of the rows is bad, without those of days that can hold nothing: an archive may begin earlier."""
    bad = rejections.total - rejections.by_reason().get(TOO_EARLY, 0)
    return Fraction(bad, accepted + bad) if bad else Fraction(0)


def _left(scan: Scan, asked: Sequence[Event], share: Fraction, store: Store) -> IngestReport:
    """What there is to say of an input of which nothing is taken."""
    kept, rejections = _quarantine(scan, asked, share, store, taken=False), scan.rejections()
    return IngestReport(
        0,
        rejections.total,
        (),
        None,
        kept,
        rejections=rejections,
        elsewhere=scan.elsewhere(),
        removals_waiting=len(asked) + rejections.by_reason().get(DOUBTFUL, 0),
        idle=scan.idle,
        remarks=tuple(scan.remarks),
    )


def _quarantine(scan: Scan, asked: Sequence[Event], share: Fraction, store: Store, *, taken: bool) -> Path | None:
    """Keep the bad rows; without its name if the file is named after somebody who is erased by now."""
    named = Named((event.user_id for event in asked if taken), store.settings.user_id_normalize)
    is_named = cache(named.is_in)
    expire(store)
    rows = (replace(row, file=NAME_LEFT_OUT) if is_named(row.file) else row for row in scan.rejected())
    kept = store.events.quarantine.keep(rows)
    if kept:
        store.events.quarantine.note_share(kept, float(share), taken=taken)
    return kept


def _none_valid(report: IngestReport) -> NoValidRow:
    return NoValidRow(
        f"None of the rows is valid; nothing was taken. {_commonest(report)}",
        "Correct what is named, and hand the files in again.",
        report,
    )


def _too_many(report: IngestReport, share: Fraction, limit: Fraction) -> TooManyRejected:
    return TooManyRejected(
        f"{_percent(share)} of the rows are bad, and MAX_REJECTED_SHARE admits {_percent(limit)}; nothing was taken. "
        f"{_commonest(report)}",
        "Correct them and hand the files in again, or take what is good with `dpdau ingest --partial`.",
        report,
    )


def _doubtful(report: IngestReport) -> DoubtfulRemovals:
    return DoubtfulRemovals(
        "Removals stand near rows that cannot be parsed, and may be pieces of them: they could erase people who never "
        f"asked. Nothing was taken. {_commonest(report)}",
        "Mend the rows around the lines that the quarantine names, or take all but these removals with "
        "`dpdau ingest --partial`.",
        report,
    )


def _commonest(report: IngestReport) -> str:
    """The file with the most bad rows, and the commonest reasons."""
    files = list(report.rejections.by_file())
    where = f"In {files[0]}" if len(files) == 1 else f"In {len(files)} files, most of them in {files[0]}"
    return f"{where}: {' '.join(list(report.rejections.by_reason())[:_SHOWN_REASONS])}"


def in_whole_per_cent(share: float) -> str:
    """Coarsely: what Dagster keeps of a share should not tell of one event more or less."""
    return f"{share:.0%}".replace("%", " %") if round(share, 2) else "less than 1 %"


def _percent(share: Fraction) -> str:
    return f"{float(share) * 100:.3g} %"


def keyed_days(scan: Scan, salts: Salts, settings: Settings, progress: Progress) -> Iterator[DaySet]:
    """Each day's users, under every epoch whose windows reach the day; epoch by epoch, in order of days."""
    rotation, longest = settings.hash_salt_rotation_days, settings.mau_window_days
    epochs = sorted({epoch for day in scan.days() for epoch in epochs_of_day(day, rotation, longest)})
    keys = salts.epoch_keys(epochs)
    for number, part in enumerate(scan.parts(), 1):
        for epoch in epochs:
            progress(f"Keying the days of salt epoch {epoch}.")
            yield from part.user_days(keys[epoch], *days_of_epoch(epoch, rotation, longest))
        if number < scan.part_count:
            progress(f"Reading the files again for more people, part {number + 1} of {scan.part_count}.")


class RowScan:
    """A Scan of rows in memory, in plain Python: the reference that bulk engines are held to."""

    def __init__(self, rows: Iterable[tuple[str, int, Row | None]], limits: Limits) -> None:
        """Rows are (file, line, row); a row that cannot be parsed is None."""
        self.accepted = self.idle = 0
        self.part_count = 1
        self.remarks: Sequence[str] = ()
        self._placed: dict[date, list[bool]] = defaultdict(list)
        self._users: dict[date, set[str]] = defaultdict(set)
        self._removals: dict[Event, None] = {}
        self._rejected: list[RejectedRow] = []
        for file, line, row in rows:
            self._sort_in(file, line, validate(row, limits))

    def _sort_in(self, file: str, line: int, judged: Event | str) -> None:
        if isinstance(judged, str):
            self._rejected.append(RejectedRow(file, line, judged))
            return
        self.accepted += 1
        if judged.op == "+":
            self._users[judged.day].add(judged.user_id)
            self._compare_with_folder(file, judged.day)
        else:
            self._removals[judged] = None

    def _compare_with_folder(self, file: str, day: date) -> None:
        named = day_of_folder(file)
        if named:
            self._placed[named].append(day != named)

    def rejected(self) -> Iterable[RejectedRow]:
        return iter(self._rejected)

    def rejections(self) -> Rejections:
        return Rejections(Counter((row.file, row.reason) for row in self._rejected))

    def elsewhere(self) -> dict[date, float]:
        return {day: sum(other) / len(other) for day, other in sorted(self._placed.items()) if any(other)}

    def days(self) -> list[date]:
        return sorted(self._users)

    def removals(self) -> Iterator[Event]:
        return iter(self._removals)

    def parts(self) -> Iterator[RowScan]:
        yield self

    def user_days(self, key: EpochKey, first: date, last: date) -> Iterator[DaySet]:
        days = [day for day in self.days() if first <= day <= last]
        users = set().union(*(self._users[day] for day in days))
        keys = {user: user_key(key.secret, user) for user in users}
        for day in days:
            in_order = np.array(sorted({keys[user] for user in self._users[day]}), dtype=np.uint64)
            yield DaySet(day, key.epoch, in_order)
