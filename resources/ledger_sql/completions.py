"""The port Completions: which days upstream has declared complete."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from sqlalchemy import delete, select

from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.rows import insert_rows


class SqlCompletions:
    """One row a complete day."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def complete(self, day: date, landed: str | None = None) -> None:
        table = schema.completions
        with self._database.write() as connection:
            here = table.c.day == day.isoformat()
            known = connection.execute(select(table).where(here)).first()
            connection.execute(delete(table).where(here))
            insert_rows(connection, table, [{"day": day.isoformat(), "landed": landed or (known and known.landed)}])

    def completed(self) -> Mapping[date, str | None]:
        with self._database.read() as connection:
            rows = connection.execute(select(schema.completions).order_by(schema.completions.c.day))
            return {date.fromisoformat(row.day): row.landed for row in rows}

    def withdraw(self, day: date) -> None:
        with self._database.write() as connection:
            connection.execute(delete(schema.completions).where(schema.completions.c.day == day.isoformat()))
