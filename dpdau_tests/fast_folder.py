"""A folder for stores whose syncs cost nothing: months of publication sync thousands of times."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_MEMORY = Path("/dev/shm")


@contextmanager
def fast_folder() -> Iterator[Path]:
    """In memory where the machine has such a place, else an ordinary temporary one; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="dpdau-", dir=IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
