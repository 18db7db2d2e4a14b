"""Event files: which there are, in which format, and how one is opened. No error quotes what a file holds."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from dpdau_assets.core.errors import BadInput
from resources.reading.file_bytes import (
    BOM,
    Compression,
    as_utf8,
    continued,
    encoding_of,
    head_of,
    packed_as,
    text_codec,
    unpacked,
)
from resources.reading.file_names import ENDINGS, Format, folder_values, named_as, unknown_ending
from resources.reading.local_files import Entry, entry_of
from resources.reading.locations import entries_at, folders_of

Follow = Callable[[BinaryIO], None]
"""Is told the open file, whose position says how much of it was read."""

COLUMNS = ("user_id", "op", "day", "ts", "metadata", "metadata.days")
MAX_LINE_BYTES = 1 << 20
"""A longer line is a bad row where rows are read here, and what it holds is dropped while it is read; JSON Lines that
DuckDB reads by itself may have longer ones.
"""

_PARQUET = b"PAR1"


@dataclass(frozen=True)
class FileOptions:
    """What is declared of files, and is not to be told from their endings and first bytes."""

    format: Format | None = None
    encoding: str | None = None
    delimiter: str | None = None


@dataclass(frozen=True)
class Start:
    """What a file's first bytes say. The encoding inside of a packed file is told when it is opened, and None here."""

    compression: Compression | None
    encoding: str | None
    has_bom: bool


