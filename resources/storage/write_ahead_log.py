"""The port WriteAheadLog: what was acknowledged over HTTP, before it is a batch of the inbox.

A writer appends frames to a segment of its own, `wal/<random>.open`, under the segment's lock; one frame is what one
sync made durable. Whoever seals takes the lock too, renames the segment to `.closed`, and makes a batch of it: the
writer finds its segment gone and begins another. So nobody asks a writer for anything, and one that is dead holds
nothing up. Where somebody keeps a segment locked, stopped in the middle, a batch is made of what is whole, and the
segment stays for the next who seals: nothing that was acknowledged is missing, and what is sealed twice is the same
batch, or adds nothing to it.

A frame is `magic, length, CRC of the payload, CRC of these`, then the payload: commitments to the epochs' keys, as
state and inbox have them, keyed rows of 16 bytes, and places of bad rows. A frame that is cut short was never
acknowledged, and is the last of its segment. No raw id is ever in one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO
from zlib import crc32

import numpy as np
import numpy.typing as npt

from dpdau_assets.core.dates import UNIX_EPOCH
from dpdau_assets.core.errors import Damaged, Refused
from dpdau_assets.core.events import GIVEN
from dpdau_assets.core.facts import Arrivals, DaySet, RejectedRow
from dpdau_assets.core.identity import epoch_key_commitment
from dpdau_assets.core.ports.events import Inbox, Quarantine
from dpdau_assets.core.ports.state import Salts
from resources.storage.data_dir import WRITE_AHEAD_LOG
from resources.storage.durable import create, make_folder, sync_folder

FOLDER = WRITE_AHEAD_LOG
OPEN, CLOSED = ".open", ".closed"
PATIENCE_SECONDS = 5.0
"""How long who seals waits for a segment's lock: an append is over by then, on all but a disk that hangs."""
_ASK_AGAIN_SECONDS = 0.002

_MAGIC = b"dpw1"
_HEAD = struct.Struct("<4sIII")  # magic, length of the payload, its CRC, and the CRC of these three
_COUNTS = struct.Struct("<HII")  # epochs, rows, places of bad rows
_EPOCH = struct.Struct("<i32s")
_ROW = np.dtype([("day", "<i4"), ("epoch", "<i4"), ("key", "<u8")])
_NAMES = ("day", "epoch", "key")
_NO_ROWS = np.empty(0, _ROW)
_PLACE = np.dtype([("request", "S16"), ("line", "<u4"), ("reason", "<u4")])

Rows = npt.NDArray[np.void]


class SegmentIsGone(Exception):
    """Somebody has sealed it: the writer begins another one."""


@dataclass(frozen=True)
class _Frame:
    commitments: dict[int, str]
    rows: Rows
    places: Rows


# --- Writing -----------------------------------------------------------------------------------------------------


