"""From the bytes of a file as stored to plain UTF-8: packing by its first bytes, encoding by its byte order mark."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa

from dpdau_assets.core.errors import BadInput

Compression = Literal["gzip", "zstd", "bz2"]

HEAD_BYTES = 1024
"""As many of a file's first bytes tell its packing and its encoding."""

BOM = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1 << 18
_BZ2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
_BOMS = (
    (BOM, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def head_of(file: BinaryIO) -> bytes:
    """The next HEAD_BYTES, or all that is left; a packed file can give fewer at a time."""
    head = b""
    while block := file.read(HEAD_BYTES - len(head)):
        head += block
    return head


def packed_as(head: bytes) -> Compression | None:
    """How a file with these first bytes is packed."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zstd"
    return "bz2" if head.startswith(b"BZh") and head[4:10] in _BZ2_BLOCKS else None


def text_codec(name: str) -> str:
    """The name that Python has for an encoding of text. Raises BadInput for one that it does not know."""
    try:
        codec = codecs.lookup(name)
        "".encode(codec.name)  # not for those that turn bytes into bytes
    except (LookupError, ValueError, UnicodeError):
        raise BadInput(
            f"The encoding {name} is unknown.",
            "Name one that Python knows, such as cp1252, latin-1, utf-16 or shift_jis.",
        ) from None
    return codec.name


def encoding_of(head: bytes) -> str:
    """The encoding of text with these first bytes: by its byte order mark, by every other byte being 0, else UTF-8."""
    marked = next((encoding for mark, encoding in _BOMS if head.startswith(mark)), None)
    if marked is not None:
        return marked
    even, odd = head[0 : len(head) & ~1 : 2], head[1::2]
    if len(odd) > 1 and not any(odd) and all(even):
        return "utf-16-le"
    return "utf-16-be" if len(odd) > 1 and not any(even) and all(odd) else "utf-8"


def unpacked(file: BinaryIO, compression: Compression | None) -> AbstractContextManager[BinaryIO]:
    """The bytes that are packed in it. Raises OSError or EOFError, and zlib.error, while reading what is damaged."""
    if compression is None:
        return nullcontext(file)
    if compression == "gzip":
        return _whole(cast(BinaryIO, gzip.GzipFile(fileobj=file)))
    if compression == "bz2":
        return _whole(_read_by(_bz2_pieces(file)))
    return _whole(_read_by(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd").read))


def _bz2_pieces(file: BinaryIO) -> Callable[[int], bytes]:
    """What is packed in it, stream by stream; Python's own file of it drops what follows a damaged stream."""
    stream = bz2.BZ2Decompressor()

    def piece(size: int) -> bytes:
        nonlocal stream
        while True:
            block = stream.unused_data if stream.eof else b""
            block = block or (file.read(_BLOCK_BYTES) if stream.eof or stream.needs_input else b"")
            if stream.eof and not block:
                return b""
            if stream.needs_input and not block:
                raise EOFError
            stream = bz2.BZ2Decompressor() if stream.eof else stream
            if data := stream.decompress(block, size):
                return data

    return piece


@contextmanager
def _whole(unpacked: BinaryIO) -> Iterator[BinaryIO]:
    with unpacked:
        yield unpacked


def as_utf8(file: BinaryIO, declared: str | None, undecodable: Callable[[str], Exception]) -> BinaryIO:
    """The text in it as UTF-8 without a byte order mark. What claims to be UTF-8 is handed on as it is.

    Bytes that are none in another encoding raise what `undecodable` makes of its name.
    """
    head = head_of(file)
    encoding = encoding_of(head) if declared is None else text_codec(declared)
    if encoding in ("utf-8", "utf-8-sig"):
        return continued(file, head, head.startswith(BOM) * len(BOM))
    decoder = codecs.getincrementaldecoder(encoding)()

    def piece(size: int) -> bytes:
        nonlocal head, is_first
        while True:
            block, head = head or file.read(size), b""
            try:
                text = decoder.decode(block, not block)
            except UnicodeError:
                raise undecodable(declared or encoding) from None
            is_first, text = is_first and not text, text.removeprefix("\ufeff") if is_first else text
            if text or not block:
                return text.encode("utf-8", "surrogatepass")

    is_first = True
    return _read_by(piece)


def continued(file: BinaryIO, head: bytes, start: int = 0) -> BinaryIO:
    """The file from byte `start` on, of which the first bytes, `head`, are read already."""
    if file.seekable():
        file.seek(start)
        return file

    def piece(size: int) -> bytes:
        nonlocal rest
        block, rest = rest or file.read(size), b""
        return block

    rest = head[start:]
    return _read_by(piece)


def _read_by(piece: Callable[[int], bytes]) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Reading(piece), _BLOCK_BYTES))


class _Reading(io.RawIOBase):
    """A file of what a function gives: about as many bytes as it is asked for, or more, and none at the end."""

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self._piece = piece
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        place = memoryview(buffer)
        if not self._rest:
            self._rest = memoryview(self._piece(len(place)))
        size = min(len(place), len(self._rest))
        place[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
