"""What the HTTP API remembers of a day's requests: answers by Idempotency-Key, and whom a client asked to erase.

One SQLite file a day, `YYYY-MM-DD.sqlite`, with a random key of its own that is nowhere else: who unlinks the file has
destroyed the key, and all that it opens. Nothing that a client sent stands there as it was. What is only recognized is
kept as an HMAC under the day's key, and an answer, which may repeat a reference, encrypted under the Idempotency-Key
besides, which is not kept: without it nobody learns from the file which receipts a guessed request was answered with.

Losing the last moments of a file to a power cut is no harm, so no transaction waits for the disk: every POST may be
made twice, and the guard counts on.
"""

from __future__ import annotations

import errno
import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from threading import Lock
from time import monotonic, sleep

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dpdau_assets.core.errors import Damaged
from resources.storage.durable import create_missing, make_folder, sync_folder

FOLDER = "api"
"""Below the data directory."""

LEASE_SECONDS = 60.0
"""How long a request counts as running if nobody ends it: its process may have died."""

KEPT_SECONDS = 24 * 60 * 60.0
LARGEST_ANSWER = 256_000
"""Bytes; a larger body is not kept, and its request runs again when it comes again."""

_KEY_BYTES = 32
_AFTER = timedelta(days=2)  # from the first day that is kept, yesterday, to tomorrow, which may have begun elsewhere
_NONCE = bytes(12)
_WAIT_SECONDS = 60
_ANOTHER_TRY_SECONDS = 0.01
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_OURS = re.compile(r"(\d{4}-\d{2}-\d{2})\.sqlite(-wal|-shm|-journal)?")

_TABLES = (
    "CREATE TABLE IF NOT EXISTS secret (key BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS requests (record BLOB PRIMARY KEY, fingerprint BLOB NOT NULL, attempt BLOB NOT NULL, "
    "began REAL NOT NULL, answer BLOB)",
    "CREATE TABLE IF NOT EXISTS people (person BLOB PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS clients (client BLOB PRIMARY KEY, people INTEGER NOT NULL) WITHOUT ROWID",
)


@dataclass(frozen=True)
class New:
    """The request is to run now, and to be ended by `finish` or `abandon`, which are handed this."""

    day: date
    record: bytes = field(repr=False)
    attempt: bytes = field(repr=False)
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class InProgress:
    """An equal request is running. In so many seconds it may be made again, whatever has become of that one."""

    seconds_left: float


