"""The port Salts: one random key an epoch and one for receipts, stored only wrapped under the master secret."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, delete, insert, select

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import EpochKey
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasure_rows import without_tombstones
from resources.ledger_sql.keyring import KEY_BYTES, RECEIPTS
from resources.ledger_sql.retention import fact, raise_fact
from resources.ledger_sql.secret_values import (
    REFERENCE,
    SALT,
    commit,
    commitment,
    destroy_all,
    new_opening,
    note_destroyed,
)


class SqlSalts:
    """Keys of epochs are committed to on the ledger's chain, so that none is ever exchanged for another."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keyring = database.keyring
        self._opened: dict[int, EpochKey] = {}

    def epoch_keys(self, epochs: Iterable[int]) -> Mapping[int, EpochKey]:
        wanted = sorted(set(epochs))
        missing = [epoch for epoch in wanted if epoch not in self._opened]
        if missing:
            self._opened |= self._open_or_make(missing)
        return {epoch: self._opened[epoch] for epoch in wanted}

    def signing_key(self) -> bytes:
        with self._database.write() as connection:
            return self._keyring.key(connection, RECEIPTS)

    def rewrap(self, new_secret: str) -> None:
        with self._database.write() as connection:
            self._keyring.rewrap(connection, new_secret)
        self._database.overwrite_deleted(schema.salts, schema.wrapped_keys)
        self._keyring.change_secret(new_secret)

    def shred_through(self, epoch: int) -> None:
        table = schema.salts
        with self._database.write() as connection:
            raise_fact(connection, self._keyring, "shredded_through", epoch)
            shredded = connection.scalars(select(table.c.epoch).where(table.c.epoch <= epoch)).all()
            for holder in (table, schema.tombstones):
                connection.execute(delete(holder).where(holder.c.epoch <= epoch))
            note_destroyed(connection, self._keyring, SALT, [str(number) for number in shredded])
            destroy_all(connection, self._keyring, REFERENCE, without_tombstones(connection))
        self._database.overwrite_deleted(table, schema.tombstones, schema.erasure_references)
        self._opened = {number: key for number, key in self._opened.items() if number > epoch}

    def shredded_through(self) -> int | None:
        with self._database.read() as connection:
            gone = fact(connection, "shredded_through")
        if gone is not None:  # perhaps by another process: what this one has opened goes too
            self._opened = {number: key for number, key in self._opened.items() if number > gone}
        return gone

    def lost(self) -> frozenset[int]:
        with self._database.read() as connection:
            return frozenset(connection.scalars(select(schema.lost_epochs.c.epoch)))

    def _open_or_make(self, epochs: list[int]) -> dict[int, EpochKey]:
        with self._database.write() as connection:
            _require_not_gone(connection, epochs)
            rows = connection.execute(select(schema.salts).where(schema.salts.c.epoch.in_(epochs)))
            known = {row.epoch: self._keyring.unwrap(str(row.epoch), row.wrapped) for row in rows}
            new = {epoch: secrets.token_bytes(KEY_BYTES) for epoch in epochs if epoch not in known}
            if new and not known:
                self._keyring.require_right_secret(connection)
            self._add(connection, new)
        return {epoch: EpochKey(epoch, secret) for epoch, secret in (known | new).items()}

    def _add(self, connection: Connection, secrets_by_epoch: Mapping[int, bytes]) -> None:
        commitments = []
        for epoch, secret in secrets_by_epoch.items():
            opening, wrapped = new_opening(), self._keyring.wrap(str(epoch), secret)
            connection.execute(insert(schema.salts).values(epoch=epoch, wrapped=wrapped, opening=opening))
            commitments.append((str(epoch), commitment(opening, SALT, epoch, secret.hex())))
        commit(connection, self._keyring, SALT, commitments)


def _require_not_gone(connection: Connection, epochs: list[int]) -> None:
    gone = fact(connection, "shredded_through")
    if gone is not None and epochs[0] <= gone:
        raise Refused(f"The key of salt epoch {epochs[0]} was shredded.", "What it keyed is past retention.")
    lost = connection.scalar(select(schema.lost_epochs.c.epoch).where(schema.lost_epochs.c.epoch.in_(epochs)).limit(1))
    if lost is not None:
        raise Refused(
            f"The key of salt epoch {lost} was lost when the ledger was restored, and files of it are there.",
            "Events of its days cannot be taken in any more; go on with the days of a later epoch.",
            epoch=lost,
        )
