"""Rows as CSV and as an Arrow stream: the mart's columns, with their types."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa

from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.restored import MartRow
from resources.published import row_formats
from resources.published.mart_duckdb import COLUMNS
from resources.published.row_formats import to_arrow, to_csv

ROW = MartRow(
    key=ReleaseKey("dau", 1, date(2025, 1, 31)),
    noisy_value=-8.25,
    estimate=0.0,
    lower_95=0.0,
    upper_95=5.25,
    noisy_statistic=-8.25,
    half_width=13.5,
    mechanism="gaussian_shared",
    mechanism_run="a, run",
    parameters={"sketch_impl": "theta", "theta0": "1/2"},
    published_at=datetime(2025, 2, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    version="1",
)


def test_arrow_has_the_columns_and_the_types_of_the_mart_and_null_where_a_sketch_is_full() -> None:
    table = pa.ipc.open_stream(to_arrow([ROW, replace(ROW, upper_95=None)])).read_all()
    kinds = {"VARCHAR": pa.string(), "DATE": pa.date32(), "INTEGER": pa.int32(), "DOUBLE": pa.float64()}
    kinds["TIMESTAMPTZ"] = pa.timestamp("us", "UTC")
    assert {field.name: field.type for field in table.schema} == {name: kinds[kind] for name, kind in COLUMNS.items()}
    assert table.column_names == list(COLUMNS) == list(row_formats.COLUMNS)
    assert [field.name for field in table.schema if field.nullable] == ["upper_95"]
    first, second = table.to_pylist()
    assert (first["upper_95"], second["upper_95"]) == (5.25, None)
    assert first["published_at"] == datetime(2025, 2, 1, 18, 30, tzinfo=UTC) and first["day"] == date(2025, 1, 31)


def test_a_csv_has_a_header_and_a_line_a_row_that_every_reader_of_csv_takes_apart_again() -> None:
    text = to_csv([ROW, replace(ROW, upper_95=None)]).decode()
    first, second = csv.DictReader(io.StringIO(text))
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert (first["mechanism_run"], first["sketch_parameters"]) == ("a, run", '{"theta0": 0.5}')
    assert (first["noisy_value"], first["upper_95"], second["upper_95"]) == ("-8.25", "5.25", "")
    assert (first["day"], first["published_at"]) == ("2025-01-31", "2025-02-02T00:00:00+05:30")


def test_no_rows_are_a_header_and_a_table_with_types() -> None:
    assert to_csv([]).decode() == ",".join(COLUMNS) + "\n"
    table = pa.ipc.open_stream(to_arrow([])).read_all()
    assert table.num_rows == 0 and table.column_names == list(COLUMNS)
