"""An event file, and what its first rows say of it: its layout, its columns, where the fields of an event stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import duckdb
from duckdb import DuckDBPyConnection
from duckdb.sqltypes import DuckDBPyType

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.event_shape import EventShape, FieldName
from resources.reading.event_csv import DELIMITERS, Meant, delimiter_of, header_of
from resources.reading.event_files import EventFile, unreadable
from resources.reading.event_sql import Types, require_types
from resources.reading.event_tables import ParquetFooter, parquet_footer, parquet_schema
from resources.reading.field_sql import Columns, EventFields, event_fields, require_distinct
from resources.reading.json_layout import JsonLayout, layout_of, quoted_path, sampled_keys
from resources.reading.sql_text import identifier

_JSON, _VARCHAR = DuckDBPyType("JSON"), DuckDBPyType("VARCHAR")
_MOMENT = DuckDBPyType("TIMESTAMP WITH TIME ZONE")
_HEAD_BYTES = 1 << 16
_TEXTS: tuple[FieldName, ...] = ("op", "day", "ts")
_NAMES_OF_DUCKDB = frozenset(("file_row_number", "file_index"))


@dataclass(frozen=True)
class InputFile:
    """Everything is found out once, when it is asked for. Each raises BadInput for a file that cannot be read."""

    file: EventFile
    shape: EventShape
    connection: DuckDBPyConnection = field(repr=False)

    @cached_property
    def layout(self) -> JsonLayout:
        """How a JSON file holds its rows."""
        names = [path[0] for path in self.shape.fields["user_id"].paths] if "user_id" in self.shape.fields else []
        return layout_of(self.file, names)

    @cached_property
    def delimiter(self) -> str:
        """What separates the fields of a CSV."""
        wanted = {".".join(path) for where in self.shape.fields.values() for path in where.paths}
        return delimiter_of(self.file, wanted)

    @cached_property
    def header(self) -> tuple[list[str], int] | None:
        """The names of a CSV's columns, and the line with which they end; None for a file that holds nothing."""
        return header_of(self.file, self.delimiter)

    @cached_property
    def is_empty(self) -> bool:
        """Whether it is a part without any row, and without columns."""
        with self.file.stored() as stream:
            if not stream.read(1):
                return True
        if self.file.format == "csv":
            return self.header is None
        with self.file.opened() as stream:
            return not stream.read(1)

    @cached_property
    def columns(self) -> Columns:
        """The names and types of its columns; of JSON, what the first rows show."""
        is_sample = self.file.format == "json"
        if self.file.format == "csv":
            types: Types = dict.fromkeys(self.header[0] if self.header else [], _VARCHAR)
        elif is_sample:
            types = dict.fromkeys(sampled_keys(self.file, self.layout), _JSON)
        else:
            types = self._parquet_types()
        return Columns(self.file.name, types, self.file.folder_values, is_sample=is_sample)

    @cached_property
    def fields(self) -> EventFields:
        """Where the fields of an event stand in it. Raises BadInput where none can be made of its columns."""
        if self.file.format == "json":
            return _with_texts(event_fields(self.shape, self.columns), _TEXTS)
        require_distinct(self.names, self.shape, self.file.name)
        fields = event_fields(self.shape, self.columns)
        require_types({name: made.type for name, made in fields.fields.items()}, self.file.name)
        if self.file.format == "parquet" and self._footer.halves.intersection(
            place.column for place in fields.fields["user_id"].places
        ):
            raise BadInput(
                f"The ids of {self.file} are floats of two bytes, which are exact to 2,048 alone.",
                "Write the file again with CAST(user_id AS VARCHAR), from numbers that are whole.",
                path=self.file.name,
            )
        return fields

    @cached_property
    def fields_as_texts(self) -> EventFields:
        """Fields of JSON with user_id as text too, where it is a column by itself: fast, and no longer told apart are
        a number and the text of its digits.
        """
        return _with_texts(self.fields, ("user_id",))

    @cached_property
    def names(self) -> Sequence[str]:
        """The names of its columns as they stand in it, also one that stands there twice."""
        if self.file.format == "csv":
            return self.header[0] if self.header else []
        return list(self.columns.types) if self.file.format == "json" else self._footer.names

    @cached_property
    def utc_columns(self) -> frozenset[str]:
        """Columns of Parquet's old type INT96, which holds moments in UTC and does not say so."""
        return self._footer.int96

    @property
    def rows_in_footer(self) -> int:
        """How many rows a Parquet file says that it has."""
        return self._footer.rows

    @cached_property
    def about_rows(self) -> int:
        """About how many lines a text has that is as it is stored; by the length of its first ones."""
        with self.file.opened() as stream:
            head = stream.read(_HEAD_BYTES)
        return self.file.size * head.count(b"\n") // max(1, len(head))

    @cached_property
    def _footer(self) -> ParquetFooter:
        return parquet_footer(self.file)

    @property
    def is_read_by_duckdb(self) -> bool:
        """Whether DuckDB can open the file itself, and calls its columns as they are called. Only of Parquet."""
        names = [name.casefold() for name in self.names]
        is_itself = len(set(names)) == len(names) and not _NAMES_OF_DUCKDB.intersection(names)
        return self.file.is_plain and is_itself

    def meant(self, _: Sequence[str]) -> Meant:
        """Which of a CSV's columns say who did what and when."""
        op = self._columns_of("op")
        others = frozenset([*self._columns_of("day"), *self._columns_of("ts")])
        return Meant(frozenset(self._columns_of("user_id")), op[0] if op else None, others)

    def remarks(self) -> list[str]:
        """What was taken for granted of it, and had better be known."""
        if self.file.format == "csv" and not self.is_empty and self.file.delimiter is None and self.delimiter != ",":
            return [f"{self.file} is taken to be separated by {DELIMITERS[self.delimiter]}."]
        return []

    def _columns_of(self, name: FieldName) -> list[str]:
        made = self.fields.fields.get(name)
        return [place.column for place in made.places] if made else []

    def _parquet_types(self) -> Types:
        types = self._types_as_declared()
        return {name: _MOMENT if name in self.utc_columns else kind for name, kind in types.items()}

    def _types_as_declared(self) -> Types:
        if self.is_read_by_duckdb:
            return _types(self.connection, f"(FROM {read_parquet([self])})", self.file)
        schema = parquet_schema(self.file)
        numbered = schema.empty_table().rename_columns([f"c{place}" for place in range(len(schema.names))])
        self.connection.register("no_rows", numbered)
        try:
            types = _types(self.connection, "no_rows", self.file)
            return dict(zip(schema.names, types.values(), strict=True))
        finally:
            self.connection.unregister("no_rows")


