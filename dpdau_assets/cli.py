"""The command line: JSON on stdout, words for people on stderr, and an exit code that says what happened.

0 done, 1 unexpected, 2 usage or settings, 3 not there yet, 4 refused by budget or contract, or done only in part,
5 bad input, nothing taken.
"""

from __future__ import annotations

import sys
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.markup import escape

from dpdau_assets import cli_budget, cli_daily, cli_erasure, cli_ledger, cli_report
from dpdau_assets.cli_terminal import (
    DAY,
    From,
    To,
    answer,
    open_outside,
    progress,
    require_order,
    run_through_dagster,
    tell,
)
from dpdau_assets.core import answers
from dpdau_assets.core.activity import discard_batch
from dpdau_assets.core.answers import latest_release, release_answer, run_answer
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.ingest import ingest as ingest_files
from dpdau_assets.core.release import require_ended
from dpdau_assets.core.runs import building, plan_run
from dpdau_assets.core.settings import Metric
from dpdau_assets.core.version import VERSION
from dpdau_assets.core.windows import days_between
from resources.event_files import event_files
from resources.settings_env import read_settings

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Daily and monthly active users with privacy."
)


@app.command()
def ingest(source: Annotated[Path, typer.Option("--from", help="A file, or a folder of files.")]) -> None:
    """Take events in: JSON Lines, CSV or Parquet, each also .gz. Twice the same file changes nothing."""
    outside = open_outside()
    files = event_files(source)
    with progress() as shown:
        task = shown.add_task("Reading.", total=None)
        report = ingest_files(files, outside, lambda stage: shown.update(task, description=stage))
    tell(f"{report.ingested} rows taken, {report.rejected} rejected.")
    if report.quarantine:
        tell(f"Where and why: {report.quarantine}")
    if report.removals.receipts:
        tell(f"{len(report.removals.receipts)} removal(s) among them are erasure requests now: `dpdau erasures`.")
    if report.removals.parked:
        cli_erasure.tell_parked(report.removals)
    days = [day.isoformat() for day in report.days]
    answer({"ingested": report.ingested, "rejected": report.rejected, "days": days, "batch": report.batch})


@app.command()
def discard(batch: Annotated[str, typer.Argument(metavar="BATCH", help="As `ingest` answered it.")]) -> None:
    """Take back an ingested batch of events that was not folded into the state yet. Its removals stay requested."""
    discard_batch(batch, open_outside())
    answer({"discarded": batch})


@app.command()
def run(first: From, last: To) -> None:
    """Declare these days complete, and publish DAU and MAU of each, in order, through Dagster in this process.

    A month is restated when publication passes its day. Days that cannot be published as asked are refused before
    anything is done.
    """
    outside = open_outside()
    require_order(first, last)
    wanted = plan_run(first.date(), last.date(), outside)
    run_through_dagster("Publishing", wanted, outside)
    answer(run_answer(first.date(), last.date(), outside))


@app.command()
def rebuild(first: From, last: To) -> None:
    """Build state and sketches of these days, through Dagster in this process; nothing is published."""
    outside = open_outside()
    require_order(first, last)
    require_ended(last.date(), outside.clock)
    if first.date() < outside.settings.start_date:
        raise typer.BadParameter(f"--from {first:%Y-%m-%d} is before START_DATE.")
    days = days_between(first.date(), last.date())
    run_through_dagster("Rebuilding", building(days), outside)
    answer({"days_rebuilt": len(days)})


@app.command()
def dau(
    day: Annotated[datetime | None, typer.Argument(formats=DAY, metavar="DAY")] = None,
    day_option: Annotated[datetime | None, typer.Option("--day", formats=DAY)] = None,
    revision: Annotated[int | None, typer.Option(help="0 is the first published; default: the latest.")] = None,
) -> None:
    """Show the published DAU of a day."""
    _show("dau", _one_day(day, day_option, "--day"), 1, revision)


@app.command()
def mau(
    day: Annotated[datetime | None, typer.Argument(formats=DAY, metavar="DAY")] = None,
    end_option: Annotated[datetime | None, typer.Option("--end", formats=DAY)] = None,
    window: Annotated[int | None, typer.Option(help="Days in the window; default: MAU_WINDOW_DAYS.")] = None,
    revision: Annotated[int | None, typer.Option(help="0 is the first published; default: the latest.")] = None,
) -> None:
    """Show the published MAU of the window that ends on a day."""
    end = _one_day(day, end_option, "--end")
    _show("mau", end, read_settings().mau_window_days if window is None else window, revision)


@app.command()
def series(
    metric: Annotated[Metric, typer.Argument()],
    first: From,
    last: To,
    as_published: Annotated[bool, typer.Option(help="The numbers that came out first; default: the latest.")] = False,
) -> None:
    """Show the published numbers of a range of days, in order; days without a number are left out."""
    outside = open_outside()
    require_order(first, last)
    answer(answers.series(metric, first.date(), last.date(), outside, as_published=as_published))


@app.command()
def generate_synthetic(
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file to write.")],
    days: Annotated[int, typer.Option(min=1)] = 60,
    users: Annotated[int, typer.Option(min=1)] = 10_000,
    events: Annotated[int, typer.Option(min=1)] = 300_000,
    first_day: Annotated[datetime, typer.Option(formats=DAY)] = datetime(2025, 1, 1),
    seed: Annotated[int | None, typer.Option(help="Default: DEFAULT_SEED.")] = None,
) -> None:
    """Write made-up events, the same ones for the same seed."""
    from eval.simulate import generate_synthetic as generate

    chosen = read_settings().default_seed if seed is None else seed
    generate(out, days=days, users=users, events=events, first_day=first_day.date(), seed=chosen)
    tell(f"Made-up events written to {out}.")
    answer({"file": str(out), "events": events, "days": days, "users": users})


app.add_typer(cli_budget.app)
app.add_typer(cli_daily.app)
app.add_typer(cli_erasure.app)
app.add_typer(cli_ledger.app)
app.add_typer(cli_report.app)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Daily and monthly active users with differential privacy."""
    if show:
        typer.echo(f"dpdau {VERSION}")
        raise typer.Exit


def main() -> None:
    """Run the command line; an error of ours ends with its own exit code and says what to do."""
    try:
        app()
    except DpdauError as error:
        tell(f"[bold]{type(error).__name__}[/]: {escape(error.reason)}\n{escape(error.remedy)}")
        sys.exit(error.exit_code)


def _show(metric: Metric, day: date, window_days: int, revision: int | None) -> None:
    outside = open_outside()
    found = release_answer(latest_release(metric, day, window_days, revision, outside), outside)
    upper = "no upper bound" if found["upper_95"] is None else found["upper_95"]
    tell(f"{metric} {day}: {found['estimate']} [{found['lower_95']}, {upper}] at 95 %", style=None)
    answer(found)


def _one_day(argument: datetime | None, option: datetime | None, name: str) -> date:
    if (argument is None) == (option is None):
        raise typer.BadParameter(f"Give the day once, as DAY or as {name} DAY.")
    return (argument or cast(datetime, option)).date()


if __name__ == "__main__":
    main()
