"""What the API remembers of a day's requests: answered once, counted once, and gone with the day's key."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.errors import Refused
from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.racing import race
from resources.storage.durable import create_missing
from resources.storage.file_inventory import DiskFileInventory
from resources.storage.seen_requests import (
    KEPT_SECONDS,
    LARGEST_ANSWER,
    LEASE_SECONDS,
    InProgress,
    New,
    OtherBody,
    Replayed,
    SeenRequests,
    unlink_before,
)

TODAY = date(2025, 3, 2)
YESTERDAY, TOMORROW = TODAY - timedelta(days=1), TODAY + timedelta(days=1)
NOW = 1_740_900_000.0
SENT = (b"POST", b"/erasure", b'{"user_id": "anna-of-the-lake"}')
ANSWER = (202, {"Content-Type": "application/json"}, b'{"receipts":["0123456789abcdef"],"references":["TICKET-17"]}')

NUMBERS = count()
"""So that no example has to do with another."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "api"


@pytest.fixture
def seen(folder: Path) -> Iterator[SeenRequests]:
    with closing(SeenRequests(folder)) as opened:
        yield opened


def begun(seen: SeenRequests, *, day: date = TODAY, now: float = NOW, key: str = "one", sent: tuple = SENT) -> New:
    answer = seen.begin(day, "site", key, sent, now)
    assert isinstance(answer, New), answer
    return answer


def again(seen: SeenRequests, *, day: date = TODAY, now: float = NOW, sent: tuple = SENT) -> object:
    return seen.begin(day, "site", "one", sent, now)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


# --- Idempotency-Key ---------------------------------------------------------------------------------------------


def test_the_same_request_is_answered_as_it_was_and_runs_once(seen: SeenRequests) -> None:
    seen.finish(begun(seen), *ANSWER)
    assert again(seen, now=NOW + 1) == Replayed(*ANSWER)
    assert again(seen, now=NOW + 2) == Replayed(*ANSWER)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("is_answered", [False, True])
def test_another_request_under_the_same_key_is_told_so(seen: SeenRequests, place: int, is_answered: bool) -> None:
    request = begun(seen)
    if is_answered:
        seen.finish(request, *ANSWER)
    assert again(seen, sent=(*SENT[:place], SENT[place] + b" ", *SENT[place + 1 :])) == OtherBody()
    assert again(seen, sent=(SENT[0] + SENT[1], *SENT[2:])) == OtherBody(), "no part is taken for two"


def test_two_clients_and_two_keys_have_nothing_to_do_with_each_other(seen: SeenRequests) -> None:
    seen.finish(begun(seen), *ANSWER)
    assert isinstance(seen.begin(TODAY, "site", "other", SENT, NOW), New)
    assert isinstance(seen.begin(TODAY, "siteo", "ne", SENT, NOW), New)


def test_while_a_request_runs_the_same_one_waits_and_no_longer_than_its_lease(seen: SeenRequests) -> None:
    """So that one whose process died is not held up for ever; nor by a clock that was set back."""
    begun(seen)
    assert again(seen, now=NOW + 1) == InProgress(LEASE_SECONDS - 1)
    assert isinstance(again(seen, now=NOW + LEASE_SECONDS - 0.5), InProgress)
    assert isinstance(again(seen, now=NOW + LEASE_SECONDS), New)
    assert isinstance(again(seen, now=NOW - 3600), New)


def test_who_ends_a_request_too_late_changes_nothing_of_what_another_has_begun_since(seen: SeenRequests) -> None:
    late = begun(seen)
    second = begun(seen, now=NOW + LEASE_SECONDS)
    seen.finish(late, 500, {}, b"late")
    seen.abandon(late)
    assert isinstance(again(seen, now=NOW + LEASE_SECONDS), InProgress)
    seen.finish(second, *ANSWER)
    seen.abandon(late)
    assert again(seen) == Replayed(*ANSWER)


def test_an_abandoned_request_runs_again_at_once_with_any_body(seen: SeenRequests) -> None:
    seen.abandon(begun(seen))
    seen.abandon(begun(seen, sent=(b"POST", b"/event", b"")))
    assert isinstance(again(seen), New)


@pytest.mark.parametrize("is_too_large", [False, True])
def test_an_answer_that_is_too_large_is_not_kept(seen: SeenRequests, is_too_large: bool) -> None:
    body = os.urandom(LARGEST_ANSWER + is_too_large)
    seen.finish(begun(seen), 202, {}, body)
    assert again(seen) == Replayed(202, {}, body) if not is_too_large else isinstance(again(seen), New)


