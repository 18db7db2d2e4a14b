"""The port ErasureLedger: requests, their tombstones, and how far they are applied."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, delete, func, select, update

from dpdau_assets.core.dates import day_number
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import EpochKey, Erasure, ErasureState, Keys, Reference, Removal
from dpdau_assets.core.ports.state import Salts
from dpdau_assets.core.sketches.keysets import EMPTY
from dpdau_assets.core.tombstones import Tombstones, excluded_until
from resources.ledger_sql import schema
from resources.ledger_sql.chain import append
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasure_rows import change_state, ids_of, progress, rows_of, set_progress, without_tombstones
from resources.ledger_sql.keyring import Keyring
from resources.ledger_sql.retention import fact
from resources.ledger_sql.rows import in_pieces, insert_rows
from resources.ledger_sql.secret_values import REFERENCE, commitment, destroy_all, keep_all, new_opening, opened
from resources.ledger_sql.tombstone_cipher import decrypt, encrypt

_Identity = tuple[int, bytes, str]


@dataclass(frozen=True)
class _Asked:
    """A removal and its keys, encrypted: (epoch, encrypted key), in order of epochs."""

    removal: Removal
    encrypted: list[tuple[int, bytes]]

    @cached_property
    def identity(self) -> _Identity:
        """What makes two removals one: person and days. The last epoch is the one that lives longest.

        Without keys nobody can tell who it is, so it is the same as no other.
        """
        epoch, key = self.encrypted[-1] if self.encrypted else (-1, secrets.token_bytes(16))
        return epoch, key, self.removal.scope

    @cached_property
    def tombstones(self) -> list[dict[str, Any]]:
        """One a listed day, or one for the through-day, under each epoch; in order of epoch and day."""
        removal = self.removal
        held = day_number(excluded_until(removal.through))
        openings = {epoch: new_opening() for epoch, _ in self.encrypted}
        return [
            {
                "epoch": epoch,
                "encrypted_key": key,
                "day": day_number(day),
                "listed": bool(removal.days),
                "held_until": held,
                "effective_from": None,
                "opening": openings[epoch],
            }
            for epoch, key in self.encrypted
            for day in removal.taken
        ]

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
            known = _known(connection, self._database.keyring, asked)
            ids = self._add(
                connection, [request for request, name in zip(asked, known, strict=True) if not name], received_on
            )
            if parked:
                self._change_state(connection, list(ids.values()), "parked")
            else:  # what waited to be confirmed and was asked for again comes into force too
                waiting = ids_of(connection, [name for name in known if name], ("parked",))
                self._bring_into_force(connection, [*waiting, *ids.values()])
        new = iter(ids)
        return [name or next(new) for name in known]

    def confirm(self, receipts: Sequence[str]) -> None:
        with self._database.write() as connection:
            self._bring_into_force(connection, ids_of(connection, receipts, ("parked",)))

    def cancel(self, receipts: Sequence[str]) -> None:
        with self._database.write() as connection:
            begun = progress(connection, "begun")
            for row in rows_of(connection, receipts):
                if row.state in ("applied", "verified") or (row.state == "received" and row.watermark <= begun):
                    raise Refused(
                        f"The erasure {row.receipt} is being applied or has been.",
                        "What is erased cannot come back.",
                        receipt=row.receipt,
                    )
            ids = ids_of(connection, receipts, ("parked", "received"))
            self._change_state(connection, ids, "cancelled")
            for some in in_pieces(ids):
                connection.execute(delete(schema.tombstones).where(schema.tombstones.c.erasure.in_(some)))
            destroy_all(connection, self._database.keyring, REFERENCE, without_tombstones(connection))
        self._database.overwrite_deleted(schema.tombstones, schema.erasure_references)

    def erasures(self, states: Iterable[ErasureState] = ()) -> list[Erasure]:
        table = schema.erasures
        query, wanted = select(table).order_by(table.c.id), list(states)
        with self._database.read() as connection:
            rows = connection.execute(query.where(table.c.state.in_(wanted)) if wanted else query)
            return [_erasure(row) for row in rows]

    def find(self, names: Iterable[str]) -> list[Erasure]:
        with self._database.read() as connection:
            rows = {row.id: row for row in rows_of(connection, list(set(names)))}
        return [_erasure(rows[erasure]) for erasure in sorted(rows)]

    def references(self, receipts: Iterable[str]) -> Mapping[str, Reference]:
        table, wanted = schema.commitments.c, list(set(receipts))
        by_receipt: dict[str, Reference] = {}
        with self._database.read() as connection:
            for some in in_pieces(wanted):
                query = select(table.subject, table.commitment).where(table.kind == REFERENCE, table.subject.in_(some))
                by_receipt |= {row.subject: Reference(row.commitment) for row in connection.execute(query)}
            for name, opening, text in _references(connection, self._database.keyring, list(by_receipt)):
                by_receipt[name] = Reference(by_receipt[name].commitment, text, opening.hex())
        return by_receipt

    def referred_to(self, reference: str) -> list[Erasure]:
        with self._database.read() as connection:
            names = [name for name, _, text in _references(connection, self._database.keyring) if text == reference]
        return self.find(names)

    # Tombstones

    def keys_of(self, receipts: Iterable[str]) -> Mapping[str, Mapping[int, int]]:
        e, t = schema.erasures.c, schema.tombstones.c
        key_rows: list[Any] = []
        with self._database.read() as connection:
            for some in in_pieces(list(set(receipts))):
                query = select(e.receipt, t.epoch, t.encrypted_key).join(schema.erasures, t.erasure == e.id)
                key_rows += connection.execute(query.where(e.receipt.in_(some)).distinct())
        keys: dict[str, dict[int, int]] = defaultdict(dict)
        for epoch, rows in _by_epoch(key_rows):
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
            keys=self._decrypted(epoch, encrypted),
            days=_numbers(days),
            listed=np.array(listed, dtype=bool),
            excluded_until=_numbers(held),
            effective_from=_numbers(effective),
        )

    # Progress

    def recorded(self) -> int:
        with self._database.read() as connection:
            return recorded(connection)

    def begin_applying(self, watermark: int) -> None:
        with self._database.write() as connection:
            set_progress(connection, self._database.keyring, "begun", watermark)

    def applied(self) -> int:
        with self._database.read() as connection:
            return applied(connection)

    def begun(self) -> list[int]:
        p = schema.erasure_progress.c
        with self._database.read() as connection:
            last = applied(connection)
            query = select(p.watermark).where(p.name == "begun", p.watermark > last).distinct().order_by(p.watermark)
            return list(connection.scalars(query))

    def mark_applied(self, watermark: int) -> None:
        with self._database.write() as connection:
            set_progress(connection, self._database.keyring, "applied", watermark)
            table = schema.erasures
            waiting = select(table.c.id).where(table.c.state == "received", table.c.watermark <= watermark)
            self._change_state(connection, list(connection.scalars(waiting)), "applied")

    # Inside a transaction

    def _add(self, connection: Connection, new: Sequence[_Asked], received_on: date) -> dict[str, int]:
        """Insert requests as one batch; their receipts and ids, in order."""
        batch = secrets.token_hex(8)
        rows = [
            {
                "receipt": secrets.token_hex(8),
                "batch": batch,
                "through": request.removal.through.isoformat(),
                "scope": request.removal.scope,
                "received_on": received_on.isoformat(),
                "commitments": request.commitments(),
                "state": "",
                "watermark": 0,
            }
            for request in new
        ]
        append(connection, self._database.keyring, schema.erasures, rows)
        ids = {row.receipt: row.id for row in rows_of(connection, [batch])}
        receipts = {str(row["receipt"]): ids[str(row["receipt"])] for row in rows}
        stones = [
            {"erasure": erasure, **stone}
            for request, erasure in zip(new, receipts.values(), strict=True)
            for stone in request.tombstones
        ]
        insert_rows(connection, schema.tombstones, stones)
        called = {
            name: request.removal.reference for request, name in zip(new, receipts, strict=True) if request.tombstones
        }
        references = {name: reference for name, reference in called.items() if reference is not None}
        keep_all(connection, self._database.keyring, REFERENCE, references)
        return receipts

    def _bring_into_force(self, connection: Connection, ids: Sequence[int]) -> None:
        """From the first MAU day that is not committed by now, or since the same removal is.

        What has no tombstone has nothing to apply.
        """
        identities = _identities(connection, ids)
        since, soonest = _in_force_since(connection, identities.values()), day_number(self._next_mau_day(connection))
        effective = {erasure: min(soonest, since.get(identities.get(erasure), soonest)) for erasure in ids}
        self._change_state(connection, ids, "received", effective)
        table, stones = schema.erasures, schema.tombstones
        watermark = connection.scalar(select(func.max(schema.erasure_states.c.id)))
        for some in in_pieces(ids):
            connection.execute(update(table).where(table.c.id.in_(some)).values(watermark=watermark))
        for day in set(effective.values()):
            for some in in_pieces([erasure for erasure in ids if effective[erasure] == day]):
                connection.execute(update(stones).where(stones.c.erasure.in_(some)).values(effective_from=day))
        self._change_state(connection, [erasure for erasure in ids if erasure not in identities], "applied")

    def _change_state(
        self,
        connection: Connection,
        ids: Sequence[int],
        state: ErasureState,
        effective_from: Mapping[int, int] | None = None,
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
        for epoch, placed_keys in sorted(by_epoch.items()):
            keys = np.array([key for _, key in placed_keys], dtype=np.uint64)
            for (place, _), block in zip(placed_keys, encrypt(keys, self._key(epoch)), strict=True):
                encrypted[place].append((epoch, block))
        return encrypted

    def _decrypted(self, epoch: int, encrypted: Sequence[bytes]) -> Keys:
        return decrypt(encrypted, self._key(epoch)) if encrypted else EMPTY

    def _key(self, epoch: int) -> EpochKey:
        return self._salts.epoch_keys([epoch])[epoch]


def applied(connection: Connection) -> int:
    """The watermark up to which all is applied: whatever else is said, a request that waits or never came was not."""
    e, p = schema.erasures.c, schema.erasure_progress.c
    said = select(func.max(p.watermark)).where(p.name == "applied").scalar_subquery()
    last = select(func.max(e.watermark)).scalar_subquery()
    waiting = select(func.min(e.watermark)).where(e.state == "received").scalar_subquery()
    row = connection.execute(select(said.label("said"), last.label("last"), waiting.label("waiting"))).one()
    through = min(row.said or 0, row.last or 0)
    return through if row.waiting is None else min(through, row.waiting - 1)


def recorded(connection: Connection) -> int:
    """The watermark of all that is in force."""
    return connection.scalar(select(func.max(schema.erasures.c.watermark))) or 0


def _known(connection: Connection, keyring: Keyring, asked: Sequence[_Asked]) -> list[str | None]:
    """The receipt of each that was asked for before: of what is the same, the k-th here has the k-th that there is."""
    e, t, r = schema.erasures.c, schema.tombstones.c, schema.erasure_references.c
    query = select(t.epoch, t.encrypted_key, e.scope, e.receipt, r.encrypted).join(schema.erasures, t.erasure == e.id)
    query = query.outerjoin(schema.erasure_references, r.subject == e.receipt)
    rows: dict[str, Any] = {}
    for some in in_pieces(sorted({request.identity for request in asked})):
        keys = [key for _, key, _ in some]
        for row in connection.execute(query.where(t.encrypted_key.in_(keys)).order_by(e.id)):
            rows[row.receipt] = row
    waiting: dict[tuple[_Identity, str | None], deque[str]] = defaultdict(deque)
    for name, row in rows.items():
        called = row.encrypted and str(opened(connection, keyring, REFERENCE, name, row.encrypted)[1])
        waiting[(row.epoch, row.encrypted_key, row.scope), called].append(name)
    same = (waiting[request.identity, request.removal.reference] for request in asked)
    return [names.popleft() if names else None for names in same]


def _references(
    connection: Connection, keyring: Keyring, receipts: Sequence[str] | None = None
) -> Iterator[tuple[str, bytes, str]]:
    """(receipt, opening, text) of those of these requests, or of all, that have a reference by now."""
    table = schema.erasure_references
    queries = (
        [select(table)]
        if receipts is None
        else [select(table).where(table.c.subject.in_(some)) for some in in_pieces(receipts)]
    )
    for query in queries:
        for row in connection.execute(query):
            opening, text = opened(connection, keyring, REFERENCE, row.subject, row.encrypted)
            yield row.subject, opening, str(text)


def _identities(connection: Connection, ids: Sequence[int]) -> dict[int, _Identity]:
    """Who and what days each of these requests is about, under its last epoch; none for one without tombstones."""
    e, t = schema.erasures.c, schema.tombstones.c
    query = select(t.erasure, t.epoch, t.encrypted_key, e.scope).join(schema.erasures, t.erasure == e.id).distinct()
    identities = {}
    for some in in_pieces(ids):
        for row in connection.execute(query.where(t.erasure.in_(some)).order_by(t.erasure, t.epoch)):
            identities[row.erasure] = (row.epoch, row.encrypted_key, row.scope)
    return identities


def _in_force_since(connection: Connection, identities: Iterable[_Identity]) -> dict[_Identity | None, int]:
    """The earliest first day of a removal that is the same and in force, where there is one.

    A later one for the same person and days must not move that day: it is the same removal.
    """
    e, t = schema.erasures.c, schema.tombstones.c
    query = select(t.epoch, t.encrypted_key, e.scope, func.min(t.effective_from).label("since"))
    query = query.join(schema.erasures, t.erasure == e.id).where(t.effective_from.is_not(None))
    since: dict[_Identity | None, int] = {}
    for some in in_pieces(sorted(set(identities))):
        keys = [key for _, key, _ in some]
        same = query.where(t.encrypted_key.in_(keys)).group_by(t.epoch, t.encrypted_key, e.scope)
        since |= {(row.epoch, row.encrypted_key, row.scope): row.since for row in connection.execute(same)}
    return since


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
