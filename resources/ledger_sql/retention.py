"""Facts about what is gone, each a number that only grows: the last day purged, the last epoch shredded."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from resources.ledger_sql import schema

_table = schema.retention


def fact(connection: Connection, name: str) -> int | None:
    """The number, None where nothing is gone yet."""
    return connection.scalar(select(_table.c.value).where(_table.c.name == name))


def raise_fact(connection: Connection, name: str, value: int) -> None:
    """Never lower it."""
    connection.execute(insert(_table).prefix_with("OR IGNORE"), [{"name": name, "value": value}])
    connection.execute(update(_table).where(_table.c.name == name, _table.c.value < value).values(value=value))
