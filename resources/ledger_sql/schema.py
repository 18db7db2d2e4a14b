"""The ledger's tables. Facts are stored, prices are computed; what is secret has a table of its own.

Days are ISO text, months the ISO text of their first day, mechanisms and terms JSON with sorted keys. A change here
needs a migration in `migrations/` and another `VERSION`.

`APPENDED` are the tables whose rows are only ever added, each under the hash of all before it (see `chain`): whatever
decides that something is applied, sealed, processed, restated, purged or complete. A column marked `NOT_CHAINED` notes
where a row stands by now, and follows from appended rows. `VOUCHED_FOR` are tables that an appended row speaks of, and
`DERIVED` those that may be lost or changed without harm.
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

VERSION = "0004"
NOT_CHAINED = {"chained": False}

metadata = MetaData()

# Kept by Alembic, whose name and column these are.
version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

# Facts of the store that never change while it lives: time zone, start date, rotation of salts.
terms = Table(
    "terms",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("value", Text, nullable=False),
)

instances = Table(
    "instances",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("metric", Text, nullable=False),
    Column("window_days", Integer, nullable=False),
    Column("first_day", Text, nullable=False),
    Column("mechanism", Text, nullable=False),
    Column("terms", Text, nullable=False),
)

charges = Table(
    "charges",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("metric", Text, nullable=False),
    Column("month", Text, nullable=False),
    Column("instance", Text, ForeignKey("instances.name"), nullable=False),
    Column("epsilon_cap", Text),  # the cap that admitted it; none for one from before caps were kept
    Column("delta", Float),
    UniqueConstraint("metric", "month", "instance"),
)

overrides = Table(
    "overrides",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("metric", Text),
    Column("month", Text),
    Column("epsilon_cap", Text),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("made_on", Text, nullable=False),
    Column("opens", Boolean, nullable=False),  # whether the month was closed when it was made
)

# Months that a restored ledger may have lost numbers of.
closures = Table(
    "closures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("metric", Text, nullable=False),
    Column("month", Text, nullable=False),
    Column("closed_on", Text, nullable=False),
)

# When the ledger was restored, from a backup of which day, and what somebody declared to be the last published day.
restores = Table(
    "restores",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("made_on", Text, nullable=False),
    Column("restored_on", Text, nullable=False),
    Column("published_through", Text),
    Column("who", Text),
    Column("why", Text),
)

releases = Table(
    "releases",
    metadata,
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

# Days whose state was asked for; what a release may read must not depend on whether anyone was active.
processed = Table(
    "processed", metadata, Column("id", Integer, primary_key=True), Column("day", Text, nullable=False, unique=True)
)

seals = Table(
    "seals", metadata, Column("id", Integer, primary_key=True), Column("day", Text, nullable=False, unique=True)
)

# What a secret value was when it was made, as an HMAC under a random key that goes when the value goes.
commitments = Table(
    "commitments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("commitment", Text, nullable=False),
    UniqueConstraint("kind", "subject"),
)

# That such a value was destroyed.
destructions = Table(
    "destructions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    UniqueConstraint("kind", "subject"),
)

# Secret: the noise that a mechanism run's numbers share. Its row is deleted with the run's last release.
shared_noise = Table(
    "shared_noise",
    metadata,
    Column("subject", Text, ForeignKey("instances.name"), primary_key=True),
    Column("encrypted", LargeBinary, nullable=False),
)

# Secret: the exact statistics that a stream has frozen. The subject is mechanism run and day.
stream_state = Table(
    "stream_state",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("instance", Text, ForeignKey("instances.name"), nullable=False, index=True),
    Column("day", Text, nullable=False),
    Column("encrypted", LargeBinary, nullable=False),
)

# Secret: epoch keys, wrapped under HASH_SALT_SECRET. Deleting a row shreds everything keyed under its epoch.
salts = Table(
    "salts",
    metadata,
    Column("epoch", Integer, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("opening", LargeBinary, nullable=False),
)

# Epochs whose keys a restored ledger has lost: they never get another.
lost_epochs = Table(
    "lost_epochs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("epoch", Integer, nullable=False, unique=True),
)

# What was shredded, and the last day past retention: facts that outlive what they are about. The largest counts.
retention = Table(
    "retention",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("value", Integer, nullable=False),
)

# Secret: the keys that receipts are signed with, and the ledger chained and encrypted, wrapped as the salts are.
wrapped_keys = Table(
    "wrapped_keys", metadata, Column("name", Text, primary_key=True), Column("wrapped", LargeBinary, nullable=False)
)

# Requests to be erased. `scope` is what the request itself said; whose it is stands in the tombstones only.
erasures = Table(
    "erasures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("receipt", Text, nullable=False, unique=True),
    Column("batch", Text, nullable=False, index=True),
    Column("through", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("received_on", Text, nullable=False),
    Column("commitments", Text, nullable=False, server_default="{}"),  # of its tombstones: epoch to HMAC, as JSON
    Column("state", Text, nullable=False, index=True, info=NOT_CHAINED),
    Column("watermark", Integer, nullable=False, index=True, info=NOT_CHAINED),
)

# How they got there: one row a change of state, only ever added. The ids of `received` rows are the watermarks.
erasure_states = Table(
    "erasure_states",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("erasure", Integer, ForeignKey("erasures.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("effective_from", Integer),  # of its tombstones, with the state `received`
    sqlite_autoincrement=True,
)

# Secret: keys that were removed, encrypted under their epoch's key, one row a through-day or listed day. Days are
# numbers of days since 1970-01-01. Without `effective_from` a tombstone is parked and not in force.
tombstones = Table(
    "tombstones",
    metadata,
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
)

# Secret: what whoever asked calls a request by. The subject is its receipt; goes with the request's last tombstone.
erasure_references = Table(
    "erasure_references",
    metadata,
    Column("subject", Text, ForeignKey("erasures.receipt"), primary_key=True),
    Column("encrypted", LargeBinary, nullable=False),
)

# How far removals are begun and applied: watermarks, of which the largest of each name counts.
erasure_progress = Table(
    "erasure_progress",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("watermark", Integer, nullable=False),
)

# Days to rebuild, each with its mark, until Dagster was told that they are: what was rebuilt leaves no row.
rebuilds = Table(
    "rebuilds",
    metadata,
    Column("day", Text, primary_key=True),
    Column("mark", Integer, nullable=False),
    Column("watermark", Integer, nullable=False),  # of the removals that it stands for
)

# The last mark that was given, and the watermark up to which touched days are marked.
rebuild_progress = Table(
    "rebuild_progress", metadata, Column("name", Text, primary_key=True), Column("value", Integer, nullable=False)
)

# Days whose state has changed by arrivals that Dagster was not told of yet; each change has another, random name.
arrivals = Table("arrivals", metadata, Column("day", Text, primary_key=True), Column("change", Text, nullable=False))

# Days that upstream has declared complete; with a fingerprint of what lay in the landing folder, if it came that way.
# The last row of a day counts.
completions = Table(
    "completions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("day", Text, nullable=False, index=True),
    Column("landed", Text),
    Column("declared", Boolean, nullable=False),  # False where the declaration was taken back
)

# Secret: what each partition of the state was last written as, its hash under a nonce of that build. Replaced in place,
# so that nothing is left by which an earlier content could be tried out.
builds = Table(
    "builds",
    metadata,
    Column("store", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("encrypted", LargeBinary, nullable=False),
    sqlite_with_rowid=False,  # which would say in what order rows were replaced
)

# Secret: the digest of all of `builds`, one row, committed to on the chain.
build_digests = Table(
    "build_digests",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("encrypted", LargeBinary, nullable=False),
)

# What the last receipts speak of: the partitions that were read back, as JSON. The newest inspection alone, and none
# from before an erasure was applied: two of them beside each other would say which days it has changed.
inspections = Table(
    "inspections", metadata, Column("digest", Text, primary_key=True), Column("partitions", LargeBinary, nullable=False)
)

# The text of the newest receipt of each request; of earlier ones the hash stays.
receipts = Table(
    "receipts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("receipt", Text, ForeignKey("erasures.receipt"), nullable=False, index=True),
    Column("body", Text, info=NOT_CHAINED),
    Column("hash", Text, nullable=False, unique=True),
    Column("signature", Text, nullable=False),
    Column("inspection", Text, nullable=False),  # its digest
)

# The chain: one row for the rows that were appended to a table together, hashed with the entry before it.
entries = Table(
    "entries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("first_row", Integer, nullable=False),
    Column("last_row", Integer, nullable=False),
    Column("hash", Text, nullable=False),
)

APPENDED = {
    table.name: table
    for table in (
        terms,
        instances,
        charges,
        releases,
        overrides,
        closures,
        restores,
        processed,
        seals,
        commitments,
        destructions,
        lost_epochs,
        retention,
        erasures,
        erasure_states,
        erasure_progress,
        completions,
        receipts,
    )
}

VOUCHED_FOR = {
    shared_noise.name: "commitments",
    stream_state.name: "commitments",
    salts.name: "commitments",
    erasure_references.name: "commitments",
    build_digests.name: "commitments",
    builds.name: "the digest in build_digests",
    tombstones.name: "the commitments of each row of erasures, and erasure_states",
    wrapped_keys.name: "everything that they open, and the signatures of the receipts",
    entries.name: "each entry is of the one before it; its end is told by a head that was noted down",
    version.name: "this program, which opens no other",
}
"""Tables whose rows are held to something that was appended, and to what."""

DERIVED = {
    rebuilds.name: "Which days Dagster is to rebuild. Removals are applied to whatever holds them, marked or not.",
    rebuild_progress.name: "How far days are marked for Dagster, which decides nothing of what is applied.",
    arrivals.name: "Of which days Dagster is to be told. What numbers read are the files and the builds.",
    inspections.name: "What the last receipts list. What is there is held to their digest; what is gone is read anew.",
}
"""Tables that may be lost or changed without harm, and why."""
