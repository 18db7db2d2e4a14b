"""The write-ahead log: what was acknowledged is sealed, whoever wrote it and however it ended; what was not is not."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.dates import UNIX_EPOCH
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.events import BAD_DAY, GIVEN, NO_USER
from dpdau_assets.core.facts import Arrivals
from dpdau_assets.core.identity import epoch_key_commitment
from dpdau_tests.support.salts import KnownSalts
from resources.storage import write_ahead_log
from resources.storage.inbox_files import FileInbox
from resources.storage.log_writer import LogWriter
from resources.storage.quarantine_files import FileQuarantine
from resources.storage.write_ahead_log import FOLDER, FileWriteAheadLog, Segment, SegmentIsGone

Row = tuple[int, int, int]  # day number, epoch, key
ROWS = st.lists(st.tuples(st.integers(20_000, 20_003), st.integers(222, 223), st.integers(0, 2**64 - 1)), max_size=20)
REJECTED = st.lists(st.tuples(st.integers(1, 10_000), st.sampled_from(GIVEN)), max_size=3)


def arrivals(rows: list[Row], rejected: list[tuple[int, str]] | None = None) -> Arrivals:
    salts = KnownSalts()
    epochs = sorted({epoch for _, epoch, _ in rows})
    return Arrivals(
        days=np.array([day for day, _, _ in rows], np.int32),
        epochs=np.array([epoch for _, epoch, _ in rows], np.int32),
        keys=np.array([key for _, _, key in rows], np.uint64),
        commitments={epoch: epoch_key_commitment(salts.epoch_keys([epoch])[epoch]) for epoch in epochs},
        request="0123456789abcdef",
        rejected=tuple(rejected or ()),
    )


class Log:
    """A log on a folder, with the inbox that it seals into."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER
        self.inbox = FileInbox(root, KnownSalts())
        self.log = FileWriteAheadLog(root, self.inbox, FileQuarantine(root), KnownSalts())

    def segment(self) -> Segment:
        return Segment(self.folder)

    def sealed(self) -> set[Row]:
        """What the inbox holds once everything is sealed."""
        self.log.seal()
        assert self.log.segments() == []
        sets = self.inbox.read(self.inbox.batches())
        return {((each.day - UNIX_EPOCH).days, each.epoch, key) for each in sets for key in each.keys.tolist()}


@given(st.lists(st.lists(ROWS, min_size=1, max_size=4), min_size=1, max_size=3), st.booleans())
def test_what_was_appended_to_any_segments_is_sealed_once_and_wholly(
    tmp_path_factory: pytest.TempPathFactory, segments: list[list[list[Row]]], twice: bool
) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    for frames in segments:
        segment = log.segment()
        for rows in frames:
            segment.append([arrivals(rows)])
    wanted = {row for frames in segments for rows in frames for row in rows}
    assert log.log.days() == {UNIX_EPOCH + timedelta(days=day) for day, _, _ in wanted}
    assert log.log.epochs() == {epoch for _, epoch, _ in wanted}
    assert log.sealed() == wanted
    if twice:
        assert log.sealed() == wanted and log.log.size() == 0


@given(st.lists(ROWS.filter(bool), min_size=1, max_size=4), st.data())
def test_a_segment_that_is_cut_anywhere_holds_every_frame_before_the_cut(
    tmp_path_factory: pytest.TempPathFactory, frames: list[list[Row]], data: st.DataObject
) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    segment, ends = log.segment(), [0]
    for rows in frames:
        segment.append([arrivals(rows)])
        ends.append(segment.size)
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(segment.path, cut)
    whole = sum(end <= cut for end in ends[1:])
    assert log.sealed() == {row for rows in frames[:whole] for row in rows}