@settings(
    max_examples=at_length(test=25, ci=100, soak=1_000), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    key=st.text(max_size=80),
    sent=st.lists(st.binary(max_size=50), max_size=4),
    status=st.integers(200, 599),
    headers=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    body=st.binary(max_size=500),
)
def test_any_answer_comes_back_as_it_was(
    seen: SeenRequests, key: str, sent: list[bytes], status: int, headers: dict[str, str], body: bytes
) -> None:
    client = f"client {next(NUMBERS)}"
    request = seen.begin(TODAY, client, key, sent, NOW)
    assert isinstance(request, New)
    seen.finish(request, status, headers, body)
    assert seen.begin(TODAY, client, key, sent, NOW) == Replayed(status, headers, body)


# --- Days --------------------------------------------------------------------------------------------------------


def test_an_answer_is_found_for_24_hours_over_the_change_of_day_and_then_no_more(seen: SeenRequests) -> None:
    seen.finish(begun(seen), *ANSWER)
    assert again(seen, day=TOMORROW, now=NOW + KEPT_SECONDS - 1) == Replayed(*ANSWER)
    assert again(seen, day=TOMORROW, now=NOW + KEPT_SECONDS - 1, sent=(b"other",)) == OtherBody()
    assert isinstance(again(seen, day=TOMORROW, now=NOW + KEPT_SECONDS), New)
    assert isinstance(again(seen, day=TOMORROW, now=NOW + KEPT_SECONDS), InProgress), "and now of that day"


def test_a_request_that_runs_over_midnight_is_known_and_ended_where_it_began(seen: SeenRequests) -> None:
    request = begun(seen)
    assert isinstance(again(seen, day=TOMORROW, now=NOW + 1), InProgress)
    seen.finish(request, *ANSWER)
    assert again(seen, day=TOMORROW, now=NOW + 2) == Replayed(*ANSWER)


def test_a_request_that_died_before_midnight_is_begun_after_it(seen: SeenRequests) -> None:
    begun(seen)
    later = begun(seen, day=TOMORROW, now=NOW + LEASE_SECONDS)
    seen.finish(later, *ANSWER)
    assert again(seen, day=TOMORROW, now=NOW + LEASE_SECONDS + 1) == Replayed(*ANSWER)


def test_files_of_days_before_yesterday_go_with_all_that_belongs_to_them_and_nothing_else_does(
    seen: SeenRequests, folder: Path
) -> None:
    days = [TODAY - timedelta(days=n) for n in range(4)]
    for day in days:
        with closing(SeenRequests(folder)) as of_the_day:
            of_the_day.people_asked(day, "site", ["anna"])
    for name in ("2025-02-27.sqlite-wal", "2025-02-28.sqlite-shm", "2025-02-30.sqlite", "2025-02-01.sqlite.txt", "a"):
        (folder / name).touch()
    seen.expire(TODAY)
    kept = {"2025-03-02.sqlite", "2025-03-01.sqlite", "2025-02-30.sqlite", "2025-02-01.sqlite.txt", "a"}
    assert {path.name for path in folder.iterdir()} == kept
    assert seen.people_asked(YESTERDAY, "site", ["anna"]) == 0 == seen.people_asked(TODAY, "site", ["anna"])
    unlink_before(folder / "missing", TODAY)


def test_a_file_that_expired_is_open_no_more_and_is_not_made_again_by_what_ends_then(
    seen: SeenRequests, folder: Path
) -> None:
    request = begun(seen)
    assert not is_nothing_open_below(folder)
    seen.expire(TODAY + timedelta(days=2))
    assert is_nothing_open_below(folder)
    seen.finish(request, *ANSWER)
    seen.abandon(request)
    assert list(folder.iterdir()) == []


def is_nothing_open_below(folder: Path) -> bool:
    """Nothing that this process has open."""
    opened = []
    for descriptor in Path("/dev/fd").iterdir():
        with suppress(OSError):  # that of the listing itself
            opened.append(descriptor.readlink())
    return not any(path.is_relative_to(folder) for path in opened)


def test_each_day_has_a_key_of_its_own(seen: SeenRequests, folder: Path) -> None:
    for day in (YESTERDAY, TODAY):
        seen.people_asked(day, "site", ["anna"])
    keys, people = zip(*(kept_in(folder / f"{day}.sqlite") for day in (YESTERDAY, TODAY)), strict=True)
    assert len({*keys}) == len({*people}) == 2 and {len(key) for key in keys} == {32}


