"""Rows of Parquet: many files at once where DuckDB opens them itself, else a chunk at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence

from resources.reading.event_files import Follow, nobody
from resources.reading.event_tables import parquet_tables
from resources.reading.input_file import InputFile, read_parquet
from resources.reading.row_source import BROKEN, CHUNK, FILE, LINE, RowSource, chunk_of
from resources.reading.sql_text import identifier

ParquetFiles = Sequence[tuple[int, InputFile]]


def direct_groups(files: ParquetFiles) -> Iterator[ParquetFiles]:
    """Files that DuckDB can read together, since their fields are made alike."""
    alike: dict[str, list[tuple[int, InputFile]]] = defaultdict(list)
    for place, one in files:
        fields = one.fields
        alike[repr((fields.needed, fields.fields, fields.active, sorted(one.utc_columns)))].append((place, one))
    yield from alike.values()


def direct(files: ParquetFiles) -> RowSource:
    """Rows of files whose fields are made alike, read by DuckDB."""
    first = files[0][1]
    places = [place for place, _ in files]
    table = (
        f"(SELECT {places}[file_index::BIGINT + 1] AS {FILE}, file_row_number + 1 AS {LINE}{_columns(first)} "
        f"FROM {read_parquet([one for _, one in files])})"
    )
    size, rows = sum(one.file.size for _, one in files), sum(one.rows_in_footer for _, one in files)
    return RowSource(table, files, first.fields, about_rows=rows, size=size)


def exact(place: int, one: InputFile, follow: Follow = nobody) -> Generator[RowSource]:
    """Rows of a file that is read here; each chunk is gone when the next one is asked for."""
    for table in parquet_tables(one.file, list(one.fields.needed), follow):
        with chunk_of(one.connection, table):
            columns = _columns(one, numbered=True)
            rows = f"(SELECT {place} AS {FILE}, line AS {LINE}, broken AS {BROKEN}{columns} FROM {CHUNK})"
            yield RowSource(rows, [(place, one)], one.fields, broken=BROKEN)


def _columns(one: InputFile, *, numbered: bool = False) -> str:
    """The columns that are needed; times of the type INT96 as the moments that they are."""
    columns = ""
    for place, name in enumerate(one.fields.needed):
        column = f"c{place}" if numbered else identifier(name)
        value = column
        if name in one.utc_columns:  # Arrow's are of nanoseconds, which a cast would round up into the next day
            value = f"timezone('UTC', {f'make_timestamp(epoch_ns({column}) // 1000)' if numbered else column})"
        columns += f", {value} AS {identifier(name)}"
    return columns
