"""Each check passes on a sound store, and fails when what it guards is broken: asked alone, and as Dagster's job."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, timedelta
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import dagster as dg
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.requests import keyed
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import Build, Partition, Version
from dpdau_assets.core.identity import content_hash
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete
from dpdau_assets.core.publication.ingest import TooManyRejected, ingest
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.checks import CHECKS, Check, answer
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.vouched_state import ABSENT
from dpdau_assets.orchestration.checks import LAST, build_checks, severity
from dpdau_tests.conftest import SECRET, FixedClock, Silent, everything_in, prepare, put
from dpdau_tests.dagster.schedule_state import InstigatorStatus, switch
from dpdau_tests.dagster.world import World, erase, project_under
from dpdau_tests.support.lengths import LENGTH
from resources.dagster_instance import open_run
from resources.ledger_sql.database import Database
from resources.published.mart_duckdb import MartFiles
from resources.reading.event_files import event_file
from resources.store import ledger_url, open_store

DAYS = days_between(date(2025, 1, 1), date(2025, 1, 31))
TODAY = date(2025, 2, 2)
"""The last of these days is due."""

MakeStore = Callable[..., Store]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a store with a month of DAU, on time, of days that were declared complete."""
    folder = tmp_path_factory.mktemp("sound") / "store"
    store = at(TODAY, open_store(Settings(data_dir=folder, hash_salt_secret=SECRET, retention_days=40)))
    put(store, [(f"user {n}", day) for day in DAYS for n in range(3)])
    for day in DAYS:
        complete(day, store)
    prepare(store, DAYS)
    for day in DAYS:
        publish("dau", day, store)
    for day in DAYS[29:]:
        publish("mau", day, store)
    return folder


@pytest.fixture
def store(make_store: MakeStore, sound: Path, tmp_path: Path) -> Store:
    """A store of its own with these files."""
    shutil.copytree(sound, tmp_path / "store")
    return make_store(today=TODAY, retention_days=40)


# --- What breaks what each guards ---------------------------------------------------------------------------------


def leave_a_request(store: Store) -> Store:
    erase(store, "user 1")
    return store


def let_a_request_wait_for_too_long(store: Store) -> Store:
    erase(store, "user 1")
    return at(TODAY + timedelta(days=31), store)


def bring_somebody_back(store: Store) -> Store:
    """Bring an erased user back, as a copy from a backup would."""
    (file,) = (store.settings.data_dir / "activity" / f"day={DAYS[1]}").iterdir()
    kept = file.read_bytes()
    erase(store, "user 1")
    prepare(store, DAYS)
    file.write_bytes(kept)
    return store


def put_a_sketch_back(store: Store) -> Store:
    (file,) = (store.settings.data_dir / "sketches" / f"day={DAYS[1]}").iterdir()
    kept = file.read_bytes()
    erase(store, "user 1")
    prepare(store, DAYS)
    file.write_bytes(kept)
    return store


def damage_a_file(store: Store) -> Store:
    (file,) = (store.settings.data_dir / "activity" / f"day={DAYS[1]}").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    return store


def lose_a_file(store: Store) -> Store:
    (file,) = (store.settings.data_dir / "activity" / f"day={DAYS[1]}").iterdir()
    file.unlink()
    return store


def change_a_byte_of_a_sketch(store: Store) -> Store:
    (file,) = (store.settings.data_dir / "sketches" / f"day={DAYS[1]}").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    return store


