"""Files into the tables of one scan: each row judged once, '+' rows folded into bits, all others kept apart.

Tables afterwards: `users` (id, user_id), each distinct user of a '+' row once; `bits` (id, block, mask), the days of a
user in one block of 64; `odd` (file, line, code, user_id, day, listed, second), the bad rows, without content, and '-'
rows; `placed` (day, elsewhere, rows), the '+' rows in folders that are named after a day, and how many of them are of
another one.
"""

from __future__ import annotations

import glob
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection

from dpdau_assets.core.errors import BadInput, DpdauError
from dpdau_assets.core.events import DOUBTFUL, GIVEN, UNPARSABLE, Limits, day_of_folder
from dpdau_assets.core.ports.events import Tell
from resources.reading.event_files import COLUMNS, format_of, is_gzip, require_columns, unreadable
from resources.reading.event_sql import Types, json_rows, judged, require_types
from resources.reading.event_tables import event_tables, parquet_columns

BLOCK_DAYS = 64
"""Days are bits of one UBIGINT; block 0 begins on the first day that events may have."""

OUR_MISTAKES = (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException)
"""Errors that speak of a query, in which there is no data."""

_COMPACT_ABOVE = 4_000_000
_BROKEN, _DOUBTFUL = (GIVEN.index(reason) + 1 for reason in (UNPARSABLE, DOUBTFUL))
_NEAR, _WITHIN = 3, 25  # lines, blank ones too: from a removal to a piece; from one to both ends of what was cut
_NAMES_OF_DUCKDB = {"file_row_number", "file_index"}
_Files = Sequence[tuple[int, Path]]
_LOOK_SECONDS = 0.2  # between two looks at how far DuckDB is


@dataclass(frozen=True)
class Source:
    """Rows to judge: what follows FROM, the types of its columns, and the files (by their place) they come from."""

    table: str
    types: Types
    files: _Files
    is_direct: bool = False
    """Whether DuckDB opens the files itself."""


def read_files(connection: DuckDBPyConnection, files: Sequence[Path], limits: Limits, tell: Tell) -> int:
    """Fill the scan's tables and return the number of valid rows; `tell` hears which share of the bytes is read.

    Raises BadInput, that quotes nothing, for a file that cannot be read and for more users than memory holds.
    """
    share = _Share(connection, files, tell)
    reading = _Reading(connection, limits, list(enumerate(files)), share)
    for source in _sources(connection, list(enumerate(files)), share):
        reading.take(source)
    return reading.finish()


@contextmanager
def own_words(culprit: Callable[[], DpdauError]) -> Iterator[None]:
    """DuckDB's errors, which can quote rows, become ours: too little memory (BadInput), else what `culprit` makes."""
    try:
        yield
    except OUR_MISTAKES:
        raise
    except duckdb.OutOfMemoryException:
        raise BadInput(
            "These files name more people, or more bad rows, than fit into memory; nothing was taken.",
            "Hand in fewer files at a time (each file may be a part of a day), or allow more memory.",
        ) from None
    except duckdb.Error:
        raise culprit() from None


def failed() -> DpdauError:
    """Where no file can be at fault."""
    return DpdauError("DuckDB failed.", "Report it. Its own words are left out here: they can quote rows.")


def quiet(connection: DuckDBPyConnection) -> DuckDBPyConnection:
    """A connection without a progress bar on the terminal; each connection needs to be told."""
    return connection.execute("SET enable_progress_bar = false")


def watched(connection: DuckDBPyConnection) -> DuckDBPyConnection:
    """A connection that says how far a query is when it is asked, and prints nothing."""
    return connection.execute("SET enable_progress_bar_print = false").execute("SET enable_progress_bar = true")


