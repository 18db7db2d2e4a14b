"""The databases of tests: closed when a test says so, and with statements that are compiled once for all of them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from resources.ledger_sql import database
from resources.store import open_store


@contextmanager
def closed_at_the_end() -> Iterator[None]:
    """Closes every store and database that is used meanwhile, as when a process ends: their files may then be copied,
    changed or removed.
    """
    engines: weakref.WeakSet[Engine] = weakref.WeakSet()

    def remember(connection: Connection) -> None:
        engines.add(connection.engine)

    event.listen(Engine, "engine_connect", remember)
    try:
        yield
    finally:
        event.remove(Engine, "engine_connect", remember)
        open_store.cache_clear()
        for engine in list(engines):
            engine.dispose()


class _AnySQLite(SQLiteDialect_pysqlite):
    """SQLAlchemy keeps compiled statements by dialect: those of one SQLite file are those of every other."""

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


@contextmanager
def statements_compiled_once() -> Iterator[None]:
    """A process opens one ledger and compiles each statement once; tests open thousands. They are the same statements,
    so what was compiled for one SQLite file serves the next: a sixth of the time of the suites that publish.
    """
    compiled: LRUCache[Any, Any] = LRUCache(5_000)

    def opened(url: URL, **options: Any) -> Engine:
        engine = create_engine(url, **options)
        if type(engine.dialect) is SQLiteDialect_pysqlite:
            engine.dialect.__class__ = _AnySQLite
            engine._compiled_cache = compiled  # the place that `query_cache_size` is about
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "create_engine", opened)
        yield
