"""Opening a store: every adapter on one data directory, put together as what core calls `Store`.

What reads or writes more than the ledger is imported when it is used: most commands ask the ledger alone.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary
from zoneinfo import ZoneInfo

from sqlalchemy.exc import OperationalError

from dpdau_assets.core.dates import first_window_end
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports.erasure import ErasureLedger
from dpdau_assets.core.ports.events import Engine, Inbox, Landing, Quarantine
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import Builds, FileInventory, Salts, SketchStore, StateStore
from dpdau_assets.core.ports.store import Erasures, Events, Noise, State, Store
from dpdau_assets.core.secret_strength import WeakSecret, warning
from dpdau_assets.core.settings import Settings
from resources.lazy import lazy
from resources.ledger_sql.builds import SqlBuilds
from resources.ledger_sql.completions import SqlCompletions
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasures import SqlErasures
from resources.ledger_sql.ledger import SqlLedger
from resources.ledger_sql.rebuilds import SqlRebuilds
from resources.ledger_sql.receipts import SqlReceipts
from resources.ledger_sql.salts import SqlSalts
from resources.storage.data_dir import claim, require_of_one_store
from resources.storage.durable import PRIVATE_FOLDER, make_folder
from resources.storage.file_lock import FileLock

if TYPE_CHECKING:
    from resources.published.mart_duckdb import MartFiles
    from resources.published.report_html import ReportFiles
    from resources.storage.write_ahead_log import FileWriteAheadLog

CANNOT_KEEP: tuple[type[Exception], ...] = (OSError, OperationalError)
"""What a store raises that cannot write or be reached: a full disk, a ledger that does not answer."""

_SQLITE_FILE = "sqlite:///"
_READERS_FOLDER = 0o755
_MARTS = ("mart/active_users.duckdb", "mart/.active_users.duckdb.tmp")  # published numbers, and no person


class SystemClock:
    """The port Clock."""

    def __init__(self, timezone: str) -> None:
        self._zone = ZoneInfo(timezone)

    def today(self) -> date:
        return datetime.now(self._zone).date()


_opened: WeakValueDictionary[int, Store] = WeakValueDictionary()
"""By the identity of its ledger, of which each store has its own."""


@cache
def open_store(settings: Settings) -> Store:
    """Every adapter on this data directory, made if it is not there.

    Raises BadSetting for a folder and a ledger of two stores, and for settings that differ from those the store was
    begun with. Warns of a living store's master secret that a new one would be refused for.
    """
    database = open_ledger(settings)
    require_of_one_store(settings.data_dir, SqlLedger(database))
    store = store_on(database, settings)
    claim(settings.data_dir, store.accountant)
    weak = warning(settings.hash_salt_secret)
    if weak:
        warnings.warn(weak, WeakSecret, stacklevel=1)
    _opened[id(store.accountant)] = store
    return store


def store_of(accountant: Ledger) -> Store:
    """The store that `open_store` opened with this ledger. Raises LookupError for any other ledger: its parts have to
    be handed in as well.
    """
    store = _opened.get(id(accountant))
    if store is None:
        raise LookupError("No store was opened with this ledger: hand in the other parts of the store too.")
    return store


def events_of(store: Store, landing_dir: Path | None) -> Events:
    """The store's ways in, with this landing folder. Raises BadSetting for one inside the data directory."""
    landing = _apart(landing_dir, store.settings)
    return replace(store.events, landing=lazy(lambda: _landing(landing)))


def open_noise() -> Noise:
    """The source of noise, which no store has its own of."""
    return lazy(_noise)


def open_ledger(settings: Settings) -> Database:
    """The ledger's database, with the data directory that it belongs to. Raises BadSetting for a MART_DIR in it."""
    readers_folder(settings)
    make_folder(settings.data_dir)
    settings.data_dir.chmod(PRIVATE_FOLDER)  # also one that was there before: it holds keys, exact state and noise
    return Database(ledger_url(settings), settings.hash_salt_secret)


