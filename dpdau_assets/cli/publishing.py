"""The commands that build and publish a range of days, through Dagster in this process."""

from __future__ import annotations

import typer

from dpdau_assets.cli.terminal import From, To, answer, opened_store, require_order, run_through_dagster
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.publication.runs import building, plan_run
from dpdau_assets.core.reporting.answers import run_answer
from dpdau_assets.core.state.activity import require_ended

app = typer.Typer()


@app.command()
def run(first: From, last: To) -> None:
    """Declare these days complete, and publish DAU and MAU of each, in order, through Dagster in this process.

    A month is restated when publication passes its day. Days that cannot be published as asked are refused before
    anything is done.
    """
    store = opened_store()
    require_order(first, last)
    wanted = plan_run(first.date(), last.date(), store)
    run_through_dagster("Publishing", wanted, store)
    answer(run_answer(first.date(), last.date(), store.accountant))


@app.command()
def rebuild(first: From, last: To) -> None:
    """Build state and sketches of these days, through Dagster in this process; nothing is published."""
    store = opened_store()
    require_order(first, last)
    require_ended(last.date(), store.clock)
    if first.date() < store.settings.start_date:
        raise typer.BadParameter(f"--from {first:%Y-%m-%d} is before START_DATE.")
    days = days_between(first.date(), last.date())
    run_through_dagster("Rebuilding", building(days), store)
    answer({"days_rebuilt": len(days)})
