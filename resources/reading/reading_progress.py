"""How far the reading of files is, told while it goes on: by bytes, and with the rows that were read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from duckdb import DuckDBPyConnection

from dpdau_assets.core.ports.events import Tell

_LOOK_SECONDS = 0.2  # between two looks at how far DuckDB is


class ReadingProgress:
    """Which share of the bytes is read, over all parts."""

    def __init__(self, connection: DuckDBPyConnection, total: int, tell: Tell) -> None:
        """`total` are the bytes of all files, as stored."""
        self._connection = connection
        self._total = max(1, total)
        self._tell = tell
        self._read, self._part, self._parts, self._rows = 0, 0, 1, 0
        self._open: BinaryIO | None = None

    def begin(self, part: int, parts: int) -> None:
        """From here on, this part of the people is read."""
        self._read, self._part, self._parts = 0, part, parts

    def follow(self, file: BinaryIO) -> None:
        """A file that is read here, piece by piece."""
        self._open = file

    def look(self) -> None:
        """Tell how far the followed file was read."""
        if self._open is not None and not self._open.closed:
            self._say(self._read + self._open.tell())

    def done(self, size: int) -> None:
        """A file of so many bytes was read whole."""
        self._open = None
        self._read += size
        self._say(self._read)

    def took(self, rows: int) -> None:
        """So many more rows were read."""
        self._rows += rows

    @contextmanager
    def of_query(self, size: int, about_rows: int) -> Iterator[None]:
        """While DuckDB reads so many bytes, and about so many rows, by itself: what it says of how far it is."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_LOOK_SECONDS):
                known = max(0.0, self._connection.query_progress()) / 100
                self._say(self._read + known * size, int(known * about_rows))

        if not size:
            yield
            return
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _say(self, read: float, rows: int = 0) -> None:
        self._tell((self._part + min(1.0, read / self._total)) / self._parts, self._rows + rows)
