"""Ingest as a whole: from files to a keyed batch, with the real engine and files and small fakes for the rest."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, replace
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.dates import epoch_of, epochs_of_day
from dpdau_assets.core.erasure.requests import epochs_reached
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import BAD_DAY, TOO_EARLY, TOO_LATE, Limits, Row
from dpdau_assets.core.facts import Erasure, Release, Removal
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.ports.store import Erasures, Events, State, Store
from dpdau_assets.core.publication.ingest import (
    IngestReport,
    NotTaken,
    NoValidRow,
    RowScan,
    TooManyRejected,
    ingest,
    ingest_scan,
)
from dpdau_assets.core.settings import Settings
from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.salts import KnownSalts
from eval.simulate import generate_synthetic
from resources.reading.engine_duckdb import DuckDBEngine
from resources.reading.event_files import event_file
from resources.storage.file_inventory import DiskFileInventory
from resources.storage.inbox_files import FileInbox
from resources.storage.quarantine_files import FileQuarantine

TODAY = date(2025, 4, 29)
LIMITS = Limits(date(2025, 1, 1), date(2025, 4, 30), ZoneInfo("UTC"))
SETTINGS = Settings(start_date=date(2025, 1, 1), hash_salt_rotation_days=90, mau_window_days=30)


class FixedClock:
    def today(self) -> date:
        return TODAY


@dataclass
class NotedErasures:
    """What was recorded; and how many batches the inbox had by then."""

    inbox: FileInbox
    noted: list[list[Removal]] = field(default_factory=list)
    batches_then: list[int] = field(default_factory=list)

    def record(self, removals: list[Removal], received_on: date, *, parked: bool) -> list[str]:
        assert received_on == TODAY and not parked
        self.noted.append(removals)
        self.batches_then.append(len(self.inbox.batches()))
        return [f"receipt {number}" for number, _ in enumerate(removals)]

    def find(self, receipts: list[str]) -> list[Erasure]:
        return [Erasure(name, "batch", TODAY, (), TODAY, "received") for name in receipts]


class EmptyLedger:
    """Nothing published, nothing purged."""

    def releases(self, metric: str) -> list[Release]:
        return []

    def purged_through(self) -> None:
        return None


class Folder:
    """The real adapters on one folder, and the fakes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inbox = FileInbox(root, KnownSalts())
        self.salts = KnownSalts()
        self.erasures = NotedErasures(self.inbox)
        self.said: list[str] = []

    def store(self, settings: Settings) -> Store:
        """What an ingest uses of it; the rest is not there."""
        unused = cast(Any, None)
        return Store(
            settings=settings,
            clock=FixedClock(),
            events=Events(
                DuckDBEngine(),
                log=unused,
                inbox=self.inbox,
                quarantine=FileQuarantine(self.root),
                landing=unused,
                completions=unused,
            ),
            state=State(
                activity=unused,
                late=unused,
                sketches=unused,
                builds=unused,
                rebuilds=unused,
                salts=self.salts,
                files=DiskFileInventory({"": self.root}),
            ),
            erasures=Erasures(ledger=self.erasures, receipts=unused),
            accountant=EmptyLedger(),
            noise=unused,
        )

    def ingest(self, *files: Path, settings: Settings = SETTINGS, partial: bool = False) -> IngestReport:
        found = [event_file(file) for file in files]
        return ingest(found, self.store(settings), self.said.append, partial=partial)

    def contents(self) -> dict[tuple[date, int], list[int]]:
        return {
            (day_set.day, day_set.epoch): day_set.keys.tolist() for day_set in self.inbox.read(self.inbox.batches())
        }


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "data")


def key_of(user_id: str, epoch: int) -> int:
    return user_key(hashlib.sha256(f"epoch {epoch}".encode()).digest(), user_id)


