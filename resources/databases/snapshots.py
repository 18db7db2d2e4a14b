"""What every kind of database gives: the rows of one query, as often as they are asked for, and always the same ones.

No error says in a database's own words what a row holds: such words can quote it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from dpdau_assets.core.errors import BadInput

BATCH_ROWS = 1 << 16


class Snapshot(Protocol):
    """The rows of one query, as the database was when the snapshot was opened."""

    def schema(self) -> pa.Schema:
        """The names and types of the columns; a name may stand there twice. Raises BadInput as `batches` does."""
        ...

    def batches(self) -> Generator[pa.RecordBatch]:
        """All rows, from the first one on. Whoever stops early stops the query.

        Raises BadInput for a query that is refused, that writes, or that takes longer than it may, and for a database
        that no longer answers.
        """
        ...


@dataclass(frozen=True)
class Query:
    """An SQL query of one statement, what errors and the quarantine call it, and how many seconds it may take."""

    sql: str
    name: str
    seconds: int


def refused(query: Query, words: str) -> BadInput:
    """What the database says of the text of a query."""
    return BadInput(f"{query.name} is refused: {words}", "Correct the query; nothing was taken.")


def no_rows(query: Query) -> BadInput:
    """A statement that gives no columns."""
    return BadInput(f"{query.name} gives no rows.", "Write one SELECT; nothing was taken.")


def writes(query: Query) -> BadInput:
    """A statement that would change something."""
    return BadInput(
        f"{query.name} would write, and is run in a read-only transaction.", "Write one SELECT; nothing was taken."
    )


def too_slow(query: Query) -> BadInput:
    """A query that was stopped."""
    return BadInput(
        f"{query.name} took longer than {query.seconds} seconds and was stopped.",
        "Ask for fewer rows at a time, or give it more: --timeout, or timeout in its source. Nothing was taken.",
    )


def failed(query: Query, code: str | None = None) -> BadInput:
    """Where its own words could quote a row."""
    said = f" with SQLSTATE {code}" if code else ""
    return BadInput(
        f"{query.name} failed{said} while its rows were read.",
        "Run it where the database's own words can be seen: they may quote a row, and are left out here. Nothing was "
        "taken.",
    )


def lost(query: Query) -> BadInput:
    """A connection that ended in between."""
    return BadInput(
        f"{query.name} was cut short: the connection to the database was lost.",
        "Run it again; nothing was taken.",
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's words, without the end that repeats the query."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line.removesuffix(".") + "."
