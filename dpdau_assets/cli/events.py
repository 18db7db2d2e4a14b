"""The commands that bring events: take them in, take an import back, make some up."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dpdau_assets.cli.erasure import tell_parked, tell_passed_over
from dpdau_assets.cli.ingest_options import (
    ActiveWhen,
    Columns,
    Delimiter,
    Encoding,
    Format,
    Preset,
    Source,
    Sql,
    Timeout,
    Unit,
    Zone,
    explain,
    opened_input,
    options_written,
    with_remedy,
)
from dpdau_assets.cli.terminal import DAY, answer, opened_store, progress, tell
from dpdau_assets.core.publication.ingest import IngestReport, NotTaken, in_whole_per_cent
from dpdau_assets.core.publication.ingest import ingest as ingest_files
from dpdau_assets.core.reporting.taken import files_taken
from dpdau_assets.core.secret_strength import require_set
from dpdau_assets.core.state.activity import discard_batch
from resources.settings_env import read_settings

_NAMED = 5

app = typer.Typer()


@app.command()
def ingest(
    locations: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            help="A file, a folder of files, a pattern or a URL; several times for several. With --sql the "
            "URL or the file of a database.",
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take the good rows, also if more are bad than MAX_REJECTED_SHARE.")
    ] = False,
    columns: Columns = None,
    preset: Preset = None,
    source: Source = None,
    active_when: ActiveWhen = None,
    unit: Unit = None,
    zone: Zone = None,
    format_: Format = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    sql: Sql = None,
    timeout: Timeout = None,
    explain_only: Annotated[
        bool, typer.Option("--explain", help="Only say what would be read as what. Nothing is taken or changed.")
    ] = False,
) -> None:
    """Take events in: JSON, CSV or Parquet, also packed. Twice the same file changes nothing.

    An input is refused whole if more of its rows are bad than MAX_REJECTED_SHARE, and is bad input if none is valid:
    then nothing of it is taken, no removal either.
    """
    options = options_written(
        locations or [],
        columns or [],
        preset=preset,
        source=source,
        unit=unit,
        zone=zone,
        encoding=encoding,
        delimiter=delimiter,
        format_=format_,
        active_when=active_when,
        sql=sql,
        timeout=timeout,
    )
    shape = options.shape()
    if explain_only:
        explain(options)
        return
    store = opened_store()
    require_set(store.settings.hash_salt_secret)
    with opened_input(options) as (files, others):
        if others:
            names = ", ".join(others[:_NAMED]) + (", and more" if len(others) > _NAMED else "")
            tell(f"Passed over, since they are no files with an ending that is read: {names}.")
        try:
            with progress() as sink:
                report = ingest_files(files, store, sink.stage, sink.share, shape=shape, partial=partial)
        except NotTaken as error:
            _tell_and_answer(error.report)
            raise with_remedy(error, files, shape) from None
    tell(f"{report.ingested} rows taken, {report.rejected} rejected.")
    if report.removals.receipts:
        tell(f"{len(report.removals.receipts)} removal(s) among them are erasure requests now: `dpdau erasures`.")
    tell_passed_over(report.removals)
    if report.removals.parked:
        tell_parked(report.removals)
    _tell_and_answer(report)


def _tell_and_answer(report: IngestReport) -> None:
    for remark in report.remarks:
        tell(remark)
    if report.idle:
        tell(f"{report.idle} row(s) are no activity by what counts as active: neither taken nor rejected.")
    if report.idle and not report.ingested and not report.rejected:
        tell("None is activity. If some should be, see with --explain which column is asked, and for which values.")
    if report.quarantine:
        tell(f"Where and why: {report.quarantine}")
    for day, share in report.elsewhere.items():
        tell(f"In the folder day={day}, {in_whole_per_cent(share)} of the events are of other days.")
    if report.removals_waiting:
        tell(
            f"{report.removals_waiting} removal(s) among its rows were not taken, and erase nobody yet: mend it first."
        )
    answer(files_taken(report))


@app.command()
def discard(batch: Annotated[str, typer.Argument(metavar="BATCH", help="As `ingest` answered it.")]) -> None:
    """Take back an ingested batch of events that was not folded into the state yet. Its removals stay requested."""
    store = opened_store()
    discard_batch(batch, store.events, store.state)
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