def store_on(database: Database, settings: Settings) -> Store:
    """The store of these settings with this ledger. Raises BadSetting if that is of another store."""
    ledger = SqlLedger(database)
    ledger.fix_settings(settings.fixed_settings())
    salts = SqlSalts(database)
    lock = FileLock(settings.data_dir / "state.lock")
    builds = SqlBuilds(database)
    erasures = SqlErasures(database, salts, first_window_end(settings.start_date, settings.mau_window_days))
    landing = _apart(settings.landing_dir, settings)
    inbox, quarantine = lazy(lambda: _inbox(settings, salts)), lazy(lambda: _quarantine(settings))
    return Store(
        settings=settings,
        clock=SystemClock(settings.timezone),
        events=Events(
            engine=lazy(lambda: _engine(settings)),
            log=lazy(lambda: open_log(settings, inbox, quarantine, salts)),
            inbox=inbox,
            quarantine=quarantine,
            landing=lazy(lambda: _landing(landing)),
            completions=SqlCompletions(database),
        ),
        state=State(
            activity=lazy(lambda: _state(settings, "activity", salts, lock, builds, erasures, keep_empty=True)),
            late=lazy(lambda: _state(settings, "late", salts, lock, builds, erasures, keep_empty=False)),
            sketches=lazy(lambda: _sketches(settings)),
            builds=builds,
            rebuilds=SqlRebuilds(database),
            salts=salts,
            files=lazy(lambda: _file_inventory(settings)),
        ),
        erasures=Erasures(ledger=erasures, receipts=SqlReceipts(database)),
        accountant=ledger,
        noise=open_noise(),
    )


# --- What is imported when it is used ------------------------------------------------------------------------------


def _engine(settings: Settings) -> Engine[Any]:  # noqa: ARG001
    from resources.reading.engine_duckdb import DuckDBEngine

    return DuckDBEngine()


def open_log(settings: Settings, inbox: Inbox, quarantine: Quarantine, salts: Salts) -> FileWriteAheadLog:
    """The write-ahead log of this data directory, which seals into the inbox."""
    from resources.storage.write_ahead_log import FileWriteAheadLog

    return FileWriteAheadLog(settings.data_dir, inbox, quarantine, salts)


def _inbox(settings: Settings, salts: Salts) -> Inbox:
    from resources.storage.inbox_files import FileInbox

    return FileInbox(settings.data_dir, salts)


def _quarantine(settings: Settings) -> Quarantine:
    from resources.storage.quarantine_files import FileQuarantine

    return FileQuarantine(settings.data_dir)


def _state(
    settings: Settings,
    store: str,
    salts: Salts,
    lock: FileLock,
    builds: Builds,
    erasures: ErasureLedger,
    *,
    keep_empty: bool,
) -> StateStore:
    from dpdau_assets.core.state.vouched_state import VouchedState
    from resources.storage.state_files import StateFiles

    files = StateFiles(settings.data_dir / store, salts, lock)
    return VouchedState(store, files, builds, erasures, keep_empty=keep_empty)


def _sketches(settings: Settings) -> SketchStore:
    from resources.storage.sketch_files import SketchFiles

    return SketchFiles(settings.data_dir / "sketches")


def _landing(folder: Path | None) -> Landing:
    from resources.reading.landing_files import LandingFiles

    return LandingFiles(folder)


def _file_inventory(settings: Settings) -> FileInventory:
    from resources.storage.file_inventory import DiskFileInventory

    return DiskFileInventory(_roots(settings), _MARTS)


def _noise() -> Noise:
    from resources.noise_opendp import OpenDPNoise

    return OpenDPNoise()


def open_mart(settings: Settings) -> MartFiles:
    """The mart of this store, where readers look."""
    from resources.published.mart_duckdb import MartFiles

    return MartFiles(*(readers_folder(settings) or _closed(settings.data_dir / "mart")))


def all_marts(settings: Settings) -> list[MartFiles]:
    """The mart of this store, and the one that it had before MART_DIR was set, if it is still there."""
    from resources.published.mart_duckdb import MartFiles

    return [open_mart(settings), *([MartFiles(*_closed(settings.data_dir / "mart"))] if settings.mart_dir else [])]


def open_reports(settings: Settings) -> ReportFiles:
    """The reports of this store: the readers' one where readers look, the operators' in the data directory."""
    from resources.published.report_html import ReportFiles

    folder, mode = _closed(settings.data_dir / "report")
    return ReportFiles(folder, *(readers_folder(settings) or (folder, mode)))


