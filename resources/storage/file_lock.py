"""A lock across threads and processes, by the library filelock; released by the system when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from resources.storage.durable import PRIVATE, make_folder

if TYPE_CHECKING:
    import filelock

_ASK_AGAIN = 0.01  # seconds; who waits asks again, and nobody stands in line


class FileLock:
    """`held` waits for every other holder; the same thread may hold it again inside. A fork does not hold it.

    The lock is the path's, not this object's. Its file is private and stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for it, and hold it until the end of the block."""
        with self._opened():
            yield

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """Whether it was free; then it is held until the end of the block."""
        import filelock

        lock = self._opened()
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _opened(self) -> filelock.BaseFileLock:
        import filelock  # only here: it would take a tenth of an answer from the ledger, which takes no lock

        make_folder(self._path.parent)
        return filelock.FileLock(
            self._path,
            mode=PRIVATE,
            poll_interval=_ASK_AGAIN,
            is_singleton=True,  # so that a thread may hold it again by another object
            fallback_to_soft=False,  # a file system without locks is an error, not a lock that outlives its holder
        )