class Segment:
    """One writer's file, open to be appended to. Used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.path = folder / f"{secrets.token_hex(8)}{OPEN}"
        self._file: BinaryIO = create(self.path)
        self._end = 0
        sync_folder(folder)

    @property
    def size(self) -> int:
        """Bytes that are durable by now."""
        return self._end

    def append(self, arrivals: Sequence[Arrivals]) -> None:
        """Make these durable, all or none, as one frame.

        Raises SegmentIsGone, with nothing written, once the segment is sealed; and OSError where the disk does not take
        it: then nothing of it is left, or the segment is no more to be used, which `is_usable` says.
        """
        frame = _frame(arrivals)
        if not self.is_there:  # and perhaps locked by who seals it
            raise SegmentIsGone
        with _locked(self._file) as is_mine:
            if not (is_mine and self.is_there):
                raise SegmentIsGone
            try:
                self._write(frame)
            except OSError:
                self._take_back()
                raise
        self._end += len(frame)

    @property
    def is_usable(self) -> bool:
        """Whether more may be appended: what follows a torn frame could not be read."""
        return not self._file.closed

    @property
    def is_there(self) -> bool:
        """Whether nobody has sealed it."""
        return _is_at(self._file, self.path)

    def close(self) -> None:
        """The writer lets go; what is there waits to be sealed."""
        self._file.close()

    def _write(self, frame: bytes) -> None:
        descriptor, rest = self._file.fileno(), memoryview(frame)
        os.lseek(descriptor, self._end, os.SEEK_SET)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fdatasync(descriptor)

    def _take_back(self) -> None:
        """What a failed sync has left of its pages nobody knows: that segment is not written to again."""
        with suppress(OSError):
            os.ftruncate(self._file.fileno(), self._end)
            if not self._end and self.is_there:
                self.path.unlink()
        self._file.close()


def _frame(arrivals: Sequence[Arrivals]) -> bytes:
    commitments: dict[int, str] = {}
    for each in arrivals:
        commitments |= each.commitments
    rows = np.concatenate([_rows(each) for each in arrivals])
    places = np.concatenate([_places(each) for each in arrivals])
    epochs = b"".join(_EPOCH.pack(epoch, bytes.fromhex(name)) for epoch, name in sorted(commitments.items()))
    counts = _COUNTS.pack(len(commitments), len(rows), len(places))
    payload = b"".join((counts, epochs, rows.tobytes(), places.tobytes()))
    head = _HEAD.pack(_MAGIC, len(payload), crc32(payload), 0)[:-4]
    return head + struct.pack("<I", crc32(head)) + payload


def size_of(arrivals: Arrivals) -> int:
    """Bytes that these take in a segment, without what a frame has once."""
    return len(arrivals.keys) * _ROW.itemsize + len(arrivals.rejected) * _PLACE.itemsize


def _rows(arrivals: Arrivals) -> Rows:
    rows = np.empty(len(arrivals.keys), _ROW)
    rows["day"], rows["epoch"], rows["key"] = arrivals.days, arrivals.epochs, arrivals.keys
    return rows


def _places(arrivals: Arrivals) -> Rows:
    request = arrivals.request.encode("ascii")
    return np.array([(request, line, GIVEN.index(reason)) for line, reason in arrivals.rejected], _PLACE)


# --- Reading and sealing -----------------------------------------------------------------------------------------


class FileWriteAheadLog:
    """Segments in `wal/` below a root, whoever writes them."""

    def __init__(self, root: Path, inbox: Inbox, quarantine: Quarantine, salts: Salts) -> None:
        self._folder = root / FOLDER
        self._inbox = inbox
        self._quarantine = quarantine
        self._salts = salts

    def seal(self) -> None:
        for path in sorted(self._folder.glob(f"*{OPEN}")):
            if not _close(path):
                self._inbox.append(_day_sets(self._frames(path)))
        self._seal_closed()

    def seal_one(self, name: str) -> None:
        """Seal the segment that a writer has begun under this name, and what nobody writes to any more."""
        _close(self._folder / f"{name}{OPEN}")
        self._seal_closed()

    def segments(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("*") if path.suffix in (OPEN, CLOSED))

    def read(self, segment: str) -> list[DaySet]:
        return _day_sets(self._frames(self._path_of(segment)))

    def days(self) -> frozenset[date]:
        return frozenset(day_set.day for name in self.segments() for day_set in self.read(name))

    def epochs(self) -> frozenset[int]:
        frames = (frame for name in self.segments() for frame in _frames_of(self._path_of(name)))
        return frozenset(epoch for frame in frames for epoch in frame.commitments)

    def oldest(self) -> float | None:
        times = []
        for path in self._folder.glob(f"*{CLOSED}"):
            with suppress(FileNotFoundError):
                times.append(path.stat().st_mtime)
        return min(times, default=None)

    def size(self) -> int:
        total = 0
        for name in self.segments():
            with suppress(FileNotFoundError):  # sealed meanwhile
                total += (self._folder / name).stat().st_size
        return total

    def _path_of(self, segment: str) -> Path:
        """Where a segment that was listed lies by now: it may have been closed since, and be no batch yet."""
        path = self._folder / segment
        return path if path.exists() else path.with_suffix(CLOSED)

    def _seal_closed(self) -> None:
        """The batch is durable before its segment goes: cut short, it is sealed again, into the very same batch.

        Under the segment's lock, so that nobody makes a batch anew of what another one has sealed and folded.
        """
        closed = sorted(self._folder.glob(f"*{CLOSED}"))
        for path in closed:
            with suppress(FileNotFoundError), path.open("rb") as file, _locked(file) as is_mine:
                if not _is_at(file, path):
                    continue  # another one has sealed it
                frames = self._frames(path)
                self._inbox.append(_day_sets(frames))
                if is_mine:
                    self._quarantine.keep(_rejected_in(frames))
                    path.unlink()
        if closed:
            sync_folder(self._folder)

    def _frames(self, path: Path) -> list[_Frame]:
        """Raises Damaged for a segment that is damaged, or was keyed under another key of an epoch."""
        frames = _frames_of(path)
        noted: dict[int, set[str]] = defaultdict(set)
        for frame in frames:
            for epoch, commitment in frame.commitments.items():
                noted[epoch].add(commitment)
        for epoch, commitments in noted.items():
            wanted = self._commitment(epoch)
            if wanted is not None and commitments != {wanted}:
                raise _unusable(path, f"was keyed under another key of salt epoch {epoch}")
        return frames

    def _commitment(self, epoch: int) -> str | None:
        """To the epoch's key; None where that was shredded or lost, and no state takes what is keyed under it."""
        try:
            return epoch_key_commitment(self._salts.epoch_keys([epoch])[epoch])
        except Refused:
            return None


