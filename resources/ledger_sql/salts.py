"""The port Salts: one random key an epoch, stored only wrapped under the master secret."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import insert, select

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports import EpochKey
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database

_NONCE_BYTES = 12
_KEY_BYTES = 32


class SqlSalts:
    """Epoch keys by AES-256-GCM; the epoch's number is authenticated with its key."""

    def __init__(self, database: Database, master_secret: str | None) -> None:
        self._database = database
        self._master_secret = master_secret
        self._opened: dict[int, EpochKey] = {}

    def epoch_keys(self, epochs: Iterable[int]) -> Mapping[int, EpochKey]:
        wanted = sorted(set(epochs))
        missing = [epoch for epoch in wanted if epoch not in self._opened]
        if missing:
            self._opened |= self._open_or_make(missing)
        return {epoch: self._opened[epoch] for epoch in wanted}

    def _open_or_make(self, epochs: list[int]) -> dict[int, EpochKey]:
        wrapping = AESGCM(_wrapping_key(self._master_secret))
        with self._database.write() as connection:
            rows = connection.execute(select(schema.salts).where(schema.salts.c.epoch.in_(epochs)))
            found = {row.epoch: _unwrap(wrapping, row.epoch, row.wrapped) for row in rows}
            made = {epoch: secrets.token_bytes(_KEY_BYTES) for epoch in epochs if epoch not in found}
            for epoch, secret in made.items():
                connection.execute(insert(schema.salts).values(epoch=epoch, wrapped=_wrap(wrapping, epoch, secret)))
        return {epoch: EpochKey(epoch, secret) for epoch, secret in (found | made).items()}


def _wrapping_key(master_secret: str | None) -> bytes:
    if master_secret is None:
        raise BadSetting("HASH_SALT_SECRET is not set.", "Set it to 32 random characters: `openssl rand -hex 32`.")
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"dpdau epoch keys").derive(master_secret.encode())


def _wrap(wrapping: AESGCM, epoch: int, secret: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + wrapping.encrypt(nonce, secret, str(epoch).encode())


def _unwrap(wrapping: AESGCM, epoch: int, wrapped: bytes) -> bytes:
    try:
        return wrapping.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], str(epoch).encode())
    except InvalidTag:
        raise BadSetting(
            f"HASH_SALT_SECRET does not open the key of salt epoch {epoch}.", "Set the secret this store was made with."
        ) from None
