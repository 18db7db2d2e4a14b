"""Files on this machine: the one at a path, those in a folder, those that a pattern matches."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from dpdau_assets.core.errors import BadInput

Place = Literal["named", "matched", "inside"]
"""How a file was found: by its own name, by a pattern, or inside of a folder."""

WILD = re.compile(r"[*?]")
_CHECKSUMS = (".crc", ".md5", ".sha1", ".sha256", ".sha512")


@dataclass(frozen=True)
class Entry:
    """Something at a location. Its `source` gives the bytes as stored, and is None for what is no file.

    `name` is what it is called in messages, `local` where it lies on this machine, `size` is in bytes, 0 if unknown.
    """

    name: str
    place: Place
    size: int
    local: Path | None
    source: Callable[[], BinaryIO] | None = field(repr=False, compare=False)


def is_hidden(parts: Sequence[str]) -> bool:
    """Whether a file that is called so, below a folder, is passed over."""
    return any(part.startswith((".", "_")) for part in parts) or parts[-1].lower().endswith(_CHECKSUMS)


def local_entries(path: Path) -> list[Entry]:
    """The file at a path, all files in and below a folder, or what a pattern matches; see `entries_at`."""
    found = _status(path)
    if found is not None:
        return _entries_below(path) if stat.S_ISDIR(found.st_mode) else [_entry(path, "named")]
    if not WILD.search(str(path)):
        raise BadInput(f"{path} does not exist.", "Name a file, or a folder that holds event files.", path=str(path))
    matches = dict.fromkeys(_matches(Path(), path.parts))
    entries = [entry for match in matches for entry in _at_match(match)]
    if not entries:
        raise BadInput(f"{path} matches no file.", "Correct the pattern.", path=str(path))
    return entries


def _at_match(match: Path) -> list[Entry]:
    return _entries_below(match) if match.is_dir() and not match.is_symlink() else [_entry(match, "matched")]


def _matches(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """What is in the folder and is called as the parts of a pattern say."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _matches_below(folder, rest) if rest else sorted(_paths_below(folder))
    elif not WILD.search(part):
        yield from _followed(folder / part, rest)
    else:
        called = re.compile(re.escape(part).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
        for path in _inside(folder):
            is_shown = part.startswith((".", "_")) or not is_hidden([path.name])
            if called.fullmatch(path.name) and is_shown and not (rest and path.is_symlink()):
                yield from _followed(path, rest)


def _followed(path: Path, rest: Sequence[str]) -> Iterator[Path]:
    if rest and path.is_dir():
        yield from _matches(path, rest)
    elif not rest and os.path.lexists(path):
        yield path


def _matches_below(folder: Path, rest: Sequence[str]) -> Iterator[Path]:
    yield from _matches(folder, rest)
    for path in _inside(folder):
        if path.is_dir() and not path.is_symlink() and not is_hidden([path.name, "folder"]):
            yield from _matches_below(path, rest)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _not_opened(folder, error) from None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise _not_opened(path, error) from None


def _not_opened(path: Path, error: OSError) -> BadInput:
    return BadInput(f"{path} cannot be opened: {error.strerror}.", "Make it readable.", path=str(path))


def _entry(path: Path, place: Place) -> Entry:
    try:
        found = path.stat()
    except OSError:  # a link to nothing
        return Entry(str(path), place, 0, path, None)
    is_file = stat.S_ISREG(found.st_mode)
    return Entry(str(path), place, found.st_size, path, partial(path.open, "rb") if is_file else None)


def entry_of(path: Path) -> Entry:
    """The file at a path on this machine, whether or not it is there."""
    found = _entry(path, "named")
    return found if found.source else replace(found, source=partial(path.open, "rb"))


def _entries_below(folder: Path) -> list[Entry]:
    return [_entry(path, "inside") for path in sorted(_paths_below(folder))]


def _paths_below(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise _not_opened(error.filename, error)

    for place, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        folders[:] = [name for name in folders if not is_hidden([name, "folder"])]
        yield from (Path(place) / name for name in (*files, *links) if not is_hidden([name]))