def lines(folder: Path, name: str, *rows: dict[str, object]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def plus(user_id: str, day: str) -> dict[str, object]:
    return {"user_id": user_id, "day": day}


def minus(user_id: str, day: str, *days: str) -> dict[str, object]:
    return {"user_id": user_id, "day": day, "op": "-", **({"metadata": {"days": days}} if days else {})}


def test_each_day_is_keyed_under_every_epoch_whose_windows_reach_it(folder: Folder, tmp_path: Path) -> None:
    days = [date(2025, 1, 1), date(2025, 3, 1), date(2025, 4, 30)]  # an epoch begins on 2025-03-13
    report = folder.ingest(lines(tmp_path, "e.jsonl", *(plus(user, str(day)) for day in days for user in ("a", "b"))))
    wanted = {
        (day, epoch): sorted(key_of(user, epoch) for user in ("a", "b"))
        for day in days
        for epoch in epochs_of_day(day, 90, 30)
    }
    assert sorted(wanted) == [(days[0], 223), (days[1], 223), (days[1], 224), (days[2], 224)]
    assert folder.contents() == wanted
    assert report == IngestReport(6, 0, tuple(days), folder.inbox.batches()[0], None)
    assert folder.salts.asked == [sorted({epoch for _, epoch in wanted})]


def test_all_days_of_all_epochs_are_one_batch_and_twice_is_the_same_batch(folder: Folder, tmp_path: Path) -> None:
    rows = [plus(f"u{n % 7}", f"2025-{1 + n % 4:02}-{1 + n % 28:02}") for n in range(200)]
    first = folder.ingest(lines(tmp_path, "e.jsonl", *rows))
    again = folder.ingest(lines(tmp_path, "shuffled.jsonl", *rows[::-1], *rows))
    assert first.batch == again.batch and folder.inbox.batches() == [first.batch]
    assert first.days == again.days and again.ingested == 2 * first.ingested


def test_a_removal_is_recorded_in_every_epoch_it_reaches_before_the_batch_is_there(
    folder: Folder, tmp_path: Path
) -> None:
    report = folder.ingest(lines(tmp_path, "e.jsonl", plus("a", "2025-01-01"), minus("gone", "2025-02-10")))
    [noted] = folder.erasures.noted
    assert noted == [Removal(date(2025, 2, 10), (), tuple((epoch, key_of("gone", epoch)) for epoch in (223, 224)))]
    assert folder.erasures.batches_then == [0] and report.batch
    assert report.ingested == 2 and report.days == (date(2025, 1, 1),)


def test_a_removal_of_listed_days_ends_with_the_last_of_them(folder: Folder, tmp_path: Path) -> None:
    report = folder.ingest(lines(tmp_path, "e.jsonl", minus("gone", "2025-01-02", "2025-04-30", "2025-01-31")))
    [noted] = folder.erasures.noted
    through = date(2025, 4, 30)
    assert {(removal.through, removal.days) for removal in noted} == {(through, (date(2025, 1, 31), through))}
    assert [epoch for epoch, _ in noted[0].keys] == list(epochs_reached(through, SETTINGS))
    assert report.batch is None and report.days == () and folder.inbox.batches() == []


def test_every_removal_gets_its_own_reach_and_the_salts_are_made_at_once(folder: Folder, tmp_path: Path) -> None:
    settings = Settings(start_date=date(2024, 1, 1), hash_salt_rotation_days=30, mau_window_days=30)
    folder.ingest(lines(tmp_path, "e.jsonl", minus("x", "2024-01-05"), minus("y", "2025-04-05")), settings=settings)
    [noted] = folder.erasures.noted
    for user, through in (("x", date(2024, 1, 5)), ("y", date(2025, 4, 5))):
        [named] = [removal for removal in noted if removal.through == through]
        assert named.keys == tuple((epoch, key_of(user, epoch)) for epoch in epochs_reached(through, settings))
    assert folder.salts.asked[-2] == list(epochs_reached(date(2025, 4, 5), settings))


def test_the_tombstone_epochs_reach_the_last_window_that_holds_the_user_out() -> None:
    epochs = epochs_reached(date(2025, 2, 3), SETTINGS)
    assert epochs[0] == epoch_of(date(2025, 1, 1), 90)
    assert epochs[-1] == epoch_of(date(2025, 3, 29), 90)
    begins_there = Settings(start_date=date(2025, 1, 1), hash_salt_rotation_days=97)
    last = epochs_reached(date(2025, 2, 3), begins_there)[-1]
    assert last == epoch_of(date(2025, 3, 29), 97) == epoch_of(date(2025, 3, 28), 97) + 1


def test_bad_rows_go_to_the_quarantine_and_in_part_stop_nothing(folder: Folder, tmp_path: Path) -> None:
    path = lines(tmp_path, "e.jsonl", plus("a", "2025-02-01"), plus("secret-person", "never"), plus("b", "2025-05-01"))
    report = folder.ingest(path, partial=True)
    assert (report.ingested, report.rejected) == (1, 2)
    assert report.quarantine
    quarantined = list(csv.reader(report.quarantine.read_text().splitlines()))
    assert quarantined[0] == ["file", "line", "reason"]
    assert [(file, line) for file, line, _ in quarantined[1:]] == [(str(path), "2"), (str(path), "3")]
    assert "secret-person" not in report.quarantine.read_text() and "never" not in report.quarantine.read_text()
    assert report.rejections.by_reason() == {BAD_DAY: 1, TOO_LATE: 1}
    assert folder.ingest(path, partial=True).quarantine == report.quarantine


# --- A wrong input never becomes a number --------------------------------------------------------------------------


def nothing_taken(folder: Folder) -> bool:
    return not folder.erasures.noted and folder.inbox.batches() == []


@pytest.mark.parametrize("partial", [False, True])
def test_an_input_without_one_valid_row_is_bad_input_and_nothing_is_taken(
    folder: Folder, tmp_path: Path, partial: bool
) -> None:
    path = lines(tmp_path, "e.jsonl", plus("a", "never"), plus("secret", "2024-12-31"), plus("b", "never"))
    with pytest.raises(NoValidRow) as raised:
        folder.ingest(path, partial=partial)
    report = raised.value.report
    assert raised.value.exit_code == 5 and nothing_taken(folder)
    assert (report.ingested, report.rejected, report.days, report.batch) == (0, 3, (), None)
    assert list(report.rejections.by_reason().items()) == [(BAD_DAY, 2), (TOO_EARLY, 1)]
    assert report.quarantine and report.quarantine.read_text().count("\n") == 4
    assert str(path) in raised.value.reason and BAD_DAY in raised.value.reason and "secret" not in str(raised.value)


def good_and_bad(folder: Path, good: int, bad: int, *others: dict[str, object]) -> Path:
    rows = [plus(f"u{n}", "2025-02-01") for n in range(good)] + [plus(f"u{n}", "never") for n in range(bad)]
    return lines(folder, "e.jsonl", *rows, *others)


def test_more_bad_rows_than_the_share_admits_are_refused_and_no_removal_is_taken_either(
    folder: Folder, tmp_path: Path
) -> None:
    path = good_and_bad(tmp_path, 296, 4, minus("x", "2025-02-01"), minus("y", "2025-02-01"))
    with pytest.raises(TooManyRejected, match=r"1\.32 % of the rows are bad.*admits 1 %") as raised:
        folder.ingest(path)
    report = raised.value.report
    assert raised.value.exit_code == 4 and nothing_taken(folder)
    assert (report.ingested, report.rejected, report.removals_waiting) == (0, 4, 2)
    assert report.quarantine and report.quarantine.exists()
    taken = folder.ingest(path, partial=True)
    assert (taken.ingested, taken.rejected, taken.removals_waiting) == (298, 4, 0)
    assert len(folder.erasures.noted[0]) == 2 and folder.inbox.batches() == [taken.batch]


def test_the_share_itself_is_admitted_and_one_row_more_is_not(folder: Folder, tmp_path: Path) -> None:
    assert folder.ingest(good_and_bad(tmp_path, 198, 2)).ingested == 198
    with pytest.raises(TooManyRejected):
        folder.ingest(good_and_bad(tmp_path, 197, 2))
    none = replace(SETTINGS, max_rejected_share=Fraction(0))
    assert folder.ingest(good_and_bad(tmp_path, 5, 0), settings=none).ingested == 5
    with pytest.raises(TooManyRejected):
        folder.ingest(good_and_bad(tmp_path, 500, 1), settings=none)


def test_rows_before_start_date_do_not_count_in_the_share_and_rows_after_tomorrow_do(
    folder: Folder, tmp_path: Path
) -> None:
    early = [plus(f"u{n}", "2024-06-01") for n in range(50)]
    report = folder.ingest(good_and_bad(tmp_path, 10, 0, *early))
    assert (report.ingested, report.rejected) == (10, 50)
    with pytest.raises(TooManyRejected):
        folder.ingest(good_and_bad(tmp_path, 50, 0, plus("a", "2025-05-01"), *early))


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_input_is_no_error(folder: Folder, tmp_path: Path, content: str) -> None:
    (tmp_path / "e.jsonl").write_text(content)
    (tmp_path / "e.csv").write_text(content)
    report = folder.ingest(tmp_path / "e.jsonl", tmp_path / "e.csv")
    assert (report.ingested, report.rejected, report.batch, report.quarantine) == (0, 0, None, None)


@pytest.mark.also_long
@settings(max_examples=at_length(test=25, ci=100, soak=1_000), deadline=None)
@given(good=st.integers(0, 40), bad=st.integers(0, 6), early=st.integers(0, 9), share=st.fractions(0, Fraction(1, 2)))
def test_either_all_good_rows_are_taken_or_none_by_the_share_of_the_bad_ones(
    good: int, bad: int, early: int, share: Fraction, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [Row(f"u{n}", day="2025-02-01") for n in range(good)] + [None] * bad + [Row("u", day="2024-01-01")] * early
    scan = RowScan((("e", line, row) for line, row in enumerate(rows, 1)), LIMITS)
    folder = Folder(tmp_path_factory.mktemp("share"))
    store = folder.store(replace(SETTINGS, max_rejected_share=share))
    try:
        report = ingest_scan(scan, store, progress=lambda _: None)
    except NotTaken as error:
        assert (good == 0 and bad + early) or bad > share * (good + bad)
        assert error.report.rejected == bad + early and nothing_taken(folder)
        assert [share.taken for share in store.events.quarantine.shares()] == [False]
        assert error.exit_code == (4 if good else 5)
    else:
        assert bad <= share * (good + bad) and (report.ingested, report.rejected) == (good, bad + early)
        assert good or not (bad + early)


def test_a_refused_input_is_made_good_by_the_same_files_and_one_taken_in_part_is_not(
    folder: Folder, tmp_path: Path
) -> None:
    quarantine = folder.store(SETTINGS).events.quarantine
    with pytest.raises(TooManyRejected):
        folder.ingest(good_and_bad(tmp_path, 10, 5))
    (share,) = quarantine.shares()
    assert (share.taken, share.share) == (False, 5 / 15)
    other = tmp_path / "other"
    other.mkdir()
    folder.ingest(good_and_bad(other, 10, 0))
    assert quarantine.shares() == [share]
    folder.ingest(good_and_bad(tmp_path, 15, 0))
    assert quarantine.shares() == []
    folder.ingest(good_and_bad(tmp_path, 10, 5), partial=True)
    folder.ingest(good_and_bad(tmp_path, 15, 0))
    assert [(share.taken, share.share) for share in quarantine.shares()] == [(True, 5 / 15)]


# --- Folders that are named after a day ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["e.jsonl", "e.csv", "e.parquet", "e.parquet.gz"])
def test_of_a_folder_that_is_named_after_a_day_the_share_of_other_days_is_told(
    folder: Folder, tmp_path: Path, name: str
) -> None:
    for day, others in (("2025-02-01", 3), ("2025-02-02", 0)):
        there = tmp_path / "landing" / f"day={day}" / "hour=1"
        there.mkdir(parents=True)
        table = pa.table(
            {"user_id": [f"u{n}" for n in range(8)], "day": ["2025-03-01"] * others + [day] * (8 - others)}
        )
        write_table(table, there / name)
    report = folder.ingest(*sorted((tmp_path / "landing").rglob("e.*")))
    assert (report.ingested, report.elsewhere) == (16, {date(2025, 2, 1): 3 / 8})
    rows = [("day=2025-02-01/e", n, Row(f"u{n}", day="2025-03-01" if n < 3 else "2025-02-01")) for n in range(8)]
    assert RowScan(rows, LIMITS).elsewhere() == report.elsewhere


def write_table(table: pa.Table, path: Path) -> None:
    if ".parquet" in path.name:
        data = io.BytesIO()
        pq.write_table(table, data)
        content = data.getvalue()
    elif ".csv" in path.name:
        content = ("user_id,day\n" + "".join(f"{row['user_id']},{row['day']}\n" for row in table.to_pylist())).encode()
    else:
        content = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_a_bad_row_of_a_file_named_after_somebody_who_is_erased_by_it_is_kept_without_the_name(
    folder: Folder, tmp_path: Path
) -> None:
    path = lines(tmp_path, "of-anna.jsonl", minus("anna", "2025-02-01"), plus("b", "never"))
    other = lines(tmp_path, "e.jsonl", plus("b", "never"))
    report = folder.ingest(path, other, partial=True)
    assert report.rejected == 2 and report.quarantine and report.quarantine.read_text().count("\n") == 3
    assert "anna" not in report.quarantine.read_text() and str(other) in report.quarantine.read_text()
    assert "(a name that is left out),2," in report.quarantine.read_text()
    refused = raised_by(folder, path, other)
    assert refused.quarantine and "anna" in refused.quarantine.read_text(), "nobody is erased by it"


def raised_by(folder: Folder, *files: Path) -> IngestReport:
    with pytest.raises(NotTaken) as raised:
        folder.ingest(*files)
    return raised.value.report


def test_tomorrow_is_taken_and_the_day_after_is_not(folder: Folder, tmp_path: Path) -> None:
    path = lines(tmp_path, "e.jsonl", plus("a", "2025-04-30"), plus("a", "2025-05-01"))
    report = folder.ingest(path, partial=True)
    assert (report.days, report.rejected) == ((date(2025, 4, 30),), 1)


def test_one_file_that_cannot_be_read_stops_everything_and_nothing_is_kept(folder: Folder, tmp_path: Path) -> None:
    sound = lines(tmp_path, "a.jsonl", plus("a", "2025-02-01"), minus("b", "2025-02-01"), plus("", "2025-02-01"))
    broken = tmp_path / "b.jsonl.gz"
    broken.write_bytes(gzip.compress(sound.read_bytes())[:-8])
    with pytest.raises(BadInput, match=r"b\.jsonl\.gz"):
        folder.ingest(sound, broken)
    assert folder.erasures.noted == [] and not list(folder.root.rglob("*"))


def test_nobody_is_written_down_by_name(folder: Folder, tmp_path: Path) -> None:
    planted = [f"planted-person-{n}" for n in range(50)]
    rows = [
        row for user in planted for row in (plus(user, "2025-02-01"), plus(user, "soon"), minus(user, "2025-02-02"))
    ]
    report = folder.ingest(lines(tmp_path, "e.jsonl", *rows), partial=True)
    files = [path for path in folder.root.rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in files) == [".csv", ".json", ".lock", ".parquet"]
    for text in (*(path.read_bytes() for path in files), repr(report).encode(), "".join(folder.said).encode()):
        assert b"planted" not in text


@pytest.mark.parametrize("name", ["e.jsonl", "e.csv.gz", "e.parquet", "e.parquet.gz"])
def test_how_far_the_reading_is_grows_to_the_whole(folder: Folder, tmp_path: Path, name: str) -> None:
    table = pa.table({"user_id": [f"u{n}" for n in range(900)], "day": ["2025-02-01"] * 900})
    files = [tmp_path / str(n) / name for n in range(3)]
    for path in files:
        path.parent.mkdir()
        write_table(table, path)
    told: list[float] = []
    ingest([event_file(file) for file in files], folder.store(SETTINGS), tell=lambda share, _: told.append(share))
    assert told == sorted(told) and told[-1] == 1.0 and len(told) >= 3


def test_progress_is_told_without_counting_people(folder: Folder, tmp_path: Path) -> None:
    folder.ingest(lines(tmp_path, "e.jsonl", plus("a", "2025-02-01"), minus("b", "2025-02-01")))
    assert folder.said[0] == "Reading 1 file(s)."
    assert any("salt epoch" in text for text in folder.said) and "Recording removals." in folder.said


def test_rows_in_memory_take_the_same_path_to_the_same_batch(tmp_path: Path) -> None:
    rows = [("u1", "2025-02-01"), ("u2", "2025-02-01"), ("u1", "2025-03-31"), ("", "2025-03-31")]
    by_file, by_rows = Folder(tmp_path / "file"), Folder(tmp_path / "rows")
    path = lines(tmp_path, "e.jsonl", *(plus(*row) for row in rows), minus("u9", "2025-02-01"))
    report = by_file.ingest(path, partial=True)
    as_rows = [Row(user, day=day) for user, day in rows] + [Row("u9", "-", "2025-02-01")]
    scan = RowScan((("e.jsonl", line, row) for line, row in enumerate(as_rows, 1)), LIMITS)
    other = ingest_scan(scan, by_rows.store(SETTINGS), progress=lambda _: None, partial=True)
    assert (other.batch, other.ingested, other.days) == (report.batch, report.ingested, report.days)
    assert by_rows.erasures.noted == by_file.erasures.noted
    assert by_rows.contents() == by_file.contents()


def test_made_up_events_are_valid_and_the_same_for_the_same_seed_in_every_format(tmp_path: Path) -> None:
    reports = []
    for name, seed in (("a.parquet", 1), ("a.csv", 1), ("a.jsonl", 1), ("b.csv", 2)):
        generate_synthetic(tmp_path / name, days=40, users=50, events=900, first_day=date(2025, 1, 20), seed=seed)
        reports.append(Folder(tmp_path / "data").ingest(tmp_path / name))
    assert {(report.ingested, report.rejected, len(report.days)) for report in reports} == {(900, 0, 40)}
    assert reports[0].batch == reports[1].batch == reports[2].batch != reports[3].batch


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_ingest import Folder

    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    Folder(Path(sys.argv[2])).ingest(Path(sys.argv[3]))
"""


def test_an_ingest_killed_before_the_rename_is_invisible_and_the_rerun_completes_it(
    folder: Folder, tmp_path: Path
) -> None:
    path = lines(tmp_path, "e.jsonl", *(plus(f"u{n}", "2025-02-01") for n in range(500)), plus("", "2025-02-01"))
    command = [sys.executable, "-c", textwrap.dedent(KILLED), Path(__file__).parent, folder.root, path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([str(part) for part in command], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(folder.root.rglob("*.tmp")) and folder.inbox.batches() == []
    assert not list(folder.root.rglob("*.csv"))
    report = folder.ingest(path)
    assert folder.inbox.batches() == [report.batch] and report.quarantine
    assert not list(folder.root.rglob("*.tmp"))
    assert {len(keys) for keys in folder.contents().values()} == {500}