def _close(path: Path) -> bool:
    """From now on its writer writes elsewhere; False where the segment is locked for longer than an append takes."""
    with suppress(FileNotFoundError), path.open("rb+") as file, _locked(file) as is_mine:
        if not is_mine:
            return False
        if _is_at(file, path):
            path.rename(path.with_suffix(CLOSED))
    return True


@contextmanager
def _locked(file: BinaryIO) -> Iterator[bool]:
    """Whether the lock was had in time."""
    until = monotonic() + PATIENCE_SECONDS
    while not (is_mine := _try_to_lock(file)) and monotonic() < until:
        sleep(_ASK_AGAIN_SECONDS)
    try:
        yield is_mine
    finally:
        if is_mine and not file.closed:
            fcntl.flock(file, fcntl.LOCK_UN)


def _try_to_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file.fileno()), there)


def _frames_of(path: Path) -> list[_Frame]:
    """Every frame that is whole; none for a segment that is gone by now. Raises Damaged where one in between is not."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    frames: list[_Frame] = []
    at = 0
    while payload := _payload(data, at):
        frames.append(_parsed(payload))
        at += _HEAD.size + len(payload)
    if any(_is_head(data, later) for later in _magics(data, at + 1)):
        raise _unusable(path, f"is damaged at byte {at}")
    return frames


def _payload(data: bytes, at: int) -> bytes | None:
    """The payload of the frame that begins here; None where none does, or it is not whole."""
    if not _is_head(data, at):
        return None
    _, length, checksum, _ = _HEAD.unpack_from(data, at)
    payload = data[at + _HEAD.size : at + _HEAD.size + length]
    return payload if len(payload) == length and crc32(payload) == checksum else None


def _is_head(data: bytes, at: int) -> bool:
    head = data[at : at + _HEAD.size]
    return len(head) == _HEAD.size and head[:4] == _MAGIC and crc32(head[:-4]) == int.from_bytes(head[-4:], "little")


def _magics(data: bytes, start: int) -> Iterator[int]:
    """Where a frame may begin, from here on."""
    at = data.find(_MAGIC, start)
    while at >= 0:
        yield at
        at = data.find(_MAGIC, at + 1)


def _parsed(payload: bytes) -> _Frame:
    epochs, rows, places = _COUNTS.unpack_from(payload)
    at = _COUNTS.size
    pairs = [_EPOCH.unpack_from(payload, at + number * _EPOCH.size) for number in range(epochs)]
    at += epochs * _EPOCH.size
    keyed = np.frombuffer(payload, _ROW, rows, at)
    at += keyed.nbytes
    rejected = np.frombuffer(payload, _PLACE, places, at)
    return _Frame({epoch: commitment.hex() for epoch, commitment in pairs}, keyed, rejected)


def _day_sets(frames: Sequence[_Frame]) -> list[DaySet]:
    """Each (day, epoch) once, in order of epochs and days, with its keys in order.

    By columns, and sorting each place's keys alone: numpy lets other threads go on meanwhile.
    """
    days, epochs, keys = (np.concatenate([frame.rows[name] for frame in frames] or [_NO_ROWS[name]]) for name in _NAMES)
    places = (epochs.astype(np.int64) << 32) + days
    return [
        DaySet(_day(int(days[first])), int(epochs[first]), np.unique(keys[places == place]))
        for place, first in zip(*np.unique(places, return_index=True), strict=True)
    ]


def _day(number: int) -> date:
    return UNIX_EPOCH + timedelta(days=int(number))


def _rejected_in(frames: Sequence[_Frame]) -> list[RejectedRow]:
    """Bad rows under the requests' ids: who sent them was told of each, and the server's log knows the requests.

    No share is noted of them: the check of shares is of files that an operator handed in, and can hand in again.
    """
    return [
        RejectedRow(f"POST /event {place['request'].decode('ascii')}", int(place["line"]), GIVEN[place["reason"]])
        for frame in frames
        for place in frame.places
    ]


def _unusable(path: Path, what: str) -> Damaged:
    return Damaged(
        f"The segment {path.name} of the write-ahead log {what}.",
        f"Nothing is folded while it lies there. Move {path} away, and have what was sent when it was written sent "
        "again.",
        segment=path.name,
    )
