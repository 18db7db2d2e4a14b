"""The port SketchStore: one file a (day, epoch), `day=YYYY-MM-DD/epoch=N.sketch`, as core serialises it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import BinaryIO

from dpdau_assets.core.sketches import from_bytes
from dpdau_assets.core.sketches.base import Header, Sketch, read_header, to_bytes
from resources.storage.durable import Write, sweep, unlink_durably, write_all_durably
from resources.storage.partition_files import partition_path, partitions_in


class SketchFiles:
    """The sketches below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._swept = False

    def stored(self) -> list[tuple[date, int]]:
        return partitions_in(self._folder, "sketch")

    def read(self, day: date, epoch: int) -> Sketch | None:
        try:
            return from_bytes(self._path(day, epoch).read_bytes())
        except FileNotFoundError:
            return None

    def header(self, day: date, epoch: int) -> Header | None:
        try:
            with self._path(day, epoch).open("rb") as file:
                return read_header(file)
        except FileNotFoundError:
            return None

    def replace(self, sketches: Iterable[tuple[date, Sketch]]) -> None:
        if not self._swept:
            sweep(self._folder)  # what a writer left that was killed before this process began
            self._swept = True
        write_all_durably((self._path(day, sketch.header.epoch), _writer(sketch)) for day, sketch in sketches)

    def discard(self, day: date, epoch: int) -> None:
        unlink_durably(self._path(day, epoch))

    def _path(self, day: date, epoch: int) -> Path:
        return partition_path(self._folder, day, epoch, "sketch")


def _writer(sketch: Sketch) -> Write:
    def write(file: BinaryIO) -> None:
        file.writelines(to_bytes(sketch))

    return write
