"""The port `Reports` of `core.reporting.report_model`: one HTML file for readers and one for operators.

Each is whole in itself. No script, nothing fetched, no clock: readable offline, and for the same report the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import BinaryIO

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.facts import ReportPaths
from dpdau_assets.core.reporting.report_model import Report
from resources.published.charts import BOX, TITLES, chart_of
from resources.published.templates import environment, template
from resources.storage.durable import PRIVATE, PRIVATE_FOLDER, make_folder, mode_in, write_durably

READERS, OPERATORS = "readers.html", "operators.html"

_SHORT = {"dau": "DAU", "mau": "MAU"}


class ReportFiles:
    """`operators.html` in one folder, and `readers.html` in the same one or in the readers' own.

    A readers' folder that is missing is made with `readers_mode`; who may read it may read the file.
    """

    def __init__(self, folder: Path, readers_folder: Path | None = None, readers_mode: int = PRIVATE_FOLDER) -> None:
        self._folder = folder
        self._readers_folder = readers_folder or folder
        self._readers_mode = readers_mode

    def replace(self, readers: Report, operators: Report) -> ReportPaths:
        paths = ReportPaths(self._readers_folder / READERS, self._folder / OPERATORS)
        make_folder(self._readers_folder, self._readers_mode)
        write_report(readers, paths.readers, mode_in(self._readers_folder))
        write_report(operators, paths.operators)
        return paths


def write_report(report: Report, path: Path, mode: int = PRIVATE) -> None:
    """Raises BadInput for a place where no file can be written; what stood there stays then."""
    content = render(report).encode()

    def write(file: BinaryIO) -> None:
        file.write(content)

    try:
        write_durably(path, write, mode)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}.", "Name a file in a folder of yours.") from None


def render(report: Report) -> str:
    """The whole file. What people wrote, as why a cap was changed, is shown as they wrote it and never as HTML."""
    environment().filters.update({"users": _users, "epsilon": _epsilon, "small": _small, "month": _month})
    charts = {series.metric: chart_of(series) for series in report.series}
    return template("report.html.j2").render(
        report=report, charts=charts, titles=TITLES, short=_SHORT, box=BOX, shares=_shares(report)
    )


def _shares(report: Report) -> Mapping[tuple[str, date], tuple[float, float]]:
    """Parts of each month's bar in percent of its length: spent, and charged beyond that. The bar ends with the cap, or
    with what was charged where that is more.
    """
    shares = {}
    for budget_month in report.budget:
        whole = max(budget_month.cap, budget_month.charged, budget_month.spent)
        shares[budget_month.metric, budget_month.month] = (
            round(100 * budget_month.spent / whole, 2),
            round(100 * max(0.0, budget_month.charged - budget_month.spent) / whole, 2),
        )
    return shares


def _users(value: float | None) -> str:
    return "no bound" if value is None else f"{value:,.1f}"


def _epsilon(value: float) -> str:
    return f"{value:.3f}"


def _small(value: float) -> str:
    """A δ."""
    return f"{value:.0e}".replace("e-0", "e-")


def _month(value: date) -> str:
    return f"{value:%Y-%m}"
