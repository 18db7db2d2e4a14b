"""The port Builds: what each partition of the state was last written as, in place, under one digest on the chain.

A row is encrypted and authenticated with its place, so none can be made, changed or exchanged without the master
secret; and the digest of all rows together is committed to, so none can be left out or put back. Neither says which
days have changed: a row that is replaced is overwritten, and of the digest only the newest is kept.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from threading import RLock

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection, and_, delete, or_, select

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import Build, Partition, Version
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.keyring import Keyring
from resources.ledger_sql.rows import in_pieces, insert_rows
from resources.ledger_sql.secret_values import BUILDS, opened, supersede

_Rows = dict[Partition, bytes]
_NONCE_BYTES = 16
_rows, _digests = schema.builds, schema.build_digests


class SqlBuilds:
    """Read whole, and again only when the digest is another one: a store has a few partitions a day."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._generation: tuple[str, bytes] | None = None
        self._encrypted: _Rows = {}
        self._builds: dict[Partition, Build] = {}
        self._guard = RLock()
        self._depth = 0

    def all(self) -> Mapping[Partition, Build]:
        with self._guard:
            if not self._depth:
                with self._database.read() as connection:
                    self._load(connection)
            return self._builds

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._guard:
            self.all()
            self._depth += 1
        try:
            yield
        finally:
            with self._guard:
                self._depth -= 1

    def put(self, changes: Mapping[Partition, Build | None]) -> None:
        if not changes:
            return
        with self._guard, self._database.write() as connection:
            self._load(connection)
            keyring = self._database.keyring
            new = {place: _sealed(connection, keyring, place, build) for place, build in changes.items() if build}
            encrypted = {place: row for place, row in self._encrypted.items() if place not in changes} | new
            _delete(connection, [place for place in changes if place in self._encrypted])
            insert_rows(connection, _rows, [_row(place, new[place]) for place in sorted(new)])
            supersede(connection, keyring, BUILDS, digest_of(encrypted))
            self._builds = {place: build for place, build in {**self._builds, **changes}.items() if build}
            self._encrypted, self._generation = encrypted, _generation(connection)

    def write_anew(self) -> None:
        self.put(dict(self.all()))

    def new_nonce(self) -> bytes:
        return secrets.token_bytes(_NONCE_BYTES)

    def overwrite_deleted(self) -> None:
        self._database.overwrite_deleted(_rows, _digests)

    def _load(self, connection: Connection) -> None:
        generation = _generation(connection)
        if generation == self._generation:
            return
        rows = encrypted_rows(connection)
        known = {(place, row): self._builds[place] for place, row in self._encrypted.items()}
        keyring = self._database.keyring
        self._builds = {
            place: known.get((place, row)) or _opened(connection, keyring, place, row) for place, row in rows.items()
        }
        _require_committed(connection, keyring, rows)
        self._encrypted, self._generation = rows, generation


def encrypted_rows(connection: Connection) -> _Rows:
    """Every row as it is kept, by its partition."""
    rows = connection.execute(select(_rows)).all()
    return {Partition(row.store, date.fromisoformat(row.day), row.epoch): row.encrypted for row in rows}


def digest_of(rows: Mapping[Partition, bytes]) -> str:
    """SHA-256 of all of these rows, in hex."""
    content = hashlib.sha256()
    for place in sorted(rows, key=str):
        content.update(f"{place} {rows[place].hex()}\n".encode())
    return content.hexdigest()


def problems(connection: Connection, keyring: Keyring, read: _Rows | None = None) -> Iterator[str]:
    """A sentence if the rows are not, all of them and none other, those that were last committed to."""
    kept = connection.execute(select(_digests)).all()
    rows = encrypted_rows(connection) if read is None else read
    try:
        digests = [opened(connection, keyring, BUILDS, row.subject, row.encrypted)[1] for row in kept]
    except InvalidTag:
        return  # said already, of a secret value that is not the one that was committed to
    if (rows or digests) and digests != [digest_of(rows)]:
        yield "What the state was last written as is not what was committed to: rows of builds were changed."


def _require_committed(connection: Connection, keyring: Keyring, rows: _Rows) -> None:
    if next(problems(connection, keyring, rows), None):
        raise Refused(
            "What the ledger says of the state is not what it wrote.", "`dpdau verify-ledger`; restore from a backup."
        )


def _generation(connection: Connection) -> tuple[str, bytes] | None:
    row = connection.execute(select(_digests)).first()
    return None if row is None else (row.subject, row.encrypted)


def _row(place: Partition, encrypted: bytes) -> dict[str, object]:
    return {"store": place.store, "day": place.day.isoformat(), "epoch": place.epoch, "encrypted": encrypted}


def _delete(connection: Connection, places: list[Partition]) -> None:
    c = _rows.c
    for some in in_pieces(places, 200):
        same = [
            and_(c.store == partition.store, c.day == partition.day.isoformat(), c.epoch == partition.epoch)
            for partition in some
        ]
        connection.execute(delete(_rows).where(or_(*same)))


def _sealed(connection: Connection, keyring: Keyring, place: Partition, build: Build) -> bytes:
    said = [_to_json(build.current), _to_json(build.coming), build.without]
    return keyring.encrypt(connection, _subject(place), json.dumps(said).encode())


def _opened(connection: Connection, keyring: Keyring, place: Partition, encrypted: bytes) -> Build:
    try:
        current, coming, without = json.loads(keyring.decrypt(connection, _subject(place), encrypted))
    except InvalidTag:
        raise Refused(
            f"What the ledger says of {place} was not written by it.", "`dpdau verify-ledger`; restore from a backup."
        ) from None
    return Build(_from_json(current), _from_json(coming), without)


def _subject(place: Partition) -> str:
    return f"build {place}"


def _to_json(version: Version | None) -> list[str] | None:
    return None if version is None else [version.nonce.hex(), version.hash]


def _from_json(said: list[str] | None) -> Version | None:
    return None if said is None else Version(bytes.fromhex(said[0]), said[1])
