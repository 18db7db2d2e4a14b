"""A chain of hashes over what is only ever added, secrets encrypted and committed to, caps, overrides and restores.

What a 0001 ledger holds is taken as it is found: the chain vouches for it from here on. It did not say under which
caps its charges were admitted: they are those of the settings with which it is migrated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy import Boolean, Column, Connection, Float, ForeignKey, Index, Integer, LargeBinary, Row, Table, Text

from resources.ledger_sql import chain, schema, secret_values
from resources.ledger_sql.erasures import committed_to
from resources.ledger_sql.keyring import Keyring

revision = "0002"
down_revision = "0001"

_APPENDED = (
    "instances", "charges", "releases", "overrides", "closures", "restores", "commitments", "destructions", "erasures",
    "erasure_states",
)  # fmt: skip


def upgrade() -> None:
    connection: Connection = op.get_bind()
    keyring: Keyring = context.config.attributes["keyring"]
    salts, keys, noise, state, stones = (
        _taken_out(connection, name) for name in ("salts", "signing_keys", "shared_noise", "stream_state", "tombstones")
    )
    _new_columns()
    _new_tables()
    _rebuilt_tables()
    for row in keys:
        connection.execute(sa.insert(schema.wrapped_keys).values(name=row.name, wrapped=row.wrapped))
    _salts(connection, keyring, salts)
    for row in noise:
        secret_values.keep(connection, keyring, secret_values.NOISE, row.instance, row.value)
    for row in state:
        subject, columns = f"{row.instance} {row.day}", {"instance": row.instance, "day": row.day}
        secret_values.keep(connection, keyring, secret_values.STATISTIC, subject, row.statistic, **columns)
    _tombstones(connection, stones)
    for metric, (cap, delta) in context.config.attributes["budgets"].items():
        here = sa.update(schema.charges).where(schema.charges.c.metric == metric)
        connection.execute(here.values(epsilon_cap=cap, delta=delta))
    for name in _APPENDED:
        chain.adopt(connection, keyring, schema.metadata.tables[name])


def _taken_out(connection: Connection, name: str) -> Sequence[Row[Any]]:
    """The rows of a table that is dropped, and made anew in another shape."""
    rows = connection.execute(sa.select(Table(name, sa.MetaData(), autoload_with=connection))).all()
    op.drop_table(name)
    return rows


def _new_columns() -> None:
    op.add_column("charges", Column("epsilon_cap", Text))
    op.add_column("charges", Column("delta", Float))
    op.add_column("erasure_states", Column("effective_from", Integer))
    op.add_column("erasures", Column("commitments", Text, nullable=False, server_default="{}"))


def _new_tables() -> None:
    op.create_table(
        "overrides",
        Column("id", Integer, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("metric", Text),
        Column("month", Text),
        Column("epsilon_cap", Text),
        Column("who", Text, nullable=False),
        Column("why", Text, nullable=False),
        Column("made_on", Text, nullable=False),
        Column("opens", Boolean, nullable=False),
    )
    op.create_table(
        "closures",
        Column("id", Integer, primary_key=True),
        Column("metric", Text, nullable=False),
        Column("month", Text, nullable=False),
        Column("closed_on", Text, nullable=False),
    )
    op.create_table(
        "restores",
        Column("id", Integer, primary_key=True),
        Column("made_on", Text, nullable=False),
        Column("restored_on", Text, nullable=False),
        Column("published_through", Text),
        Column("who", Text),
        Column("why", Text),
    )
    op.create_table(
        "commitments",
        Column("id", Integer, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("commitment", Text, nullable=False),
        sa.UniqueConstraint("kind", "subject"),
    )
    op.create_table(
        "destructions",
        Column("id", Integer, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("subject", Text, nullable=False),
        sa.UniqueConstraint("kind", "subject"),
    )
    op.create_table("lost_epochs", Column("epoch", Integer, primary_key=True))
    op.create_table(
        "entries",
        Column("id", Integer, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("first_row", Integer, nullable=False),
        Column("last_row", Integer, nullable=False),
        Column("hash", Text, nullable=False),
    )


def _rebuilt_tables() -> None:
    op.create_table(
        "wrapped_keys", Column("name", Text, primary_key=True), Column("wrapped", LargeBinary, nullable=False)
    )
    op.create_table(
        "salts",
        Column("epoch", Integer, primary_key=True),
        Column("wrapped", LargeBinary, nullable=False),
        Column("opening", LargeBinary, nullable=False),
    )
    op.create_table(
        "shared_noise",
        Column("subject", Text, ForeignKey("instances.name"), primary_key=True),
        Column("encrypted", LargeBinary, nullable=False),
    )
    op.create_table(
        "stream_state",
        Column("subject", Text, primary_key=True),
        Column("instance", Text, ForeignKey("instances.name"), nullable=False, index=True),
        Column("day", Text, nullable=False),
        Column("encrypted", LargeBinary, nullable=False),
    )
    op.create_table(
        "tombstones",
        Column("id", Integer, primary_key=True),
        Column("erasure", Integer, ForeignKey("erasures.id"), nullable=False, index=True),
        Column("epoch", Integer, nullable=False),
        Column("encrypted_key", LargeBinary, nullable=False),
        Column("day", Integer, nullable=False),
        Column("listed", Boolean, nullable=False),
        Column("held_until", Integer, nullable=False),
        Column("effective_from", Integer),
        Column("opening", LargeBinary, nullable=False),
        Index("tombstones_by_key", "epoch", "encrypted_key"),
    )


def _salts(connection: Connection, keyring: Keyring, rows: Sequence[Row[Any]]) -> None:
    for row in rows:
        opening, secret = secret_values.new_opening(), keyring.unwrap(str(row.epoch), row.wrapped)
        connection.execute(sa.insert(schema.salts).values(epoch=row.epoch, wrapped=row.wrapped, opening=opening))
        made = secret_values.commitment(opening, secret_values.SALT, row.epoch, secret.hex())
        secret_values.commit(connection, keyring, secret_values.SALT, [(str(row.epoch), made)])


def _tombstones(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    """Each with an opening, each request with its commitments, and its last coming into force with the day of it."""
    ordered = sorted(rows, key=lambda row: (row.erasure, row.epoch, row.day))
    for erasure, mine in groupby(ordered, key=lambda row: row.erasure):
        commitments, effective = {}, None
        for epoch, found in groupby(mine, key=lambda row: row.epoch):
            opening = secret_values.new_opening()
            stones = [{**row._mapping, "listed": bool(row.listed), "opening": opening} for row in found]
            connection.execute(sa.insert(schema.tombstones), stones)
            commitments[epoch] = committed_to(stones)
            effective = stones[0]["effective_from"]
        _note(connection, erasure, commitments, effective)


def _note(connection: Connection, erasure: int, commitments: dict[int, str], effective: int | None) -> None:
    e, s = schema.erasures, schema.erasure_states
    connection.execute(sa.update(e).where(e.c.id == erasure).values(commitments=json.dumps(commitments)))
    last = sa.select(sa.func.max(s.c.id)).where(s.c.erasure == erasure, s.c.state == "received").scalar_subquery()
    connection.execute(sa.update(s).where(s.c.id == last).values(effective_from=effective))
