"""Opening a store: every adapter on one data directory, put together as what core calls `Outside`."""

from __future__ import annotations

from datetime import date, datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.windows import first_window_end
from resources.engine_duckdb import DuckDBEngine
from resources.file_lock import FileLock
from resources.inbox_files import FileInbox, FileQuarantine
from resources.landing_files import LandingFiles
from resources.ledger_sql.completions import SqlCompletions
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasures import SqlErasures
from resources.ledger_sql.ledger import SqlLedger
from resources.ledger_sql.rebuilds import SqlRebuilds
from resources.ledger_sql.receipts import SqlReceipts
from resources.ledger_sql.salts import SqlSalts
from resources.mart_duckdb import MartFiles
from resources.noise_opendp import OpenDPNoise
from resources.premises_files import FilePremises
from resources.report_html import ReportFiles
from resources.sketch_files import SketchFiles
from resources.state_files import StateFiles

_SQLITE_FILE = "sqlite:///"


class SystemClock:
    """The port Clock."""

    def __init__(self, timezone: str) -> None:
        self._zone = ZoneInfo(timezone)

    def today(self) -> date:
        return datetime.now(self._zone).date()


@cache
def open_store(settings: Settings) -> Outside:
    """Every adapter on this data directory, made if it is not there. Raises BadSetting for another store's terms."""
    return store_on(open_ledger(settings), settings)


def open_ledger(settings: Settings) -> Database:
    """The ledger's database, with the data directory that it belongs to."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    settings.data_dir.chmod(0o700)  # also one that was there before: it holds keys, exact state and noise
    return Database(ledger_url(settings), settings.hash_salt_secret)


def store_on(database: Database, settings: Settings) -> Outside:
    """The same store with this ledger. Raises BadSetting if that is of another store."""
    ledger = SqlLedger(database)
    ledger.fix_terms(settings.terms_of_store())
    salts = SqlSalts(database)
    lock = FileLock(settings.data_dir / "state.lock")
    return Outside(
        settings=settings,
        clock=SystemClock(settings.timezone),
        engine=DuckDBEngine(settings.timezone),
        quarantine=FileQuarantine(settings.data_dir),
        salts=salts,
        inbox=FileInbox(settings.data_dir),
        activity=StateFiles(settings.data_dir / "activity", salts, lock, keep_empty=True),
        late=StateFiles(settings.data_dir / "late", salts, lock, keep_empty=False),
        sketches=SketchFiles(settings.data_dir / "sketches"),
        ledger=ledger,
        erasures=SqlErasures(database, salts, first_window_end(settings.start_date, settings.mau_window_days)),
        rebuilds=SqlRebuilds(database),
        completions=SqlCompletions(database),
        landing=LandingFiles(_apart(settings.landing_dir, settings)),
        receipts=SqlReceipts(database),
        premises=FilePremises(_roots(settings)),
        noise=OpenDPNoise(),
    )


def _apart(landing: Path | None, settings: Settings) -> Path | None:
    """Raises BadSetting for a folder in which event files, with raw ids, would lie among what is kept without them."""
    if landing is not None and landing.resolve().is_relative_to(settings.data_dir.resolve()):
        raise BadSetting(f"LANDING_DIR={landing} is inside DATA_DIR, where no raw id may lie.", "Put it elsewhere.")
    return landing


def ledger_url(settings: Settings) -> str:
    """Where the ledger of this data directory is, or will be."""
    return settings.ledger_url or f"{_SQLITE_FILE}{settings.data_dir.resolve()}/ledger.sqlite"


def _roots(settings: Settings) -> dict[str, Path]:
    """Where a key could be left: the data directory, and Dagster's home and the ledger's file if they lie elsewhere."""
    url = ledger_url(settings)
    home = {} if settings.dagster_home is None else {"dagster_home": settings.dagster_home}
    if not url.startswith(_SQLITE_FILE):
        return {"": settings.data_dir, **home}
    ledger = Path(url.removeprefix(_SQLITE_FILE))
    beside = {f"ledger{suffix}": ledger.with_name(ledger.name + suffix) for suffix in ("", "-wal", "-shm")}
    return {"": settings.data_dir, **home, **beside}


def open_mart(settings: Settings) -> MartFiles:
    """The mart of this data directory."""
    return MartFiles(settings.data_dir / "mart")


def open_reports(settings: Settings) -> ReportFiles:
    """The reports of this data directory."""
    return ReportFiles(settings.data_dir / "report")