class _Share:
    """Which share of the files' bytes is read, told while it grows."""

    def __init__(self, connection: DuckDBPyConnection, files: Sequence[Path], tell: Tell) -> None:
        self._connection = connection
        self._total = max(1, sum(_size(path) for path in files))
        self._tell = tell
        self._read = 0
        self._open: BinaryIO | None = None

    def follow(self, file: BinaryIO) -> None:
        """A file that is read here, piece by piece."""
        self._open = file

    def look(self) -> None:
        """Tell how far the followed file was read."""
        if self._open is not None and not self._open.closed:
            self._tell((self._read + self._open.tell()) / self._total)

    def done(self, path: Path) -> None:
        """Note that a file was read whole."""
        self._open = None
        self._read += _size(path)
        self._tell(self._read / self._total)

    @contextmanager
    def of_query(self, source: Source) -> Iterator[None]:
        """While DuckDB reads files by itself, what it says of how far it is."""
        size, over = sum(_size(path) for _, path in source.files), threading.Event()

        def watch() -> None:
            while not over.wait(_LOOK_SECONDS):
                known = max(0.0, self._connection.query_progress()) / 100
                self._tell((self._read + known * size) / self._total)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


class _Reading:
    """Judges one source after the other; the SQL of each pass is built for the types of the source's columns."""

    def __init__(self, connection: DuckDBPyConnection, limits: Limits, files: _Files, share: _Share) -> None:
        self._connection = connection
        self._limits = limits
        self._share = share
        self._compact_above = _COMPACT_ABOVE
        self._sources = 0
        self._run("CREATE TABLE masks (user_id VARCHAR, block USMALLINT, mask UBIGINT, times BIGINT)")
        self._run(
            """CREATE TABLE odd (file INT, line BIGINT, code UTINYINT, user_id VARCHAR, day DATE, listed DATE[],
                second BIGINT)"""
        )
        self._run("CREATE TABLE placed (day DATE, elsewhere BIGINT, rows BIGINT)")
        self._run("CREATE TABLE folders (file INT, day DATE)")
        self._csv = [place for place, path in files if format_of(path) == "csv"]
        self._places = {place: day for place, path in files if (day := day_of_folder(str(path.resolve())))}
        if self._places:
            self._connection.executemany("INSERT INTO folders VALUES (?, ?)", list(self._places.items()))

    def take(self, source: Source) -> None:
        """Judge all rows of a source. Files that DuckDB cannot read, or not in one pass, are read piece by piece."""
        with own_words(lambda: unreadable(source.files[-1][1])):
            if not source.is_direct:
                self._judge(source)
            elif not self._took_direct(source):
                self._take_apart(source)
            if self._count("SELECT count(*) FROM masks") > self._compact_above:
                self._compact()

    def _took_direct(self, source: Source) -> bool:
        """False, with nothing kept, for files of which DuckDB can read one or more not at all."""
        self._run("BEGIN TRANSACTION")
        try:
            with self._share.of_query(source):
                self._judge(source)
        except duckdb.Error as error:
            self._run("ROLLBACK")
            if isinstance(error, (*OUR_MISTAKES, duckdb.OutOfMemoryException)):
                raise
            return False
        self._run("COMMIT")
        for _, path in source.files:
            self._share.done(path)
        return True

    def _take_apart(self, source: Source) -> None:
        """The files one by one: those that DuckDB cannot read are read here, which tells single bad rows apart."""
        damaged = [file for file in source.files if not self._can_be_read(_parquet_source([file], source.types))]
        sound = [file for file in source.files if file not in damaged]
        if sound:
            self._judge(_parquet_source(sound, source.types))
        for place, path in damaged:
            for piece in _chunks(self._connection, place, path, self._share):
                self._judge(piece)

    def _can_be_read(self, source: Source) -> bool:
        rows = judged(source.table, source.types, self._limits)
        try:
            self._run(f"SELECT max(length(user_id)), max(code), max(len(listed)) FROM ({rows})")
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error:
            return False
        return True

    def _judge(self, source: Source) -> None:
        """A second pass, for what is not a valid '+' row, is made only if there is any."""
        rows = judged(source.table, source.types, self._limits)
        missing = self._count(f"SELECT count(*) FROM {source.table}") - self._fold_plus_rows(rows)
        missing -= self._keep_odd_rows(rows) if missing else 0
        if missing:
            raise _changed(source.files)
        if any(place in self._places for place, _ in source.files):
            self._compare_with_folders(rows)
        self._sources += 1

    def finish(self) -> int:
        """Give each distinct user an id. Returns the number of valid rows."""
        with own_words(failed):
            if self._sources > 1:
                self._compact()
            self._doubt_removals()
            valid = self._plus_rows() + self._count("SELECT count(*) FROM odd WHERE code = 0")
            self._run(
                """CREATE TABLE users AS SELECT row_number() OVER () - 1 AS id, user_id
                FROM (SELECT DISTINCT user_id FROM masks)"""
            )
            self._run("CREATE TABLE bits AS SELECT id, block, mask FROM masks JOIN users USING (user_id)")
            self._run("DROP TABLE masks")
        return valid

    def _fold_plus_rows(self, rows: str) -> int:
        before = self._plus_rows()
        self._run(
            f"""INSERT INTO masks
            SELECT user_id, n // {BLOCK_DAYS}, bit_or(1::UBIGINT << (n % {BLOCK_DAYS})::UBIGINT), count(*)
            FROM (SELECT user_id, day - DATE '{self._limits.first}' AS n FROM ({rows}) WHERE code = 0 AND op = '+')
            GROUP BY ALL"""
        )
        return self._plus_rows() - before

    def _keep_odd_rows(self, rows: str) -> int:
        """Bad rows lose what they hold here."""
        before = self._count("SELECT count(*) FROM odd")
        self._run(
            f"""INSERT INTO odd SELECT file, line, code, CASE WHEN code = 0 THEN user_id END,
                CASE WHEN code = 0 THEN day END, CASE WHEN code = 0 THEN listed END, CASE WHEN code = 0 THEN second END
            FROM ({rows}) WHERE code > 0 OR op = '-'"""
        )
        return self._count("SELECT count(*) FROM odd") - before

    def _doubt_removals(self) -> None:
        """Take '-' rows for bad that may be text of a row which fell to pieces: nobody may be erased by them.

        Such a row stands between two that cannot be parsed: the beginning of what line breaks have cut, and its end.
        Both may be one and the same in CSV, where the other piece can have as many fields as a row.
        """
        is_csv = f"list_contains({self._csv}::INT[], file)"
        broken = f"FILTER (code = {_BROKEN}) OVER (PARTITION BY file ORDER BY line ROWS BETWEEN"
        self._run(
            f"""UPDATE odd SET code = {_DOUBTFUL}, user_id = NULL, day = NULL, listed = NULL, second = NULL
            FROM (SELECT file, line, code, line - max(line) {broken} UNBOUNDED PRECEDING AND CURRENT ROW) AS since,
                    min(line) {broken} CURRENT ROW AND UNBOUNDED FOLLOWING) - line AS until
                FROM odd WHERE code IN (0, {_BROKEN})) AS found
            WHERE odd.code = 0 AND found.code = 0 AND odd.file = found.file AND odd.line = found.line
                AND (found.since <= {_WITHIN} AND found.until <= {_WITHIN}
                    OR {is_csv.replace("file)", "odd.file)")} AND least(found.since, found.until) <= {_NEAR})"""
        )

    def _compact(self) -> None:
        """Bring the rows of one user and block, from several sources, together."""
        self._run(
            """CREATE TABLE compacted AS
            SELECT user_id, block, bit_or(mask) AS mask, sum(times)::BIGINT AS times FROM masks GROUP BY ALL"""
        )
        self._run("DROP TABLE masks")
        self._run("ALTER TABLE compacted RENAME TO masks")
        self._compact_above = max(_COMPACT_ABOVE, 2 * self._count("SELECT count(*) FROM masks"))

    def _compare_with_folders(self, rows: str) -> None:
        self._run(
            f"""INSERT INTO placed SELECT folders.day, count(*) FILTER (judged.day <> folders.day), count(*)
            FROM ({rows}) AS judged JOIN folders USING (file) WHERE code = 0 AND op = '+' GROUP BY folders.day"""
        )

    def _plus_rows(self) -> int:
        return self._count("SELECT coalesce(sum(times), 0)::BIGINT FROM masks")

    def _count(self, query: str) -> int:
        [(count,)] = self._run(query)
        return count

    def _run(self, query: str) -> list[tuple]:
        return self._connection.execute(query).fetchall()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever reads it says why not
        return 0


