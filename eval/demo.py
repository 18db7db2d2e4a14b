"""`make demo`: real events in, four months of published DAU and MAU out, by the commands that a user would type.

`python -m eval.demo --prepare` stops after the events are in, for `make dev`. `python -m eval.demo --check` publishes
what is missing and asks every check of the demo's store, by the command line and as Dagster's job, for `make check`.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from datetime import date
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.reporting.checks import CHECKS
from resources.published.frames import read_mart, series

HOME = Path(".demo")
EVENTS = Path(__file__).resolve().parent / "data" / "oulad_register_submit" / "events.parquet"
FIRST, LAST = date(2013, 12, 15), date(2014, 4, 14)
console = Console()


def main(arguments: list[str]) -> None:
    """Run the demo in ./.demo; running it again shows the same numbers, for each was drawn once."""
    environment = prepare()
    if "--prepare" in arguments:
        return
    dpdau(environment, "run", "--from", str(FIRST), "--to", str(LAST))
    if "--check" in arguments:
        sys.exit(check(environment))
    show_series(HOME / "data" / "mart")
    show_budget(environment)
    console.print(f"\nPlot: {HOME / 'data' / 'mart' / 'active_users.svg'}")
    console.print("One number: [bold]. .demo/env && .venv/bin/dpdau dau 2014-02-27[/]")
    console.print("The Dagster UI on this data: [bold]make dev[/], then http://127.0.0.1:3000/asset-groups")


def prepare() -> dict[str, str]:
    """Make the demo's settings, with a secret of its own, and take the events in."""
    settings = HOME / "env"
    if not settings.exists():
        HOME.mkdir(exist_ok=True)
        home = HOME.resolve()
        settings.touch(mode=0o600)
        settings.write_text(
            f"export DATA_DIR='{home}/data'\nexport DAGSTER_HOME='{home}/dagster_home'\n"
            f"export MART_DIR=\nexport START_DATE=2012-03-01\nexport HASH_SALT_SECRET={secrets.token_hex(32)}\n"
        )
    lines = (line.removeprefix("export ") for line in settings.read_text().splitlines())
    environment = dict(line.split("=", 1) for line in lines if line)
    environment = {**os.environ, **{name: value.strip("'") for name, value in environment.items()}}
    dpdau(environment, "ingest", "--from", str(EVENTS))
    return environment


def dpdau(environment: dict[str, str], *arguments: str) -> dict[str, object]:
    """One command as a user types it; what it prints for machines."""
    console.print(f"[bold]$ dpdau {' '.join(arguments)}[/]")
    command = [sys.executable, "-m", "dpdau_assets.cli", *arguments]
    # In the demo's folder, so that a .env of the user's own is not read.
    done = subprocess.run(command, env=environment, cwd=HOME, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def check(environment: dict[str, str]) -> int:
    """The checks, asked in both ways; the exit code of the first that has failed, else 0."""
    # Its events end in 2014, and its numbers with them: every day since is overdue, of which that check is rightly red.
    names = [check.name for check in CHECKS if check.name != "published_on_time"]
    job = [str(Path(sys.executable).with_name("dagster")), "job", "execute", "-m", "dpdau_assets.definitions"]
    asked = [
        [sys.executable, "-m", "dpdau_assets.cli", "check", *names],
        [*job, "-j", "check_store"],
    ]
    codes = [
        subprocess.run(command, env=environment, cwd=HOME, stdout=subprocess.DEVNULL).returncode for command in asked
    ]
    return next((code for code in codes if code), 0)


def show_series(mart: Path) -> None:
    """Every tenth day of both series."""
    table = Table("day", "DAU", "95 % interval", "MAU", "95 % interval", title="Published active users, every 10th day")
    numbers = read_mart(mart)
    both = pd.concat({metric: series(numbers, metric) for metric in METRICS}, axis=1).sort_index()
    for day, of_both in both[::10].iterrows():
        cells = (cell for metric in METRICS for cell in _cells(*of_both.loc[metric].tolist()))
        table.add_row(f"{day:%Y-%m-%d}", *cells)
    console.print(table)


def show_budget(environment: dict[str, str]) -> None:
    """What February has spent."""
    table = Table("metric", "month", "epsilon spent", "cap", "numbers made", "planned", title="Privacy budget")
    for metric in ("dau", "mau"):
        answer = dpdau(environment, "budget", metric, "--month", "2014-02")
        spent, cap = f"{answer['epsilon_spent']:.3f}", f"{answer['epsilon_cap']:.1f}"
        table.add_row(metric, "2014-02", spent, cap, str(answer["releases_made"]), str(answer["releases_planned"]))
    console.print(table)


def _cells(estimate: float, low: float, high: float) -> tuple[str, str]:
    """Empty on a day that has no number of this metric."""
    return ("", "") if pd.isna(estimate) else (f"{estimate:,.1f}", f"{low:,.1f} to {high:,.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
