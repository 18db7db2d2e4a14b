"""Damaged files of every format: each is taken or refused, and nobody is erased who did not ask.

Most are read row by row, by DuckDB's readers and by the exact ones, which must find the same rows: that takes a
hundredth of what it takes to judge and keep them. A part goes the whole way into a store. `make test` has 300 of
them, CI 7,000, and a soak more than 100,000.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.event_shape import PLAIN
from dpdau_assets.core.events import UNPARSABLE
from dpdau_assets.core.identity import user_key
from dpdau_tests.cli.conftest import Dpdau
from dpdau_tests.conftest import opened
from dpdau_tests.support.connections import closed_at_the_end
from dpdau_tests.support.damaged_files import BAIT, Damaged, damaged, damaged_around_bait
from dpdau_tests.support.fast_folder import IN_MEMORY, has_room
from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.slow_reading import asked_in_csv, asked_in_json, asked_in_parquet, unpacked
from resources.reading import csv_sources, json_sources, parquet_sources
from resources.reading.event_files import MAX_LINE_BYTES, event_file
from resources.reading.event_sql import id_text
from resources.reading.input_file import InputFile
from resources.reading.json_layout import ARRAY, LINES
from resources.reading.row_ends import Unclear
from resources.reading.row_source import LINE, RowSource

FIRST, TODAY = date(2025, 1, 1), date(2025, 3, 1)
DAMAGE = (duckdb.Error,)
"""What the engine makes BadInput of."""
Keys = Mapping[int, int]
Values = Mapping[str, str | None]
LENIENTLY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
)


@dataclass(frozen=True)
class Read:
    """A row as a reader gives it: the line in which it begins, and its fields as text; None if it is broken."""

    line: int
    fields: Values | None


class NotReadSo(Exception):
    """DuckDB does not read these bytes, or its rows may not be trusted."""


class Database:
    """DuckDB in memory, opened anew where a damaged file has made it give up."""

    def __init__(self) -> None:
        self._connection: DuckDBPyConnection | None = None

    def connection(self) -> DuckDBPyConnection:
        try:
            if self._connection is not None:
                self._connection.execute("SELECT 1").fetchall()
                return self._connection
        except duckdb.FatalException:
            pass
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": "500MB",
            "threads": 1,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._connection = duckdb.connect(":memory:", config=config)
        self._connection.execute("SET enable_progress_bar = false").fetchall()
        return self._connection


@pytest.fixture(scope="module")
def database() -> Database:
    return Database()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory(dir=IN_MEMORY if has_room() else None) as path:
        yield Path(path)


def put(folder: Path, file: Damaged) -> Path:
    path = folder / file.name
    path.write_bytes(file.stored)
    return path


def rows_of(source: RowSource, connection: DuckDBPyConnection) -> list[Read]:
    """All of its rows, in order. Raises NotReadSo where the engine would take none of them as they are."""
    fields = source.fields.fields
    texts = [
        id_text(made.sql, made.type) if name == "user_id" else f"({made.sql})::VARCHAR" for name, made in fields.items()
    ]
    line = LINE if source.lines_of is None else "NULL"
    if source.check is not None and connection.execute(source.check).fetchall() != [(0,)]:
        raise NotReadSo
    found = connection.execute(
        f"SELECT {', '.join([line, source.broken, source.doubt, *texts])} FROM {source.table}"
    ).fetchall()
    lines = [row[0] for row in found]
    if source.lines_of is not None:
        lines = _lines_of(source, len(found))
    named: list[dict[str, str | None]] = [dict(zip(map(str, fields), row[3:], strict=True)) for row in found]
    if source.rows not in (None, len(found)) or any(row[2] for row in found):
        raise NotReadSo
    if source.has_breaks and any("\n" in (row[name] or "") for row in named for name in row if "metadata" not in name):
        raise NotReadSo
    return [Read(line, None if row[1] else values) for line, row, values in zip(lines, found, named, strict=True)]


def _lines_of(source: RowSource, count: int) -> list[int]:
    assert source.lines_of is not None
    lines: list[int] = []
    blocks: Iterator[np.ndarray] = source.lines_of()
    while len(lines) < count:
        block = next(blocks, None)
        if block is None:
            raise NotReadSo
        lines += block.tolist()
    return lines[:count]


def by_duckdb(one: InputFile) -> list[Read] | None:
    """The rows as DuckDB's reader finds them; None where the exact reader is asked instead."""
    try:
        return [row for source in _direct(one) for row in rows_of(source, one.connection)]
    except (Unclear, NotReadSo, duckdb.Error):
        return None


