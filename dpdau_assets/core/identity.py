"""Raw ids become keys here: what an epoch's secret key is used for, written plainly.

Bulk engines compute `user_key` in their own way and are held to this one.
"""

from __future__ import annotations

import hmac

from dpdau_assets.core.facts import EpochKey

KEY_BYTES = 8

# No UTF-8 text holds the byte 0xFF, so nothing below can ever be the hash of a user's id.
_COMMITMENT = b"\xffdpdau epoch key commitment"
_VERSION = b"\xffdpdau content version\x00"


def user_key(epoch_key: bytes, user_id: str) -> int:
    """The user's key under one epoch: the first 8 bytes of HMAC-SHA-256 of the id as UTF-8, unsigned, big-endian."""
    return int.from_bytes(hmac.digest(epoch_key, user_id.encode(), "sha256")[:KEY_BYTES], "big")


def epoch_key_commitment(key: EpochKey) -> str:
    """Names the key without telling it (64 hex digits): a file that carries it can be matched with its key."""
    return hmac.digest(key.secret, _COMMITMENT, "sha256").hex()


def content_version(key: EpochKey, label: str, content: bytes) -> str:
    """The data version that operators see (32 hex digits): equal content under one label and key, equal version.

    Keyed, so that nobody without the key can check a guess at the content.
    """
    return hmac.digest(key.secret, _VERSION + label.encode() + b"\x00" + content, "sha256").hex()[:32]
