"""Batches and quarantine files: durable, whole or not at all, the same content under the same name."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import DaySet, RejectedRow
from dpdau_assets.core.identity import Named
from dpdau_tests.support.salts import KnownSalts
from resources.storage import durable
from resources.storage.durable import sweep, unlink_durably, write_all_durably, write_durably, write_named_durably
from resources.storage.inbox_files import FileInbox
from resources.storage.quarantine_files import FileQuarantine

DAY = date(2025, 2, 1)


def keys(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def plain(sets: object) -> list[tuple[date, int, list[int]]]:
    return [(day_set.day, day_set.epoch, day_set.keys.tolist()) for day_set in sets]  # type: ignore[attr-defined]


SETS = [
    DaySet(DAY, 223, keys(1, 2**63, 2**64 - 1)),
    DaySet(DAY + timedelta(days=1), 223, keys(7)),
    DaySet(DAY, 224, keys(0, 5)),
]
IN_ORDER = [(DAY, 223, [1, 2**63, 2**64 - 1]), (DAY, 224, [0, 5]), (DAY + timedelta(days=1), 223, [7])]


def leftovers(root: Path) -> list[Path]:
    return list(root.rglob("*.tmp"))


# The inbox.


def test_what_was_appended_is_read_back_in_order_of_days_and_epochs(tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, KnownSalts())
    name = inbox.append(SETS)
    assert name and inbox.batches() == [name]
    assert plain(inbox.read([name])) == IN_ORDER
    assert all(day_set.keys.dtype == np.uint64 for day_set in inbox.read([name]))


def test_an_inbox_that_was_never_written_is_empty(tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, KnownSalts())
    assert inbox.batches() == []
    assert list(inbox.read([])) == []
    inbox.discard([])


@pytest.mark.parametrize("sets", [[], [DaySet(DAY, 223, keys())]])
def test_nothing_to_append_is_no_batch(sets: list[DaySet], tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, KnownSalts())
    assert inbox.append(sets) is None
    assert inbox.batches() == [] and not leftovers(tmp_path)


def test_the_same_sets_are_the_same_batch_and_others_are_not(tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, KnownSalts())
    name = inbox.append(iter(SETS))
    assert inbox.append(SETS) == name
    moved = [DaySet(DAY, 223, keys(1, 2)), DaySet(DAY, 224, keys(3))]
    again = [DaySet(DAY, 223, keys(1)), DaySet(DAY, 224, keys(2, 3))]
    names = {name, inbox.append(moved), inbox.append(again), inbox.append(SETS[:2])}
    assert len(names) == 4 and inbox.batches() == sorted(names)  # type: ignore[type-var]
    assert all(name and len(bytes.fromhex(name)) == 16 for name in names)


batches = st.lists(
    st.dictionaries(
        st.tuples(st.integers(0, 2), st.integers(222, 224)),
        st.sets(st.integers(0, 2**64 - 1) | st.integers(0, 5), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=15, deadline=None)
@given(batches)
def test_batches_read_together_are_united_by_day_and_epoch(
    tmp_path_factory: pytest.TempPathFactory, given_batches: list[dict[tuple[int, int], set[int]]]
) -> None:
    inbox = FileInbox(tmp_path_factory.mktemp("inbox"), KnownSalts())
    wanted: dict[tuple[int, int], set[int]] = {}
    for batch in given_batches:
        inbox.append(
            DaySet(DAY + timedelta(days=n), epoch, keys(*sorted(members))) for (n, epoch), members in batch.items()
        )
        for place, members in batch.items():
            wanted.setdefault(place, set()).update(members)
    assert plain(inbox.read(inbox.batches())) == [
        (DAY + timedelta(days=n), epoch, sorted(wanted[n, epoch])) for n, epoch in sorted(wanted)
    ]


def test_a_day_of_more_than_a_million_users_is_one_row_group(tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, KnownSalts())
    many = np.arange(1_500_000, dtype=np.uint64)
    name = inbox.append([DaySet(DAY, 223, many)])
    assert pq.read_metadata(tmp_path / "inbox" / f"{name}.parquet").num_row_groups == 1
    [day_set] = inbox.read([str(name)])
    assert np.array_equal(day_set.keys, many)


def test_every_key_stands_in_the_file_as_its_eight_bytes_and_costs_little_more(tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, KnownSalts())
    many = np.unique(np.random.default_rng(7).integers(0, 2**64, 10_000, dtype=np.uint64))
    name = inbox.append([DaySet(DAY, 223, many), DaySet(DAY, 224, many + np.uint64(1))])
    content = (tmp_path / "inbox" / f"{name}.parquet").read_bytes()
    assert all(int(key).to_bytes(8, "little") in content for key in (*many[::100], many[0], many[-1]))
    assert len(content) < 2 * 8 * len(many) + 4096


def test_discarded_batches_are_gone_and_discarding_again_is_no_error(tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, KnownSalts())
    first, second = inbox.append(SETS[:1]), inbox.append(SETS[1:])
    assert first and second
    inbox.discard([first])
    inbox.discard([first, "never-there"])
    assert inbox.batches() == [second]


def test_a_batch_in_which_keys_are_missing_is_refused_and_never_folded_as_others(tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, KnownSalts())
    name = inbox.append(SETS)
    path = tmp_path / "inbox" / f"{name}.parquet"
    whole = pq.ParquetFile(path)
    with pq.ParquetWriter(path.with_suffix(".new"), whole.schema_arrow) as writer:
        for group in range(whole.num_row_groups):
            table = whole.read_row_group(group)
            without = pa.array([None] * len(table), pa.uint64())
            writer.write_table(table.set_column(2, "key", without))
        writer.add_key_value_metadata(
            {key: value for key, value in whole.metadata.metadata.items() if b"ARROW" not in key}
        )
    path.with_suffix(".new").replace(path)
    with pytest.raises(Refused, match="cannot be read"):
        list(FileInbox(tmp_path, KnownSalts()).read([str(name)]))


def test_a_damaged_batch_is_refused_by_name(tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, KnownSalts())
    name = inbox.append(SETS)
    path = tmp_path / "inbox" / f"{name}.parquet"
    for content in (path.read_bytes()[:-20], b""):
        path.write_bytes(content)
        with pytest.raises(Refused, match=str(name)):
            list(inbox.read([str(name)]))


def test_a_batch_that_was_keyed_under_another_key_of_an_epoch_is_refused_and_stays(tmp_path: Path) -> None:
    name = FileInbox(tmp_path, KnownSalts()).append(SETS)
    other = FileInbox(tmp_path, KnownSalts(store="another store's "))
    with pytest.raises(Refused, match=f"batch {name} was keyed under another key of salt epoch 223") as refused:
        list(other.read([str(name)]))
    assert str(tmp_path / "inbox" / f"{name}.parquet") in refused.value.remedy
    assert other.batches() == [name] and other.epochs() == {223, 224}


def test_a_batch_that_says_nothing_of_its_keys_is_refused(tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, KnownSalts())
    name = inbox.append(SETS)
    path = tmp_path / "inbox" / f"{name}.parquet"
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(group) for group in range(file.num_row_groups)]
    with pq.ParquetWriter(path, groups[0].schema.remove_metadata()) as writer:
        for group in groups:
            writer.write_table(group.replace_schema_metadata(None))
    with pytest.raises(Refused, match="under another key of salt epoch 223"):
        list(inbox.read([str(name)]))


def test_a_batch_of_an_epoch_whose_key_is_gone_holds_up_no_other(tmp_path: Path) -> None:
    """Nothing that it is keyed under is taken by any state; what is read of it is dropped."""
    FileInbox(tmp_path, KnownSalts()).append(SETS)
    later = FileInbox(tmp_path, KnownSalts(gone=frozenset({223})))
    assert plain(later.read(later.batches())) == IN_ORDER


def test_the_epochs_of_what_waits_are_told_without_asking_for_a_key(tmp_path: Path) -> None:
    FileInbox(tmp_path, KnownSalts()).append(SETS)
    salts = KnownSalts()
    assert FileInbox(tmp_path, salts).epochs() == {223, 224} and salts.asked == []


def test_an_append_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing():
        yield SETS[0]
        raise RuntimeError("the scan broke")

    with pytest.raises(RuntimeError):
        FileInbox(tmp_path, KnownSalts()).append(failing())
    assert FileInbox(tmp_path, KnownSalts()).batches() == [] and not leftovers(tmp_path)


# Killed writers.


def run_until_killed(script: str, *arguments: object) -> None:
    """Run a script in a process that kills itself in the middle, with the signal that nothing can catch."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert done.returncode == -signal.SIGKILL


