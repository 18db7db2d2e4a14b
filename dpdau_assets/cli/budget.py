"""The commands around the budget: what a month has spent of its cap, and what the coming months will."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from dpdau_assets.cli.alerting import tell_of_overrides
from dpdau_assets.cli.terminal import DAY, answer, opened_store, tell, tell_table
from dpdau_assets.core.budget import overrides
from dpdau_assets.core.budget.forecast import Forecast, MonthForecast, RefusedRelease, forecast
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.reporting.answers import budget_answer, last_published_month, override_rows
from dpdau_assets.core.reporting.as_json import as_json
from dpdau_assets.core.reporting.label import label_on_record
from dpdau_assets.core.settings import Metric, Settings
from resources.ledger_sql.database import Database, open_engine, schema_version
from resources.ledger_sql.ledger import SqlLedger
from resources.settings_env import SECRETS, Environment, read_settings
from resources.store import ledger_url, open_store

REFUSED = 4
TABLE_WIDTH = 120
NOT_TRIED = {"DATA_DIR", *map(str.upper, SECRETS)}

app = typer.Typer()


@app.command()
def budget(
    metric: Annotated[Metric, typer.Argument()],
    month: Annotated[datetime | None, typer.Option(formats=["%Y-%m"], help="Default: the last published.")] = None,
) -> None:
    """Show what a month has spent of its cap."""
    store = opened_store()
    with store.accountant.snapshot() as ledger:
        asked = month.date() if month else last_published_month(metric, ledger)
        answer(budget_answer(metric, asked, store.settings, ledger))


@app.command()
def plan(
    months: Annotated[int, typer.Option(min=1, max=120, help="How many months from the next number on.")] = 12,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=DAY, help="Publish nothing before this day.")
    ] = None,
    changed: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="As if this were configured; repeatable.")
    ] = None,
) -> None:
    """Show what will be released, what it will be charged, and the first refusal; nothing is written.

    From where the ledger stands. Exit code 4: a number will be refused, and the answer says which.
    """
    tried = _tried(changed or [])
    settings = read_settings(tried)
    if first and first.date() < settings.start_date:
        raise typer.BadParameter(f"--from {first:%Y-%m-%d} is before START_DATE.")
    coming = forecast(_ledger(settings), settings, months, first.date() if first else None)
    answer({"changed": tried, **as_json(coming)})
    tell_table(forecast_table(coming), TABLE_WIDTH)  # narrower, figures would be cut short
    for stream in coming.new_streams:
        twice = ", ".join(f"{month:%Y-%m}" for month in stream.months_charged_twice) or "no month"
        tell(f"{stream.metric} begins another stream on {stream.first_day}; charged for both: {twice}.")
    if coming.refused:
        _tell_refusal(coming.refused[0])
        raise typer.Exit(REFUSED)


@app.command()
def reset_budget(
    metric: Annotated[Metric, typer.Argument()],
    month: Annotated[datetime, typer.Option(formats=["%Y-%m"])],
    cap: Annotated[str, typer.Option(help="The new epsilon of this month of this metric.")],
    who: Annotated[str, typer.Option(help="Who decides it; on record for ever.")],
    why: Annotated[str, typer.Option(help="For what reason; on record for ever.")],
) -> None:
    """Give one month another cap, by an override that every later report shows; nothing that was spent is forgotten."""
    try:
        epsilon = Fraction(cap)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"--cap {cap} is not a number.") from None
    store = opened_store()
    overrides.reset_budget(metric, month.date(), epsilon, who, why, store)
    tell_of_overrides(store)
    answer(
        {
            "metric": metric,
            "month": f"{month:%Y-%m}",
            "overrides": override_rows(metric, month.date(), store.accountant),
        }
    )


@app.command()
def label() -> None:
    """Print the privacy label of DAU, of MAU and of both, in the shape of OpenDP's deployments registry."""
    store = opened_store()
    answer(label_on_record(store.accountant, store.settings))


def _tell_refusal(refused: RefusedRelease) -> None:
    of = "the restatement of " if refused.release.revision else ""
    what = f"{of}{refused.release.metric} of {refused.release.day}, due {refused.release.due_on}"
    tell(f"The first refusal: {what}. {refused.error.reason}\n{refused.error.remedy}", style="bold")


def forecast_table(coming: Forecast) -> Table:
    """One row a month and metric, in Markdown."""
    columns = ("month", "metric", "out", "to come", "first due", "last due", "charged", "cap", "left", "std", "95 %")
    table = Table(*columns, box=box.MARKDOWN)
    for month in coming.months:
        table.add_row(*_cells(month))
    return table


def _cells(row: MonthForecast) -> tuple[str, ...]:
    to_come = f"{row.first_numbers} + {row.restatements}" if row.restatements else f"{row.first_numbers}"
    return (
        f"{row.month:%Y-%m}",
        row.metric,
        str(row.published),
        f"{to_come}, {row.refused} refused" if row.refused else to_come,
        str(row.first_due or ""),
        str(row.last_due or ""),
        f"{row.charged:.3f}",
        f"{row.cap:g}",
        f"{round(row.headroom, 3) + 0.0:.3f}",
        "" if row.std is None else f"{row.std:.2f}",
        "" if row.half_width_95 is None else f"± {row.half_width_95:.1f}",
    )


def _tried(changed: list[str]) -> dict[str, str]:
    tried = {}
    for setting in changed:
        name, given, value = setting.partition("=")
        if not given or name.lower() not in Environment.model_fields:
            raise BadSetting(f"--set {name}: no such setting.", "Write --set NAME=VALUE, with a name of .env.example.")
        if name.upper() in NOT_TRIED:
            reason = f"--set {name.upper()}: it says where the ledger is, or is a secret, and is not for trying."
            raise BadSetting(reason, "Set it in the environment.")
        tried[name.upper()] = value
    return tried


def _ledger(settings: Settings) -> LedgerView:
    """The living ledger, which refuses other fixed settings than its own; without one, an empty one in memory.

    Opening a store for the first time fixes settings for ever, which is not for a plan to do.
    """
    begun = schema_version(open_engine(ledger_url(settings))) is not None
    return open_store(settings).accountant if begun else SqlLedger(Database("sqlite://"))
