"""Bytes that DuckDB reads as a file, and that are on no disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_MADE = "rows"  # what the kernel calls it; nobody sees it


@contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """A path under which this process finds the bytes until the context ends: a file of Linux's memory."""
    number = os.memfd_create(_MADE, os.MFD_CLOEXEC)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(number, rest) :]
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