@dataclass(frozen=True)
class EventFile:
    """A file of events. What its first bytes say is read once, when it is asked for."""

    name: str
    """What quarantine and messages call it: its path as given, or its URL without what is secret in it."""
    format: Format
    named_compression: Compression | None = None
    """How it is packed by its ending."""
    encoding: str | None = None
    """The declared one."""
    delimiter: str | None = None
    """The declared one, or what the ending `.tsv` or `.psv` says."""
    size: int = 0
    """Bytes as stored, 0 if unknown."""
    local: Path | None = None
    """Where it lies on this machine."""
    folder_values: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What the folders around it say that are called `name=value`, by name; of two, what the nearer one says."""
    source: Callable[[], BinaryIO] = field(repr=False, compare=False, kw_only=True)
    """Opens the bytes as stored."""

    def __str__(self) -> str:
        return self.name

    @cached_property
    def start(self) -> Start:
        """Raises BadInput for a file that cannot be opened, or whose first bytes say something else than its ending."""
        with self.stored() as file:
            return self._start(head_of(file))

    def _start(self, head: bytes) -> Start:
        if self.format == "parquet" and head.startswith(_PARQUET):  # some name it after the packing inside of it
            return Start(None, None, False)
        compression = packed_as(head)
        if compression != self.named_compression and self.named_compression is not None:
            raise unreadable(self)
        if compression is not None or self.format == "parquet":
            return Start(compression, None, False)
        if head.startswith(_PARQUET):
            raise BadInput(
                f"{self} is Parquet, and is read as {self.format}.",
                "Name it after its format, or declare no other one.",
                path=self.name,
            )
        encoding = encoding_of(head) if self.encoding is None else text_codec(self.encoding)
        return Start(None, encoding, encoding == "utf-8" and head.startswith(BOM))

    @property
    def compression(self) -> Compression | None:
        """How it is packed. Raises BadInput as `start` does."""
        return self.start.compression

    @property
    def has_bom(self) -> bool:
        """Whether a plain file begins with the byte order mark of UTF-8. Raises BadInput as `start` does."""
        return self.start.has_bom

    @property
    def is_plain(self) -> bool:
        """Whether DuckDB can read it where it lies: on this machine, under a name that is text, not packed, and Parquet
        or UTF-8, perhaps with its mark.
        """
        if self.local is None or self.start.compression is not None or not _is_text(os.path.realpath(self.local)):
            return False
        return self.format == "parquet" or self.start.encoding in ("utf-8", "utf-8-sig")

    @contextmanager
    def stored(self, follow: Follow | None = None) -> Iterator[BinaryIO]:
        """The bytes as stored, seekable where the storage can. Raises BadInput for a file that cannot be read."""
        with as_bad_input(self), self.source() as file:
            (follow or nobody)(file)
            yield file

    @contextmanager
    def opened(self, follow: Follow | None = None) -> Iterator[BinaryIO]:
        """The bytes unpacked, and text as UTF-8 without a byte order mark.

        Raises BadInput, also while it is read, for a file that is damaged, and for text that is not in its encoding.
        """
        with self.stored(follow) as file:
            head = head_of(file)
            with unpacked(continued(file, head), self._start(head).compression) as plain:
                yield plain if self.format == "parquet" else as_utf8(plain, self.encoding, self._undecodable)

    def _undecodable(self, encoding: str) -> BadInput:
        return BadInput(
            f"{self} holds bytes that are no text in the encoding {encoding}.",
            "Nothing was taken. Declare the encoding that it was written in, with --encoding, or write it as UTF-8.",
            path=self.name,
        )


@dataclass(frozen=True)
class Offered:
    """What is at locations, in order of names: event files, and the names of what is not read.

    Hidden ones are in neither: names that begin with `.` or `_`, and checksums.
    """

    files: list[EventFile]
    others: list[str]


Locations = str | Path | Sequence[str | Path]
"""Paths of files and folders, patterns, and URLs."""


def event_files(locations: Locations, options: FileOptions | None = None) -> list[EventFile]:
    """The event files that `events_at` finds, without what it does not read."""
    return events_at(locations, options).files


def events_at(locations: Locations, options: FileOptions | None = None) -> Offered:
    """The event files at one or more locations, each once, in order of names, and what else is there.

    A location is the path or URL of a file, or of a folder with files in it and below it, or a pattern of such, with
    `*`, `?` and `**`; what is there as it stands is no pattern. In a folder, names that begin with `.` or `_` and files
    with other endings are passed over; with a declared format, files without an ending are taken too. Raises BadInput
    for a location that does not exist or cannot be read, or has no event file, for a file that is named and whose
    ending is unknown, and for an unknown encoding.
    """
    options = options or FileOptions()
    if options.encoding is not None:
        text_codec(options.encoding)
    found = []
    for location in _each(locations):
        found.append(_offered_at(location, options))
        if not found[-1].files:
            raise BadInput(
                f"{location} holds no event files.",
                f"Put files there that end in {ENDINGS}; or declare the format, with --format, if they have no ending.",
                path=str(location),
            )
    return _together(found)


def offered(locations: Locations, options: FileOptions | None = None) -> Offered:
    """What is there, as `events_at` looks for it; a location without event files is no error."""
    return _together([_offered_at(location, options or FileOptions()) for location in _each(locations)])


def event_file(path: Path, options: FileOptions | None = None) -> EventFile:
    """The event file at a path on this machine, whether or not it is there. Raises BadInput for an unknown ending."""
    return _event_file(entry_of(path), options or FileOptions())


def _each(locations: Locations) -> Sequence[str | Path]:
    return [locations] if isinstance(locations, str | Path) else locations


def _together(found: Iterable[Offered]) -> Offered:
    """What several locations offer; a file at more than one is called as the first one calls it."""
    files: dict[str, EventFile] = {}
    others: dict[str, None] = {}
    for there in found:
        files = {_identity(file): file for file in there.files} | files
        others |= dict.fromkeys(there.others)
    return Offered(sorted(files.values(), key=lambda file: file.name.split("/")), list(others))


def _identity(file: EventFile) -> str:
    return file.name if file.local is None else os.path.abspath(file.local)  # noqa: PTH100


def _offered_at(location: str | Path, options: FileOptions) -> Offered:
    files, others = [], []
    for entry in entries_at(location):
        if entry.place == "named" or (entry.source is not None and _format_of(entry, options) is not None):
            files.append(_event_file(entry, options))
        else:
            others.append(entry.name)
    return Offered(files, others)


def _event_file(entry: Entry, options: FileOptions) -> EventFile:
    named, format_ = named_as(entry.name), _format_of(entry, options)
    if entry.source is None:
        raise BadInput(f"{entry.name} is no file.", "Name a file, or a folder that holds event files.", path=entry.name)
    if format_ is None:
        raise unknown_ending(entry.name)
    return EventFile(
        entry.name,
        format_,
        named.compression,
        options.encoding,
        options.delimiter or named.delimiter,
        entry.size,
        entry.local,
        folder_values(folders_of(entry)),
        source=entry.source,
    )


def _format_of(entry: Entry, options: FileOptions) -> Format | None:
    """What is declared goes before the ending; in a folder, where the ending says nothing or another format."""
    named = named_as(entry.name)
    if named.format is None and entry.place == "inside" and not named.has_no_format:
        return None
    return options.format or named.format


def unreadable(file: EventFile) -> BadInput:
    """The error for a file that is damaged. It does not say what the reading library says, which can quote rows."""
    named = file.named_compression or file.format
    return BadInput(
        f"{file} cannot be read as {named}: it is damaged, cut short, or something else.",
        "Write it again and hand it in again; nothing was taken.",
        path=file.name,
    )


def _is_text(path: str) -> bool:
    """False for names that are bytes in another encoding, which Linux allows."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def nobody(_: BinaryIO) -> None:
    """Where nobody asks how much was read."""


@contextmanager
def as_bad_input(file: EventFile) -> Iterator[None]:
    """Whatever a damaged file makes a library raise becomes BadInput, without the library's words."""
    try:
        yield
    except FileNotFoundError as error:
        raise BadInput(
            f"{file} cannot be opened: {error.strerror}.", "Name a file that is there.", path=file.name
        ) from None
    except (PermissionError, IsADirectoryError) as error:
        raise BadInput(f"{file} cannot be opened: {error.strerror}.", "Make it readable.", path=file.name) from None
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeError):
        raise unreadable(file) from None
