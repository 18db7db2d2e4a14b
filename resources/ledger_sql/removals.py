"""The port Removals: tombstones, each in force from a MAU day that is fixed in the transaction that records it."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
from sqlalchemy import Connection, delete, func, insert, select

from dpdau_assets.core.erasure import Tombstones, held_until
from dpdau_assets.core.ports import Removal
from dpdau_assets.core.windows import day_number
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database


class SqlRemovals:
    """Tombstones of every epoch. `first_mau_day` is the first day on which a MAU window is whole."""

    def __init__(self, database: Database, first_mau_day: date) -> None:
        self._database = database
        self._first_mau_day = first_mau_day

    def record(self, removals: list[Removal]) -> None:
        if not removals:
            return
        with self._database.write() as connection:
            effective = self._next_mau_day(connection).isoformat()
            rows = [{**row, "effective_from": effective} for removal in removals for row in _rows(removal)]
            connection.execute(insert(schema.tombstones).prefix_with("OR IGNORE"), rows)

    def tombstones(self, epoch: int) -> Tombstones:
        table = schema.tombstones
        with self._database.read() as connection:
            rows = connection.execute(select(table).where(table.c.epoch == epoch)).all()
        return Tombstones(
            keys=np.array([row.key for row in rows], dtype=np.int64).view(np.uint64),
            days=_day_numbers([row.day for row in rows]),
            listed=np.array([row.listed for row in rows], dtype=bool),
            held_until=_day_numbers([row.held_until for row in rows]),
            effective_from=_day_numbers([row.effective_from for row in rows]),
        )

    def recorded(self) -> int:
        with self._database.read() as connection:
            return connection.scalar(select(func.max(schema.tombstones.c.id))) or 0

    def applied(self) -> int:
        with self._database.read() as connection:
            return connection.scalar(select(func.max(schema.removals_applied.c.watermark))) or 0

    def mark_applied(self, watermark: int) -> None:
        with self._database.write() as connection:
            connection.execute(delete(schema.removals_applied))
            connection.execute(insert(schema.removals_applied).values(watermark=watermark))

    def _next_mau_day(self, connection: Connection) -> date:
        query = select(func.max(schema.releases.c.day)).where(schema.releases.c.metric == "mau")
        last = connection.scalar(query)
        after_last = date.min if last is None else date.fromisoformat(last) + timedelta(days=1)
        return max(self._first_mau_day, after_last)


def _rows(removal: Removal) -> list[dict[str, object]]:
    """One row for the through-day, or one a listed day."""
    shared = {
        "epoch": removal.epoch,
        "key": int(np.uint64(removal.key).astype(np.int64)),
        "listed": bool(removal.days),
        "held_until": held_until(removal).isoformat(),
    }
    return [{**shared, "day": day.isoformat()} for day in removal.days or (removal.through,)]


def _day_numbers(days: list[str]) -> np.ndarray:
    return np.array([day_number(date.fromisoformat(day)) for day in days], dtype=np.int32)