@given(st.lists(ROWS.filter(bool), min_size=2, max_size=4), st.data())
def test_a_byte_that_is_changed_before_the_last_frame_is_refused_and_nothing_of_it_is_lost(
    tmp_path_factory: pytest.TempPathFactory, frames: list[list[Row]], data: st.DataObject
) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    segment = log.segment()
    for rows in frames[:-1]:
        segment.append([arrivals(rows)])
    before_last = segment.size
    segment.append([arrivals(frames[-1])])
    place = data.draw(st.integers(0, before_last - 1))
    content = bytearray(segment.path.read_bytes())
    content[place] ^= data.draw(st.integers(1, 255))
    segment.path.write_bytes(content)
    with pytest.raises(Refused, match="is damaged at byte"):
        log.log.seal()
    assert len(log.log.segments()) == 1 and log.inbox.batches() == []


def test_a_writer_whose_segment_was_sealed_begins_another_and_loses_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path)
    segment = log.segment()
    segment.append([arrivals([(20_000, 222, 1)])])
    assert log.sealed() == {(20_000, 222, 1)}
    with pytest.raises(SegmentIsGone):
        segment.append([arrivals([(20_000, 222, 2)])])
    other = log.segment()
    other.append([arrivals([(20_000, 222, 2)])])
    assert log.sealed() == {(20_000, 222, 1), (20_000, 222, 2)}


def test_what_is_sealed_again_after_a_cut_is_the_same_batch(tmp_path: Path) -> None:
    log = Log(tmp_path)
    segment = log.segment()
    segment.append([arrivals([(20_000, 222, 1), (20_001, 223, 2)])])
    content = segment.path.read_bytes()
    log.log.seal()
    batches = log.inbox.batches()
    segment.path.write_bytes(content)  # as if it had been killed before the segment went
    log.log.seal()
    assert log.inbox.batches() == batches and len(batches) == 1


