"""Messages that wait until every receiver has taken them, in one file that all processes of a store share.

`outbox.json` is replaced whole, under a lock that nobody holds while a receiver is waited for. Who sends to a receiver
holds that receiver's own lock, so that two processes do not send it one message, and one that is slow holds up no
other; where a process dies in between, the next sends the message again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.security_events import KINDS, SecurityEvent, Sum, Sums
from resources.messages.delivery import NotDelivered, NotKept, Payload, Receiver, Unwanted
from resources.storage.durable import write_durably
from resources.storage.file_lock import FileLock

FOLDER = "messages"

MOST_WAITING = 1_000
"""Messages for one receiver; if it stays away for longer the oldest ones are let go of, and alerts are in the log."""

REST_SECONDS = 60.0
"""How long a process leaves a receiver alone that did not take a message."""

_REMEMBERED = 1_000  # names of messages that are sent once
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_LOG = logging.getLogger("dpdau.messages")

Payloads = Mapping[str, Payload]
"""What each receiver gets, by its name."""


@dataclass(frozen=True)
class Kept:
    """What the file holds.

    Attributes:
        waiting: by number, in order; what each receiver that has not taken it yet gets.
        once: names of messages that were put in and are not to be again, the newest last.
    """

    following: int = 0
    waiting: Mapping[int, Payloads] = field(default_factory=dict)
    once: tuple[str, ...] = ()
    sums: Sums = field(default_factory=dict)

    def having(self, payloads: Payloads, once: str | None = None) -> Kept:
        """What is kept, and one more message."""
        names = self.once if once is None else (*self.once, once)[-_REMEMBERED:]
        added = {self.following: payloads} if payloads else {}
        waiting = _newest({**self.waiting, **added})
        return replace(self, following=self.following + 1, waiting=waiting, once=names)

    def without(self, number: int, name: str) -> Kept:
        """What is kept, but for what this receiver was to get as this message."""
        return replace(self, waiting=_left(self.waiting, {(number, name)}))

    def with_sums(self, sums: Sums) -> Kept:
        """What is kept, with other sums."""
        return replace(self, sums=sums)

    def to_json(self) -> dict[str, Any]:
        sums = [{**asdict(event), **asdict(kept)} for event, kept in self.sums.items()]
        return {"following": self.following, "waiting": self.waiting, "once": self.once, "sums": sums}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Kept:
        """The reverse of `to_json`. Raises one of several errors for anything else."""
        sums = {_event(each): _sum(each) for each in value["sums"]}
        waiting = {int(number): _payloads(payloads) for number, payloads in value["waiting"].items()}
        return cls(int(value["following"]), waiting, tuple(map(str, value["once"])), sums)


def _empty() -> Kept:
    """Nothing, numbered from now on: who sends what was there before is not to take a new message for it."""
    return Kept(following=time.time_ns())


def _setting(name: str) -> str:
    """The variable that names this receiver, for errors: what it holds may be an address."""
    return name.partition(" ")[0].upper()


def _event(row: Mapping[str, Any]) -> SecurityEvent:
    if row["kind"] not in KINDS:
        raise ValueError("no such kind")
    return SecurityEvent(row["kind"], str(row["about"]), bool(row["is_counted"]))


def _sum(row: Mapping[str, Any]) -> Sum:
    times = [float(row["since"]), *([] if row["told_at"] is None else [float(row["told_at"])])]
    for moment in times:
        datetime.fromtimestamp(moment, UTC)  # raises for what is no time
    return Sum(int(row["count"]), times[0], *times[1:])


def _payloads(row: Mapping[str, Any]) -> Payloads:
    return {str(name): dict(payload) for name, payload in row.items()}


def _newest(waiting: Mapping[int, Payloads]) -> Mapping[int, Payloads]:
    """What waits, with no more of each receiver's than are kept."""
    too_old: set[tuple[int, str]] = set()
    for name in {name for payloads in waiting.values() for name in payloads}:
        numbers = [number for number, payloads in waiting.items() if name in payloads]
        too_old |= {(number, name) for number in numbers[: max(0, len(numbers) - MOST_WAITING)]}
    return _left(waiting, too_old) if too_old else waiting


def _left(waiting: Mapping[int, Payloads], gone: set[tuple[int, str]]) -> Mapping[int, Payloads]:
    left = {
        number: {name: payload for name, payload in payloads.items() if (number, name) not in gone}
        for number, payloads in waiting.items()
    }
    return {number: payloads for number, payloads in left.items() if payloads}


