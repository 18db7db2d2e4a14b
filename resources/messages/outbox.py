"""Messages that wait until every receiver has taken them, in one file that all processes of a store share.

`outbox.json` is replaced whole, under a lock that nobody holds while a receiver is waited for. Who delivers holds
another lock, so that two processes do not send one message; where one dies in between, the next sends it again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from dpdau_assets.core.security_events import SecurityEvent, Sum, Sums
from resources.messages.delivery import NotDelivered
from resources.storage.durable import write_durably
from resources.storage.file_lock import FileLock

FOLDER = "messages"

MOST_WAITING = 1_000
"""Messages; of a receiver that stays away for longer the oldest ones are let go of, which the log has."""

_REMEMBERED = 1_000  # names of messages that are sent once
_LOG = logging.getLogger("dpdau.alerts")

Payloads = Mapping[str, Mapping[str, Any]]
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

    def with_sums(self, sums: Sums) -> Kept:
        """What is kept, with other sums."""
        return replace(self, sums=sums)

    def to_json(self) -> dict[str, Any]:
        sums = [{**asdict(event), **asdict(kept)} for event, kept in self.sums.items()]
        return {"following": self.following, "waiting": self.waiting, "once": self.once, "sums": sums}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Kept:
        sums = {
            SecurityEvent(each["kind"], each["about"]): Sum(each["count"], each["since"], each["told_at"])
            for each in value["sums"]
        }
        waiting = {int(number): payloads for number, payloads in value["waiting"].items()}
        return cls(int(value["following"]), waiting, tuple(value["once"]), sums)


class Outbox:
    """The messages of one store.

    Args:
        folder: DATA_DIR/messages.
        receivers: by name, each of which takes what is put in for it or raises NotDelivered. What waits for one that is
            not among them is let go of: nobody is told any more there.
    """

    def __init__(self, folder: Path, receivers: Mapping[str, Callable[[Any], None]]) -> None:
        self._file = folder / "outbox.json"
        self._lock = FileLock(folder / "outbox.lock")
        self._sender = FileLock(folder / "sender.lock")
        self._receivers = receivers

    @property
    def is_used(self) -> bool:
        """Whether anything was ever put in: a store that has told nobody anything has no file."""
        return self._file.exists()

    def put(self, payloads: Payloads, once: str | None = None) -> bool:
        """Keep a message until it has arrived; False for one that was put in before under this name."""
        with self.changed() as kept:
            if once is not None and once in kept.now.once:
                return False
            kept.now = _with(kept.now, [payloads], once)
        return True

    def deliver(self) -> None:
        """Give every receiver what waits for it, in order, as far as it takes it.

        Raises NotDelivered, of the first receiver that does not, when all were asked. Returns at once where another
        process is delivering.
        """
        with self._sender.tried() as is_free:
            if not is_free or not self.is_used:
                return
            failed = [error for name in self._named() if (error := self._deliver_to(name))]
        if failed:
            raise failed[0]

    @contextmanager
    def changed(self) -> Iterator[Change]:
        """What is kept, for a change: what `now` is at the end of the block is written, if it is another."""
        with self._lock.held():
            change = Change(before := self._read())
            yield change
            if change.now != before:
                self._write(change.now)

    def _named(self) -> list[str]:
        with self._lock.held():
            return list(dict.fromkeys(name for payloads in self._read().waiting.values() for name in payloads))

    def _deliver_to(self, name: str) -> NotDelivered | None:
        with self._lock.held():
            mine = [(number, payloads[name]) for number, payloads in self._read().waiting.items() if name in payloads]
        receiver = self._receivers.get(name, _nobody)
        for number, payload in mine:
            try:
                receiver(payload)
            except NotDelivered as error:
                return error
            with self.changed() as kept:
                kept.now = _arrived(kept.now, number, name)
        return None

    def _read(self) -> Kept:
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            return Kept()
        try:
            return Kept.from_json(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError):
            _LOG.error("%s cannot be read: what waited in it is lost, and the log alone has it.", self._file.name)
            return Kept()

    def _write(self, kept: Kept) -> None:
        content = json.dumps(kept.to_json()).encode()

        def write(file: BinaryIO) -> None:
            file.write(content)

        write_durably(self._file, write)


@dataclass
class Change:
    """What an outbox keeps, while it is being changed."""

    now: Kept

    def put(self, payloads: Payloads) -> None:
        """Keep one more message."""
        self.now = _with(self.now, [payloads], None)


def _with(kept: Kept, messages: list[Payloads], once: str | None) -> Kept:
    numbered = {kept.following + place: payloads for place, payloads in enumerate(messages) if payloads}
    waiting = {**kept.waiting, **numbered}
    for number in list(waiting)[: max(0, len(waiting) - MOST_WAITING)]:
        del waiting[number]
    names = kept.once if once is None else (*kept.once, once)[-_REMEMBERED:]
    return replace(kept, following=kept.following + len(messages), waiting=waiting, once=names)


def _arrived(kept: Kept, number: int, name: str) -> Kept:
    left = {other: payload for other, payload in kept.waiting.get(number, {}).items() if other != name}
    others = {place: payloads for place, payloads in kept.waiting.items() if place != number}
    waiting = dict(sorted({**others, number: left}.items())) if left else others
    return replace(kept, waiting=waiting)


def _nobody(_: object) -> None:
    """Stands for a receiver that is configured no more."""