def _sources(connection: DuckDBPyConnection, files: _Files, share: _Share) -> Iterator[Source]:
    """The sources of these files. A source made of chunks is gone when the next one is asked for."""
    direct: dict[tuple[tuple[str, str], ...], list[tuple[int, Path]]] = defaultdict(list)
    types_of: dict[tuple[tuple[str, str], ...], Types] = {}
    for place, path in files:
        types = _direct_types(connection, path)
        if types is None:
            yield from _chunks(connection, place, path, share)
        else:
            kind = tuple((name, str(types[name])) for name in types)
            direct[kind].append((place, path))
            types_of[kind] = types
    for kind, alike in direct.items():
        yield _parquet_source(alike, types_of[kind])


def _direct_types(connection: DuckDBPyConnection, path: Path) -> Types | None:
    """The event columns of a file that DuckDB reads by itself in parallel; None for any other file."""
    if format_of(path) != "parquet" or is_gzip(path):
        return None
    with own_words(lambda: unreadable(path)):
        columns = _types(connection, _read_parquet([path]))
    if _NAMES_OF_DUCKDB & set(columns):
        return None
    require_columns(parquet_columns(path), path)  # DuckDB gives one that stands twice another name
    require_types(columns, str(path))
    return {name: columns[name] for name in COLUMNS if name in columns}


