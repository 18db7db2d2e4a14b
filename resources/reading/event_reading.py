"""Files into the tables of one scan: each row judged once, '+' rows folded into bits, all others kept apart.

Tables afterwards: `users` (id, user_id), each distinct user of a '+' row once; `bits` (id, block, mask), the days of a
user in one block of 64; `odd` (file, line, code, user_id, day, listed, second), the bad rows, without content, and '-'
rows; `placed` (day, elsewhere, rows), the '+' rows in folders that are named after a day, and how many of them are of
another one.

More people than fit into memory are read in parts, by a hash of their ids: each part reads the files again, and takes
its own people. The first part takes the odd rows, and counts everybody's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date

import duckdb
import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection
from duckdb.sqltypes import DuckDBPyType

from dpdau_assets.core.errors import BadInput, DpdauError
from dpdau_assets.core.event_shape import EventShape
from dpdau_assets.core.events import DOUBTFUL, GIVEN, UNPARSABLE, Limits, day_of_folder
from resources.arrow_arrays import arrow_batches, to_arrow, to_numpy
from resources.reading import csv_sources, event_query, json_sources, parquet_sources
from resources.reading.event_files import EventFile, as_bad_input, unreadable
from resources.reading.event_query import EventQuery, InputQuery, Readable
from resources.reading.event_sql import IDLE, Types, judged
from resources.reading.id_sql import normalized, teach_normalizing
from resources.reading.input_file import InputFile
from resources.reading.json_layout import ARRAY, LINES
from resources.reading.reading_progress import ReadingProgress
from resources.reading.row_ends import Unclear
from resources.reading.row_source import FILE, LINE, Files, Named, RowSource
from resources.reading.sql_text import identifier

BLOCK_DAYS = 64
"""Days are bits of one UBIGINT; block 0 begins on the first day that events may have."""

OUR_MISTAKES = (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException)
"""Errors that speak of a query, in which there is no data."""

_COMPACT_ABOVE = 4_000_000
_BROKEN, _DOUBTFUL = (GIVEN.index(reason) + 1 for reason in (UNPARSABLE, DOUBTFUL))
_NEAR, _WITHIN = 3, 25  # lines, blank ones too: from a removal to a piece; from one to both ends of what was cut
_IDLE, _ODD = 65_534, 65_535
"""In place of a block: rows that are no activity; rows that are bad, and '-' rows."""

_ROWS_AT_ONCE = 1 << 17
_BOOLEAN = DuckDBPyType("BOOLEAN")


@dataclass(frozen=True)
class Part:
    """Which people are read: those whose hash leaves this remainder."""

    number: int = 0
    parts: int = 1

    def holds(self, user_id: str) -> str:
        """Whether a user belongs to it, as SQL."""
        return "true" if self.parts == 1 else f"hash({user_id}) % {self.parts} = {self.number}"


class TooManyPeople(Exception):
    """They do not fit into memory at once."""


class _NotAsCounted(Exception):
    """DuckDB found another number of rows than stands there, or rows that only the exact reader may judge."""


@contextmanager
def own_words(culprit: Callable[[], DpdauError]) -> Iterator[None]:
    """DuckDB's errors, which can quote rows, become ours: TooManyPeople for too little memory, else what `culprit`
    makes.
    """
    try:
        yield
    except OUR_MISTAKES as error:
        raise _our_mistake(error) from None
    except duckdb.OutOfMemoryException:
        raise TooManyPeople from None
    except duckdb.Error:
        raise culprit() from None


def failed() -> DpdauError:
    """Where no file can be at fault."""
    return DpdauError("DuckDB failed.", "Report it. Its own words are left out here: they can quote rows.")


def _our_mistake(error: Exception) -> DpdauError:
    """A query of ours that DuckDB cannot make out: its words name columns, and where a header is missing these are
    people.
    """
    return DpdauError(
        f"DuckDB could not make out a query ({type(error).__name__}).", "Report it with the columns' names."
    )


def quiet(connection: DuckDBPyConnection) -> DuckDBPyConnection:
    """A connection without a progress bar on the terminal; each connection needs to be told."""
    return connection.execute("SET enable_progress_bar = false")


def watched(connection: DuckDBPyConnection) -> DuckDBPyConnection:
    """A connection that says how far a query is when it is asked, and prints nothing."""
    connection.execute("SET enable_progress_bar_print = false").fetchall()
    connection.execute("SET enable_progress_bar = true").fetchall()
    return connection


class Reading:
    """Reads files into the tables of a scan, one part of the people after the other.

    Each method raises BadInput, that quotes nothing, for a file that cannot be read, and TooManyPeople.
    """

    def __init__(
        self,
        connection: DuckDBPyConnection,
        files: Sequence[Readable],
        shape: EventShape,
        limits: Limits,
        share: ReadingProgress,
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._share = share
        self._inputs = [(place, _input(file, shape, connection)) for place, file in enumerate(files)]
        self._exactly: set[object] = set()  # what DuckDB was found not to read, by what it was
        self.part = Part()
        self._counts_people, self._people = False, 0
        self._stamps: list[tuple[int, int]] = []
        self._sources = 0
        self._compact_above = _COMPACT_ABOVE
        self._run(
            """CREATE TABLE odd (file INT, line BIGINT, code UTINYINT, user_id VARCHAR, day DATE, listed DATE[],
                second BIGINT)"""
        )
        self._run("CREATE TABLE placed (day DATE, elsewhere BIGINT, rows BIGINT)")
        self._run("CREATE TABLE folders (file INT, day DATE)")
        self._csv = [place for place, one in self._inputs if one.file.format == "csv"]
        teach_normalizing(connection, limits.normalize)
        self._places = {place: day for place, one in self._inputs if (day := _day_named(one.file))}
        if self._places:
            self._connection.executemany("INSERT INTO folders VALUES (?, ?)", list(self._places.items())).fetchall()

    def remarks(self) -> list[str]:
        """What was taken for granted of the files."""
        return [said for _, one in self._inputs for said in one.remarks()]

    def read(self, part: Part) -> None:
        """Fill `users` and `bits` with this part's people; with the first part also what is odd, and all counts."""
        self.part, self._sources = part, 0
        if self._is_first:
            self._stamps = self._stamped()
            self._run("DELETE FROM odd")
            self._run("DELETE FROM placed")
        self._require_unchanged()
        for table in ("users", "bits", "masks"):
            self._run(f"DROP TABLE IF EXISTS {table}")
        self._run("CREATE TABLE masks (user_id VARCHAR, block USMALLINT, mask UBIGINT, times BIGINT)")
        self._share.begin(part.number, part.parts)
        self._take_all()
        with own_words(failed):
            self._run("CREATE OR REPLACE TABLE others AS SELECT block, mask, times FROM masks WHERE user_id IS NULL")
            self._run("DELETE FROM masks WHERE user_id IS NULL")
            if self._sources > 1:
                self._compact()
            if self._is_first:
                self._run(
                    f"""CREATE OR REPLACE TABLE idle_rows AS
                    SELECT coalesce(sum(times), 0)::BIGINT AS idle FROM others WHERE block = {_IDLE}"""
                )
                self._doubt_removals()
                self._run(
                    f"""CREATE OR REPLACE TABLE counted AS
                    SELECT block, bit_or(mask) AS mask, sum(times)::BIGINT AS times
                    FROM (SELECT block, mask, times FROM masks UNION ALL FROM others WHERE block < {_IDLE})
                    GROUP BY block"""
                )
            self._require_unchanged()
            self._run("CREATE OR REPLACE TABLE mine AS SELECT coalesce(sum(times), 0)::BIGINT AS times FROM masks")
            self._name_users()

    def _require_unchanged(self) -> None:
        if self._stamped() != self._stamps:
            raise changed([one.file for _, one in self._inputs])

    def _stamped(self) -> list[tuple[int, int]]:
        """What tells that a file on this machine was written to; some are looked at twice, and must say one thing."""
        stats = []
        for _, one in self._inputs:
            if isinstance(one, InputQuery):  # its snapshot stays as it is
                continue
            with as_bad_input(one.file):
                stats.append(one.file.local.stat() if one.file.local else None)
        return [(stat.st_size, stat.st_mtime_ns) if stat else (0, 0) for stat in stats]

    def people(self) -> int:
        """About how many distinct people the files name, or more. Memory: next to none."""
        self._counts_people, self._people = True, 0
        self._take_all()
        self._counts_people = False
        return self._people

    @property
    def accepted(self) -> int:
        """Rows that passed every rule."""
        return self.plus_rows + self._count("SELECT count(*) FROM odd WHERE code = 0")

    @property
    def idle(self) -> int:
        """Rows that are no activity; after the first part."""
        return self._count("SELECT idle FROM idle_rows")

    @property
    def plus_rows(self) -> int:
        """How many of the accepted rows are '+'; after the first part."""
        return self._count("SELECT coalesce(sum(times), 0)::BIGINT FROM counted")

    @property
    def part_rows(self) -> int:
        """'+' rows of the people of this part."""
        return self._count("SELECT times FROM mine")

    # --- Which reader reads what ---------------------------------------------------------------------------------

    def _take_all(self) -> None:
        parquet = []
        for place, one in self._inputs:
            if isinstance(one, InputQuery):
                self._take_query(place, one)
            elif one.is_empty:
                self._share.done(one.file.size)
            elif one.file.format == "csv":
                self._take_csv(place, one)
            elif one.file.format == "json":
                self._take_json(place, one)
            elif one.is_read_by_duckdb:
                parquet.append((place, one))
            else:
                self._take(parquet_sources.exact(place, one, self._share.follow), one.file)
        for group in parquet_sources.direct_groups(parquet):
            self._take_parquet(group)

    def _take_query(self, place: int, one: InputQuery) -> None:
        with own_words(failed), closing(event_query.rows(place, one)) as sources:
            for source in sources:
                self._judge(source)
        self._share.done(one.file.size)

    def _take_parquet(self, files: parquet_sources.ParquetFiles) -> None:
        """Many files at once; if one of them cannot be read so, each by itself."""
        names = tuple(place for place, _ in files)
        if self._took(("parquet", names), lambda: iter([parquet_sources.direct(files)]), files):
            return
        for place, one in files if len(files) > 1 else ():
            self._take_parquet([(place, one)])
        if len(files) == 1:
            place, one = files[0]
            self._take(parquet_sources.exact(place, one, self._share.follow), one.file)

    def _take_csv(self, place: int, one: InputFile) -> None:
        files = [(place, one)]
        if not self._took(("csv", place), lambda: csv_sources.direct(place, one, self._share.follow), files):
            self._take(csv_sources.exact(place, one, self._share.follow), one.file)

    def _take_json(self, place: int, one: InputFile) -> None:
        files = [(place, one)]
        is_whole = one.layout == ARRAY or (one.layout == LINES and one.file.is_plain and not one.file.has_bom)
        if is_whole and self._took(("json", place), lambda: json_sources.direct(place, one), files):
            return
        if one.layout == LINES:
            with own_words(lambda: unreadable(one.file)):
                for piece in json_sources.pieces(place, one, self._share.follow):
                    self._take_json_piece(place, one, piece)
            self._share.done(one.file.size)
        else:
            self._take(json_sources.exact(place, one, self._share.follow), one.file)

    def _take_json_piece(self, place: int, one: InputFile, piece: json_sources.Piece) -> None:
        if not self._took(("json", place, piece.first_line), lambda: iter([piece.direct]), []):
            for source in json_sources.exact_piece(place, one, piece):
                self._judge(source)
        self._share.look()

    def _took(self, name: object, sources: Callable[[], Iterator[RowSource]], files: Files) -> bool:
        """Whether DuckDB could read these rows by itself; if not, nothing of them is kept, nor is it asked again."""
        if name in self._exactly:
            return False
        self._run("BEGIN TRANSACTION")
        try:
            for source in sources():
                with self._share.of_query(source.size, source.about_rows or source.rows or 0):
                    self._judge(source)
        except (Unclear, _NotAsCounted, duckdb.Error) as error:
            self._roll_back(files)
            if isinstance(error, OUR_MISTAKES):
                raise _our_mistake(error) from None
            if isinstance(error, duckdb.OutOfMemoryException):
                raise TooManyPeople from None
            self._exactly.add(name)
            return False
        except BaseException:
            self._roll_back(files)
            raise
        self._run("COMMIT")
        for _, one in files:
            self._share.done(one.file.size)
        return True

    def _roll_back(self, files: Files) -> None:
        """Raises BadInput where a damaged file has taken DuckDB's connection with it."""
        try:
            self._run("ROLLBACK")
        except duckdb.Error:
            names = ", ".join(one.file.name for _, one in files)
            raise BadInput(
                f"DuckDB broke down over what stands in {names or 'these files'}: one of them is damaged.",
                "Hand them in one by one, and write the one anew that is refused then; nothing was taken.",
            ) from None

    def _take(self, sources: Generator[RowSource], file: EventFile) -> None:
        """Rows that are read here, chunk by chunk."""
        with own_words(lambda: unreadable(file)), closing(sources):
            for source in sources:
                self._judge(source)
                self._share.look()
        self._share.done(file.size)

    # --- What is made of rows ------------------------------------------------------------------------------------

    def _judge(self, source: RowSource) -> None:
        """Fold a source's '+' rows; a second look, for all others, is taken only if there are any."""
        table, types = _fields_of(source)
        rows = judged(table, types, self._limits)
        if self._counts_people:
            self._people += self._count(f"SELECT approx_count_distinct(user_id) FROM ({rows}) WHERE code = 0")
            return
        self._require_no_breaks(source)
        if source.check is not None and self._count(source.check):
            raise _NotAsCounted
        before = self._folded()
        self._fold(rows)
        self._sources += 1
        read, odd = (now - then for now, then in zip(self._folded(), before, strict=True))
        self._share.took(read)
        if self._count("SELECT count(*) FROM masks") > self._compact_above:
            self._compact()
        if not self._is_first:
            return
        if source.rows not in (None, read):
            raise _NotAsCounted
        if odd:
            self._require_no_doubt(source)
            self._keep_odd_rows(source, rows, odd)
        if any(place in self._places for place, _ in source.files):
            self._compare_with_folders(rows)

    def _fold(self, rows: str) -> None:
        """Each user's days in a block are one row; the rows of others, and odd ones, are a row without a user."""
        is_plus, is_idle = "code = 0 AND op = '+'", f"code = {IDLE}"
        number = f"(day - DATE '{self._limits.first}')"
        mine = self.part.holds("user_id")
        others = "true" if self._is_first else f"{is_plus} AND {mine}"
        self._run(
            f"""INSERT INTO masks SELECT person, place, bit_or(bit), count(*) FROM (
                SELECT CASE WHEN is_plus AND {mine} THEN user_id END AS person,
                    CASE WHEN is_plus THEN number // {BLOCK_DAYS} WHEN {is_idle} THEN {_IDLE} ELSE {_ODD} END::USMALLINT
                        AS place,
                    CASE WHEN is_plus THEN 1::UBIGINT << (number % {BLOCK_DAYS})::UBIGINT ELSE 1 END AS bit
                FROM (SELECT *, {is_plus} AS is_plus, {number} AS number FROM ({rows})) WHERE {others})
            GROUP BY person, place"""
        )

    def _require_no_breaks(self, source: RowSource) -> None:
        """Raise _NotAsCounted if a field that says who, what or when has a line break in it: that may be damage."""
        if source.has_breaks:
            fields = [made.sql for name, made in source.fields.fields.items() if not name.startswith("metadata")]
            broken = " OR ".join(f"contains(({sql})::VARCHAR, chr(10))" for sql in fields)
            if self._count(f"SELECT count(*) FROM {source.table} WHERE {broken}"):
                raise _NotAsCounted

    def _require_no_doubt(self, source: RowSource) -> None:
        if source.doubt != "false" and self._count(f"SELECT count(*) FROM {source.table} WHERE {source.doubt}"):
            raise _NotAsCounted

    def _keep_odd_rows(self, source: RowSource, rows: str, count: int) -> None:
        """Bad rows lose what they hold here."""
        columns = ", ".join(
            f"CASE WHEN code = 0 THEN {name} END AS {name}" for name in ("user_id", "day", "listed", "second")
        )
        before = self._count("SELECT count(*) FROM odd")
        if source.lines_of is None:
            is_odd = f"code <> {IDLE} AND (code > 0 OR op = '-')"
            self._run(f"INSERT INTO odd SELECT file, line, code, {columns} FROM ({rows}) WHERE {is_odd}")
        else:
            is_removal = "coalesce(op = '-', false)::UTINYINT AS is_removal"
            query = f"SELECT * REPLACE (CASE WHEN code = {IDLE} THEN 0 ELSE code END::UTINYINT AS code) FROM ({rows})"
            self._keep_in_order(f"SELECT file, code, {is_removal}, {columns} FROM ({query})", source.lines_of)
        if self._count("SELECT count(*) FROM odd") - before != count:
            raise changed([one.file for _, one in source.files])

    def _keep_in_order(self, query: str, lines_of: Callable[[], Iterator[np.ndarray]]) -> None:
        """Rows come in the order in which they stand in the file, so that each finds its line."""
        found = _LineFinder(lines_of())
        with self._connection.cursor() as cursor:
            quiet(cursor).fetchall()
            cursor.execute("SET preserve_insertion_order = true").fetchall()
            for batch in arrow_batches(cursor.sql(query), _ROWS_AT_ONCE):
                codes, removals = (to_numpy(batch[name], np.uint8) for name in ("code", "is_removal"))
                places = np.flatnonzero(codes | removals)
                lines = to_arrow(found.lines(places, len(batch)), pa.int64())
                if not len(places):
                    continue
                odd = batch.take(to_arrow(places, pa.int64()))
                self._connection.register("odd_rows", pa.Table.from_batches([odd]).append_column("line", lines))
                self._run("INSERT INTO odd SELECT file, line, code, user_id, day, listed, second FROM odd_rows")
                self._connection.unregister("odd_rows")

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

    def _name_users(self) -> None:
        """Give each distinct user an id. Two spellings of one stay two users here, and get the same key."""
        self._run(
            """CREATE TABLE users AS SELECT row_number() OVER () - 1 AS id, user_id
            FROM (SELECT DISTINCT user_id FROM masks)"""
        )
        self._run("CREATE TABLE bits AS SELECT id, block, mask FROM masks JOIN users USING (user_id)")
        if self._limits.normalize:
            self._run(f"UPDATE users SET user_id = {normalized('user_id', self._limits.normalize)}")
        self._run("DROP TABLE masks")

    def _compare_with_folders(self, rows: str) -> None:
        self._run(
            f"""INSERT INTO placed SELECT folders.day, count(*) FILTER (judged.day <> folders.day), count(*)
            FROM ({rows}) AS judged JOIN folders USING (file) WHERE code = 0 AND op = '+' GROUP BY folders.day"""
        )

    @property
    def _is_first(self) -> bool:
        return self.part.number == 0

    def _folded(self) -> tuple[int, int]:
        """How many rows there were up to now, and how many of them are odd."""
        [counts] = self._run(
            f"""SELECT coalesce(sum(times), 0)::BIGINT,
                coalesce(sum(times) FILTER (user_id IS NULL AND block = {_ODD}), 0)::BIGINT FROM masks"""
        )
        return counts

    def _count(self, query: str) -> int:
        [(count,)] = self._run(query)
        return count

    def _run(self, query: str) -> list[tuple]:
        return self._connection.execute(query).fetchall()


