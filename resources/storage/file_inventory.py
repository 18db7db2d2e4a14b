"""The port FileInventory: every file that could hold a key, its bytes, and what is packed inside it.

Nothing here knows which files the project writes: a copy that somebody left in the data directory counts as well.
"""

from __future__ import annotations

import bz2
import errno
import fcntl
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.facts import StoredFile
from resources.storage.durable import sweep

_PIECE = 8 << 20
_DEPTH = 3  # a Parquet file in a gzip in a zip is the deepest that is looked into
_HEAD = 16
_TAR_HEAD = 512

_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_DAMAGED = (
    EOFError,
    ValueError,
    NotImplementedError,
    struct.error,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)

_MAGIC = {  # how each begins; as long as is needed so that hardly any other file begins so
    "gzip": rb"\x1f\x8b\x08",
    "bz2": rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)",
    "xz": rb"\xfd7zXZ\0",
    "lzma": rb"\x5d\0\0(?!\0\0)..(\xff{8}|.{5}\0{3})",
    "zip": rb"PK(\x03\x04|\x05\x06|\x07\x08PK)",
    "Parquet": rb"PAR1",
    # These the standard library cannot unpack.
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
    "lz4": rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18",
    "7z": rb"7z\xbc\xaf\x27\x1c",
    "RAR": rb"Rar!\x1a\x07",
    "lzip": rb"LZIP\x01",
    "snappy": rb"\xff\x06\0\0sNaPpY",
    "encrypted Parquet": rb"PARE..\0\0",
}
_KINDS = {kind: re.compile(magic, re.DOTALL) for kind, magic in _MAGIC.items()}


class DiskFileInventory:
    """Every file under the data directory and Dagster's home, whatever put it there.

    `roots` maps labels to folders or single files, which need not exist. One inside another is walked once, under the
    outer one; so is a folder that a link leads to, under its own name where it has one.
    """

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = _outermost([StoredFile(label, path) for label, path in roots.items()])

    def files(self) -> list[StoredFile]:
        """Regular files, and links to such, sorted by name. A temporary file that a living writer holds is left out.

        A folder that cannot be read is listed too: whoever reads it as a file is told so, and nobody vouches for it.
        """
        found: list[StoredFile] = []
        seen: set[tuple[int, int]] = set()
        folders, linked = deque(self._roots), deque[StoredFile]()
        while folders or linked:
            place = (folders or linked).popleft()  # links last: a folder is known by its own name where it has one
            mode, this_folder = _kind(place)
            if stat.S_ISREG(mode) and not _is_being_written(place):
                found.append(place if place.name else StoredFile(place.path.name, place.path))
            elif stat.S_ISDIR(mode) and this_folder not in seen:
                seen.add(this_folder)
                try:
                    children = _children(place)
                except BadInput:
                    found.append(place)
                    continue
                for child in children:
                    (linked if child.path.is_symlink() else folders).append(child)
        return sorted(found, key=lambda file: file.name)

    def chunks(self, file: StoredFile) -> Iterator[bytes]:
        """Its bytes in pieces of 8 MB; none if it is gone by now. Raises BadInput if it cannot be read."""
        with _readable(file.name), file.path.open("rb") as stream:
            yield from _pieces(stream)

    def unpacked(self, file: StoredFile) -> Iterator[bytes]:
        """What it holds inside if it packs its bytes: gzip, bz2, xz, lzma, zip, tar and Parquet, up to three deep.

        Nothing for other files, nor for a Parquet file of which `chunks` shows every value. Of a column of integers
        each value is 8 bytes, little-endian. Raises BadInput for something packed that cannot be looked into.
        """
        with _readable(file.name), file.path.open("rb") as stream, _unpackable(file.name):
            yield from _inside(stream, file.name, _DEPTH)

    def sweep(self) -> None:
        """Unlink the temporary files that no living writer holds."""
        for root in self._roots:
            if root.path.is_dir():
                sweep(root.path)


# --- The walk ----------------------------------------------------------------------------------------------------


def _outermost(roots: list[StoredFile]) -> list[StoredFile]:
    """Those that lie inside no other one; of equal ones, the first."""
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


