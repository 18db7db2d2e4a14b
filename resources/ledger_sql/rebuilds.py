"""The port Rebuilds: which days erasures have touched or arrivals changed, until Dagster was told of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import date

from sqlalchemy import Connection, delete, select

from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.rows import in_pieces, insert_rows

_MARKED, _LAST_MARK = "marked", "last mark"


class SqlRebuilds:
    """One row a day that waits, and none of a day that was rebuilt: which days an erasure touched is not kept."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def marked(self) -> int:
        with self._database.read() as connection:
            return _progress(connection, _MARKED)

    def note_marked(self, watermark: int) -> None:
        with self._database.write() as connection:
            _set_progress(connection, _MARKED, watermark)

    def mark(self, days: Iterable[date], watermark: int) -> None:
        table, wanted = schema.rebuilds, {day.isoformat() for day in days}
        if not wanted:
            return
        with self._database.write() as connection:
            marked = set(connection.scalars(select(table.c.day).where(table.c.watermark >= watermark)))
            _mark(connection, wanted - marked, watermark)

    def mark_alike(self, days: Iterable[date], watermark: int) -> None:
        with self._database.write() as connection:
            connection.execute(delete(schema.rebuilds))
            _mark(connection, {day.isoformat() for day in days}, watermark)

    def wanted(self, day: date) -> int:
        column = schema.rebuilds.c
        with self._database.read() as connection:
            return connection.scalar(select(column.mark).where(column.day == day.isoformat())) or 0

    def behind(self) -> list[tuple[date, int]]:
        table = schema.rebuilds
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.day))
            return [(date.fromisoformat(row.day), row.mark) for row in rows]

    def mark_built(self, day: date, mark: int) -> None:
        table = schema.rebuilds
        with self._database.write() as connection:
            connection.execute(delete(table).where(table.c.day == day.isoformat(), table.c.mark <= mark))

    def mark_changed(self, days: Iterable[date]) -> None:
        table = schema.arrivals
        rows = [{"day": day.isoformat(), "change": secrets.token_hex(8)} for day in sorted(days)]
        if not rows:
            return
        with self._database.write() as connection:
            for some in in_pieces([row["day"] for row in rows]):
                connection.execute(delete(table).where(table.c.day.in_(some)))
            insert_rows(connection, table, rows)

    def changed(self) -> dict[date, str]:
        with self._database.read() as connection:
            rows = connection.execute(select(schema.arrivals).order_by(schema.arrivals.c.day))
            return {date.fromisoformat(row.day): row.change for row in rows}

    def mark_reported(self, changes: Mapping[date, str]) -> None:
        if not changes:
            return
        table = schema.arrivals
        with self._database.write() as connection:
            for day, change in changes.items():
                connection.execute(delete(table).where(table.c.day == day.isoformat(), table.c.change == change))

    def drop_through(self, through: date) -> None:
        with self._database.write() as connection:
            for table in (schema.arrivals, schema.rebuilds):
                connection.execute(delete(table).where(table.c.day <= through.isoformat()))

    def overwrite_deleted(self) -> None:
        self._database.overwrite_deleted(schema.arrivals, schema.rebuilds)


def _mark(connection: Connection, days: set[str], watermark: int) -> None:
    if days:
        mark = 1 + _progress(connection, _LAST_MARK)
        _set_progress(connection, _LAST_MARK, mark)
        _delete_days(connection, sorted(days))
        rows = [{"day": day, "mark": mark, "watermark": watermark} for day in sorted(days)]
        insert_rows(connection, schema.rebuilds, rows)


def _delete_days(connection: Connection, days: list[str]) -> None:
    for some in in_pieces(days):
        connection.execute(delete(schema.rebuilds).where(schema.rebuilds.c.day.in_(some)))


def _progress(connection: Connection, name: str) -> int:
    table = schema.rebuild_progress
    return connection.scalar(select(table.c.value).where(table.c.name == name)) or 0


def _set_progress(connection: Connection, name: str, value: int) -> None:
    table = schema.rebuild_progress
    connection.execute(delete(table).where(table.c.name == name))
    insert_rows(connection, table, [{"name": name, "value": value}])
