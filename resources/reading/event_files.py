"""Event files: which there are, in which format, and how one is opened. No error quotes what a file holds."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, Literal, cast

import pyarrow as pa

from dpdau_assets.core.errors import BadInput

Format = Literal["json", "csv", "parquet"]
Follow = Callable[[BinaryIO], None]
"""Is told the open file, whose position says how much of it was read."""

COLUMNS = ("user_id", "op", "day", "ts", "metadata", "metadata.days")
MAX_LINE_BYTES = 1 << 20
"""A longer line is a bad row; what it holds is dropped while it is read."""
BOM = b"\xef\xbb\xbf"

_FORMATS: dict[str, Format] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}
ENDINGS = f"{', '.join(_FORMATS)}, each also with .gz"
_TEXT_ENDINGS = ENDINGS.replace(", .parquet", "")
_CHECKSUMS = (".crc", ".md5", ".sha1", ".sha256", ".sha512")
_CLOSE = 0.85


@dataclass(frozen=True)
class Offered:
    """What a folder holds, in order of names: event files, and entries that are not read.

    Hidden ones are in neither: names that begin with `.` or `_`, and checksums.
    """

    files: list[Path]
    others: list[Path]


def event_files(path: Path) -> list[Path]:
    """The event files that a path names: itself, or all in a folder and the folders below it, sorted.

    In a folder, names that begin with `.` or `_` and files with other endings are passed over. Raises BadInput for a
    path that does not exist, a folder without any event file, or a file whose ending is unknown.
    """
    if not path.exists():
        raise BadInput(f"{path} does not exist.", "Name a file, or a folder that holds event files.", path=str(path))
    if not path.is_dir():
        format_of(path)
        return [path]
    paths = offered(path).files
    if not paths:
        raise BadInput(f"{path} holds no event files.", f"Put files there that end in {ENDINGS}.", path=str(path))
    return paths


def offered(folder: Path) -> Offered:
    """What is in it and in the folders below it. Links to folders are not followed, and count as not read.

    Raises BadInput for a folder that cannot be read.
    """
    files, others = [], []
    for path in sorted(_entries(folder)):
        (files if _is_known(path) and path.is_file() else others).append(path)
    return Offered(files, others)


def _entries(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        where = str(error.filename)
        raise BadInput(f"{where} cannot be opened: {error.strerror}.", "Make it readable.", path=where)

    for place, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        folders[:] = [name for name in folders if not _is_hidden(name)]
        shown = (name for name in files if not _is_checksum(name))
        yield from (Path(place) / name for name in (*shown, *links) if not _is_hidden(name))


def kind_of(path: Path) -> str:
    """What is made of a file by its path in a folder: its format, or that it is passed over, or not read."""
    is_hidden = _is_checksum(path.name) or any(map(_is_hidden, path.parts))
    return "hidden" if is_hidden else _FORMATS.get(_bare(path).suffix.lower(), "other")


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _is_checksum(name: str) -> bool:
    return name.lower().endswith(_CHECKSUMS)


def _is_known(file: Path) -> bool:
    return _bare(file).suffix.lower() in _FORMATS


def format_of(path: Path) -> Format:
    """The format by the file's ending. Raises BadInput for any other."""
    format_ = _FORMATS.get(_bare(path).suffix.lower())
    if format_ is None:
        raise BadInput(f"{path} has no known ending.", f"Name it after its format: {ENDINGS}.", path=str(path))
    return format_


def text_format_of(path: Path) -> Format:
    """The format of a file whose lines are read as they stand: JSON Lines or CSV. Raises BadInput for Parquet too."""
    format_ = _FORMATS.get(_bare(path).suffix.lower())
    if format_ is None or format_ == "parquet":
        reason = f"{path} {'is named as a Parquet file' if format_ else 'has no known ending'}."
        raise BadInput(reason, f"Write it as JSON Lines or CSV, and name it so: {_TEXT_ENDINGS}.", path=str(path))
    return format_


def is_gzip(path: Path) -> bool:
    """Whether the file is compressed, by its ending."""
    return path.suffix.lower() == ".gz"


def require_columns(names: Sequence[str], path: Path) -> None:
    """Raise BadInput for columns that no event can be read from, or of which one may be meant that is not there.

    It tells known names only: where the header is missing, people stand there.
    """
    known = [name for name in names if name in COLUMNS]
    if len(set(known)) < len(known) or "user_id" not in known or not ("day" in known or "ts" in known):
        raise BadInput(
            f"{path} has {len(names)} column(s), of which known: {', '.join(known) or 'none'}.",
            "It must name user_id and day or ts, each once; a CSV does so in its first line, separated by commas.",
            path=str(path),
        )
    for meant in ("op", "metadata", "metadata.days"):
        almost = [name for name in names if name not in COLUMNS and _is_almost(name, meant)]
        if almost and meant not in known:
            raise BadInput(
                f"{path} has the column {almost[0]}, and none that is called {meant}.",
                f"Name it {meant}, or otherwise if it is something else: what it says would be passed over.",
                path=str(path),
            )


def _is_almost(name: str, meant: str) -> bool:
    """Whether names are equal but for case and space; a long one also but for a letter or two."""
    plain = name.strip().lower()
    return plain == meant or (meant == "metadata.days" and bool(get_close_matches(plain, [meant], 1, _CLOSE)))


def unreadable(path: Path) -> BadInput:
    """The error for a file that is damaged. It does not say what the reading library says, which can quote rows."""
    what = "gzip" if is_gzip(path) else format_of(path)
    return BadInput(
        f"{path} cannot be read as {what}: it is damaged, cut short, or something else.",
        "Write it again and hand it in again; nothing was taken.",
        path=str(path),
    )


def _bare(path: Path) -> Path:
    return path.with_suffix("") if is_gzip(path) else path


def nobody(_: BinaryIO) -> None:
    """Where nobody asks how much was read."""


@contextmanager
def as_bad_input(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes a library raise becomes BadInput, without the library's words."""
    try:
        yield
    except FileNotFoundError as error:
        raise BadInput(
            f"{path} cannot be opened: {error.strerror}.", "Name a file that is there.", path=str(path)
        ) from None
    except (PermissionError, IsADirectoryError) as error:
        raise BadInput(f"{path} cannot be opened: {error.strerror}.", "Make it readable.", path=str(path)) from None
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeError):
        raise unreadable(path) from None


@contextmanager
def opened(path: Path, follow: Follow = nobody) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked if it is gzip."""
    with path.open("rb") as file:
        follow(file)
        if not is_gzip(path):
            yield file
            return
        if not file.peek(1):
            raise EOFError  # gzip would take an empty file for an empty archive
        with gzip.open(file, "rb") as unpacked:
            yield cast(BinaryIO, unpacked)
