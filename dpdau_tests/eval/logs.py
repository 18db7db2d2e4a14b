"""The real event logs that tests read: where they lie, what their references say, and what a store makes of them.

`oulad_register_submit` is bundled (CC BY 4.0). `collegemsg` has no licence to copy it: it is read from a folder beside
the project where there is one.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dpdau_assets.core.dates import epoch_of, window
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.sketches.keysets import unite
from dpdau_tests.support.project import PROJECT
from resources.reading.event_files import event_file

BUNDLED = PROJECT / "eval" / "data"
BESIDE = PROJECT.parent / "shared" / "data"

OULAD, COLLEGE = "oulad_register_submit", "collegemsg"
ERASURES = [(OULAD, "seed7"), (OULAD, "real"), (COLLEGE, "seed7")]
"""(log, which erasures): every file of erasures there is."""

Series = dict[date, int]


def file_of(name: str, file: str) -> Path:
    """A file of a log; the test that asks is skipped where there is none."""
    found = [place / name / file for place in (BUNDLED, BESIDE) if (place / name / file).exists()]
    if not found:
        pytest.skip(f"{file} of {name} is not bundled, and not in {BESIDE}")
    return found[0]


def reference_of(name: str, erased: str = "") -> tuple[Series, Series]:
    """DAU and MAU of every day; `erased` is a part of the file's name, like `_erased_real_asof`."""
    dau, mau = {}, {}
    for row in _rows(name, f"reference{erased}.csv"):
        day = date.fromisoformat(row["day"])
        dau[day], mau[day] = int(row["dau"]), int(row["mau30"])
    return dau, mau


def erasures_of(name: str, which: str) -> list[tuple[str, date]]:
    """(user_id, last day that is erased)."""
    return [(row["user_id"], date.fromisoformat(row["erase_day"])) for row in _rows(name, f"erasures_{which}.csv")]


def ingest_log(name: str, store: Store) -> None:
    """Ingest all events of the log."""
    ingest([event_file(file_of(name, "events.parquet"))], store)


def ingest_days(name: str, days: list[date], store: Store) -> None:
    """Ingest the log's events of these days, from a file of their own."""
    whole = pq.read_table(file_of(name, "events.parquet"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        pq.write_table(whole.filter(pc.is_in(whole["day"], value_set=pa.array(days))), path)
        ingest([event_file(path)], store)


def counted(days: list[date], store: Store) -> tuple[Series, Series]:
    """DAU of these days and MAU of each whole window among them, counted straight from the state's files."""
    rotation = store.settings.hash_salt_rotation_days
    users = {
        place: keys
        for place in store.state.activity.stored()
        if (keys := store.state.activity.read(*place)) is not None
    }
    dau = {day: len(users[day, epoch_of(day, rotation)]) for day in days}
    mau = {end: len(unite([users[day, epoch_of(end, rotation)] for day in window(end, 30)])) for end in days[29:]}
    return dau, mau


def _rows(name: str, file: str) -> Iterator[dict[str, str]]:
    with file_of(name, file).open() as opened:
        yield from csv.DictReader(opened)
