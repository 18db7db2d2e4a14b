"""Names and texts as they stand in SQL."""

from __future__ import annotations

from duckdb.sqltypes import DuckDBPyType


def identifier(name: str) -> str:
    """The name of a column, in quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text, in quotes."""
    return "'" + text.replace("'", "''") + "'"


def is_json(kind: DuckDBPyType) -> bool:
    """Whether a column holds JSON values; DuckDB calls their type a VARCHAR."""
    return str(kind) == "JSON"
