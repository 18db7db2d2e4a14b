"""More people than memory holds: the files are read in parts, and the parts together are what one reading finds."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import Limits
from dpdau_assets.core.facts import EpochKey
from resources.reading import engine_duckdb
from resources.reading.engine_duckdb import DuckDBEngine, DuckDBScan
from resources.reading.event_files import event_files
from resources.reading.event_reading import Part, Reading, TooManyPeople

FIRST, LAST = date(2025, 1, 1), date(2025, 4, 30)
LIMITS = Limits(FIRST, LAST, ZoneInfo("UTC"))
KEY = EpochKey(224, bytes(range(32)))

ROWS = [(f"user-{n * 7 % 90}", f"2025-0{1 + n % 3}-0{1 + n % 9}") for n in range(300)]
ODD = [("", "2025-01-01"), ("x", "2025-02-30")]


def written(folder: Path) -> list[Path]:
    """One file of each format, with one set of rows; bad ones are in the text files."""
    rows = [*ROWS, *ODD]
    paths = [folder / name for name in ("1.csv", "2.jsonl", "3.parquet", "4.json")]
    paths[0].write_text("user_id,day\n" + "".join(f"{user_id},{day}\n" for user_id, day in rows))
    objects = [json.dumps({"user_id": user_id, "day": day}) for user_id, day in rows]
    paths[1].write_text("\n".join(objects))
    pq.write_table(pa.table({"user_id": [row[0] for row in ROWS], "day": [row[1] for row in ROWS]}), paths[2])
    paths[3].write_text(f"[{', '.join(objects)}]")
    return paths


def found(scan: DuckDBScan) -> tuple[object, ...]:
    keys: dict[date, list[int]] = defaultdict(list)
    for part in scan.parts():
        for day_set in part.user_days(KEY, FIRST, LAST):
            keys[day_set.day] += day_set.keys.tolist()
    return (
        scan.accepted,
        scan.days(),
        scan.rejections(),
        [(row.file, row.line) for row in scan.rejected()],
        {day: sorted(of_day) for day, of_day in sorted(keys.items())},
    )


def in_parts(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything be read in so many parts."""

    def read(reading: Reading, _: str) -> int:
        reading.read(Part(0, parts))
        return parts

    monkeypatch.setattr(engine_duckdb, "_read", read)


@pytest.mark.parametrize("name", ["1.csv", "2.jsonl", "3.parquet", "4.json", ""])
def test_the_parts_of_the_people_are_together_all_people_and_nobody_is_in_two(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    files = event_files(tmp_path / name)
    with DuckDBEngine().scan(files, LIMITS) as scan:
        at_once = found(scan)
    for parts in (2, 5):
        in_parts(parts, monkeypatch)
        with DuckDBEngine().scan(files, LIMITS) as scan:
            assert found(scan) == at_once


def test_as_many_parts_are_read_as_it_takes_to_hold_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)[2]
    asked: list[Part] = []
    read = Reading.read

    def too_many_at_first(self: Reading, part: Part) -> None:
        asked.append(part)
        if part.parts < 6:
            raise TooManyPeople
        read(self, part)

    monkeypatch.setattr(Reading, "read", too_many_at_first)
    monkeypatch.setattr(engine_duckdb, "_BYTES_A_PERSON", 10**6)
    with DuckDBEngine("40MB").scan(event_files(path), LIMITS) as scan:
        assert sum(len(day_set.keys) for part in scan.parts() for day_set in part.user_days(KEY, FIRST, LAST)) == len(
            set(ROWS)
        )
    assert [part.parts for part in asked] == [1, 3, *[6] * 6]


def test_a_file_that_changes_between_two_parts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in written(tmp_path):
        in_parts(2, monkeypatch)
        with DuckDBEngine().scan(event_files(path), LIMITS) as scan, pytest.raises(BadInput, match="Changed while"):
            for _ in scan.parts():
                path.write_bytes(path.read_bytes() + b" ")
