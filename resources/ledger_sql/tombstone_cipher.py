"""Keys of erased people as the ledger keeps them: encrypted under their own epoch's key.

So no file ever holds an erased key in the clear, not even the database's log, and a search of bytes needs no exception;
and with the epoch's key its tombstones are shredded too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dpdau_assets.core.facts import EpochKey, Keys

_BLOCK_BYTES = 16


def encrypt(keys: Keys, epoch_key: EpochKey) -> list[bytes]:
    """One AES block a key: the key and its epoch. The same key gives the same bytes, so that it can be found again.

    Each block is a whole message of high entropy and stands alone, so the plain block cipher is what is needed.
    """
    blocks = np.column_stack([keys.astype("<u8"), np.full(len(keys), epoch_key.epoch, dtype="<u8")])
    encrypted = _cipher(epoch_key).encryptor().update(blocks.tobytes())
    return [encrypted[at : at + _BLOCK_BYTES] for at in range(0, len(encrypted), _BLOCK_BYTES)]


def decrypt(encrypted: Sequence[bytes], epoch_key: EpochKey) -> Keys:
    """The keys, in this order. Raises ValueError for bytes that another key has encrypted."""
    blocks = np.frombuffer(_cipher(epoch_key).decryptor().update(b"".join(encrypted)), dtype="<u8").reshape(-1, 2)
    if (blocks[:, 1] != epoch_key.epoch).any():
        raise ValueError(f"a tombstone of salt epoch {epoch_key.epoch} was encrypted under another key")
    return blocks[:, 0].astype(np.uint64)


def _cipher(epoch_key: EpochKey) -> Cipher[ECB]:
    derived = HKDF(SHA256(), 32, salt=None, info=b"dpdau tombstones").derive(epoch_key.secret)
    return Cipher(AES(derived), ECB())
