"""The Dagster UI in a real browser, on the demo's events, of which nothing is published yet.

Materialise a day, backfill three, publish them, and erase somebody: the touched day turns stale, is rebuilt, and the
request is verified. Every step leaves a picture. Where libfaketime is, nobody waits until sensors look again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Page

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_tests.dagster.served import Ui, serve
from dpdau_tests.support.browser import PICTURES, open_browser
from dpdau_tests.support.simulation import Clock, find_libfaketime
from eval import demo
from eval.moved_events import move_until
from resources.settings_env import read_settings
from resources.store import open_store

pytestmark = pytest.mark.browser

MOVE = move_until(date(2026, 3, 3))
DAYS = [str(day) for day in days_between(MOVE.first, MOVE.first + timedelta(days=2))]


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    folder = tmp_path_factory.mktemp("ui")
    demo.begin(folder / ".demo", MOVE)
    begun = demo.prepare(folder / ".demo")
    demo.dpdau(begun, "ingest", "--from", str(begun.events))
    library = find_libfaketime()
    clock = Clock(folder / "clock", library) if library else None
    with serve(folder, folder / ".demo", {**os.environ, **demo_environment(folder)}, clock) as found:
        yield found


@pytest.fixture(scope="module")
def page(ui: Ui) -> Iterator[Page]:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        yield page


def launch(page: Page, button: str, days: str) -> None:
    """Fill in the dialog that the button opens, and launch."""
    page.get_by_role("button", name=button).first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Show all partitions").click()
    box = dialog.locator("input[type=text]").first
    box.fill(days)
    box.press("Enter")
    box.blur()
    page.screenshot(path=PICTURES / f"launch-{days.strip('[]')}.png")
    dialog.get_by_role("button", name="Launch").last.click()
    dialog.wait_for(state="hidden")


def assert_drawn(page: Page, alt: str) -> None:
    picture = page.get_by_alt_text(alt).first
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 0


def test_the_asset_graph_loads_with_its_three_groups(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/asset-groups")
    for group in ("state", "releases", "published"):
        page.get_by_text(group, exact=True).first.wait_for()
    page.get_by_text("fetching statuses").first.wait_for(state="hidden")
    page.screenshot(path=PICTURES / "asset-groups.png")


def test_a_partition_is_materialised_from_the_ui(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/locations/dpdau/jobs/build_state")  # with `erasures`, so that later marks are noticed
    launch(page, "Materialize", DAYS[0])
    ui.wait_for("the partition", lambda: ui.materialised("activity") == 1)
    page.goto(f"{ui.address}/assets/activity?view=partitions&partition={DAYS[0]}")
    page.get_by_text("Materialized", exact=True).first.wait_for()
    page.screenshot(path=PICTURES / "activity-partition.png")


def test_a_backfill_of_three_days_is_launched_from_the_ui_and_finishes(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/locations/dpdau/jobs/build_state")
    launch(page, "Materialize", f"[{DAYS[0]}...{DAYS[-1]}]")
    ui.wait_for("the backfill", lambda: ui.backfills() == ["COMPLETED_SUCCESS"])
    assert ui.materialised("day_sketch") == len(DAYS)
    page.goto(f"{ui.address}/runs?view=backfills")
    page.get_by_text("Success", exact=True).first.wait_for()
    page.screenshot(path=PICTURES / "backfill.png")


def test_numbers_of_a_range_are_published_from_the_ui_in_one_run_and_shown_with_their_intervals(
    ui: Ui, page: Page
) -> None:
    page.goto(f"{ui.address}/locations/dpdau/jobs/publish_dau")
    launch(page, "Materialize", f"[{DAYS[0]}...{DAYS[-1]}]")
    ui.wait_for("the range", lambda: ui.materialised("dau_release") == len(DAYS))
    assert ui.runs_of("publish_dau") == 1
    page.goto(f"{ui.address}/assets/dau_release?view=partitions&partition={DAYS[1]}")
    page.get_by_text("upper_95").first.wait_for()
    assert page.get_by_text("gaussian_shared").first.is_visible()
    page.screenshot(path=PICTURES / "dau-release.png")


def test_the_chart_of_the_mart_renders_in_the_ui(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/locations/dpdau/jobs/refresh_mart")
    page.get_by_role("button", name="Materialize all").first.click()
    page.get_by_role("button", name="Confirm").click()  # it asks, since no MAU is published yet
    ui.wait_for("the mart", lambda: ui.has_run("active_users"))
    page.goto(f"{ui.address}/assets/active_users")
    assert_drawn(page, "DAU by day")
    page.screenshot(path=PICTURES / "active-users.png")
    page.get_by_text("[Show Markdown]").first.click()
    assert_drawn(page, "DAU and MAU with 95 % intervals")
    page.wait_for_function("() => document.getAnimations().length === 0")  # the dialog fades in
    page.screenshot(path=PICTURES / "chart.png")


def test_the_budget_is_shown_as_bars_with_what_is_planned(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/assets/budget_report")
    bars = page.get_by_text(f"{DAYS[0][:7]} dau").first
    bars.wait_for()
    assert f"{DAYS[0][:7]} dau █" in str(bars.text_content())
    page.screenshot(path=PICTURES / "budget.png")


def test_the_report_that_the_asset_wrote_renders(ui: Ui, page: Page) -> None:
    ui.wait_for("the report", lambda: ui.has_run("report"))
    page.goto(f"{ui.address}/assets/report")
    page.get_by_text("readers.html").first.wait_for()
    page.screenshot(path=PICTURES / "report-asset.png")
    page.goto((ui.folder / ".demo" / "data" / "report" / "operators.html").as_uri())
    page.get_by_role("heading", name="Active users", exact=True).wait_for()
    assert page.locator("svg").count() == 1  # DAU; no MAU is published yet
    page.screenshot(path=PICTURES / "report.png", full_page=True)


def show_node(page: Page, ui: Ui, picture: str) -> None:
    """The graph of the state, with the checks on its nodes."""
    page.goto(f"{ui.address}/locations/dpdau/asset-groups/state", wait_until="networkidle")
    node, before = page.get_by_text("activity", exact=True).first, None
    while (place := node.bounding_box()) != before:  # the layout moves until it is done
        before = place
        page.wait_for_timeout(200)
    page.screenshot(path=PICTURES / picture)


def test_an_erasure_makes_its_day_stale_and_the_sensor_has_it_rebuilt_and_verified(
    ui: Ui, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state's lock, taken between the mark and the rebuild, holds the run still for the pictures."""
    day = DAYS[1]
    others = [one for one in DAYS if one != day]
    for name, value in demo_environment(ui.folder).items():
        monkeypatch.setenv(name, value)
    store = open_store(read_settings())
    ui.wait_for("the days", lambda: not any(ui.stale("activity", one) for one in DAYS))
    ui.wait_for("the first result", lambda: ui.check_passed("activity", "no_pending_erasures") is True)
    command = [sys.executable, "-m", "dpdau_assets.cli", "erase", "--user-id", "-", "--days", day]
    subprocess.run(command, input=somebody_on(ui.folder, day), text=True, check=True, cwd=ui.folder)
    with lock_after_mark(ui, store):
        ui.wait_for("staleness", lambda: ui.stale("activity", day))
        assert not any(ui.stale("activity", other) for other in others)
        ui.wait_for("the failed check", lambda: ui.check_passed("activity", "no_pending_erasures") is False)
        page.goto(f"{ui.address}/assets/activity?view=partitions&partition={day}")
        page.get_by_text("Unsynced").first.wait_for()
        page.screenshot(path=PICTURES / "erasure-stale.png")
        show_node(page, ui, "erasure-check.png")
    ui.wait_for("freshness", lambda: not store.state.rebuilds.behind() and not ui.stale("activity", day))
    ui.wait_for("the fresh sketch", lambda: not ui.stale("day_sketch", day))
    page.goto(f"{ui.address}/assets/activity?view=partitions&partition={day}", wait_until="networkidle")
    page.get_by_text("rebuild_days").first.wait_for()
    assert page.get_by_text("Unsynced").count() == 0
    page.screenshot(path=PICTURES / "erasure-fresh.png")
    ui.wait_for("the receipt", lambda: {one.state for one in store.erasures.ledger.erasures()} == {"verified"})
    ui.wait_for("the passed check", lambda: ui.check_passed("activity", "no_pending_erasures") is True)
    show_node(page, ui, "erasure-check-passed.png")


def demo_environment(folder: Path) -> dict[str, str]:
    """The demo's settings, but that nothing lands: the days are the test's own to build."""
    return {**demo.kept_settings(folder / ".demo"), "LANDING_DIR": ""}


def somebody_on(folder: Path, day: str) -> str:
    """Someone of the demo's events who was active on this day and asked for nothing."""
    users: dict[str, set[str]] = {"+": set(), "-": set()}
    for row in pq.read_table(folder / ".demo" / "events.parquet", columns=["user_id", "op", "day"]).to_pylist():
        if row["op"] == "-" or str(row["day"]) == day:
            users[row["op"]].add(row["user_id"])
    return min(users["+"] - users["-"])


@contextmanager
def lock_after_mark(ui: Ui, store: Store) -> Iterator[None]:
    """Wait for the sensor's mark, and then keep every rebuild waiting."""
    ui.wait_for("the mark", lambda: bool(store.state.rebuilds.behind()))
    with store.state.activity.lock():
        assert store.state.rebuilds.behind(), "the rebuild was quicker than this test"
        yield
