"""Servers by their ADBC drivers: PostgreSQL in one repeatable-read transaction, others as their driver has it.

SQLSTATEs are those of PostgreSQL's manual, appendix A; other drivers use the same classes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from threading import Timer
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import adbc_driver_manager
import pyarrow as pa

from dpdau_assets.core.errors import BadInput, BadSetting, DpdauError
from resources.databases.addresses import Address
from resources.databases.snapshots import Query, Snapshot, failed, first_line, lost, no_rows, refused, too_slow, writes

_CONNECT_SECONDS = 15
_OF_THE_TEXT = "42"  # syntax errors, and names that are not there: what is quoted is the query
_READ_ONLY, _CANCELED, _NO_RIGHT = "25006", "57014", "42501"
_GONE = ("08", "57P")
_DENIED = ("password", "authentication", "no pg_hba.conf entry", 'role "', "permission")
_TIMED_OUT, _CLOSED = "statement timeout", ("server closed the connection", "terminating connection", "SSL SYSCALL")

_Fault = (adbc_driver_manager.Error, OSError, pa.ArrowException)


@contextmanager
def adbc_snapshot(address: Address, query: Query) -> Iterator[Snapshot]:
    """The rows of a query of a server. Raises BadInput where it does not answer, BadSetting where it lets nobody in."""
    driver = import_module(f"adbc_driver_{address.scheme}.dbapi")
    try:
        connection = driver.connect(_with_patience(address), autocommit=True)
    except _Fault as error:
        raise _not_let_in(address, error) from None
    with closing(_Closing(connection)), connection.cursor() as cursor:
        if address.scheme == "postgresql":
            _begin(cursor, query)
        yield _Rows(cursor, query, is_timed=address.scheme != "postgresql")


def _begin(cursor: Any, query: Query) -> None:
    """One snapshot for all passes. Read-only is the session too, for a query that ends its transaction."""
    try:
        for statement in (
            "SET default_transaction_read_only = on",
            f"SET statement_timeout = '{query.seconds}s'",
            "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
        ):
            cursor.execute(statement)
    except _Fault as error:
        raise _own_words(error, query) from None


class _Rows:
    """A query that is run anew for each pass, in the transaction of its connection."""

    def __init__(self, cursor: Any, query: Query, *, is_timed: bool) -> None:
        self._cursor = cursor
        self._query = query
        self._is_timed = is_timed
        self._is_late = False

    def schema(self) -> pa.Schema:
        try:
            schema = self._cursor.adbc_execute_schema(self._query.sql + "\n")
        except adbc_driver_manager.NotSupportedError:
            return self._read().schema
        except _Fault as error:
            raise _own_words(error, self._query) from None
        if not len(schema):
            raise no_rows(self._query)
        return schema

    def batches(self) -> Generator[pa.RecordBatch]:
        timer = Timer(self._query.seconds, self._stop)
        timer.daemon = True
        if self._is_timed:
            timer.start()
        try:
            yield from self._read()
        except _Fault as error:
            raise too_slow(self._query) if self._is_late else _own_words(error, self._query) from None
        finally:
            timer.cancel()

    def _read(self) -> pa.RecordBatchReader:
        try:
            self._cursor.execute(self._query.sql + "\n")  # a comment may be its end
            reader = self._cursor.fetch_record_batch()
        except _Fault as error:
            raise _own_words(error, self._query) from None
        if not len(reader.schema):
            raise no_rows(self._query)
        return reader

    def _stop(self) -> None:
        self._is_late = True
        with suppress(*_Fault):
            self._cursor.adbc_cancel()


class _Closing:
    """A connection that is closed whatever state an error has left it in."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def close(self) -> None:
        with suppress(*_Fault):
            self._connection.close()


def _with_patience(address: Address) -> str:
    """The URL; of PostgreSQL with how long a server may take to answer, where it says nothing of that."""
    url = urlsplit(address.target)
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if address.scheme != "postgresql":
        return address.target
    wanted = {"connect_timeout": str(_CONNECT_SECONDS), "application_name": "dpdau"}
    return url._replace(scheme="postgresql", query=urlencode(wanted | options, quote_via=quote)).geturl()


def _not_let_in(address: Address, error: BaseException) -> DpdauError:
    """The words of a connection's error name host, database and role; where a variable holds these, they stay out."""
    line = "" if address.shown.startswith("env:") else " " + first_line(error).partition("failed: ")[2]
    if any(words in str(error) for words in _DENIED):
        return BadSetting(
            f"{address} lets nobody in with this name and password.{line.rstrip()}",
            "Set PGPASSWORD, or write it into a pgpass file that only you can read; the role needs SELECT alone.",
        )
    return BadInput(
        f"{address} does not answer.{line.rstrip()}",
        "See that it runs and can be reached from here; nothing was taken.",
    )


def _own_words(error: BaseException, query: Query) -> BadInput:
    text, code = str(error), getattr(error, "sqlstate", None) or ""
    if code == _READ_ONLY:
        return writes(query)
    if code == _CANCELED or _TIMED_OUT in text:
        return too_slow(query)
    if code.startswith(_GONE) or any(words in text for words in _CLOSED):
        return lost(query)
    if code == _NO_RIGHT:
        return refused(query, "the role may not read all that it names.")
    if code.startswith(_OF_THE_TEXT):
        return refused(query, first_line(error).partition("ERROR:")[2].strip() or first_line(error))
    return failed(query, code or None)
