"""Published numbers as tables that travel: CSV and an Arrow stream, in the mart's columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from dpdau_assets.core.reporting.as_json import columns_of
from dpdau_assets.core.restored import MartRow

COLUMNS = (
    "metric",
    "day",
    "window_days",
    "revision",
    "noisy_value",
    "estimate",
    "lower_95",
    "upper_95",
    "noisy_statistic",
    "half_width",
    "mechanism",
    "mechanism_run",
    "sketch_impl",
    "sketch_parameters",
    "privacy_unit",
    "published_at",
    "version",
)
"""The mart's, in their order; docs/data.md says what each one is."""

_DATES, _INTEGERS, _TIMES = {"day"}, {"window_days", "revision"}, {"published_at"}
_FLOATS = {"noisy_value", "estimate", "lower_95", "upper_95", "noisy_statistic", "half_width"}
_NULLABLE = {"upper_95"}  # where a sketch is full


def to_csv(rows: Sequence[MartRow]) -> bytes:
    """A header line and a line a row, in UTF-8: days and times as ISO 8601, nothing where there is no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_as_text(value) for value in _values(row)] for row in rows)
    return text.getvalue().encode()


def to_arrow(rows: Sequence[MartRow]) -> bytes:
    """An Arrow IPC stream of one table: date32, int32, float64, timestamp in UTC, and text; one batch, or none."""
    import pyarrow as pa  # half a second, for who asks for it

    kinds = {
        **dict.fromkeys(COLUMNS, pa.string()),
        **dict.fromkeys(_DATES, pa.date32()),
        **dict.fromkeys(_INTEGERS, pa.int32()),
        **dict.fromkeys(_FLOATS, pa.float64()),
        **dict.fromkeys(_TIMES, pa.timestamp("us", "UTC")),
    }
    schema = pa.schema([pa.field(name, kind, nullable=name in _NULLABLE) for name, kind in kinds.items()])
    by_row = [dict(zip(COLUMNS, map(_in_utc, _values(row)), strict=True)) for row in rows]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_table(pa.Table.from_pylist(by_row, schema))
    return sink.getvalue().to_pybytes()


def _values(row: MartRow) -> list[Any]:
    """In the order of COLUMNS; parameters as JSON."""
    columns = columns_of(row)
    columns["sketch_parameters"] = json.dumps(columns["sketch_parameters"], sort_keys=True)
    return [columns[name] for name in COLUMNS]


def _as_text(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value


def _in_utc(value: object) -> object:
    return value.astimezone(UTC) if isinstance(value, datetime) else value
