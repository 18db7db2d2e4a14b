"""The port ErasureLedger: requests, their tombstones, and how far they are applied."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, delete, func, select, update

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import EpochKey, Erasure, ErasureState, Keys, Removal
from dpdau_assets.core.keysets import EMPTY
from dpdau_assets.core.ports import Salts
from dpdau_assets.core.tombstones import Tombstones, held_until
from dpdau_assets.core.windows import day_number
from resources.ledger_sql import schema
from resources.ledger_sql.chain import append
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasure_rows import change_state, ids_of, progress, rows_of, set_progress
from resources.ledger_sql.retention import fact
from resources.ledger_sql.rows import in_pieces, insert_rows
from resources.ledger_sql.secret_values import commitment, new_opening
from resources.ledger_sql.tombstone_cipher import decrypt, encrypt

_Identity = tuple[int, bytes, str]


@dataclass(frozen=True)
class _Asked:
    """A removal and its keys, encrypted: (epoch, encrypted key), in order of epochs."""

    removal: Removal
    encrypted: list[tuple[int, bytes]]

    @cached_property
    def identity(self) -> _Identity:
        """The same person and days are the same removal. The last epoch is the one that lives longest.

        Without a living epoch nobody can tell who it is, so it is the same as no other.
        """
        epoch, key = self.encrypted[-1] if self.encrypted else (-1, secrets.token_bytes(16))
        return epoch, key, self.removal.scope

    @cached_property
    def tombstones(self) -> list[dict[str, Any]]:
        """One a listed day, or one for the through-day, under each epoch; in order of epoch and day."""
        removal = self.removal
        held = day_number(held_until(removal.through))
        openings = {epoch: new_opening() for epoch, _ in self.encrypted}
        return [
            {"epoch": epoch, "encrypted_key": key, "day": day_number(day), "listed": bool(removal.days),
             "held_until": held, "effective_from": None, "opening": openings[epoch]}
            for epoch, key in self.encrypted
            for day in removal.days or (removal.through,)
        ]  # fmt: skip

    def commitments(self) -> str:
        """To the tombstones of each epoch, as JSON."""
        by_epoch = groupby(self.tombstones, key=itemgetter("epoch"))
        return json.dumps({epoch: committed_to(list(stones)) for epoch, stones in by_epoch})


class SqlErasures:
    """Requests of every epoch. `first_mau_day` is the first day on which a MAU window is whole."""

    def __init__(self, database: Database, salts: Salts, first_mau_day: date) -> None:
        self._database = database
        self._salts = salts
        self._first_mau_day = first_mau_day

    # Requests

    def record(self, removals: Sequence[Removal], received_on: date, *, parked: bool) -> list[str]:
        with_keys = list(zip(removals, self._encrypted(removals), strict=True))
        with self._database.write() as connection:
            gone = fact(connection, "shredded_through")  # which may be more by now than when they were keyed
            living = [[pair for pair in pairs if gone is None or pair[0] > gone] for _, pairs in with_keys]
            asked = [_Asked(removal, pairs) for (removal, _), pairs in zip(with_keys, living, strict=True)]
            receipts = _known(connection, asked)
            new = {one.identity: one for one in asked if one.identity not in receipts}
            ids = self._add(connection, list(new.values()), received_on)
            if parked:
                self._change_state(connection, list(ids.values()), "parked")
            else:  # what waited to be confirmed and was asked for again comes into force too
                waiting = ids_of(connection, list(receipts.values()), ("parked",))
                self._bring_into_force(connection, [*waiting, *ids.values()])
            receipts |= dict(zip(new, ids, strict=True))
        return [receipts[one.identity] for one in asked]

    def confirm(self, receipts: Sequence[str]) -> None:
        with self._database.write() as connection:
            self._bring_into_force(connection, ids_of(connection, receipts, ("parked",)))

    def cancel(self, receipts: Sequence[str]) -> None:
        with self._database.write() as connection:
            begun = progress(connection, "begun")
            for row in rows_of(connection, receipts):
                if row.state in ("applied", "verified") or (row.state == "received" and row.watermark <= begun):
                    raise Refused(
                        f"The erasure {row.receipt} is being applied or has been.", "What is erased cannot come back.",
                        receipt=row.receipt,
                    )  # fmt: skip
            ids = ids_of(connection, receipts, ("parked", "received"))
            self._change_state(connection, ids, "cancelled")
            for some in in_pieces(ids):
                connection.execute(delete(schema.tombstones).where(schema.tombstones.c.erasure.in_(some)))
        self._database.overwrite_deleted(schema.tombstones)

    def erasures(self, states: Iterable[ErasureState] = ()) -> list[Erasure]:
        table = schema.erasures
        query, wanted = select(table).order_by(table.c.id), list(states)
        with self._database.read() as connection:
            rows = connection.execute(query.where(table.c.state.in_(wanted)) if wanted else query)
            return [_erasure(row) for row in rows]

    def find(self, names: Iterable[str]) -> list[Erasure]:
        with self._database.read() as connection:
            rows = {row.id: row for row in rows_of(connection, list(set(names)))}
        return [_erasure(rows[one]) for one in sorted(rows)]

    # Tombstones

    def keys_of(self, receipts: Iterable[str]) -> Mapping[str, Mapping[int, int]]:
        e, t = schema.erasures.c, schema.tombstones.c
        found: list[Any] = []
        with self._database.read() as connection:
            for some in in_pieces(list(set(receipts))):
                query = select(e.receipt, t.epoch, t.encrypted_key).join(schema.erasures, t.erasure == e.id)
                found += connection.execute(query.where(e.receipt.in_(some)).distinct())
        keys: dict[str, dict[int, int]] = defaultdict(dict)
        for epoch, rows in _by_epoch(found):
            opened = self._decrypted(epoch, [row.encrypted_key for row in rows])
            for row, key in zip(rows, opened.tolist(), strict=True):
                keys[row.receipt][epoch] = key
        return keys

    def tombstones(self, epoch: int, *, after: int = 0, through: int | None = None) -> Tombstones:
        t, e = schema.tombstones.c, schema.erasures.c
        query = select(t.encrypted_key, t.day, t.listed, t.held_until, t.effective_from)
        query = query.where(t.epoch == epoch, t.effective_from.is_not(None))
        query = query.join(schema.erasures, t.erasure == e.id).where(e.watermark > after)
        if through is not None:
            query = query.where(e.watermark <= through)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        encrypted, days, listed, held, effective = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        return Tombstones(
            keys=self._decrypted(epoch, encrypted), days=_numbers(days), listed=np.array(listed, dtype=bool),
            held_until=_numbers(held), effective_from=_numbers(effective),
        )  # fmt: skip

    # Progress

    def recorded(self) -> int:
        with self._database.read() as connection:
            return recorded(connection)

    def begin_applying(self, watermark: int) -> None:
        with self._database.write() as connection:
            set_progress(connection, "begun", watermark)

    def applied(self) -> int:
        return self._watermark("applied")

    def mark_applied(self, watermark: int) -> None:
        with self._database.write() as connection:
            set_progress(connection, "applied", watermark)
            table = schema.erasures
            waiting = select(table.c.id).where(table.c.state == "received", table.c.watermark <= watermark)
            self._change_state(connection, list(connection.scalars(waiting)), "applied")

    # Inside a transaction

    def _add(self, connection: Connection, new: Sequence[_Asked], received_on: date) -> dict[str, int]:
        """Their receipts and ids, in order."""
        batch = secrets.token_hex(8)
        rows = [
            {"receipt": secrets.token_hex(8), "batch": batch, "through": one.removal.through.isoformat(),
             "scope": one.removal.scope, "received_on": received_on.isoformat(), "commitments": one.commitments(),
             "state": "", "watermark": 0}
            for one in new
        ]  # fmt: skip
        append(connection, self._database.keyring, schema.erasures, rows)
        ids = {row.receipt: row.id for row in rows_of(connection, [batch])}
        receipts = {str(row["receipt"]): ids[str(row["receipt"])] for row in rows}
        stones = [
            {"erasure": erasure, **stone}
            for one, erasure in zip(new, receipts.values(), strict=True)
            for stone in one.tombstones
        ]
        insert_rows(connection, schema.tombstones, stones)
        return receipts

    def _bring_into_force(self, connection: Connection, ids: Sequence[int]) -> None:
        """From the first MAU day that is not committed by now."""
        effective = day_number(self._next_mau_day(connection))
        self._change_state(connection, ids, "received", effective)
        table, stones = schema.erasures, schema.tombstones
        watermark = connection.scalar(select(func.max(schema.erasure_states.c.id)))
        for some in in_pieces(ids):
            connection.execute(update(table).where(table.c.id.in_(some)).values(watermark=watermark))
            connection.execute(update(stones).where(stones.c.erasure.in_(some)).values(effective_from=effective))

    def _change_state(
        self, connection: Connection, ids: Sequence[int], state: ErasureState, effective_from: int | None = None
    ) -> None:
        change_state(connection, self._database.keyring, ids, state, effective_from)

    def _next_mau_day(self, connection: Connection) -> date:
        query = select(func.max(schema.releases.c.day)).where(schema.releases.c.metric == "mau")
        last = connection.scalar(query)
        after_last = date.min if last is None else date.fromisoformat(last) + timedelta(days=1)
        return max(self._first_mau_day, after_last)

    def _encrypted(self, removals: Sequence[Removal]) -> list[list[tuple[int, bytes]]]:
        """The encrypted keys of each removal; all keys of an epoch are encrypted in one call."""
        by_epoch: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for place, removal in enumerate(removals):
            for epoch, key in removal.keys:
                by_epoch[epoch].append((place, key))
        encrypted: list[list[tuple[int, bytes]]] = [[] for _ in removals]
        for epoch, found in sorted(by_epoch.items()):
            keys = np.array([key for _, key in found], dtype=np.uint64)
            for (place, _), block in zip(found, encrypt(keys, self._key(epoch)), strict=True):
                encrypted[place].append((epoch, block))
        return encrypted

    def _decrypted(self, epoch: int, encrypted: Sequence[bytes]) -> Keys:
        return decrypt(encrypted, self._key(epoch)) if encrypted else EMPTY

    def _key(self, epoch: int) -> EpochKey:
        return self._salts.epoch_keys([epoch])[epoch]

    def _watermark(self, name: str) -> int:
        with self._database.read() as connection:
            return progress(connection, name)


def recorded(connection: Connection) -> int:
    """The watermark of all that is in force."""
    return connection.scalar(select(func.max(schema.erasures.c.watermark))) or 0


def _known(connection: Connection, asked: Sequence[_Asked]) -> dict[_Identity, str]:
    """The receipts of those that were asked for before."""
    e, t = schema.erasures.c, schema.tombstones.c
    query = select(t.epoch, t.encrypted_key, e.scope, e.receipt).join(schema.erasures, t.erasure == e.id)
    identities = {one.identity for one in asked}
    found = {}
    for some in in_pieces(sorted(identities)):
        keys = [key for _, key, _ in some]
        for row in connection.execute(query.where(t.encrypted_key.in_(keys)).order_by(e.id.desc())):
            found[row.epoch, row.encrypted_key, row.scope] = row.receipt
    return {identity: found[identity] for identity in identities & found.keys()}


def committed_to(tombstones: Sequence[Mapping[str, Any]]) -> str:
    """The commitment to all tombstones of one erasure and epoch, given in order of days."""
    said = [(stone["encrypted_key"].hex(), stone["day"], stone["listed"], stone["held_until"]) for stone in tombstones]
    return commitment(tombstones[0]["opening"], "tombstones", tombstones[0]["epoch"], *said)


def _erasure(row: Row[Any]) -> Erasure:
    kind, _, days = row.scope.partition(" ")
    listed = tuple(date.fromisoformat(day) for day in days.split(",")) if kind == "days" else ()
    return Erasure(
        row.receipt, row.batch, date.fromisoformat(row.through), listed, date.fromisoformat(row.received_on), row.state
    )


def _by_epoch(rows: Iterable[Row[Any]]) -> Iterator[tuple[int, list[Row[Any]]]]:
    for epoch, group in groupby(sorted(rows, key=lambda row: row.epoch), key=lambda row: row.epoch):
        yield epoch, list(group)


def _numbers(days: Sequence[int]) -> np.ndarray:
    return np.array(days, dtype=np.int32)
