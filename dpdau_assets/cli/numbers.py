"""The commands that read published numbers: asking costs nothing and draws nothing."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, cast

import typer

from dpdau_assets.cli.terminal import DAY, From, To, answer, opened_store, require_order, tell_plainly
from dpdau_assets.core.reporting import answers
from dpdau_assets.core.reporting.answers import latest_number
from dpdau_assets.core.settings import Metric
from resources.settings_env import read_settings

app = typer.Typer()


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
    store = opened_store()
    require_order(first, last)
    answer(
        answers.series(metric, first.date(), last.date(), store.settings, store.accountant, as_published=as_published)
    )


def _show(metric: Metric, day: date, window_days: int, revision: int | None) -> None:
    number = latest_number(metric, day, window_days, revision, opened_store())
    upper = "no upper bound" if number.upper_95 is None else number.upper_95
    tell_plainly(f"{metric} {day}: {number.estimate} [{number.lower_95}, {upper}] at 95 %")
    answer(number)


def _one_day(argument: datetime | None, option: datetime | None, name: str) -> date:
    if (argument is None) == (option is None):
        raise typer.BadParameter(f"Give the day once, as DAY or as {name} DAY.")
    return (argument or cast(datetime, option)).date()