def _parquet_source(files: _Files, types: Types) -> Source:
    places = [place for place, _ in files]
    columns = ", ".join(f'"{name}"' for name in types)
    rows = _read_parquet([path for _, path in files])
    return Source(
        f"(SELECT {places}[file_index::BIGINT + 1] AS file, file_row_number + 1 AS line, {columns} FROM {rows})",
        types,
        files,
        is_direct=True,
    )


def _read_parquet(paths: Sequence[Path]) -> str:
    """Absolute and escaped: a name is never taken for a pattern, a URL or a partition's value."""
    names = ", ".join("'" + glob.escape(str(path.resolve())).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{names}], hive_partitioning = false)"


def _chunks(connection: DuckDBPyConnection, place: int, path: Path, share: _Share) -> Iterator[Source]:
    """A file that is read here and handed over in pieces."""
    for table in event_tables(path, share.follow):
        rows = table.append_column("file", pa.repeat(pa.scalar(place, pa.int32()), len(table)))
        source = json_rows("chunk") if "raw" in table.column_names else "chunk"
        with own_words(lambda: unreadable(path)):
            connection.register("chunk", rows)
            types = _types(connection, source)
        require_types({name: types[name] for name in COLUMNS if name in types}, str(path))
        yield Source(source, types, [(place, path)])
        connection.unregister("chunk")
        share.look()
    share.done(path)


def _types(connection: DuckDBPyConnection, table: str) -> Types:
    try:
        relation = connection.sql(f"SELECT * FROM {table}")
        str(relation.types)
        return dict(zip(relation.columns, relation.types, strict=True))
    except (RuntimeError, UnicodeError):  # a name of a column, or of a field inside of one, that is no text
        raise duckdb.InvalidInputException from None


def _changed(files: _Files) -> BadInput:
    names = ", ".join(str(path) for _, path in files)
    return BadInput(f"Changed while it was read: {names}.", "Hand it in again when nothing writes to it any more.")