# --- Where things are ----------------------------------------------------------------------------------------------


def _apart(landing: Path | None, settings: Settings) -> Path | None:
    """Raises BadSetting for a folder in which event files, with raw ids, would lie among what is kept without them."""
    if landing is not None and landing.resolve().is_relative_to(settings.data_dir.resolve()):
        raise BadSetting(f"LANDING_DIR={landing} is inside DATA_DIR, where no raw id may lie.", "Put it elsewhere.")
    return landing


def readers_folder(settings: Settings) -> tuple[Path, int] | None:
    """MART_DIR, and the mode with which it is made if it is missing; None if it is not set.

    Raises BadSetting for one that lies inside a folder that is not for readers, or around one.
    """
    if settings.mart_dir is None:
        return None
    home = settings.dagster_home or settings.data_dir / "dagster_home"
    closed = {"DATA_DIR": settings.data_dir, "Dagster's home": home, "LANDING_DIR": settings.landing_dir}
    for name, folder in closed.items():
        if folder is not None:
            _require_beside(settings.mart_dir, name, folder)
    ledger = ledger_file(settings)
    if ledger and ledger.resolve().is_relative_to(settings.mart_dir.resolve()):
        raise BadSetting(
            f"MART_DIR={settings.mart_dir} holds the ledger ({ledger}), and readers are let into it.",
            "Set MART_DIR to a folder of its own, or leave it out.",
        )
    _require_writable(settings.mart_dir)
    return settings.mart_dir, _READERS_FOLDER


def _require_writable(mart: Path) -> None:
    """Before anything is published: it would be charged, and readers would have nothing."""
    try:
        there = next(place for place in (mart, *mart.absolute().parents) if place.exists())
        is_usable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError:
        is_usable = False
    if not is_usable:
        raise BadSetting(
            f"MART_DIR={mart}: nothing can be written there.",
            "Make the folder, for this user to write to, or name another.",
        )


def _require_beside(mart: Path, name: str, closed: Path) -> None:
    mine, theirs = mart.resolve(), closed.resolve()
    if mine.is_relative_to(theirs) or theirs.is_relative_to(mine):
        where = "is" if mine == theirs else "is inside" if mine.is_relative_to(theirs) else "contains"
        raise BadSetting(
            f"MART_DIR={mart} {where} {name} ({closed}), and readers are let into the one and not into the other.",
            "Set MART_DIR to a folder beside it, or leave it out.",
        )


def _closed(folder: Path) -> tuple[Path, int]:
    """A folder inside the data directory, and its mode; one that an older version made was open to others."""
    if folder.is_dir():
        folder.chmod(PRIVATE_FOLDER)
    return folder, PRIVATE_FOLDER


def ledger_url(settings: Settings) -> str:
    """Where the ledger of this data directory is, or will be."""
    return settings.ledger_url or f"{_SQLITE_FILE}{settings.data_dir.resolve()}/ledger.sqlite"


def ledger_file(settings: Settings) -> Path | None:
    """The file of a ledger on SQLite."""
    url = ledger_url(settings)
    return Path(url.removeprefix(_SQLITE_FILE)) if url.startswith(_SQLITE_FILE) else None


def _roots(settings: Settings) -> dict[str, Path]:
    """Where a key could be left: the data directory, and Dagster's home and the ledger's file if they lie elsewhere.

    Of MART_DIR the files that this project writes: readers may put theirs beside them, which are no business of ours.
    """
    url = ledger_url(settings)
    home = {} if settings.dagster_home is None else {"dagster_home": settings.dagster_home}
    apart = {**home, **_readers_files(settings)}
    if not url.startswith(_SQLITE_FILE):
        return {"": settings.data_dir, **apart}
    ledger = Path(url.removeprefix(_SQLITE_FILE))
    beside = {f"ledger{suffix}": ledger.with_name(ledger.name + suffix) for suffix in ("", "-wal", "-shm")}
    return {"": settings.data_dir, **apart, **beside}


def _readers_files(settings: Settings) -> dict[str, Path]:
    from resources.published.mart_duckdb import FILES
    from resources.published.report_html import READERS

    folder = settings.mart_dir
    return {} if folder is None else {f"mart/{name}": folder / name for name in (*FILES, READERS)}