def kept_in(path: Path) -> tuple[bytes, bytes]:
    """The key of a day with one person, and how she stands there."""
    with closing(sqlite3.connect(path)) as connection:
        ((key,),) = connection.execute("SELECT key FROM secret").fetchall()
        ((person,),) = connection.execute("SELECT person FROM people").fetchall()
    return key, person


# --- People ------------------------------------------------------------------------------------------------------


def test_others_who_were_asked_for_that_day_are_counted_by_client(seen: SeenRequests) -> None:
    assert seen.people_asked(TODAY, "site", ["anna", "bea", "anna"]) == 0
    assert seen.people_asked(TODAY, "site", ["cleo"]) == 2
    assert seen.people_asked(TODAY, "site", ["anna", "dora"]) == 2, "anna is not another than herself"
    assert seen.people_asked(TODAY, "site", ["anna"]) == 3
    assert seen.people_asked(TODAY, "site", []) == 4
    assert seen.people_asked(TODAY, "other", ["anna"]) == 0
    assert seen.people_asked(TOMORROW, "site", ["anna"]) == 0


@settings(
    max_examples=at_length(test=25, ci=100, soak=1_000), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    posts=st.lists(
        st.tuples(st.sampled_from("ab"), st.lists(st.text("xyz\ud800", max_size=2), max_size=4)), max_size=8
    ),
)
def test_the_count_is_that_of_a_set(seen: SeenRequests, posts: list[tuple[str, list[str]]]) -> None:
    asked: dict[str, set[str]] = {"a": set(), "b": set()}
    run = next(NUMBERS)
    for client, people in posts:
        assert seen.people_asked(TODAY, f"{run} {client}", iter(people)) == len(asked[client] - {*people})
        asked[client] |= {*people}


# --- What stands in the file -------------------------------------------------------------------------------------


def test_nothing_that_was_sent_or_answered_stands_in_any_byte(seen: SeenRequests, folder: Path) -> None:
    """Looked at while the files are open, with their logs, and again when they are closed."""
    seen.people_asked(TODAY, "the name of a key", ["anna-of-the-lake"])
    request = seen.begin(TODAY, "the name of a key", "idempotent-anna", SENT, NOW)
    assert isinstance(request, New)
    seen.finish(request, *ANSWER)
    texts = [
        b"anna",
        b"TICKET",
        b"0123456789abcdef",
        b"erasure",
        b"POST",
        b"name of a key",
        b"Content-Type",
        b"receipts",
    ]
    for _ in range(2):
        stored = everything_in(folder)
        assert request.record in stored and not [text for text in texts if text in stored]
        seen.close()


def test_what_is_remembered_is_not_shown_by_repr(seen: SeenRequests) -> None:
    request = begun(seen)
    seen.finish(request, *ANSWER)
    assert repr(request) == f"New(day={TODAY!r})" and repr(again(seen)) == "Replayed(status=202)"


def test_what_is_abandoned_is_overwritten(seen: SeenRequests, folder: Path) -> None:
    """SQLite would keep the bytes of deleted rows in its pages."""
    request, kept = begun(seen), begun(seen, key="another")
    seen.close()
    assert request.record in everything_in(folder)
    seen.abandon(request)
    seen.close()
    assert request.record not in everything_in(folder) and kept.record in everything_in(folder)


