"""Backups: one folder with the ledger's rows, the live files, and a manifest that says what they are.

`manifest.json` has the days on which the backup was made and expires, the ledger's schema version and head, the last
published days, and the SHA-256 of every file; `ledger.jsonl` the rows; `files/` a copy of the live folders.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dpdau_assets.core.erasure.requests import DEADLINE_DAYS
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Clock, Store
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.publication.restoring import (
    MaybePublished,
    account_for,
    account_for_files,
    lost_keys,
    maybe_published,
)
from dpdau_assets.core.restored import Declared, MartRow, Restore
from dpdau_assets.core.settings import Metric, Settings
from resources.ledger_sql import chain, schema
from resources.ledger_sql.backup import from_lines, put, read_out, require_empty, restore_transaction, to_lines
from resources.ledger_sql.database import Database
from resources.ledger_sql.ledger import SqlLedger, SqlLedgerTransaction
from resources.storage.data_dir import (
    LIVE,
    RESTORING,
    WRITE_AHEAD_LOG,
    files_in,
    live_files,
    store_id_in,
    write_store_id,
)
from resources.storage.durable import Write, make_folder, sync_folder, write_all_durably, write_durably
from resources.store import open_ledger, store_on

MANIFEST, LEDGER, FILES = "manifest.json", "ledger.jsonl", "files"


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself. Days are ISO text; `files` maps paths in the backup to their SHA-256."""

    made_on: str
    expires_on: str
    schema: str
    head: str
    last_published: Mapping[str, str | None]
    files: Mapping[str, str]


@dataclass(frozen=True)
class Restored:
    """What a restore did. `files_kept`: live files were there already, and only the ledger was restored."""

    made_on: str
    head: str
    maybe_published: list[MaybePublished]
    lost_epochs: list[int]
    files_kept: bool

    @property
    def lost(self) -> int:
        """How many numbers are taken for published since the backup."""
        return sum(of_metric.numbers for of_metric in self.maybe_published)

    @property
    def taken_back(self) -> int:
        """How many of them the mart shows."""
        return sum(of_metric.taken_back for of_metric in self.maybe_published)

    @property
    def closed(self) -> list[tuple[Metric, date]]:
        """Every month of a metric that is closed for them."""
        return [(of_metric.metric, month) for of_metric in self.maybe_published for month in of_metric.months]


# --- Making one --------------------------------------------------------------------------------------------------


def back_up(target: Path, store: Store) -> Manifest:
    """A consistent backup in a new folder, whole or not at all.

    Raises Refused for a ledger that does not hold, and BadInput for a folder that exists, or in which receipts would
    find the people whom the backup still holds.
    """
    target = target.resolve()
    _require_free(target, store.settings)
    if store.accountant.problems():
        raise Refused("The ledger does not hold, so a backup could not be restored.", "See `dpdau verify-ledger`.")
    staging = target.with_name(f".{target.name}.tmp")
    with store.state.activity.lock():
        store.events.log.seal()
        shutil.rmtree(staging, ignore_errors=True)
        try:
            manifest = _written(staging, store)
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    sync_folder(target.parent)
    return manifest


def _require_free(target: Path, settings: Settings) -> None:
    receipts_read, readers_look = "receipts read every file there", "readers look there"
    for what, folder, why in (
        ("DATA_DIR", settings.data_dir, receipts_read),
        ("Dagster's home", settings.dagster_home, receipts_read),
        ("MART_DIR", settings.mart_dir, readers_look),
    ):
        if folder is not None and target.is_relative_to(folder.resolve()):
            raise BadInput(
                f"{target} is inside {what}.",
                f"A backup holds people who are erased later, and {why}: name another folder.",
            )
    if target.exists():
        raise BadInput(f"{target} exists.", "Name a new folder.")


