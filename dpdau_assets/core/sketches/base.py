"""The one protocol of distinct-count sketches, and the header that every serialised sketch begins with.

A kind of sketch is a pair: a `Sketch` holds one day's users, or those of several days; an `Estimator` says what is read
off it, by which public parameter. Noise goes on the estimator's `statistic`, an integer that changes by 0 or +1 when a
user is added; never on an estimate. Estimate and interval are computed from the noisy statistic.

Owns the rule: Noise goes on an integer that one user changes by 0 or 1.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import Any, BinaryIO, ClassVar, Protocol, Self

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.facts import Keys
from dpdau_assets.core.privacy.mechanisms import NoiseWidth

MAGIC = b"DPDAU-SK"
VERSION = 1
_CHECKSUM_BYTES = 32


@dataclass(frozen=True)
class Header:
    """What a sketch is of: sketches unite only when kind, parameters, hash seed and epoch agree.

    Attributes:
        kind: `set`, `theta`, `kmv` or `hllpp`.
        epoch: the salt epoch of its keys.
        source: digest of the state it was built from, which tells a fresh sketch from a stale one; a word for one that
            is not kept (`union`, `late`, `excluded`).
        parameters: those of the kind's public parameters that it was built with.
        hash_seed: of the hash that the kind puts on top of keys; None where the keys are the hashes.
    """

    kind: str
    epoch: int
    source: str
    parameters: dict[str, int | float] = field(default_factory=dict)
    hash_seed: int | None = None
    version: int = VERSION


class Sketch(Protocol):
    """One day's users, or the union of several days'."""

    @property
    def header(self) -> Header: ...

    @classmethod
    def build(cls, header: Header, keys: Keys) -> Self:
        """From the day's sorted distinct keys."""
        ...

    @classmethod
    def unite(cls, sketches: Sequence[Self]) -> Self:
        """The sketch of the users in any of these. Raises BadInput for an empty list and for a mixed one."""
        ...

    def traces(self, keys: Keys) -> Keys:
        """Which of these keys (sorted, distinct) are of users whose adding may have changed a byte of the body."""
        ...

    def without(self, keys: Keys) -> Self | None:
        """The sketch as if users (sorted, distinct keys) had never been added; None if only one built anew can tell."""
        ...

    def body(self) -> bytes | memoryview:
        """The sketch itself, without its header."""
        ...

    @classmethod
    def parse(cls, header: Header, body: memoryview) -> Self:
        """The reverse of `body`. Raises BadInput when header and body disagree, or the header lacks a parameter."""
        ...


class Estimator(Protocol):
    """How users are counted from the sketches of one kind. Its fields are the public parameters.

    Attributes:
        kind: of the sketches that it reads.
        linear: whether the statistic is a sum over users of what depends on that user alone, as a stream needs it.
        samples: whether users are sampled by their keys, so that another salt epoch counts other users.
    """

    kind: ClassVar[str]
    linear: ClassVar[bool]
    samples: ClassVar[bool]

    def header(self, epoch: int, source: str) -> Header:
        """The header of a sketch that is built to be counted so."""
        ...

    def reads(self, header: Header) -> bool:
        """Whether a sketch with this header can be counted so."""
        ...

    def narrowed(self, sketch: Any) -> Any:
        """The sketch of the same users that is built for this estimator alone, so that it unites with others of it.

        `sketch` is of its kind and has a header that it reads.
        """
        ...

    def statistic(self, sketch: Any) -> int:
        """The integer that noise is added to, of a narrowed sketch or a union of such."""
        ...

    def words(self, sketch: Any) -> Keys:
        """The words that the statistic counts, sorted and distinct, of a narrowed sketch.

        A union has the union of its days' words, but for those that a full sketch has dropped: `counted` needs none.
        """
        ...

    def counted(self, words: int) -> int:
        """The statistic of a union that has so many distinct words."""
        ...

    def users(self, noisy: float) -> float:
        """The estimate from a noisy statistic, in users; below 0 for one below 0."""
        ...

    def interval(self, noisy: float, noise: NoiseWidth) -> tuple[float, float | None]:
        """Bounds, in users, of a 95 % interval: of the noise, which is so wide, and of the sketch.

        None is no upper bound: the sketch is full. From the published number and public constants alone.
        """
        ...


def require_same(headers: Sequence[Header]) -> Header:
    """The header they share. Raises BadInput, naming what differs, when there is none to share."""
    if not headers:
        raise BadInput("A union of no sketches was asked for.", "Name at least one day.")
    first = headers[0]
    for other in headers[1:]:
        for name in ("kind", "epoch", "hash_seed", "parameters"):
            wanted, given = getattr(first, name), getattr(other, name)
            if wanted != given:
                raise BadInput(f"Sketches of different {name} cannot be united: {wanted}, {given}.", _REBUILD)
    return first


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
        raise damaged("its checksum does not match")
    return _header(head), body


def read_header(file: BinaryIO) -> Header:
    """The header alone, unchecked but for its form; whoever uses the body calls `split_bytes`."""
    return _header(_head_bytes(file))


def damaged(what: str) -> BadInput:
    """The error for bytes that are not the sketch they should be."""
    return BadInput(f"A sketch cannot be read: {what}.", _REBUILD)


def parameter(header: Header, name: str) -> int | float:
    """A number of the header. Raises BadInput where there is none."""
    value = header.parameters.get(name) if isinstance(header.parameters, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise damaged(f"its header has no number for {name}")
    return value


_REBUILD = "Materialise day_sketch for its day again."


def _head_bytes(file: BinaryIO) -> bytes:
    start = file.read(len(MAGIC) + 4)
    if len(start) < len(MAGIC) + 4 or not start.startswith(MAGIC):
        raise damaged("it does not begin as a sketch does")
    return file.read(struct.unpack("<I", start[len(MAGIC) :])[0])


def _header(head: bytes) -> Header:
    try:
        fields = json.loads(head)
        version = fields.get("version")
    except (ValueError, AttributeError):
        raise damaged("its header is not one") from None
    if version != VERSION:  # asked first: another version may have other fields
        raise damaged(f"its format is version {version}, this program reads {VERSION}")
    try:
        return Header(**fields)
    except TypeError:
        raise damaged("its header is not one") from None


def _checksum(head: bytes, body: bytes | memoryview) -> bytes:
    checksum = hashlib.sha256(head)
    checksum.update(body)
    return checksum.digest()
