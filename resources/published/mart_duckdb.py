"""The port Mart: one DuckDB table and one CSV of everything published, and a chart; each replaced by rename."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import MartPaths, ReleaseKey
from dpdau_assets.core.restored import MartRow
from dpdau_assets.core.sketches import estimator_from
from dpdau_assets.core.sketches.sampling import is_threshold
from resources.published.chart import chart_in_markdown, draw_series, sparkline_in_markdown
from resources.storage.durable import PRIVATE_FOLDER, make_folder, mode_in, sync_file

FILES = ("active_users.duckdb", "active_users.csv", "active_users.svg", "as_published.csv", "latest.csv")
"""All that is written into the folder of a mart."""

_TABLE = """
CREATE TABLE active_users (
    metric VARCHAR, day DATE, window_days INTEGER, revision INTEGER,
    noisy_value DOUBLE, estimate DOUBLE, lower_95 DOUBLE, upper_95 DOUBLE, noisy_statistic DOUBLE,
    mechanism VARCHAR, sketch_impl VARCHAR, sketch_parameters VARCHAR,
    privacy_unit VARCHAR, published_at TIMESTAMPTZ, version VARCHAR,
    PRIMARY KEY (metric, window_days, day, revision)
)
"""

# A restated day has two numbers: the one that came out first, and the one that holds by now.
_SERIES = {
    "as_published": "SELECT * FROM active_users WHERE revision = 0 ORDER BY ALL",
    "latest": "SELECT * FROM active_users "
    "QUALIFY revision = max(revision) OVER (PARTITION BY metric, window_days, day) ORDER BY ALL",
}


class MartFiles:
    """`active_users.duckdb`, `active_users.csv` and `active_users.svg` in one folder.

    The database has the table and the views `as_published` and `latest`; each of these is a CSV file too. A folder that
    is missing is made with `folder_mode`; who may read the folder may read the files.
    """

    def __init__(self, folder: Path, folder_mode: int = PRIVATE_FOLDER) -> None:
        self._folder = folder
        self._folder_mode = folder_mode

    def read(self) -> list[MartRow]:
        """Every number that it shows; none where there is no mart."""
        table = self._folder / "active_users.duckdb"
        if not table.exists():
            return []
        try:
            with duckdb.connect(table, read_only=True) as mart:
                numbers = mart.execute("SELECT *, epoch(published_at) AS published FROM active_users ORDER BY ALL")
                names = [column[0] for column in numbers.description or ()]
                rows = [dict(zip(names, row, strict=True)) for row in numbers.fetchall()]
        except duckdb.Error:
            raise BadInput(f"{table} cannot be read.", "Name the folder of a mart, or move that file away.") from None
        return [_shown(row) for row in rows]

    def replace(self, rows: list[dict[str, object]]) -> MartPaths:
        make_folder(self._folder, self._folder_mode)
        paths = MartPaths(
            table=self._folder / "active_users.duckdb",
            csv=self._folder / "active_users.csv",
            chart=self._folder / "active_users.svg",
            chart_in_markdown=chart_in_markdown(rows),
            sparkline_in_markdown=sparkline_in_markdown(rows),
        )
        with duckdb.connect() as work:
            _fill(work, rows)
            _replace(paths.table, lambda path: _copy_database(work, path))
            _replace(paths.csv, lambda path: _copy_csv(work, "SELECT * FROM active_users ORDER BY ALL", path))
            for name, query in _SERIES.items():
                _replace(self._folder / f"{name}.csv", partial(_copy_csv, work, query))
        _replace(paths.chart, lambda path: draw_series(rows, path))
        return paths


def _shown(row: dict[str, Any]) -> MartRow:
    return MartRow(
        key=ReleaseKey(row["metric"], row["window_days"], row["day"], row["revision"]),
        noisy_value=row["noisy_value"],
        noisy_statistic=row.get("noisy_statistic", row["noisy_value"]),  # the same in marts from before sketches
        lower_95=row["lower_95"],
        upper_95=row["upper_95"],
        mechanism=row["mechanism"],
        parameters=_parameters(row),
        published_at=datetime.fromtimestamp(row["published"], UTC),
        version=row["version"],
    )


def _parameters(row: dict[str, Any]) -> dict[str, str]:
    """How the row says that users were counted. Raises BadInput for parameters that no number was ever counted by."""
    try:
        parameters = {name: Fraction(value) for name, value in json.loads(row.get("sketch_parameters", "{}")).items()}
        if not is_threshold(parameters.get("theta0", Fraction(1))):
            raise ValueError
        counted = {"sketch_impl": row["sketch_impl"], **{name: str(value) for name, value in parameters.items()}}
        estimator_from(counted)
        return counted
    except (ValueError, TypeError, AttributeError, OverflowError, Refused):
        raise BadInput(
            f"The mart's {row['metric']} of {row['day']} was counted with parameters that are none.",
            "Name the folder of a mart, or move it away.",
        ) from None


def _fill(work: duckdb.DuckDBPyConnection, rows: list[dict[str, object]]) -> None:
    work.execute(_TABLE)
    if rows:
        names = list(rows[0])
        statement = f"INSERT INTO active_users ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        work.executemany(statement, [[_column(row[name]) for name in names] for row in rows])


def _column(value: object) -> object:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _copy_database(work: duckdb.DuckDBPyConnection, path: Path) -> None:
    work.execute(f"ATTACH '{_quoted(path)}' AS mart")
    work.execute(_TABLE.replace("active_users (", "mart.active_users (", 1))
    work.execute("INSERT INTO mart.active_users SELECT * FROM active_users ORDER BY ALL")
    work.execute("USE mart")
    for name, query in _SERIES.items():
        work.execute(f"CREATE VIEW {name} AS {query}")
    work.execute("USE memory")
    work.execute("DETACH mart")


def _copy_csv(work: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    work.execute(f"COPY ({query}) TO '{_quoted(path)}' (HEADER, FORMAT csv)")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside it, for whom the folder is, make it durable, then rename: a reader sees the old file or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    write(temporary)
    temporary.chmod(mode_in(path.parent))
    sync_file(temporary)
    temporary.replace(path)
