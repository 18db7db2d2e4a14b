"""The port Rebuilds: which days erasures have touched, and which were rebuilt since."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from sqlalchemy import func, select, update

from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasure_rows import progress, set_progress
from resources.ledger_sql.rows import in_pieces, insert_new


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

    def drop_through(self, through: date) -> None:
        table = schema.rebuilds  # a mark stays, since the next one must be higher than any that ever was
        with self._database.write() as connection:
            past = update(table).where(table.c.day <= through.isoformat(), table.c.built < table.c.wanted)
            connection.execute(past.values(built=table.c.wanted))
