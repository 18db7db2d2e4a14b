"""Raw ids become keys here: what an epoch's secret key is used for, written plainly.

Bulk engines compute `user_key` in their own way and are held to this one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable

from dpdau_assets.core.facts import EpochKey
from dpdau_assets.core.user_ids import Normalization, normalize

KEY_BYTES = 8
_BLOCK = hashlib.sha256().block_size
REFERENCE = "reference"
"""The kind under which the reference of a request is committed to."""

# No UTF-8 text holds the byte 0xFF, so nothing below can ever be the hash of a user's id.
_COMMITMENT = b"\xffdpdau epoch key commitment"
_VERSION = b"\xffdpdau content version\x00"


def user_key(epoch_key: bytes, user_id: str) -> int:
    """The user's key under one epoch: the first 8 bytes of HMAC-SHA-256 of the id as UTF-8, unsigned, big-endian."""
    return int.from_bytes(hmac.digest(epoch_key, user_id.encode(), "sha256")[:KEY_BYTES], "big")


class KeyedHash:
    """`user_key` of many users under one epoch, in less than half the time.

    HMAC (RFC 2104) hashes a block of the key before the text and another before the outcome: both are hashed once here,
    and their states copied.
    """

    def __init__(self, epoch_key: bytes) -> None:
        short = epoch_key if len(epoch_key) <= _BLOCK else hashlib.sha256(epoch_key).digest()
        block = short.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def key_bytes(self, user_id: str) -> bytes:
        """The key's 8 bytes, big-endian."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(user_id.encode())
        outer.update(inner.digest())
        return outer.digest()[:KEY_BYTES]


def epoch_key_commitment(key: EpochKey) -> str:
    """Names the key without telling it (64 hex digits): a file that carries it can be matched with its key."""
    return hmac.digest(key.secret, _COMMITMENT, "sha256").hex()


def commitment(opening: bytes, *said: object) -> str:
    """HMAC of what is said, part by part: binds to it, and without the opening tells nothing of it."""
    return hmac.digest(opening, "\n".join(map(str, said)).encode(), "sha256").hex()


def content_hash(nonce: bytes, label: str, content: str) -> str:
    """What a content is known by while its nonce is there (64 hex digits).

    Without the nonce nobody can check a guess at the content, whatever other keys he has.
    """
    return hmac.digest(nonce, _VERSION + label.encode() + b"\x00" + content.encode(), "sha256").hex()


def data_version(label: str, hashes: Iterable[str]) -> str:
    """The data version that operators see (32 hex digits), of the `content_hash` of each part."""
    return hashlib.sha256("\0".join([label, *hashes]).encode()).hexdigest()[:32]


class Named:
    """Whether one of these ids stands in a text as a whole: no letter, digit or underscore right before or after it.

    An id itself may hold anything. Part of a longer word is not the id: `anna` is not in `susanna.csv`. A text is
    looked at as it stands, and spelled as ids are, by `how`.
    """

    def __init__(self, ids: Iterable[str], how: Collection[Normalization] = ()) -> None:
        self._ids = [user_id for user_id in dict.fromkeys(ids) if user_id]
        self._how = how

    def is_in(self, text: str) -> bool:
        """For one text; cost goes with the number of ids."""
        texts = {text, normalize(text, self._how)}
        return any(user_id in text and _stands_alone(user_id, text) for text in texts for user_id in self._ids)


def _stands_alone(user_id: str, text: str) -> bool:
    at = text.find(user_id)
    while at >= 0:
        end = at + len(user_id)
        if not (_in_word(text[at - 1 : at]) or _in_word(text[end : end + 1])):
            return True
        at = text.find(user_id, at + 1)
    return False


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"
