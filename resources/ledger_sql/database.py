"""Opening the ledger's database so that its transactions are serial and what is deleted is overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text

from resources.ledger_sql.schema import metadata

_WAIT_SECONDS = 60


class Database:
    """One SQLite file, made at the first use. Give each process its own."""

    def __init__(self, url: str) -> None:
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # hide_parameters: an error must not quote what was bound, which may be a key or a noise value
        self._engine = create_engine(url, connect_args={"timeout": _WAIT_SECONDS}, hide_parameters=True)
        _make_serial(self._engine)
        with self.write() as connection:
            metadata.create_all(connection)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction at a time, across processes: committed at the end, rolled back on any error."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view that waits for nobody."""
        with self._engine.connect().execution_options(read_only=True) as connection:
            yield connection

    def empty_log(self) -> None:
        """Overwrite the write-ahead log, where what was deleted may still stand. Does nothing while others read."""
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()


def _make_serial(engine: Engine) -> None:
    """Take BEGIN out of the driver's hands: its deferred one lets two writers read the same balance."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.execute(text("BEGIN DEFERRED" if read_only else "BEGIN IMMEDIATE"))
