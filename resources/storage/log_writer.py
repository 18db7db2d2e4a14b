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
from threading import Condition, Event, Lock, Thread
from time import monotonic

from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.facts import Arrivals
from resources.storage.write_ahead_log import Segment, SegmentIsGone

GATHER_SECONDS = 0.005
SEAL_SECONDS = 10.0
SEAL_BYTES = 16 << 20
LOOK_SECONDS = 0.5

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
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._folder, self._seal_one = folder, seal
        self._gather, self._seal_seconds, self._seal_bytes = gather_seconds, seal_seconds, seal_bytes
        self._look_seconds = look_seconds
        self._waiting: _Waiting = []
        self._arrived = Condition()
        self._closing = Event()
        self._segment: Segment | None = None
        self._using = Lock()  # of the segment, by the thread that writes and the one that seals
        self._to_seal = ""
        self._told = ""
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
        self._let_go(at_once=True)
        self._seal()

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
            with self._using:
                if self._segment is None or not self._segment.is_usable:
                    self._segment = Segment(self._folder)
                    self._begun_at = monotonic()
                try:
                    self._segment.append(arrivals)
                    return
                except SegmentIsGone:
                    self._segment.close()
                    self._segment = None

    # The thread that seals

    def _seal_all(self) -> None:
        while not self._closing.wait(self._look_seconds):
            self._let_go()
            self._seal()

    def _let_go(self, *, at_once: bool = False) -> None:
        """Close a segment that is due to be sealed, or that others have sealed: while it is open its bytes stay."""
        with self._using:
            segment = self._segment
            if segment is None or not (at_once or self._is_due(segment) or not segment.is_there):
                return
            self._segment = None
            if segment.is_usable:
                self._to_seal = segment.path.stem
                segment.close()

    def _is_due(self, segment: Segment) -> bool:
        is_old = monotonic() - self._begun_at >= self._seal_seconds
        return not segment.is_usable or (segment.size > 0 and (is_old or segment.size >= self._seal_bytes))

    def _seal(self) -> None:
        """What cannot be sealed now is tried again at the next look, and by whoever folds."""
        if not self._to_seal:
            return
        try:
            self._seal_one(self._to_seal)
            self._to_seal = ""
        except DpdauError as error:
            self._tell_once(error.reason)
        except OSError as error:
            self._tell_once(f"{self._to_seal} cannot be sealed: {error.strerror}.")

    def _tell_once(self, reason: str) -> None:
        if reason != self._told:
            self._told = reason
            _log.error("The write-ahead log: %s", reason)
