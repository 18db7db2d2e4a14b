"""The published numbers as frames: typed, the mart's own, and refused where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.reporting.answers import mart_rows
from dpdau_assets.core.restored import MartRow
from dpdau_tests.conftest import SKETCHES, prepare
from resources.published.frames import read_mart, series
from resources.published.mart_duckdb import COLUMNS, MartFiles

DAYS = days_between(date(2025, 1, 29), date(2025, 2, 3))


@pytest.fixture
def rows(make_store: Callable[..., Store]) -> list[MartRow]:
    """DAU of six days, of which January's are restated, and one MAU."""
    store = make_store(today=date(2025, 2, 10))
    prepare(store, days_between(date(2025, 1, 1), DAYS[-1]))
    for day in DAYS:
        publish("dau", day, store)
    publish("mau", DAYS[1], store)
    restate(date(2025, 1, 1), store)
    return mart_rows(store.accountant)


def test_the_frame_has_a_row_a_number_under_the_marts_own_columns_with_their_types(
    rows: list[MartRow], tmp_path: Path
) -> None:
    rows = [replace(rows[0], upper_95=None), *rows[1:]]
    MartFiles(tmp_path / "mart").replace(rows)
    mart = read_mart(tmp_path / "mart")
    assert list(mart.columns) == list(COLUMNS) and len(mart) == len(rows) == 6 + 3 + 1
    kinds = {name: str(kind) for name, kind in mart.dtypes.items()}
    assert kinds["metric"] == kinds["mechanism"] == kinds["mechanism_run"] == "category"
    assert kinds["day"] == "datetime64[s]" and kinds["published_at"] == "datetime64[s, UTC]"
    assert {kinds[name] for name, kind in COLUMNS.items() if kind == "DOUBLE"} == {"float64"}
    assert list(mart["day"].dt.date) == [row.key.day for row in rows]
    assert list(mart["noisy_value"]) == [row.noisy_value for row in rows]
    assert list(mart["half_width"]) == [row.half_width for row in rows]
    assert list(mart["upper_95"].isna()) == [True] + [False] * 9
    assert list(mart["published_at"]) == [pd.Timestamp(row.published_at) for row in rows]
    with duckdb.connect(tmp_path / "mart" / "active_users.duckdb", read_only=True) as database:
        names = [name for name in COLUMNS if name not in ("day", "published_at")]
        table = database.sql(f"SELECT {', '.join(names)} FROM active_users ORDER BY metric, window_days, day, revision")
        shown = mart[names].astype(object).where(mart[names].notna(), None)
        assert table.fetchall() == list(shown.itertuples(index=False, name=None))


def test_the_series_of_a_metric_has_one_number_a_day_the_latest_or_the_first(
    rows: list[MartRow], tmp_path: Path
) -> None:
    MartFiles(tmp_path / "mart").replace(rows)
    mart = read_mart(str(tmp_path / "mart"))
    latest, first = series(mart, "dau"), series(mart, "dau", as_published=True)
    assert list(latest.index.date) == list(first.index.date) == DAYS
    by_key = {(row.key.day, row.key.revision): row for row in rows if row.key.metric == "dau"}
    assert list(latest["estimate"]) == [by_key[day, int(day.month == 1)].estimate for day in DAYS]
    assert list(first["estimate"]) == [by_key[day, 0].estimate for day in DAYS]
    assert len(series(mart, "mau")) == 1


def test_a_sketchs_parameters_are_json_that_the_frame_and_the_table_have_alike(
    make_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = make_store(**SKETCHES["theta"])
    prepare(store, [date(2025, 1, 1)])
    publish("dau", date(2025, 1, 1), store)
    paths = MartFiles(tmp_path / "mart").replace(mart_rows(store.accountant))
    (text,) = read_mart(tmp_path / "mart")["sketch_parameters"]
    assert text == '{"theta0": 1.0}'
    assert duckdb.sql(f"SELECT sketch_parameters FROM '{paths.csv}'").fetchall() == [(text,)]


def test_an_empty_mart_is_an_empty_frame_and_no_mart_is_bad_input(tmp_path: Path) -> None:
    MartFiles(tmp_path / "mart").replace([])
    assert read_mart(tmp_path / "mart").empty
    assert series(read_mart(tmp_path / "mart"), "dau").empty
    with pytest.raises(BadInput, match="no mart in"):
        read_mart(tmp_path / "nothing")
