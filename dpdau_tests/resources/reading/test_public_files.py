"""Event files that public packages ship, as shipped, by one command each: public_files/ATTRIBUTION.md says whose."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path

import pytest

from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.ingest import ingest
from dpdau_tests.cli.conftest import Dpdau
from dpdau_tests.support.state_bytes import make_keys
from resources.reading.event_files import event_files

SHIPPED = Path(__file__).parent / "public_files"
START, TODAY = date(2012, 1, 1), date(2025, 1, 1)
_DATE = len("YYYY-MM-DD")

People = set[tuple[str, str]]
"""Who was active on which day."""


def clickstream() -> People:
    with gzip.open(SHIPPED / "ecom.csv.gz", "rt", newline="") as text:
        return {(row["user_id"], row["timestamp"][:_DATE]) for row in csv.DictReader(text)}


def transactions() -> People:
    with (SHIPPED / "example_transactions.csv").open(newline="") as text:
        return {(row["id"], row["date"][:_DATE]) for row in csv.DictReader(text)}


def keys_of_years(store: Store) -> None:
    """The keys of all epochs that the days of these files are kept under."""
    make_keys(store, [START + timedelta(days=n) for n in range((TODAY - START).days)])


def plainly(folder: Path, people: People) -> Path:
    path = folder / "plain.csv"
    path.write_text("user_id,day\n" + "".join(f"{user_id},{day}\n" for user_id, day in sorted(people)))
    return path


def batch_of(make_store: Callable[..., Store], path: Path) -> str | None:
    """The name of what is kept of these events; it follows from every key of every day."""
    return ingest(event_files(path), make_store("plain", TODAY, keys_of_years, start_date=START)).batch


@pytest.mark.parametrize(
    ("path", "columns", "people", "rows"),
    [
        ("ecom.csv.gz", "ts=timestamp", clickstream, 31_106),
        ("example_transactions.csv", "user_id=id,ts=date", transactions, 15_273),
    ],
)
def test_a_file_is_taken_as_shipped_by_one_command(
    make_store: Callable[..., Store],
    tmp_path: Path,
    path: str,
    columns: str,
    people: Callable[[], People],
    rows: int,
) -> None:
    other = make_store("other", TODAY, keys_of_years, start_date=START)
    dpdau = Dpdau(tmp_path, DATA_DIR=str(other.settings.data_dir), START_DATE=str(START))
    taken = dpdau("ingest", "--from", str(SHIPPED / path), "--columns", columns)
    assert (taken.code, taken.json["ingested"], taken.json["rejected"]) == (0, rows, 0)
    assert taken.json["batch"] == batch_of(make_store, plainly(tmp_path, people()))


def github_event(number: int, person: int, at: str) -> dict[str, object]:
    """An event as GitHub's interface gives it, in the shape of the first rows of simdjson's `github_events.json`."""
    return {
        "type": "PushEvent",
        "created_at": at,
        "actor": {"gravatar_id": "", "login": "someone", "avatar_url": "", "url": "", "id": person},
        "repo": {"url": "", "id": 6357414, "name": "someone/something"},
        "public": True,
        "payload": {"commits": [{"distinct": True, "author": {"email": "", "name": ""}}], "push_id": 134107894},
        "org": {"gravatar_id": "", "id": 1, "url": "", "avatar_url": "", "login": ""},
        "id": str(1652857722 + number),
    }


def test_an_indented_array_of_nested_events_is_taken_by_one_command(
    make_store: Callable[..., Store], tmp_path: Path
) -> None:
    seen: Iterable[tuple[int, str]] = [(138052, "2013-01-10T07:58:30Z"), (138052, "2013-01-10T07:58:29Z")]
    seen = [*seen, (2006, "2013-01-11T00:00:00Z"), (9, "2013-01-10T23:59:59Z")]
    rows = [github_event(number, person, at) for number, (person, at) in enumerate(seen)]
    (tmp_path / "github_events.json").write_text(json.dumps(rows, indent=2))
    other = make_store("other", TODAY, keys_of_years, start_date=START)
    dpdau = Dpdau(tmp_path, DATA_DIR=str(other.settings.data_dir), START_DATE=str(START))
    taken = dpdau("ingest", "--from", "github_events.json", "--columns", "user_id=actor.id,ts=created_at")
    assert (taken.code, taken.json["ingested"], taken.json["rejected"]) == (0, 4, 0)
    people = {(str(person), at[:_DATE]) for person, at in seen}
    assert taken.json["batch"] == batch_of(make_store, plainly(tmp_path, people))
