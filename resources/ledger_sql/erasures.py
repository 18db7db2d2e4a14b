"""The port ErasureLedger: requests, their tombstones, and how far they are applied."""

from __future__ import annotations

import hashlib
import secrets
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Connection, Row, Table, delete, func, insert, select, update

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import EpochKey, Erasure, ErasureState, Keys, ReceiptRow, Removal
from dpdau_assets.core.keysets import EMPTY
from dpdau_assets.core.ports import Salts
from dpdau_assets.core.tombstones import Tombstones, held_until
from dpdau_assets.core.windows import day_number
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.retention import fact
from resources.ledger_sql.tombstone_cipher import decrypt, encrypt

_AT_ONCE = 5_000  # far below the number of values that one SQLite statement takes

_Identity = tuple[int, bytes, str]
_Value = TypeVar("_Value")


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

    def rows(self, erasure: int) -> list[dict[str, object]]:
        """Tombstones: one a listed day, or one for the through-day, under each epoch."""
        removal = self.removal
        held = day_number(held_until(removal.through))
        return [
            {"erasure": erasure, "epoch": epoch, "encrypted_key": key, "day": day_number(day),
             "listed": bool(removal.days), "held_until": held, "effective_from": None}
            for epoch, key in self.encrypted
            for day in removal.days or (removal.through,)
        ]  # fmt: skip


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
            self._change(connection, list(ids.values()), "parked" if parked else "received")
            if not parked:  # what waited to be confirmed has been asked for again, and in force this time
                self._change(connection, _ids(connection, list(receipts.values()), ("parked",)), "received")
            receipts |= dict(zip(new, ids, strict=True))
        return [receipts[one.identity] for one in asked]

    def confirm(self, receipts: Sequence[str]) -> None:
        with self._database.write() as connection:
            self._change(connection, _ids(connection, receipts, ("parked",)), "received")

    def cancel(self, receipts: Sequence[str]) -> None:
        with self._database.write() as connection:
            begun = _progress(connection, "begun")
            for row in _rows_of(connection, receipts):
                if row.state in ("applied", "verified") or (row.state == "received" and row.watermark <= begun):
                    raise Refused(
                        f"The erasure {row.receipt} is being applied or has been.", "What is erased cannot come back.",
                        receipt=row.receipt,
                    )  # fmt: skip
            ids = _ids(connection, receipts, ("parked", "received"))
            self._change(connection, ids, "cancelled")
            for some in _some(ids):
                connection.execute(delete(schema.tombstones).where(schema.tombstones.c.erasure.in_(some)))
        self._database.empty_log()

    def erasures(self, states: Iterable[ErasureState] = ()) -> list[Erasure]:
        table = schema.erasures
        query, wanted = select(table).order_by(table.c.id), list(states)
        with self._database.read() as connection:
            rows = connection.execute(query.where(table.c.state.in_(wanted)) if wanted else query)
            return [_erasure(row) for row in rows]

    def find(self, names: Iterable[str]) -> list[Erasure]:
        with self._database.read() as connection:
            rows = {row.id: row for row in _rows_of(connection, list(set(names)))}
        return [_erasure(rows[one]) for one in sorted(rows)]

    # Tombstones

    def keys_of(self, receipts: Iterable[str]) -> Mapping[str, Mapping[int, int]]:
        e, t = schema.erasures.c, schema.tombstones.c
        found: list[Any] = []
        with self._database.read() as connection:
            for some in _some(list(set(receipts))):
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

    def marked(self) -> int:
        return self._watermark("marked")

    def mark(self, days: Iterable[date], watermark: int) -> None:
        table = schema.rebuilds
        with self._database.write() as connection:
            _set_progress(connection, "marked", watermark)
            next_mark = 1 + (connection.scalar(select(func.max(table.c.wanted))) or 0)
            touched = [{"day": day.isoformat(), "wanted": 0, "built": 0} for day in sorted(days)]
            if touched:
                connection.execute(insert(table).prefix_with("OR IGNORE"), touched)
            for some in _some([row["day"] for row in touched]):
                connection.execute(update(table).where(table.c.day.in_(some)).values(wanted=next_mark))

    def begin_applying(self, watermark: int) -> None:
        with self._database.write() as connection:
            _set_progress(connection, "begun", watermark)

    def applied(self) -> int:
        return self._watermark("applied")

    def mark_applied(self, watermark: int) -> None:
        with self._database.write() as connection:
            _set_progress(connection, "applied", watermark)
            table = schema.erasures
            waiting = select(table.c.id).where(table.c.state == "received", table.c.watermark <= watermark)
            self._change(connection, list(connection.scalars(waiting)), "applied")

    def wanted(self, day: date) -> int:
        column = schema.rebuilds.c
        with self._database.read() as connection:
            return connection.scalar(select(column.wanted).where(column.day == day.isoformat())) or 0

    def behind(self) -> list[tuple[date, int]]:
        table = schema.rebuilds
        query = select(table.c.day, table.c.wanted).where(table.c.built < table.c.wanted).order_by(table.c.day)
        with self._database.read() as connection:
            return [(date.fromisoformat(row.day), row.wanted) for row in connection.execute(query)]

    def mark_built(self, day: date, mark: int) -> None:
        table = schema.rebuilds
        with self._database.write() as connection:
            here = update(table).where(table.c.day == day.isoformat(), table.c.built < mark)
            connection.execute(here.values(built=mark))

    def drop_marks_through(self, through: date) -> None:
        table = schema.rebuilds  # a mark stays, since the next one must be higher than any that ever was
        with self._database.write() as connection:
            past = update(table).where(table.c.day <= through.isoformat(), table.c.built < table.c.wanted)
            connection.execute(past.values(built=table.c.wanted))

    # Receipts

    def store_receipts(self, rows: Sequence[ReceiptRow], follows: str, verified: Sequence[str]) -> None:
        with self._database.write() as connection:
            if _last_hash(connection) != follows:
                raise Refused("Another process has written receipts meanwhile.", "Ask again.")
            digests = {partitions: _digest(partitions) for partitions in {row.partitions for row in rows}}
            for partitions, digest in digests.items():
                values = {"digest": digest, "partitions": zlib.compress(partitions.encode())}
                connection.execute(insert(schema.inspections).prefix_with("OR IGNORE"), [values])
            written = [
                {"receipt": row.receipt, "body": row.body, "hash": row.hash, "signature": row.signature,
                 "inspection": digests[row.partitions]}
                for row in rows
            ]  # fmt: skip
            _insert(connection, schema.receipts, written)
            self._change(connection, _ids(connection, verified, ("applied",)), "verified")

    def last_hash(self) -> str:
        with self._database.read() as connection:
            return _last_hash(connection)

    def last_receipt(self, receipt: str) -> ReceiptRow | None:
        r, i = schema.receipts.c, schema.inspections.c
        query = select(r.receipt, r.body, r.hash, r.signature, i.partitions)
        query = query.join(schema.inspections, r.inspection == i.digest).where(r.receipt == receipt)
        with self._database.read() as connection:
            row = connection.execute(query.order_by(r.id.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        return ReceiptRow(row.receipt, row.body, row.hash, row.signature, zlib.decompress(row.partitions).decode())

    # Inside a transaction

    def _add(self, connection: Connection, new: Sequence[_Asked], received_on: date) -> dict[str, int]:
        """Their receipts and ids, in order."""
        batch = secrets.token_hex(8)
        rows = [
            {"receipt": secrets.token_hex(8), "batch": batch, "through": one.removal.through.isoformat(),
             "scope": one.removal.scope, "received_on": received_on.isoformat(), "state": "", "watermark": 0}
            for one in new
        ]  # fmt: skip
        _insert(connection, schema.erasures, rows)
        ids = {row.receipt: row.id for row in _rows_of(connection, [batch])}
        receipts = {str(row["receipt"]): ids[str(row["receipt"])] for row in rows}
        stones = [row for one, erasure in zip(new, receipts.values(), strict=True) for row in one.rows(erasure)]
        _insert(connection, schema.tombstones, stones)
        return receipts

    def _change(self, connection: Connection, ids: Sequence[int], state: ErasureState) -> None:
        """Append the change, and bring tombstones into force with the requests that are received by it."""
        table, stones = schema.erasures, schema.tombstones
        _insert(connection, schema.erasure_states, [{"erasure": one, "state": state} for one in ids])
        changed: dict[str, object] = {"state": state}
        if state == "received":
            changed["watermark"] = connection.scalar(select(func.max(schema.erasure_states.c.id)))
        for some in _some(ids):
            connection.execute(update(table).where(table.c.id.in_(some)).values(**changed))
            if state == "received":
                effective = day_number(self._next_mau_day(connection))
                connection.execute(update(stones).where(stones.c.erasure.in_(some)).values(effective_from=effective))

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
            return _progress(connection, name)


def recorded(connection: Connection) -> int:
    """The watermark of all that is in force."""
    return connection.scalar(select(func.max(schema.erasures.c.watermark))) or 0


def _known(connection: Connection, asked: Sequence[_Asked]) -> dict[_Identity, str]:
    """The receipts of those that were asked for before."""
    e, t = schema.erasures.c, schema.tombstones.c
    query = select(t.epoch, t.encrypted_key, e.scope, e.receipt).join(schema.erasures, t.erasure == e.id)
    identities = {one.identity for one in asked}
    found = {}
    for some in _some(sorted(identities)):
        keys = [key for _, key, _ in some]
        for row in connection.execute(query.where(t.encrypted_key.in_(keys)).order_by(e.id.desc())):
            found[row.epoch, row.encrypted_key, row.scope] = row.receipt
    return {identity: found[identity] for identity in identities & found.keys()}


def _rows_of(connection: Connection, names: Sequence[str]) -> Iterator[Row[Any]]:
    """The requests of these receipts and batches."""
    table = schema.erasures
    for some in _some(names):
        yield from connection.execute(select(table).where(table.c.receipt.in_(some) | table.c.batch.in_(some)))


def _ids(connection: Connection, receipts: Sequence[str], states: Sequence[str]) -> list[int]:
    return sorted({row.id for row in _rows_of(connection, receipts) if row.state in states})


def _erasure(row: Row[Any]) -> Erasure:
    kind, _, days = row.scope.partition(" ")
    listed = tuple(date.fromisoformat(day) for day in days.split(",")) if kind == "days" else ()
    return Erasure(
        row.receipt, row.batch, date.fromisoformat(row.through), listed, date.fromisoformat(row.received_on), row.state
    )


def _progress(connection: Connection, name: str) -> int:
    table = schema.erasure_progress
    return connection.scalar(select(table.c.watermark).where(table.c.name == name)) or 0


def _set_progress(connection: Connection, name: str, watermark: int) -> None:
    table = schema.erasure_progress
    connection.execute(delete(table).where(table.c.name == name))
    connection.execute(insert(table).values(name=name, watermark=watermark))


def _last_hash(connection: Connection) -> str:
    table = schema.receipts
    return connection.scalar(select(table.c.hash).order_by(table.c.id.desc()).limit(1)) or ""


def _digest(partitions: str) -> str:
    return hashlib.sha256(partitions.encode()).hexdigest()


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    if rows:
        connection.execute(insert(table), list(rows))


def _some(values: Sequence[_Value]) -> Iterator[list[_Value]]:
    """The values, not too many at a time for one statement."""
    for at in range(0, len(values), _AT_ONCE):
        yield list(values[at : at + _AT_ONCE])


def _by_epoch(rows: Iterable[Row[Any]]) -> Iterator[tuple[int, list[Row[Any]]]]:
    for epoch, group in groupby(sorted(rows, key=lambda row: row.epoch), key=lambda row: row.epoch):
        yield epoch, list(group)


def _numbers(days: Sequence[int]) -> np.ndarray:
    return np.array(days, dtype=np.int32)
