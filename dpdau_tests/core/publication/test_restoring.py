"""Backups: whole or not at all; and after a restore no number is ever published a second time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import partial
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from dpdau_assets.core.budget import verification
from dpdau_assets.core.budget.numbers import interval
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.errors import BadInput, BadSetting, DpdauError, Refused
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import Override, ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.publication.restoring import reopen
from dpdau_assets.core.reporting.answers import mart_rows, release_answer
from dpdau_assets.core.restored import Declared, MartRow
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.state.activity import apply_pending
from dpdau_tests.conftest import SECRET, SKETCHES, FixedClock, prepare, put
from dpdau_tests.support.killing import DIED, counted_steps, in_a_fork, waited
from dpdau_tests.support.lengths import at_length, chance
from dpdau_tests.support.postgres import schema_url
from dpdau_tests.support.racing import apart
from resources.ledger_sql import schema
from resources.ledger_sql.backup import from_lines, read_out, to_lines
from resources.ledger_sql.backup import put as put_rows
from resources.ledger_sql.database import Database
from resources.ledger_sql.ledger import SqlLedger
from resources.published import mart_duckdb
from resources.published.mart_duckdb import MartFiles
from resources.storage import backup_files
from resources.storage.backup_files import Restored, back_up
from resources.storage.data_dir import live_files
from resources.store import open_store

START = date(2025, 1, 1)
JANUARY, FEBRUARY, MARCH = START, date(2025, 2, 1), date(2025, 3, 1)
PUBLISHED = date(2025, 2, 2)  # the last day in the backup
TODAY = date(2025, 2, 10)


# --- A store, its backup and its loss ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was backed up when PUBLISHED was its last day, the backup, and the mart of today.

    Two more days and the restatement of January came out since.
    """
    root = tmp_path_factory.mktemp("backups")
    store = opened(root / "store", TODAY)
    people(store, days_between(START, TODAY))
    publish_days(days_between(START, PUBLISHED), store)
    request([Event("user 1", "-", PUBLISHED)], store)
    back_up(root / "backup", opened(root / "store", PUBLISHED + timedelta(days=2)))
    publish_days([PUBLISHED + timedelta(days=1)], store)
    restate(JANUARY, store)
    publish_days([PUBLISHED + timedelta(days=2)], store)
    MartFiles(root / "mart").replace(mart_rows(store.accountant))
    return root


def people(store: Store, days: list[date]) -> Store:
    put(store, [(f"user {n}", day) for day in days for n in range(5)])
    prepare(store, days)
    return store


def opened(folder: Path, today: date, **chosen: object) -> Store:
    open_store.cache_clear()
    return replace(open_store(settings_of(folder, **chosen)), clock=FixedClock(today))


def settings_of(folder: Path, **chosen: object) -> Settings:
    return Settings(**{"data_dir": folder, "hash_salt_secret": SECRET, **chosen})


def publish_days(days: Iterable[date], store: Store) -> None:
    for day in days:
        publish("dau", day, store)
        if day >= date(2025, 1, 30):
            publish("mau", day, store)


def show(rows: list[MartRow], folder: Path) -> None:
    """The database of a mart, which is all that a restore reads of it."""
    folder.mkdir(exist_ok=True)
    path = folder / "active_users.duckdb"
    path.unlink(missing_ok=True)
    with duckdb.connect() as work:
        mart_duckdb._fill(work, rows)
        mart_duckdb._copy_database(work, path)


def restored(
    world: Path,
    folder: Path,
    *,
    mart: bool = False,
    today: date = TODAY,
    declared: Declared | None = None,
    **chosen: object,
) -> tuple[Restored, Store]:
    """The backup, restored into a new folder, and the store that is there now."""
    shown = MartFiles(world / "mart").read() if mart else []
    found = backup_files.restore(world / "backup", settings_of(folder, **chosen), FixedClock(today), shown, declared)
    return found, opened(folder, today, **chosen)


def numbers(store: Store) -> dict[ReleaseKey, float]:
    return {one.key: one.noisy_value for one in store.accountant.releases()}


def rows(url: str) -> list[tuple[str, dict]]:
    with Database(url, SECRET).read() as connection:
        return [(name, dict(columns)) for name, columns in read_out(connection)]


def ledger_of(folder: Path) -> str:
    return f"sqlite:///{folder}/ledger.sqlite"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in live_files(folder)}


def reopened(store: Store) -> Store:
    reopen("Ada", "all requests of the ticket queue", store.clock, store.accountant)
    return store


# --- The backup --------------------------------------------------------------------------------------------------


def test_a_backup_says_when_it_expires_and_what_it_holds_and_shows_no_secret(world: Path) -> None:
    manifest = json.loads((world / "backup" / "manifest.json").read_text())
    assert (manifest["made_on"], manifest["expires_on"]) == ("2025-02-04", "2025-03-06")
    assert manifest["last_published"] == {"dau": "2025-02-02", "mau": "2025-02-02"}
    assert opened(world / "store", TODAY).accountant.holds(manifest["head"])
    assert manifest["schema"] == schema.VERSION
    there = {path.relative_to(world / "backup").as_posix() for path in (world / "backup").rglob("*") if path.is_file()}
    assert there == {*manifest["files"], "manifest.json"}
    assert {name.split("/")[1] for name in manifest["files"] if "/" in name} == {"activity", "sketches"}
    assert (world / "backup").stat().st_mode & 0o777 == 0o700
    store = opened(world / "store", TODAY)
    secrets = [
        store.state.salts.signing_key(),
        *(key.secret for key in store.state.salts.epoch_keys(range(223, 225)).values()),
    ]
    ledger = (world / "backup" / "ledger.jsonl").read_text()
    assert not [secret for secret in secrets if secret.hex() in ledger]


def test_a_backup_is_refused_where_receipts_would_find_it_and_where_something_is(tmp_path: Path) -> None:
    store = opened(tmp_path / "data", TODAY, dagster_home=tmp_path / "home")
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for target in ("data", "data/backup", "home/deep/backup", "link/backup", "there"):
        with pytest.raises(BadInput, match=r"is inside|exists"):
            back_up(tmp_path / target, store)
    assert not any("backup" in path.name for path in tmp_path.rglob("*"))


def test_a_backup_that_fails_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path / "data", TODAY)
    people(store, [START])

    def fails(connection: object) -> Iterator[None]:
        raise OSError("the disk is full")

    monkeypatch.setattr(backup_files, "read_out", fails)
    with pytest.raises(OSError, match="disk is full"):
        back_up(tmp_path / "backups" / "new", store)
    assert not any(path.is_file() for path in tmp_path.rglob("*") if "backups" in path.parts)


