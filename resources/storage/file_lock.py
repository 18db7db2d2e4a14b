"""One lock for a data directory, across threads and processes, released by the system when its holder dies."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.storage.durable import create_missing, make_folder


class FileLock:
    """`held` waits for every other holder; the same thread may hold it again inside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread_lock = threading.RLock()
        self._depth = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._thread_lock:
            if self._depth:
                yield
                return
            make_folder(self._path.parent)
            create_missing(self._path)
            with self._path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
