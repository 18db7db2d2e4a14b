"""The port Landing: `LANDING_DIR/day=YYYY-MM-DD/`, complete once a file `_SUCCESS` lies in it, as Spark and Hive do it.

The files are upstream's: they are read, and neither moved nor removed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path

from dpdau_assets.core.errors import BadInput, BadSetting
from dpdau_assets.core.events import day_of_folder
from resources.reading.event_files import ENDINGS, Offered, kind_of, offered

_COMPLETE = "_SUCCESS"


class LandingFiles:
    """One folder a day; without a LANDING_DIR there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def days(self) -> Mapping[date, str]:
        """Raises BadSetting for a LANDING_DIR that is no folder."""
        return {day: _fingerprint(folder) for day, folder in sorted(self._complete())}

    def fingerprint(self, day: date) -> str | None:
        folder = self.folder(day)
        return _fingerprint(folder) if folder and _is_complete(folder) else None

    def files(self, day: date) -> list[Path]:
        folder = self.folder(day)
        there = offered(folder) if folder and _is_complete(folder) else Offered([], [])
        if there.others:
            in_order = sorted([*there.files, *there.others])
            raise BadInput(
                f"File {in_order.index(there.others[0]) + 1} of {len(in_order)} has an ending that is not read, or is "
                "a link to a folder or to nothing.",
                f"Write it so that it ends in {ENDINGS}, or take it out.",
            )
        return there.files

    def folder(self, day: date) -> Path | None:
        return self._folder / f"day={day}" if self._folder else None

    def _complete(self) -> Iterator[tuple[date, Path]]:
        if self._folder is None:
            return
        if not self._folder.is_dir():
            raise BadSetting(f"LANDING_DIR={self._folder}: there is no such folder.", "Make it, or correct the name.")
        for folder in self._folder.iterdir():
            day = day_of_folder(f"{folder.name}/")
            if day is not None and _is_complete(folder):
                yield day, folder


def _is_complete(folder: Path) -> bool:
    """Whether the marker is there, or the folder cannot be read: then whoever takes it in is told so."""
    try:
        return (folder / _COMPLETE).is_file()
    except PermissionError:
        return True


def _fingerprint(folder: Path) -> str:
    """A hash that changes when a file comes, goes or is written anew. It has no name in it: Dagster is told some."""
    seen = []
    for place, _, names in os.walk(folder):
        for path in (Path(place) / name for name in names):
            with suppress(OSError):  # it has gone meanwhile, or nobody can say more of it
                status = path.stat()
                seen.append((kind_of(path.relative_to(folder)), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(sorted(seen)).encode()).hexdigest()
