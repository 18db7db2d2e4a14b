"""What the command line says of an input: options made into a shape, and an account of it for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from dpdau_assets.core.event_shape import EventShape
    from dpdau_assets.core.publication.ingest import NotTaken
    from resources.reading.event_query import Readable
    from resources.reading.explaining import Account, FieldAccount
    from resources.reading.input_options import InputOptions

_LEAST_WIDTH = 100

Columns: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="Where fields stand, as user_id=distinct_id,ts=timestamp. A path: context.userId; the first of "
        "several: userId|anonymousId; a constant: op='+'."
    ),
]
Preset: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A vendor's shape: segment, rudderstack, posthog, amplitude, mixpanel, ga4, snowplow."),
]
Source: TypeAlias = Annotated[str | None, typer.Option(help="A source that is named in SOURCES_FILE.")]
Unit: TypeAlias = Annotated[str | None, typer.Option(help="Of Unix times: s, ms, us or ns. Default: by their size.")]
Zone: TypeAlias = Annotated[str | None, typer.Option(help="Of times that name none. Default: NAIVE_ZONE.")]
Encoding: TypeAlias = Annotated[
    str | None, typer.Option(help="Of text, as cp1252. Default: UTF-8, or UTF-16 if it shows.")
]
Delimiter: TypeAlias = Annotated[
    str | None, typer.Option(help=r"Of CSV: one character, \t for a tab. Default: what fits.")
]
Format: TypeAlias = Annotated[
    str | None, typer.Option("--format", help="json, csv or parquet. Default: by the file's ending.")
]
ActiveWhen: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Which rows are activity: event=open,login. Or which are not: event!=push_delivered."),
]

Sql: TypeAlias = Annotated[
    Path | None, typer.Option(help="A file with one SELECT, asked of the database that --from names.")
]
Timeout: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Seconds that the query may take. Default: 3600.")]


def options_written(
    locations: Sequence[str],
    columns: Sequence[str],
    *,
    preset: str | None,
    source: str | None,
    unit: str | None,
    zone: str | None,
    encoding: str | None,
    delimiter: str | None,
    format_: str | None,
    active_when: str | None,
    sql: Path | None,
    timeout: int | None,
) -> InputOptions:
    """The options of the command line over those of the source. Raises BadSetting for what cannot be read or is not
    known, and where nothing says where the input lies.
    """
    from dpdau_assets.core.errors import BadSetting
    from resources.reading import input_options
    from resources.reading.columns_option import activity_written, fields_written

    said = input_options.InputOptions(
        tuple(locations),
        input_options.format_written(format_, "--format") if format_ else None,
        encoding,
        input_options.delimiter_written(delimiter, "--delimiter") if delimiter else None,
        preset,
        fields_written(",".join(columns), "--columns") if columns else {},
        activity_written(active_when, "--active-when") if active_when else None,
        input_options.unit_written(unit, "--unit") if unit else None,
        input_options.zone_written(zone, "--zone") if zone else None,
        sql,
        timeout,
    )
    options = said.over(_source_named(source)) if source else said
    if not options.locations:
        raise BadSetting("Nothing says where the events lie.", "Name it with --from, or with a source's location.")
    return options


def _source_named(name: str) -> InputOptions:
    from resources.reading.source_file import source_named
    from resources.settings_env import read_settings

    return source_named(name, read_settings().sources_file)


@contextmanager
def opened_input(options: InputOptions) -> Iterator[tuple[Sequence[Readable], Sequence[str]]]:
    """What is read, and the names of what is passed over; a query's snapshot is open until the context ends."""
    asked = options.query()
    if asked is None:
        from resources.reading.event_files import events_at

        there = events_at(options.locations, options.file_options())
        yield there.files, there.others
        return
    from resources.reading.event_query import opened_query

    with opened_query(*asked) as query:
        yield [query], []


def explain(options: InputOptions) -> None:
    """Say what would be read as what, as JSON and for people. No store is opened, and none is made."""
    from dpdau_assets.cli.terminal import answer, tell, tell_table
    from resources.reading.explaining import accounts

    with opened_input(options) as (files, _):
        told = accounts(files, options.shape())
    for account in told:
        tell(heading(account))
        if not account.is_empty:
            tell_table(account_table(account), _LEAST_WIDTH)
            for line in remarks(account):
                tell(line)
    answer([account_as_json(account) for account in told])


def with_remedy(error: NotTaken, files: Sequence[Readable], shape: EventShape) -> NotTaken:
    """The error; where no row is valid since the columns are called otherwise, with what to do about that."""
    from dpdau_assets.core.publication.ingest import NoValidRow
    from resources.reading.explaining import remedy_for_columns

    remedy = remedy_for_columns(files, shape) if isinstance(error, NoValidRow) else None
    return NoValidRow(error.reason, remedy, error.report) if remedy else error


def heading(account: Account) -> str:
    """Which files, and how their bytes are read."""
    more = f" and {len(account.files) - 1} more" if len(account.files) > 1 else ""
    parts = [account.format, account.compression, account.encoding]
    delimiter = f"separated by {account.delimiter!r}" if account.delimiter else None
    how = ", ".join(filter(None, [*parts, delimiter]))
    return f"{next(iter(account.files))}{more}: {'empty' if account.is_empty else how}"


def account_table(account: Account) -> Table:
    """A row for each field of an event."""
    from rich import box
    from rich.table import Table

    table = Table("field", "is read from", "type", box=box.MARKDOWN)
    for field in account.fields:
        table.add_row(field.field, _read_from(field, account), ", ".join(dict.fromkeys(field.types)))
    for name in account.missing:
        table.add_row(name, "nothing: each row is '+'" if name == "op" else "nothing", "")
    return table


def _read_from(field: FieldAccount, account: Account) -> str:
    places = [*field.places, *([f"'{field.constant}'"] if field.constant is not None else [])]
    places += ["the folder's day"] if field.field == "day" and account.day_of_folder else []
    unseen = f"not in the first rows: {', '.join(field.unseen)}" if field.unseen else ""
    return "; ".join(filter(None, [", else ".join(places), unseen]))


def remarks(account: Account) -> list[str]:
    """How times are read, what is activity, and what is not used."""
    zone = account.naive_zone or "NAIVE_ZONE"
    said = [f"Unix times are {account.unix_times}; times without a zone are in {zone}."]
    said += [f"A row is activity if {account.active_when}."] if account.active_when else []
    return [*said, f"Not used: {', '.join(account.unused)}."] if account.unused else said


def account_as_json(account: Account) -> dict[str, object]:
    """The account for machines."""
    fields = {
        field.field: {
            "from": list(field.places),
            "types": list(field.types),
            "constant": field.constant,
            "not_seen": list(field.unseen),
        }
        for field in account.fields
    }
    return {
        "files": list(account.files),
        "format": account.format,
        "compression": account.compression,
        "encoding": account.encoding,
        "delimiter": account.delimiter,
        "empty": account.is_empty,
        "fields": fields,
        "missing": list(account.missing),
        "day_of_folder": account.day_of_folder,
        "unix_times": account.unix_times,
        "naive_zone": account.naive_zone,
        "active_when": account.active_when,
        "not_used": list(account.unused),
    }
