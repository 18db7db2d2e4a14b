"""DuckDB files, read-only and without a way to anything beside them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from threading import Timer

import duckdb
import pyarrow as pa

from dpdau_assets.core.errors import BadInput
from resources.arrow_arrays import arrow_batches
from resources.databases.addresses import Address
from resources.databases.snapshots import BATCH_ROWS, Query, Snapshot, failed, first_line, refused, too_slow, writes

_OF_THE_TEXT = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)


@contextmanager
def duckdb_snapshot(address: Address, query: Query) -> Iterator[Snapshot]:
    """The rows of a query of a file. Raises BadInput for a file that cannot be read."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "temp_directory": "",
    }
    try:
        connection = duckdb.connect(address.target, read_only=True, config=config)
    except duckdb.Error as error:
        is_held = "lock" in str(error)
        raise BadInput(
            f"{address} is open for writing elsewhere." if is_held else f"{address} cannot be opened by DuckDB.",
            "Close it there first, or hand in a copy." if is_held else "See that it is a DuckDB file of this version.",
        ) from None
    with closing(connection):
        connection.execute("SET enable_progress_bar = false").fetchall()
        connection.execute("BEGIN TRANSACTION").fetchall()
        yield _Rows(connection, query)


class _Rows:
    def __init__(self, connection: duckdb.DuckDBPyConnection, query: Query) -> None:
        self._connection = connection
        self._query = query

    def schema(self) -> pa.Schema:
        relation = self._relation()
        types = relation.limit(0).to_arrow_table().schema.types  # of a name that stands there twice it makes two
        return pa.schema(list(zip(relation.columns, types, strict=True)))

    def batches(self) -> Generator[pa.RecordBatch]:
        timer = Timer(self._query.seconds, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield from arrow_batches(self._relation(), BATCH_ROWS)
        except duckdb.InterruptException:
            raise too_slow(self._query) from None
        except duckdb.Error:
            raise too_slow(self._query) if timer.finished.is_set() else failed(self._query) from None
        finally:
            timer.cancel()

    def _relation(self) -> duckdb.DuckDBPyRelation:
        try:
            statements = duckdb.extract_statements(self._query.sql)
            if len(statements) != 1 or "SELECT" not in str(statements[0].type):
                raise writes(self._query)
            return self._connection.sql(self._query.sql)
        except _OF_THE_TEXT as error:
            raise refused(self._query, first_line(error)) from None
        except duckdb.Error:
            raise failed(self._query) from None
