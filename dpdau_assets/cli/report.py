"""What people read: `dpdau report`, the HTML files for readers and operators, and `dpdau digest`, the daily message."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dpdau_assets.cli.scheduled import knowing_the_schedule
from dpdau_assets.cli.terminal import answer, opened_store, tell
from dpdau_assets.core.errors import BadSetting, NotPublished
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.reporting.digest import digest_of
from dpdau_assets.core.reporting.report import check_lines, operators_report, readers_report
from dpdau_assets.core.reporting.report_model import Report
from resources.messages.messages import Messages
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
    store = opened_store()
    if out is None:
        paths = open_reports(store.settings).replace(
            readers_report(store.settings, store.accountant), _for_operators(store)
        )
        answer({"files": [str(paths.readers), str(paths.operators)]})
    else:
        write_report(
            readers_report(store.settings, store.accountant) if audience == "readers" else _for_operators(store),
            out,
        )
        answer({"files": [str(out)]})


@app.command()
def digest(
    send: Annotated[bool, typer.Option("--send", help="To DIGEST_WEBHOOK, unless it was sent before.")] = False,
) -> None:
    """Show what the daily message says of the last published numbers; it is sent after each publication by Dagster.

    Exit code 3: nothing is published yet. 4: it is kept and did not arrive yet, and is sent again.
    """
    store = opened_store()
    messages = Messages(store.settings)
    if send and not messages.wants_digest:
        raise BadSetting("DIGEST_WEBHOOK is not set, so nobody gets the digest.", "Set it, or leave out --send.")
    newest = digest_of(_for_operators(store), store.accountant)
    if newest is None:
        raise NotPublished("No number is published yet.", "`dpdau run` publishes, or the schedule does.")
    answer(newest)
    if send:
        if not messages.digest(newest):
            tell("A digest of exactly these days was sent before: nothing new is sent.")
        messages.deliver()


def _for_operators(store: Store) -> Report:
    return operators_report(store, check_lines(knowing_the_schedule(store), open_mart(store.settings)))
