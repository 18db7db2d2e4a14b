"""What the commands share: JSON on stdout, words and progress on stderr, the store, Dagster runs in this process.

Every command imports this, `--help` too: what is heavy is imported where it is used.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from dpdau_assets.core.ports.store import Store
    from dpdau_assets.core.publication.runs import Step

DAY = ["%Y-%m-%d"]
_WHOLE_LINES = 10_000
_SECONDS_APART = 1
From: TypeAlias = Annotated[datetime, typer.Option("--from", formats=DAY, help="First day.")]
To: TypeAlias = Annotated[datetime, typer.Option("--to", formats=DAY, help="Last day.")]


def opened_store() -> Store:
    """The store that the environment names."""
    from resources.settings_env import read_settings
    from resources.store import open_store

    return open_store(read_settings())


def answer(value: object) -> None:
    """For machines: a result in its public form."""
    from dpdau_assets.core.reporting.as_json import as_json

    typer.echo(json.dumps(as_json(value)))


def tell_plainly(text: str) -> None:
    """For people, without a style, which takes longer to load than a number to find."""
    typer.echo(text, err=True)


def tell(text: str, style: str = "dim") -> None:
    """For people: the text as it is, without markup, and with no line broken but by the terminal itself."""
    if not on_terminal():
        tell_plainly(text)
        return
    from rich.text import Text

    console().print(Text(text, style), soft_wrap=True)


def tell_table(table: Table, least_width: int) -> None:
    """For people: on a terminal as wide as it is, or as `least_width`; elsewhere a row is a line, however long."""
    people = console()
    people.width = max(people.width, least_width) if on_terminal() else _WHOLE_LINES
    people.print(table)


def on_terminal() -> bool:
    """Whether people watch stderr. What else reads it gets whole lines."""
    return sys.stderr is not None and sys.stderr.isatty()


def console() -> Console:
    """stderr, in colour on a terminal alone, whatever the environment says of colours."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, force_terminal=on_terminal())


def require_order(first: datetime, last: datetime) -> None:
    """Wrong usage if a range ends before it begins."""
    if last < first:
        raise typer.BadParameter(f"--to {last:%Y-%m-%d} is before --from {first:%Y-%m-%d}.")


def run_through_dagster(title: str, wanted: Sequence[Step], store: Store) -> None:
    """One Dagster run a step, so that the UI knows of each; the first failure is raised as it is."""
    warnings.filterwarnings("ignore", message=".* is currently in (preview|beta)")  # APIs of Dagster, chosen young
    from dpdau_assets.definitions import build_definitions  # Dagster takes seconds to import
    from dpdau_assets.orchestration.running import run_steps
    from resources.dagster_instance import open_run
    from resources.settings_env import dagster_home

    definitions = build_definitions(store.settings)
    with open_run(dagster_home(store.settings)) as instance, progress() as sink:
        sink.stage(f"{title}.")
        steps = count(1)
        run_steps(list(wanted), definitions, instance, lambda step: sink.advance(next(steps), len(wanted), step.title))


# --- Progress ----------------------------------------------------------------------------------------------------


class ProgressSink(Protocol):
    """What people see of long work. Each method may be called often, and by any thread."""

    def stage(self, text: str) -> None:
        """What is being done from now on, as a sentence."""
        ...

    def share(self, done: float, rows: int = 0) -> None:
        """How much of it is done, from 0 to 1, and about how many rows of it."""
        ...

    def advance(self, done: int, steps: int, text: str) -> None:
        """So many of the steps are done; the last one was `text`."""
        ...


@contextmanager
def progress() -> Iterator[ProgressSink]:
    """A bar on a terminal; elsewhere whole lines."""
    if not on_terminal() or console().is_dumb_terminal:
        yield Lines(tell_plainly, monotonic)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[count]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console(), transient=True) as bars:
        yield Bar(bars)


class Bar:
    """Progress on a terminal: the stage, a bar, and how far it is."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None, count="")
        self._began_at = monotonic()

    def stage(self, text: str) -> None:
        """A bar without an end."""
        self._began_at = monotonic()
        self._bars.reset(self._task, total=None, description=text, count="")

    def share(self, done: float, rows: int = 0) -> None:
        """A bar with per cent, and how fast it goes."""
        count = f"{_per_cent(done)} %{_pace(done, rows, monotonic() - self._began_at)}"
        self._bars.update(self._task, total=1, completed=done, count=count)

    def advance(self, done: int, steps: int, text: str) -> None:
        """A bar with the count of steps."""
        self._bars.update(self._task, total=steps, completed=done, description=text, count=f"{done}/{steps}")


class Lines:
    """Progress where nothing can be taken back, as in a log: a line a stage, and one at a further tenth of it.

    A second or more lies between the lines of a stage, so that short work shows none but the first; nor does a stage
    say that it is done, since what follows does.
    """

    def __init__(self, say: Callable[[str], None], seconds: Callable[[], float]) -> None:
        self._say = say
        self._seconds = seconds
        self._lock = Lock()
        self._begin("Working.")

    def stage(self, text: str) -> None:
        """A line."""
        with self._lock:
            self._begin(text)
            self._say(text)

    def share(self, done: float, rows: int = 0) -> None:
        """A line with per cent and how fast it goes, if one is due."""
        with self._lock:
            if self._is_due(done):
                pace = _pace(done, rows, self._seconds() - self._began_at)
                self._say(f"{self._text}: {_per_cent(done)} %{pace}")

    def advance(self, done: int, steps: int, text: str) -> None:
        """A line with the count of steps, if one is due."""
        with self._lock:
            if self._is_due(done / steps):
                self._say(f"{self._text}: {done} of {steps}, {text}")

    def _begin(self, text: str) -> None:
        self._text = text.removesuffix(".")
        self._tenth, self._said_at = 0, self._seconds()
        self._began_at = self._said_at

    def _is_due(self, share: float) -> bool:
        tenth, now = _per_cent(share) // 10, self._seconds()
        if not (self._tenth < tenth < 10 and now - self._said_at >= _SECONDS_APART):
            return False
        self._tenth, self._said_at = tenth, now
        return True


def _pace(done: float, rows: int, seconds: float) -> str:
    """Rows a second and the time that is left, in words; nothing where no rows are counted, or none yet."""
    if not rows or not done or seconds <= 0:
        return ""
    left = timedelta(seconds=round(seconds * (1 - done) / done))
    return f", {rows / seconds:,.0f} rows/s, {left} left"


def _per_cent(share: float) -> int:
    return int(100 * share + 1e-9)  # 0.29 is a little less
