"""The data directory: which of its folders hold state, and of which store they are.

Owns the rule: A folder is used with its own ledger alone.

A ledger draws a random name when it is begun, and the folder keeps it in `store.id`. With another store's ledger,
removals on record in the right one would be passed over, and what was charged there would be charged nowhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports.ledger import Ledger
from resources.storage.durable import sync_folder, write_durably

WRITE_AHEAD_LOG = "wal"

LIVE = ("activity", "late", "sketches", "inbox", WRITE_AHEAD_LOG, "quarantine")
"""The folders of the live files below a data directory, which a backup copies."""

RESTORING = ".restoring"
"""Beside them: what a restore has still to put into its place, until its ledger is there."""

_STORE_ID = "store.id"
_IS_STORE_ID = re.compile(r"[0-9a-f]{32}")


def files_in(folder: Path) -> Iterator[Path]:
    """Every file below, sorted; what a writer is in the middle of is left out."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def live_files(data_dir: Path) -> Iterator[Path]:
    """The files that hold state, in order of their folders."""
    for name in LIVE:
        yield from files_in(data_dir / name)


def store_id_in(data_dir: Path) -> str | None:
    """The name of the store that this folder is of; None for one that was never used with a ledger.

    Raises BadSetting where the file that says it is damaged.
    """
    path = data_dir / _STORE_ID
    try:
        store_id = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if not _IS_STORE_ID.fullmatch(store_id):
        raise BadSetting(
            f"{path} is damaged: it does not say of which store the folder is.",
            "Put the file back from a copy of the folder, or restore folder and ledger from one backup.",
        )
    return store_id


def write_store_id(data_dir: Path, store_id: str) -> None:
    """From now on the folder is used with the ledger of this name, and with no other. Durable when this returns."""
    write_durably(data_dir / _STORE_ID, lambda file: file.writelines([f"{store_id}\n".encode("ascii")]))


def claim(data_dir: Path, ledger: Ledger) -> None:
    """Let folder and ledger know one another at their first use; raises BadSetting if either has another one.

    The ledger is asked and told in one transaction, so that of two folders one is named. Killed at any step it is
    completed by the next: a folder bears the name before that is on record.
    """
    store_id = ledger.store_id()
    if store_id is None or (store_id_in(data_dir) == store_id and ledger.has_folder()):
        return  # without a secret nothing is begun
    with ledger.naming_folder() as has_another:
        if store_id_in(data_dir) is None:
            if has_another:
                raise _elsewhere(data_dir, store_id)
            _write_where_none_is(data_dir, store_id)
        if store_id_in(data_dir) != store_id:
            raise _of_another(data_dir, store_id_in(data_dir), store_id)


def _write_where_none_is(data_dir: Path, store_id: str) -> None:
    """Unless a process with another ledger was first. Where a file system has no links the last one wins."""
    own = data_dir / f".{_STORE_ID}.{token_hex(8)}"
    write_durably(own, lambda file: file.writelines([f"{store_id}\n".encode("ascii")]))
    try:
        os.link(own, data_dir / _STORE_ID)
    except FileExistsError:
        pass
    except OSError:
        own.replace(data_dir / _STORE_ID)
    finally:
        own.unlink(missing_ok=True)
    sync_folder(data_dir)


def require_of_one_store(data_dir: Path, ledger: Ledger) -> None:
    """Raises BadSetting unless the folder bears the ledger's name, or is empty and the ledger has none on record;
    and for a folder into which a restore was not brought to its end.
    """
    here, wanted, staged = store_id_in(data_dir), ledger.store_id(), data_dir / RESTORING
    if staged.exists() and (here != wanted or any((staged / name).exists() for name in LIVE)):
        raise BadSetting(
            f"A restore into DATA_DIR={data_dir} was cut short.",
            "Run the same `dpdau restore` again: it goes on where it was.",
        )
    is_used = is_on_record = False
    if here is None:
        is_used, is_on_record = any(live_files(data_dir)), ledger.has_folder() or bool(ledger.processed())
        here, wanted = store_id_in(data_dir), ledger.store_id()  # another process may have begun both meanwhile
    if here is not None:
        if here != wanted:
            raise _of_another(data_dir, here, wanted)
        return
    if is_used:
        raise BadSetting(
            f"DATA_DIR={data_dir} holds state, and nothing says that it is of this ledger's store.",
            "Name the folder and the ledger of one store, in DATA_DIR and LEDGER_URL; or `dpdau restore` what was "
            "lost.",
            ledger_store=wanted,
        )
    if is_on_record:
        raise _elsewhere(data_dir, wanted)


def _elsewhere(data_dir: Path, wanted: str | None) -> BadSetting:
    return BadSetting(
        f"DATA_DIR={data_dir} is empty, and the ledger has another folder on record.",
        "Name the folder of this ledger in DATA_DIR; if it was lost, restore folder and ledger from one backup, or "
        "begin a new ledger where nothing was ever ingested.",
        ledger_store=wanted,
    )


def _of_another(data_dir: Path, here: str | None, wanted: str | None) -> BadSetting:
    return BadSetting(
        f"DATA_DIR={data_dir} is of another store than the ledger{'' if wanted else ', which is empty'}.",
        "Name the folder and the ledger of one store, in DATA_DIR and LEDGER_URL; or `dpdau restore` a ledger that was "
        "lost.",
        data_dir_store=here,
        ledger_store=wanted,
    )
