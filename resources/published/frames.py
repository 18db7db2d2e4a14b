"""The published numbers as pandas frames: for people, their notebooks and scripts. docs/data.md says what columns mean.

No command and no run loads this module, and pandas with it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.reporting.as_json import columns_of
from dpdau_assets.core.settings import Metric
from resources.published.mart_duckdb import COLUMNS, MartFiles

_TYPES = {
    "metric": "category",
    "day": "datetime64[s]",
    "mechanism": "category",
    "mechanism_run": "category",
    "sketch_impl": "category",
    "privacy_unit": "category",
    "version": "category",
    "published_at": "datetime64[s, UTC]",
    **{name: "float64" for name, kind in COLUMNS.items() if kind == "DOUBLE"},
    **{name: "int64" for name, kind in COLUMNS.items() if kind == "INTEGER"},
}


def read_mart(folder: Path | str) -> pd.DataFrame:
    """Every published number, a row each, in order of metric, window, day and revision: all of them, restated or not.

    `folder` is that of the mart: `mart` in DATA_DIR, or MART_DIR. Nothing is locked, and reading costs no budget.

    Columns: `metric` (category, "dau" or "mau"), `day` (datetime64, the last day of its window), `window_days`,
    `revision` (0, or 1 for a restated number); in users, as floats, `noisy_value` as drawn, `estimate`, `lower_95` and
    `upper_95` for display, NaN where a sketch is full and nothing bounds the number from above; `noisy_statistic` and
    the `half_width` of its noise, in units of the sketch's statistic, which are users with the exact set; `mechanism`,
    `mechanism_run`, `sketch_impl`, `privacy_unit`, `version` (categories), `sketch_parameters` (JSON), `published_at`
    (datetime64 in UTC, the scheduled day).

    Raises BadInput where there is no mart, or one that this version does not read.
    """
    if not (Path(folder) / "active_users.duckdb").is_file():
        raise BadInput(f"There is no mart in {folder}.", "Name the folder of active_users.duckdb.")
    rows = [columns_of(row) for row in MartFiles(Path(folder)).read()]
    for row in rows:
        row["sketch_parameters"] = json.dumps(row["sketch_parameters"], sort_keys=True)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_TYPES)


def series(mart: pd.DataFrame, metric: Metric, *, as_published: bool = False) -> pd.DataFrame:
    """One number a published day, indexed by `day` in order: `estimate`, `lower_95` and `upper_95`, in users.

    The latest number of each day, or the one that came out first. `mart` is what `read_mart` gives.
    """
    mine = mart.loc[mart["metric"] == metric].sort_values(by=["day", "revision"])
    of_each_day = mine.drop_duplicates("day", keep="first" if as_published else "last")
    return of_each_day.set_index("day").loc[:, ["estimate", "lower_95", "upper_95"]]
