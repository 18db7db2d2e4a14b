"""The commands that bring events: take them in, take an import back, make some up."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dpdau_assets.cli.erasure import passed_over, tell_parked, tell_passed_over
from dpdau_assets.cli.terminal import DAY, answer, open_outside, progress, tell
from dpdau_assets.core.activity import discard_batch
from dpdau_assets.core.ingest import ingest as ingest_files
from resources.event_files import event_files
from resources.settings_env import read_settings

app = typer.Typer()


@app.command()
def ingest(source: Annotated[Path, typer.Option("--from", help="A file, or a folder of files.")]) -> None:
    """Take events in: JSON Lines, CSV or Parquet, each also .gz. Twice the same file changes nothing."""
    outside = open_outside()
    files = event_files(source)
    with progress() as shown:
        report = ingest_files(files, outside, shown.stage)
    tell(f"{report.ingested} rows taken, {report.rejected} rejected.")
    if report.quarantine:
        tell(f"Where and why: {report.quarantine}")
    if report.removals.receipts:
        tell(f"{len(report.removals.receipts)} removal(s) among them are erasure requests now: `dpdau erasures`.")
    tell_passed_over(report.removals)
    if report.removals.parked:
        tell_parked(report.removals)
    answer({
        "ingested": report.ingested, "rejected": report.rejected, "days": [day.isoformat() for day in report.days],
        "batch": report.batch, "passed_over": passed_over(report.removals),
    })  # fmt: skip


@app.command()
def discard(batch: Annotated[str, typer.Argument(metavar="BATCH", help="As `ingest` answered it.")]) -> None:
    """Take back an ingested batch of events that was not folded into the state yet. Its removals stay requested."""
    discard_batch(batch, open_outside())
    answer({"discarded": batch})


@app.command()
def generate_synthetic(
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file to write.")],
    days: Annotated[int, typer.Option(min=1)] = 60,
    users: Annotated[int, typer.Option(min=1)] = 10_000,
    events: Annotated[int, typer.Option(min=1)] = 300_000,
    first_day: Annotated[datetime, typer.Option(formats=DAY)] = datetime(2025, 1, 1),
    seed: Annotated[int | None, typer.Option(help="Default: DEFAULT_SEED.")] = None,
) -> None:
    """Write made-up events, the same ones for the same seed."""
    from eval.simulate import generate_synthetic as generate

    chosen = read_settings().default_seed if seed is None else seed
    generate(out, days=days, users=users, events=events, first_day=first_day.date(), seed=chosen)
    tell(f"Made-up events written to {out}.")
    answer({"file": str(out), "events": events, "days": days, "users": users})
