"""What would be read as what: files alike in one account, with names and types, and no value of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from dpdau_assets.core.event_shape import FIELDS, EventShape, Field, FieldName
from resources.reading.columns_option import written
from resources.reading.event_query import EventQuery, InputQuery, Readable
from resources.reading.field_sql import Columns, EventFields, FieldSql, Place, remedy_for
from resources.reading.input_file import InputFile
from resources.reading.json_layout import QUIET

_NO_OBJECTS = (
    "Write a JSON object a line, an array of objects, or one object that holds such an array; or say what else it is, "
    "with --format."
)


@dataclass(frozen=True)
class FieldAccount:
    """A field of an event: the places it is taken from, each as `--columns` calls it, and their types.

    `unseen` are places that a sample did not show. No places and no constant: it is not there.
    """

    field: FieldName
    places: tuple[str, ...]
    types: tuple[str, ...]
    constant: str | None = None
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Account:
    """How some files, all alike, are read. `unused` are columns that nothing is taken from.

    `encoding` is None where it is told while a packed file is unpacked, `delimiter` where there is none. Without a
    column that is read there are no names in `unused`: they may be people.
    """

    files: tuple[str, ...]
    format: str
    compression: str | None
    encoding: str | None
    delimiter: str | None
    is_empty: bool
    fields: tuple[FieldAccount, ...]
    day_of_folder: bool
    active_when: str | None
    unix_times: str
    naive_zone: str | None
    unused: tuple[str, ...]

    @property
    def missing(self) -> list[FieldName]:
        """The fields that are not there."""
        there = {account.field for account in self.fields}
        return [name for name in FIELDS if name not in there]


def accounts(files: Sequence[Readable], shape: EventShape) -> list[Account]:
    """One account for files that are read alike, in order. Raises BadInput for a file that no event can be read of."""
    alike: dict[Account, list[str]] = {}
    with duckdb.connect(config=QUIET) as connection:
        for file in files:
            account = (
                _account_of_query(InputQuery(file, shape, connection), shape)
                if isinstance(file, EventQuery)
                else _account(InputFile(file, shape, connection), shape)
            )
            alike.setdefault(account, []).append(file.name)
    return [_named(account, names) for account, names in alike.items()]


def remedy_for_columns(files: Sequence[Readable], shape: EventShape) -> str | None:
    """What to do about the first file whose first rows do not show who did something, or when; None if all do.

    Only JSON can be so: of other files the columns are known, and whoever reads them says it at once.
    """
    with duckdb.connect(config=QUIET) as connection:
        for file in files:
            if isinstance(file, EventQuery):
                continue
            one = InputFile(file, shape, connection)
            if file.format == "json" and not one.is_empty and not _is_told(one.fields):
                return remedy_for(list(one.columns.types)) if one.columns.types else _NO_OBJECTS
    return None


def _is_told(fields: EventFields) -> bool:
    """Whether the columns say who and when, as far as a sample shows."""
    made = fields.fields.items()
    there = {name for name, field in made if not field.places or any(place.is_seen for place in field.places)}
    return "user_id" in there and not there.isdisjoint(("day", "ts"))


def _named(account: Account, names: Sequence[str]) -> Account:
    return Account(**{**vars(account), "files": tuple(names)})


def _account(input_file: InputFile, shape: EventShape) -> Account:
    """The account of one file, without its name."""
    file, is_empty = input_file.file, input_file.is_empty
    fields = EventFields((), {}) if is_empty else input_file.fields
    return Account(
        files=(),
        format=file.format,
        compression=file.compression,
        encoding=None if file.format == "parquet" else file.start.encoding,
        delimiter=input_file.delimiter if file.format == "csv" and not is_empty else None,
        is_empty=is_empty,
        fields=tuple(_field_account(name, fields.fields[name], shape) for name in FIELDS if name in fields.fields),
        day_of_folder=fields.folder_day is not None,
        active_when=_activity(shape) if fields.active else None,
        unix_times=_unix_times(shape),
        naive_zone=shape.naive_zone.key if shape.naive_zone else None,
        unused=() if is_empty else _unused(input_file.columns, fields),
    )


def _account_of_query(one: InputQuery, shape: EventShape) -> Account:
    fields = one.fields
    return Account(
        files=(),
        format="query",
        compression=None,
        encoding=None,
        delimiter=None,
        is_empty=False,
        fields=tuple(_field_account(name, fields.fields[name], shape) for name in FIELDS if name in fields.fields),
        day_of_folder=False,
        active_when=_activity(shape) if fields.active else None,
        unix_times=_unix_times(shape),
        naive_zone=shape.naive_zone.key if shape.naive_zone else None,
        unused=_unused(one.columns, fields),
    )


def _unix_times(shape: EventShape) -> str:
    return f"in {shape.unit}" if shape.unit else "in s, ms, us or ns by their size"


def _field_account(name: FieldName, made: FieldSql, shape: EventShape) -> FieldAccount:
    seen = [place for place in made.places if place.is_seen]
    return FieldAccount(
        name,
        tuple(map(_place_written, seen)),
        tuple(str(place.type) for place in seen),
        shape.fields[name].constant if name in shape.fields else None,
        tuple(_place_written(place) for place in made.places if not place.is_seen),
    )


def _place_written(place: Place) -> str:
    return written(Field(((place.column, *place.inside),)))


def _activity(shape: EventShape) -> str | None:
    active = shape.active_when
    if active is None:
        return None
    return f"{written(active.field)} is {'one' if active.are_active else 'none'} of {', '.join(sorted(active.values))}"


def _unused(columns: Columns, fields: EventFields) -> tuple[str, ...]:
    """Columns that are not read; none where the user_id was not seen, for then they may be no names at all."""
    user_id = fields.fields.get("user_id")
    if user_id is None or not any(place.is_seen for place in user_id.places):
        return ()
    return tuple(sorted(name for name in columns.types if name not in fields.needed))
