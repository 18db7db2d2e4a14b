"""Older files put back bring nobody back, and lose nobody: what is read is what was written last, or nothing is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, delete, insert, text
from sqlalchemy.exc import OperationalError

from dpdau_assets.core.dates import days_between, epoch_of
from dpdau_assets.core.erasure.receipts import apply, apply_and_verify, receipt
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import Build, DaySet, Partition, ReleaseKey
from dpdau_assets.core.identity import content_hash
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, read_statistics, restate
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.sketches.keysets import digest
from dpdau_assets.core.state.activity import day_version, process_days
from dpdau_assets.core.state.day_sketch import sketch_version
from dpdau_assets.core.state.touched import mark_touched
from dpdau_assets.core.state.vouched_state import VouchedState
from dpdau_tests.conftest import SECRET, prepare, put, silent
from dpdau_tests.properties.test_erased_never_existed import Life, empty_store
from dpdau_tests.support.fast_folder import fast_folder
from dpdau_tests.support.lengths import at_length
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasures import SqlErasures
from resources.store import ledger_url, open_store

Make = Callable[..., Store]
START = date(2025, 1, 1)
DAYS = days_between(START, date(2025, 2, 3))
LIVE = ("activity", "late", "sketches", "inbox")


def ten_came(store: Store) -> None:
    """Ten people on every day, one more late on the first; state and sketches built, and the first day published."""
    put(store, [(f"user {n}", day) for day in DAYS for n in range(10)])
    prepare(store, DAYS)
    publish("dau", START, silent(store))
    put(store, [("late", START), ("her", START)])
    process_days([START], store)


@pytest.fixture
def store(make_store: Make) -> Store:
    return silent(make_store(recipe=ten_came, today=date(2025, 2, 6), mau_mechanism="gaussian"))


def folder_of(store: Store, name: str = "") -> Path:
    return store.settings.data_dir / name


def copy_of(store: Store, to: Path) -> Path:
    """What lives now, in a folder beside."""
    for name in LIVE:
        shutil.copytree(folder_of(store, name), to / name)
    return to


def put_back(copy: Path, store: Store, names: Iterable[str] = LIVE) -> None:
    """Whole folders, in the place of what is there."""
    for name in names:
        shutil.rmtree(folder_of(store, name))
        shutil.copytree(copy / name, folder_of(store, name))


def live_bytes(store: Store) -> dict[str, bytes]:
    files = (path for name in LIVE for path in folder_of(store, name).rglob("*") if path.is_file())
    return {path.relative_to(folder_of(store)).as_posix(): path.read_bytes() for path in files}


def erase(store: Store, *users: str, through: date = DAYS[-1]) -> list[str]:
    return list(request([Event(user, "-", through) for user in users], store).receipts)


# --- Healed ------------------------------------------------------------------------------------------------------


def test_an_older_copy_of_all_that_lives_brings_nobody_who_was_erased_back_into_a_number(
    store: Store, tmp_path: Path
) -> None:
    copy = copy_of(store, tmp_path / "copy")
    erase(store, "user 1", "her")
    assert apply_and_verify(store).unverified == ()
    put_back(copy, store)
    assert publish("dau", DAYS[1], store).noisy_value == 9
    assert publish("mau", DAYS[29], store).noisy_value == 9
    for day in DAYS[2:31]:
        publish("dau", day, store)
    for day in DAYS[31:]:
        publish("dau", day, store)
    assert [release.noisy_value for release in restate(START, store)][:2] == [10, 9]  # nine, and who came late


def test_the_live_bytes_are_those_of_before_once_the_older_files_are_repaired(store: Store, tmp_path: Path) -> None:
    copy = copy_of(store, tmp_path / "copy")
    (name, _) = erase(store, "user 1", "her")
    apply_and_verify(store)
    before = live_bytes(store)
    put_back(copy, store)
    assert receipt(name, store)["verified"] is False
    done = apply_and_verify(store)
    files = {name for name, content in before.items() if (copy / name).read_bytes() != content}
    assert {f"{name}.{kind}" for name in done.repaired for kind in ("parquet", "sketch")} >= files
    assert (len(done.repaired), done.broken) == (len(files), ())
    assert live_bytes(store) == before
    assert receipt(name, store)["verified"] is True
    assert apply_and_verify(store).repaired == ()


def test_a_copy_that_differs_by_removals_keeps_every_version_so_that_nothing_turns_stale(
    store: Store, tmp_path: Path
) -> None:
    copy = copy_of(store, tmp_path / "copy")
    erase(store, "user 1", "her")
    apply_and_verify(store)
    before = [version(day, store) for day in DAYS for version in (day_version, sketch_version)]
    put_back(copy, store)
    apply_and_verify(store)
    assert [version(day, store) for day in DAYS for version in (day_version, sketch_version)] == before


def test_a_removal_that_is_received_and_not_applied_reaches_an_older_copy_too(store: Store, tmp_path: Path) -> None:
    copy = copy_of(store, tmp_path / "copy")
    erase(store, "user 1")
    apply_and_verify(store)
    put_back(copy, store)
    erase(store, "user 2")
    assert publish("dau", DAYS[1], store).noisy_value == 8


def test_an_old_batch_that_is_put_back_is_folded_without_who_was_erased(store: Store, tmp_path: Path) -> None:
    put(store, [("her", DAYS[1]), ("another", DAYS[1])])
    copy = copy_of(store, tmp_path / "copy")
    process_days([DAYS[1]], store)
    erase(store, "her")
    apply_and_verify(store)
    before = live_bytes(store)
    put_back(copy, store, ["inbox"])
    assert publish("dau", DAYS[1], store).noisy_value == 11
    assert live_bytes(store) == before


def test_a_file_of_a_day_that_nobody_asked_for_is_unlinked_with_the_last_of_its_people(
    store: Store, tmp_path: Path
) -> None:
    put(store, [("her", date(2025, 2, 5))])
    process_days([START], store)
    copy = copy_of(store, tmp_path / "copy")
    assert (folder_of(store, "activity") / "day=2025-02-05").is_dir()
    erase(store, "her", through=date(2025, 2, 5))
    apply_and_verify(store)
    assert (date(2025, 2, 5) in {day for day, _ in store.state.activity.stored()}) is False
    put_back(copy, store, ["activity"])
    apply_and_verify(store)
    assert (date(2025, 2, 5) in {day for day, _ in store.state.activity.stored()}) is False


# --- Refused -----------------------------------------------------------------------------------------------------


def test_a_copy_that_lacks_events_folded_since_is_refused_whoever_is_in_it_and_says_how_to_restore(
    store: Store, tmp_path: Path
) -> None:
    copy = copy_of(store, tmp_path / "copy")
    put(store, [("another", DAYS[1])])
    process_days([DAYS[1]], store)
    newest = copy_of(store, tmp_path / "newest")
    erase(store, "user 1")
    put_back(copy, store)
    with pytest.raises(Refused, match=r"activity/day=2025-01-02.* is not the one that was written last") as refused:
        publish("dau", DAYS[1], store)
    assert "newest copy" in refused.value.remedy and "backup" in refused.value.remedy
    assert publish("dau", DAYS[2], store).noisy_value == 9, "other days go on"
    assert apply_and_verify(store).broken == (f"activity/day={DAYS[1]}/epoch={epoch_of(DAYS[1], 90)}",)
    put_back(newest, store, ["activity"])
    assert publish("dau", DAYS[1], store).noisy_value == 10, "what was applied meanwhile is applied to it"


def test_a_file_that_is_gone_is_refused_and_not_taken_for_an_empty_one(store: Store) -> None:
    shutil.rmtree(folder_of(store, "activity") / f"day={DAYS[1]}")
    for read in (lambda: publish("dau", DAYS[1], store), lambda: process_days([DAYS[1]], store)):
        with pytest.raises(Refused, match="gone"):
            read()
    put(store, [("another", DAYS[1])])
    process_days([DAYS[2]], store)
    assert len(store.events.inbox.batches()) == 1, "what came for it is not lost, and holds up no other day"
    assert publish("dau", DAYS[2], store).noisy_value == 10


def test_a_file_that_the_ledger_does_not_know_is_read_by_nobody(store: Store) -> None:
    day = date(2025, 2, 4)
    source = folder_of(store, "activity") / f"day={DAYS[1]}"
    shutil.copytree(source, folder_of(store, "activity") / f"day={day}")
    with pytest.raises(Refused, match="not the one that was written last"):
        store.state.activity.read(day, epoch_of(day, 90))


def test_a_damaged_file_holds_up_no_other_erasure_and_is_without_the_erased_once_it_is_whole(store: Store) -> None:
    """An erasure is never lost, whatever else is wrong."""
    (path,) = (folder_of(store, "activity") / f"day={DAYS[1]}").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    (name,) = erase(store, "user 1")
    assert publish("dau", DAYS[2], store).noisy_value == 9
    assert apply_and_verify(store).unverified == (name,)
    path.write_bytes(whole)
    assert publish("dau", DAYS[1], store).noisy_value == 9
    assert apply_and_verify(store).unverified == ()
    assert store.state.activity.read(DAYS[1], epoch_of(DAYS[1], 90)) is not None
    assert [day for day, _ in store.state.rebuilds.behind()] == DAYS, "Dagster is told of it, and not of that day alone"


@pytest.mark.parametrize("what", ["a day", "everything"])
def test_a_file_that_is_away_while_an_erasure_is_applied_brings_nobody_back_when_it_returns(
    store: Store, tmp_path: Path, what: str
) -> None:
    """A folder that was not mounted, say."""
    folders = [folder_of(store, name) / f"day={DAYS[1]}" for name in ("activity", "sketches")]
    if what == "everything":
        folders = [folder_of(store, name) for name in ("activity", "sketches")]
    for number, folder in enumerate(folders):
        folder.rename(tmp_path / str(number))
    (name,) = erase(store, "user 1")
    assert apply_and_verify(store).unverified == (name,), "what is away cannot be ruled out to hold her"
    for number, folder in enumerate(folders):
        shutil.rmtree(folder, ignore_errors=True)
        (tmp_path / str(number)).rename(folder)
    assert publish("dau", DAYS[1], store).noisy_value == 9
    assert apply_and_verify(store).unverified == ()


# --- Cut short ---------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the process that dies here; nothing in the code catches it."""


