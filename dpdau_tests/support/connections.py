"""Databases that are closed when a test says so, and not when Python finds the time."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, event

from resources.store import open_store


@contextmanager
def closed_at_the_end() -> Iterator[None]:
    """Every store and database that is used meanwhile, as when a process ends: their files may then be copied, changed
    or removed.
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