def _direct(one: InputFile) -> Iterator[RowSource]:
    if one.file.format == "csv":
        yield from csv_sources.direct(0, one)
    elif one.file.format == "parquet":
        if not one.is_read_by_duckdb:
            raise Unclear
        yield parquet_sources.direct([(0, one)])
    elif one.layout == ARRAY or (one.layout == LINES and one.file.is_plain and not one.file.has_bom):
        yield from json_sources.direct(0, one)
    elif one.layout == LINES:
        yield from (piece.direct for piece in json_sources.pieces(0, one))
    else:
        raise Unclear


def exactly(one: InputFile) -> list[Read]:
    """The rows as the exact reader finds them."""
    exact = {"csv": csv_sources.exact, "json": json_sources.exact, "parquet": parquet_sources.exact}[one.file.format]
    return [row for source in exact(0, one) for row in rows_of(source, one.connection)]


def asked_in(file: Damaged, looked_for: Collection[str | None]) -> set[str]:
    """Whom a slow reading finds beside a '-'; it may end with those who are looked for."""
    content = unpacked(file.stored)
    if content is None:
        return set()
    if file.sound.format == "parquet":
        return asked_in_parquet(content, looked_for)
    return asked_in_csv(content) if file.sound.format == "csv" else asked_in_json(content)


def hold_readers_to_each_other(file: Damaged, folder: Path, database: Database) -> None:
    """Both readers find the same rows, or both refuse; a '-' stands beside no id that a slow reading does not find."""
    one = InputFile(event_file(put(folder, file)), PLAIN, database.connection())
    fast = exact = None
    with suppress(BadInput):
        fast = [] if one.is_empty else by_duckdb(one)
    with suppress(BadInput):
        exact = [] if one.is_empty else exactly(one)
    if fast is not None and not _has_too_long_lines(file):
        assert fast == exact
    removed = {row.fields["user_id"] for row in exact or () if row.fields and _is_removal(row.fields)} - {None, ""}
    assert not removed or removed <= asked_in(file, removed)


def _has_too_long_lines(file: Damaged) -> bool:
    """Whether a line of JSON is longer than the exact reader takes: DuckDB takes it as long as none is damaged."""
    lines = (unpacked(file.stored) or b"").split(b"\n") if file.sound.format == "json" else []
    return any(len(line) > MAX_LINE_BYTES for line in lines)


def _is_removal(fields: Values) -> bool:
    return fields.get("op") in ("-", '"-"')


@pytest.mark.also_long(weight=3)
@settings(LENIENTLY, max_examples=at_length(test=150, ci=3_000, soak=45_000))
@given(file=damaged("csv"))
def test_of_a_damaged_csv_duckdb_finds_the_rows_that_the_exact_reader_finds(
    file: Damaged, folder: Path, database: Database
) -> None:
    hold_readers_to_each_other(file, folder, database)


@pytest.mark.also_long(weight=3)
@settings(LENIENTLY, max_examples=at_length(test=50, ci=2_000, soak=30_000))
@given(file=damaged("json"))
def test_of_damaged_json_duckdb_finds_the_rows_that_the_exact_reader_finds(
    file: Damaged, folder: Path, database: Database
) -> None:
    hold_readers_to_each_other(file, folder, database)


