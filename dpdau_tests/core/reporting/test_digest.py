"""The daily digest: its numbers against the mart, its changes against their noise, its needs against the report."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from dpdau_assets.core.budget.numbers import interval
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.publication.completeness import complete
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting import digest as module
from dpdau_assets.core.reporting.answers import mart_rows
from dpdau_assets.core.reporting.digest import Digest, change_between, digest_of
from dpdau_assets.core.reporting.report import check_lines, operators_report
from dpdau_assets.core.restored import MartRow
from dpdau_tests.conftest import FixedClock, copied, prepare, put
from dpdau_tests.dagster.world import erase
from dpdau_tests.support.prepared import Prepared
from dpdau_tests.support.stores import DAYS, MONTH, a_month_restated
from resources.messages.slack import slack_message
from resources.published.mart_duckdb import MartFiles
from resources.published.report_html import render

TODAY = date(2025, 2, 9)
LAST = DAYS[-1]
MakeStore = Callable[..., Store]


def a_leap(store: Store) -> None:
    """Eight days with three people, and a ninth with 200."""
    days = DAYS[:9]
    put(store, [(f"user {n}", day) for day in days for n in range(200 if day == days[-1] else 3)])
    prepare(store, days)
    for day in days:
        publish("dau", day, store)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Store:
    """A store with a month restated, for all tests that only read."""
    return copied(prepared, a_month_restated, tmp_path_factory.mktemp("digest") / "store", TODAY)


def digest(store: Store) -> Digest | None:
    mart = MartFiles(store.settings.data_dir / "mart")
    return digest_of(operators_report(store, check_lines(store, mart)), store.accountant)


def rows_of(store: Store, metric: str) -> dict[date, MartRow]:
    return {
        row.key.day: row for row in mart_rows(store.accountant) if row.key.metric == metric and not row.key.revision
    }


def runs_of(store: Store) -> dict[str, MechanismRun]:
    return {run.name: run for run in store.accountant.mechanism_runs()}


# --- Numbers -----------------------------------------------------------------------------------------------------


def test_it_has_the_last_number_of_each_metric_with_its_interval_as_the_mart_has_it(unchanged: Store) -> None:
    made = digest(unchanged)
    assert made and made.as_of == date(2025, 2, 8) and [newest.metric for newest in made.numbers] == ["dau", "mau"]
    for newest in made.numbers:
        row = rows_of(unchanged, newest.metric)[newest.day]
        assert newest.day == LAST and newest.window_days == row.key.window_days and newest.compared == 2
        assert (newest.number.estimate, newest.number.lower_95, newest.number.upper_95) == (
            row.estimate,
            row.lower_95,
            row.upper_95,
        )


def test_there_is_none_before_the_first_number(make_store: MakeStore) -> None:
    assert digest(make_store(today=TODAY)) is None


def test_a_months_restatement_is_told_on_its_day_and_on_no_other(make_store: MakeStore) -> None:
    store = make_store(today=date(2025, 2, 20), recipe=a_month_restated)
    restated_on = max(
        row.published_at.date() for row in mart_rows(store.accountant) if row.key.revision and row.key.metric == "dau"
    )
    assert restated_on == date(2025, 2, 5), "its public day, which is before the last number's"
    made = digest(store)
    assert made and made.as_of == date(2025, 2, 8) and made.restated == ()
    report = operators_report(store, [])
    assert (on_the_day := digest_of(replace(report, as_of=restated_on), store.accountant))
    assert on_the_day.restated == (MONTH,)


# --- Changes -----------------------------------------------------------------------------------------------------


def test_a_leap_is_told_against_the_day_before_and_the_week_before(make_store: MakeStore) -> None:
    store = make_store(today=date(2025, 1, 11), recipe=a_leap)
    made = digest(store)
    assert made
    (newest,) = made.numbers
    assert [(change.days_before, change.against) for change in newest.changes] == [(1, DAYS[7]), (7, DAYS[1])]
    rows = rows_of(store, "dau")
    for change in newest.changes:
        assert change.difference == rows[DAYS[8]].noisy_value - rows[change.against].noisy_value
        assert change.half_width_95 == 18.0 and 140 < change.difference < 260


@pytest.mark.parametrize(("metric", "days", "half_width"), [("dau", 1, 17.0), ("dau", 7, 18.5), ("mau", 1, 6.0)])
def test_the_noise_of_a_change_is_that_of_its_run_and_of_two_months_that_of_two_runs(
    metric: str, days: int, half_width: float, unchanged: Store
) -> None:
    """The contract's widths: σ_day √½ inside a month, the months' noise besides between two, 3.1 in a stream."""
    rows = rows_of(unchanged, metric)
    change = change_between(rows[LAST - timedelta(days=days)], rows[LAST], runs_of(unchanged), days)
    assert change and change.half_width_95 == pytest.approx(half_width, abs=0.15)


def test_a_change_is_told_if_it_is_larger_than_its_noise_and_not_if_it_is_as_large(unchanged: Store) -> None:
    rows, runs = rows_of(unchanged, "dau"), runs_of(unchanged)
    earlier, later = rows[LAST - timedelta(days=1)], rows[LAST]
    for difference, exceeds in ((17.0, False), (17.5, True), (-17.0, False), (-17.5, True), (0.0, False)):
        moved = replace(later, noisy_value=earlier.noisy_value + difference)
        change = change_between(earlier, moved, runs, 1)
        assert change and change.exceeds_noise == exceeds and change.difference == difference


def test_what_is_compared_are_numbers_as_first_published_and_no_restated_ones(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restated number has late events and no erased people: its difference from a first one is no change of use."""
    monkeypatch.setattr(module, "change_half_width_95", lambda *_: -1.0)  # each change is told
    store = make_store(today=TODAY, recipe=a_month_restated)
    day, report = date(2025, 1, 31), operators_report(store, [])
    january = replace(report.series[0], days=tuple(known for known in report.series[0].days if known.day <= day))
    made = digest_of(replace(report, series=(january,)), store.accountant)
    assert made and made.numbers[0].number.revision == 1
    first = rows_of(store, "dau")
    assert {change.against: change.difference for change in made.numbers[0].changes} == {
        against: first[day].noisy_value - first[against].noisy_value
        for against in (date(2025, 1, 30), date(2025, 1, 24))
    }


