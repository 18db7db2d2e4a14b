"""What the name of a file says: its format, how it is packed, and the folders around it that are named `name=value`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from dpdau_assets.core.errors import BadInput
from resources.reading.file_bytes import Compression
from resources.reading.local_files import is_hidden

Format = Literal["json", "csv", "parquet"]

_FORMATS: dict[str, Format] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".psv": "csv",
    ".parquet": "parquet",
    ".parq": "parquet",
}
_DELIMITERS = {".tsv": "\t", ".psv": "|"}
_PACKINGS: dict[str, Compression] = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bz2",
}
_TEXT_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv")
_PACKED = f"each also with {', '.join(_PACKINGS)}"
ENDINGS = f"{', '.join(_FORMATS)}, {_PACKED}"

_SAYS_NOTHING = re.compile(r"(\.txt|\.c\d+|\.\d+)?")
"""The ending of a part file that says nothing of its format: `.txt`, and what Spark and Hadoop number parts with."""

_PARTITION = re.compile(r"([^=]+)=(.+)", re.DOTALL)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Named:
    """What a file's endings say; `has_no_format` is whether its ending is one of a part file, which says no format."""

    format: Format | None
    compression: Compression | None
    delimiter: str | None
    has_no_format: bool


def named_as(name: str) -> Named:
    """What the endings of a path, a URL or a bare name say, without regard to case."""
    path = Path(name)
    compression = _PACKINGS.get(path.suffix.lower())
    ending = (path if compression is None else path.with_suffix("")).suffix.lower()
    return Named(
        _FORMATS.get(ending), compression, _DELIMITERS.get(ending), _SAYS_NOTHING.fullmatch(ending) is not None
    )


def unknown_ending(name: str) -> BadInput:
    """The error for a file of which nothing says the format."""
    return BadInput(
        f"{name} has no known ending.",
        f"Name it after its format: {ENDINGS}; or declare the format, with --format.",
        path=name,
    )


def text_format_of(path: Path) -> Format:
    """The format of a file whose lines are read as they stand: JSON Lines or CSV with commas.

    Raises BadInput for all others.
    """
    named = named_as(path.name)
    if named.format is None or named.format == "parquet" or named.delimiter is not None:
        raise BadInput(
            f"{path} {'is named as a Parquet file' if named.format == 'parquet' else 'has no known ending'}.",
            f"Write it as JSON Lines or CSV, and name it so: {', '.join(_TEXT_ENDINGS)}, {_PACKED}.",
            path=str(path),
        )
    return named.format


def kind_of(path: Path) -> str:
    """What is made of a file by its path in a folder: its format, or that it is passed over, or not read."""
    return "hidden" if is_hidden(path.parts) else named_as(path.name).format or "other"


def folder_values(folders: Sequence[str]) -> dict[str, str]:
    """What folders say that are called `name=value`, from the outermost inwards, written as Hive does (`%3A` is `:`).

    An inner one goes before an outer one. Hive's name for null is no value, nor is what is no text.
    """
    values = {}
    for match in filter(None, map(_PARTITION.fullmatch, folders)):
        try:
            name, value = (unquote(part, errors="strict") for part in match.groups())
            f"{name}{value}".encode()
        except UnicodeError:
            continue
        if value != _NO_VALUE:
            values[name] = value
    return values
