"""How an input is to be read: what its command line, its named source and its preset say, the nearer before the
farther.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.event_shape import PLAIN, ActiveWhen, EventShape, Field, FieldName, UnixUnit
from resources.databases.addresses import Address, address_written
from resources.databases.snapshots import Query
from resources.reading.event_files import FileOptions, Format
from resources.reading.presets import PRESETS

FORMATS: tuple[Format, ...] = ("json", "csv", "parquet")
UNITS: tuple[UnixUnit, ...] = ("s", "ms", "us", "ns")
QUERY_SECONDS = 3600
"""How long a query may take, if nobody says."""

_TIMES: tuple[FieldName, ...] = ("day", "ts")


@dataclass(frozen=True)
class InputOptions:
    """What somebody says of an input; None and empty where nothing is said.

    `locations` are paths, globs and URLs, and of an `sql` file the one database; `columns` are the fields that are
    named; `preset` is the name of one; `timeout` are the seconds that a query may take.
    """

    locations: tuple[str, ...] = ()
    format: Format | None = None
    encoding: str | None = None
    delimiter: str | None = None
    preset: str | None = None
    columns: Mapping[FieldName, Field] = field(default_factory=lambda: MappingProxyType({}))
    active_when: ActiveWhen | None = None
    unit: UnixUnit | None = None
    zone: ZoneInfo | None = None
    sql: Path | None = None
    timeout: int | None = None

    def over(self, farther: InputOptions) -> InputOptions:
        """These options, and the farther ones for what they leave open."""
        said = {part.name: getattr(self, part.name) or getattr(farther, part.name) for part in fields(self)}
        return InputOptions(**{**said, "columns": _columns_over(self.columns, farther.columns)})

    def file_options(self) -> FileOptions:
        """What is declared of the files' bytes."""
        return FileOptions(self.format, self.encoding, self.delimiter)

    def query(self) -> tuple[Address, Query] | None:
        """The database and the query that `sql` asks it; None where files are read.

        Raises BadSetting for another number of locations than one, for what is said of files, and for a query that
        cannot be read or is empty; BadSetting and BadInput as `address_written` does.
        """
        if self.sql is None:
            if self.timeout is not None:
                raise BadSetting("A time-out is of a query.", "Leave it out, or name a query with --sql.")
            return None
        if len(self.locations) != 1:
            raise BadSetting("A query is asked of one database.", "Name it with --from, once.")
        if self.format or self.encoding or self.delimiter:
            raise BadSetting("A query has no format, encoding or delimiter.", "Leave them out.")
        try:
            text = self.sql.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
            raise BadSetting(f"{self.sql} cannot be read: {said}.", "Name a file with one SELECT.") from None
        if not text.strip():
            raise BadSetting(f"{self.sql} is empty.", "Write one SELECT into it.")
        address = address_written(self.locations[0])
        return address, Query(text, f"{self.sql.name} at {address}", self.timeout or QUERY_SECONDS)

    def shape(self) -> EventShape:
        """Where the fields stand. Raises BadSetting for a preset that there is not."""
        preset = preset_shape(self.preset) if self.preset else PLAIN
        return EventShape(
            MappingProxyType(_columns_over(self.columns, preset.fields)),
            self.active_when or preset.active_when,
            self.unit or preset.unit,
            self.zone or preset.naive_zone,
        )


def preset_shape(name: str) -> EventShape:
    """The shape of a preset. Raises BadSetting for a name that there is not."""
    if name not in PRESETS:
        raise BadSetting(f"There is no preset {name}.", f"There are {', '.join(PRESETS)}.")
    return PRESETS[name].shape


def timeout_written(seconds: object, where: str) -> int:
    """Raises BadSetting for what is no number of whole seconds from 1 up."""
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 1:
        raise BadSetting(f"{where} {seconds}: not a number of seconds.", "Give a whole number from 1 up.")
    return seconds


def format_written(text: str, where: str) -> Format:
    """Raises BadSetting for another format."""
    return cast(Format, _one_of(text, FORMATS, where))


def unit_written(text: str, where: str) -> UnixUnit:
    """Raises BadSetting for another unit of Unix times."""
    return cast(UnixUnit, _one_of(text, UNITS, where))


def zone_written(text: str, where: str) -> ZoneInfo:
    """Raises BadSetting for a zone that is not known."""
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSetting(f"{where} {text}: no such time zone.", "Name it as in Europe/Berlin, or UTC.") from None


def delimiter_written(text: str, where: str) -> str:
    r"""One character; a tab may be written `\t`. Raises BadSetting for what no columns are separated by."""
    delimiter = "\t" if text in (r"\t", "tab") else text
    if len(delimiter) != 1 or delimiter in "\"'\r\n" or delimiter.isalnum():
        raise BadSetting(f"{where} {text}: not a delimiter.", r"Give one character, as , ; | or \t.")
    return delimiter


def _one_of(text: str, known: tuple[str, ...], where: str) -> str:
    if text not in known:
        raise BadSetting(f"{where} {text}: not known.", f"It can be {', '.join(known)}.")
    return text


def _columns_over(nearer: Mapping[FieldName, Field], farther: Mapping[FieldName, Field]) -> dict[FieldName, Field]:
    """The fields of both. Who names a time names all of them: a farther `day` would win over the nearer `ts`."""
    hidden = _TIMES if any(name in nearer for name in _TIMES) else ()
    return {**{name: where for name, where in farther.items() if name not in hidden}, **nearer}