KILLED_BEFORE_RENAME = """
    import os, signal, sys
    from datetime import date
    from pathlib import Path
    import numpy as np
    from dpdau_assets.core.facts import DaySet
    from dpdau_tests.support.salts import KnownSalts
    from resources.storage.inbox_files import FileInbox

    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    sets = [DaySet(date(2025, 2, 1), 223, np.arange(1000, dtype=np.uint64))]
    FileInbox(Path(sys.argv[1]), KnownSalts()).append(sets)
"""


def test_a_writer_killed_before_the_rename_leaves_nothing_visible_and_the_rerun_completes(tmp_path: Path) -> None:
    run_until_killed(KILLED_BEFORE_RENAME, tmp_path)
    inbox = FileInbox(tmp_path, KnownSalts())
    assert len(leftovers(tmp_path)) == 1
    assert inbox.batches() == []
    name = inbox.append([DaySet(DAY, 223, np.arange(1000, dtype=np.uint64))])
    assert inbox.batches() == [name] and not leftovers(tmp_path)
    [day_set] = inbox.read(inbox.batches())
    assert day_set.keys.tolist() == list(range(1000))


def test_folding_sweeps_what_a_killed_writer_left_too(tmp_path: Path) -> None:
    run_until_killed(KILLED_BEFORE_RENAME, tmp_path)
    FileInbox(tmp_path, KnownSalts()).discard([])
    assert not leftovers(tmp_path)


