"""A schema of its own on a real PostgreSQL server, for one test.

`python -m dpdau_tests.support.postgres` ends well where a server answers.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

_DEFAULT = "postgresql://postgres@127.0.0.1:5432/postgres"
_PATIENCE = "-clock_timeout=60s -cstatement_timeout=60s"  # a deadlock is an error, and no test hangs in it


@contextmanager
def schema_url() -> Iterator[str]:
    """URL of a new, empty schema, dropped in the end. Skips where no server answers; fails instead in CI."""
    server = _server()
    name = f"dpdau_{secrets.token_hex(8)}"
    try:
        _run(server, f"CREATE SCHEMA {name}")
    except OperationalError as error:
        reason = _unanswered(error)
        if os.environ.get("DPDAU_CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        url = server.update_query_dict({"options": f"-csearch_path={name} {_PATIENCE}"})
        yield url.set(drivername="postgresql").render_as_string(hide_password=False)
    finally:
        _run(server, f"DROP SCHEMA {name} CASCADE")


def _server() -> URL:
    return make_url(os.environ.get("DPDAU_TEST_POSTGRES", _DEFAULT)).set(drivername="postgresql+psycopg")


def _unanswered(error: OperationalError) -> str:
    return f"PostgreSQL does not answer (set DPDAU_TEST_POSTGRES): {str(error.orig).splitlines()[0]}"


def _run(server: URL, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


if __name__ == "__main__":
    try:
        _run(_server(), "SELECT 1")
    except OperationalError as error:
        sys.exit(_unanswered(error))