@contextmanager
def killed_before_settling() -> Iterator[None]:
    """Files have taken their places, and what they replaced is not forgotten yet."""

    def die(_: VouchedState, coming: Mapping[Partition, Build]) -> None:
        if coming:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(VouchedState, "_record_builds", die)
        yield


def test_after_an_erasure_that_was_cut_short_an_older_copy_is_no_more_the_newest_than_after_another(
    store: Store, tmp_path: Path
) -> None:
    copy = copy_of(store, tmp_path / "copy")
    erase(store, "user 1")
    with killed_before_settling():
        apply(store)
    assert apply_and_verify(store).unverified == ()
    assert all(build.coming is None for build in store.state.builds.all().values()), "nothing is kept of what was there"
    put_back(copy, store)
    assert publish("dau", DAYS[1], store).noisy_value == 9


def test_after_a_fold_that_was_cut_short_a_copy_that_lacks_its_events_is_refused(store: Store, tmp_path: Path) -> None:
    copy = copy_of(store, tmp_path / "copy")
    put(store, [("another", DAYS[1])])
    with killed_before_settling():
        process_days([DAYS[1]], store)
    process_days([DAYS[1]], store)
    assert store.events.inbox.batches() == []
    put_back(copy, store, ["activity"])
    with pytest.raises(Refused, match="not the one that was written last"):
        publish("dau", DAYS[1], store)