@dataclass(frozen=True)
class Replayed:
    """What an equal request was answered."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class OtherBody:
    """Another request had this Idempotency-Key."""


Begun = New | InProgress | Replayed | OtherBody


class SeenRequests:
    """The files of one folder, which is made at the first use. For the threads of one process; give each its own.

    `client` is the name of the API key, `today` the day by the store's clock, `now` seconds since 1970. Every method
    raises OSError where the disk takes nothing or another process holds the file for a minute, and Damaged for a file
    that is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._open: dict[date, _Day] = {}

    def begin(self, today: date, client: str, idempotency_key: str, asked: Iterable[bytes], now: float) -> Begun:
        """Ask whether a request was made before, and note that it runs if it was not. Of two at once one is New.

        `asked` is all that makes it this request: method, path with query, and body, in this order. What was answered
        is found again for 24 hours after it began.
        """
        parts = tuple(asked)
        day, yesterday = self._day(today), self._day_if_there(today - timedelta(days=1))
        mine = _Marks.of(day, client, idempotency_key, parts)
        with day.write() as connection:
            begun = _judged(_row(connection, mine), mine, now)
            if begun is None and yesterday is not None:  # asked inside, so that two at once cannot both pass
                before = _Marks.of(yesterday, client, idempotency_key, parts)
                with yesterday.read() as older:
                    row = _row(older, before)
                begun = _judged(row, before, now) if row is None or row.began > now - KEPT_SECONDS else None
            if begun is not None:
                return begun
            attempt = secrets.token_bytes(16)
            connection.execute(
                "INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, NULL)",
                (mine.record, mine.fingerprint, attempt, now),
            )
            return New(today, mine.record, attempt, mine.secret_of(attempt))

    def finish(self, request: New, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Keep what it was answered. Does nothing if its lease ran out and somebody else has begun it since."""
        if len(body) > LARGEST_ANSWER:
            self.abandon(request)
            return
        head = json.dumps({"status": status, "headers": dict(headers)}).encode()
        answer = _encrypted(request.secret, head + b"\n" + body)
        self._change(request, "UPDATE requests SET answer = ? WHERE record = ? AND attempt = ?", answer)

    def abandon(self, request: New) -> None:
        """Forget the request: it did nothing, or failed. The same one runs again at once, and so does another."""
        self._change(request, "DELETE FROM requests WHERE record = ? AND attempt = ?")

    def people_asked(self, today: date, client: str, user_ids: Iterable[str]) -> int:
        """Note that this client asked for these people today; how many others it had asked for today before.

        In one transaction: of two submissions at once, one counts the other's people.
        """
        day = self._day(today)
        people = {day.mac("person", client.encode(), _utf8(user_id)) for user_id in user_ids}
        name = day.mac("client", client.encode())
        with day.write() as connection:
            row = connection.execute("SELECT people FROM clients WHERE client = ?", (name,)).fetchone()
            before = 0 if row is None else row[0]
            unchanged = connection.total_changes
            connection.executemany("INSERT OR IGNORE INTO people VALUES (?)", [(person,) for person in people])
            new = connection.total_changes - unchanged
            connection.execute("INSERT OR REPLACE INTO clients VALUES (?, ?)", (name, before + new))
        return before - (len(people) - new)

    def expire(self, today: date) -> None:
        """Unlink, durably, the files of days before yesterday.

        Every process that has one open has to do so: until then the file system keeps what is unlinked.
        """
        yesterday = today - timedelta(days=1)
        with self._lock:
            self._close_before(yesterday)
        unlink_before(self._folder, yesterday)

    def close(self) -> None:
        """Close the files. They are opened again at the next use."""
        with self._lock:
            self._close_before(date.max)

    def _change(self, request: New, statement: str, *values: bytes) -> None:
        day = self._day_if_there(request.day)
        if day is not None:  # else its file went while it ran
            with day.write() as connection:
                connection.execute(statement, (*values, request.record, request.attempt))

    def _day(self, day: date) -> _Day:
        with self._lock:
            if day not in self._open:
                self._close_before(day - timedelta(days=1))
                make_folder(self._folder)
                create_missing(self._path(day))  # before SQLite does by the umask; its -wal and -shm take the mode
                self._open[day] = _Day(self._path(day))
            return self._open[day]

    def _day_if_there(self, day: date) -> _Day | None:
        with self._lock:
            if day not in self._open and self._path(day).exists():
                self._open[day] = _Day(self._path(day))
            return self._open.get(day)

    def _path(self, day: date) -> Path:
        return self._folder / f"{day}.sqlite"

    def _close_before(self, day: date) -> None:
        for older in [opened for opened in self._open if opened < day]:
            self._open.pop(older).close()


def unlink_before(folder: Path, before: date) -> None:
    """Unlink, durably, the files of days before this one; whatever else lies there stays.

    Files of days to come, which a clock that was set forward has left, go too: they would lie there for years.
    """
    last = before + _AFTER
    old = [path for path in sorted(folder.glob("*.sqlite*")) if not before <= (_day_of(path) or before) <= last]
    for path in old:
        path.unlink(missing_ok=True)
    if old:
        sync_folder(folder)


def _day_of(path: Path) -> date | None:
    """The day whose requests this file is of; None for a file of another kind."""
    name = _OURS.fullmatch(path.name)
    with suppress(ValueError):
        return date.fromisoformat(name[1]) if name else None
    return None


# --- The file of a day ------------------------------------------------------------------------------------------


class _Day:
    """One connection to the file of a day, used by one thread at a time, and the day's key."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._lock = Lock()
        with self._as_ours():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",  # a file that is gone is not made again
                uri=True,
                timeout=_WAIT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            with self._as_ours():
                _write_ahead(self._connection)
                for pragma in ("synchronous = NORMAL", "secure_delete = ON"):
                    self._connection.execute(f"PRAGMA {pragma}")
            self._key = self._stored_or_made()
        except BaseException:
            self._connection.close()
            raise

    def mac(self, purpose: str, *parts: bytes) -> bytes:
        """32 bytes that only the day's key makes of these parts, of which none can be taken for two."""
        keyed = hmac.new(self._key, digestmod="sha256")
        for part in (purpose.encode(), *parts):
            keyed.update(len(part).to_bytes(8, "big"))
            keyed.update(part)
        return keyed.digest()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction at a time, across processes: committed at the end, rolled back on any error."""
        with self._lock, self._as_ours(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """What is committed by now; waits for no other process."""
        with self._lock, self._as_ours():
            yield self._connection

    def close(self) -> None:
        with self._lock, self._as_ours():
            self._connection.close()

    def _stored_or_made(self) -> bytes:
        with self.write() as connection:
            for table in _TABLES:
                connection.execute(table)
            row = connection.execute("SELECT key FROM secret").fetchone()
            if row is None:
                row = (secrets.token_bytes(_KEY_BYTES),)
                connection.execute("INSERT INTO secret VALUES (?)", row)
        return row[0]

    @contextmanager
    def _as_ours(self) -> Iterator[None]:
        """Errors of SQLite, without what it says of the statement."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                raise Damaged(
                    f"{FOLDER}/{self._name} is damaged.",
                    "Remove it, with the files beside it of that name: it holds nothing but which requests came that "
                    "day, each of which may be made again.",
                ) from None
            what = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
            raise OSError(what, f"{FOLDER}/{self._name} takes nothing ({type(error).__name__} {code})") from None