class _LineFinder:
    """The lines in which rows begin, of rows that are asked for in order."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._lines = np.empty(0, dtype=np.int64)

    def lines(self, places: np.ndarray, rows: int) -> np.ndarray:
        """Lines of those among the next rows that stand at these places. Raises _NotAsCounted if there are fewer lines
        than rows.
        """
        while len(self._lines) < rows:
            block = next(self._blocks, None)
            if block is None:
                raise _NotAsCounted
            self._lines = np.concatenate((self._lines, block))
        found, self._lines = self._lines[places], self._lines[rows:]
        return found


def _fields_of(source: RowSource) -> tuple[str, Types]:
    """The fields of an event as columns, and their types."""
    fields = source.fields.fields
    columns = "".join(f", {made.sql} AS {identifier(name)}" for name, made in fields.items())
    types: dict[str, DuckDBPyType] = {name: made.type for name, made in fields.items()} | {"broken": _BOOLEAN}
    if source.fields.active is not None:
        columns, types["active"] = f"{columns}, {source.fields.active.sql} AS active", _BOOLEAN
    line = LINE if source.lines_of is None else "NULL::BIGINT"
    return f"(SELECT {FILE} AS file, {line} AS line, {source.broken} AS broken{columns} FROM {source.table})", types


def _input(file: Readable, shape: EventShape, connection: DuckDBPyConnection) -> InputFile | InputQuery:
    if isinstance(file, EventQuery):
        return InputQuery(file, shape, connection)
    return InputFile(file, shape, connection)


def _day_named(file: Readable) -> date | None:
    """The day that the nearest folder around a file is named after."""
    if isinstance(file, EventQuery):
        return None
    return day_of_folder(str(file.local.resolve())) if file.local else day_of_folder(file.name)


def changed(files: Sequence[Named]) -> BadInput:
    names = ", ".join(file.name for file in files)
    return BadInput(
        f"Changed while it was read: {names}; none of its '+' rows was taken.",
        "Hand it in again when nothing writes to it any more.",
    )
