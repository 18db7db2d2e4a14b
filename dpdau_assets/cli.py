"""The command line: JSON on stdout, words for people on stderr, and an exit code that says what happened.

0 done, 1 unexpected, 2 usage or settings, 3 not published yet, 4 refused by budget or contract, 5 bad input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dpdau_assets.core.answers import budget_answer, last_published_month, latest_release, release_answer, run_answer
from dpdau_assets.core.calendar import METRICS
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.ingest import ingest as take_in
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.runs import plan_run
from dpdau_assets.core.settings import Metric
from dpdau_assets.core.version import VERSION
from resources.event_files import event_files
from resources.settings_env import dagster_home, read_settings
from resources.store import open_store

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Daily and monthly active users with privacy."
)
_people = Console(stderr=True)


@app.command()
def ingest(source: Annotated[Path, typer.Option("--from", help="A file, or a folder of files.")]) -> None:
    """Take events in: JSON Lines, CSV or Parquet, each also .gz. Twice the same file changes nothing."""
    outside = _outside()
    files = event_files(source)
    with _progress() as progress:
        task = progress.add_task("Reading.", total=None)
        report = take_in(files, outside, lambda stage: progress.update(task, description=stage))
    _tell(f"{report.ingested} rows taken, {report.rejected} rejected.")
    if report.quarantine:
        _tell(f"Where and why: {report.quarantine}")
    days = [day.isoformat() for day in report.days]
    _answer({"ingested": report.ingested, "rejected": report.rejected, "days": days, "batch": report.batch})


@app.command()
def run(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day to publish.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day to publish.")],
) -> None:
    """Declare these days complete, and publish DAU and MAU of each, in order, through Dagster in this process.

    Asks first: days that cannot be published as asked are refused before anything is done.
    """
    from dpdau_assets.definitions import defs  # Dagster takes seconds to import: only this command pays for it
    from dpdau_assets.jobs import open_instance, run_steps

    outside = _outside()
    from_day, to_day = first.date(), last.date()
    if to_day < from_day:
        raise typer.BadParameter(f"--to {to_day} is before --from {from_day}.")
    wanted = plan_run(from_day, to_day, outside)
    with open_instance(dagster_home(outside.settings)) as instance, _progress() as progress:
        task = progress.add_task("Publishing", total=len(wanted))
        run_steps(wanted, defs, instance, lambda step: progress.update(task, advance=1, description=step.title))
    _answer({**run_answer(from_day, to_day, outside), "restated": 0})


@app.command()
def dau(
    day: Annotated[datetime | None, typer.Argument(formats=["%Y-%m-%d"], metavar="DAY")] = None,
    day_option: Annotated[datetime | None, typer.Option("--day", formats=["%Y-%m-%d"])] = None,
    revision: Annotated[int | None, typer.Option(help="0 is the first published; default: the latest.")] = None,
) -> None:
    """Show the published DAU of a day."""
    _show("dau", _one_day(day, day_option, "--day"), 1, revision)


@app.command()
def mau(
    day: Annotated[datetime | None, typer.Argument(formats=["%Y-%m-%d"], metavar="DAY")] = None,
    end_option: Annotated[datetime | None, typer.Option("--end", formats=["%Y-%m-%d"])] = None,
    window: Annotated[int | None, typer.Option(help="Days in the window; default: MAU_WINDOW_DAYS.")] = None,
    revision: Annotated[int | None, typer.Option(help="0 is the first published; default: the latest.")] = None,
) -> None:
    """Show the published MAU of the window that ends on a day."""
    end = _one_day(day, end_option, "--end")
    _show("mau", end, read_settings().mau_window_days if window is None else window, revision)


@app.command()
def budget(
    metric: Annotated[str, typer.Argument(metavar="dau|mau")],
    month: Annotated[datetime | None, typer.Option(formats=["%Y-%m"], help="Default: the last published.")] = None,
) -> None:
    """Show what a month has spent of its cap."""
    if metric not in METRICS:
        raise typer.BadParameter(f"{metric!r} is not a metric: dau or mau.")
    outside = _outside()
    asked = month.date() if month else last_published_month(metric, outside)
    answer = budget_answer(metric, asked, outside)
    _answer({"metric": metric, "month": f"{asked:%Y-%m}", **answer})


@app.command()
def generate_synthetic(
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file to write.")],
    days: Annotated[int, typer.Option(min=1)] = 60,
    users: Annotated[int, typer.Option(min=1)] = 10_000,
    events: Annotated[int, typer.Option(min=1)] = 300_000,
    first_day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"])] = datetime(2025, 1, 1),
    seed: Annotated[int | None, typer.Option(help="Default: DEFAULT_SEED.")] = None,
) -> None:
    """Write made-up events, the same ones for the same seed."""
    from eval.simulate import generate_synthetic as generate

    chosen = read_settings().default_seed if seed is None else seed
    generate(out, days=days, users=users, events=events, first_day=first_day.date(), seed=chosen)
    _tell(f"Made-up events written to {out}.")
    _answer({"file": str(out), "events": events, "days": days, "users": users})


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
        _tell(f"[bold]{type(error).__name__}[/]: {escape(error.reason)}\n{escape(error.remedy)}")
        sys.exit(error.exit_code)


def _outside() -> Outside:
    return open_store(read_settings())


def _show(metric: Metric, day: date, window_days: int, revision: int | None) -> None:
    outside = _outside()
    release = latest_release(metric, day, window_days, revision, outside)
    answer = release_answer(release, outside)
    _tell(f"{metric} {day}: {answer['estimate']} [{answer['lower_95']}, {answer['upper_95']}] at 95 %", style=None)
    _answer(answer)


def _one_day(argument: datetime | None, option: datetime | None, name: str) -> date:
    if (argument is None) == (option is None):
        raise typer.BadParameter(f"Give the day once, as DAY or as {name} DAY.")
    return (argument or cast(datetime, option)).date()


def _answer(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value))


def _tell(text: str, style: str | None = "dim") -> None:
    _people.print(text, style=style, highlight=False)


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_people) as progress:
        yield progress


if __name__ == "__main__":
    main()
