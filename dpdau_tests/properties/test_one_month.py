"""One month from an event file to every published number and its cost, on the real adapters."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from fractions import Fraction
from pathlib import Path

import duckdb
import pytest

from dpdau_assets.core.budget.numbers import interval
from dpdau_assets.core.budget.settings_check import check
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import shared_noise
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answers import budget_answer, mart_rows, release_answer
from dpdau_assets.core.sketches import parameters_of
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_tests.conftest import prepare
from eval.simulate import generate_synthetic
from resources.reading.event_files import event_file
from resources.store import open_mart

pytestmark = pytest.mark.every_sketch
START, FIRST_MAU, LAST = date(2025, 1, 1), date(2025, 1, 30), date(2025, 2, 28)


# Users are sampled here where a kind can do so.
SAMPLING: dict[str, dict[str, object]] = {
    "set": {},
    "theta": {"dau_theta0": Fraction(1, 2), "mau_theta0": Fraction(1, 4)},
    "kmv": {"kmv_k": 2_000, "dau_theta0": Fraction(1, 2), "mau_theta0": Fraction(1, 4)},
    "hllpp": {"hll_registers": 1 << 10, "dau_level": 1, "mau_level": 2},
}


def test_one_month(make_store: Callable[..., Store], sketch_settings: dict, tmp_path: Path) -> None:
    kind = sketch_settings.get("sketch_impl", "set")
    store = make_store(restatements_per_month=0, **SAMPLING[kind])
    check(store.settings)
    events = tmp_path / "events.parquet"
    generate_synthetic(events, days=59, users=3_000, events=60_000, first_day=START, seed=1)
    report = ingest([event_file(events)], store)
    assert (report.ingested, report.rejected) == (60_000, 0)
    prepare(store, days_between(START, LAST))

    for day in days_between(date(2025, 2, 1), LAST):
        publish("dau", day, store)
    for day in days_between(FIRST_MAU, LAST):
        publish("mau", day, store)

    inside = []
    for release in store.accountant.releases():
        exact = exact_count(events, release.key.day, release.key.window_days)
        answer = release_answer(release, store.settings, store.accountant)
        assert abs(answer.noisy_value - exact) < 3.5 * (answer.upper_95 - answer.lower_95) / 2  # 6.9 std
        assert answer.lower_95 <= answer.estimate <= answer.upper_95
        assert (answer.sketch_impl, answer.private) == (kind, True)
        assert answer.noisy_statistic == release.noisy_value
        if release.key.metric == "dau":
            inside.append(answer.lower_95 <= exact <= answer.upper_95)
    # Days of a month share little noise. A sample they share, and so do the windows of MAU: one month shows nothing.
    assert kind != "set" or sum(inside) >= 0.6 * len(inside)  # a false alarm has odds of 1.5e-5
    spent = budget_answer("dau", date(2025, 2, 1), store.settings, store.accountant)
    assert (spent.summary.releases_made, spent.summary.releases_planned) == (28, 28)
    assert 2.98 < spent.summary.epsilon_spent <= 3.0  # the whole month is out: all of its cap, and not a hair more
    assert budget_answer("mau", date(2025, 2, 1), store.settings, store.accountant).summary.epsilon_spent <= 3.5


def test_the_mart_holds_every_release_and_nothing_exact(make_store: Callable[..., Store]) -> None:
    store = make_store()
    prepare(store, [START])
    release = publish("dau", START, store)
    files = open_mart(store.settings).replace(mart_rows(store.accountant))
    with duckdb.connect(str(files.table), read_only=True) as mart:
        relation = mart.sql("SELECT * FROM active_users")
        assert relation.columns == [
            "metric",
            "day",
            "window_days",
            "revision",
            "noisy_value",
            "estimate",
            "lower_95",
            "upper_95",
            "noisy_statistic",
            "half_width",
            "mechanism",
            "mechanism_run",
            "sketch_impl",
            "sketch_parameters",
            "privacy_unit",
            "published_at",
            "version",
        ]
        (row,) = relation.fetchall()
    assert row[:4] == ("dau", START, 1, 0)
    assert row[8:12] == (release.noisy_value, release.half_width, release.mechanism, release.run)
    assert row[4] == release_answer(release, store.settings, store.accountant).noisy_value
    assert files.csv.read_text().count("\n") == 2
    assert open_mart(store.settings).read() == mart_rows(store.accountant)
    assert files.chart.read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("noisy", "shown"), [(-5.0, (0, 0, 8.5)), (-20.0, (0, 0, 0)), (5.0, (5, 0, 18.5)), (20.0, (20, 6.5, 33.5))]
)
def test_what_is_shown_of_a_number_is_never_below_zero_and_the_number_as_drawn_stays(
    noisy: float, shown: tuple[float, float, float]
) -> None:
    release = Release(ReleaseKey("dau", 1, START), "one", "gaussian_shared", noisy, 13.5, "set", "today", True, "1")
    run = MechanismRun("one", "dau", 1, START, shared_noise(62, 3.0, 1e-6), parameters_of(ExactEstimator()))
    shown_now = interval(release, run)
    assert (shown_now.estimate, shown_now.lower_95, shown_now.upper_95) == shown
    assert shown_now.noisy_value == shown_now.noisy_statistic == noisy


def test_the_mart_is_replaced_while_a_reader_has_it_open(make_store: Callable[..., Store]) -> None:
    store = make_store()
    prepare(store, [START, date(2025, 1, 2)])
    publish("dau", START, store)
    mart = open_mart(store.settings)
    old = mart.replace(mart_rows(store.accountant))
    with duckdb.connect(str(old.table), read_only=True) as reader:
        publish("dau", date(2025, 1, 2), store)
        mart.replace(mart_rows(store.accountant))
        assert reader.sql("SELECT count(*) FROM active_users").fetchall() == [(1,)]
    with duckdb.connect(str(old.table), read_only=True) as reader:
        assert reader.sql("SELECT count(*) FROM active_users").fetchall() == [(2,)]


def test_a_number_from_predictable_noise_is_refused_by_the_mart(make_store: Callable[..., Store]) -> None:
    from dpdau_assets.core.errors import Refused
    from dpdau_tests.conftest import silent

    store = silent(make_store())
    prepare(store, [START])
    assert publish("dau", START, store).private is False
    with pytest.raises(Refused, match="predictable noise"):
        mart_rows(store.accountant)


def exact_count(events: Path, day: date, window_days: int) -> int:
    query = "SELECT count(DISTINCT user_id) FROM read_parquet(?) WHERE day > ?::DATE - ?::INTEGER AND day <= ?::DATE"
    ((count,),) = duckdb.execute(query, [str(events), day, window_days, day]).fetchall()
    return count
