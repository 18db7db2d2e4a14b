"""The port Completions: which days upstream has declared complete."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from sqlalchemy import Connection, Row, select

from resources.ledger_sql import schema
from resources.ledger_sql.chain import append
from resources.ledger_sql.database import Database


class SqlCompletions:
    """One row a declaration, or its withdrawal; the last one of a day counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def complete(self, day: date, landed: str | None = None) -> None:
        with self._database.write() as connection:
            before = _last(connection, day)
            fingerprint = landed or (before.landed if before and before.declared else None)
            if not (before and before.declared and before.landed == fingerprint):
                self._append(connection, day, fingerprint, declared=True)

    def completed(self) -> Mapping[date, str | None]:
        table = schema.completions
        with self._database.read() as connection:
            last = {row.day: row for row in connection.execute(select(table).order_by(table.c.id))}
        return {date.fromisoformat(day): row.landed for day, row in sorted(last.items()) if row.declared}

    def withdraw(self, day: date) -> None:
        with self._database.write() as connection:
            before = _last(connection, day)
            if before and before.declared:
                self._append(connection, day, None, declared=False)

    def _append(self, connection: Connection, day: date, landed: str | None, *, declared: bool) -> None:
        row = {"day": day.isoformat(), "landed": landed, "declared": declared}
        append(connection, self._database.keyring, schema.completions, [row])


def _last(connection: Connection, day: date) -> Row | None:
    table = schema.completions
    here = select(table).where(table.c.day == day.isoformat()).order_by(table.c.id.desc())
    return connection.execute(here.limit(1)).one_or_none()
