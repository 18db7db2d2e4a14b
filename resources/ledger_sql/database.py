"""Opening the ledger's database so that its transactions are serial and what is deleted is overwritten.

Owns the rule: One transaction at a time, whole or not at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from dpdau_assets.core.errors import BadSetting
from resources.ledger_sql import schema
from resources.ledger_sql.keyring import Keyring, begin_anew
from resources.storage.durable import PRIVATE, create_missing, make_folder

_WAIT_SECONDS = 60
_ANOTHER_TRY_SECONDS = 0.01
UNKNOWN = "unknown"  # of a ledger that does not say which schema it has, as none that was released


class Database:
    """An SQLite file, made at the first use, or a schema of a PostgreSQL database. Give each process its own.

    Raises BadSetting for a ledger of another schema version.
    """

    def __init__(self, url: str, master_secret: str | None = None) -> None:
        self.keyring = Keyring(master_secret)
        self.engine = _engine(make_url(url))
        _close_to_others(self.engine.url)
        version = self.version()
        if version is None:
            self._create()
        elif version != schema.VERSION:
            raise BadSetting(*_other_version(version), found=version, needed=schema.VERSION)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction at a time, across processes: committed at the end, rolled back on any error."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view that waits for nobody."""
        with self.engine.connect().execution_options(read_only=True) as connection:
            yield connection

    def version(self) -> str | None:
        """The version of the schema that is there; None for an empty database."""
        return schema_version(self.engine)

    def overwrite_deleted(self, *tables: Table) -> None:
        """Leave nothing of rows that were deleted where the database keeps them; does nothing while others read."""
        overwrite_deleted(self.engine, tables)

    def _create(self) -> None:
        file = _file(self.engine.url)
        if file:
            make_folder(file.parent)
            create_missing(file)  # before SQLite does it by the umask; its -wal and -shm take the file's mode
        with self.write() as connection:
            if not inspect(connection).has_table(schema.version.name):  # another process may have made it since
                schema.metadata.create_all(connection)
                connection.execute(schema.version.insert().values(version_num=schema.VERSION))


def open_engine(url: str) -> Engine:
    """The database of this URL, whatever is in it."""
    return _engine(make_url(url))


def schema_version(engine: Engine) -> str | None:
    """The version of the schema there is; None for an empty database, and for a missing file, which is not made."""
    file = _file(engine.url)
    if file and not file.exists():
        return None
    with _answering(engine).execution_options(read_only=True) as connection:
        there = inspect(connection)
        if there.has_table(schema.version.name):
            return connection.scalar(select(schema.version.c.version_num))
        return UNKNOWN if there.has_table(schema.terms.name) else None


def _answering(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except OperationalError as error:
        where = f"{engine.url.host or ''}/{engine.url.database}"
        why = str(error.orig).strip().splitlines()[-1]
        raise BadSetting(f"The ledger at {where} does not answer: {why}", "Start it, or correct LEDGER_URL.") from None


def overwrite_deleted(engine: Engine, tables: Sequence[Table]) -> None:
    """SQLite has overwritten the rows themselves, so its log is left; PostgreSQL still has the rows."""
    if engine.dialect.name == "sqlite":
        statements = ["PRAGMA wal_checkpoint(TRUNCATE)"]
    else:
        statements = [f"VACUUM {table.name}" for table in tables]
    connection = engine.raw_connection()
    try:
        if engine.dialect.name == "postgresql":
            connection.driver_connection.autocommit = True  # type: ignore[union-attr]
        for statement in statements:
            connection.cursor().execute(statement)
    finally:
        if engine.dialect.name == "postgresql":
            connection.driver_connection.autocommit = False  # type: ignore[union-attr]
        connection.close()


def _engine(url: URL) -> Engine:
    # hide_parameters: an error must not quote what was bound, which may be a key or a noise value
    if url.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        engine = create_engine(url.set(drivername="postgresql+psycopg"), hide_parameters=True, pool_pre_ping=True)
        event.listen(engine, "begin", _begin_in_postgresql)
        return engine
    pool: dict[str, Any] = {} if _file(url) else {"poolclass": StaticPool}
    engine = create_engine(url, connect_args={"timeout": _WAIT_SECONDS}, hide_parameters=True, **pool)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_in_sqlite)
    return engine


def _file(url: URL) -> Path | None:
    """The file of an SQLite database that is not in memory."""
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(str(url.database)) if is_file else None


def _close_to_others(url: URL) -> None:
    """A ledger of an older version, or a copy that somebody put there, may be readable for all; it holds the noise."""
    file = _file(url)
    for path in [file.with_name(file.name + suffix) for suffix in ("", "-wal", "-shm")] if file else ():
        with suppress(FileNotFoundError, PermissionError):  # or another user's, who has let this one in
            if path.stat().st_mode & 0o077:
                path.chmod(PRIVATE)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Take BEGIN out of the driver's hands: its deferred one lets two writers read the same balance."""
    connection.isolation_level = None
    _write_ahead(connection)
    for pragma in ("synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: Any) -> None:
    """When processes open a new file at once, one changes its journal; SQLite has the others fail without a wait."""
    until = monotonic() + _WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if monotonic() > until:
                raise
            sleep(_ANOTHER_TRY_SECONDS)


def _begin_in_sqlite(connection: Connection) -> None:
    begin_anew(connection)
    connection.execute(text("BEGIN DEFERRED" if _is_read_only(connection) else "BEGIN IMMEDIATE"))


def _begin_in_postgresql(connection: Connection) -> None:
    """Writers queue for one lock of the schema; every statement after it sees all that was committed before."""
    begin_anew(connection)
    if _is_read_only(connection):
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    else:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('dpdau ledger'), hashtext(current_schema()))"))


def _is_read_only(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("read_only", False))


def _other_version(version: str) -> tuple[str, str]:
    reason = f"The ledger's schema is version {version}; this version of dpdau reads {schema.VERSION}."
    if version < schema.VERSION:
        return reason, "Stop everything that uses it, back it up, and run `dpdau migrate`."
    return reason, "Use the version of dpdau that wrote it, or a later one."
