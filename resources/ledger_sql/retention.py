"""Facts about what is gone, each a number that only grows: the last day purged, the last epoch shredded."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from resources.ledger_sql import schema
from resources.ledger_sql.rows import insert_new

_table = schema.retention


def fact(connection: Connection, name: str) -> int | None:
    """The number, None where nothing is gone yet."""
    return connection.scalar(select(_table.c.value).where(_table.c.name == name))


def raise_fact(connection: Connection, name: str, value: int) -> None:
    """Never lower it."""
    insert_new(connection, _table, [{"name": name, "value": value}])
    connection.execute(update(_table).where(_table.c.name == name, _table.c.value < value).values(value=value))
