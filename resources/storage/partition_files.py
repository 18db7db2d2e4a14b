"""How the file of a partition is named, in every store that keeps one a (day, epoch)."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from dpdau_assets.core.events import calendar_day

_NAME = re.compile(r"day=(\d{4}-\d{2}-\d{2})/epoch=(0|[1-9]\d*)\.\w+")


def partition_path(folder: Path, day: date, epoch: int, suffix: str) -> Path:
    """`folder/day=YYYY-MM-DD/epoch=N.SUFFIX`."""
    return folder / f"day={day.isoformat()}" / f"epoch={epoch}.{suffix}"


def partitions_in(folder: Path, suffix: str) -> list[tuple[date, int]]:
    """Every (day, epoch) that has a file, sorted; files with other names are nobody's partition."""
    names = (path.relative_to(folder).as_posix() for path in folder.glob(f"day=*/epoch=*.{suffix}"))
    matches = (_NAME.fullmatch(name) for name in names)
    return sorted((day, int(match[2])) for match in matches if match and (day := calendar_day(match[1])))
