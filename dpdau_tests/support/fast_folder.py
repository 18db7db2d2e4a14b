"""A folder for stores whose syncs cost nothing: months of publication sync thousands of times."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30  # bytes; a whole run leaves less than one of these


def has_room() -> bool:
    """Whether there is such a place, and enough of it for all that tests write."""
    return os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > _ROOM


@contextmanager
def fast_folder() -> Iterator[Path]:
    """In memory where the machine has such a place, else an ordinary temporary one; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="dpdau-", dir=IN_MEMORY if has_room() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