def change_a_number(store: Store) -> Store:
    with closing(sqlite3.connect(store.settings.data_dir / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE releases SET noisy_value = noisy_value + 1 WHERE day = ?", (str(DAYS[0]),))
    return store


def draw_predictable_noise(store: Store) -> Store:
    return replace(store, noise=Silent())


def publish_from_predictable_noise(store: Store) -> Store:
    new = at(TODAY + timedelta(days=1), store)
    prepare(new, [date(2025, 2, 1)])
    publish("dau", date(2025, 2, 1), replace(new, noise=Silent()))
    return new


def spend_what_the_schedule_needs(store: Store) -> Store:
    """Independent noise, of which a month's cap holds ten days."""
    settings = replace(store.settings, dau_mechanism="laplace", epsilon_dau=Fraction(3, 10))
    return replace(store, settings=settings)


def forget_a_day(store: Store) -> Store:
    """Upstream has not declared it, and it is due."""
    return at(TODAY + timedelta(days=1), store)


def leave_a_day_unpublished(store: Store) -> Store:
    complete(date(2025, 2, 1), at(TODAY + timedelta(days=1), store))
    return at(TODAY + timedelta(days=2), store)


def fall_behind_by_years_without_a_declaration(store: Store) -> Store:
    for day in DAYS:
        store.events.completions.withdraw(day)
    return at(date(2027, 1, 1), store)


def leave_a_month_as_it_was(store: Store) -> Store:
    """Publication comes past the day on which January is to be restated."""
    days = days_between(date(2025, 2, 1), date(2025, 2, 6))
    later = at(date(2025, 2, 8), store)
    prepare(later, days)
    for day in days:
        publish("dau", day, later)
    return later


def keep_a_day_for_too_long(store: Store) -> Store:
    return at(DAYS[0] + timedelta(days=40 + 2 + 7 + 1), store)


def take_a_file_in_part(store: Store) -> Store:
    ingest([event_file(_with_a_bad_row(store))], store, partial=True)
    return store


def hand_in_a_file_that_is_refused(store: Store) -> Store:
    with pytest.raises(TooManyRejected):
        ingest([event_file(_with_a_bad_row(store))], store)
    return store


def _with_a_bad_row(store: Store) -> Path:
    path = store.settings.data_dir.parent / "user 1.jsonl"
    path.write_text(f'{{"user_id": "user 1", "day": "{DAYS[0]}"}}\n{{"user_id": "user 1", "day": "never"}}\n')
    return path


BREAKS: dict[str, list[Callable[[Store], Store]]] = {
    "no_pending_erasures": [leave_a_request],
    "erasures_within_deadline": [let_a_request_wait_for_too_long],
    "no_erased_user_in_live_state": [bring_somebody_back],
    "state_is_keyed": [damage_a_file, lose_a_file],
    "no_older_files": [bring_somebody_back, lose_a_file],
    "sketches_are_fresh": [change_a_byte_of_a_sketch, put_a_sketch_back],
    "few_rows_rejected": [take_a_file_in_part, hand_in_a_file_that_is_refused],
    "ledger_holds": [change_a_number],
    "noise_is_private": [draw_predictable_noise, publish_from_predictable_noise],
    "configuration_is_feasible": [spend_what_the_schedule_needs],
    "published_on_time": [forget_a_day, leave_a_day_unpublished, fall_behind_by_years_without_a_declaration],
    "restatement_on_time": [leave_a_month_as_it_was],
    "retention_on_time": [keep_a_day_for_too_long],
}
CASES = [
    pytest.param(check, broken, id=f"{check.name}-{broken.__name__}")
    for check in CHECKS
    for broken in BREAKS[check.name]
]


def at(day: date, store: Store) -> Store:
    return replace(store, clock=FixedClock(day))


# --- Asked alone -------------------------------------------------------------------------------------------------


def test_there_is_a_way_to_break_what_every_check_guards() -> None:
    assert BREAKS.keys() == {check.name for check in CHECKS}


@pytest.mark.parametrize(("check", "broken"), CASES)
def test_a_check_passes_and_fails_once_what_it_guards_is_broken(
    check: Check, broken: Callable[[Store], Store], store: Store
) -> None:
    mart = MartFiles(store.settings.data_dir / "mart")
    assert answer(check, store, mart).passed
    verdict = answer(check, broken(store), mart)
    assert not verdict.passed
    assert verdict.sentence.endswith((".", ")")) and "user 1" not in verdict.sentence


def test_of_a_store_without_a_number_days_are_waited_for_from_the_first_declared_one_or_once_a_schedule_is_on(
    make_store: MakeStore,
) -> None:
    store, mart = make_store("new", today=TODAY), MartFiles(Path("none"))
    (check,) = (candidate for candidate in CHECKS if candidate.name == "published_on_time")
    assert answer(check, store, mart).passed
    scheduled = answer(check, replace(store, is_scheduled=lambda: True), mart)
    assert not scheduled.passed and scheduled.sentence.startswith("31 day(s) are due and not declared complete")
    complete(DAYS[30], store)
    assert answer(check, at(TODAY + timedelta(days=1), store), mart).sentence.startswith("1 day(s)")


def test_dagsters_runs_and_sensors_know_whether_the_schedule_is_on(
    make_store: Callable[..., Store], instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the instance that they run in: once it is on, a day that is due is waited for."""
    store = make_store(today=TODAY)

    def waited_for(instance: dg.DagsterInstance) -> bool:
        world = World(store, instance, sensor="alert_sensor")
        assert world.ask("report", "published_on_time").success
        said = world.last_check("report", "published_on_time")
        world.tick()
        assert said and said.passed == (not world.alerts.sent)
        return not said.passed

    assert not waited_for(instance), "one in memory has no schedules"
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    with open_run(tmp_path / "home") as kept:
        assert not waited_for(kept)
        switch(kept, InstigatorStatus.RUNNING)
        assert waited_for(kept)
        switch(kept, InstigatorStatus.STOPPED)
        assert not waited_for(kept)


def test_a_check_that_cannot_be_asked_fails_and_says_why(store: Store) -> None:
    mart = MartFiles(store.settings.data_dir / "mart")
    (store.settings.data_dir / "mart").mkdir()
    (store.settings.data_dir / "mart" / "active_users.duckdb").write_bytes(b"no database")
    (check,) = (candidate for candidate in CHECKS if candidate.name == "ledger_holds")
    verdict = answer(check, store, mart)
    assert not verdict.passed and "cannot be read" in verdict.sentence


# --- As Dagster's -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What the job check_store said."""

    success: bool
    verdicts: dict[str, dg.AssetCheckEvaluation]


def ask(store: Store, instance: dg.DagsterInstance, check: Check | None = None) -> Asked:
    """All checks, or one."""
    world = World(store, instance)
    asset = "activity" if check and check.name == "no_pending_erasures" else LAST
    done = world.ask(asset, check.name) if check else world.execute("check_store")
    return Asked(done.success, {evaluation.check_name: evaluation for evaluation in done.get_asset_check_evaluations()})


def test_on_a_sound_store_the_job_asks_every_check_and_all_pass(store: Store, instance: dg.DagsterInstance) -> None:
    asked = ask(store, instance)
    assert asked.success
    assert {name: verdict.passed for name, verdict in asked.verdicts.items()} == {check.name: True for check in CHECKS}


@pytest.mark.also_long
@pytest.mark.parametrize(("check", "broken"), CASES)
def test_the_job_tells_the_check_that_fails_and_fails_itself_if_a_wrong_number_could_leave(
    check: Check, broken: Callable[[Store], Store], store: Store, instance: dg.DagsterInstance
) -> None:
    """In `make test` the job asks nothing else; in CI it asks all checks each time."""
    asked = ask(broken(store), instance, check if LENGTH == "test" else None)
    told = asked.verdicts[check.name]
    assert not told.passed
    assert told.severity == (dg.AssetCheckSeverity.WARN if check.waiting else dg.AssetCheckSeverity.ERROR)
    failed = [
        candidate
        for candidate in CHECKS
        if candidate.name in asked.verdicts and not asked.verdicts[candidate.name].passed
    ]
    blocking = [candidate for candidate in failed if candidate.blocking]
    assert asked.success == (not blocking)


def test_the_check_of_one_day_fails_where_somebody_is_left_in_it(
    store: Store, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(store, instance)
    world.build(DAYS[:1])
    check = world.last_check("activity", "erasures_applied")
    assert check is not None and check.passed
    monkeypatch.setattr("dpdau_assets.assets.activity.is_clean", lambda day, store: False)
    world.build(DAYS[:1])
    check = world.last_check("activity", "erasures_applied")
    assert check is not None and not check.passed


def test_what_could_let_a_wrong_number_leave_or_data_stay_blocks() -> None:
    assert {check.name for check in CHECKS if check.blocking} == {
        "erasures_within_deadline",
        "no_erased_user_in_live_state",
        "state_is_keyed",
        "no_older_files",
        "sketches_are_fresh",
        "ledger_holds",
        "noise_is_private",
    }
    checks = build_checks(project_under(Settings())[0])
    specs = {spec.name: spec for definition in checks for spec in definition.check_specs}
    assert {name: spec.blocking for name, spec in specs.items()} == {check.name: check.blocking for check in CHECKS}
    assert {check.name for check in CHECKS if severity(check) == dg.AssetCheckSeverity.WARN} == {"no_pending_erasures"}


# --- They only ask ------------------------------------------------------------------------------------------------


def with_all_kinds_of_pending_work(store: Store) -> Store:
    """Somebody who is erased and comes back in a batch that waits, one whose request waits, and one who is parked."""
    erase(store, "user 1")
    prepare(store, DAYS)
    put(store, [("user 1", DAYS[1]), ("somebody new", DAYS[1]), ("late", DAYS[0])])
    erase(store, "user 2")
    store.erasures.ledger.record(keyed([Event("user 0", "-", DAYS[-1])], store), TODAY, parked=True)
    return store


def everything_kept(store: Store) -> dict[str, str]:
    """The hash of every file, and of all rows of the ledger; what SQLite keeps beside its file holds no row."""
    folder = store.settings.data_dir
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("ledger.sqlite")]
    hashes = {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}
    return {**hashes, "every row": sha256(everything_in(Database(ledger_url(store.settings)))).hexdigest()}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_checks_write_nothing_while_batches_and_erasures_wait(check: Check, store: Store) -> None:
    with_all_kinds_of_pending_work(store)
    before = everything_kept(store)
    answer(check, store, MartFiles(store.settings.data_dir / "mart"))
    assert everything_kept(store) == before


def test_checks_write_nothing_when_dagsters_job_asks_them_all(store: Store, instance: dg.DagsterInstance) -> None:
    with_all_kinds_of_pending_work(store)
    before = everything_kept(store)
    assert "inbox" in {name.partition("/")[0] for name in before}
    assert {name: verdict.passed for name, verdict in ask(store, instance).verdicts.items()} == {
        check.name: check.name != "no_pending_erasures" for check in CHECKS
    }
    assert everything_kept(store) == before


def test_who_is_pending_is_not_left_and_who_was_applied_and_is_still_there_is(store: Store) -> None:
    (check,) = (check for check in CHECKS if check.name == "no_erased_user_in_live_state")
    mart = MartFiles(store.settings.data_dir / "mart")
    kept = [(path, path.read_bytes()) for path in (store.settings.data_dir / "activity").rglob("*.parquet")]
    erase(store, "user 1")
    assert answer(check, store, mart).passed, "nothing is applied yet"
    prepare(store, DAYS)
    put(store, [("user 1", DAYS[1])])
    assert answer(check, store, mart).passed, "a replay that waits is no way back"
    for path, content in kept:
        path.write_bytes(content)
    assert not answer(check, store, mart).passed


def test_a_day_whose_first_write_was_cut_short_has_no_file_that_is_gone(store: Store) -> None:
    (check,) = (check for check in CHECKS if check.name == "no_erased_user_in_live_state")
    mart, place = MartFiles(store.settings.data_dir / "mart"), Partition("late", DAYS[1], 223)
    erase(store, "user 1")
    prepare(store, DAYS)
    nothing = Version(b"nonce", content_hash(b"nonce", str(place), ABSENT))
    store.state.builds.put({place: Build(nothing, coming=Version(b"other", "what never came"))})
    assert answer(check, store, mart).passed
    store.state.builds.put({place: Build(Version(b"other", "what is gone"))})
    assert not answer(check, store, mart).passed
