"""The port Landing: one folder a day in LANDING_DIR, as Spark and Hive write them, complete by a file `_SUCCESS`.

A day's folder is called `day=`, `dt=`, `event_date=` or `date=`, and YYYY-MM-DD or YYYYMMDD. Its own `_SUCCESS` makes
it complete, whatever is written to it later. The `_SUCCESS` of LANDING_DIR itself, which Spark writes last of all,
makes complete each day's folder that was whole by then: one in which no file and no folder is younger than the marker.
What is written later is finished by the next marker; writing it anew changes nothing of the others. So whoever copies
such a write brings the marker last.

The files are upstream's: they are read, and neither moved nor removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path

from dpdau_assets.core.errors import BadInput, BadSetting
from dpdau_assets.core.events import calendar_day
from resources.reading.event_files import EventFile, offered
from resources.reading.file_names import ENDINGS, kind_of

_COMPLETE = "_SUCCESS"
_DAY_NAMES = ("day", "dt", "event_date", "date")
_DAY_FOLDER = re.compile(rf"(?:{'|'.join(_DAY_NAMES)})=(\d{{4}})(-?)(\d\d)\2(\d\d)", re.ASCII)


class LandingFiles:
    """The folders of days in one folder; without a LANDING_DIR there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def days(self) -> Mapping[date, str]:
        """Raises BadSetting for a LANDING_DIR that is no folder."""
        return {day: _fingerprint(folders) for day, folders in self._folders() if self._is_complete(folders)}

    def unmarked(self) -> list[date]:
        """Days with event files that no `_SUCCESS` makes complete: upstream is not done yet, or writes no marker.

        Raises BadSetting for a LANDING_DIR that is no folder.
        """
        return [day for day, folders in self._folders() if not self._is_complete(folders) and _has_events(folders)]

    def fingerprint(self, day: date) -> str | None:
        folders = self._folders_of(day)
        return _fingerprint(folders) if self._is_complete(folders) else None

    def files(self, day: date) -> list[EventFile]:
        folders = self._folders_of(day)
        if not self._is_complete(folders):
            return []
        if len(folders) > 1:
            raise BadInput(
                f"There are {len(folders)} folders for this day: {' and '.join(folder.name for folder in folders)}.",
                "Leave the one that counts, and take the others out.",
            )
        there = offered(folders[0])
        if there.others:
            in_order = sorted([*map(str, there.files), *there.others], key=lambda name: name.split("/"))
            raise BadInput(
                f"File {in_order.index(there.others[0]) + 1} of {len(in_order)} has an ending that is not read, or is "
                "a link to a folder or to nothing.",
                f"Write it so that it ends in {ENDINGS}, or take it out.",
            )
        return there.files

    def folder(self, day: date) -> Path | None:
        return next(iter(self._folders_of(day)), self._folder / f"day={day}" if self._folder else None)

    def _folders(self) -> Iterator[tuple[date, list[Path]]]:
        """Every day that a folder is named after, in order."""
        if self._folder is None:
            return
        if not self._folder.is_dir():
            raise BadSetting(f"LANDING_DIR={self._folder}: there is no such folder.", "Make it, or correct the name.")
        of_day = defaultdict(list)
        for folder in sorted(self._folder.iterdir()):
            day = _day_of(folder.name)
            if day is not None and folder.is_dir():
                of_day[day].append(folder)
        yield from sorted(of_day.items())

    def _folders_of(self, day: date) -> list[Path]:
        if self._folder is None:
            return []
        names = [f"{name}={value}" for name in _DAY_NAMES for value in (f"{day}", f"{day:%Y%m%d}")]
        return sorted(folder for name in names if (folder := self._folder / name).is_dir())

    def _is_complete(self, folders: Sequence[Path]) -> bool:
        """Whether one of a day's folders is; a day that two are named after is told of, and then refused."""
        return any(_is_marked(folder) or self._was_whole(folder) for folder in folders)

    def _was_whole(self, folder: Path) -> bool:
        """Whether the root's marker was written after everything in the folder."""
        with suppress(OSError):
            marker = (folder.parent / _COMPLETE).lstat()
            if stat.S_ISREG(marker.st_mode):
                return _youngest(folder) <= marker.st_mtime_ns
        return False


def _day_of(folder: str) -> date | None:
    match = _DAY_FOLDER.fullmatch(folder)
    return calendar_day(f"{match[1]}-{match[3]}-{match[4]}") if match else None


def _is_marked(folder: Path) -> bool:
    """Whether the marker is there, or the folder cannot be read: then whoever takes it in is told so."""
    try:
        return (folder / _COMPLETE).is_file()
    except PermissionError:
        return True


def _has_events(folders: Sequence[Path]) -> bool:
    with suppress(BadInput):  # of one that cannot be read it is not known
        return any(offered(folder).files for folder in folders)
    return False


def _youngest(folder: Path) -> int:
    """When something in the folder, or itself, was changed last, in nanoseconds since 1970."""
    times = [folder.stat().st_mtime_ns]
    for place, folders, names in os.walk(folder):
        times += [(Path(place) / name).lstat().st_mtime_ns for name in (*folders, *names)]
    return max(times)


def _fingerprint(folders: Sequence[Path]) -> str:
    """A hash that changes when a file comes, goes or is written anew. It has no name in it: Dagster is told some."""
    seen = []
    for folder in folders:
        for place, _, names in os.walk(folder):
            for path in (Path(place) / name for name in names):
                with suppress(OSError):  # it has gone meanwhile, or nobody can say more of it
                    status = path.stat()
                    seen.append((kind_of(path.relative_to(folder)), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(sorted(seen)).encode()).hexdigest()