def test_a_living_writer_keeps_its_temporary_file_while_others_append(tmp_path: Path) -> None:
    slow, entered, go_on = FileInbox(tmp_path, KnownSalts()), threading.Event(), threading.Event()

    def slowly():
        yield SETS[0]
        entered.set()
        assert go_on.wait(30)
        yield SETS[1]

    writer = threading.Thread(target=lambda: slow.append(slowly()))
    writer.start()
    assert entered.wait(30)
    other = FileInbox(tmp_path, KnownSalts()).append(SETS[2:])
    assert len(leftovers(tmp_path)) == 1
    go_on.set()
    writer.join()
    assert len(slow.batches()) == 2 and other in slow.batches() and not leftovers(tmp_path)


# The quarantine.


def test_bad_rows_are_kept_by_place_and_reason(tmp_path: Path) -> None:
    rows = [RejectedRow('in/"odd", name.csv', 3, "op is neither + nor -."), RejectedRow("b.json", 12, "The row, no.")]
    path = FileQuarantine(tmp_path).keep(iter(rows))
    assert path and path.parent == tmp_path / "quarantine" and path.suffix == ".csv"
    assert path.read_text() == (
        'file,line,reason\n"in/""odd"", name.csv",3,op is neither + nor -.\nb.json,12,"The row, no."\n'
    )


def test_the_same_bad_rows_are_the_same_file_and_none_are_no_file(tmp_path: Path) -> None:
    quarantine = FileQuarantine(tmp_path)
    rows = [RejectedRow("a", line, "No.") for line in range(1, 25_002)]
    path = quarantine.keep(rows)
    assert path == quarantine.keep(rows) != quarantine.keep(rows[:-1])
    assert path and len(path.read_text().splitlines()) == 25_002
    assert quarantine.keep([]) is None
    assert len(list((tmp_path / "quarantine").glob("*.csv"))) == 2 and not leftovers(tmp_path)


def test_a_file_name_that_is_no_utf8_can_be_kept(tmp_path: Path) -> None:
    path = FileQuarantine(tmp_path).keep([RejectedRow(os.fsdecode(b"\xff.csv"), 1, "No.")])
    assert path and r"\udcff.csv,1,No." in path.read_text()


@pytest.mark.parametrize("name", ["=1+1.csv", "+a.csv", "-a.csv", "@a.csv", "\tb.csv", "\rb.csv"])
def test_a_file_whose_name_a_spreadsheet_would_take_for_a_formula_is_kept_by_a_name_that_is_none_and_forgotten_by_it(
    name: str, tmp_path: Path
) -> None:
    quarantine = FileQuarantine(tmp_path)
    path = quarantine.keep([RejectedRow(name, 1, "No."), RejectedRow("b=.csv", 2, "No.")])
    assert path
    with path.open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["file", f"./{name}", "b=.csv"]
    quarantine.forget(Named([name.removesuffix(".csv")]))
    (left,) = (tmp_path / "quarantine").glob("*.csv")
    assert left.read_text() == "file,line,reason\nb=.csv,2,No.\n"


