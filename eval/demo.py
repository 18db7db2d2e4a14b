"""`make demo`: real events in, months of published DAU and MAU out, by the commands that a user would type.

The events' days are moved so that they go on today; `eval.moved_events` says how. Run on a later day, it takes in what
has landed since, and publishes the days up to yesterday.

`python -m eval.demo --publish` shows no numbers, and is quick where nothing is left to publish, for `make dev`.
`python -m eval.demo --check` asks every check of the demo's store, by the command line and as Dagster's job, for
`make check`.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from dpdau_assets.core.dates import days_between, month_of
from dpdau_assets.core.privacy.schedule import METRICS
from eval.moved_events import Move, lay_out, move_from, move_until
from resources.dagster_files import WORKSPACE, shipped
from resources.published.frames import read_mart, series
from resources.settings_env import Environment
from resources.store import SystemClock

HOME = Path(".demo")
TIMEZONE = "UTC"
WEEKS = "DEMO_WEEKS"
API_KEY = "SERVICE_API_KEY"
console = Console()
_JOB = ("job", "execute", "-m", "dpdau_assets.definitions", "-j")
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Demo:
    """The demo's folder, the environment of its commands, and how far its events are moved."""

    home: Path
    environment: Mapping[str, str]
    move: Move

    @property
    def events(self) -> Path:
        """What the store is begun with."""
        return self.home / "events.parquet"

    @property
    def landing(self) -> Path:
        """What comes after it."""
        return self.home / "landing"


def main(arguments: list[str]) -> None:
    """Run the demo in ./.demo; running it again shows the same numbers, for each was drawn once."""
    demo = prepare(HOME.resolve())
    yesterday = publish(demo, even_if_done="--publish" not in arguments)
    switch_schedules_on(demo)
    if "--publish" in arguments:
        return
    if "--check" in arguments:
        sys.exit(check(demo))
    show_series(demo)
    show_budget(demo, yesterday)
    console.print(f"\nPlot: {HOME / 'data' / 'mart' / 'active_users.svg'}")
    console.print(f"One number: [bold]. .demo/env && .venv/bin/dpdau dau {yesterday}[/]")
    console.print("The Dagster UI on this data: [bold]make dev[/], then http://127.0.0.1:3000/asset-groups")
    console.print("The HTTP API on this data: [bold]make serve[/], then http://127.0.0.1:8000/docs")


# --- Settings and events -----------------------------------------------------------------------------------------


def prepare(home: Path) -> Demo:
    """Make the demo's settings, with a secret of its own, and lay out its events; both are kept from then on."""
    if not (home / "env").exists():
        begin(home, move_until(SystemClock(TIMEZONE).today() - timedelta(days=1)))
    kept = kept_settings(home)
    if WEEKS not in kept:
        sys.exit(f"{home} is of an earlier demo, which did not go on today: `make clean`, or remove that folder.")
    if API_KEY not in kept:  # of a demo from before there was an API
        with (home / "env").open("a") as settings:
            settings.write(_api_key())
        kept = kept_settings(home)
    others = {name: value for name, value in os.environ.items() if name.lower() not in Environment.model_fields}
    demo = Demo(home, {**others, **kept}, move_from(int(kept[WEEKS]), date.fromisoformat(kept["START_DATE"])))
    lay_out(demo.move, demo.events, demo.landing)
    return demo


def kept_settings(home: Path) -> dict[str, str]:
    """What a shell reads from the demo's settings."""
    lines = (line.removeprefix("export ") for line in (home / "env").read_text().splitlines())
    return {name: value.strip("'") for name, value in (line.split("=", 1) for line in lines if line)}


def begin(home: Path, move: Move) -> None:
    """Write the settings: whole, or not at all."""
    home.mkdir(exist_ok=True)
    new = home / "env.new"
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(
        f"export DATA_DIR='{home}/data'\nexport DAGSTER_HOME='{home}/dagster_home'\n"
        f"export LANDING_DIR='{home}/landing'\nexport MART_DIR=\n"
        f"export TIMEZONE={TIMEZONE}\nexport START_DATE={move.first}\nexport GRACE_DAYS=0\n"
        f"export {WEEKS}={move.weeks}\nexport HASH_SALT_SECRET={secrets.token_hex(32)}\n"
        f"{_api_key()}"
    )
    new.replace(home / "env")


def _api_key() -> str:
    return f"export {API_KEY}={secrets.token_urlsafe(32)}\n"


# --- Publication -------------------------------------------------------------------------------------------------


