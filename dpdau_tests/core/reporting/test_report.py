"""The report: its figures against the ledger and the contract's constants, and the HTML in which people read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dpdau_assets.core.budget.overrides import reset_budget
from dpdau_assets.core.erasure.requests import waiting_days
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answers import budget_answer, mart_rows
from dpdau_assets.core.reporting.report import check_lines, operators_report, readers_report
from dpdau_assets.core.reporting.report_model import BudgetMonth, Report
from dpdau_tests.conftest import FixedClock, copied, prepare, put, silent
from dpdau_tests.dagster.world import erase
from dpdau_tests.support.prepared import Prepared
from dpdau_tests.support.stores import DAYS, a_month_restated
from resources.published.mart_duckdb import MartFiles
from resources.published.report_html import ReportFiles, render, write_report

START = date(2025, 1, 1)
HOSTILE = '<script>alert(1)</script> & "quoted"'

MakeStore = Callable[..., Store]


TODAY = date(2025, 2, 9)


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """A month restated, for a test that changes something in it."""
    return make_store(today=TODAY, recipe=a_month_restated)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Store:
    """A store with a month restated, for all tests that only read."""
    return copied(prepared, a_month_restated, tmp_path_factory.mktemp("report") / "store", TODAY)


@pytest.fixture(scope="module")
def for_readers(unchanged: Store) -> Report:
    return readers_report(unchanged.settings, unchanged.accountant)


@pytest.fixture(scope="module")
def for_operators(unchanged: Store) -> Report:
    return operators(unchanged)


def operators(store: Store) -> Report:
    mart = MartFiles(store.settings.data_dir / "mart")
    return operators_report(store, check_lines(store, mart))


class Page(HTMLParser):
    """What a page shows and what it asks for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes = "", [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


# --- Its figures -------------------------------------------------------------------------------------------------


def test_both_series_are_there_as_published_and_latest(unchanged: Store, for_readers: Report) -> None:
    dau, mau = for_readers.series
    rows = {row.key: row for row in mart_rows(unchanged.accountant)}
    assert [day.day for day in dau.days] == DAYS
    for day in dau.days:
        assert day.as_published.noisy_value == rows[ReleaseKey("dau", 1, day.day)].noisy_value
        assert day.latest.noisy_value == rows[ReleaseKey("dau", 1, day.day, int(day.is_restated))].noisy_value
        assert day.is_restated == (day.day.month == 1)
    assert mau.last is not None and not mau.last.is_restated and mau.window_days == 30


def test_the_promise_is_the_contracts(for_readers: Report) -> None:
    promise = for_readers.promise
    assert [(metric.metric, metric.epsilon, metric.delta) for metric in promise.metrics] == [
        ("dau", 3.0, 1e-6),
        ("mau", 3.5, 1e-6),
    ]
    assert promise.epsilon == pytest.approx(4.811, abs=5e-4) and promise.delta == 1e-6
    assert [round(metric.noise_std, 2) for metric in promise.metrics] == [6.86, 3.88]


def test_without_one_noise_for_both_what_the_metrics_promise_is_added_up(make_store: MakeStore) -> None:
    store = make_store(today=date(2025, 1, 9), dau_mechanism="laplace", dau_budget_total=Fraction(10))
    prepare(store, DAYS[:2])
    publish("dau", DAYS[0], store)
    other = replace(store, settings=replace(store.settings, dau_mechanism="gaussian"))
    promise = readers_report(other.settings, other.accountant).promise
    assert not promise.composed and promise.user_months == ()
    assert promise.epsilon == sum(metric.epsilon for metric in promise.metrics)


def test_each_months_budget_is_the_ledgers_with_every_override(store: Store) -> None:
    reset_budget("dau", date(2025, 2, 1), Fraction(7, 2), "An officer", HOSTILE, store)
    budget = {(row.metric, row.month): row for row in readers_report(store.settings, store.accountant).budget}
    for (metric, month), row in budget.items():
        said = budget_answer(metric, month, store.settings, store.accountant)
        assert (row.spent, row.charged) == (said.summary.epsilon_spent, said.report.charged.epsilon)
    february = budget["dau", date(2025, 2, 1)]
    assert [(change.epsilon_cap, change.why) for change in february.overrides] == [(3.5, HOSTILE)]
    assert february.cap == 3.5


def test_the_erasures_that_wait_are_told_by_day_and_age_and_not_by_number(store: Store) -> None:
    early, late = (replace(store, clock=FixedClock(day)) for day in (date(2025, 2, 9), date(2025, 2, 20)))
    erase(early, "user 1", "user 2", through=date(2025, 2, 1))
    erase(late, "user 3", through=date(2025, 2, 1))
    now = replace(store, clock=FixedClock(date(2025, 3, 15)))
    assert [(day.received_on, day.age_days, day.is_overdue) for day in waiting_days(now.clock, now.erasures)] == [
        (date(2025, 2, 9), 34, True),
        (date(2025, 2, 20), 23, False),
    ]


def test_a_number_of_predictable_noise_is_in_no_report(store: Store) -> None:
    day = DAYS[-1] + timedelta(days=1)
    later = replace(store, clock=FixedClock(date(2025, 3, 1)))
    prepare(later, [day])
    publish("dau", day, silent(later))
    with pytest.raises(Refused, match=r"predictable|private"):
        readers_report(later.settings, later.accountant)


# --- Its HTML ----------------------------------------------------------------------------------------------------


def test_every_number_is_in_the_readers_file_with_its_interval(for_readers: Report) -> None:
    text = Page(render(for_readers)).text
    for series in for_readers.series:
        for day in series.days:
            for number in day.numbers:
                assert f"{number.estimate:,.1f}" in text
                assert f"{number.lower_95:,.1f} to {number.upper_95:,.1f}" in text


def test_the_readers_file_has_the_same_bytes_for_the_same_numbers_whatever_else_went_on(store: Store) -> None:
    before = render(readers_report(store.settings, store.accountant))
    erase(store, "user 1")
    put(store, [("somebody late", DAYS[0])])
    prepare(store, DAYS)
    later = replace(store, clock=FixedClock(date(2025, 6, 1)))
    assert render(readers_report(later.settings, later.accountant)) == before


def test_readers_are_not_shown_what_waits_nor_the_checks(store: Store) -> None:
    erase(store, "user 1", through=DAYS[0])
    their_file, our_file = render(readers_report(store.settings, store.accountant)), render(operators(store))
    for said in ("Erasures that wait", "no_pending_erasures", "For operators", "2025-02-09"):
        assert said in our_file and said not in their_file


def test_the_file_asks_for_nothing_and_runs_nothing(for_operators: Report) -> None:
    html = render(for_operators)
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "form"}.intersection(page.tags)
    assert not [
        attribute
        for attribute in page.attributes
        if attribute[1] in ("src", "href", "srcset") or attribute[1].startswith("on")
    ]
    assert not re.search(r"https?://|url\(|@import", html)
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_what_people_wrote_is_shown_as_they_wrote_it(store: Store) -> None:
    reset_budget("dau", date(2025, 2, 1), Fraction(7, 2), HOSTILE, HOSTILE, store)
    page = Page(render(readers_report(store.settings, store.accountant)))
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) == 2


