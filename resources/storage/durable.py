"""Files whose bytes appear whole or not at all, and are on disk when a call returns.

A file is written under a temporary name that ends with `.tmp`, synced, renamed, and its folder synced. While a writer
lives it holds a lock on its temporary file, so `sweep` can tell what a killed one left behind.

Files and folders have the mode that is asked for, whatever the process's umask says: its owner's alone, unless others
are named.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

Write = Callable[[BinaryIO], None]

PRIVATE, PRIVATE_FOLDER = 0o600, 0o700

_OURS = re.compile(r"\.[0-9a-f]{16}\.tmp")
_SYNCS_AT_ONCE = 8
_OPEN_AT_ONCE = 128  # far below the 1024 files that a process may usually hold open


def write_durably(path: Path, write: Write, mode: int = PRIVATE) -> None:
    """Give `path` the bytes that `write` writes; whatever stood there is replaced in one step."""
    write_all_durably([(path, write)], mode=mode)


def write_all_durably(
    files: Iterable[tuple[Path, Write]], before_renames: Callable[[], None] = lambda: None, mode: int = PRIVATE
) -> None:
    """Write many files durably, each for itself: their syncs overlap, and each folder is synced once a group.

    `files` is asked for the next one only after the last was written, so one file's content is in memory at a time.
    `before_renames` is called when all that were asked for so far are on disk, and before any of them takes its place.
    """
    rest = iter(files)
    while first := next(rest, None):
        with ThreadPoolExecutor(_SYNCS_AT_ONCE) as threads:  # only now: most calls have nothing to write
            _write_group(chain([first], islice(rest, _OPEN_AT_ONCE - 1)), threads, before_renames, mode)


def write_named_durably(folder: Path, staging: Path, write: Callable[[BinaryIO], str | None]) -> Path | None:
    """A file in `folder` under the name that `write` returns once the content is known; None: there is no file.

    `staging`, on the same file system, holds the temporary file.
    """
    make_folder(folder)
    with _temporary(staging, PRIVATE) as (temporary, file):
        name = write(file)
        if name is None:
            return None
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(folder / name)
        sync_folder(folder)
    return folder / name


def create(path: Path, mode: int = PRIVATE) -> BinaryIO:
    """A new file with exactly this mode, open to be written and read. Raises FileExistsError for one that is there."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    os.fchmod(descriptor, mode)  # the umask has taken its part
    return os.fdopen(descriptor, "w+b")


def create_missing(path: Path) -> None:
    """An empty private file, if there is none."""
    with suppress(FileExistsError):
        create(path).close()


def make_folder(folder: Path, mode: int = PRIVATE_FOLDER) -> None:
    """Create the folder and what is missing above it, durably, with exactly this mode; one that is there keeps its."""
    for place in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
        with suppress(FileExistsError):  # somebody else was first
            place.mkdir(mode=mode)
            place.chmod(mode)
        sync_folder(place.parent)


def mode_in(folder: Path) -> int:
    """The mode of a file for whoever may read this folder: private, and else readable as the folder is."""
    return PRIVATE | stat.S_IMODE(folder.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH)


def sweep(root: Path) -> None:
    """Unlink the temporary files in this folder, and those below it, that no living writer holds."""
    for path in root.rglob(".*.tmp"):
        if not _OURS.fullmatch(path.name) or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError, PermissionError):
            continue  # its writer lives, or has just renamed it; or it is no file of this user


def unlink_durably(path: Path) -> None:
    """Unlink the file, if there is one, so that it stays away."""
    if path.exists():
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Make what was written to this file durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames and unlinks in this folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_group(
    files: Iterable[tuple[Path, Write]], threads: ThreadPoolExecutor, before_renames: Callable[[], None], mode: int
) -> None:
    """Write, sync and rename these. Nothing is renamed before all of them are on disk."""
    staged: list[tuple[Path, Path, Future[None]]] = []
    with ExitStack() as temporaries:
        for path, write in files:
            temporary, file = temporaries.enter_context(_temporary(path.parent, mode))
            write(file)
            file.flush()
            staged.append((temporary, path, threads.submit(os.fsync, file.fileno())))
        for _, _, synced in staged:
            synced.result()
        before_renames()
        for temporary, path, _ in staged:
            temporary.replace(path)
        for folder in {path.parent for _, path, _ in staged}:
            sync_folder(folder)


@contextmanager
def _temporary(folder: Path, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
    """A new temporary file, locked; it is unlinked at the end unless it was renamed by then."""
    make_folder(folder)
    path, file = _claim(folder, mode)
    try:
        with file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


def _claim(folder: Path, mode: int) -> tuple[Path, BinaryIO]:
    """Create and lock; again under another name if a sweep came in between the two."""
    while True:
        path = folder / f".{secrets.token_hex(8)}.tmp"
        file = create(path, mode)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()
