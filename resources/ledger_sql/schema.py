"""The ledger's tables. Facts are stored, prices are computed; what is secret has a table of its own.

Days are ISO text, months the ISO text of their first day, mechanisms and terms JSON with sorted keys.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# Facts of the store that never change while it lives: time zone, start date, rotation of salts.
terms = Table("terms", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

instances = Table(
    "instances", metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("metric", Text, nullable=False),
    Column("window_days", Integer, nullable=False),
    Column("first_day", Text, nullable=False),
    Column("mechanism", Text, nullable=False),
    Column("terms", Text, nullable=False),
)  # fmt: skip

charges = Table(
    "charges", metadata,
    Column("id", Integer, primary_key=True),
    Column("metric", Text, nullable=False),
    Column("month", Text, nullable=False),
    Column("instance", Text, ForeignKey("instances.name"), nullable=False),
    UniqueConstraint("metric", "month", "instance"),
)  # fmt: skip

releases = Table(
    "releases", metadata,
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
)  # fmt: skip

# Days whose state was asked for; what a release may read must not depend on whether anyone was active.
processed = Table("processed", metadata, Column("day", Text, primary_key=True))

seals = Table("seals", metadata, Column("day", Text, primary_key=True))

# Secret: the noise that an instance's numbers share. Its row is deleted with the instance's last release.
shared_noise = Table(
    "shared_noise", metadata,
    Column("instance", Text, ForeignKey("instances.name"), primary_key=True),
    Column("value", Integer, nullable=False),
)  # fmt: skip

# Secret: the exact statistics that a stream has frozen.
stream_state = Table(
    "stream_state", metadata,
    Column("instance", Text, ForeignKey("instances.name"), primary_key=True),
    Column("day", Text, primary_key=True),
    Column("statistic", BigInteger, nullable=False),
)  # fmt: skip

# Secret: epoch keys, wrapped under HASH_SALT_SECRET. Deleting a row shreds everything keyed under its epoch.
salts = Table(
    "salts", metadata,
    Column("epoch", Integer, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
)  # fmt: skip

# Secret: keys that were removed. `key` is the unsigned key read as a signed integer.
tombstones = Table(
    "tombstones", metadata,
    Column("id", Integer, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("key", BigInteger, nullable=False),
    Column("day", Text, nullable=False),
    Column("listed", Boolean, nullable=False),
    Column("held_until", Text, nullable=False),
    Column("effective_from", Text, nullable=False),
    UniqueConstraint("epoch", "key", "day", "listed", "held_until"),
)  # fmt: skip

removals_applied = Table("removals_applied", metadata, Column("watermark", Integer, primary_key=True))