def bad_rows(*files: str) -> list[RejectedRow]:
    return [RejectedRow(file, line, f"{file} is fine.") for line, file in enumerate(files, 1)]


def test_rows_of_files_that_are_named_after_somebody_go_and_the_rest_is_as_if_they_had_never_been(
    tmp_path: Path,
) -> None:
    (tmp_path / "never").mkdir()
    quarantine = FileQuarantine(tmp_path)
    rows = bad_rows("in/anna.csv", "susanna.csv", 'say "hi", anna.csv', "a,b\nc.csv", "anna_2.csv", "ben/e.csv")
    path = quarantine.keep(rows)
    assert path
    os.utime(path, (1e9, 1e9))
    quarantine.forget(Named(["anna", "ben"]))
    wanted = FileQuarantine(tmp_path / "never").keep([rows[1], rows[3], rows[4]])
    (left,) = (tmp_path / "quarantine").glob("*.csv")
    assert wanted and (left.name, left.read_bytes()) == (wanted.name, wanted.read_bytes())
    assert left.stat().st_mtime == 1e9, "it expires as it would have"
    quarantine.forget(Named(["nobody", "susann"]))
    assert left.exists() and not leftovers(tmp_path)


def test_a_quarantine_file_that_is_left_without_rows_or_is_itself_named_after_somebody_is_unlinked(
    tmp_path: Path,
) -> None:
    quarantine = FileQuarantine(tmp_path)
    whole, other = quarantine.keep(bad_rows("anna.csv", "anna.jsonl")), quarantine.keep(bad_rows("e.csv"))
    assert whole and other
    named = other.with_name("of-anna.csv")
    named.write_text("file,line,reason\ne.csv,1,No.\n")
    (tmp_path / "quarantine" / "note.txt").touch()
    quarantine.forget(Named(["anna"]))
    assert {path.name for path in whole.parent.iterdir()} == {".staging", other.name, "note.txt"}
    FileQuarantine(tmp_path / "no such folder").forget(Named(["anna"]))


def test_the_quarantine_forgets_what_was_written_before_a_day_and_the_same_rows_again_are_the_same_file(
    tmp_path: Path,
) -> None:
    quarantine = FileQuarantine(tmp_path)
    old, new = quarantine.keep(bad_rows("a.csv")), quarantine.keep(bad_rows("b.csv"))
    assert old and new
    for path, day in ((old, 9), (new, 10)):
        written = datetime(2025, 3, day, 23, 59, tzinfo=UTC).timestamp()
        os.utime(path, (written, written))
    quarantine.expire(date(2025, 3, 10))
    assert not old.exists() and new.exists()
    assert quarantine.keep(bad_rows("a.csv")) == old


def test_a_share_goes_with_its_csv_whoever_removes_that(tmp_path: Path) -> None:
    quarantine = FileQuarantine(tmp_path)
    kept, other = quarantine.keep(bad_rows("a.csv")), quarantine.keep(bad_rows("b.csv"))
    assert kept and other
    for path in (kept, other):
        quarantine.note_share(path, 0.25, taken=True)
    kept.unlink()
    assert [(share.rows, share.share) for share in quarantine.shares()] == [(other.stem, 0.25)]
    quarantine.expire(date(2000, 1, 1))
    assert sorted(path.name for path in other.parent.glob("[!.]*")) == [other.name, f"{other.stem}.json"]


