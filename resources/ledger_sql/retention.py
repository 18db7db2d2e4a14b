"""Facts about what is gone, each a number that only grows: the last day purged, the last epoch shredded."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from resources.ledger_sql import schema
from resources.ledger_sql.chain import append
from resources.ledger_sql.keyring import Keyring

_table = schema.retention


def fact(connection: Connection, name: str) -> int | None:
    """The number, None where nothing is gone yet."""
    return connection.scalar(select(func.max(_table.c.value)).where(_table.c.name == name))


def raise_fact(connection: Connection, keyring: Keyring, name: str, value: int) -> None:
    """Append it, unless as much is gone already."""
    before = fact(connection, name)
    if before is None or before < value:
        append(connection, keyring, _table, [{"name": name, "value": value}])
