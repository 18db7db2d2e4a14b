"""The port Rebuilds: which days erasures have touched or arrivals changed, and which were rebuilt since."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import date

from sqlalchemy import delete, func, select, update

from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasure_rows import progress, set_progress
from resources.ledger_sql.rows import in_pieces, insert_new, insert_rows


class SqlRebuilds:
    """One row a day that was ever touched: the mark that is wanted, and the one that was built."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def marked(self) -> int:
        with self._database.read() as connection:
            return progress(connection, "marked")

    def mark(self, days: Iterable[date], watermark: int) -> None:
        table = schema.rebuilds
        with self._database.write() as connection:
            set_progress(connection, "marked", watermark)
            next_mark = 1 + (connection.scalar(select(func.max(table.c.wanted))) or 0)
            touched = [{"day": day.isoformat(), "wanted": 0, "built": 0} for day in sorted(days)]
            insert_new(connection, table, touched)
            for some in in_pieces([row["day"] for row in touched]):
                connection.execute(update(table).where(table.c.day.in_(some)).values(wanted=next_mark))

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

    def arrive(self, days: Iterable[date]) -> None:
        table = schema.arrivals
        rows = [{"day": day.isoformat(), "change": secrets.token_hex(8)} for day in sorted(days)]
        if not rows:
            return
        with self._database.write() as connection:
            for some in in_pieces([row["day"] for row in rows]):
                connection.execute(delete(table).where(table.c.day.in_(some)))
            insert_rows(connection, table, rows)

    def arrived(self) -> dict[date, str]:
        with self._database.read() as connection:
            rows = connection.execute(select(schema.arrivals).order_by(schema.arrivals.c.day))
            return {date.fromisoformat(row.day): row.change for row in rows}

    def told(self, changes: Mapping[date, str]) -> None:
        if not changes:
            return
        table = schema.arrivals
        with self._database.write() as connection:
            for day, change in changes.items():
                connection.execute(delete(table).where(table.c.day == day.isoformat(), table.c.change == change))

    def drop_through(self, through: date) -> None:
        table = schema.rebuilds  # a mark stays, since the next one must be higher than any that ever was
        with self._database.write() as connection:
            connection.execute(delete(schema.arrivals).where(schema.arrivals.c.day <= through.isoformat()))
            past = update(table).where(table.c.day <= through.isoformat(), table.c.built < table.c.wanted)
            connection.execute(past.values(built=table.c.wanted))
