"""Where the store stands: what each statement of it follows from, and what it must not depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.retention import purge
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete_all
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answer_model import Status
from dpdau_assets.core.reporting.status import status
from dpdau_tests.conftest import FixedClock, folding, prepare, put
from dpdau_tests.dagster.world import erase
from resources.published.mart_duckdb import MartFiles

START = date(2025, 1, 28)
DAYS = days_between(START, date(2025, 1, 31))
TODAY = date(2025, 2, 3)
SMALL = {"mau_window_days": 3, "mau_mechanism": "gaussian", "epsilon_mau": Fraction(1, 10)}
"""A window that few days fill."""

MakeStore = Callable[..., Store]


def standing(store: Store, day: date = TODAY) -> Status:
    return status(replace(store, clock=FixedClock(day)), MartFiles(store.settings.data_dir / "mart"))


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """The end of January declared, and published but for its last day."""
    return make_store(today=TODAY, recipe=january, start_date=START, **SMALL)


def january(store: Store) -> None:
    fill(store, "somebody")


def january_with_her(store: Store) -> None:
    fill(store, "somebody", "she")


def fill(store: Store, *people: str) -> None:
    put(store, [(user, day) for day in DAYS for user in people])
    complete_all(DAYS, store)
    prepare(store, DAYS[:-1])
    for day in DAYS[:-1]:
        publish("dau", day, store)
    publish("mau", DAYS[2], store)


def test_it_says_how_far_each_metric_has_come_and_when_the_next_number_is_due(store: Store) -> None:
    dau, mau = standing(store).published
    assert (dau.last_day, dau.slot, dau.next_day, dau.next_slot) == (
        date(2025, 1, 30),
        date(2025, 2, 1),
        date(2025, 1, 31),
        date(2025, 2, 2),
    )
    assert mau.last_day == date(2025, 1, 30)


def test_it_says_what_can_be_published_and_which_days_upstream_owes(store: Store) -> None:
    status_now = standing(store)
    assert status_now.ready_days == (date(2025, 1, 31),) and status_now.unmarked == (date(2025, 2, 1),)
    assert status_now.overdue == (
        "1 day(s) are due and not declared complete: upstream, or `dpdau complete` (2025-02-01).",
    )
    on_time = standing(store, date(2025, 2, 2))
    assert on_time.ready_days == (date(2025, 1, 31),) and on_time.overdue == ()


def test_it_says_which_days_have_landed_and_have_no_marker(make_store: MakeStore, tmp_path: Path) -> None:
    """Not one that is before START_DATE, not over yet, declared by somebody, or empty."""
    landing = tmp_path / "landing"
    store = make_store(today=TODAY, start_date=START, landing_dir=landing)
    for day in (date(2025, 1, 1), *DAYS, TODAY):
        (landing / f"day={day}").mkdir(parents=True)
        (landing / f"day={day}" / "e.csv").write_text("user_id\n" if day != DAYS[3] else "")
    (landing / f"day={DAYS[3]}" / "e.csv").unlink()
    (landing / f"day={DAYS[0]}" / "_SUCCESS").touch()
    complete_all([DAYS[1]], store)
    assert standing(store).without_marker == (DAYS[2],)


def test_of_a_landing_folder_that_is_not_there_it_says_nothing(make_store: MakeStore, tmp_path: Path) -> None:
    assert standing(make_store(today=TODAY, landing_dir=tmp_path / "elsewhere")).without_marker == ()


def test_it_says_which_days_are_to_be_built(store: Store) -> None:
    store.state.rebuilds.mark_reported(store.state.rebuilds.changed())  # Dagster knows of what was built
    assert standing(store).behind == (date(2025, 1, 31),)
    prepare(store, DAYS)
    put(store, [("somebody new", DAYS[2])])
    assert standing(store).behind == (DAYS[2],)


def test_it_says_since_when_erasures_wait_and_that_one_is_overdue(store: Store) -> None:
    erase(store, "somebody")
    assert [waiting.age_days for waiting in standing(store).erasures] == [0]
    late = standing(store, TODAY + timedelta(days=31))
    assert late.erasures[0].is_overdue
    assert any("erasure is past its deadline" in waiting for waiting in late.overdue)


def test_it_says_what_a_purge_would_let_go_of(make_store: MakeStore) -> None:
    today = date(2025, 1, 29)
    store = make_store(today=today, retention_days=10, restatements_per_month=0, **SMALL)
    days = days_between(date(2025, 1, 1), date(2025, 1, 26))
    prepare(store, days)
    for day in days:
        publish("dau", day, store)
    before = standing(store, today)
    assert (before.purged_through, before.purge_due) == (None, date(2025, 1, 16))
    purge(store)
    assert standing(store, today).purged_through == date(2025, 1, 16)


def test_it_is_the_same_with_and_without_any_one_user(make_store: MakeStore) -> None:
    """All is equal but what waits of her: an erasure that she asked for, or a day that her late event changed."""
    without_her, with_her = (
        make_store(recipe.__name__, today=TODAY, recipe=recipe, start_date=START, **SMALL)
        for recipe in (january, january_with_her)
    )
    assert standing(without_her) == standing(with_her)


def test_it_waits_for_nobody_who_holds_the_lock(store: Store) -> None:
    with folding(store) as thread:
        assert standing(store).published[0].last_day == date(2025, 1, 30)
        assert thread.is_alive()


def test_a_store_without_anything_has_nothing_to_say(make_store: MakeStore) -> None:
    status_now = standing(make_store(), date(2025, 1, 2))
    assert (
        status_now.ready_days,
        status_now.ready_months,
        status_now.unmarked,
        status_now.without_marker,
        status_now.behind,
        status_now.erasures,
        status_now.overdue,
        status_now.spent,
    ) == ((),) * 8
    assert [series.last_day for series in status_now.published] == [None, None]
