"""Secret numbers of the ledger: encrypted where they are kept, committed to on the chain, and destroyed for good.

A commitment is an HMAC of the value under a random key, its opening, which is kept and destroyed with the value: so the
chain proves what a value was while it is there, and tells nothing about it once it is gone. The opening is encrypted
with the value, and all values are of one length: a small number could be guessed from either.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Iterator

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection, delete, insert, select

from dpdau_assets.core.errors import BadSetting
from resources.ledger_sql import schema
from resources.ledger_sql.chain import append
from resources.ledger_sql.keyring import KEY_BYTES, Keyring

NOISE, STATISTIC, SALT = "noise", "statistic", "salt"
_VALUE_BYTES = 16
_KEPT_IN = {NOISE: schema.shared_noise, STATISTIC: schema.stream_state}


def new_opening() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def commitment(opening: bytes, *said: object) -> str:
    """HMAC of what is said, part by part."""
    return hmac.digest(opening, "\n".join(map(str, said)).encode(), "sha256").hex()


def keep(connection: Connection, keyring: Keyring, kind: str, subject: str, value: int, **columns: object) -> None:
    """Store the value encrypted and commit to it; `columns` are the others that its table has."""
    opening = new_opening()
    secret = opening + value.to_bytes(_VALUE_BYTES, "big", signed=True)
    encrypted = keyring.encrypt(connection, f"{kind} {subject}", secret)
    connection.execute(insert(_KEPT_IN[kind]).values(subject=subject, encrypted=encrypted, **columns))
    commit(connection, keyring, kind, [(subject, commitment(opening, kind, subject, value))])


def reveal(connection: Connection, keyring: Keyring, kind: str, subject: str, encrypted: bytes) -> int:
    """The value. Raises InvalidTag for bytes that the ledger did not write for this subject."""
    return _opened(connection, keyring, kind, subject, encrypted)[1]


def destroy(connection: Connection, keyring: Keyring, kind: str, subject: str) -> None:
    """Delete the value with its opening, and append that it is gone. Does nothing where there is none."""
    table = _KEPT_IN[kind]
    if connection.execute(delete(table).where(table.c.subject == subject)).rowcount:
        note_destroyed(connection, keyring, kind, [subject])


def commit(connection: Connection, keyring: Keyring, kind: str, commitments: Iterable[tuple[str, str]]) -> None:
    """Append commitments, given as (subject, commitment)."""
    rows = [{"kind": kind, "subject": subject, "commitment": made} for subject, made in commitments]
    append(connection, keyring, schema.commitments, rows)


def note_destroyed(connection: Connection, keyring: Keyring, kind: str, subjects: Iterable[str]) -> None:
    """Append that these values are gone."""
    rows = [{"kind": kind, "subject": subject} for subject in subjects]
    append(connection, keyring, schema.destructions, rows)


def problems(connection: Connection, keyring: Keyring) -> Iterator[str]:
    """A sentence for each value that is not what was committed to, gone without a word, or there though destroyed."""
    gone = {(row.kind, row.subject) for row in connection.execute(select(schema.destructions))}
    committed = {(row.kind, row.subject): row.commitment for row in connection.execute(select(schema.commitments))}
    kept = dict(_kept(connection, keyring))
    for kind, subject in sorted(committed.keys() | kept.keys()):
        there = kept.get((kind, subject))
        if (kind, subject) in gone and there is not None:
            yield f"The {kind} of {subject} was destroyed, and is there."
        elif (kind, subject) not in gone and there != committed.get((kind, subject)):
            yield f"The {kind} of {subject} is not the one that was committed to."
    for row in connection.execute(select(schema.stream_state)):
        if row.subject != f"{row.instance} {row.day}":  # by which it was committed to; by the others it is read
            yield f"The statistic of {row.subject} stands under another instance or day."


def _kept(connection: Connection, keyring: Keyring) -> Iterator[tuple[tuple[str, str], str]]:
    """(kind, subject) of every value that is there, and what it commits to."""
    for kind, table in _KEPT_IN.items():
        for row in connection.execute(select(table)).all():
            yield (kind, row.subject), _recommitted(connection, keyring, kind, row.subject, row.encrypted)
    for row in connection.execute(select(schema.salts)).all():
        yield (SALT, str(row.epoch)), _salt_recommitted(keyring, row.epoch, row.wrapped, row.opening)


def _opened(connection: Connection, keyring: Keyring, kind: str, subject: str, encrypted: bytes) -> tuple[bytes, int]:
    """The opening and the value."""
    secret = keyring.decrypt(connection, f"{kind} {subject}", encrypted)
    return secret[:KEY_BYTES], int.from_bytes(secret[KEY_BYTES:], "big", signed=True)


def _recommitted(connection: Connection, keyring: Keyring, kind: str, subject: str, encrypted: bytes) -> str:
    try:
        opening, value = _opened(connection, keyring, kind, subject, encrypted)
    except InvalidTag:
        return "cannot be read"
    return commitment(opening, kind, subject, value)


def _salt_recommitted(keyring: Keyring, epoch: int, wrapped: bytes, opening: bytes) -> str:
    try:
        secret = keyring.unwrap(str(epoch), wrapped)
    except BadSetting:  # with a secret that opens the ledger's own key, or the chain could not have been read
        return "cannot be read"
    return commitment(opening, SALT, epoch, secret.hex())
