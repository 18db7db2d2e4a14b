"""The report as people open it: offline, on a phone and on a wide screen, by eye and by a screen reader's rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from dpdau_assets.core.budget.overrides import reset_budget
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.reporting.report import check_lines, operators_report, readers_report
from dpdau_tests.conftest import FixedClock, prepare, put
from dpdau_tests.dagster.world import erase
from dpdau_tests.support.browser import PICTURES, open_browser
from resources.published.mart_duckdb import MartFiles
from resources.published.report_html import ReportFiles

pytestmark = pytest.mark.browser
DAYS = days_between(date(2025, 1, 1), date(2025, 3, 10))
PHONE, WIDE = 390, 1400
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def folder(make_store: Callable[..., Store]) -> Path:
    """With what was reported."""
    return make_store(today=DAYS[-1] + timedelta(days=2), recipe=reported).settings.data_dir / "report"


def reported(store: Store) -> None:
    """Reports with all that they can show: two restated months, an override, waiting erasures, a failing check."""
    put(store, [(f"user {n}", day) for day in DAYS for n in range(40 + day.day * 3 + 60 * (day.weekday() < 5))])
    prepare(store, DAYS)
    for day in DAYS:
        publish("dau", day, store)
        if day >= DAYS[29]:
            publish("mau", day, store)
    for month in (date(2025, 1, 1), date(2025, 2, 1)):
        restate(month, store)
    reset_budget("dau", date(2025, 3, 1), Fraction(7, 2), "An officer", "agreed with the <works> council", store)
    erase(store, "user 1")
    late = replace(store, clock=FixedClock(DAYS[-1] + timedelta(days=40)))
    checks = check_lines(late, MartFiles(store.settings.data_dir / "mart"))
    report = ReportFiles(store.settings.data_dir / "report")
    report.replace(readers_report(late.settings, late.accountant), operators_report(late, checks))


@contextmanager
def offline_page(browser: Browser, width: int, scheme: Scheme) -> Iterator[tuple[Page, list[str], list[str]]]:
    """At this width, in this colour scheme, without a network; what the page says on its console, and asks for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    yield page, said, asked
    context.close()


@pytest.mark.parametrize("audience", ["readers", "operators"])
def test_the_report_reads_offline_at_every_width_in_light_and_dark_and_by_the_rules_of_accessibility(
    folder: Path, browser: Browser, audience: str
) -> None:
    address = (folder / f"{audience}.html").as_uri()
    for width, scheme in product((PHONE, WIDE), SCHEMES):
        with offline_page(browser, width, scheme) as (page, said, asked):
            page.goto(address)
            page.screenshot(path=PICTURES / f"report-{audience}-{width}-{scheme}.png", full_page=True)
            for details in page.locator("details").all():
                details.evaluate("one => one.open = true")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("svg").count() == 2
            assert said == [] and asked == [address]
            violations = Axe().run(page).response["violations"]
            assert [
                (violation["id"], [node["html"] for node in violation["nodes"]]) for violation in violations
            ] == [], (width, scheme)


def test_every_region_that_scrolls_is_reached_by_the_keyboard(folder: Path, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": PHONE, "height": 900})
    page.goto((folder / "operators.html").as_uri())
    scrolling = page.locator(".scroll").evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.tabIndex)"
    )
    assert scrolling and set(scrolling) == {0}
    page.close()