def _written(folder: Path, store: Store) -> Manifest:
    make_folder(folder)
    # The ledger last: so it has the key of every epoch that a file is keyed under.
    write_all_durably(_copies(store.settings.data_dir, folder / FILES))
    database = open_ledger(store.settings)
    with database.read() as connection:
        write_durably(folder / LEDGER, lambda file: file.writelines(to_lines(read_out(connection))))
        head, transaction = chain.head(connection), SqlLedgerTransaction(connection, database.keyring)
        last = {metric: transaction.last_day(metric, store.settings.window_days(metric)) for metric in METRICS}
    today = store.clock.today()
    manifest = Manifest(
        made_on=today.isoformat(),
        expires_on=(today + timedelta(days=DEADLINE_DAYS)).isoformat(),
        schema=schema.VERSION,
        head=head,
        last_published={metric: day and str(day) for metric, day in last.items()},
        files={path.relative_to(folder).as_posix(): _hash_of(path) for path in files_in(folder)},
    )
    write_durably(folder / MANIFEST, lambda file: file.writelines([_to_json(manifest)]))
    return manifest


# --- Restoring one -----------------------------------------------------------------------------------------------


def restore(
    source: Path, settings: Settings, clock: Clock, shown: Sequence[MartRow] = (), declared: Declared | None = None
) -> Restored:
    """Restore into an empty ledger, and into a data directory without live files; where some are, they are kept.

    Everything is asked of a copy in memory before anything is written, and the ledger is written last, in one
    transaction; a restore that was cut short is completed by the same one. Raises Refused for a backup that has expired
    or does not fit, BadInput for a damaged one, BadSetting for settings that are not those of its store.
    """
    manifest = _usable(source, clock.today())
    memory = _in_memory(source, manifest, settings)
    store = replace(store_on(memory, settings), clock=clock)
    made_on = date.fromisoformat(manifest.made_on)
    database = open_ledger(settings)
    with store.state.activity.lock():
        _require_empty(database, settings.data_dir, store.accountant)
        _require_its_files(settings.data_dir, store.accountant)
        lost = lost_keys(shown, declared, store)
        maybe = maybe_published(lost, shown)
        with restore_transaction(memory) as transaction:
            account_for(lost, shown, Restore(made_on, clock.today(), declared), transaction, settings)
        # Before any file is there: what is killed from here on opens with no other ledger, and until the end with none.
        write_store_id(settings.data_dir, str(store.accountant.store_id()))
        files_kept = not _place(source, manifest, settings.data_dir)
        with restore_transaction(memory) as transaction:
            lost_epochs = account_for_files(lost, transaction, store.events, store.state)
        if files_kept:  # written since the backup, so the ledger takes them as they are
            store.state.activity.adopt(store.accountant.processed() | store.accountant.sealed())
            store.state.late.adopt(frozenset())
        with memory.read() as connection:
            put(database, read_out(connection))
        _forget_staged(settings.data_dir)
    return Restored(manifest.made_on, store.accountant.head(), maybe, lost_epochs, files_kept)


def _usable(source: Path, today: date) -> Manifest:
    """The manifest of a backup that is whole, of this schema, and has not expired."""
    manifest = _manifest(source)
    if manifest.schema != schema.VERSION:
        raise Refused(
            f"The backup's ledger has schema version {manifest.schema}; this version of dpdau reads {schema.VERSION}.",
            "Restore it with the version of dpdau that made it.",
        )
    if today < date.fromisoformat(manifest.made_on):
        raise Refused(
            f"The backup was made on {manifest.made_on}, and the clock says {today}.",
            "Set the clock: what may have been published since is told by it.",
        )
    if today > date.fromisoformat(manifest.expires_on):
        raise Refused(
            f"The backup expired on {manifest.expires_on}: it may hold people whose erasure was due by then.",
            "Restore a newer one, and delete this one.",
        )
    for name, wanted in manifest.files.items():
        if not (source / name).is_file() or _hash_of(source / name) != wanted:
            raise BadInput(f"{source / name} is missing or damaged.", "Restore from another backup.")
    return manifest


def _manifest(source: Path) -> Manifest:
    try:
        fields = json.loads((source / MANIFEST).read_bytes())
        manifest = Manifest(**{name: value for name, value in fields.items() if name != "sha256"})
    except OSError:
        raise BadInput(f"There is no whole backup in {source}.", "Name a folder that `dpdau backup` made.") from None
    except (ValueError, TypeError, AttributeError):
        manifest = None
    if manifest is None or _to_json(manifest) != (source / MANIFEST).read_bytes():
        raise BadInput(f"{source / MANIFEST} is damaged.", "Restore from another backup.")
    return manifest