def text_columns(fields: EventFields) -> frozenset[str]:
    """Which columns of JSON are read as texts at once."""
    texts = [
        made for name, made in fields.fields.items() if name in ("user_id", *_TEXTS) and str(made.type) == "VARCHAR"
    ]
    return frozenset(place.column for made in texts for place in made.places if identifier(place.column) == made.sql)


def _with_texts(fields: EventFields, names: Sequence[FieldName]) -> EventFields:
    """With fields as texts, where each is a column by itself: to the rules of op, day and ts a number is its digits."""
    queries = [made.sql for made in fields.all_made()]
    texts = {
        name: replace(made, type=_VARCHAR)
        for name, made in fields.fields.items()
        if name in names and [identifier(place.column) for place in made.places] == [made.sql]
        if sum(made.sql in query for query in queries) == 1
    }
    return replace(fields, fields={**fields.fields, **texts})


def read_parquet(files: Sequence[InputFile]) -> str:
    """Absolute and escaped: a name is never taken for a pattern, a URL or a partition's value."""
    names = ", ".join(quoted_path(str(one.file.local.resolve())) for one in files if one.file.local)
    return f"read_parquet([{names}], hive_partitioning = false)"


def _types(connection: DuckDBPyConnection, table: str, file: EventFile) -> Types:
    try:
        relation = connection.sql(f"SELECT * FROM {table}")
        str(relation.types)
        return dict(zip(relation.columns, relation.types, strict=True))
    except (RuntimeError, UnicodeError, duckdb.Error):  # a column, or a field inside of one, whose name is no text
        raise unreadable(file) from None
