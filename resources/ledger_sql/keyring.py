"""What HASH_SALT_SECRET opens: random keys that are stored only wrapped under it."""

from __future__ import annotations

import secrets
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, insert, select, update

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.secret_strength import require_strong
from resources.ledger_sql import schema

KEY_BYTES = 32
RECEIPTS, LEDGER = "receipts", "ledger"
_NONCE_BYTES = 12
_READ_ONCE = "dpdau: read once a transaction"


class Keyring:
    """Keys wrapped by AES-256-GCM; the name of each (a salt epoch's number is one) is authenticated with it.

    Named keys are made at their first use. Raises BadSetting without the master secret, and for a wrong one.
    """

    def __init__(self, master_secret: str | None) -> None:
        self._master_secret = master_secret
        self._opened: dict[bytes, bytes] = {}  # by what is stored: a key that was rolled back is never used again

    @property
    def has_secret(self) -> bool:
        """Whether there is a master secret, right or wrong."""
        return self._master_secret is not None

    def require_strong_secret(self) -> None:
        """Raise BadSetting for a master secret that a new store must not be begun with."""
        if self._master_secret is not None:
            require_strong(self._master_secret)

    def key(self, connection: Connection, name: str) -> bytes:
        """The named key: 32 bytes; read once a transaction."""
        known = in_this_transaction(connection)
        if name not in known:
            known[name] = self._stored_or_made(connection, name)
        return known[name]

    def stored(self, connection: Connection, name: str) -> bytes | None:
        """The named key, None where none was made."""
        table = schema.wrapped_keys
        wrapped = connection.scalar(select(table.c.wrapped).where(table.c.name == name))
        if wrapped is not None and wrapped not in self._opened:
            self._opened[wrapped] = self.unwrap(name, wrapped)
        return None if wrapped is None else self._opened[wrapped]

    def _stored_or_made(self, connection: Connection, name: str) -> bytes:
        key = self.stored(connection, name)
        if key is None:
            self.require_right_secret(connection)
            key = secrets.token_bytes(KEY_BYTES)
            wrapped = self.wrap(name, key)
            connection.execute(insert(schema.wrapped_keys).values(name=name, wrapped=wrapped))
            self._opened[wrapped] = key
        return key

    def wrap(self, name: str, secret: bytes) -> bytes:
        return _encrypt(self._wrapping(), name, secret)

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        try:
            return _decrypt(self._wrapping(), name, wrapped)
        except InvalidTag:
            what = f"salt epoch {name}" if name.lstrip("-").isdigit() else f"the {name}"
            raise BadSetting(
                f"HASH_SALT_SECRET does not open the key of {what}.", "Set the secret this store was made with."
            ) from None

    def require_right_secret(self, connection: Connection) -> None:
        """A new key wrapped under a wrong secret would be lost; so that secret has to open one that is there."""
        for table, label in _WRAPPED:
            row = connection.execute(select(label, table.c.wrapped).limit(1)).one_or_none()
            if row is not None:
                self.unwrap(str(row[0]), row.wrapped)
                return

    def rewrap(self, connection: Connection, new_secret: str) -> None:
        """Wrap every key under a new master secret, which opens them from then on."""
        new = Keyring(new_secret)
        for table, label in _WRAPPED:
            for name, wrapped in connection.execute(select(label, table.c.wrapped)).all():
                again = new.wrap(str(name), self.unwrap(str(name), wrapped))
                connection.execute(update(table).where(label == name).values(wrapped=again))

    def change_secret(self, new_secret: str) -> None:
        """What is opened from here on was wrapped under this one."""
        self._master_secret = new_secret

    def encrypt(self, connection: Connection, subject: str, value: bytes) -> bytes:
        """A secret value of the ledger, which nothing but the ledger reads; `subject` is authenticated with it."""
        return _encrypt(self._values(connection), subject, value)

    def decrypt(self, connection: Connection, subject: str, encrypted: bytes) -> bytes:
        """Raises InvalidTag for bytes that the ledger did not write for this subject."""
        return _decrypt(self._values(connection), subject, encrypted)

    def _values(self, connection: Connection) -> AESGCM:
        return AESGCM(derive(self.key(connection, LEDGER), "secret values"))

    def _wrapping(self) -> AESGCM:
        if self._master_secret is None:
            raise BadSetting("HASH_SALT_SECRET is not set.", "Set it to 32 random characters: `openssl rand -hex 32`.")
        return AESGCM(derive(self._master_secret.encode(), "dpdau epoch keys"))


_WRAPPED = ((schema.salts, schema.salts.c.epoch), (schema.wrapped_keys, schema.wrapped_keys.c.name))


def in_this_transaction(connection: Connection) -> dict[str, Any]:
    """What was read once and holds until the transaction ends; emptied when another one begins (`database`)."""
    return connection.info.setdefault(_READ_ONCE, {})


def begin_anew(connection: Connection) -> None:
    """Forget what was read once: another transaction begins, and nothing is known of it yet."""
    connection.info.pop(_READ_ONCE, None)


@lru_cache(maxsize=16)
def derive(key: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive(key)


def _encrypt(cipher: AESGCM, name: str, secret: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, secret, name.encode())


def _decrypt(cipher: AESGCM, name: str, encrypted: bytes) -> bytes:
    return cipher.decrypt(encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:], name.encode())
