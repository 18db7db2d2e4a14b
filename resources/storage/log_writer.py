"""The writer of the write-ahead log: what many requests bring becomes durable together, by one thread a process.

A sync takes a millisecond or more, however much it syncs. So the thread waits a moment for others to come, writes one
frame for all of them, syncs once, and then tells each. A second thread makes batches of what was written, while
requests go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Condition, Event, Thread
from time import monotonic

from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.facts import Arrivals
from resources.storage.write_ahead_log import Segment, SegmentIsGone

GATHER_SECONDS = 0.005
SEAL_SECONDS = 10.0
SEAL_BYTES = 16 << 20
_LOOK_SECONDS = 0.5

_log = logging.getLogger("dpdau.api")
_Waiting = list[tuple[Arrivals, "Future[None]"]]


class LogWriter:
    """Appends to a segment of its own in `folder`; `seal` makes a batch of the one whose name it is given.

    It is sealed `seal_seconds` after its first frame, or once it has `seal_bytes`, and when the writer is closed.
    """

    def __init__(
        self,
        folder: Path,
        seal: Callable[[str], None],
        *,
        gather_seconds: float = GATHER_SECONDS,
        seal_seconds: float = SEAL_SECONDS,
        seal_bytes: int = SEAL_BYTES,
    ) -> None:
        self._folder, self._seal_one = folder, seal
        self._gather, self._seal_seconds, self._seal_bytes = gather_seconds, seal_seconds, seal_bytes
        self._waiting: _Waiting = []
        self._arrived = Condition()
        self._closing = Event()
        self._segment: Segment | None = None
        self._begun_at = 0.0
        self._threads = [Thread(target=self._commit_all, name="log"), Thread(target=self._seal_all, name="seal")]
        for thread in self._threads:
            thread.start()

    def append(self, arrivals: Arrivals) -> Future[None]:
        """Done once they are durable. It has OSError if they are not, and nothing of them was kept."""
        durable: Future[None] = Future()
        with self._arrived:
            if self._closing.is_set():
                raise RuntimeError("The writer is closed.")
            self._waiting.append((arrivals, durable))
            self._arrived.notify()
        return durable

    @property
    def is_alive(self) -> bool:
        """Whether what is appended will be written, and then sealed."""
        return all(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Make durable what waits, and seal it. Nothing may be appended any more."""
        with self._arrived:
            self._closing.set()
            self._arrived.notify()
        for thread in self._threads:
            thread.join()
        if self._segment is not None:
            self._segment.close()
            self._seal(self._segment)

    # The thread that writes

    def _commit_all(self) -> None:
        while taken := self._taken():
            try:
                self._commit([arrivals for arrivals, _ in taken])
            except Exception as error:  # whatever it is, those who wait hear of it, and the thread lives on
                for _, durable in taken:
                    durable.set_exception(error)
            else:
                for _, durable in taken:
                    durable.set_result(None)

    def _taken(self) -> _Waiting:
        """Everything that waits, once something does; nothing when the writer is closed."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting or self._closing.is_set())
        self._closing.wait(self._gather)  # for others to come
        with self._arrived:
            taken, self._waiting = self._waiting, []
        return taken

    def _commit(self, arrivals: list[Arrivals]) -> None:
        while True:
            segment = self._segment
            if segment is None or not segment.is_usable:
                self._begun_at = monotonic()
                self._segment = segment = Segment(self._folder)
            try:
                segment.append(arrivals)
                return
            except SegmentIsGone:
                segment.close()

    # The thread that seals

    def _seal_all(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            segment = self._segment
            if segment is not None and segment.size and self._is_due(segment):
                self._seal(segment)

    def _is_due(self, segment: Segment) -> bool:
        return monotonic() - self._begun_at >= self._seal_seconds or segment.size >= self._seal_bytes

    def _seal(self, segment: Segment) -> None:
        """What cannot be sealed now is there the next time, and for whoever folds."""
        try:
            self._seal_one(segment.path.stem)
        except (DpdauError, OSError) as error:
            _log.error("The write-ahead log could not be sealed: %s.", type(error).__name__)