def test_an_older_copy_is_healed_also_if_an_erasure_was_cut_short_and_another_came_since(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(store, tmp_path / "copy")

    def die(*_: object) -> None:
        raise Killed

    erase(store, "user 1")
    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(SqlErasures, "mark_applied", die)
        apply(store)
    erase(store, "user 2")
    put_back(copy, store)
    assert publish("dau", DAYS[1], store).noisy_value == 8
    assert apply_and_verify(store).broken == ()


def test_of_what_an_erasure_empties_no_folder_is_left(store: Store) -> None:
    """An empty folder would say that somebody came late on that day."""
    put(store, [("her", DAYS[3])])
    publish("dau", DAYS[3], store)
    put(store, [("she alone", DAYS[3])])
    process_days([DAYS[3]], store)
    assert (folder_of(store, "late") / f"day={DAYS[3]}").is_dir()
    erase(store, "her", "she alone")
    apply_and_verify(store)
    assert not (folder_of(store, "late") / f"day={DAYS[3]}").exists()


def test_rows_of_what_was_written_last_stand_in_no_order_of_time(store: Store) -> None:
    """Rows are read as they lie in the file, unsorted: those that an erasure has changed are not the last."""
    put(store, [("her", DAYS[5])])
    process_days([DAYS[5]], store)
    erase(store, "her")
    apply_and_verify(store)
    with Database(ledger_url(store.settings), SECRET).read() as connection:
        rows = connection.execute(text("SELECT store, day, epoch FROM builds")).all()
        assert [tuple(row) for row in rows] == sorted(tuple(row) for row in rows)
        with pytest.raises(OperationalError, match="rowid"):
            connection.execute(text("SELECT rowid FROM builds"))


# --- Whatever the ledger says ---------------------------------------------------------------------------------------


def behind(store: Store, *statements: object) -> None:
    with Database(ledger_url(store.settings), SECRET).write() as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


@pytest.mark.parametrize("also", ["nothing", "another request comes"])
def test_progress_that_was_set_by_hand_switches_no_erasure_off_and_is_found(store: Store, also: str) -> None:
    table = schema.erasure_progress
    erase(store, "user 1")
    behind(store, insert(table).values(name="applied", watermark=10_000))
    if also != "nothing":
        erase(store, "user 2")
    assert publish("dau", DAYS[1], store).noisy_value == (9 if also == "nothing" else 8)
    assert store.accountant.problems() != []


@pytest.mark.parametrize(
    "table", [schema.rebuilds, schema.rebuild_progress, schema.arrivals], ids=lambda table: table.name
)
def test_no_row_that_is_written_down_as_harmless_decides_whether_an_erasure_is_applied(
    store: Store, table: Table
) -> None:
    with store.state.activity.lock():
        erase(store, "user 1")
        mark_touched(store)
    behind(store, delete(table))
    assert publish("dau", DAYS[1], store).noisy_value == 9
    assert apply_and_verify(store).unverified == ()
    row = {column.name: "2031-01-01" if column.type.python_type is str else 10_000 for column in table.columns}
    if table is schema.rebuild_progress:
        row["name"] = "marked"
    behind(store, delete(table), insert(table).values(**row))
    erase(store, "user 2")
    assert publish("dau", DAYS[2], store).noisy_value == 8
    assert apply_and_verify(store).unverified == ()


# --- Versions ----------------------------------------------------------------------------------------------------


def test_the_version_of_an_earlier_state_cannot_be_made_again_from_any_key_that_lives(store: Store) -> None:
    """Keys are tried from what the ledger holds, and from what is left in its file and log."""
    epoch = epoch_of(DAYS[1], 90)
    before, keys = store.state.activity.version(DAYS[1], epoch), store.state.activity.read(DAYS[1], epoch)
    assert before is not None and keys is not None
    assert before.hash == content_hash(before.nonce, f"activity/day={DAYS[1]}/epoch={epoch}", digest(keys))
    erase(store, "user 1")
    apply_and_verify(store)
    after = store.state.activity.version(DAYS[1], epoch)
    assert after is not None and after.nonce != before.nonce and after.hash != before.hash
    assert not any(build.current == before for build in store.state.builds.all().values())


def test_a_build_that_changes_nothing_keeps_the_version(store: Store) -> None:
    before = [day_version(day, store) for day in DAYS]
    put(store, [("user 1", day) for day in DAYS[1:]])
    process_days(DAYS, store)
    store.state.activity.replace([DaySet(DAYS[1], epoch_of(DAYS[1], 90), np.array([], dtype=np.uint64))])
    after = [day_version(day, store) for day in DAYS]
    assert [n for n, (old, new) in enumerate(zip(before, after, strict=True)) if old != new] == [1]


def test_two_days_with_the_same_people_have_versions_that_say_nothing_of_it(store: Store) -> None:
    epoch = epoch_of(DAYS[1], 90)
    first, second = (store.state.activity.version(day, epoch) for day in DAYS[1:3])
    assert store.state.activity.digest(DAYS[1], epoch) == store.state.activity.digest(DAYS[2], epoch)
    assert first != second


def test_a_process_sees_what_another_has_written(store: Store) -> None:
    open_store.cache_clear()
    other = open_store(store.settings)
    epoch = epoch_of(DAYS[1], 90)
    assert other.state.activity.version(DAYS[1], epoch) == store.state.activity.version(DAYS[1], epoch)
    erase(store, "user 1")
    apply_and_verify(store)
    assert other.state.activity.version(DAYS[1], epoch) == store.state.activity.version(DAYS[1], epoch)
    keys = other.state.activity.read(DAYS[1], epoch)
    assert keys is not None and len(keys) == 9


# --- Histories ---------------------------------------------------------------------------------------------------

HISTORY_DAYS = days_between(date(2025, 3, 20), date(2025, 3, 23))  # as those of `Life`
day = st.sampled_from(HISTORY_DAYS)
came = st.tuples(st.just("put"), st.lists(st.tuples(st.sampled_from(["a", "b", "her"]), day), min_size=1, max_size=5))
erased = st.tuples(st.just("erase"), st.sampled_from(["her", "her", "a"]), day)
copied = st.just(("copy",))
what = st.sampled_from([*LIVE, "all", "one file"])
back = st.tuples(st.just("back"), st.integers(0, 5), what, st.integers(0, 50))
published = st.tuples(st.just("publish"), day)
step = st.one_of(came, st.just(("apply",)), erased, copied, copied, back, back, published, published)
histories = st.lists(step, min_size=2, max_size=at_length(test=5, ci=12, soak=12))


@pytest.fixture
def memory() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder


class Two:
    """A store in which older files are put back, and one that lives through the same without that."""

    def __init__(self, root: Path, source: Path) -> None:
        for name in ("tampered", "spared"):
            shutil.rmtree(root / name, ignore_errors=True)
            shutil.copytree(source, root / name)
        self.lives = [Life(root / name, 90) for name in ("tampered", "spared")]
        self.tampered, self.spared = (silent(life.store) for life in self.lives)
        self.copies: list[Path] = []
        self.root = root

    def copy(self) -> None:
        target = self.root / f"copy {len(self.copies)}"
        shutil.rmtree(target, ignore_errors=True)
        for name in LIVE:
            folder_of(self.tampered, name).mkdir(exist_ok=True)
        self.copies.append(copy_of(self.tampered, target))

    def put_back(self, number: int, what: str, place: int) -> None:
        """What waits is folded before: to take away what was acknowledged and not folded is another matter."""
        copy = self.copies[number % len(self.copies)]
        if self.tampered.events.inbox.batches():
            return
        if what == "one file":
            self._put_one_back(copy, place)
        else:
            put_back(copy, self.tampered, LIVE if what == "all" else [what])

    def _put_one_back(self, copy: Path, place: int) -> None:
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        chosen = files[place % len(files)]
        target = folder_of(self.tampered) / chosen.relative_to(copy)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(chosen, target)

    def differs_by_removals_alone(self, day: date) -> bool:
        """By the bytes of the files: what lies there, less all whom the spared store knows to be removed."""
        epoch = epoch_of(day, 90)
        removed = set(self.spared.erasures.ledger.tombstones(epoch).removed_on(day).tolist())
        for name in ("activity", "late"):
            there, newest = (keys_in(folder_of(folder, name), day, epoch) for folder in (self.tampered, self.spared))
            if there is None and newest is not None:
                return False
            if (there or set()) - removed != (newest or set()) - removed:
                return False
        return True


def keys_in(folder: Path, day: date, epoch: int) -> set[int] | None:
    path = folder / f"day={day}" / f"epoch={epoch}.parquet"
    return set(pq.read_table(path)["key"].to_pylist()) if path.exists() else None


def statistic(day: date, store: Store) -> int:
    """What noise would go on."""
    process_days([day], store)
    key = ReleaseKey("dau", 1, day)
    return read_statistics({key: ExactEstimator()}, store)[0][key].statistic


def compare(day: date, two: Two) -> None:
    """The tampered store gives the very statistic of the spared one, or none; that only where events are missing."""
    expected = statistic(day, two.spared)
    waits = bool(
        two.tampered.events.inbox.holding({day})
    )  # since a file of the day lacks events, or lacked them before
    may_refuse = waits or not two.differs_by_removals_alone(day)
    try:
        assert statistic(day, two.tampered) == expected
    except Refused:
        assert may_refuse, "an older copy without some of the removals is no reason to refuse"


def begun_store(root: Path) -> Path:
    """In which she came on every day, and which was folded: how every history begins."""
    folder = root / "begun"
    if not folder.exists():
        shutil.copytree(empty_store(root, 90, "set"), folder)
        life = Life(folder, 90)
        life.put([("her", name) for name in HISTORY_DAYS] + [("a", HISTORY_DAYS[0])])
        process_days(HISTORY_DAYS[:3], life.store)
    return folder


def play(history: list[tuple], root: Path) -> None:
    two = Two(root, begun_store(root))
    two.copy()
    for kind, *rest in history:
        match kind:
            case "put":
                for life in two.lives:
                    life.put(rest[0])
            case "erase":
                for store in (two.tampered, two.spared):
                    erase(store, rest[0], through=rest[1])
            case "apply":
                apply_to_both(two)
            case "copy":
                two.copy()
            case "back":
                two.put_back(*rest)
            case "publish":
                compare(rest[0], two)
    for store in (two.tampered, two.spared):
        erase(store, "her", through=HISTORY_DAYS[-1])
    if apply_to_both(two):
        assert live_bytes(two.tampered) == live_bytes(two.spared)


def apply_to_both(two: Two) -> bool:
    """Whether every file of the tampered store is the newest afterwards."""
    apply(two.spared)
    _, broken = apply(two.tampered)
    return not broken and not two.tampered.events.inbox.batches()


def look_at(examples: int, root: Path) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(history=histories)
    def holds(history: list[tuple]) -> None:
        play(history, root)

    holds()


def test_whatever_older_files_are_put_back_the_statistic_is_without_the_erased_and_lacks_nobody(memory: Path) -> None:
    look_at(50, memory / "few")


@pytest.mark.slow(weight=4)
@pytest.mark.parametrize("part", range(2))
def test_in_many_histories_older_files_bring_nobody_back_and_lose_nobody(part: int, memory: Path) -> None:
    look_at(at_length(test=100, ci=60, soak=2_000), memory / f"many {part}")


def test_the_comparison_notices_an_erased_person_who_is_read_again(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check can fail: a store that takes whatever lies there for the newest is found out."""
    monkeypatch.setattr(VouchedState, "is_old", lambda *_: False)
    history = [("erase", "her", HISTORY_DAYS[0]), ("apply",), ("back", 0, "all", 0), ("publish", HISTORY_DAYS[0])]
    with pytest.raises(AssertionError):
        play(history, memory / "noticed")