@pytest.mark.also_long(weight=2)
@settings(LENIENTLY, max_examples=at_length(test=100, ci=2_000, soak=30_000))
@given(file=damaged("parquet"))
def test_damaged_parquet_is_read_or_refused_and_no_text_of_it_becomes_a_removal(
    file: Damaged, folder: Path, database: Database
) -> None:
    one = InputFile(event_file(put(folder, file)), PLAIN, database.connection())
    removed: set[str | None] = set()
    for read in (by_duckdb, exactly):
        with suppress(BadInput, *DAMAGE):
            rows = [] if one.is_empty else read(one) or []
            removed |= {row.fields["user_id"] for row in rows if row.fields and _is_removal(row.fields)}
    removed -= {None, ""}
    assert not removed or removed <= asked_in(file, removed)


# --- The whole way ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """A store that damaged files are handed in to, one after the other, by whole commands."""

    dpdau: Dpdau

    def hand_in(self, file: Damaged, *, partial: bool) -> None:
        """Ends with 0, 4 or 5. If not with 0, nothing is kept but quarantine; nobody is erased who did not ask."""
        put(self.dpdau.folder, file)
        kept, asked = self.kept(), self.asked()
        answer = self.dpdau("ingest", "--from", file.name, *["--partial"] * partial)
        assert answer.code in (0, 4, 5), answer.said
        assert BAIT not in answer.said
        new = {receipt: keys for receipt, keys in self.asked().items() if receipt not in asked}
        if answer.code:
            assert self.kept() == kept and not new
        else:
            self.require_asked(file, new, is_whole=UNPARSABLE not in answer.json["rejected_by_reason"])

    def require_asked(self, file: Damaged, new: Mapping[str, Keys], *, is_whole: bool) -> None:
        """Each new request has the keys of an id that asks for it; of the bait only if each line is of a sound row."""
        ids = asked_in(file, [BAIT]) - (set() if is_whole else {BAIT})
        with closed_at_the_end():
            salts = opened(self.dpdau.folder / "data", TODAY, start_date=FIRST).state.salts
            secrets = salts.epoch_keys({epoch for keys in new.values() for epoch in keys})
        for keys in new.values():
            assert not keys or [
                user_id
                for user_id in ids
                if keys == {epoch: user_key(secrets[epoch].secret, user_id) for epoch in keys}
            ]

    def kept(self) -> dict[Path, bytes]:
        """All that lies in DATA_DIR, without the quarantine."""
        data = self.dpdau.folder / "data"
        files = [path for path in data.rglob("*") if path.is_file() and "quarantine" not in str(path.relative_to(data))]
        return {path: path.read_bytes() for path in files}

    def asked(self) -> dict[str, Keys]:
        """The keys of every erasure request, by its receipt."""
        with closed_at_the_end():
            ledger = opened(self.dpdau.folder / "data", TODAY, start_date=FIRST).erasures.ledger
            receipts = [erasure.receipt for erasure in ledger.erasures()]
            keys = ledger.keys_of(receipts)
        return {receipt: keys.get(receipt, {}) for receipt in receipts}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    dpdau = Dpdau(tmp_path, START_DATE=str(FIRST))
    (tmp_path / "first.csv").write_text("user_id,op,day\nann,+,2025-02-01\nbob,-,2025-02-01\n")
    assert dpdau("ingest", "--from", "first.csv").code == 0
    return Store(dpdau)


@pytest.mark.also_long(weight=4)
@settings(LENIENTLY, max_examples=at_length(test=5, ci=150, soak=3_000))
@given(file=damaged("csv") | damaged("json") | damaged("parquet") | damaged_around_bait(), partial=st.booleans())
def test_a_damaged_file_is_taken_or_refused_whole_and_erases_nobody_who_did_not_ask(
    file: Damaged, partial: bool, store: Store
) -> None:
    store.hand_in(file, partial=partial)