class Outbox:
    """The messages of one store.

    Args:
        folder: DATA_DIR/messages.
        receivers: by name. What waits for one that is not among them stays: another process may know it.
        clock: seconds, from any beginning.
    """

    def __init__(self, folder: Path, receivers: Mapping[str, Receiver], clock: Callable[[], float] = monotonic) -> None:
        self._folder = folder
        self._file = folder / "outbox.json"
        self._lock = FileLock(folder / "outbox.lock")
        self._receivers = receivers
        self._clock = clock
        self._sending: dict[str, _Sending] = {}
        self._taken: set[tuple[int, str]] = set()
        self._rests_until: dict[str, float] = {}

    @property
    def is_used(self) -> bool:
        """Whether anything was ever put in: a store that has told nobody anything has no file. Raises NotKept."""
        try:
            return self._file.exists()
        except OSError as error:
            raise NotKept.by(error) from None

    def put(self, payloads: Payloads, once: str | None = None) -> bool:
        """Keep a message until it has arrived; False for one that was put in before under this name.

        The name of a message for nobody is not remembered: another process may know for whom it is. Raises NotKept.
        """
        if not payloads:
            return True
        with self.changed() as kept:
            if once is not None and once in kept.now.once:
                return False
            kept.now = kept.now.having(payloads, once)
        return True

    @contextmanager
    def changed(self) -> Iterator[Change]:
        """What is kept, for a change: what `now` is at the end of the block is written, if it is another.

        Raises NotKept where it cannot be read or written; then nothing is changed.
        """
        try:
            with self._lock.held():
                change = Change(before := self._read())
                yield change
                if change.now != before:
                    self._write(change.now)
        except OSError as error:
            raise NotKept.by(error) from None

    def deliver(self, patience: float) -> None:
        """Give every receiver what waits for it, in order, as far as it takes it; for so many seconds at most.

        A receiver that takes longer goes on being sent to, by a thread that ends with the process. Meanwhile nothing
        else is sent to it, and it is waited for no more.

        Raises NotDelivered, of the first receiver that has not taken everything, and NotKept.
        """
        if not self.is_used:
            return
        until = self._clock() + patience
        before = {name: each for name, each in self._sending.items() if each.is_alive()}
        sending = [self._sending_to(name) for name in self._waited_for()]
        failed = [
            error
            for each in sending
            if (error := each.outcome(0.0 if each in before.values() else max(0.0, until - self._clock())))
        ]
        if failed:
            raise failed[0]

    def _waited_for(self) -> list[str]:
        with self.changed() as kept:
            names = dict.fromkeys(name for payloads in kept.now.waiting.values() for name in payloads)
        return [name for name in names if name in self._receivers and self._clock() >= self._rests_until.get(name, 0)]

    def _sending_to(self, name: str) -> _Sending:
        running = self._sending.get(name)
        if running is None or not running.is_alive():
            self._sending[name] = running = _Sending(name, lambda: self._send(name))
        return running

    def _send(self, name: str) -> None:
        """All that waits for this receiver; nothing where another process is at it."""
        lock = FileLock(self._folder / f"receiver-{sha256(name.encode()).hexdigest()[:16]}.lock")
        with lock.tried() as is_free:
            if not is_free:
                return
            with self.changed() as kept:
                mine = [(number, payloads[name]) for number, payloads in kept.now.waiting.items() if name in payloads]
                self._write(kept.now)  # nothing is sent where its arrival could not be written
            for number, payload in mine:
                self._send_one(number, name, payload)

    def _send_one(self, number: int, name: str, payload: Payload) -> None:
        if (number, name) not in self._taken:
            try:
                self._receivers[name](payload)
            except Unwanted as error:
                _LOG.error("%s %s", error.reason, error.remedy)
            except Exception as error:
                self._rests_until[name] = self._clock() + REST_SECONDS
                raise error if isinstance(error, DpdauError) else NotDelivered.by(_setting(name), error) from None
            self._taken.add((number, name))  # so that it is not sent again where this cannot be written
        with self.changed() as kept:
            kept.now = kept.now.without(number, name)
        self._taken.discard((number, name))

    def _read(self) -> Kept:
        try:
            return Kept.from_json(json.loads(self._file.read_bytes()))
        except FileNotFoundError:
            return _empty()
        except _UNREADABLE:
            self._file.replace(self._file.with_suffix(".unreadable"))
            _LOG.error("%s could not be read and was moved aside: the log has its alerts.", self._file.name)
            return _empty()

    def _write(self, kept: Kept) -> None:
        content = json.dumps(kept.to_json()).encode()

        def write(file: BinaryIO) -> None:
            file.write(content)

        write_durably(self._file, write)


@dataclass
class Change:
    """What an outbox keeps, while it is being changed."""

    now: Kept


class _Sending:
    """A thread that sends to one receiver. No process waits for it when it ends."""

    def __init__(self, name: str, send: Callable[[], None]) -> None:
        self._name = name
        self._error: DpdauError | None = None
        self._thread = threading.Thread(target=self._run, args=(send,), name=f"messages to {name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            self._error = NotDelivered.by(_setting(name), error)

    def is_alive(self) -> bool:
        """Whether it is still at it."""
        return self._thread.is_alive()

    def outcome(self, patience: float) -> DpdauError | None:
        """What went wrong, by the end of this time: also that it is not done."""
        if self.is_alive():
            self._thread.join(patience)
        if self.is_alive():
            return NotDelivered(f"{_setting(self._name)} takes its time.", "It goes on being sent to.")
        return self._error

    def _run(self, send: Callable[[], None]) -> None:
        try:
            send()
        except DpdauError as error:
            self._error = error
        except Exception as error:  # of ours: it must not end without being told
            self._error = NotDelivered.by(_setting(self._name), error)
