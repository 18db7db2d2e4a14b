"""The living demo in a real browser, as `make dev` opens it: every partition is there, and the next one comes alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

import pytest
from playwright.sync_api import Page

from dpdau_tests.dagster.served import Ui, serve
from dpdau_tests.support.browser import PICTURES, open_browser
from dpdau_tests.support.simulation import Clock, need_libfaketime
from eval import demo
from resources.settings_env import read_settings
from resources.store import open_store

pytestmark = pytest.mark.browser

TODAY = date(2026, 3, 4)
DAYS, DAYS_OF_MAU = 150, 121


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    """At noon, far from the day's end."""
    clock = Clock(tmp_path_factory.mktemp("clock"), need_libfaketime())
    clock.set(datetime.combine(TODAY, time(12), UTC))
    return clock


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Ui]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "eval.demo", "--publish"]
    subprocess.run(command, cwd=folder, env=clock.environment(dict(os.environ)), check=True)
    settings = demo.kept_settings(folder / ".demo")
    with serve(folder, folder / ".demo", {**os.environ, **settings}, clock) as found:
        yield found


@pytest.fixture(scope="module")
def page(ui: Ui) -> Iterator[Page]:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        page.clock.set_fixed_time(datetime.combine(TODAY, time(13), UTC))  # else what is there is months old
        yield page


def partitions(ui: Ui, asset: str) -> tuple[int, int]:
    """How many partitions of the asset are there, and how many there could be."""
    stats = "partitionStats { numMaterialized numPartitions }"
    answer = ui.ask(f'{{ assetNodes(assetKeys: [{{path: ["{asset}"]}}]) {{ {stats} }} }}')
    found = answer["assetNodes"][0]["partitionStats"]
    return found["numMaterialized"], found["numPartitions"]


def schedules(ui: Ui) -> dict[str, str]:
    """Every schedule, and how it stands."""
    selector = '{repositoryName: "__repository__", repositoryLocationName: "dpdau"}'
    asked = "... on Schedules { results { name scheduleState { status } } }"
    answer = ui.ask(f"{{ schedulesOrError(repositorySelector: {selector}) {{ {asked} }} }}")
    return {found["name"]: found["scheduleState"]["status"] for found in answer["schedulesOrError"]["results"]}


def test_no_partition_of_a_published_number_is_missing(ui: Ui, page: Page) -> None:
    assert partitions(ui, "dau_release") == (DAYS, DAYS)
    assert partitions(ui, "mau_release") == (DAYS_OF_MAU, DAYS_OF_MAU)
    for asset, there in (("dau_release", DAYS), ("mau_release", DAYS_OF_MAU)):
        page.goto(f"{ui.address}/assets/{asset}?view=partitions", wait_until="networkidle")
        page.get_by_text(f"Materialized ({there})").first.wait_for()
        assert page.get_by_text("Missing (0)").first.is_visible()
        page.screenshot(path=PICTURES / f"demo-{asset}.png")


def test_the_schedules_that_publish_are_running(ui: Ui, page: Page) -> None:
    assert schedules(ui) == dict.fromkeys(("publish_due_hourly", "restate_monthly", "check_store_nightly"), "RUNNING")
    page.goto(f"{ui.address}/automation", wait_until="networkidle")
    page.get_by_text("publish_due_hourly", exact=True).first.wait_for()
    page.screenshot(path=PICTURES / "demo-automation.png")


def test_what_is_published_is_shown(ui: Ui, page: Page) -> None:
    """The graph, the chart, a number, the budget and the operators' report."""
    page.goto(f"{ui.address}/asset-groups", wait_until="networkidle")
    page.get_by_text("releases", exact=True).first.wait_for()
    page.get_by_text("fetching statuses").first.wait_for(state="hidden")
    page.screenshot(path=PICTURES / "demo-graph.png")
    page.goto(f"{ui.address}/assets/active_users", wait_until="networkidle")
    assert_drawn(page)
    page.get_by_text("[Show Markdown]").first.click()
    page.wait_for_function("() => document.getAnimations().length === 0")  # the dialog fades in
    page.screenshot(path=PICTURES / "demo-chart.png")
    yesterday = TODAY - timedelta(days=1)
    page.goto(f"{ui.address}/assets/mau_release?view=partitions&partition={yesterday}", wait_until="networkidle")
    page.get_by_text("upper_95").first.wait_for()
    page.screenshot(path=PICTURES / "demo-release.png")
    page.goto(f"{ui.address}/assets/budget_report", wait_until="networkidle")
    page.get_by_text(f"{yesterday:%Y-%m} dau").first.wait_for()
    page.screenshot(path=PICTURES / "demo-budget.png")
    page.goto((ui.folder / ".demo" / "data" / "report" / "operators.html").as_uri())
    page.get_by_role("heading", name="Active users", exact=True).wait_for()
    page.screenshot(path=PICTURES / "demo-report.png", full_page=True)


def assert_drawn(page: Page) -> None:
    picture = page.locator("img[alt*=DAU]").first
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 0


def test_todays_numbers_come_after_midnight_with_no_hand(
    ui: Ui, page: Page, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in demo.kept_settings(ui.folder / ".demo").items():
        monkeypatch.setenv(name, value)
    completions = open_store(read_settings()).events.completions
    midnight = datetime.combine(TODAY + timedelta(days=1), time(), UTC)
    clock.set(midnight + timedelta(seconds=10))
    ui.wait_for("what has landed", lambda: TODAY in completions.completed())
    clock.set(max(clock.now(), midnight + timedelta(minutes=4, seconds=50)))
    ui.wait_for("today's numbers", lambda: ui.materialised("mau_release") == DAYS_OF_MAU + 1)
    assert partitions(ui, "dau_release") == (DAYS + 1, DAYS + 1)
    ui.wait_for(
        "the end of the run",
        lambda: (
            not ui.ask("{ runsOrError(filter: {statuses: [QUEUED, STARTING, STARTED]}) { ... on Runs { count } } }")[
                "runsOrError"
            ]["count"]
        ),
    )
    page.goto(f"{ui.address}/runs", wait_until="networkidle")
    page.get_by_text("publish_due", exact=True).first.wait_for()
    page.screenshot(path=PICTURES / "demo-runs.png")