def test_a_ledger_that_does_not_hold_is_not_backed_up(tmp_path: Path) -> None:
    store = opened(tmp_path / "data", TODAY)
    people(store, [START])
    publish("dau", START, store)
    with Database(ledger_of(tmp_path / "data"), SECRET).write() as connection:
        connection.execute(schema.releases.update().values(noisy_value=schema.releases.c.noisy_value + 1))
    with pytest.raises(Refused, match="does not hold"):
        back_up(tmp_path / "backup", store)
    assert not (tmp_path / "backup").exists()


# --- The ledger's rows, on every database ------------------------------------------------------------------------


def test_from_sqlite_to_postgresql_and_back_it_is_the_same_ledger(world: Path, tmp_path: Path) -> None:
    store = opened(world / "store", TODAY)
    lines = [list(to_lines(rows(ledger_of(world / "store"))))]
    with schema_url() as url:
        for place in (url, ledger_of(tmp_path)):
            database = Database(place, SECRET)
            put_rows(database, from_lines(lines[-1]))
            lines.append(list(to_lines(rows(place))))
            ledger = SqlLedger(database)
            assert ledger.problems() == [] and ledger.head() == store.accountant.head()
            copied = replace(store, accountant=ledger)
            assert verification.problems(copied.settings, copied.accountant, store.accountant.releases()) == []
            february = next(one.name for one in ledger.mechanism_runs() if one.name.endswith("2025-02"))
            with ledger.transaction() as books, store.accountant.transaction() as original:
                assert books.shared_noise(february) == original.shared_noise(february) is not None
                stream = books.last_run("mau", 30)
                assert stream and books.frozen(stream.name, 4) == original.frozen(stream.name, 4)
            ledger.override(Override("cap", "Ada", "a test", TODAY, "dau", MARCH, Fraction(4)))  # ids go on
            assert ledger.problems() == []
            with pytest.raises(Refused, match="not empty"):
                put_rows(database, from_lines(lines[0]))
    assert lines[0] == lines[1]
    assert len(lines[2]) == len(lines[0])


def test_a_restore_into_postgresql_is_that_into_sqlite(world: Path, tmp_path: Path) -> None:
    in_sqlite, _ = restored(world, tmp_path / "sqlite", mart=True)
    with schema_url() as url:
        in_postgresql, store = restored(world, tmp_path / "postgresql", mart=True, ledger_url=url)
        assert in_postgresql == in_sqlite
        assert verification.problems(store.settings, store.accountant) == []
        store = replace(reopened(store), clock=FixedClock(date(2025, 3, 2)))
        people(store, [MARCH])
        publish("dau", MARCH, store)
        assert verification.problems(store.settings, store.accountant) == []


# --- The restore -------------------------------------------------------------------------------------------------


def test_restored_twice_it_is_the_same_store(world: Path, tmp_path: Path) -> None:
    (first, _), (second, _) = (restored(world, tmp_path / name, mart=True) for name in ("first", "second"))
    assert first == second
    assert rows(ledger_of(tmp_path / "first")) == rows(ledger_of(tmp_path / "second"))
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second") == files_of(world / "backup" / "files") != {}


def test_what_the_mart_shows_is_taken_back_to_the_last_digit(world: Path, tmp_path: Path) -> None:
    found, store = restored(world, tmp_path, mart=True)
    before = opened(world / "store", TODAY)
    assert found.taken_back == 2 + 2 + 31
    assert numbers(store) == numbers(before)
    assert mart_rows(store.accountant) == mart_rows(before.accountant) == MartFiles(world / "mart").read()
    assert store.accountant.releases() == before.accountant.releases()
    last = before.accountant.releases("mau")[-1]
    assert release_answer(last, store.settings, store.accountant) == release_answer(
        last, before.settings, before.accountant
    )
    assert verification.problems(store.settings, store.accountant, before.accountant.releases()) == []
    assert publish("mau", last.key.day, store) == last and restate(JANUARY, store) == restate(JANUARY, before)


def test_without_the_mart_all_that_may_be_out_is_charged_closed_and_sealed(world: Path, tmp_path: Path) -> None:
    found, store = restored(world, tmp_path)
    # DAU from 3 to 9 February, MAU of the same days, and the restatement of January and, with the longest grace that
    # could have been set meanwhile, of the 9 days of February
    assert (found.lost, found.taken_back, found.lost_epochs, found.files_kept) == (7 + 7 + 31 + 9, 0, [], False)
    assert found.closed == [(metric, month) for metric in METRICS for month in (JANUARY, FEBRUARY)]
    assert all(store.accountant.is_closed(metric, month) for metric, month in found.closed)
    assert set(days_between(START, TODAY - timedelta(days=1))) <= store.accountant.sealed()
    assert TODAY not in store.accountant.sealed()
    with store.accountant.transaction() as books:  # no number can come of it any more
        assert books.shared_noise("dau-1-gaussian_shared-2025-02") is None
    assert verification.problems(store.settings, store.accountant) == []
    assert store.accountant.holds(json.loads((world / "backup" / "manifest.json").read_text())["head"])


