"""The port FileInventory: every file that could hold a key, and its bytes, where they show what it holds.

Nothing here knows which files the project writes: a copy that somebody left in the data directory counts as well. No
file is unpacked: the project writes keys as they are, and who leaves an archive among them is told that nobody can
vouch for it.

Databases are read by a process of their own. When a process closes a file, the system takes from it every lock that it
has on that file, whoever in it asked for the lock (`man 2 fcntl`): SQLite would go on as if it had them, another
process would take away its log, and what this one commits from then on would be seen by nobody else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import subprocess
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.facts import StoredFile
from resources.storage.durable import sweep
from resources.storage.seen_requests import FOLDER, unlink_before

_PIECE = 8 << 20
_HEAD = 512
_BESIDE_A_DATABASE = ("-wal", "-shm", "-journal")
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)

# How each begins; as long as is needed so that hardly any other file begins so.
_BEGINNINGS = {
    "gzip": rb"\x1f\x8b\x08",
    "bz2": rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)",
    "xz": rb"\xfd7zXZ\0",
    "lzma": rb"\x5d\0\0(?!\0\0)..(\xff{8}|.{5}\0{3})",
    "zip": rb"PK(\x03\x04|\x05\x06|\x07\x08PK)",
    "tar": rb".{257}ustar",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
    "lz4": rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18",
    "7z": rb"7z\xbc\xaf\x27\x1c",
    "RAR": rb"Rar!\x1a\x07",
    "lzip": rb"LZIP\x01",
    "snappy": rb"\xff\x06\0\0sNaPpY",
    "Parquet": rb"PAR1",
    "encrypted Parquet": rb"PARE..\0\0",
    "DuckDB": rb".{8}DUCK",
    "Arrow": rb"ARROW1\0\0",
    "ORC": rb"ORC\x0a",
    "Avro": rb"Obj\x01",
    "HDF5": rb"\x89HDF\r\n\x1a\n",
}
_KINDS = {kind: re.compile(beginning, re.DOTALL) for kind, beginning in _BEGINNINGS.items()}

# Of a Parquet column that is not compressed. RLE says which values are null; a dictionary holds each value as it is.
_AS_IT_IS = {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY"}


class DiskFileInventory:
    """Every file under the data directory and Dagster's home, whatever put it there.

    `roots` maps labels to folders or single files, which need not exist. One inside another is walked once, under the
    outer one; so is a folder that a link leads to, under its own name where it has one. The data directory is labelled
    with no text. `marts` names DuckDB files that hold published numbers alone: their bytes are given, though DuckDB may
    pack them.
    """

    def __init__(self, roots: Mapping[str, Path], marts: Collection[str] = ()) -> None:
        self._roots = _outermost([StoredFile(label, path) for label, path in roots.items()])
        self._marts = frozenset(marts)
        self._data_dir = roots.get("")

    def files(self) -> list[StoredFile]:
        """Regular files, and links to such, sorted by name. A temporary file that a living writer holds is left out.

        A folder that cannot be read is listed too: whoever reads it as a file is told so, and nobody vouches for it.
        """
        stored: list[StoredFile] = []
        seen: set[tuple[int, int]] = set()
        folders, linked = deque(self._roots), deque[StoredFile]()
        while folders or linked:
            place = (folders or linked).popleft()  # links last: a folder is known by its own name where it has one
            mode, this_folder = _kind(place)
            if stat.S_ISREG(mode) and not _is_being_written(place):
                stored.append(place if place.name else StoredFile(place.path.name, place.path))
            elif stat.S_ISDIR(mode) and this_folder not in seen:
                seen.add(this_folder)
                try:
                    children = _children(place)
                except BadInput:
                    stored.append(place)
                    continue
                for child in children:
                    (linked if child.path.is_symlink() else folders).append(child)
        return sorted(stored, key=lambda file: file.name)

    def chunks(self, file: StoredFile) -> Iterator[bytes]:
        """The file's bytes in pieces of 8 MB; none if it is gone by now.

        Raises BadInput, before any of them, if it cannot be read, and for what packs its bytes: archives, compressed
        and encrypted files, and formats of tables that may compress; a Parquet file that shows every value is none.
        """
        with _readable(file.name), _opened(file.path) as stream:
            head = stream.read(_HEAD)
            kind = _kind_by_its_beginning(head)
            is_open = kind is None or (kind == "DuckDB" and file.name in self._marts)
            if not is_open and not (kind == "Parquet" and _shows_every_value(file.path)):
                raise _closed(file.name, str(kind))
            yield from _pieces(head, stream)

    def sweep(self) -> None:
        """Unlink the temporary files that no living writer holds."""
        for root in self._roots:
            if root.path.is_dir():
                sweep(root.path)

    def expire_requests(self, before: date) -> None:
        if self._data_dir is not None:
            unlink_before(self._data_dir / FOLDER, before)


# --- The walk ----------------------------------------------------------------------------------------------------


def _outermost(roots: list[StoredFile]) -> list[StoredFile]:
    """The places that lie inside no other one; of equal ones, the first."""
    firsts = {root.path.resolve(): root for root in reversed(roots)}
    return [root for path, root in reversed(firsts.items()) if firsts.keys().isdisjoint(path.parents)]


def _kind(place: StoredFile) -> tuple[int, tuple[int, int]]:
    """Mode and identity of what stands there, links followed; mode 0 if nothing does."""
    with _readable(place.name):
        status = place.path.stat()
        return status.st_mode, (status.st_dev, status.st_ino)
    return 0, (0, 0)


def _children(folder: StoredFile) -> list[StoredFile]:
    prefix = f"{folder.name}/" if folder.name else ""
    with _readable(folder.name):
        return [StoredFile(prefix + path.name, path) for path in folder.path.iterdir()]
    return []


def _is_being_written(file: StoredFile) -> bool:
    """Whether it is a temporary file whose writer lives, or was one until now."""
    if file.path.suffix != ".tmp":
        return False
    with _readable(file.name), file.path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
    return True


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Ends the block where the file is gone; any other failure of the file system is a refusal."""
    try:
        yield
    except OSError as error:
        if error.errno not in _VANISHED:
            raise BadInput(
                f"{name or 'The data directory'} cannot be read: {error.strerror or type(error).__name__}.",
                "Give this process the right to read it, or remove it, and verify again.",
                file=name,
            ) from None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, to be read once from its beginning to its end."""
    if _is_a_database(path):
        with _read_by_another_process(path) as stream:
            yield stream
    else:
        with path.open("rb") as stream:
            yield stream


def _is_a_database(path: Path) -> bool:
    """Whether it is named as the project's databases and SQLite's files beside them are, or has such beside it.

    Every database that writes ahead has them while anybody has it open.
    """
    try:
        if path.is_symlink() or path.stat().st_nlink > 1:  # perhaps one by another name
            return True
    except OSError:
        return False  # gone, or not to be read: opening it says so
    if path.suffix == ".sqlite" or path.name.endswith(_BESIDE_A_DATABASE):
        return True
    return any(path.with_name(path.name + suffix).exists() for suffix in _BESIDE_A_DATABASE)


@contextmanager
def _read_by_another_process(path: Path) -> Iterator[IO[bytes]]:
    try:
        reader = subprocess.Popen(
            [shutil.which("cat") or "cat", "--", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:  # not as if the file were gone
        raise OSError(errno.EIO, f"`cat` does not start ({type(error).__name__})") from None
    with reader:
        assert reader.stdout is not None
        try:
            yield reader.stdout
        except BaseException:
            reader.kill()
            raise
    if reader.returncode:
        path.stat()  # raises, if it is gone
        raise OSError(errno.EIO, "`cat` cannot read it")


# --- What its own bytes do not show -----------------------------------------------------------------------------


def _pieces(head: bytes, stream: IO[bytes]) -> Iterator[bytes]:
    """What was read of the stream already, and the rest."""
    piece = head + stream.read(_PIECE - len(head))
    while piece:
        yield piece
        piece = stream.read(_PIECE)


def _kind_by_its_beginning(head: bytes) -> str | None:
    """The kind of a file that packs its bytes, or may."""
    return next((kind for kind, beginning in _KINDS.items() if beginning.match(head)), None)


def _shows_every_value(path: Path) -> bool:
    """Whether a Parquet file is as this project writes it: nothing compressed, each value as it is."""
    try:
        with path.open("rb") as stream:
            metadata = pq.read_metadata(stream)
            if metadata.serialized_size != _footer_size(stream):
                return False  # signed: a column may be encrypted, and pyarrow ends the process of who asks for that one
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        return all(each.compression == "UNCOMPRESSED" and {*each.encodings} <= _AS_IT_IS for each in columns)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file system's
        return False


def _footer_size(stream: IO[bytes]) -> int:
    """The bytes that the footer of a Parquet file has, as its end says."""
    stream.seek(-8, os.SEEK_END)
    return int.from_bytes(stream.read(4), "little")


def _closed(name: str, kind: str) -> BadInput:
    return BadInput(
        f"{name} begins as {kind} does, which may pack its bytes: it is not opened, and cannot be vouched for.",
        "Remove it, or put what it packs in its place, and verify again.",
        file=name,
    )
