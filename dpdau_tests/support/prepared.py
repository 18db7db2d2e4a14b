"""Folders that many tests begin with: made once a run, whichever worker needs one first, and copied for each test.

A recipe fills an empty folder. It is known by its name, so two recipes with one name are one.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path


class Prepared:
    """Keeps what the recipes made below one folder, which all workers of a run share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def copy(self, name: str, recipe: Callable[[Path], None], target: Path) -> Path:
        """A copy of what the recipe makes, at `target`, which must not be there yet."""
        return shutil.copytree(self._made(name, recipe), target)

    def _made(self, name: str, recipe: Callable[[Path], None]) -> Path:
        folder = self._folder / hashlib.sha256(name.encode()).hexdigest()[:16]
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it
            if not folder.exists():
                under_way = folder.with_suffix(".new")
                shutil.rmtree(under_way, ignore_errors=True)
                under_way.mkdir()
                recipe(under_way)
                under_way.rename(folder)
        return folder
