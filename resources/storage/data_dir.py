"""The data directory: which of its folders hold state, and of which store they are.

Owns the rule: A folder is used with its own ledger alone.

A ledger draws a random name when it is begun, and the folder keeps it in `store.id`. With another store's ledger,
removals on record in the right one would be passed over, and what was charged there would be charged nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports.ledger import Ledger
from resources.storage.durable import write_durably

LIVE = ("activity", "late", "sketches", "inbox", "quarantine")
"""The folders in which state is kept, below a data directory."""

_STORE_ID = "store.id"


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
    """The name of the store that this folder is of; None for one that was never used with a ledger."""
    try:
        return (data_dir / _STORE_ID).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def write_store_id(data_dir: Path, store_id: str) -> None:
    """From now on the folder is used with the ledger of this name, and with no other. Durable when this returns."""
    write_durably(data_dir / _STORE_ID, lambda file: file.writelines([f"{store_id}\n".encode("ascii")]))


def require_of_one_store(data_dir: Path, ledger: Ledger) -> None:
    """Raises BadSetting unless the folder is of the ledger's store, or nothing was ever kept in one of them.

    What the ledger has on record of a folder that is empty now was lost, or is elsewhere.
    """
    here, wanted = store_id_in(data_dir), ledger.store_id()
    if here == wanted and here is not None:
        return
    if here is not None:
        raise BadSetting(
            f"DATA_DIR={data_dir} is of another store than the ledger{'' if wanted else ', which is empty'}.",
            "Name the folder and the ledger of one store, in DATA_DIR and LEDGER_URL; or `dpdau restore` a ledger that "
            "was lost.",
            data_dir_store=here,
            ledger_store=wanted,
        )
    if any(live_files(data_dir)):
        raise BadSetting(
            f"DATA_DIR={data_dir} holds state, and nothing says that it is of this ledger's store.",
            "Name the folder and the ledger of one store, in DATA_DIR and LEDGER_URL; or `dpdau restore` what was "
            "lost.",
            ledger_store=wanted,
        )
    if ledger.processed():
        raise BadSetting(
            f"DATA_DIR={data_dir} is empty, and the ledger has {len(ledger.processed())} day(s) of state on record.",
            "Name the folder of this ledger in DATA_DIR; if it was lost, restore folder and ledger from one backup.",
            ledger_store=wanted,
        )
