"""Dagster's event log in one SQLite file, over connections that are kept.

Dagster's own class opens the file anew for every statement, and compiles the statement again: most of what an event
costs. A process that was forked opens connections of its own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Connection, Engine, create_engine

from dpdau_assets.orchestration.private import ConsolidatedSqliteEventLogStorage

_WAIT_SECONDS = 60  # for another process's transaction, as long as Dagster waits


class EventLog(ConsolidatedSqliteEventLogStorage):
    """What `dagster.yaml` names as `event_log_storage`."""

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with _engine(self._conn_string, os.getpid()).connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        """Close what is open, at the end of the instance."""
        super().dispose()
        _engine(self._conn_string, os.getpid()).dispose()


@cache
def _engine(url: str, process: int) -> Engine:  # noqa: ARG001
    # As many at once as are asked for; a few are kept.
    return create_engine(url, connect_args={"timeout": _WAIT_SECONDS}, max_overflow=-1)
