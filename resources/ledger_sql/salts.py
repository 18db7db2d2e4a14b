"""The port Salts: one random key an epoch and one for receipts, stored only wrapped under the master secret."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, delete, insert, select, update

from dpdau_assets.core.errors import BadSetting, Refused
from dpdau_assets.core.facts import EpochKey
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.retention import fact, raise_fact

_NONCE_BYTES = 12
_KEY_BYTES = 32
_RECEIPTS = "receipts"


class SqlSalts:
    """Keys wrapped by AES-256-GCM; the name of each (an epoch's number) is authenticated with it."""

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

    def signing_key(self) -> bytes:
        table, wrapping = schema.signing_keys, AESGCM(_wrapping_key(self._master_secret))
        with self._database.write() as connection:
            wrapped = connection.scalar(select(table.c.wrapped).where(table.c.name == _RECEIPTS))
            if wrapped is not None:
                return _unwrap(wrapping, _RECEIPTS, wrapped)
            _require_right_secret(connection, wrapping)
            secret = secrets.token_bytes(_KEY_BYTES)
            connection.execute(insert(table).values(name=_RECEIPTS, wrapped=_wrap(wrapping, _RECEIPTS, secret)))
        return secret

    def rewrap(self, new_secret: str) -> None:
        old, new = AESGCM(_wrapping_key(self._master_secret)), AESGCM(_wrapping_key(new_secret))
        with self._database.write() as connection:
            for table, label in (
                (schema.salts, schema.salts.c.epoch),
                (schema.signing_keys, schema.signing_keys.c.name),
            ):
                for name, wrapped in connection.execute(select(label, table.c.wrapped)).all():
                    again = _wrap(new, str(name), _unwrap(old, str(name), wrapped))
                    connection.execute(update(table).where(label == name).values(wrapped=again))
        self._database.empty_log()
        self._master_secret = new_secret

    def shred_through(self, epoch: int) -> None:
        with self._database.write() as connection:
            raise_fact(connection, "shredded_through", epoch)
            for table in (schema.salts, schema.tombstones):
                connection.execute(delete(table).where(table.c.epoch <= epoch))
        self._database.empty_log()
        self._opened = {number: key for number, key in self._opened.items() if number > epoch}

    def shredded_through(self) -> int | None:
        with self._database.read() as connection:
            return fact(connection, "shredded_through")

    def _open_or_make(self, epochs: list[int]) -> dict[int, EpochKey]:
        wrapping = AESGCM(_wrapping_key(self._master_secret))
        with self._database.write() as connection:
            gone = fact(connection, "shredded_through")
            if gone is not None and epochs[0] <= gone:
                raise Refused(f"The key of salt epoch {epochs[0]} was shredded.", "What it keyed is past retention.")
            rows = connection.execute(select(schema.salts).where(schema.salts.c.epoch.in_(epochs)))
            found = {row.epoch: _unwrap(wrapping, str(row.epoch), row.wrapped) for row in rows}
            made = {epoch: secrets.token_bytes(_KEY_BYTES) for epoch in epochs if epoch not in found}
            if made and not found:
                _require_right_secret(connection, wrapping)
            for epoch, secret in made.items():
                wrapped = _wrap(wrapping, str(epoch), secret)
                connection.execute(insert(schema.salts).values(epoch=epoch, wrapped=wrapped))
        return {epoch: EpochKey(epoch, secret) for epoch, secret in (found | made).items()}


def _require_right_secret(connection: Connection, wrapping: AESGCM) -> None:
    """A new key wrapped under a wrong secret would be lost; so that secret has to open one that is there."""
    row = connection.execute(select(schema.salts).limit(1)).one_or_none()
    if row is not None:
        _unwrap(wrapping, str(row.epoch), row.wrapped)


def _wrapping_key(master_secret: str | None) -> bytes:
    if master_secret is None:
        raise BadSetting("HASH_SALT_SECRET is not set.", "Set it to 32 random characters: `openssl rand -hex 32`.")
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"dpdau epoch keys").derive(master_secret.encode())


def _wrap(wrapping: AESGCM, name: str, secret: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + wrapping.encrypt(nonce, secret, name.encode())


def _unwrap(wrapping: AESGCM, name: str, wrapped: bytes) -> bytes:
    try:
        return wrapping.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], name.encode())
    except InvalidTag:
        raise BadSetting(
            f"HASH_SALT_SECRET does not open the key of {name if name == _RECEIPTS else f'salt epoch {name}'}.",
            "Set the secret this store was made with.",
        ) from None
