"""The port Quarantine: which rows were bad, as one immutable CSV an ingest, named after what it holds.

Beside a CSV, under its name and `.json`, stands which share of the ingest's rows it has.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from dpdau_assets.core.facts import BadShare, RejectedRow
from dpdau_assets.core.identity import Named
from resources.storage.durable import sweep, unlink_durably, write_durably, write_named_durably
from resources.storage.file_lock import FileLock

_ROWS_AT_ONCE = 10_000
_HEADER = ["file", "line", "reason"]
_FORMULAS = tuple("=+-@\t\r\n＝＋－＠")


class FileQuarantine:
    """Bad rows as `quarantine/<hash>.csv` below a root."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "quarantine"
        self._staging = self._folder / ".staging"
        self._lock = FileLock(root / "quarantine.lock")

    def keep(self, rows: Iterable[RejectedRow]) -> Path | None:
        sweep(self._staging)
        return self._write((_no_formula(row.file), row.line, row.reason) for row in rows)

    def note_share(self, kept: Path, share: float, *, taken: bool) -> None:
        with self._alone():
            if kept.exists():
                _note(kept, {"share": share, "taken": taken})

    def shares(self) -> list[BadShare]:
        notes = [(path, _noted(path)) for path in self._files()]
        shares = [BadShare(path.stem, noted["share"], noted["taken"], _written(path)) for path, noted in notes if noted]
        return sorted(shares, key=lambda share: (share.seen_on, share.rows))

    def made_good(self, files: Set[str], within: Path | None = None) -> None:
        names = {_no_formula(file) for file in files}
        folder = f"{within}/" if within else None

        def is_among(name: str) -> bool:
            return name in names or bool(folder and name.startswith(folder))

        with self._alone():
            for path in self._files():
                noted = _noted(path)
                if noted and not noted["taken"] and _all_rows(path, is_among):
                    unlink_durably(_beside(path))

    def forget(self, named: Named) -> None:
        with self._alone():
            for path in self._files():
                if named.is_in(path.stem):
                    _unlink(path)
                else:
                    self._forget_rows(path, named)

    def expire(self, before: date) -> None:
        with self._alone():
            for path in self._files():
                if _written(path) < before:
                    _unlink(path)
            for path in self._folder.glob("*.json"):
                if not path.with_suffix(".csv").exists():  # somebody has removed it
                    unlink_durably(path)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.csv"))

    def _forget_rows(self, path: Path, named: Named) -> None:
        """What is left is on disk under its new name before the old file goes: cut short, it is done again."""
        stays = _without(named)
        try:
            if all(map(stays, _rows(path))):
                return
        except csv.Error:  # nobody can tell whom it names
            _unlink(path)
            return
        age = path.stat().st_mtime
        kept, noted = self._write(filter(stays, _rows(path))), _noted(path)
        if kept:
            os.utime(kept, (age, age))
            if noted:
                _note(kept, noted)
        if kept != path:
            _unlink(path)

    def _write(self, rows: Iterable[Sequence[object]]) -> Path | None:
        return write_named_durably(self._folder, self._staging, partial(_write_rows, rows))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two that rewrite one file at once could each keep what the other has dropped."""
        if not self._folder.exists():
            yield
            return
        with self._lock.held():
            yield


def _no_formula(file: str) -> str:
    """A file's name such that a spreadsheet does not take it for a formula."""
    return f"./{file}" if file.startswith(_FORMULAS) else file


def _without(named: Named) -> Callable[[list[str]], bool]:
    """Whether a row stays: its file is named after none of them. Rows of one file are asked about once."""

    @cache
    def stays(file: str) -> bool:
        return not named.is_in(file)

    return lambda row: stays(row[0] if len(row) == len(_HEADER) else ",".join(row))


def _rows(path: Path) -> Iterator[list[str]]:
    """The rows of a CSV, without the header."""
    with path.open(encoding="utf-8", errors="backslashreplace", newline="") as file:
        yield from (row for row in csv.reader(file) if row and row != _HEADER)


def _write_rows(rows: Iterable[Sequence[object]], file: BinaryIO) -> str | None:
    """The CSV bytes; returns their name, or None without rows."""
    content = hashlib.sha256()
    rest = iter(rows)
    header: list[Sequence[object]] = [_HEADER]
    while lines := list(islice(rest, _ROWS_AT_ONCE)):
        text = io.StringIO(newline="")
        plain, quoted = (
            csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        for line in header + lines:
            (quoted if "\r" in f"{line[0]}" else plain).writerow(line)  # which the csv module passes over
        data = text.getvalue().encode(errors="backslashreplace")
        content.update(data)
        file.write(data)
        header = []
    return None if header else f"{content.hexdigest()[:32]}.csv"


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _note(path: Path, noted: dict[str, Any]) -> None:
    data = json.dumps(noted).encode()
    write_durably(_beside(path), lambda file: file.writelines([data]))


def _noted(path: Path) -> dict[str, Any] | None:
    """What stands beside a CSV; None for nothing, or what this project did not write."""
    try:
        note = json.loads(_beside(path).read_bytes())
        return {"share": float(note["share"]), "taken": bool(note["taken"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unlink(path: Path) -> None:
    unlink_durably(_beside(path))
    unlink_durably(path)


def _written(path: Path) -> date:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date()


def _all_rows(path: Path, is_among: Callable[[str], bool]) -> bool:
    try:
        return all(map(cache(is_among), (row[0] for row in _rows(path))))
    except csv.Error:
        return False
