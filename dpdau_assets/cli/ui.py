"""`dpdau ui`: Dagster's web server and daemon on one's own store."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from dpdau_assets.cli.listening import LOOPBACK, require_free
from dpdau_assets.cli.terminal import answer, on_terminal, tell
from resources.dagster_files import WORKSPACE, environment_of_dagster, prepare_home, shipped
from resources.settings_env import dagster_home, read_settings

app = typer.Typer()


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="The address to listen on. Dagster asks nobody for a name.")] = "127.0.0.1",
) -> None:
    """Open the Dagster UI on this store, with the daemon that runs its schedules and sensors, until it is ended.

    It needs no `dpdau run` before, and no DAGSTER_HOME: what is missing is made.
    """
    settings = read_settings()
    require_free(host, port, "The UI", "dpdau ui")
    home = dagster_home(settings)
    prepare_home(home)
    if settings.hash_salt_secret is None:
        tell("HASH_SALT_SECRET is not set: the UI opens, and what needs the secret will fail.", style="bold")
    if host not in LOOPBACK:
        tell(f"Whoever reaches {host} can read Dagster's log, start every job and publish.", style="bold")
    environment = environment_of_dagster(settings, _log_format())
    answer({"url": f"http://{f'[{host}]' if ':' in host else host}:{port}", "dagster_home": str(home)})
    tell("Dagster is starting; Ctrl-C ends it.")
    sys.stdout.flush()
    os.dup2(2, 1)  # Dagster's log is for people
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # where a script has it ignored, Dagster would ignore SIGTERM as well
    os.chdir(home)  # no .env is here, and no folder that has the name of a module
    os.execve(sys.executable, command(host, port), environment)


def command(host: str, port: int) -> list[str]:
    """Web server, daemon and code server, which end together."""
    serving = [sys.executable, "-m", "dpdau_assets.serving", "--log-format", _log_format()]
    return [*serving, "--workspace", str(shipped(WORKSPACE)), "--host", host, "--port", str(port)]


def _log_format() -> str:
    """Elsewhere than on a terminal each message is one line, without colours."""
    return "colored" if on_terminal() else "json"