def _in_memory(source: Path, manifest: Manifest, settings: Settings) -> Database:
    """The backup's ledger, whole and opened by the secret."""
    memory = Database("sqlite://", settings.hash_salt_secret)
    with (source / LEDGER).open("rb") as lines:
        put(memory, from_lines(lines))
    ledger = SqlLedger(memory)
    problems = ledger.problems()
    if problems or ledger.head() != manifest.head:
        first = problems[0] if problems else "It ends with another entry than its manifest says."
        raise Refused(f"The backup's ledger does not hold. {first}", "Restore from another backup.")
    return memory


def _require_empty(database: Database, data_dir: Path, backed_up: Ledger) -> None:
    try:
        with database.read() as connection:
            require_empty(connection)
    except Refused:
        if SqlLedger(database).store_id() == backed_up.store_id() and (data_dir / RESTORING).exists():
            _forget_staged(data_dir)
            raise Refused(
                "The ledger is not empty: this restore had come to its end.",
                "Nothing is to be done: the store is ready.",
            ) from None
        raise


def _require_its_files(data_dir: Path, ledger: Ledger) -> None:
    """Files that nobody named the store of are taken for this one's, as those of a copy that was made by hand."""
    here = store_id_in(data_dir)
    if here not in (None, ledger.store_id()) and any(live_files(data_dir)):
        raise Refused(
            f"{data_dir} has files of another store than the backup is of.",
            "Name the data directory of the store that the backup is of, or an empty one.",
        )


def _place(source: Path, manifest: Manifest, data_dir: Path) -> bool:
    """Copy the live files in; False where there are some that are not from this restore.

    They are staged whole, beside the manifest that stays until the ledger is there: so the same restore can go on.
    """
    staged, half = data_dir / RESTORING, data_dir / f"{RESTORING}.tmp"
    if not staged.exists():
        live = [path.relative_to(data_dir).parts[0] for path in live_files(data_dir)]
        if live and set(live) == {WRITE_AHEAD_LOG}:
            raise Refused(
                f"{data_dir} holds nothing but {WRITE_AHEAD_LOG}/: an API that was not stopped goes on there.",
                f"Stop `dpdau serve`, move {WRITE_AHEAD_LOG}/ away, and restore; then have what it held sent again.",
            )
        if live:
            return False
        shutil.rmtree(half, ignore_errors=True)
        write_all_durably(_copies(source / FILES, half))
        write_durably(half / MANIFEST, lambda file: file.writelines([_to_json(manifest)]))
        half.rename(staged)
        sync_folder(data_dir)
    began = _manifest(staged)
    to_come = [name for name in LIVE if (staged / name).exists()]
    if began != manifest or any(path for name in to_come for path in files_in(data_dir / name)):
        raise Refused(
            f"A restore from the backup of {began.made_on} was cut short, and this is another, or files came since.",
            f"Restore from that one; or move what is in the data directory away, {staged} too, and begin again.",
        )
    for name in to_come:
        shutil.rmtree(data_dir / name, ignore_errors=True)  # folders without a file
        (staged / name).rename(data_dir / name)
    sync_folder(data_dir)
    return True


def _forget_staged(data_dir: Path) -> None:
    shutil.rmtree(data_dir / RESTORING, ignore_errors=True)


# --- Files -------------------------------------------------------------------------------------------------------


def _copies(root: Path, target: Path) -> Iterator[tuple[Path, Write]]:
    """A durable copy below `target` of each live file below `root`."""
    for path in live_files(root):
        yield target / path.relative_to(root), partial(_copy, path)


def _copy(source: Path, file: BinaryIO) -> None:
    with source.open("rb") as read:
        shutil.copyfileobj(read, file)


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_json(manifest: Manifest) -> bytes:
    """With a hash of its own, so that no part of it can be damaged unseen."""
    said = json.dumps(asdict(manifest), indent=1, sort_keys=True)
    return json.dumps({**asdict(manifest), "sha256": hashlib.sha256(said.encode()).hexdigest()}, indent=1).encode()