def test_a_month_that_was_charged_beyond_its_cap_says_so_in_words(for_readers: Report) -> None:
    beyond = BudgetMonth("dau", START, 3.0, 6.0, 3.0, 1e-6, 62, 62, ())
    assert "beyond the cap" not in Page(render(for_readers)).text
    assert "beyond the cap" in Page(render(replace(for_readers, budget=(beyond,)))).text


def test_a_sketch_that_is_full_has_no_upper_bound_and_is_drawn_all_the_same(for_readers: Report) -> None:
    dau = for_readers.series[0]
    full = tuple(
        replace(day, numbers=tuple(replace(number, upper_95=None) for number in day.numbers)) for day in dau.days
    )
    html = render(replace(for_readers, series=(replace(dau, days=full),)))
    assert "to no bound" in html and "<polygon" in html


def test_a_store_without_numbers_has_a_report_that_says_so(make_store: MakeStore) -> None:
    store = make_store(today=date(2025, 1, 2))
    for report in (readers_report(store.settings, store.accountant), operators(store)):
        text = Page(render(report)).text
        assert "Nothing is published yet." in text and "Nothing is charged yet." in text and "4.811" in text


def test_a_gap_in_the_series_is_a_gap_in_the_line(for_readers: Report) -> None:
    dau = for_readers.series[0]
    holed = replace(dau, days=tuple(day for day in dau.days if day.day not in DAYS[10:15]))
    assert render(replace(for_readers, series=(dau,))).count('class="dau line"') == 1
    assert render(replace(for_readers, series=(holed,))).count('class="dau line"') == 2


def test_every_heading_table_and_region_has_its_name(for_operators: Report) -> None:
    page = Page(render(for_operators))
    assert page.tags.count("h1") == 1
    assert page.tags.count("table") == page.tags.count("caption")
    regions = [attribute for attribute in page.attributes if attribute[1:] == ("role", "region")]
    assert len(regions) == len([attribute for attribute in page.attributes if attribute[1] == "tabindex"]) > 0
    assert len(
        [attribute for attribute in page.attributes if attribute[0] == "div" and attribute[1] == "aria-label"]
    ) == len(regions)


# --- Its files ---------------------------------------------------------------------------------------------------


def test_both_files_are_replaced_whole(for_readers: Report, for_operators: Report, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    for _ in range(2):
        paths = ReportFiles(folder).replace(for_readers, for_operators)
    assert sorted(file.name for file in folder.iterdir()) == ["operators.html", "readers.html"]
    assert paths.readers.read_text() == render(for_readers)


def test_a_place_where_no_file_can_be_written_is_an_error_that_names_it(for_readers: Report, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(BadInput, match=r"a file/report\.html cannot be written"):
        write_report(for_readers, tmp_path / "a file" / "report.html")
