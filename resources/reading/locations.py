"""What lies at a location: a path, a pattern, or a URL of a storage that fsspec reads."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from resources.reading.local_files import Entry, local_entries

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.:-]*)://(.*)", re.DOTALL)
_LOCAL = ("file", "local")


def entries_at(location: str | Path) -> list[Entry]:
    """The file that a location names, the files in a folder and the folders below it, or these for all that match.

    In a pattern, `*` and `?` stand for what a name may have, and `**` for folders; a name that is there as it stands is
    no pattern. Names that begin with `.` or `_`, but for what the location itself calls so, and checksums are passed
    over. Links to folders are not followed, and are no files. Raises BadInput for a location at which nothing is, that
    cannot be read, or with a password in it.
    """
    url = _URL.fullmatch(location) if isinstance(location, str) else None
    if url is None:
        return local_entries(Path(location))
    if url[1].lower() in _LOCAL:
        return local_entries(Path(url[2]))
    from resources.reading.remote_files import remote_entries

    return remote_entries(url[1].lower(), url[2])


def folders_of(entry: Entry) -> Sequence[str]:
    """The names of the folders around it, from the outermost inwards, as its path says them and as they are called."""
    if entry.local is None:
        return entry.name.split("/")[:-1]
    return [*entry.local.resolve().parts[:-1], *Path(os.path.abspath(entry.local)).parts[:-1]]  # noqa: PTH100
