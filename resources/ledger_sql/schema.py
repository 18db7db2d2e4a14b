"""The ledger's tables. Facts are stored, prices are computed; what is secret has a table of its own.

Days are ISO text, months the ISO text of their first day, mechanisms and terms JSON with sorted keys. A change here
needs a migration in `migrations/` and another `VERSION`.

`APPENDED` are the tables whose rows are only ever added, each under the hash of all before it (see `chain`). A column
marked `NOT_CHAINED` notes where a row stands by now, and follows from appended rows.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = "0003"
NOT_CHAINED = {"chained": False}

metadata = MetaData()

# Kept by Alembic, whose name and column these are.
version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

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
    Column("epsilon_cap", Text),  # the cap that admitted it; none for one from before caps were kept
    Column("delta", Float),
    UniqueConstraint("metric", "month", "instance"),
)  # fmt: skip

overrides = Table(
    "overrides", metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("metric", Text),
    Column("month", Text),
    Column("epsilon_cap", Text),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("made_on", Text, nullable=False),
    Column("opens", Boolean, nullable=False),  # whether the month was closed when it was made
)  # fmt: skip

# Months that a restored ledger may have lost numbers of.
closures = Table(
    "closures", metadata,
    Column("id", Integer, primary_key=True),
    Column("metric", Text, nullable=False),
    Column("month", Text, nullable=False),
    Column("closed_on", Text, nullable=False),
)  # fmt: skip

# When the ledger was restored, from a backup of which day, and what somebody declared to be the last published day.
restores = Table(
    "restores", metadata,
    Column("id", Integer, primary_key=True),
    Column("made_on", Text, nullable=False),
    Column("restored_on", Text, nullable=False),
    Column("published_through", Text),
    Column("who", Text),
    Column("why", Text),
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

# What a secret value was when it was made, as an HMAC under a random key that goes when the value goes.
commitments = Table(
    "commitments", metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("commitment", Text, nullable=False),
    UniqueConstraint("kind", "subject"),
)  # fmt: skip

# That such a value was destroyed.
destructions = Table(
    "destructions", metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    UniqueConstraint("kind", "subject"),
)  # fmt: skip

# Secret: the noise that an instance's numbers share. Its row is deleted with the instance's last release.
shared_noise = Table(
    "shared_noise", metadata,
    Column("subject", Text, ForeignKey("instances.name"), primary_key=True),
    Column("encrypted", LargeBinary, nullable=False),
)  # fmt: skip

# Secret: the exact statistics that a stream has frozen. The subject is instance and day.
stream_state = Table(
    "stream_state", metadata,
    Column("subject", Text, primary_key=True),
    Column("instance", Text, ForeignKey("instances.name"), nullable=False, index=True),
    Column("day", Text, nullable=False),
    Column("encrypted", LargeBinary, nullable=False),
)  # fmt: skip

# Secret: epoch keys, wrapped under HASH_SALT_SECRET. Deleting a row shreds everything keyed under its epoch.
salts = Table(
    "salts", metadata,
    Column("epoch", Integer, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("opening", LargeBinary, nullable=False),
)  # fmt: skip

# Epochs whose keys a restored ledger has lost: they never get another.
lost_epochs = Table("lost_epochs", metadata, Column("epoch", Integer, primary_key=True))

# What was shredded, and the last day past retention: facts that outlive what they are about.
retention = Table(
    "retention", metadata, Column("name", Text, primary_key=True), Column("value", Integer, nullable=False)
)

# Secret: the keys that receipts are signed with, and the ledger chained and encrypted, wrapped as the salts are.
wrapped_keys = Table(
    "wrapped_keys", metadata, Column("name", Text, primary_key=True), Column("wrapped", LargeBinary, nullable=False)
)  # fmt: skip

# Requests to be erased. `scope` is what the request itself said; whose it is stands in the tombstones only.
erasures = Table(
    "erasures", metadata,
    Column("id", Integer, primary_key=True),
    Column("receipt", Text, nullable=False, unique=True),
    Column("batch", Text, nullable=False, index=True),
    Column("through", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("received_on", Text, nullable=False),
    Column("commitments", Text, nullable=False, server_default="{}"),  # of its tombstones: epoch to HMAC, as JSON
    Column("state", Text, nullable=False, index=True, info=NOT_CHAINED),
    Column("watermark", Integer, nullable=False, index=True, info=NOT_CHAINED),
)  # fmt: skip

# How they got there: one row a change of state, only ever added. The ids of `received` rows are the watermarks.
erasure_states = Table(
    "erasure_states", metadata,
    Column("id", Integer, primary_key=True),
    Column("erasure", Integer, ForeignKey("erasures.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("effective_from", Integer),  # of its tombstones, with the state `received`
    sqlite_autoincrement=True,
)  # fmt: skip

# Secret: keys that were removed, encrypted under their epoch's key, one row a through-day or listed day. Days are
# numbers of days since 1970-01-01. Without `effective_from` a tombstone is parked and not in force.
tombstones = Table(
    "tombstones", metadata,
    Column("id", Integer, primary_key=True),
    Column("erasure", Integer, ForeignKey("erasures.id"), nullable=False, index=True),
    Column("epoch", Integer, nullable=False),
    Column("encrypted_key", LargeBinary, nullable=False),
    Column("day", Integer, nullable=False),
    Column("listed", Boolean, nullable=False),
    Column("held_until", Integer, nullable=False),
    Column("effective_from", Integer),
    Column("opening", LargeBinary, nullable=False),  # the same for all of one erasure and epoch
    Index("tombstones_by_key", "epoch", "encrypted_key"),
)  # fmt: skip

# How far removals are marked, begun and applied: watermarks, one row each.
erasure_progress = Table(
    "erasure_progress", metadata, Column("name", Text, primary_key=True), Column("watermark", Integer, nullable=False)
)  # fmt: skip

# Days to rebuild: the mark that is wanted, and the one that was built.
rebuilds = Table(
    "rebuilds", metadata,
    Column("day", Text, primary_key=True),
    Column("wanted", Integer, nullable=False),
    Column("built", Integer, nullable=False),
)  # fmt: skip

# Days whose state has changed by arrivals that Dagster was not told of yet; each change has another, random name.
arrivals = Table(
    "arrivals", metadata, Column("day", Text, primary_key=True), Column("change", Text, nullable=False)
)  # fmt: skip

# Days that upstream has declared complete; with a fingerprint of what lay in the landing folder, if it came that way.
completions = Table("completions", metadata, Column("day", Text, primary_key=True), Column("landed", Text))

# What receipts speak of: the partitions that were read back, as JSON, once for all receipts written together.
inspections = Table(
    "inspections", metadata, Column("digest", Text, primary_key=True), Column("partitions", LargeBinary, nullable=False)
)  # fmt: skip

receipts = Table(
    "receipts", metadata,
    Column("id", Integer, primary_key=True),
    Column("receipt", Text, ForeignKey("erasures.receipt"), nullable=False, index=True),
    Column("body", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("signature", Text, nullable=False),
    Column("inspection", Text, ForeignKey("inspections.digest"), nullable=False),
)  # fmt: skip

# The chain: one row for the rows that were appended to a table together, hashed with the entry before it.
entries = Table(
    "entries", metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("first_row", Integer, nullable=False),
    Column("last_row", Integer, nullable=False),
    Column("hash", Text, nullable=False),
)  # fmt: skip

APPENDED = {
    table.name: table
    for table in (
        instances, charges, releases, overrides, closures, restores, commitments, destructions, erasures, erasure_states
    )
}  # fmt: skip