# --- What is packed ----------------------------------------------------------------------------------------------


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(_PIECE):
        yield piece


def _inside(stream: IO[bytes], name: str, depth: int) -> Iterator[bytes]:
    """What this stream packs, and what that packs in turn."""
    head = stream.read(_HEAD)
    stream.seek(0)
    kind = next((kind for kind, magic in _KINDS.items() if magic.match(head)), None)
    if kind is None and stream.read(_TAR_HEAD)[257:262] == b"ustar":
        kind = "tar"
    stream.seek(0)
    if kind is None:
        return
    if not depth:
        raise _closed(name, f"is packed more than {_DEPTH} deep")
    if kind == "Parquet":
        yield from _parquet_values(stream)
        return
    for member in _members(kind, stream, name):
        yield from _pieces(member)
        member.seek(0)
        yield from _inside(member, name, depth - 1)


_STREAMS: dict[str, Callable[[IO[bytes]], BufferedIOBase]] = {
    "gzip": lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "lzma": lzma.LZMAFile,
}


def _members(kind: str, stream: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    if kind == "zip":
        yield from _zip_members(stream, name)
        return
    if kind == "tar":
        yield from _tar_members(stream)
        return
    if kind not in _STREAMS:
        raise _closed(name, f"is packed as {kind}")
    with _STREAMS[kind](stream) as member:
        yield cast(IO[bytes], member)


def _zip_members(stream: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.flag_bits & 1:
                raise _closed(name, "is an encrypted zip")
            with archive.open(member) as unpacked:
                yield unpacked


def _tar_members(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Its files, for what is packed in them: their bytes stand in the archive as they are."""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            if member.isfile() and (unpacked := archive.extractfile(member)):
                yield unpacked


@contextmanager
def _unpackable(name: str) -> Iterator[None]:
    """What the unpackers raise for damaged bytes, as a refusal."""
    try:
        yield
    except (*_DAMAGED, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file system's
        raise _closed(name, "is packed and damaged, or packed in a way that is not known") from None


def _closed(name: str, what: str) -> BadInput:
    return BadInput(
        f"{name} {what}: it cannot be looked into.",
        "Unpack it in place or remove it, and verify again.",
        file=name,
    )


# --- Parquet -----------------------------------------------------------------------------------------------------


def _parquet_values(stream: IO[bytes]) -> Iterator[bytes]:
    """Every value of every column, a row group at a time; nothing if the file's own bytes show them all."""
    with pq.ParquetFile(stream) as file:
        for number in range(file.num_row_groups):
            if not _is_plain(file.metadata.row_group(number)):
                for column in file.read_row_group(number).columns:
                    for chunk in column.chunks:
                        yield from _values(chunk)


def _is_plain(group: pq.RowGroupMetaData) -> bool:
    """Whether all columns stand uncompressed, each value as it is. RLE is how the file says which values are null."""
    columns = [group.column(number) for number in range(group.num_columns)]
    return all(each.compression == "UNCOMPRESSED" and {*each.encodings} <= {"PLAIN", "RLE"} for each in columns)


def _values(array: pa.Array) -> Iterator[bytes]:
    match array:
        case pa.ExtensionArray():
            yield from _values(array.storage)
        case pa.DictionaryArray():
            yield from _values(array.dictionary)
        case pa.StructArray():
            for number in range(array.type.num_fields):
                yield from _values(array.field(number))
        case pa.ListArray() | pa.LargeListArray() | pa.FixedSizeListArray() | pa.MapArray():
            yield from _values(array.values)
        case _:
            yield from _flat_values(array)


def _flat_values(array: pa.Array) -> Iterator[bytes]:
    """The array's buffers, those of texts and numbers among them."""
    if pa.types.is_integer(array.type):
        array = array.cast(pa.uint64() if pa.types.is_unsigned_integer(array.type) else pa.int64())
    for buffer in filter(None, array.buffers()):
        for first in range(0, buffer.size, _PIECE):
            yield buffer.slice(first, min(_PIECE, buffer.size - first)).to_pybytes()
