"""The alert sensor: failed runs and failing checks are told to people, each once, and nothing of anybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path

import dagster as dg
import pytest

from dpdau_assets.cli import alerting
from dpdau_assets.core.budget.overrides import reset_budget
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.facts import Alert
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete
from dpdau_assets.orchestration.names import PUBLISH_DAU
from dpdau_tests.conftest import FixedClock, put
from dpdau_tests.dagster.world import KeptAlerts, World, erase
from dpdau_tests.support.receiving import webhook_receiver
from resources.messages.delivery import NotKept
from resources.messages.messages import Messages

TODAY = date(2025, 1, 3)
DAYS = days_between(date(2025, 1, 1), date(2025, 1, 2))
SHE = "she@example.org"

MakeStore = Callable[..., Store]


@pytest.fixture
def world(make_store: MakeStore, instance: dg.DagsterInstance) -> World:
    """A store of which nothing is due yet, and the sensor's first tick."""
    store = make_store(today=DAYS[1])
    put(store, [("somebody", day) for day in DAYS])
    world = World(store, instance, sensor="alert_sensor")
    world.tick()
    return world


def later(world: World, day: date) -> World:
    """The world's sensor on another day."""
    store = replace(world.store, clock=FixedClock(day))
    return World(store, world.instance, world.cursor, world.sensor, world.alerts)


def texts(world: World) -> list[str]:
    return [alert.text for alert in world.alerts.sent]


# --- Failed runs -------------------------------------------------------------------------------------------------


def test_a_failed_run_is_told_once_in_the_words_of_its_error(world: World) -> None:
    assert not world.execute(PUBLISH_DAU, str(DAYS[0])).success
    world.tick()
    world.tick()
    (alert,) = world.alerts.sent
    assert alert.name == "run_failed"
    assert alert.text.startswith(f"publish_dau of {DAYS[0]} has failed: There is no state for {DAYS[0]}")
    assert (alert.fields["job"], alert.fields["day"]) == (PUBLISH_DAU, str(DAYS[0]))
    assert world.instance.get_run_by_id(alert.fields["run"]) is not None


