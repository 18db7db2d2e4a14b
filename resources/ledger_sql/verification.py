"""Reading the whole ledger back: is everything what was once appended, and does what was noted beside it follow?"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Container, Iterator
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    Table,
    func,
    not_,
    or_,
    select,
    text,
    type_coerce,
)
from sqlalchemy.exc import SQLAlchemyError

from dpdau_assets.core.errors import BadSetting
from resources.ledger_sql import builds, chain, receipts, schema, secret_values
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasure_rows import progress
from resources.ledger_sql.erasures import committed_to
from resources.ledger_sql.keyring import LEDGER, RECEIPTS
from resources.ledger_sql.secret_values import SALT

_TYPES = {str: "text", int: "integer", bool: "integer", float: "real", bytes: "blob"}  # as SQLite calls them
_ByEpoch = dict[int, list[Any]]  # tombstones of one request


def verify(database: Database) -> list[str]:
    """A sentence for everything that does not hold, in what order it was found."""
    problems: list[str] = []
    for what, look in (
        ("The database", _structure),
        ("The chain", lambda connection: chain.problems(connection, database.keyring)),
        ("A secret value", lambda connection: secret_values.problems(connection, database.keyring)),
        ("The list of builds", lambda connection: builds.problems(connection, database.keyring)),
        ("A receipt", lambda connection: receipts.problems(connection, database.keyring)),
        ("The list of erasures", _erasures),
        ("A tombstone", _tombstones),
    ):
        try:
            with database.read() as connection:
                problems += look(connection)
        except BadSetting:
            raise
        # Bytes that are no text, no JSON, no number, a text where bytes should be, ...
        except (SQLAlchemyError, ValueError, TypeError, LookupError, AttributeError) as error:
            problems.append(f"{what} cannot be read: {type(error).__name__}.")
    return problems


def _structure(connection: Connection) -> Iterator[str]:
    if connection.scalars(select(schema.version.c.version_num)).all() != [schema.VERSION]:
        yield f"The schema's version is not {schema.VERSION} alone."
    unknown = set(connection.scalars(select(schema.wrapped_keys.c.name))) - {LEDGER, RECEIPTS}
    if unknown:
        yield f"{len(unknown)} key(s) have names that this program gives none."
    if connection.dialect.name == "sqlite":
        for row in connection.execute(text("PRAGMA integrity_check")):
            if row[0] != "ok":
                yield f"SQLite says: {row[0]}"
        for table in schema.metadata.sorted_tables:
            if connection.scalar(_wrongly_typed(table)):
                yield f"{table.name} holds values that are not of their column's type."


@cache
def _wrongly_typed(table: Table) -> Select[Any]:
    """How many of its rows hold a value that is not of its column's type."""
    return select(func.count()).select_from(table).where(or_(*map(_is_of_another_type, table.columns)))


def _is_of_another_type(column: Column[Any]) -> ColumnElement[bool]:
    """SQLite keeps values of any type in any column, and several of them are read as the same truth value."""
    kind = column.type.python_type
    right = func.typeof(column) == _TYPES[kind]
    if kind is bool:
        right &= type_coerce(column, Integer).in_((0, 1))
    return not_(right | column.is_(None) if column.nullable else right)


def _erasures(connection: Connection) -> Iterator[str]:
    """The state and the watermark that a request is noted to have are those of its changes of state."""
    changes: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(select(schema.erasure_states).order_by(schema.erasure_states.c.id)):
        changes[row.erasure].append(row)
    applied = progress(connection, "applied")
    ends = [row.last_row for row in connection.execute(_entries_of("erasure_states"))]
    for row in connection.execute(select(schema.erasures).order_by(schema.erasures.c.id)):
        mine = changes[row.id]
        received = [change.id for change in mine if change.state == "received"]
        bounds = (received[-1], ends[bisect_left(ends, received[-1])]) if received else (0, 0)
        if not mine or mine[-1].state != row.state or not bounds[0] <= row.watermark <= bounds[1]:
            yield f"The state of the erasure {row.receipt} does not follow from its history."
        if row.state == "received" and row.watermark <= applied:
            yield f"The erasure {row.receipt} was never applied, and the watermark of what was has passed it."


def _tombstones(connection: Connection) -> Iterator[str]:
    """Every request that was not cancelled has the tombstones that it was recorded with, in every living epoch."""
    shredded = _shredded_epochs(connection)
    by_request = _tombstones_by_request(connection)
    effective_from = _received_effective_from(connection)
    for request in connection.execute(select(schema.erasures).order_by(schema.erasures.c.id)):
        by_epoch = by_request.pop(request.id, {})
        as_recorded = _living_commitments(request, shredded) == _commitments_to(by_epoch)
        if not as_recorded or not _are_in_force_from(effective_from.get(request.id), by_epoch):
            yield f"The tombstones of the erasure {request.receipt} are not those that it was recorded with."
    if by_request:
        yield f"{len(by_request)} request(s) that are not there have tombstones."


def _shredded_epochs(connection: Connection) -> set[str]:
    return {row.subject for row in connection.execute(select(schema.destructions)) if row.kind == SALT}


def _tombstones_by_request(connection: Connection) -> dict[int, _ByEpoch]:
    """Tombstones of each epoch in order of days."""
    by_request: dict[int, _ByEpoch] = defaultdict(lambda: defaultdict(list))
    table = schema.tombstones
    for row in connection.execute(select(table).order_by(table.c.erasure, table.c.epoch, table.c.day)).mappings():
        by_request[row["erasure"]][row["epoch"]].append(row)
    return by_request


def _received_effective_from(connection: Connection) -> dict[int, int | None]:
    """From which day on each request's tombstones are to be in force: what was last said when it was received."""
    states = connection.execute(select(schema.erasure_states).order_by(schema.erasure_states.c.id))
    return {row.erasure: row.effective_from for row in states if row.state == "received"}


def _commitments_to(by_epoch: _ByEpoch) -> dict[int, str | None]:
    return {epoch: _committed_to(tombstones) for epoch, tombstones in by_epoch.items()}


def _living_commitments(request: Row[Any], shredded: Container[str]) -> dict[int, str]:
    """By epoch, what the request was recorded with where the epoch's key still is; nothing for a cancelled one."""
    if request.state == "cancelled":
        return {}
    recorded = json.loads(request.commitments)
    by_epoch = {int(epoch): commitment for epoch, commitment in recorded.items()}
    return {epoch: commitment for epoch, commitment in by_epoch.items() if str(epoch) not in shredded}


def _are_in_force_from(effective_from: int | None, by_epoch: _ByEpoch) -> bool:
    """Whether all these tombstones are, if there are any."""
    return all(
        tombstone["effective_from"] == effective_from for tombstones in by_epoch.values() for tombstone in tombstones
    )


def _committed_to(stones: list[Any]) -> str | None:
    """A request's commitment to its tombstones; None if they do not all have the one opening."""
    return committed_to(stones) if len({stone["opening"] for stone in stones}) == 1 else None


def _entries_of(kind: str) -> Any:
    return select(schema.entries).where(schema.entries.c.kind == kind).order_by(schema.entries.c.id)
