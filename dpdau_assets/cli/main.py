"""The command line: JSON on stdout, words for people on stderr, and an exit code that says what happened.

0 done, 1 unexpected, 2 usage or settings, 3 not there yet, 4 refused by budget or contract, or done only in part,
5 bad input, nothing taken.

Commands are listed here and written in the files beside this one. A file, and all that it needs, is imported when one
of its commands is called: `dpdau --help` and a mistyped word are answered at once.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from dpdau_assets.cli.terminal import on_terminal, tell, tell_plainly
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.secret_strength import WeakSecret
from dpdau_assets.core.version import VERSION

COMMANDS: dict[str, dict[str, str]] = {
    "events": {
        "ingest": "Take events in: JSON, CSV or Parquet, also packed.",
        "discard": "Take back an ingested batch of events that was not folded into the state yet.",
        "generate-synthetic": "Write made-up events, the same ones for the same seed.",
    },
    "publishing": {
        "run": "Declare these days complete, and publish DAU and MAU of each, in order.",
        "rebuild": "Build state and sketches of these days.",
    },
    "numbers": {
        "dau": "Show the published DAU of a day.",
        "mau": "Show the published MAU of the window that ends on a day.",
        "series": "Show the published numbers of a range of days, in order; days without a number are left out.",
    },
    "budget": {
        "budget": "Show what a month has spent of its cap.",
        "plan": "Show what will be released, what it will be charged, and the first refusal.",
        "reset-budget": "Give one month another cap, by an override that every later report shows.",
        "label": "Print the privacy label of DAU, of MAU and of both, in the shape of OpenDP's deployments registry.",
    },
    "daily": {
        "complete": "Declare that all events of these days have been handed in: they are published when they are due.",
        "status": "Show what is published, pending, overdue and spent.",
        "check": "Ask the checks of the store, as Dagster's job check_store does.",
    },
    "erasure": {
        "erase": "Ask for people to be erased.",
        "confirm": "Bring parked requests into force.",
        "cancel": "Forget requests.",
        "erasures": "List erasure requests, in order of arrival.",
        "receipt": "Read everything back, now, for one request, and show the signed receipt.",
        "flush-deletes": "Apply every request in force, rebuild the days, read everything back, write receipts.",
        "purge": "Unlink the days that RETENTION_DAYS lets go of, and shred the keys of epochs that are over.",
        "rotate-salt": "Wrap every key under a new master secret.",
    },
    "ledger": {
        "verify-ledger": "Read the whole ledger back: nothing changed, every number paid for.",
        "backup": "Write one consistent backup of the ledger and of the live files, whole or not at all.",
        "restore": "Restore into an empty ledger, and into a DATA_DIR without live files.",
        "reopen": "Declare that every erasure request since the restored backup was submitted again.",
        "migrate": "Bring the ledger of an earlier version up to date, in one transaction.",
    },
    "report": {
        "report": "Write what is published, promised and spent as HTML, readable offline.",
        "digest": "Show what the daily message says of the last published numbers.",
    },
    "api_key": {
        "api-key": "Make, list and revoke keys of the HTTP API.",
    },
    "serve": {
        "serve": "Serve the HTTP API on this store.",
    },
    "ui": {
        "ui": "Open the Dagster UI on this store.",
    },
}
"""By file: each command, and the line of it in the list, with which its own help begins."""


class LazyCommand(TyperCommand):
    """A command, or a group of them, that is imported when it is called; until then no more of it is known than its
    line in the list.
    """

    def __init__(self, name: str, file: str, line: str) -> None:
        super().__init__(name, help=line)
        self._file = file

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse what follows the command's name, as the command itself does: with its own parameters."""
        return self._load().make_context(*arguments, **options)

    def _load(self) -> Any:
        """The command itself."""
        return get_group(import_module(f"dpdau_assets.cli.{self._file}").app).commands[str(self.name)]


class LazyGroup(TyperGroup):
    """All commands, of which none is imported."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for file, lines in COMMANDS.items():
            self.commands.update({name: LazyCommand(name, file, line) for name, line in lines.items()})

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command; wrong usage is told in a frame on a terminal, and by whole lines elsewhere."""
        self.rich_markup_mode = "rich" if on_terminal() else None
        return super().main(*arguments, **options)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The list of commands, which looks the same everywhere."""
        self.rich_markup_mode = "rich"
        super().format_help(ctx, formatter)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Daily and monthly active users with differential privacy.",
)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version, if that is asked for."""
    if show:
        typer.echo(f"dpdau {VERSION}")
        raise typer.Exit


_LIVES_TO_THE_END = 100_000
"""How many objects are made before the collector looks for dead ones: those of the imports, a tenth of a start."""


def main() -> None:
    """Run the command line; an error of ours ends with its own exit code and says what to do."""
    gc.set_threshold(_LIVES_TO_THE_END)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", WeakSecret)
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            app()
    except DpdauError as error:
        tell(f"{type(error).__name__}: {error.reason}", style="bold")
        tell(error.remedy)
        sys.exit(error.exit_code)


def _show_warning(others: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Ours in one line, for people; others as Python shows them."""
    if issubclass(category, WeakSecret):
        tell_plainly(f"Warning: {message}")
    else:
        others(message, category, *place)
