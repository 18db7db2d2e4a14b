"""Secret values of the ledger: encrypted where they are kept, committed to on the chain, and destroyed for good.

A commitment is an HMAC of the value under a random key, its opening, which is kept and destroyed with the value: so the
chain proves what a value was while it is there, and tells nothing about it once it is gone. The opening is encrypted
with the value, and all values of a kind are of one length: a small number could be guessed from either.

Owns the rule: Secret noise is kept encrypted, and destroyed for good.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection, delete, func, select

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.identity import REFERENCE, commitment
from resources.ledger_sql import schema
from resources.ledger_sql.chain import append
from resources.ledger_sql.keyring import KEY_BYTES, Keyring
from resources.ledger_sql.rows import in_pieces, insert_rows

NOISE, STATISTIC, SALT, BUILDS = "noise", "statistic", "salt", "builds"
_NUMBER_BYTES, _TEXT_BYTES = 16, 64
_KEPT_IN = {
    NOISE: schema.shared_noise,
    STATISTIC: schema.stream_state,
    REFERENCE: schema.erasure_references,
    BUILDS: schema.build_digests,
}

Value = int | str
"""A number, or a text of at most 64 bytes without a NUL; each kind keeps one of the two."""


def new_opening() -> bytes:
    """The random key of a commitment, `KEY_BYTES` long."""
    return secrets.token_bytes(KEY_BYTES)


def keep(connection: Connection, keyring: Keyring, kind: str, subject: str, value: Value, **columns: object) -> None:
    """Store the value encrypted and commit to it; `columns` are the others that its table has."""
    keep_all(connection, keyring, kind, {subject: value}, **columns)


def keep_all(
    connection: Connection, keyring: Keyring, kind: str, values: Mapping[str, Value], **columns: object
) -> None:
    """Values by subject, in one entry of the chain."""
    openings = {subject: new_opening() for subject in values}
    rows = [
        {"subject": subject, "encrypted": _encrypted(connection, keyring, kind, subject, openings[subject], value)}
        for subject, value in values.items()
    ]
    insert_rows(connection, _KEPT_IN[kind], [{**row, **columns} for row in rows])
    commit(
        connection,
        keyring,
        kind,
        [(subject, commitment(openings[subject], kind, subject, value)) for subject, value in values.items()],
    )


def reveal(connection: Connection, keyring: Keyring, kind: str, subject: str, encrypted: bytes) -> int:
    """The number. Raises InvalidTag for bytes that the ledger did not write for this subject."""
    value = opened(connection, keyring, kind, subject, encrypted)[1]
    assert isinstance(value, int)
    return value


def destroy(connection: Connection, keyring: Keyring, kind: str, subject: str) -> None:
    """Delete the value with its opening, and append that it is gone. Does nothing where there is none."""
    destroy_all(connection, keyring, kind, [subject])


def destroy_all(connection: Connection, keyring: Keyring, kind: str, subjects: Sequence[str]) -> None:
    """Destroy the values of these subjects, as far as there are any."""
    table = _KEPT_IN[kind]
    gone: list[str] = []
    for some in in_pieces(subjects):
        there = table.c.subject.in_(some)
        gone += connection.scalars(select(table.c.subject).where(there).order_by(table.c.subject))
        connection.execute(delete(table).where(there))
    note_destroyed(connection, keyring, kind, gone)


def supersede(connection: Connection, keyring: Keyring, kind: str, value: Value) -> None:
    """Keep the value in place of the last one of its kind; the subject is a number that counts them."""
    table = _KEPT_IN[kind]
    said = schema.commitments.c
    before = connection.scalar(select(func.max(said.subject)).where(said.kind == kind))
    connection.execute(delete(table))
    keep(connection, keyring, kind, f"{int(before or 0) + 1:012}", value)


def commit(connection: Connection, keyring: Keyring, kind: str, commitments: Iterable[tuple[str, str]]) -> None:
    """Append commitments, given as (subject, commitment)."""
    rows = [{"kind": kind, "subject": subject, "commitment": commitment} for subject, commitment in commitments]
    append(connection, keyring, schema.commitments, rows)


def note_destroyed(connection: Connection, keyring: Keyring, kind: str, subjects: Iterable[str]) -> None:
    """Append that these values are gone."""
    rows = [{"kind": kind, "subject": subject} for subject in subjects]
    append(connection, keyring, schema.destructions, rows)


def problems(connection: Connection, keyring: Keyring) -> Iterator[str]:
    """A sentence for each value that is not what was committed to, gone without a word, or there though destroyed."""
    gone = {(row.kind, row.subject) for row in connection.execute(select(schema.destructions))}
    ordered = select(schema.commitments).order_by(schema.commitments.c.id)
    committed = {(row.kind, row.subject): row.commitment for row in connection.execute(ordered)}
    gone |= set([place for place in committed if place[0] == BUILDS][:-1])  # each takes the place of the one before
    kept = dict(_kept(connection, keyring))
    for kind, subject in sorted(committed.keys() | kept.keys()):
        there = kept.get((kind, subject))
        if (kind, subject) in gone and there is not None:
            yield f"The {kind} of {subject} was destroyed, and is there."
        elif (kind, subject) not in gone and there != committed.get((kind, subject)):
            yield f"The {kind} of {subject} is not the one that was committed to."
    for row in connection.execute(select(schema.stream_state)):
        if row.subject != f"{row.instance} {row.day}":  # by which it was committed to; by the others it is read
            yield f"The statistic of {row.subject} stands under another mechanism run or day."


def _kept(connection: Connection, keyring: Keyring) -> Iterator[tuple[tuple[str, str], str]]:
    """(kind, subject) of every value that is there, and what it commits to."""
    for kind, table in _KEPT_IN.items():
        for row in connection.execute(select(table)).all():
            yield (kind, row.subject), _recommitted(connection, keyring, kind, row.subject, row.encrypted)
    for row in connection.execute(select(schema.salts)).all():
        yield (SALT, str(row.epoch)), _salt_recommitted(keyring, row.epoch, row.wrapped, row.opening)


def opened(connection: Connection, keyring: Keyring, kind: str, subject: str, encrypted: bytes) -> tuple[bytes, Value]:
    """The opening and the value. Raises InvalidTag for bytes that the ledger did not write for this subject."""
    secret = keyring.decrypt(connection, f"{kind} {subject}", encrypted)
    return secret[:KEY_BYTES], _value(kind, secret[KEY_BYTES:])


def _encrypted(
    connection: Connection, keyring: Keyring, kind: str, subject: str, opening: bytes, value: Value
) -> bytes:
    return keyring.encrypt(connection, f"{kind} {subject}", opening + _bytes(value))


def _bytes(value: Value) -> bytes:
    """A value as bytes: of one length for all numbers, and of one for all texts."""
    if isinstance(value, int):
        return value.to_bytes(_NUMBER_BYTES, "big", signed=True)
    text = value.encode()
    if len(text) > _TEXT_BYTES or b"\0" in text:
        raise ValueError("a text that cannot be kept as a secret value")
    return text.ljust(_TEXT_BYTES, b"\0")


def _value(kind: str, content: bytes) -> Value:
    if kind in (REFERENCE, BUILDS):
        return content.rstrip(b"\0").decode()
    return int.from_bytes(content, "big", signed=True)


def _recommitted(connection: Connection, keyring: Keyring, kind: str, subject: str, encrypted: bytes) -> str:
    try:
        opening, value = opened(connection, keyring, kind, subject, encrypted)
    except InvalidTag:
        return "cannot be read"
    return commitment(opening, kind, subject, value)


def _salt_recommitted(keyring: Keyring, epoch: int, wrapped: bytes, opening: bytes) -> str:
    try:
        secret = keyring.unwrap(str(epoch), wrapped)
    except BadSetting:  # with a secret that opens the ledger's own key, or the chain could not have been read
        return "cannot be read"
    return commitment(opening, SALT, epoch, secret.hex())