def publish(demo: Demo, *, even_if_done: bool) -> date:
    """Take in and publish what is missing up to yesterday, which is returned; the mart is made anew with it."""
    standing = dpdau(demo, "status")
    yesterday = date.fromisoformat(standing["today"]) - timedelta(days=1)
    if yesterday > demo.move.last:
        sys.exit(f"The demo's events ended on {demo.move.last}: `make clean`, and `make demo` begins anew.")
    nexts = [metric["next_day"] for metric in standing["published"]]
    first = min(map(date.fromisoformat, nexts)) if all(nexts) else demo.move.first
    if first == demo.move.first:
        dpdau(demo, "ingest", "--from", str(demo.events))
    take_landed(demo, [day for day in days_between(first, yesterday) if day > demo.move.begun_with])
    if first <= yesterday or even_if_done:
        dpdau(demo, "run", "--from", str(min(first, yesterday)), "--to", str(yesterday))
    return yesterday


def take_landed(demo: Demo, days: list[date]) -> None:
    """What the inbox sensor has done under `make dev`: take in what landed, and declare these days complete."""
    if not days:
        return
    config = {"ops": {"take_landed_days": {"config": {"days": [str(day) for day in days]}}}, **_QUIET}
    (demo.home / "landed.yaml").write_text(json.dumps(config))  # which is YAML too
    _require(dagster(demo, *_JOB, "take_landed", "-c", "landed.yaml"))


def switch_schedules_on(demo: Demo) -> None:
    """Once: whoever switches one off finds it off."""
    switched_on = demo.home / "schedules_switched_on"
    if not switched_on.exists():
        _require(dagster(demo, "schedule", "start", "--start-all", "-w", str(shipped(WORKSPACE))))
        switched_on.touch()


def check(demo: Demo) -> int:
    """The checks, asked in both ways; the exit code of the first that has failed, else 0."""
    codes = [
        _run(demo, [sys.executable, "-m", "dpdau_assets.cli", "check"]).returncode,
        dagster(demo, *_JOB, "check_store"),
    ]
    return next((code for code in codes if code), 0)


# --- Commands ----------------------------------------------------------------------------------------------------


def dpdau(demo: Demo, *arguments: str) -> dict[str, Any]:
    """One command as a user types it; what it prints for machines."""
    console.print(f"[bold]$ dpdau {' '.join(arguments)}[/]", soft_wrap=True)
    done = _run(demo, [sys.executable, "-m", "dpdau_assets.cli", *arguments])
    _require(done.returncode)
    return json.loads(done.stdout)


def dagster(demo: Demo, *arguments: str) -> int:
    """One of Dagster's; its exit code."""
    console.print(f"[bold]$ dagster {' '.join(arguments)}[/]", soft_wrap=True)
    return _run(demo, [str(Path(sys.executable).with_name("dagster")), *arguments]).returncode


def _run(demo: Demo, command: list[str]) -> subprocess.CompletedProcess[str]:
    # In the demo's folder, so that a .env of the user's own is not read.
    return subprocess.run(command, env=demo.environment, cwd=demo.home, stdout=subprocess.PIPE, text=True, check=False)


def _require(code: int) -> None:
    if code:
        sys.exit(code)


# --- What came out -----------------------------------------------------------------------------------------------


def show_series(demo: Demo) -> None:
    """Every tenth day of both series, up to the last."""
    table = Table("day", "DAU", "95 % interval", "MAU", "95 % interval", title="Published active users, every 10th day")
    numbers = read_mart(demo.home / "data" / "mart")
    both = pd.concat({metric: series(numbers, metric) for metric in METRICS}, axis=1).sort_index()
    for day, of_both in both.iloc[(len(both) - 1) % 10 :: 10].iterrows():
        cells = (cell for metric in METRICS for cell in _cells(*of_both.loc[metric].tolist()))
        table.add_row(f"{day:%Y-%m-%d}", *cells)
    console.print(table)


def show_budget(demo: Demo, yesterday: date) -> None:
    """What the last month that is over has spent."""
    month = month_of(month_of(yesterday + timedelta(days=1)) - timedelta(days=1))
    name = f"{month:%Y-%m}"
    table = Table("metric", "month", "epsilon spent", "cap", "numbers made", "planned", title="Privacy budget")
    for metric in METRICS:
        answer = dpdau(demo, "budget", metric, "--month", name)
        spent, cap = f"{answer['epsilon_spent']:.3f}", f"{answer['epsilon_cap']:.1f}"
        table.add_row(metric, name, spent, cap, str(answer["releases_made"]), str(answer["releases_planned"]))
    console.print(table)


def _cells(estimate: float, low: float, high: float) -> tuple[str, str]:
    """Empty on a day that has no number of this metric."""
    return ("", "") if pd.isna(estimate) else (f"{estimate:,.1f}", f"{low:,.1f} to {high:,.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
