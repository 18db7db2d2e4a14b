"""The one protocol of distinct-count sketches, and the header that every serialised sketch begins with.

Noise goes on a sketch's `statistic`, an integer that changes by 0 or +1 when a user is added; never on an estimate.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import BinaryIO, Protocol, Self

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.facts import Keys

MAGIC = b"DPDAU-SK"
VERSION = 1
_CHECKSUM_BYTES = 32


@dataclass(frozen=True)
class Header:
    """What a sketch is of: sketches unite only when kind, parameters and epoch agree.

    Attributes:
        kind: `set`, ...
        epoch: the salt epoch of its keys.
        source: digest of the state it was built from, which tells a fresh sketch from a stale one.
        parameters: the kind's public parameters.
    """

    kind: str
    epoch: int
    source: str
    parameters: dict[str, int | float | str] = field(default_factory=dict)
    version: int = VERSION


class Sketch(Protocol):
    """One day's users, or the union of several days'."""

    @property
    def header(self) -> Header: ...

    @classmethod
    def build(cls, keys: Keys, epoch: int, source: str) -> Self:
        """From the day's sorted distinct keys."""
        ...

    @classmethod
    def unite(cls, sketches: Sequence[Self]) -> Self:
        """Of the users in any of them. Raises BadInput for an empty list and for a mixed one."""
        ...

    def without(self, keys: Keys) -> Self:
        """As if these users had never been added."""
        ...

    def statistic(self) -> int:
        """The integer that noise is added to."""
        ...

    def body(self) -> bytes | memoryview:
        """The sketch itself, without its header."""
        ...

    @classmethod
    def parse(cls, header: Header, body: memoryview) -> Self:
        """The reverse of `body`. Raises BadInput when header and body disagree."""
        ...


def require_same(headers: Sequence[Header]) -> Header:
    """The header they share. Raises BadInput when there is none to share."""
    if not headers:
        raise BadInput("A union of no sketches was asked for.", "Name at least one day.")
    kinds = {(header.kind, header.epoch, json.dumps(header.parameters, sort_keys=True)) for header in headers}
    if len(kinds) > 1:
        raise BadInput(f"Sketches of different kinds cannot be united: {sorted(kinds)}.", "Rebuild them alike.")
    return headers[0]


def to_bytes(sketch: Sketch) -> list[bytes | memoryview]:
    """Magic, header length, header as JSON, SHA-256 of header and body, body; to be written one after the other."""
    head = json.dumps(asdict(sketch.header), sort_keys=True).encode()
    body = sketch.body()
    return [MAGIC, struct.pack("<I", len(head)), head, _checksum(head, body), body]


def split_bytes(data: bytes) -> tuple[Header, memoryview]:
    """Header and body of what `to_bytes` gave. Raises BadInput for anything else, damaged bytes included."""
    file = BytesIO(data)
    head = _head_bytes(file)
    checksum = file.read(_CHECKSUM_BYTES)
    body = memoryview(data)[file.tell() :]
    if _checksum(head, body) != checksum:
        raise _damaged("its checksum does not match")
    return _header(head), body


def read_header(file: BinaryIO) -> Header:
    """The header alone, unchecked but for its form; whoever uses the body calls `split_bytes`."""
    return _header(_head_bytes(file))


def _head_bytes(file: BinaryIO) -> bytes:
    start = file.read(len(MAGIC) + 4)
    if len(start) < len(MAGIC) + 4 or not start.startswith(MAGIC):
        raise _damaged("it does not begin as a sketch does")
    return file.read(struct.unpack("<I", start[len(MAGIC) :])[0])


def _header(head: bytes) -> Header:
    try:
        header = Header(**json.loads(head))
    except (ValueError, TypeError):
        raise _damaged("its header is not one") from None
    if header.version != VERSION:
        raise _damaged(f"its format is version {header.version}, this program reads {VERSION}")
    return header


def _checksum(head: bytes, body: bytes | memoryview) -> bytes:
    checksum = hashlib.sha256(head)
    checksum.update(body)
    return checksum.digest()


def _damaged(what: str) -> BadInput:
    return BadInput(f"A sketch cannot be read: {what}.", "Materialise day_sketch for its day again.")