def test_a_segment_of_another_store_is_refused_and_stays(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.segment().append([replace(arrivals([(20_000, 222, 1)]), commitments={222: "00" * 32})])
    with pytest.raises(Refused, match="another key of salt epoch 222"):
        log.log.seal()
    assert len(log.log.segments()) == 1 and log.inbox.batches() == []


def test_bad_rows_are_in_the_quarantine_under_their_request_and_fail_no_check_of_files(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.segment().append([arrivals([(20_000, 222, 1)], [(2, NO_USER), (5, BAD_DAY)])])
    log.log.seal()
    assert FileQuarantine(tmp_path).shares() == []
    (kept,) = (tmp_path / "quarantine").glob("*.csv")
    assert [line.split(",")[:2] for line in kept.read_text().splitlines()[1:]] == [
        ["POST /event 0123456789abcdef", "2"],
        ["POST /event 0123456789abcdef", "5"],
    ]


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """The system refuses to write any further, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where_the_disk_takes_nothing_nothing_is_kept_of_it_and_what_was_there_stays(tmp_path: Path) -> None:
    log = Log(tmp_path)
    segment = log.segment()
    segment.append([arrivals([(20_000, 222, 1)])])
    with no_file_longer_than(segment.size + 10), pytest.raises(OSError, match="File too large"):
        segment.append([arrivals([(20_000, 222, 2)])])
    assert not segment.is_usable and segment.path.stat().st_size == segment.size
    assert log.sealed() == {(20_000, 222, 1)}


def test_a_writer_goes_on_once_the_disk_takes_something_again(tmp_path: Path) -> None:
    log = Log(tmp_path)
    writer = LogWriter(log.folder, log.log.seal_one, gather_seconds=0)
    try:
        writer.append(arrivals([(20_000, 222, 1)])).result()
        with no_file_longer_than(16):
            refused = writer.append(arrivals([(20_000, 222, 2)]))
            assert isinstance(refused.exception(), OSError)
        writer.append(arrivals([(20_000, 222, 3)])).result()
    finally:
        writer.close()
    assert log.sealed() == {(20_000, 222, 1), (20_000, 222, 3)}


def test_of_many_that_append_while_others_seal_everything_that_was_told_durable_is_there(tmp_path: Path) -> None:
    log, done, told = Log(tmp_path), threading.Event(), list[Row]()
    writers = [LogWriter(log.folder, log.log.seal_one, gather_seconds=0, seal_bytes=4_000) for _ in range(2)]

    def sealing() -> None:
        while not done.is_set():
            log.log.seal()

    def sending(writer: LogWriter, first: int) -> None:
        for key in range(first, first + 150):
            writer.append(arrivals([(20_000, 222, key)])).result()
            told.append((20_000, 222, key))

    sealers = [threading.Thread(target=sealing) for _ in range(2)]
    senders = [threading.Thread(target=sending, args=(writers[n % 2], 1_000 * n)) for n in range(4)]
    for thread in (*sealers, *senders):
        thread.start()
    for thread in senders:
        thread.join()
    done.set()
    for thread in sealers:
        thread.join()
    for writer in writers:
        writer.close()
    assert len(told) == 600 and log.sealed() == set(told)


def test_what_waits_when_a_writer_is_closed_is_durable_and_sealed(tmp_path: Path) -> None:
    log = Log(tmp_path)
    writer = LogWriter(log.folder, log.log.seal_one, gather_seconds=60)
    durable = writer.append(arrivals([(20_000, 222, 1)]))
    closing = threading.Thread(target=writer.close)
    closing.start()
    closing.join()
    assert durable.done() and durable.exception() is None
    assert log.log.segments() == [] and len(log.inbox.batches()) == 1
    with pytest.raises(RuntimeError):
        writer.append(arrivals([(20_000, 222, 2)]))


def test_a_segment_is_private_and_its_folder_too(tmp_path: Path) -> None:
    log = Log(tmp_path)
    path = log.segment().path
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


KILLED = """
import os, sys
from pathlib import Path
from dpdau_tests.resources.storage.test_write_ahead_log import Log, arrivals
log = Log(Path(sys.argv[1]))
segment = log.segment()
for key in range(10_000):
    segment.append([arrivals([(20_000, 222, key)])])
    os.write(1, b"%d\\n" % key)
"""


def test_what_a_killed_writer_was_told_is_durable_is_there(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(50)]
    writer.kill()
    rest = writer.stdout.read().splitlines()
    writer.wait()
    log = Log(tmp_path)
    there = {key for _, _, key in log.sealed()}
    assert {*told, *(int(line) for line in rest if line)} <= there


def test_rows_of_a_day_are_found_by_day_and_epoch(tmp_path: Path) -> None:
    log = Log(tmp_path)
    segment = log.segment()
    segment.append([arrivals([(20_001, 223, 9), (20_001, 223, 3), (20_000, 222, 1), (20_001, 223, 9)])])
    first, second = log.log.read(segment.path.name)
    assert (first.day, first.epoch, first.keys.tolist()) == (date(2024, 10, 4), 222, [1])
    assert (second.day, second.epoch, second.keys.tolist()) == (date(2024, 10, 5), 223, [3, 9])
    log.log.seal()
    assert log.log.read(segment.path.name) == []


def test_a_segment_is_sealed_once_however_long_nothing_comes(tmp_path: Path) -> None:
    log, calls, again = Log(tmp_path), list[str](), threading.Event()

    def seal(name: str) -> None:
        calls.append(name)
        log.log.seal_one(name)
        again.set()

    writer = LogWriter(log.folder, seal, gather_seconds=0, seal_seconds=0, look_seconds=0.001)
    try:
        for key in range(3):
            again.clear()
            writer.append(arrivals([(20_000, 222, key)])).result()
            assert again.wait(60)
    finally:
        writer.close()
    assert len(set(calls[:3])) == 3 and len(calls) <= 4, "once each, and the last one when the writer is closed"
    assert log.sealed() == {(20_000, 222, key) for key in range(3)}


def test_what_could_not_be_sealed_is_with_the_next_one(tmp_path: Path) -> None:
    log = Log(tmp_path)
    left, other = log.segment(), log.segment()
    left.append([arrivals([(20_000, 222, 1)])])
    left.path.rename(left.path.with_suffix(".closed"))
    other.append([arrivals([(20_000, 222, 2)])])
    assert log.log.oldest() is not None
    log.log.seal_one(other.path.stem)
    assert (
        log.log.segments() == [] and log.log.oldest() is None and log.sealed() == {(20_000, 222, 1), (20_000, 222, 2)}
    )


@contextmanager
def stopped_while_it_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody has locked this segment and does not go on; nobody waits for long."""
    monkeypatch.setattr(write_ahead_log, "PATIENCE_SECONDS", 0.01)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("suffix", [".open", ".closed"])
def test_who_is_stopped_while_it_holds_a_segment_holds_nothing_up_and_loses_nothing(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path)
    segment = log.segment()
    segment.append([arrivals([(20_000, 222, 1)])])
    path = segment.path.with_suffix(suffix)
    segment.path.rename(path)
    with stopped_while_it_holds(path, monkeypatch):
        log.log.seal()
        assert log.inbox.batches() and log.log.segments() == [path.name]
        log.log.seal()
    assert log.sealed() == {(20_000, 222, 1)} and len(log.inbox.batches()) == 1


def test_who_was_stopped_while_sealing_brings_nothing_back_that_another_has_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path)
    log.segment().append([arrivals([(20_000, 222, 1)])])
    append, calls = log.inbox.append, list[str]()

    def meanwhile(sets: object) -> str | None:
        """Another process tries to seal while this one is about to make the batch."""
        monkeypatch.setattr(log.inbox, "append", append)
        monkeypatch.setattr(write_ahead_log, "PATIENCE_SECONDS", 0.01)
        calls.append("stopped")
        Log(tmp_path).log.seal()
        return append(sets)  # type: ignore[arg-type]

    monkeypatch.setattr(log.inbox, "append", meanwhile)
    log.log.seal()
    log.inbox.discard(log.inbox.batches())  # as a fold does
    assert calls == ["stopped"] and log.log.segments() == [] and log.sealed() == set()


def test_an_idle_writer_lets_go_of_a_segment_that_others_have_sealed(tmp_path: Path) -> None:
    log = Log(tmp_path)
    writer = LogWriter(log.folder, log.log.seal_one, gather_seconds=0, look_seconds=0.001)
    try:
        writer.append(arrivals([(20_000, 222, 1)])).result()
        log.log.seal()
        wait_for(lambda: not [link for link in open_files() if link.startswith(str(log.folder))])
    finally:
        writer.close()


def open_files() -> list[str]:
    links = list(Path("/proc/self/fd").iterdir())
    return [str(link.readlink()) for link in links if link.is_symlink()]


def wait_for(ready: Callable[[], bool]) -> None:
    """Only a hang makes it end."""
    for _ in range(60_000):
        if ready():
            return
        sleep(0.001)
    pytest.fail("it did not come")


def test_refused_appends_leave_no_empty_segments(tmp_path: Path) -> None:
    log = Log(tmp_path)
    writer = LogWriter(log.folder, log.log.seal_one, gather_seconds=0)
    try:
        with no_file_longer_than(16):
            for key in range(5):
                assert isinstance(writer.append(arrivals([(20_000, 222, key)])).exception(), OSError)
            assert log.log.segments() == []
    finally:
        writer.close()


def test_a_segment_that_is_closed_between_listing_and_reading_is_read_all_the_same(tmp_path: Path) -> None:
    log = Log(tmp_path)
    segment = log.segment()
    segment.append([arrivals([(20_000, 222, 1)])])
    (listed,) = log.log.segments()
    segment.path.rename(segment.path.with_suffix(".closed"))
    assert [each.keys.tolist() for each in log.log.read(listed)] == [[1]]
