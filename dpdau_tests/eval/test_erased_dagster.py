"""Days of a real log through Dagster, people erased on their day: the numbers are those of the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.runs import REPORTS, plan_run
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.running import run_steps
from dpdau_tests.conftest import SECRET, FixedClock, prepare, put, silent
from dpdau_tests.dagster.world import stop_the_clock
from dpdau_tests.eval.asof_reference import Activity, dau_asof, mau_asof, read_activity
from dpdau_tests.eval.logs import OULAD, erasures_of
from dpdau_tests.support.lengths import at_length
from resources.dagster_instance import open_run
from resources.settings_env import read_settings
from resources.store import open_store

START = date(2013, 9, 1)  # of a month: nobody is held out into it
FIRST = date(2013, 9, 30)
LAST = FIRST + timedelta(days=at_length(test=3, ci=10, soak=10) - 1)


@pytest.fixture
def store(fast_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    values = {
        "DATA_DIR": fast_folder / "data",
        "HASH_SALT_SECRET": SECRET,
        "DAGSTER_HOME": fast_folder / "dagster",
        "START_DATE": START,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    yield open_store(read_settings())
    open_store.cache_clear()


@pytest.mark.also_long
def test_days_through_dagster_equal_the_reference(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    log, erasures = through(LAST, read_activity(OULAD, "real")), erasures_of(OULAD, "real")
    put(store, [(user, day) for user, days in log.active.items() for day in days if START <= day <= LAST])
    prepare(store, days_between(START, FIRST - timedelta(days=1)))
    erase([(user, day) for user, day in erasures if START <= day < FIRST], store)
    definitions = build_definitions(store.settings)
    with open_run(store.settings.data_dir.with_name("dagster")) as instance:
        for day in days_between(FIRST, LAST):
            today = silent(replace(store, clock=FixedClock(day + timedelta(days=1))))
            monkeypatch.setattr("resources.wiring.open_noise", lambda today=today: today.noise)
            stop_the_clock(monkeypatch, day + timedelta(days=1))
            erase([(user, erased) for user, erased in erasures if erased == day], today)
            steps = [step for step in plan_run(day, day, today) if step.kind != REPORTS]  # they refuse silent noise
            run_steps(steps, definitions, instance, lambda _: None)
    found = {
        (one.key.metric, one.key.day): round(one.noisy_value, 3)
        for one in store.accountant.releases()
        if not one.key.revision
    }
    references = {"dau": dau_asof(log), "mau": mau_asof(log, hold_out=True)}
    days = days_between(FIRST, LAST)
    assert found == {(metric, day): series[day] for metric, series in references.items() for day in days}
    assert sum(FIRST <= day <= LAST for _, day in erasures) > 100


def through(last: date, log: Activity) -> Activity:
    """What is known of these days does not depend on later ones."""
    active = {user: [day for day in days if day <= last] for user, days in log.active.items()}
    return Activity({user: days for user, days in active.items() if days}, log.erased)


def erase(people: list[tuple[str, date]], store: Store) -> None:
    request([Event(user, "-", day) for user, day in people], store, confirmed=True)
