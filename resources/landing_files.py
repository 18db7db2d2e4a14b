"""The port Landing: `LANDING_DIR/day=YYYY-MM-DD/`, complete once a file `_SUCCESS` lies in it, as Spark and Hive do it.

The files are upstream's: they are read, and neither moved nor removed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

from dpdau_assets.core.errors import BadInput, BadSetting
from resources.event_files import ENDINGS, offered, passed_over

_DAY = re.compile(r"day=(\d{4}-\d{2}-\d{2})")
_COMPLETE = "_SUCCESS"


class LandingFiles:
    """One folder a day; without a LANDING_DIR there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def days(self) -> Mapping[date, str]:
        """Raises BadSetting for a LANDING_DIR that is no folder."""
        return {day: _fingerprint(folder) for day, folder in sorted(self._complete())}

    def files(self, day: date) -> list[Path]:
        folder = dict(self._complete()).get(day)
        found = offered(folder) if folder else []
        if folder and not found and passed_over(folder):
            raise BadInput(
                f"The folder of {day} has files, and none with an ending that is read.",
                f"Write them so that they end in {ENDINGS}; a day on which nothing happened has no files.",
            )
        return found

    def passed_over(self, day: date) -> int:
        folder = dict(self._complete()).get(day)
        return len(passed_over(folder)) if folder else 0

    def _complete(self) -> Iterator[tuple[date, Path]]:
        if self._folder is None:
            return
        if not self._folder.is_dir():
            raise BadSetting(f"LANDING_DIR={self._folder}: there is no such folder.", "Make it, or correct the name.")
        for folder in self._folder.iterdir():
            day = _day_of(folder.name)
            if day is not None and (folder / _COMPLETE).is_file():
                yield day, folder


def _day_of(name: str) -> date | None:
    match = _DAY.fullmatch(name)
    try:
        return date.fromisoformat(match.group(1)) if match else None
    except ValueError:
        return None


def _fingerprint(folder: Path) -> str:
    """Another one whenever a file came, went or was written anew; of names only a hash is kept."""
    found = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        status = file.stat()
        found.update(f"{file.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return found.hexdigest()
