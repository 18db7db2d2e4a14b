"""What the commands share: JSON on stdout, words and progress on stderr, the store, Dagster runs in this process.

Every command imports this, `--help` too: what is heavy is imported where it is used.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from dpdau_assets.core.ports import Outside
    from dpdau_assets.core.runs import Step

DAY = ["%Y-%m-%d"]
From: TypeAlias = Annotated[datetime, typer.Option("--from", formats=DAY, help="First day.")]
To: TypeAlias = Annotated[datetime, typer.Option("--to", formats=DAY, help="Last day.")]


def open_outside() -> Outside:
    """The store that the environment names."""
    from resources.settings_env import read_settings
    from resources.store import open_store

    return open_store(read_settings())


def answer(value: object) -> None:
    """For machines."""
    typer.echo(json.dumps(value))


def tell_plainly(text: str) -> None:
    """For people, without markup, which takes longer to load than a number to find."""
    typer.echo(text, err=True)


def tell(text: str, style: str | None = "dim") -> None:
    """For people; `text` is markup, and what comes from outside is escaped in it."""
    from rich.console import Console

    Console(stderr=True).print(text, style=style, highlight=False)


def require_order(first: datetime, last: datetime) -> None:
    """Wrong usage if a range ends before it begins."""
    if last < first:
        raise typer.BadParameter(f"--to {last:%Y-%m-%d} is before --from {first:%Y-%m-%d}.")


def run_through_dagster(title: str, wanted: Sequence[Step], outside: Outside) -> None:
    """One Dagster run a step, so that the UI knows of each; the first failure is raised as it is."""
    warnings.filterwarnings("ignore", message=".* is currently in (preview|beta)")  # APIs of Dagster, chosen young
    from dpdau_assets.definitions import build_definitions  # Dagster takes seconds to import
    from dpdau_assets.jobs import open_instance, run_steps
    from resources.settings_env import dagster_home

    definitions = build_definitions(outside.settings)
    with open_instance(dagster_home(outside.settings)) as instance, progress() as shown:
        task = shown.add_task(title, total=len(wanted))
        run_steps(
            list(wanted), definitions, instance, lambda step: shown.update(task, advance=1, description=step.title)
        )


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar that people see while they wait."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        yield shown