def _write_ahead(connection: sqlite3.Connection) -> None:
    """When processes open a new file at once, one changes its journal; SQLite has the others fail without a wait."""
    until = monotonic() + _WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if monotonic() > until:
                raise
            sleep(_ANOTHER_TRY_SECONDS)


# --- A request in it --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Marks:
    """A request as the file of a day knows it: under which record, of which content, and the secret of its answers.

    The content's mark is of the Idempotency-Key too: who guesses a body has to guess that as well.
    """

    record: bytes
    fingerprint: bytes
    secret: bytes

    @classmethod
    def of(cls, day: _Day, client: str, idempotency_key: str, parts: tuple[bytes, ...]) -> _Marks:
        name = (client.encode(), _utf8(idempotency_key))
        return cls(day.mac("record", *name), day.mac("content", *name, *parts), day.mac("answer", *name))

    def secret_of(self, attempt: bytes) -> bytes:
        """What this attempt's answer is encrypted under; used once."""
        return hmac.digest(self.secret, attempt, "sha256")


@dataclass(frozen=True)
class _Row:
    fingerprint: bytes
    attempt: bytes
    began: float
    answer: bytes | None


def _row(connection: sqlite3.Connection, marks: _Marks) -> _Row | None:
    sought = "SELECT fingerprint, attempt, began, answer FROM requests WHERE record = ?"
    row = connection.execute(sought, (marks.record,)).fetchone()
    return None if row is None else _Row(*row)


def _judged(row: _Row | None, marks: _Marks, now: float) -> InProgress | Replayed | OtherBody | None:
    """What to answer; None if the request is to run: it is not known, or whoever ran it is gone."""
    if row is None:
        return None
    if not hmac.compare_digest(row.fingerprint, marks.fingerprint):
        return OtherBody()
    if row.answer is not None:
        return _answered(_decrypted(marks.secret_of(row.attempt), row.answer))
    if abs(now - row.began) < LEASE_SECONDS:  # a clock that was set back must not hold it up for hours
        return InProgress(row.began + LEASE_SECONDS - now)
    return None


def _answered(answer: bytes) -> Replayed:
    head, _, body = answer.partition(b"\n")
    said = json.loads(head)
    return Replayed(said["status"], said["headers"], body)


def _encrypted(secret: bytes, content: bytes) -> bytes:
    """The content under a secret that is used for nothing else: so that one nonce does for all."""
    return AESGCM(secret).encrypt(_NONCE, content, None)


def _decrypted(secret: bytes, encrypted: bytes) -> bytes:
    return AESGCM(secret).decrypt(_NONCE, encrypted, None)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