@pytest.mark.parametrize("umask", [0o000, 0o777], ids=oct)
def test_files_and_folder_are_their_owners_alone_under_any_umask(seen: SeenRequests, folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        begun(seen)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    finally:
        os.umask(before)
    name = f"{TODAY}.sqlite"
    assert modes == {"api": 0o700, name: 0o600, f"{name}-wal": 0o600, f"{name}-shm": 0o600}


def test_a_damaged_file_is_said_to_be_damaged_and_names_nothing_else(seen: SeenRequests, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{TODAY}.sqlite").write_bytes(b"anna" * 2_000)
    with pytest.raises(Refused, match=r"^api/2025-03-02\.sqlite is damaged\. Remove it"):
        begun(seen)
    (folder / f"{TODAY}.sqlite").unlink()
    begun(seen)


def test_a_full_disk_is_an_error_of_the_system_and_keeps_nothing(seen: SeenRequests, folder: Path) -> None:
    begun(seen, key="first")
    (day,) = seen._open.values()
    with day.read() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError, match=r"No space|takes nothing") as full:
        seen.people_asked(TODAY, "site", [f"anna {n}" for n in range(1_000)])
    assert "anna" not in f"{full.value}"
    assert seen.people_asked(TODAY, "site", []) == 0


def test_a_first_use_that_was_cut_short_is_completed(seen: SeenRequests, folder: Path) -> None:
    folder.mkdir(parents=True)
    create_missing(folder / f"{TODAY}.sqlite")
    seen.finish(begun(seen), *ANSWER)
    assert again(seen) == Replayed(*ANSWER)


# --- At once -----------------------------------------------------------------------------------------------------

RACERS, KEYS, PEOPLE = 4, 20, 30


def take_part(folder: Path, racer: int) -> tuple[list[bool], list[tuple[int, int]]]:
    """For each key whether the request was new here; and for each person who was asked for, how many others were."""
    with closing(SeenRequests(folder)) as seen:
        new = [isinstance(seen.begin(TODAY, "site", f"{key}", SENT, NOW), New) for key in range(KEYS)]
        asked = [(person, seen.people_asked(TODAY, "site", [f"{racer} {person}"])) for person in range(PEOPLE)]
    return new, asked


def require_each_once(results: list[tuple[list[bool], list[tuple[int, int]]]]) -> None:
    assert [sum(of_key) for of_key in zip(*(new for new, _ in results), strict=True)] == [1] * KEYS
    others = [number for _, asked in results for _, number in asked]
    assert sorted(others) == list(range(RACERS * PEOPLE)), "one after the other, whoever they are"


def test_of_processes_that_begin_a_day_at_once_one_runs_each_request_and_nobody_passes_uncounted(folder: Path) -> None:
    require_each_once(race(take_part, [(folder, racer) for racer in range(RACERS)]))


def test_threads_of_one_process_are_told_apart_as_processes_are(folder: Path) -> None:
    start = threading.Barrier(RACERS)

    def work(racer: int) -> tuple[list[bool], list[tuple[int, int]]]:
        start.wait(60)
        return take_part(folder, racer)

    with ThreadPoolExecutor(RACERS) as threads:
        require_each_once(list(threads.map(work, range(RACERS))))


def test_threads_that_share_one_object_are_told_apart_too(seen: SeenRequests) -> None:
    start = threading.Barrier(RACERS)

    def work(racer: int) -> list[int]:
        start.wait(60)
        return [seen.people_asked(TODAY, "site", [f"{racer} {person}"]) for person in range(PEOPLE)]

    with ThreadPoolExecutor(RACERS) as threads:
        others = [number for numbers in threads.map(work, range(RACERS)) for number in numbers]
    assert sorted(others) == list(range(RACERS * PEOPLE))


KILLED = """
    import os, signal, sys
    from datetime import date
    from pathlib import Path
    from resources.storage.seen_requests import SeenRequests

    seen = SeenRequests(Path(sys.argv[1]))
    seen.people_asked(date(2025, 3, 2), "site", ["anna"])
    seen.begin(date(2025, 3, 2), "site", "one", (b"a", b"b"), 1000.0)
    day = next(iter(seen._open.values()))
    day._connection.execute("BEGIN IMMEDIATE")  # and it dies in the middle of the next one
    day._connection.execute("DELETE FROM people")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_noted_outlives_a_killed_process_and_its_request_runs_again_after_the_lease(
    seen: SeenRequests, folder: Path
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(folder)]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    sent = (b"a", b"b")
    assert again(seen, now=1001.0, sent=sent) == InProgress(LEASE_SECONDS - 1)
    assert isinstance(again(seen, now=1000.0 + LEASE_SECONDS, sent=sent), New)
    assert seen.people_asked(TODAY, "site", []) == 1


def test_reading_every_byte_for_a_receipt_takes_no_lock_away(seen: SeenRequests, folder: Path) -> None:
    """Or another process, which closes the file, would take its log away, and would not see what is written next."""
    begun(seen)
    inventory = DiskFileInventory({"": folder.parent})
    files = inventory.files()
    assert len(files) == 3 and all(sum(map(len, inventory.chunks(file))) == file.path.stat().st_size for file in files)
    race(take_part, [(folder, 1)])
    seen.finish(begun(seen, key="after"), *ANSWER)
    with closing(SeenRequests(folder)) as other:
        assert other.begin(TODAY, "site", "after", SENT, NOW) == Replayed(*ANSWER)
