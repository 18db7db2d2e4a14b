"""`dpdau report`: the HTML files for readers and for operators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dpdau_assets.cli.scheduled import knowing_the_schedule
from dpdau_assets.cli.terminal import answer, open_outside
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.reporting.report import check_lines, operators_report, readers_report
from dpdau_assets.core.reporting.report_model import Report
from resources.published.report_html import write_report
from resources.store import open_mart, open_reports

Audience = Literal["readers", "operators"]

app = typer.Typer()


@app.command()
def report(
    audience: Annotated[Audience, typer.Option("--for", help="Whose --out is.")] = "readers",
    out: Annotated[Path | None, typer.Option(help="Write this one file; default: both, into report/.")] = None,
) -> None:
    """Write what is published, promised and spent as HTML, readable offline; for operators erasures and checks too."""
    outside = open_outside()
    if out is None:
        paths = open_reports(outside.settings).replace(readers_report(outside), _for_operators(outside))
        answer({"files": [str(paths.readers), str(paths.operators)]})
    else:
        write_report(readers_report(outside) if audience == "readers" else _for_operators(outside), out)
        answer({"files": [str(out)]})


def _for_operators(outside: Store) -> Report:
    return operators_report(outside, check_lines(knowing_the_schedule(outside), open_mart(outside.settings)))
