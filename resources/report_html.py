"""The port Reports: one HTML file for readers and one for operators, each whole in itself.

No script, nothing fetched, no clock: readable offline, and for the same report the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import BinaryIO

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.facts import ReportPaths
from dpdau_assets.core.report import Report
from resources import report_svg
from resources.durable import write_durably

_TITLES = {"dau": "Daily active users", "mau": "Monthly active users"}
_SHORT = {"dau": "DAU", "mau": "MAU"}


class ReportFiles:
    """`readers.html` and `operators.html` in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def replace(self, readers: Report, operators: Report) -> ReportPaths:
        paths = ReportPaths(self._folder / "readers.html", self._folder / "operators.html")
        write_report(readers, paths.readers)
        write_report(operators, paths.operators)
        return paths


def write_report(report: Report, path: Path) -> None:
    """Raises BadInput for a place where no file can be written; what stood there stays then."""
    content = render(report).encode()

    def write(file: BinaryIO) -> None:
        file.write(content)

    try:
        write_durably(path, write)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}.", "Name a file in a folder of yours.") from None


def render(report: Report) -> str:
    """The whole file. What people wrote, as why a cap was changed, is shown as they wrote it and never as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"users": _users, "epsilon": _epsilon, "small": _small, "month": _month}
    charts = {one.metric: report_svg.chart_of(one) for one in report.series}
    return environment.get_template("report.html.j2").render(
        report=report, charts=charts, titles=_TITLES, short=_SHORT, svg=report_svg, shares=_shares(report)
    )


def _shares(report: Report) -> Mapping[tuple[str, date], tuple[float, float]]:
    """Of each month's bar, in percent of its length: spent, and charged beyond that. The bar ends with the cap, or
    with what was charged where that is more.
    """
    shares = {}
    for one in report.budget:
        whole = max(one.cap, one.charged, one.spent)
        shares[one.metric, one.month] = (
            round(100 * one.spent / whole, 2),
            round(100 * max(0.0, one.charged - one.spent) / whole, 2),
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