@pytest.mark.parametrize("kind", [{"sketch_impl": "theta", "dau_theta0": Fraction(1, 2)}, {"sketch_impl": "hllpp"}])
def test_with_a_sampled_sketch_the_errors_of_both_numbers_are_added_up(
    kind: dict[str, object], make_store: MakeStore
) -> None:
    """How many people two samples have in common is data: no covariance may be taken off."""
    mau = {"mau_mechanism": "gaussian", "epsilon_mau": Fraction(3, 10), "dau_level": 1, "mau_level": 1}
    store = make_store(today=date(2025, 1, 11), recipe=a_leap, **({**kind, **mau} if len(kind) == 1 else kind))
    rows, runs = rows_of(store, "dau"), runs_of(store)
    releases = {release.key.day: release for release in store.accountant.releases("dau")}
    change = change_between(rows[DAYS[7]], rows[DAYS[8]], runs, 1)
    shown = [interval(releases[day], runs[releases[day].run]) for day in DAYS[7:9]]
    assert change and all(number.upper_95 is not None for number in shown)
    least = sum((number.upper_95 or 0) - max(0, number.noisy_value) for number in shown)
    assert change.half_width_95 >= least - 0.01


# --- Needs -------------------------------------------------------------------------------------------------------


def test_what_needs_somebody_are_the_failing_checks_in_the_words_of_the_operators_report(
    make_store: MakeStore,
) -> None:
    """A day that nobody declared, a budget that will run out, a file that somebody changed."""
    store = make_store(today=date(2025, 2, 20), recipe=a_month_restated)
    (file,) = (store.settings.data_dir / "activity" / f"day={DAYS[2]}").iterdir()
    file.write_bytes(b"not Parquet any more")
    settings = replace(store.settings, dau_mechanism="laplace", epsilon_dau=Fraction(3, 10))  # a cap holds ten days
    tight = replace(store, settings=settings)
    made = digest(tight)
    assert made
    names = [need.partition(":")[0] for need in made.needs]
    assert {"state_is_keyed", "published_on_time", "configuration_is_feasible"} <= set(names)
    lines = {line.name: line for line in check_lines(tight, MartFiles(store.settings.data_dir / "mart"))}
    for name, need in zip(names, made.needs, strict=True):
        assert need == f"{name}: {lines[name].sentence}" and not lines[name].passed
    assert f"({LAST + timedelta(days=1)}" in next(need for need in made.needs if need.startswith("published_on_time"))


def test_work_that_is_under_way_needs_nobody(make_store: MakeStore) -> None:
    store = make_store(today=TODAY, recipe=a_month_restated)
    before = digest(store)
    erase(store, "user 1", through=date(2025, 2, 1))
    after = digest(store)
    assert before and after and not any(need.startswith("no_pending_erasures") for need in after.needs)
    assert after == before, "nor does the digest tell that somebody asked to be erased"


def test_the_same_numbers_and_verdicts_make_the_same_digest_on_any_day(make_store: MakeStore) -> None:
    store = make_store(today=TODAY, recipe=a_month_restated)
    for day in (LAST + timedelta(days=1), LAST + timedelta(days=2)):
        complete(day, replace(store, clock=FixedClock(date(2025, 2, 9))))
    report = operators_report(store, [])
    assert report.for_operators
    later = replace(report, for_operators=replace(report.for_operators, made_on=date(2025, 3, 1)))
    assert digest_of(report, store.accountant) == digest_of(later, store.accountant)


def test_nothing_in_the_message_is_not_in_the_mart_or_the_operators_report(make_store: MakeStore) -> None:
    """Each figure of the message stands in the report's file, but for changes: differences of two of the mart."""
    store = make_store(today=date(2025, 2, 20), recipe=a_month_restated)
    report = operators_report(store, check_lines(store, MartFiles(store.settings.data_dir / "mart")))
    made = digest_of(report, store.accountant)
    assert made
    page = re.sub(r"<[^>]+>", " ", render(report)).replace("&#39;", "'")
    rows = {metric: rows_of(store, metric) for metric in ("dau", "mau")}
    of_changes = {
        f"{value:,.1f}"
        for newest in made.numbers
        for change in newest.changes
        for value in (abs(change.difference), change.half_width_95)
    }
    for newest in made.numbers:
        for change in newest.changes:
            row, before = rows[newest.metric][newest.day], rows[newest.metric][change.against]
            assert change.difference == row.noisy_value - before.noisy_value
    texts = [block["text"]["text"] for block in slack_message(made)["blocks"] if block["type"] == "section"]
    for figure in re.findall(r"\d[\d,.]*\d|\d", " ".join(texts)):
        assert figure in page or figure in of_changes, figure


def test_the_file_of_the_report_is_unchanged_by_it(unchanged: Store, tmp_path: Path) -> None:
    report = operators_report(unchanged, [])
    before = render(report)
    digest_of(report, unchanged.accountant)
    assert render(report) == before