HISTORIES = [(33, 2, True, False), (31, 7, False, False), (10, 26, True, True), (0, 32, False, True)]
"""Days published before the backup, and after it; whether there is a mart, and whether only the ledger is lost."""


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store on its way, and of each history what is left of it."""
    root = tmp_path_factory.mktemp("histories")
    store = opened(root / "store", TODAY)
    people(store, days_between(START, START + timedelta(days=1)))
    for number in range(max(before + after for before, after, *_ in HISTORIES) + 1):
        day = START + timedelta(days=number - 1)
        people(store, [today_of(number)])
        if number:
            publish_days([day], store)
        if day == date(2025, 2, 3):
            restate(JANUARY, store)
        for before, after, _, only_ledger in HISTORIES:
            left = root / f"{before} and {after}"
            if number == before:
                back_up(left / "backup", opened(root / "store", today_of(before + after)))
            if number == before + after:
                if only_ledger:
                    shutil.copytree(root / "store", left / "store", ignore=shutil.ignore_patterns("ledger.sqlite*"))
                show(mart_rows(store.accountant), left / "mart")
    return root


@pytest.mark.parametrize(("before", "after", "mart", "only_ledger"), HISTORIES)
def test_no_key_ever_gets_a_second_number(lost: Path, before: int, after: int, mart: bool, only_ledger: bool) -> None:
    never_a_second_number(lost / f"{before} and {after}", today_of(before + after), mart, only_ledger)


def today_of(published: int) -> date:
    """When so many days were published."""
    return START + timedelta(days=published + 2)


@pytest.mark.slow(weight=4)
@settings(
    max_examples=at_length(ci=4, soak=40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(before=st.integers(0, 66), after=st.integers(0, 66), mart=st.booleans(), only_ledger=st.booleans())
def test_however_much_is_published_before_and_after_the_backup_no_key_gets_a_second_number(
    tmp_path_factory: pytest.TempPathFactory, before: int, after: int, mart: bool, only_ledger: bool
) -> None:
    """Some days are published, a backup, more days, everything or just the ledger is lost."""
    root = tmp_path_factory.mktemp("lost")
    days = days_between(START, START + timedelta(days=before + after))[:-1]
    today = today_of(before + after)
    store = opened(root / "store", today)
    people(store, days_between(START, today))
    publish_days(days[:before], store)
    back_up(root / "backup", store)
    publish_days(days[before:], store)
    for month, reached in ((JANUARY, date(2025, 2, 3)), (FEBRUARY, date(2025, 3, 3))):
        if after and days[-1] >= reached:
            restate(month, store)
    show(mart_rows(store.accountant), root / "mart")
    for path in root.glob("store/ledger.sqlite*") if only_ledger else [root / "store"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    never_a_second_number(root, today, mart, only_ledger)


def never_a_second_number(root: Path, today: date, mart: bool, only_ledger: bool) -> None:
    """The backup is restored, and everything is asked for again."""
    seen = {one.key: one.noisy_value for one in MartFiles(root / "mart").read()}
    found, store = restored(root, root / "store", mart=mart, today=today)
    assert found.files_kept == only_ledger
    reopened(store)
    if mart:
        assert numbers(store) == seen
    for day in days_between(START, today - timedelta(days=1)):
        for metric in METRICS:
            number = published(metric, day, store)
            assert number in (None, seen.get(ReleaseKey(metric, 1 if metric == "dau" else 30, day)))
    for month in (JANUARY, FEBRUARY):
        restated = again(month, store)
        assert restated is None or restated == {key: seen.get(key) for key in restated} == again(month, store)
    assert verification.problems(store.settings, store.accountant) == []


def published(metric: Metric, day: date, store: Store) -> float | None:
    try:
        return publish(metric, day, store).noisy_value
    except DpdauError:
        return None


def again(month: date, store: Store) -> dict[ReleaseKey, float] | None:
    try:
        return {one.key: one.noisy_value for one in restate(month, store)}
    except DpdauError:
        return None


def test_what_a_closed_month_was_charged_is_never_free_again(world: Path, tmp_path: Path) -> None:
    older_mart = [one for one in MartFiles(world / "mart").read() if not one.key.revision]
    backup_files.restore(world / "backup", settings_of(tmp_path), FixedClock(TODAY), older_mart)
    store = reopened(opened(tmp_path, TODAY))
    charged = {
        (metric, month): store.accountant.charges(metric, month) for metric in METRICS for month in (JANUARY, FEBRUARY)
    }
    assert all(charged.values())
    for metric in METRICS:
        for day in days_between(PUBLISHED + timedelta(days=3), TODAY - timedelta(days=1)):
            with pytest.raises(Refused, match="may have been lost in a restore"):
                publish(metric, day, store)
    with pytest.raises(Refused, match="may have been lost in a restore"):
        restate(JANUARY, store)
    assert charged == {key: store.accountant.charges(*key) for key in charged}
    # Opened with the cap that it had, the month has nothing left; with a larger one, another instance is charged.
    store.accountant.override(Override("cap", "Ada", "a test", TODAY, "dau", FEBRUARY, Fraction(3)))
    with pytest.raises(Refused, match=r"is charged epsilon 2\.998 of its cap 3"):
        publish("dau", PUBLISHED + timedelta(days=3), store)
    store.accountant.override(Override("cap", "Ada", "a test", TODAY, "dau", FEBRUARY, Fraction(6)))
    other = publish("dau", PUBLISHED + timedelta(days=3), store)
    assert other.run == "dau-1-gaussian_shared-2025-02-after-1"
    assert len(store.accountant.charges("dau", FEBRUARY)) == 2
    assert verification.problems(store.settings, store.accountant) == []


@pytest.mark.parametrize("metric", METRICS)
def test_a_lost_number_of_independent_noise_is_charged_again_if_it_is_drawn_again(
    tmp_path: Path, metric: Metric
) -> None:
    chosen = {"mau_window_days": 1, "mau_mechanism": "gaussian", "dau_mechanism": "gaussian"}
    store = opened(tmp_path / "store", TODAY, **chosen)
    people(store, [START])
    back_up(tmp_path / "backup", opened(tmp_path / "store", START, **chosen))
    shutil.rmtree(tmp_path / "store")
    _, store = restored(tmp_path, tmp_path / "store", today=START + timedelta(days=1), **chosen)
    assert len(store.accountant.charges(metric, JANUARY)) == 1
    reopened(store).accountant.override(Override("cap", "Ada", "a test", TODAY, metric, JANUARY, Fraction(9)))
    publish(metric, START, store)
    assert len(store.accountant.charges(metric, JANUARY)) == 2


def test_events_of_a_day_that_had_no_state_in_the_backup_can_be_brought_in_again(tmp_path: Path) -> None:
    store = opened(tmp_path / "store", TODAY)
    people(store, [START])
    back_up(tmp_path / "backup", store)
    lost = START + timedelta(days=1)
    publish_days([lost], people(store, [lost]))
    shutil.rmtree(tmp_path / "store")
    _, store = restored(tmp_path, tmp_path / "store")
    assert store.accountant.sealed() == {START}
    people(reopened(store), [lost])
    store.accountant.override(Override("cap", "Ada", "a test", TODAY, "dau", JANUARY, Fraction(6)))
    assert publish("dau", lost, store).run == "dau-1-gaussian_shared-2025-01-after-1"


def test_nothing_is_published_before_somebody_declares_that_erasures_are_submitted(world: Path, tmp_path: Path) -> None:
    _, store = restored(world, tmp_path)
    store = replace(store, clock=FixedClock(date(2025, 3, 2)))
    people(store, [MARCH])
    (receipt,) = request([Event("user 2", "-", MARCH)], store).receipts
    apply_and_verify(store)
    assert store.erasures.ledger.find([receipt])[0].state == "verified"
    with pytest.raises(Refused, match="erasure requests made since the backup"):
        publish("dau", MARCH, store)
    with pytest.raises(BadInput):
        reopen("Ada", " ", store.clock, store.accountant)
    reopened(store)
    assert publish("dau", MARCH, store).key.day == MARCH
    (declared,) = store.accountant.overrides()
    assert (declared.kind, declared.who, declared.made_on) == ("erasures_submitted", "Ada", date(2025, 3, 2))
    with pytest.raises(Refused, match="waits for no"):
        reopened(store)


def test_after_a_second_restore_one_declaration_and_one_override_are_enough_and_old_ones_do_not_count(
    world: Path, tmp_path: Path
) -> None:
    _, store = restored(world, tmp_path / "once")
    back_up(tmp_path / "not reopened", store)
    reopened(store)
    store.accountant.override(Override("cap", "Ada", "a test", TODAY, "dau", FEBRUARY, Fraction(9)))
    back_up(tmp_path / "reopened", store)
    for name in ("not reopened", "reopened"):
        place = settings_of(tmp_path / f"{name} store")
        backup_files.restore(tmp_path / name, place, FixedClock(TODAY))
        twice = opened(place.data_dir, TODAY)
        assert twice.accountant.awaits_erasures() and twice.accountant.is_closed("dau", FEBRUARY)
        reopened(twice)
        twice.accountant.override(Override("cap", "Ada", "a test", TODAY, "dau", FEBRUARY, Fraction(9)))
        assert not twice.accountant.awaits_erasures() and not twice.accountant.is_closed("dau", FEBRUARY)
        assert verification.problems(twice.settings, twice.accountant) == []


def test_a_folder_in_which_nothing_lives_but_the_log_of_an_api_that_was_not_stopped_is_no_place_to_restore_into(
    world: Path, tmp_path: Path
) -> None:
    (tmp_path / "wal").mkdir()
    (tmp_path / "wal" / "0123456789abcdef.open").touch()
    with pytest.raises(Refused, match="move wal/ away"):
        restored(world, tmp_path)
    (tmp_path / "wal" / "0123456789abcdef.open").unlink()
    assert not restored(world, tmp_path)[0].files_kept


def test_the_stream_goes_on_as_another_one_with_the_first_day_that_reads_no_closed_month(
    world: Path, tmp_path: Path
) -> None:
    _, store = restored(world, tmp_path)
    store = replace(reopened(store), clock=FixedClock(date(2025, 4, 5)))
    people(store, days_between(TODAY, date(2025, 4, 1)))
    first = date(2025, 3, 30)  # its window begins on 1 March
    for day in days_between(PUBLISHED + timedelta(days=1), first - timedelta(days=1)):
        with pytest.raises(Refused, match="2025-02, of which numbers may have been lost"):
            publish("mau", day, store)
    assert publish("mau", first, store).run == "mau-30-gaussian_stream-from-2025-03-30-after-2"
    assert publish("mau", first + timedelta(days=1), store).run == "mau-30-gaussian_stream-from-2025-03-30-after-2"
    assert [len(store.accountant.charges("mau", month)) for month in (JANUARY, FEBRUARY, MARCH)] == [1, 1, 1]
    assert verification.problems(store.settings, store.accountant) == []


def test_the_stream_goes_on_earlier_where_the_months_it_reads_were_opened_with_a_larger_cap(
    world: Path, tmp_path: Path
) -> None:
    _, store = restored(world, tmp_path)
    store = replace(reopened(store), clock=FixedClock(date(2025, 4, 5)))
    people(store, days_between(TODAY, MARCH))
    for month in (JANUARY, FEBRUARY):
        store.accountant.override(Override("cap", "Ada", "a test", TODAY, "mau", month, Fraction(7)))
    release = publish("mau", PUBLISHED + timedelta(days=1), store)
    assert release.run == "mau-30-gaussian_stream-from-2025-02-03-after-2"
    assert [len(store.accountant.charges("mau", month)) for month in (JANUARY, FEBRUARY)] == [2, 2]
    assert verification.problems(store.settings, store.accountant) == []


def test_somebody_can_declare_how_far_publication_had_come_but_not_against_what_is_shown(
    world: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="2025-02-04 is published"):
        restored(world, tmp_path, mart=True, declared=Declared(PUBLISHED, "Ada", "the last report"))
    with pytest.raises(BadInput, match="2025-02-02 is published"):
        restored(world, tmp_path, declared=Declared(START, "Ada", "the last report"))
    assert not any(path.suffix == ".parquet" for path in tmp_path.rglob("*"))
    found, store = restored(world, tmp_path, declared=Declared(date(2025, 2, 4), "Ada", "the last report"))
    assert found.closed == [(metric, month) for metric in METRICS for month in (JANUARY, FEBRUARY)]
    assert found.lost == 2 + 2 + 31
    with Database(ledger_of(tmp_path), SECRET).read() as connection:
        (row,) = connection.execute(select(schema.restores)).all()
    assert row[1:] == ("2025-02-04", "2025-02-10", "2025-02-04", "Ada", "the last report")
    assert store.accountant.problems() == []


def test_with_nothing_published_since_only_what_could_be_is_lost(world: Path, tmp_path: Path) -> None:
    declared = Declared(PUBLISHED, "Ada", "the last report")  # which is too early for the restatement
    found, store = restored(world, tmp_path, declared=declared)
    assert (found.lost, found.closed) == (0, [])
    assert store.accountant.awaits_erasures()
    publish_days([PUBLISHED + timedelta(days=1)], reopened(store))
    assert len(restate(JANUARY, store)) == 31
    assert verification.problems(store.settings, store.accountant) == []


# --- What is refused ---------------------------------------------------------------------------------------------


def test_a_backup_that_has_expired_is_refused_and_leaves_nothing(world: Path, tmp_path: Path) -> None:
    restored(world, tmp_path / "on its last day", today=date(2025, 3, 6))
    with pytest.raises(Refused, match="expired on 2025-03-06"):
        restored(world, tmp_path / "late", today=date(2025, 3, 7))
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("harm", ["flip", "cut", "unlink"])
@pytest.mark.parametrize("kind", ["manifest.json", "ledger.jsonl", "*.parquet", "*.sketch"])
def test_a_damaged_backup_is_refused_and_leaves_nothing(world: Path, tmp_path: Path, kind: str, harm: str) -> None:
    shutil.copytree(world / "backup", tmp_path / "backup")
    victim = sorted((tmp_path / "backup").rglob(kind))[0]
    content = bytearray(victim.read_bytes())
    if harm == "flip":
        content[len(content) // 3] ^= 1
    victim.write_bytes(content if harm == "flip" else content[:-5])
    if harm == "unlink":
        victim.unlink()
    with pytest.raises(BadInput, match=r"damaged|no whole backup"):
        restored(tmp_path, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_ledger_that_was_changed_in_the_backup_is_refused_even_with_new_hashes(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "backup", tmp_path / "backup")
    ledger = tmp_path / "backup" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    manifest = backup_files._manifest(tmp_path / "backup")
    last_entry = max(number for number, line in enumerate(lines) if line.startswith(b'["entries"'))
    for changed, says in (
        ([line.replace(b'"half_width": ', b'"half_width": 1') for line in lines], "does not hold"),
        ([line for line in lines if not line.startswith(b'["shared_noise"')], "does not hold"),
        (lines[:last_entry] + lines[last_entry + 1 :], "does not hold"),
    ):
        ledger.write_bytes(b"".join(changed))
        files = {**manifest.files, "ledger.jsonl": backup_files._hash_of(ledger)}
        (tmp_path / "backup" / "manifest.json").write_bytes(backup_files._to_json(replace(manifest, files=files)))
        with pytest.raises(Refused, match=says):
            restored(tmp_path, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"hash_salt_secret": "another secret, of some length as well"}, "HASH_SALT_SECRET does not open"),
        ({"hash_salt_secret": None}, "HASH_SALT_SECRET is not set"),
        ({"start_date": date(2025, 1, 2)}, "START_DATE"),
    ],
)
def test_the_settings_of_another_store_are_refused(world: Path, tmp_path: Path, chosen: dict, says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        backup_files.restore(world / "backup", settings_of(tmp_path / "store", **chosen), FixedClock(TODAY))
    assert not (tmp_path / "store").exists()


def test_a_backup_of_another_schema_version_is_refused(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "backup", tmp_path / "backup")
    older = replace(backup_files._manifest(world / "backup"), schema="9999")
    (tmp_path / "backup" / "manifest.json").write_bytes(backup_files._to_json(older))
    with pytest.raises(Refused, match="schema version 9999"):
        restored(tmp_path, tmp_path / "store")


def test_a_mart_of_another_store_or_of_other_settings_is_refused(world: Path, tmp_path: Path) -> None:
    shown = MartFiles(world / "mart").read()
    january = shown[0].mechanism_run
    for wrong, says in (
        ([replace(shown[0], noisy_value=shown[0].noisy_value + 1)], "shows another dau of 2025-01-01"),
        ([replace(shown[0], half_width=shown[0].half_width / 2)], "shows another dau of 2025-01-01"),
        ([replace(one, mechanism="laplace") for one in shown], "by laplace; gaussian_shared is configured"),
        (
            [replace(row, mechanism_run=january) for row in shown],
            r"2025-02-03 as a number of dau-1-gaussian_shared-2025-01, .* one of dau-1-gaussian_shared-2025-02",
        ),
    ):
        with pytest.raises(Refused, match=says):
            backup_files.restore(world / "backup", settings_of(tmp_path), FixedClock(TODAY), wrong)
    assert not (tmp_path / "activity").exists() and SqlLedger(Database(ledger_of(tmp_path), SECRET)).head() == ""


def test_only_an_empty_ledger_is_restored_into(world: Path, tmp_path: Path) -> None:
    opened(tmp_path / "looked at", TODAY)  # which fixes its terms, and no more
    restored(world, tmp_path / "looked at")
    store = opened(tmp_path / "used", TODAY)
    people(store, [START])
    before = rows(ledger_of(tmp_path / "used")), files_of(tmp_path / "used")
    for place in ("looked at", "used"):
        with pytest.raises(Refused, match="not empty"):
            restored(world, tmp_path / place)
    assert before == (rows(ledger_of(tmp_path / "used")), files_of(tmp_path / "used"))


# --- Files -------------------------------------------------------------------------------------------------------


def test_where_only_the_ledger_was_lost_the_live_files_stay_as_they_are(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "store", tmp_path / "store")
    put(opened(tmp_path / "store", TODAY), [("someone new", TODAY)])
    for path in (tmp_path / "store").glob("ledger.sqlite*"):
        path.unlink()
    before = files_of(tmp_path / "store")
    found, store = restored(world, tmp_path / "store")
    assert found.files_kept and files_of(tmp_path / "store") == before
    with store.state.activity.lock():
        apply_pending(store)
    assert len(store.state.activity.read(TODAY, 223)) == 6


def test_a_ledger_is_not_restored_beside_the_files_of_another_store(world: Path, tmp_path: Path) -> None:
    put(opened(tmp_path / "store", TODAY), [("someone", TODAY)])
    for path in (tmp_path / "store").glob("ledger.sqlite*"):
        path.unlink()
    before = files_of(tmp_path / "store")
    with pytest.raises(Refused, match="files of another store than the backup"):
        restored(world, tmp_path / "store")
    assert files_of(tmp_path / "store") == before and SqlLedger(Database(ledger_of(tmp_path / "store"))).head() == ""
    for name in before:
        (tmp_path / "store" / name).unlink()
    found, store = restored(world, tmp_path / "store")
    assert not found.files_kept and store.accountant.processed()


def test_an_inbox_that_nobody_named_the_store_of_is_not_taken_for_the_backups_own(tmp_path: Path) -> None:
    """The files of a copy without `store.id` are kept; what was keyed under another store's keys is refused."""
    store = opened(tmp_path / "store", TODAY)
    put(store, [("her", START)])
    back_up(tmp_path / "backup", store)
    put(opened(tmp_path / "other", TODAY), [("her", START)])
    for path in [*(tmp_path / "other").glob("ledger.sqlite*"), tmp_path / "other" / "store.id"]:
        path.unlink()
    found, again = restored(tmp_path, tmp_path / "other")
    assert found.files_kept and found.lost_epochs == []
    with pytest.raises(Refused, match="was keyed under another key of salt epoch 223"):
        prepare(again, [START])


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_restore_that_was_cut_short_has_brought_opens_with_no_ledger_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """Also where the ledger that it is restored into had been looked at, and was a store's own by then."""
    store = opened(tmp_path / "store", TODAY)
    put(store, [("her", START)])
    back_up(tmp_path / "backup", store)
    if begun:
        opened(tmp_path / "again", TODAY)
    for broken in ("account_for_files", "read_out"):
        with monkeypatch.context() as patch:
            patch.setattr(backup_files, broken, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                restored(tmp_path, tmp_path / "again")
        with pytest.raises(BadSetting, match=r"A restore into .* was cut short"):
            opened(tmp_path / "again", TODAY)
    found, again = restored(tmp_path, tmp_path / "again")
    assert not found.files_kept and len(again.events.inbox.batches()) == 1
    assert opened(tmp_path / "again", TODAY).accountant.store_id() == store.accountant.store_id()


def test_a_restore_that_names_another_ledger_forgets_nothing_of_the_one_that_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path / "store", TODAY)
    people(store, [START])
    put(store, [("a newcomer", START + timedelta(days=1))])
    back_up(tmp_path / "backup", store)
    with monkeypatch.context() as patch:
        patch.setattr(backup_files, "LIVE", backup_files.LIVE[:1])  # what came after the first folder was not moved
        patch.setattr(backup_files, "account_for_files", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            restored(tmp_path, tmp_path / "again")
    busy = opened(tmp_path / "busy", TODAY)
    people(busy, [START])
    wrong = f"sqlite:///{tmp_path}/busy/ledger.sqlite"
    with pytest.raises(Refused, match="not empty"):
        restored(tmp_path, tmp_path / "again", ledger_url=wrong)
    found, again = restored(tmp_path, tmp_path / "again")
    assert not found.files_kept and files_of(tmp_path / "again") == files_of(tmp_path / "backup" / "files")
    assert len(again.events.inbox.batches()) == 1


@pytest.mark.parametrize("zone", ["Africa/Cairo", pytest.param("America/Santiago", marks=pytest.mark.slow)])
def test_numbers_come_back_where_the_clock_skips_the_midnight_of_the_day_on_which_one_was_due(
    zone: str, tmp_path: Path
) -> None:
    """Cairo's clock went from 0 to 1 on 25 April 2025, Santiago's on 7 September."""
    start = date(2025, 9, 1) if zone == "America/Santiago" else date(2025, 4, 20)
    chosen = {"start_date": start, "timezone": zone}
    store = opened(tmp_path / "store", start + timedelta(days=20), **chosen)
    days = days_between(start, start + timedelta(days=8))
    people(store, days)
    back_up(tmp_path / "backup", store)
    for day in days:
        publish("dau", day, store)
    show(mart_rows(store.accountant), tmp_path / "mart")
    found, again = restored(tmp_path, tmp_path / "again", mart=True, today=start + timedelta(days=20), **chosen)
    assert found.taken_back == len(days) and numbers(again) == numbers(store)


def test_a_restated_number_is_not_taken_back_into_a_month_that_is_priced_for_none(tmp_path: Path) -> None:
    chosen = {"restatements_per_month": 0}
    store = opened(tmp_path / "store", TODAY, **chosen)
    people(store, [START])
    back_up(tmp_path / "backup", store)
    publish("dau", START, store)
    (row,) = mart_rows(store.accountant)
    again = replace(row, key=replace(row.key, revision=1), published_at=datetime(2025, 2, 5, tzinfo=UTC))
    show([row, again], tmp_path / "mart")
    with pytest.raises(Refused, match=r"revision 1, published at .* when none was due"):
        restored(tmp_path, tmp_path / "again", mart=True, **chosen)


def test_a_file_whose_epoch_key_was_lost_is_refused_and_that_epoch_never_gets_another(tmp_path: Path) -> None:
    day, later = date(2025, 1, 2), date(2025, 3, 10)
    store = opened(tmp_path / "store", later)
    people(store, [day])
    back_up(tmp_path / "backup", opened(tmp_path / "store", later))
    people(store, [later])  # which the windows of another epoch reach
    for path in (tmp_path / "store").glob("ledger.sqlite*"):
        path.unlink()
    found, store = restored(tmp_path, tmp_path / "store", today=later)
    assert found.lost_epochs == [224]
    for touched in (
        lambda: store.state.activity.read(later, 224),
        lambda: store.state.salts.epoch_keys([224]),
        lambda: put(store, [("user 1", later)]),
    ):
        with pytest.raises(Refused, match="key of salt epoch 224 was lost"):
            touched()
    assert len(store.state.activity.read(day, 223)) == 5
    assert store.state.salts.epoch_keys([225]).keys() == {225}
    (receipt,) = request([Event("user 1", "-", later)], store).receipts  # by the epochs that there are
    apply_and_verify(store)
    assert store.erasures.ledger.find([receipt])[0].state == "verified"
    assert len(store.state.activity.read(day, 223)) == 4


def test_a_batch_in_the_inbox_whose_epoch_key_was_lost_loses_the_epoch_too(tmp_path: Path) -> None:
    store = opened(tmp_path / "store", TODAY)
    back_up(tmp_path / "backup", store)
    put(store, [("user 1", START)])
    for path in (tmp_path / "store").glob("ledger.sqlite*"):
        path.unlink()
    found, _ = restored(tmp_path, tmp_path / "store")
    assert found.lost_epochs == [223]


def test_who_was_erased_after_the_backup_is_back_until_the_request_is_submitted_again(
    world: Path, tmp_path: Path
) -> None:
    shutil.copytree(world / "store", tmp_path / "erased")
    before = opened(tmp_path / "erased", TODAY)
    asked = [Event("user 3", "-", TODAY - timedelta(days=1))]
    request(asked, before)
    apply_and_verify(before)
    _, store = restored(world, tmp_path / "store", mart=True)

    def present(store: Store) -> list[int]:
        return [len(store.state.activity.read(day, 223)) for day in (START, PUBLISHED)]

    assert present(store) == [5, 5] and present(before) == [3, 3]
    with pytest.raises(Refused, match="erasure requests made since the backup"):
        publish("dau", TODAY - timedelta(days=1), store)
    request(asked, store)
    apply_and_verify(store)
    assert present(store) == [3, 3]
    assert not reopened(store).accountant.awaits_erasures()


def test_a_restore_that_was_cut_short_is_completed_by_the_same_backup_and_no_other(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(tmp_path / "backup", opened(world / "store", TODAY))
    with monkeypatch.context() as patch:
        patch.setattr(backup_files, "read_out", lambda connection: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            restored(world, tmp_path / "store")
    assert SqlLedger(Database(ledger_of(tmp_path / "store"), SECRET)).head() == ""
    with pytest.raises(Refused, match="backup of 2025-02-04 was cut short"):
        restored(tmp_path, tmp_path / "store")
    found, store = restored(world, tmp_path / "store")
    assert not found.files_kept and verification.problems(store.settings, store.accountant) == []
    assert files_of(tmp_path / "store") == files_of(world / "backup" / "files")
    assert not (tmp_path / "store" / ".restoring").exists()


# --- Killed at any moment ----------------------------------------------------------------------------------------


@pytest.mark.also_long(weight=4)
def test_a_restore_that_is_killed_leaves_an_empty_ledger_or_a_whole_one_and_is_completed_by_the_same(
    world: Path, tmp_path: Path
) -> None:
    points, part = at_length(test=3, ci=8, soak=60), chance("kill restores").random()
    found = apart(killed_restores, world, tmp_path, points, part)
    assert found["problems"] == [], f"{part} of each part"
    assert found["killed"] == points and found["empty"] > 0


def killed_restores(world: Path, root: Path, points: int, part: float) -> dict[str, object]:
    """A restore's steps are parted into so many, and at this part of each a fork dies; others look at what it left.

    This process itself opens no store.
    """
    with in_a_fork(lambda: (root / "steps").write_text(str(steps_of_a_restore(world, root / "whole")))) as child:
        assert waited(child) == 0
    steps, killed, left = int((root / "steps").read_text()), 0, []
    for point in range(points):
        place, step = root / f"killed-{point}", 1 + int(steps * (point + part) / points)
        with in_a_fork(partial(steps_of_a_restore, world, place, dies_at=step)) as child:
            killed += waited(child) == DIED
        with in_a_fork(partial(tell_what_is_left, world, place, root)) as child:
            assert waited(child) == 0
        left.append(json.loads((root / "left").read_text()))
    problems = [problem for _, found in left for problem in found]
    return {"killed": killed, "empty": sum(was_empty for was_empty, _ in left), "problems": problems}


def steps_of_a_restore(world: Path, place: Path, dies_at: int | None = None) -> int:
    with counted_steps(dies_at) as taken:
        restored(world, place, mart=True)
    return taken()


def tell_what_is_left(world: Path, place: Path, root: Path) -> None:
    """Whether the ledger is empty, and what is wrong: with it, or in the end, after the same restore again."""
    place.mkdir(exist_ok=True)
    head, whole = (SqlLedger(Database(ledger_of(folder), SECRET)).head() for folder in (place, root / "whole"))
    problems = [] if head in ("", whole) else [f"the ledger ends with {head}"]
    if head:
        with pytest.raises(Refused, match="not empty"):
            restored(world, place, mart=True)
    else:
        restored(world, place, mart=True)
    restored_store = opened(place, TODAY)
    problems += verification.problems(restored_store.settings, restored_store.accountant)
    problems += ["files differ"] if files_of(place) != files_of(root / "whole") else []
    problems += ["rows differ"] if rows(ledger_of(place)) != rows(ledger_of(root / "whole")) else []
    problems += [str(path) for path in place.rglob(".restoring*")]
    (root / "left").write_text(json.dumps([not head, problems]))


def test_a_month_that_may_have_been_restated_under_a_longer_grace_is_closed(tmp_path: Path) -> None:
    days, first = days_between(date(2025, 1, 25), date(2025, 2, 3)), {"start_date": date(2025, 1, 25)}
    store = opened(tmp_path / "store", date(2025, 2, 4), grace_days=3, **first)
    people(store, days)
    for day in days[:-3]:
        publish("dau", day, store)
    back_up(tmp_path / "backup", store)
    for day in days[-3:]:
        publish("dau", day, store)
    restate(JANUARY, store)  # on 7 February, by its calendar
    shutil.rmtree(tmp_path / "store")
    _, store = restored(tmp_path, tmp_path / "store", today=date(2025, 2, 4), grace_days=0, **first)
    assert store.accountant.is_closed("dau", JANUARY)
    with store.accountant.transaction() as books:
        assert books.shared_noise("dau-1-gaussian_shared-2025-01") is None


def test_a_backup_from_the_future_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the clock says 2025-01-09"):
        restored(world, tmp_path, today=date(2025, 1, 9))


@pytest.mark.parametrize("kind", ["theta", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("kmv", "hllpp"))])
def test_numbers_of_a_sketch_come_back_from_the_mart_to_the_last_digit(tmp_path: Path, kind: str) -> None:
    """Also of a month whose parameter followed a number."""
    chosen = {**SKETCHES[kind], "mau_theta0": Fraction(1, 2), "mau_level": 2}
    store = opened(tmp_path / "store", TODAY, **chosen)
    days = days_between(START, PUBLISHED)
    people(store, days)
    back_up(tmp_path / "backup", store)
    followed = {**chosen, "dau_theta0": None, "dau_level": None}
    publish_days(days[:5], store)
    publish_days(days[29:], opened(tmp_path / "store", TODAY, **followed))
    show(mart_rows(store.accountant), tmp_path / "mart")
    seen = {one.key: release_answer(one, store.settings, store.accountant) for one in store.accountant.releases()}
    assert {key.metric for key in seen} == {"dau", "mau"}
    shutil.rmtree(tmp_path / "store")
    _, again = restored(tmp_path, tmp_path / "store", mart=True, **chosen)
    shown = ("noisy_value", "noisy_statistic", "half_width", "estimate", "lower_95", "upper_95")
    counted = ("mechanism_run", "sketch_impl", "sketch_parameters")
    for release in again.accountant.releases():
        answer = release_answer(release, again.settings, again.accountant)
        for name in (*shown, *counted):
            assert getattr(answer, name) == getattr(seen[release.key], name)
    assert {one.key for one in again.accountant.releases()} == seen.keys()
    assert verification.problems(again.settings, again.accountant, MartFiles(tmp_path / "mart").read()) == []


def test_a_stream_that_may_have_been_begun_anew_since_the_mart_is_charged_beside_the_one_that_it_shows(
    tmp_path: Path,
) -> None:
    before, after = ({**SKETCHES["theta"], "mau_theta0": Fraction(1, n)} for n in (2, 4))
    store = opened(tmp_path / "store", TODAY, **before)
    days = days_between(START, PUBLISHED)
    people(store, days)
    back_up(tmp_path / "backup", store)
    publish("mau", days[29], store)
    show(mart_rows(store.accountant), tmp_path / "mart")
    shutil.rmtree(tmp_path / "store")
    streams = {}
    for name, chosen in (("same", before), ("other", after)):
        _, again = restored(tmp_path, tmp_path / name, mart=True, **chosen)
        streams[name] = {one.parameters["theta0"] for one in again.accountant.mechanism_runs() if one.metric == "mau"}
        assert len(again.accountant.charges("mau", JANUARY)) == len(streams[name])
    assert streams == {"same": {"1/2"}, "other": {"1/2", "1/4"}}


SPARSE = {**SKETCHES["theta"], "dau_theta0": Fraction(1, 2**25)}


@pytest.fixture(scope="module")
def one_number(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup, and the mart of the one number that was published since, which a restore takes back."""
    root = tmp_path_factory.mktemp("one number")
    store = opened(root / "store", TODAY, **SPARSE)
    people(store, [START])
    back_up(root / "backup", store)
    publish("dau", START, store)
    show(mart_rows(store.accountant), root / "mart")
    assert len(restored(root, root / "good", mart=True, **SPARSE)[1].accountant.releases()) == 1
    return root


def changed(mart: Path, folder: Path, statement: str) -> Path:
    """A copy of the mart after this statement."""
    shutil.copytree(mart, folder)
    with duckdb.connect(folder / "active_users.duckdb") as database:
        database.execute(statement)
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("lower_95 = 0.0, upper_95 = NULL", "with another noise or sketch than is configured"),
        ("lower_95 = 1.5", "with another noise or sketch than is configured"),
        ("estimate = estimate + 1", "with another noise or sketch than is configured"),
        ("noisy_value = 1234.0", "with another noise or sketch than is configured"),
        ("half_width = half_width / 2", "with another noise or sketch than is configured"),
        ("half_width = NULL", "has no half_width"),
        ("mechanism = 'laplace'", "by laplace; gaussian_shared is configured"),
        ("mechanism_run = mechanism_run || '-after-1'", "which cannot be by the backup: it would be one of dau-1-"),
        ("mechanism_run = 'mau' || substr(mechanism_run, 4)", "which cannot be by the backup"),
        ("revision = 1", "revision 1, published at .* when none was due"),
        ("revision = 2", "when none was due"),
        ("revision = -1", "when none was due"),
        ("published_at = published_at + INTERVAL 1 HOUR", "when none was due"),
        ("published_at = published_at - INTERVAL 5 DAY", "when none was due"),
        ("published_at = published_at + INTERVAL 60 DAY", "when none was due"),
        ("""sketch_parameters = '{"theta0": 0}'""", "counted with parameters that are none"),
        ("""sketch_parameters = '{"theta0": null}'""", "counted with parameters that are none"),
        ("sketch_parameters = '{}'", "counted with parameters that are none"),
        ("sketch_impl = 'bloom'", "counted with parameters that are none"),
    ],
)
def test_a_mart_whose_row_cannot_be_what_was_published_is_refused(
    one_number: Path, tmp_path: Path, change: str, says: str
) -> None:
    (tmp_path / "backup").symlink_to(one_number / "backup")
    changed(one_number / "mart", tmp_path / "mart", f"UPDATE active_users SET {change}")
    with pytest.raises(DpdauError, match=says):
        restored(tmp_path, tmp_path / "bad", mart=True, **SPARSE)


def test_a_mart_from_before_there_were_runs_and_widths_in_it_is_named_as_one_and_nothing_is_taken_from_it(
    one_number: Path, tmp_path: Path
) -> None:
    older = changed(
        one_number / "mart",
        tmp_path / "mart",
        "DROP VIEW latest; DROP VIEW as_published; CREATE TABLE old AS SELECT * EXCLUDE (mechanism_run, half_width) "
        "FROM active_users; DROP TABLE active_users; ALTER TABLE old RENAME TO active_users",
    )
    with pytest.raises(BadInput, match="has no half_width and no mechanism_run: another version") as refused:
        MartFiles(older).read()
    assert "refresh_mart" in refused.value.remedy


def test_a_stream_that_began_later_than_is_supposed_comes_back_with_the_width_of_each_of_its_days(
    tmp_path: Path,
) -> None:
    """Its first days have less noise than the later ones. Also in a second restore, by the mart of the first."""
    store = opened(tmp_path / "store", TODAY)
    days = days_between(START, PUBLISHED)
    people(store, days)
    back_up(tmp_path / "backup", store)
    for day in days[31:]:
        publish("mau", day, store)
    before = mart_rows(store.accountant)
    widths = [row.half_width for row in before]
    assert widths == sorted(set(widths)) and len(widths) == 2
    assert {row.mechanism_run for row in before} == {"mau-30-gaussian_stream-from-2025-02-01"}
    show(before, tmp_path / "mart")
    _, once = restored(tmp_path, tmp_path / "once", mart=True)
    back = mart_rows(once.accountant)
    assert back == before and [len(once.accountant.charges("mau", month)) for month in (JANUARY, FEBRUARY)] == [1, 1]
    assert verification.problems(once.settings, once.accountant, before) == []
    show(back, tmp_path / "mart")
    assert mart_rows(restored(tmp_path, tmp_path / "twice", mart=True)[1].accountant) == back


def test_numbers_from_before_and_after_another_restore_are_not_taken_back_for_the_price_of_one_run(
    world: Path, tmp_path: Path
) -> None:
    """The backup knows nothing of that restore, after which a month that it closed was opened and charged again."""
    _, once = restored(world, tmp_path / "once", mart=True)
    once = replace(reopened(once), clock=FixedClock(date(2025, 2, 20)))
    once.accountant.override(Override("cap", "Ada", "a test", TODAY, "dau", FEBRUARY, Fraction(6)))
    day = PUBLISHED + timedelta(days=3)
    people(once, [day])
    assert publish("dau", day, once).run.endswith("2025-02-after-1")
    assert len(once.accountant.charges("dau", FEBRUARY)) == 2
    (tmp_path / "backup").symlink_to(world / "backup")
    show(mart_rows(once.accountant), tmp_path / "mart")
    with pytest.raises(Refused, match=r"2025-02-after-1, which cannot be by the backup") as refused:
        restored(tmp_path, tmp_path / "twice", mart=True)
    assert "use a backup that was made after it" in refused.value.remedy
    assert SqlLedger(Database(ledger_of(tmp_path / "twice"), SECRET)).head() == ""


def test_a_number_of_a_stream_with_the_width_of_another_of_its_days_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path / "store", TODAY)
    days = days_between(START, PUBLISHED)
    people(store, days)
    back_up(tmp_path / "backup", store)
    for day in days[29:]:
        publish("mau", day, store)
    rows = mart_rows(store.accountant)
    (run,) = store.accountant.mechanism_runs()
    releases = store.accountant.releases()
    narrow = replace(releases[-1], half_width=releases[0].half_width)
    forged = replace(rows[-1], half_width=narrow.half_width, **asdict(interval(narrow, run)))
    for shown, says in ((rows, None), ([*rows[:-1], forged], "another noise")):
        show(shown, tmp_path / "mart")
        if says is None:
            assert restored(tmp_path, tmp_path / "good", mart=True)[0].taken_back == len(rows)
        else:
            with pytest.raises(Refused, match=says):
                restored(tmp_path, tmp_path / "bad", mart=True)


def test_months_of_different_samples_come_back_from_the_mart_whatever_is_configured_by_then(tmp_path: Path) -> None:
    fine, coarse = ({**SKETCHES["theta"], "dau_theta0": Fraction(1, n)} for n in (2, 4))
    store = opened(tmp_path / "store", TODAY, **fine)
    days = days_between(START, PUBLISHED)
    people(store, days)
    back_up(tmp_path / "backup", store)
    publish("dau", days[30], store)
    later = opened(tmp_path / "store", TODAY, **coarse)
    publish("dau", days[31], later)
    show(mart_rows(later.accountant), tmp_path / "mart")
    seen = {
        one.key: release_answer(one, later.settings, later.accountant).sketch_parameters
        for one in later.accountant.releases()
    }
    shutil.rmtree(tmp_path / "store")
    for number, chosen in enumerate((fine, coarse, {})):
        _, again = restored(tmp_path, tmp_path / str(number), mart=True, **chosen)
        back = {
            one.key: release_answer(one, again.settings, again.accountant).sketch_parameters
            for one in again.accountant.releases()
        }
        assert back == seen and {found["theta0"] for found in back.values()} == {0.5, 0.25}


def test_a_mart_that_shows_another_noise_than_is_configured_is_refused(tmp_path: Path) -> None:
    chosen = {"dau_mechanism": "laplace", "epsilon_dau": Fraction(1)}
    store = opened(tmp_path / "store", TODAY, **chosen)
    people(store, [START])
    back_up(tmp_path / "backup", store)
    publish("dau", START, store)
    show(mart_rows(store.accountant), tmp_path / "mart")
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(Refused, match="with another noise or sketch than is configured"):
        restored(tmp_path, tmp_path / "store", mart=True, **{**chosen, "epsilon_dau": Fraction(1, 10)})
    assert not list((tmp_path / "store").rglob("*.parquet"))
