"""The commands of every day: declare a day complete, see where everything stands, ask the checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from dpdau_assets.cli.alerting import tell_of_tampering
from dpdau_assets.cli.scheduled import knowing_the_schedule
from dpdau_assets.cli.terminal import DAY, answer, opened_store, tell, tell_table
from dpdau_assets.core.publication import completeness
from dpdau_assets.core.reporting.answer_model import DeclaredDays, Status, WithdrawnDays
from dpdau_assets.core.reporting.checks import CHECKS, Check, Verdict, tampering_in
from dpdau_assets.core.reporting.checks import answer as ask
from dpdau_assets.core.reporting.status import status as where_it_stands
from resources.store import open_mart

FAILED = 4
WIDTH = 100
_NAMED = 3  # as many days as one line names

app = typer.Typer()


@app.command()
def complete(
    days: Annotated[list[datetime], typer.Argument(formats=DAY, metavar="DAY...")],
    undo: Annotated[bool, typer.Option("--undo", help="Take the declaration back, of days not published yet.")] = False,
) -> None:
    """Declare that all events of these days have been handed in: they are published when they are due.

    An event that comes after its day's publication is late. All days are declared, or none.
    """
    store = opened_store()
    wanted = tuple(sorted({day.date() for day in days}))
    if undo:
        completeness.withdraw_all(wanted, store)
        answer(WithdrawnDays(wanted))
    else:
        completeness.complete_all(wanted, store)
        answer(DeclaredDays(wanted))


@app.command()
def status() -> None:
    """Show what is published, pending, overdue and spent. It changes nothing, and works beside everything else."""
    store = knowing_the_schedule(opened_store())
    standing = where_it_stands(store, open_mart(store.settings))
    answer(standing)
    tell_table(_screen(standing), WIDTH)


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: every check.")] = None,
) -> None:
    """Ask the checks of the store, as Dagster's job check_store does.

    Exit code 4: one fails. Work that is under way (no_pending_erasures) is no failure.
    """
    chosen = _chosen(names or [])
    store = knowing_the_schedule(opened_store())
    mart = open_mart(store.settings)
    verdicts = [(check, ask(check, store, mart)) for check in chosen]
    answer([_row(check, verdict) for check, verdict in verdicts])
    tell_table(_verdicts(verdicts), WIDTH)
    tell_of_tampering(tampering_in(verdicts), store)
    failed = [check.name for check, verdict in verdicts if not verdict.passed and not check.waiting]
    if failed:
        tell(f"Failed: {', '.join(failed)}.", style="bold")
        raise typer.Exit(FAILED)


# --- Checks ------------------------------------------------------------------------------------------------------


def _chosen(names: Sequence[str]) -> list[Check]:
    known = {check.name: check for check in CHECKS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"No check is called {', '.join(unknown)}. There are: {', '.join(known)}.")
    return [known[name] for name in names] or list(CHECKS)


def _row(check: Check, verdict: Verdict) -> dict[str, Any]:
    return {
        "name": check.name,
        "guards": check.guards,
        "passed": verdict.passed,
        "waiting": check.waiting,
        "sentence": verdict.sentence,
        "places": list(verdict.places),
    }


def _verdicts(verdicts: Sequence[tuple[Check, Verdict]]) -> Table:
    table = Table("check", "verdict", "found", box=box.SIMPLE_HEAD)
    for check, verdict in verdicts:
        word = "passed" if verdict.passed else "waits" if check.waiting else "FAILED"
        table.add_row(check.name, word, escape(verdict.sentence))
    return table


# --- One screen --------------------------------------------------------------------------------------------------


def _screen(standing: Status) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in _lines(standing):
        table.add_row(name, escape(text))
    return table


def _lines(standing: Status) -> Iterator[tuple[str, str]]:
    """The screen from top to bottom: what each line is about, and what there is to say of it."""
    yield "today", str(standing.today)
    yield from _published_lines(standing)
    yield from _lines_of_work(standing)
    yield from _erasure_lines(standing)
    yield from (("overdue", sentence) for sentence in standing.overdue or ("nothing",))
    yield from _budget_lines(standing)
    yield from _retention_lines(standing)


def _published_lines(standing: Status) -> Iterator[tuple[str, str]]:
    for series in standing.published:
        going_on = f"through {series.last_day}, next {series.next_day}, due {series.next_slot}"
        yield f"published {series.metric}", going_on if series.last_day else "nothing yet"


def _lines_of_work(standing: Status) -> Iterator[tuple[str, str]]:
    """What can be published, what keeps a number from it, and what is to be built anew."""
    yield "ready now", _named(standing.ready_days) or "nothing"
    if standing.ready_months:
        yield "to restate", ", ".join(f"{month:%Y-%m}" for month in standing.ready_months)
    undeclared = f"{_named(standing.unmarked)}: upstream, or `dpdau complete`"
    yield "not complete", undeclared if standing.unmarked else "no day due"
    if standing.without_marker:
        yield "no _SUCCESS", f"{_named(standing.without_marker)}: event files are there in LANDING_DIR, and no marker"
    if standing.refused:
        yield "refused", standing.refused
    yield "to rebuild", _named(standing.behind) or "nothing"


def _erasure_lines(standing: Status) -> Iterator[tuple[str, str]]:
    for waiting in standing.erasures:
        late = ", OVERDUE" if waiting.is_overdue else ""
        yield "erasure waits", f"since {waiting.received_on}, {waiting.age_days} day(s), until {waiting.deadline}{late}"
    if not standing.erasures:
        yield "erasures", "all verified"


def _budget_lines(standing: Status) -> Iterator[tuple[str, str]]:
    for month in standing.spent:
        cost = f"ε {month.spent:.3f} spent, {month.charged:.3f} charged, of {month.cap:.3f}"
        yield f"spent {month.metric} {month.month:%Y-%m}", cost


def _retention_lines(standing: Status) -> Iterator[tuple[str, str]]:
    if standing.purge_due or standing.purged_through:
        yield "retention", f"purged through {standing.purged_through or 'no day'}, due through {standing.purge_due}"


def _named(days: Sequence[date]) -> str:
    """A few of them by name, and how many there are."""
    if len(days) <= _NAMED:
        return ", ".join(map(str, days))
    return f"{len(days)} days, {days[0]} to {days[-1]}"