def test_of_an_error_that_is_not_ours_the_class_alone_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever raised it may have put a person into its words."""

    def die(*_: object) -> None:
        try:
            raise ValueError(f"no such key: {SHE}")
        except ValueError as error:
            raise LookupError(f"row of {SHE}") from error

    monkeypatch.setattr("dpdau_assets.orchestration.publishing.publish_in_order", die)
    assert not world.execute(PUBLISH_DAU, str(DAYS[0])).success
    world.tick()
    (text,) = texts(world)
    assert text == f"publish_dau of {DAYS[0]} has failed: ValueError"


def test_what_failed_before_the_first_tick_is_history(make_store: MakeStore, instance: dg.DagsterInstance) -> None:
    world = World(make_store(today=DAYS[1]), instance, sensor="alert_sensor")
    assert not world.execute(PUBLISH_DAU, str(DAYS[0])).success
    world.tick()
    assert world.alerts.sent == []
    assert not world.execute(PUBLISH_DAU, str(DAYS[0])).success
    world.tick()
    assert len(world.alerts.sent) == 1


def test_a_run_that_succeeds_is_not_told(world: World) -> None:
    world.build(DAYS[:1])
    world.tick()
    assert world.alerts.sent == []


class Moody(KeptAlerts):
    """An outbox that keeps so many alerts and then none until it is asked again."""

    patience = 1

    def send(self, alert: Alert, once: str | None = None) -> None:
        if self.patience == 0:
            self.patience = 1
            raise NotKept("It is full.", "Later.")
        self.patience -= 1
        super().send(alert, once)


def test_what_could_not_be_kept_is_told_again_in_order_and_nothing_twice(world: World) -> None:
    world.alerts = Moody()
    days = days_between(DAYS[0], date(2025, 1, 5))
    for day in days:
        assert not world.execute(PUBLISH_DAU, str(day)).success
    for _ in range(len(days) + 1):
        world.tick()
    assert [alert.fields["day"] for alert in world.alerts.sent] == [str(day) for day in days]


# --- Landings ----------------------------------------------------------------------------------------------------


def test_a_refused_folder_is_told_once_by_the_files_place_and_the_commonest_reasons(
    make_store: MakeStore, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    store = make_store(today=TODAY, landing_dir=tmp_path / "landing")
    world = World(store, instance, sensor="alert_sensor")
    world.tick()
    first, second = (tmp_path / "landing" / f"day={day}" for day in DAYS)
    land(first, ("a.csv", "user_id,day\nuser 1,2025-01-01\n"), (f"{SHE}.csv", "user_id,day\nuser 2,never\n"))
    run_of_landing(world, DAYS[:1])
    world.tick()
    (alert,) = world.alerts.sent
    assert (
        f"{DAYS[0]}: 50 % of the rows are bad" in alert.text and "In file 2 of 2: day is not a real date" in alert.text
    )
    assert "`dpdau ingest --from` its folder names the file." in alert.text and SHE not in repr(alert)
    run_of_landing(world, DAYS[:1])
    world.tick()
    assert len(world.alerts.sent) == 1, "tried again, and nothing is new"
    land(second, ("a.csv", 'user_id,day\n"user 1,2025-01-02\n'))
    run_of_landing(world, DAYS)
    world.tick()
    assert str(DAYS[0]) not in texts(world)[1] and f"{DAYS[1]}: file 1 of 1 cannot be read as CSV" in texts(world)[1]
    land(first, ("a.csv", "user_id,day\nuser 1,2025-01-01\n"), (f"{SHE}.csv", "one,two\n"))
    run_of_landing(world, DAYS)
    world.tick()
    assert f"{DAYS[0]}: file 2 of 2 has 2 column(s)" in texts(world)[2] and str(DAYS[1]) not in texts(world)[2]


def test_a_folder_that_lands_anew_with_the_same_fault_is_told_anew_and_another_failure_forgets_nothing(
    make_store: MakeStore, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    store = make_store(today=TODAY, landing_dir=tmp_path / "landing")
    world = World(store, instance, sensor="alert_sensor")
    world.tick()
    folder, bad = tmp_path / "landing" / f"day={DAYS[0]}", ("a.csv", "user_id,day\nuser 2,never\n")
    land(folder, bad)
    run_of_landing(world, DAYS[:1])
    assert not world.execute("take_landed", config={"ops": {"take_landed_days": {"config": {"days": ["x"]}}}}).success
    run_of_landing(world, DAYS[:1])
    world.tick()
    assert [f"{DAYS[0]}: None of the rows is valid" in text for text in texts(world)] == [True, False]
    land(folder, ("a.csv", "user_id,day\nuser 2,2025-01-01\n"))
    config = {"ops": {"take_landed_days": {"config": {"days": [str(DAYS[0])]}}}}
    assert world.execute("take_landed", config=config).success
    land(folder, bad, ("b.csv", ""))
    run_of_landing(world, DAYS[:1])
    world.tick()
    assert f"{DAYS[0]}: None of the rows is valid" in texts(world)[2]


def land(folder: Path, *files: tuple[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files:
        (folder / name).write_text(text)
    (folder / "_SUCCESS").touch()


def run_of_landing(world: World, days: list[date]) -> None:
    config = {"ops": {"take_landed_days": {"config": {"days": [str(day) for day in days]}}}}
    assert not world.execute("take_landed", config=config).success


# --- Checks ------------------------------------------------------------------------------------------------------


def test_a_due_day_that_upstream_has_not_declared_is_told_once_a_day_until_it_is_published(world: World) -> None:
    complete(DAYS[0], replace(world.store, clock=FixedClock(TODAY)))
    due = later(world, DAYS[1] + timedelta(days=2))  # the second day, and upstream says nothing of it
    due.build(DAYS)
    due.build(DAYS[:1], PUBLISH_DAU)
    due.tick()
    due.tick()
    assert [alert.name for alert in due.alerts.sent] == ["published_on_time"]
    assert f"not declared complete: upstream, or `dpdau complete` ({DAYS[1]})" in texts(due)[0]
    again = later(due, DAYS[1] + timedelta(days=3))
    again.tick()
    again.tick()
    assert len(again.alerts.sent) == 2


def test_a_declared_day_that_is_not_published_in_time_is_told_long_before_retention_could_reach_it(
    make_store: MakeStore, instance: dg.DagsterInstance
) -> None:
    store = make_store(today=TODAY, retention_days=36)  # the fewest that are allowed
    world = World(store, instance, sensor="alert_sensor")
    for day in DAYS:
        complete(day, store)
    first_told = None
    for day in days_between(TODAY, TODAY + timedelta(days=30)):
        world = later(world, day)
        world.tick()
        if world.alerts.sent and first_told is None:
            first_told = day
    assert first_told == DAYS[0] + timedelta(days=2 + 1)  # the day after it was due
    assert not world.execute("purge_expired").success or store.accountant.purged_through() is None


def test_an_overdue_erasure_is_told_and_a_pending_one_is_not(world: World) -> None:
    world.build(DAYS)
    erase(world.store, "somebody")
    world.tick()
    assert world.alerts.sent == []
    overdue = later(world, DAYS[1] + timedelta(days=31))
    overdue.tick()
    assert "erasures_within_deadline" in {alert.name for alert in overdue.alerts.sent}


def test_a_check_that_passes_again_is_told_anew_when_it_fails_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    for found in (["a failure"], [], ["another failure"]):
        monkeypatch.setattr("dpdau_assets.core.erasure.requests.overdue", lambda *_, found=found: found)
        world.tick()
        names.append(len(world.alerts.sent))
    assert names == [1, 1, 2]


def test_no_alert_tells_of_anybody(world: World) -> None:
    put(world.store, [(SHE, DAYS[0])])
    world.build(DAYS)
    erase(world.store, SHE)
    (file,) = (world.store.settings.data_dir / "activity" / f"day={DAYS[0]}").iterdir()
    file.write_bytes(b"not Parquet any more")
    world.execute("rebuild_days")
    world.execute("verify_erasures")
    later(world, DAYS[1] + timedelta(days=40)).tick()
    assert len(world.alerts.sent) >= 2
    assert SHE not in repr(world.alerts.sent)


# --- Overrides ---------------------------------------------------------------------------------------------------


def test_an_override_is_told_once_with_who_and_why_and_one_of_before_the_first_tick_is_not(
    make_store: MakeStore, instance: dg.DagsterInstance
) -> None:
    store = make_store(today=DAYS[1])
    reset_budget("dau", DAYS[0], Fraction(7, 2), "The board", "of old", store)
    world = World(store, instance, sensor="alert_sensor")
    world.tick()
    assert world.alerts.sent == []
    reset_budget("dau", DAYS[0], Fraction(4), "The board", "a launch", store)
    world.tick()
    world.tick()
    (alert,) = world.alerts.sent
    assert alert.name == "budget_overridden"
    assert alert.text == "The cap of dau of 2025-01 was set to epsilon 4 by The board: a launch"


def test_the_sensor_and_the_command_tell_of_one_override_under_one_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset_budget("dau", DAYS[0], Fraction(4), "The board", "a launch", world.store)
    by_command = KeptAlerts()
    monkeypatch.setattr(alerting, "Messages", lambda settings: by_command)
    alerting.tell_of_overrides(world.store)
    world.tick()
    assert by_command.sent == world.alerts.sent != []
    assert by_command.names == world.alerts.names


def test_what_a_receiver_did_not_take_is_delivered_by_the_next_tick(world: World) -> None:
    with webhook_receiver() as receiver:
        receiver.status = 503
        settings = replace(world.store.settings, alert_webhook=receiver.address)
        tick = replace(world, alerts=Messages(settings))  # type: ignore[arg-type]
        assert not world.execute(PUBLISH_DAU, str(DAYS[0])).success
        skipped = tick.evaluate()
        assert "ALERT_WEBHOOK did not take a message" in str(skipped.skip_reason) and receiver.bodies == []
        receiver.status = 200
        for _ in range(2):  # each tick has resources of its own, and the second one the cursor of before
            replace(world, alerts=Messages(settings)).tick()  # type: ignore[arg-type]
        assert [body["alert"] for body in receiver.bodies] == ["run_failed"]
