"""A month's DAU is released again on its public day: erased users gone, late events in, whether or not any are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import duckdb
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import Release
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.publication.runs import MAU, RESTATEMENT, plan_run
from dpdau_assets.core.reporting.answers import mart_rows
from dpdau_assets.core.state.activity import process_days
from dpdau_tests.conftest import prepare, put, silent
from resources.store import open_mart

pytestmark = pytest.mark.every_sketch(since="soak")
Make = Callable[..., Store]
JANUARY = date(2025, 1, 1)
DUE = date(2025, 2, 3)  # with one day of grace its number comes out on the fifth
DAYS = days_between(JANUARY, DUE)


def three_came(store: Store) -> None:
    put(store, [(user, day) for day in DAYS for user in ("her", "a", "b")])
    prepare(store, DAYS)


def all_published(store: Store) -> None:
    three_came(store)
    publish_all(store)


def all_published_without_noise(store: Store) -> None:
    all_published(silent(store))


@pytest.fixture
def store(make_store: Make) -> Store:
    """Three people on every day, without noise; nothing is published."""
    return silent(make_store(recipe=three_came))


@pytest.fixture
def published(make_store: Make) -> Store:
    """A store without noise, with the DAU of every day through that which lets January be restated."""
    return silent(make_store(recipe=all_published_without_noise))


def publish_all(store: Store, days: list[date] = DAYS) -> list[Release]:
    return [publish("dau", day, store) for day in days]


def numbers(releases: list[Release]) -> list[float]:
    return [release.noisy_value for release in releases]


@pytest.mark.every_sketch
def test_the_restated_numbers_are_without_the_erased_and_with_the_late(published: Store) -> None:
    store, first = published, published.accountant.releases("dau")
    put(store, [("late", date(2025, 1, 9)), ("late", date(2025, 1, 9)), ("her", date(2025, 1, 9))])
    request([Event("her", "-", date(2025, 1, 10))], store)
    again = restate(JANUARY, store)
    assert numbers(first) == [3] * 34
    assert numbers(again) == [2] * 8 + [3] + [2] + [3] * 21
    assert [release.key.day for release in again] == DAYS[:31] and {release.key.revision for release in again} == {1}


def test_a_month_in_which_nothing_changed_is_restated_all_the_same(published: Store) -> None:
    assert len(restate(JANUARY, published)) == 31
    assert {release.published_at for release in restate(JANUARY, published)} == {"2025-02-05T00:00:00+00:00"}


def test_restating_again_returns_the_same_numbers_and_charges_nothing(make_store: Make) -> None:
    store = make_store(recipe=all_published)
    charged = store.accountant.charges("dau", JANUARY)
    first = restate(JANUARY, store)
    put(store, [("another", day) for day in DAYS])
    assert restate(JANUARY, store) == first
    assert store.accountant.charges("dau", JANUARY) == charged and len(charged) == 1
    assert len(store.accountant.releases("dau")) == 34 + 31


def test_a_month_is_not_restated_before_publication_has_come_to_its_day(store: Store) -> None:
    publish_all(store, DAYS[24:-1])
    with pytest.raises(Refused, match=r"restated on 2025-02-05.*Publish DAU up to 2025-02-03"):
        restate(JANUARY, store)
    publish_all(store, DAYS[-1:])
    assert len(restate(JANUARY, store)) == 7


def test_the_restatement_day_is_fixed_with_the_months_first_number(published: Store, make_store: Make) -> None:
    later = silent(make_store(restatement_day=20))
    assert len(restate(JANUARY, later)) == 31


def test_a_month_that_was_priced_without_a_restatement_has_none(make_store: Make) -> None:
    store = silent(make_store(restatements_per_month=0))
    prepare(store, DAYS[:1])
    publish_all(store, DAYS[:1])
    with pytest.raises(Refused, match="none is to be restated"):
        restate(JANUARY, silent(make_store(restatements_per_month=1)))


def test_a_month_without_numbers_is_not_restated(store: Store) -> None:
    with pytest.raises(Refused, match="2024-12"):
        restate(date(2024, 12, 1), store)


def test_a_restated_month_is_closed_and_its_shared_noise_destroyed(store: Store) -> None:
    publish_all(store, [*DAYS[:4], *DAYS[5:]])
    run = store.accountant.mechanism_runs()[0].name
    with store.accountant.transaction() as transaction:
        assert transaction.shared_noise(run) is not None
    assert [release.key.day for release in restate(JANUARY, store)] == [*DAYS[:4], *DAYS[5:31]]
    with store.accountant.transaction() as transaction:
        assert transaction.shared_noise(run) is None
    with pytest.raises(Refused, match="2025-01 was restated"):
        publish("dau", DAYS[4], store)


def test_that_some_came_after_the_restatement_stands_in_the_quarantine_and_not_how_many(published: Store) -> None:
    store = published
    restate(JANUARY, store)
    put(store, [("too late", date(2025, 1, 9)), ("a", date(2025, 1, 9)), ("in time", date(2025, 2, 1))])
    late_before = store.state.late.stored()
    process_days(DAYS, store)
    (file,) = (store.settings.data_dir / "quarantine").glob("*.csv")
    assert file.read_text().splitlines() == [
        "file,line,reason",
        "day=2025-01-09,0,Dropped: some users came after the month of their day was restated.",
    ]
    assert {day for day, _ in store.state.late.stored()} - {day for day, _ in late_before} == {date(2025, 2, 1)}


def test_a_removal_recorded_while_the_month_is_read_is_in_all_of_its_numbers(published: Store) -> None:
    store = published
    real_read, reads = store.state.late.read, []

    def read_while_a_removal_comes(day: date, epoch: int) -> object:
        if not reads and day == date(2025, 1, 20):
            request([Event("her", "-", date(2025, 1, 31))], store)
            reads.append(day)
        return real_read(day, epoch)

    store.state.late.read = read_while_a_removal_comes  # type: ignore[method-assign, assignment]
    assert numbers(restate(JANUARY, store)) == [2] * 31 and reads


def test_both_series_are_in_the_mart(make_store: Make) -> None:
    store = make_store(recipe=all_published)  # with its real noise: a mart takes no other
    put(store, [("late", DAYS[0])])
    restate(JANUARY, store)
    paths = open_mart(store.settings).replace(mart_rows(store.accountant))
    with duckdb.connect(str(paths.table), read_only=True) as mart:
        first = mart.sql("SELECT day, revision FROM as_published").fetchall()
        latest = mart.sql("SELECT day, revision, noisy_statistic FROM latest").fetchall()
    assert first == [(day, 0) for day in DAYS]
    assert [(day, revision) for day, revision, _ in latest] == [(day, int(day < date(2025, 2, 1))) for day in DAYS]
    published = {release.key.day: release.noisy_value for release in restate(JANUARY, store)}
    assert all(published.get(day, value) == value for day, _, value in latest)
    for name, revisions in (("as_published", {0}), ("latest", {0, 1})):
        rows = duckdb.sql(f"SELECT DISTINCT revision FROM '{paths.table.parent}/{name}.csv'").fetchall()
        assert {revision for (revision,) in rows} == revisions


def test_a_run_restates_each_month_whose_day_it_passes(published: Store) -> None:
    store = published
    wanted = [(step.kind, step.day) for step in plan_run(JANUARY, date(2025, 3, 10), store)]
    at = wanted.index((RESTATEMENT, JANUARY))
    assert wanted[at - 1] == (MAU, DUE)
    assert [day for job, day in wanted if job == RESTATEMENT] == [JANUARY, date(2025, 2, 1)]
    later = plan_run(DUE + timedelta(days=1), date(2025, 2, 6), store)
    assert [step.day for step in later if step.kind == RESTATEMENT] == [JANUARY], "passed, and not done yet"
    restate(JANUARY, store)
    assert all(step.kind != RESTATEMENT for step in plan_run(DUE, date(2025, 2, 6), store))


def test_independent_noise_is_restated_too_and_charged_for_each_number(make_store: Make) -> None:
    store = make_store(dau_mechanism="gaussian", start_date=DAYS[24])
    prepare(store, DAYS[24:])
    publish_all(store, DAYS[24:])
    assert len(restate(JANUARY, store)) == 7
    assert len(store.accountant.charges("dau", JANUARY)) == 14


def test_a_first_number_that_comes_while_the_month_is_restated_is_restated_too(store: Store) -> None:
    publish_all(store, [*DAYS[:30], *DAYS[31:]])
    real, published = store.state.late.read, []

    def read_while_another_publishes(day: date, epoch: int) -> object:
        if not published:
            published.append(publish("dau", DAYS[30], store))
        return real(day, epoch)

    store.state.late.read = read_while_another_publishes  # type: ignore[method-assign, assignment]
    assert [release.key.day for release in restate(JANUARY, store)] == DAYS[:31]
