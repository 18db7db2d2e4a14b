"""The port Mart: one DuckDB table and one CSV of everything published, and a chart; each replaced by rename."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import MartPaths, ReleaseKey
from dpdau_assets.core.reporting.as_json import columns_of
from dpdau_assets.core.reporting.report_model import Series
from dpdau_assets.core.reporting.series import all_series
from dpdau_assets.core.restored import MartRow
from dpdau_assets.core.sketches import estimator_from, parameters_of
from dpdau_assets.core.sketches.sampling import is_threshold
from resources.published.charts import drawing, drawing_in_markdown, sparkline_in_markdown
from resources.storage.durable import PRIVATE_FOLDER, make_folder, mode_in, sync_file

Connect = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]
"""Opens a DuckDB in memory, and closes it."""

Write = Callable[[Path], None]

FILES = ("active_users.duckdb", "active_users.csv", "active_users.svg", "as_published.csv", "latest.csv")
"""All that is written into the folder of a mart."""

COLUMNS = {
    "metric": "VARCHAR",
    "day": "DATE",
    "window_days": "INTEGER",
    "revision": "INTEGER",
    "noisy_value": "DOUBLE",
    "estimate": "DOUBLE",
    "lower_95": "DOUBLE",
    "upper_95": "DOUBLE",
    "noisy_statistic": "DOUBLE",
    "half_width": "DOUBLE",
    "mechanism": "VARCHAR",
    "mechanism_run": "VARCHAR",
    "sketch_impl": "VARCHAR",
    "sketch_parameters": "VARCHAR",
    "privacy_unit": "VARCHAR",
    "published_at": "TIMESTAMPTZ",
    "version": "VARCHAR",
}
"""What the table and every CSV file have, in this order; docs/data.md says what each one is."""

_NEVER_NULL = COLUMNS.keys() - {"upper_95"}  # None where the sketch is full
_TABLE = (
    f"CREATE TABLE active_users ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())}, "
    "PRIMARY KEY (metric, window_days, day, revision))"
)

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

    A new mart is made in memory, and written from there to files beside those that readers have open. Only when all of
    them are closed and on disk are they renamed: what DuckDB locks is never a file that somebody reads.
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
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise BadInput(
                f"{table} has no {' and no '.join(missing)}: another version of dpdau wrote it.",
                "Move it away, and have the mart written anew (the job `refresh_mart`). No number can be taken back "
                "from it.",
            )
        return [_row(columns) for columns in rows]

    def replace(self, rows: Sequence[MartRow], connect: Connect = duckdb.connect) -> MartPaths:
        make_folder(self._folder, self._folder_mode)
        series = all_series(rows)
        paths = MartPaths(
            table=self._folder / "active_users.duckdb",
            csv=self._folder / "active_users.csv",
            chart=self._folder / "active_users.svg",
            chart_in_markdown=drawing_in_markdown(series),
            sparkline_in_markdown=sparkline_in_markdown(series),
        )
        with connect() as work:
            _fill(work, rows)
            staged = [_staged(path, write) for path, write in self._files(work)]
        staged.append(_staged(paths.chart, partial(_write_chart, series)))
        for temporary, path in staged:
            temporary.replace(path)
        return paths

    def _files(self, work: duckdb.DuckDBPyConnection) -> Iterator[tuple[Path, Write]]:
        yield self._folder / "active_users.duckdb", partial(_copy_database, work)
        yield self._folder / "active_users.csv", partial(_copy_csv, work, "SELECT * FROM active_users ORDER BY ALL")
        for name, query in _SERIES.items():
            yield self._folder / f"{name}.csv", partial(_copy_csv, work, query)


def _row(columns: dict[str, Any]) -> MartRow:
    empty = [name for name in _NEVER_NULL if columns[name] is None]
    if empty:
        raise BadInput(
            f"A row of the mart, of {columns['metric']} of {columns['day']}, has no {min(empty)}.",
            "Name the folder of a mart as it was written, or move it away.",
        )
    return MartRow(
        key=ReleaseKey(columns["metric"], columns["window_days"], columns["day"], columns["revision"]),
        noisy_value=columns["noisy_value"],
        estimate=columns["estimate"],
        lower_95=columns["lower_95"],
        upper_95=columns["upper_95"],
        noisy_statistic=columns["noisy_statistic"],
        half_width=columns["half_width"],
        mechanism=columns["mechanism"],
        mechanism_run=columns["mechanism_run"],
        parameters=_parameters(columns),
        published_at=datetime.fromtimestamp(columns["published"], UTC),
        version=columns["version"],
    )


def _parameters(columns: dict[str, Any]) -> dict[str, str]:
    """How the row says that users were counted. Raises BadInput for parameters that no number was ever counted by."""
    try:
        parameters = {name: Fraction(value) for name, value in json.loads(columns["sketch_parameters"]).items()}
        if not is_threshold(parameters.get("theta0", Fraction(1))):
            raise ValueError
        counted = {name: str(value) for name, value in parameters.items()}
        return parameters_of(estimator_from({"sketch_impl": columns["sketch_impl"], **counted}))
    except (ValueError, TypeError, AttributeError, OverflowError, Refused):
        raise BadInput(
            f"The mart's {columns['metric']} of {columns['day']} was counted with parameters that are none.",
            "Name the folder of a mart, or move it away.",
        ) from None


def _fill(work: duckdb.DuckDBPyConnection, rows: Sequence[MartRow]) -> None:
    work.execute(_TABLE)
    if rows:  # by column, in one statement: row by row takes longer than all else that is written here
        columns = [columns_of(row) for row in rows]
        every = ", ".join("unnest(?)" for _ in COLUMNS)
        statement = f"INSERT INTO active_users ({', '.join(COLUMNS)}) SELECT {every}"
        work.execute(statement, [[_value(row[name]) for row in columns] for name in COLUMNS])


def _value(value: object) -> object:
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


def _write_chart(series: Sequence[Series], path: Path) -> None:
    path.write_text(drawing(series), encoding="utf-8")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _staged(path: Path, write: Write) -> tuple[Path, Path]:
    """Written beside its place, for whom the folder is, and durable; where it lies, and where it is renamed to."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    write(temporary)
    temporary.chmod(mode_in(path.parent))
    sync_file(temporary)
    return temporary, path