def test_two_requests_that_rewrite_the_quarantine_at_once_leave_neither_of_them(tmp_path: Path) -> None:
    people = [f"user-{n}" for n in range(12)]
    for part in range(3):
        FileQuarantine(tmp_path).keep(bad_rows(*(f"{part}/{one}.csv" for one in (*people, "all"))))
    threads = [threading.Thread(target=lambda one=one: FileQuarantine(tmp_path).forget(Named([one]))) for one in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = b"".join(path.read_bytes() for path in (tmp_path / "quarantine").glob("*.csv"))
    assert b"user-" not in left and left.count(b"/all.csv,") == 3


# Durable writes.


def writing(content: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def test_many_files_are_written_replaced_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_OPEN_AT_ONCE", 4)
    paths = [tmp_path / f"day={n}" / "deep" / f"{n}.bin" for n in range(13)]
    for content in (b"old", b"new"):
        write_all_durably((path, writing(content + path.name.encode())) for path in paths)
    assert all(path.read_bytes() == b"new" + path.name.encode() for path in paths)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 13


def test_one_file_is_asked_for_at_a_time(tmp_path: Path) -> None:
    steps: list[str] = []

    def one(n: int) -> tuple[Path, Callable[[BinaryIO], None]]:
        steps.append(f"made {n}")
        return tmp_path / str(n), lambda _: steps.append(f"written {n}")

    write_all_durably(one(n) for n in range(3))
    assert steps == ["made 0", "written 0", "made 1", "written 1", "made 2", "written 2"]


def test_a_write_that_fails_leaves_every_file_of_its_group_as_it_was(tmp_path: Path) -> None:
    def failing(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError("disk full")

    write_durably(tmp_path / "a", writing(b"old"))
    with pytest.raises(OSError, match="disk full"):
        write_all_durably([(tmp_path / "a", writing(b"new")), (tmp_path / "b", failing)])
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_every_file_and_its_folder_are_synced_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append("sync folder" if target.is_dir() else "sync file")
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return real_replace(self, target)

    write_durably(tmp_path / "x", writing(b""))
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_all_durably([(tmp_path / "a", writing(b"1")), (tmp_path / "b", writing(b"2"))])
    assert events == ["sync file", "sync file", "rename", "rename", "sync folder"]
    events.clear()
    write_named_durably(tmp_path, tmp_path, lambda file: "c" if file.write(b"3") else None)
    assert events == ["sync file", "rename", "sync folder"]
    events.clear()
    write_durably(tmp_path / "new" / "folder" / "d", writing(b"4"))
    assert events == ["sync folder", "sync folder", "sync file", "rename", "sync folder"]


def test_what_cannot_be_synced_takes_the_place_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renamed before it is on disk, a file could be there with nothing in it after a crash."""
    paths = [tmp_path / name for name in ("a", "b")]
    write_all_durably((path, writing(b"old")) for path in paths)
    real_sync = os.fsync

    def sync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".tmp":
            raise OSError("the disk is gone")
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="the disk is gone"):
        write_all_durably((path, writing(b"new")) for path in paths)
    with pytest.raises(OSError, match="the disk is gone"):
        write_named_durably(tmp_path, tmp_path, lambda file: "a" if file.write(b"new") else None)
    assert [path.read_bytes() for path in paths] == [b"old", b"old"]
    assert not leftovers(tmp_path)


def test_a_folder_is_synced_once_a_file_in_it_was_unlinked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or what was erased could be there again after a crash."""
    path = tmp_path / "folder" / "a"
    write_durably(path, writing(b"keys of people"))
    events: list[object] = []
    real_sync = os.fsync

    def sync(descriptor: int) -> None:
        events.append((Path(f"/proc/self/fd/{descriptor}").readlink(), path.exists()))
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    unlink_durably(path)
    assert events == [(path.parent.resolve(), False)]


def test_a_sweep_takes_what_the_dead_left_and_spares_the_living(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / ".00112233445566ff.tmp").write_bytes(b"keys of people")
    (tmp_path / "kept.parquet").touch()

    def write(file: BinaryIO) -> None:
        sweep(tmp_path)
        file.write(b"alive")

    write_durably(tmp_path / "below" / "alive", write)
    assert (tmp_path / "below" / "alive").read_bytes() == b"alive"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["alive", "below", "kept.parquet"]


def test_writers_and_sweepers_do_not_disturb_each_other(tmp_path: Path) -> None:
    done = threading.Event()
    sweeper = threading.Thread(target=lambda: [sweep(tmp_path) for _ in iter(done.is_set, True)])
    sweeper.start()
    try:
        for n in range(60):
            write_durably(tmp_path / str(n % 5), writing(str(n).encode()))
    finally:
        done.set()
        sweeper.join()
    assert sorted(int((tmp_path / str(n)).read_bytes()) for n in range(5)) == list(range(55, 60))
