"""The files that Dagster is started with: its home, with settings, and the list of what it loads."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from resources.storage.durable import make_folder, write_durably

CONFIGURATION, WORKSPACE = "dagster.yaml", "workspace.yaml"


def prepare_home(home: Path) -> None:
    """Make Dagster's home, for its owner alone, with the settings that dpdau ships unless it has its own."""
    make_folder(home)
    if not (home / CONFIGURATION).exists():
        write_durably(home / CONFIGURATION, _write_shipped)


def _write_shipped(file: BinaryIO) -> None:
    file.write(shipped(CONFIGURATION).read_bytes())


def shipped(name: str) -> Path:
    """One of the project's files for Dagster: at the top of a checkout, in the package once that is installed."""
    top = Path(__file__).resolve().parents[1]
    installed = top / "dpdau_assets" / name
    return installed if installed.exists() else top / name
