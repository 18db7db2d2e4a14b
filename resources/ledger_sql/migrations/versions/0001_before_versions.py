"""The ledger as it was before it kept a version: an SQLite file."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
)

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("terms", Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
    op.create_table(
        "instances",
        Column("id", Integer, primary_key=True),
        Column("name", Text, nullable=False, unique=True),
        Column("metric", Text, nullable=False),
        Column("window_days", Integer, nullable=False),
        Column("first_day", Text, nullable=False),
        Column("mechanism", Text, nullable=False),
        Column("terms", Text, nullable=False),
    )
    op.create_table(
        "charges",
        Column("id", Integer, primary_key=True),
        Column("metric", Text, nullable=False),
        Column("month", Text, nullable=False),
        Column("instance", Text, ForeignKey("instances.name"), nullable=False),
        UniqueConstraint("metric", "month", "instance"),
    )
    op.create_table(
        "releases",
        Column("id", Integer, primary_key=True),
        Column("metric", Text, nullable=False),
        Column("window_days", Integer, nullable=False),
        Column("day", Text, nullable=False),
        Column("revision", Integer, nullable=False),
        Column("instance", Text, ForeignKey("instances.name"), nullable=False),
        Column("mechanism", Text, nullable=False),
        Column("noisy_value", Float, nullable=False),
        Column("half_width", Float, nullable=False),
        Column("sketch_impl", Text, nullable=False),
        Column("published_at", Text, nullable=False),
        Column("private", Boolean, nullable=False),
        Column("version", Text, nullable=False),
        UniqueConstraint("metric", "window_days", "day", "revision"),
        Index("releases_by_instance", "instance"),
    )
    op.create_table("processed", Column("day", Text, primary_key=True))
    op.create_table("seals", Column("day", Text, primary_key=True))
    op.create_table(
        "shared_noise",
        Column("instance", Text, ForeignKey("instances.name"), primary_key=True),
        Column("value", Integer, nullable=False),
    )
    op.create_table(
        "stream_state",
        Column("instance", Text, ForeignKey("instances.name"), primary_key=True),
        Column("day", Text, primary_key=True),
        Column("statistic", BigInteger, nullable=False),
    )
    op.create_table(
        "salts",
        Column("epoch", Integer, primary_key=True),
        Column("wrapped", LargeBinary, nullable=False),
    )
    op.create_table("retention", Column("name", Text, primary_key=True), Column("value", Integer, nullable=False))
    op.create_table(
        "signing_keys", Column("name", Text, primary_key=True), Column("wrapped", LargeBinary, nullable=False)
    )
    op.create_table(
        "erasures",
        Column("id", Integer, primary_key=True),
        Column("receipt", Text, nullable=False, unique=True),
        Column("batch", Text, nullable=False, index=True),
        Column("through", Text, nullable=False),
        Column("scope", Text, nullable=False),
        Column("received_on", Text, nullable=False),
        Column("state", Text, nullable=False, index=True),
        Column("watermark", Integer, nullable=False, index=True),
    )
    op.create_table(
        "erasure_states",
        Column("id", Integer, primary_key=True),
        Column("erasure", Integer, ForeignKey("erasures.id"), nullable=False),
        Column("state", Text, nullable=False),
        sqlite_autoincrement=True,
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
        Index("tombstones_by_key", "epoch", "encrypted_key"),
    )
    op.create_table(
        "erasure_progress", Column("name", Text, primary_key=True), Column("watermark", Integer, nullable=False)
    )
    op.create_table(
        "rebuilds",
        Column("day", Text, primary_key=True),
        Column("wanted", Integer, nullable=False),
        Column("built", Integer, nullable=False),
    )
    op.create_table(
        "inspections", Column("digest", Text, primary_key=True), Column("partitions", LargeBinary, nullable=False)
    )
    op.create_table(
        "receipts",
        Column("id", Integer, primary_key=True),
        Column("receipt", Text, ForeignKey("erasures.receipt"), nullable=False, index=True),
        Column("body", Text, nullable=False),
        Column("hash", Text, nullable=False, unique=True),
        Column("signature", Text, nullable=False),
        Column("inspection", Text, ForeignKey("inspections.digest"), nullable=False),
    )
