"""The check `within_budget` in a real browser: green on a number that is out, red on one that is refused, and why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from dpdau_tests.conftest import SECRET
from dpdau_tests.dagster.served import Ui, serve
from dpdau_tests.support.browser import PICTURES, open_browser

pytestmark = pytest.mark.browser

FIRST, LAST, REFUSED = "2025-01-30", "2025-02-03", "2025-02-04"
"""Days of MAU: the last was published under one cap, and the next is asked for under another."""


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """On a store of which a few days are published."""
    folder = tmp_path_factory.mktemp("budget")
    people = (f"user {n},+,2025-01-{n % 31 + 1:02}\n" for n in range(200))
    (folder / "events.csv").write_text("user_id,op,day\n" + "".join(people))
    assert dpdau(folder, "ingest", "--from", "events.csv") == 0
    assert dpdau(folder, "run", "--from", FIRST, "--to", LAST) == 0
    with serve(folder, folder, settings(folder)) as found:
        yield found


@pytest.fixture(scope="module")
def page(ui: Ui) -> Iterator[Page]:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        yield page


def settings(folder: Path) -> dict[str, str]:
    """An environment as anybody sets it, with all of the store in the folder."""
    paths = {"DATA_DIR": str(folder / "data"), "DAGSTER_HOME": str(folder / "home")}
    return {**os.environ, **paths, "HASH_SALT_SECRET": SECRET, "START_DATE": "2025-01-01"}


def dpdau(folder: Path, *arguments: str, **changed: str) -> int:
    """The exit code of a command in a process of its own."""
    command = [sys.executable, "-m", "dpdau_assets.cli", *arguments]
    environment = {**settings(folder), **changed}
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True).returncode


def show_check(page: Page, ui: Ui, day: str, picture: str) -> None:
    """The last answer of the check, which is of this day, with all that it says."""
    page.goto(f"{ui.address}/assets/mau_release?view=checks&checkDetail=within_budget", wait_until="networkidle")
    page.get_by_text("epsilon_left").first.wait_for()
    assert page.get_by_text(day, exact=True).first.is_visible()
    page.screenshot(path=PICTURES / picture)


def test_a_number_that_is_out_shows_what_its_months_have_spent_and_what_is_left(ui: Ui, page: Page) -> None:
    show_check(page, ui, LAST, "ui-within-budget.png")
    assert page.get_by_text("Succeeded", exact=True).count() and not page.get_by_text("Failed", exact=True).count()
    assert page.get_by_text("2025-02: 2.071 spent, 3.500 of 3.500 charged").first.is_visible()


def test_a_number_that_is_refused_is_red_and_its_reason_can_be_read(ui: Ui, page: Page) -> None:
    assert dpdau(ui.folder, "run", "--from", REFUSED, "--to", REFUSED, MAU_BUDGET_TOTAL="3") == 4
    show_check(page, ui, REFUSED, "ui-budget-refused.png")
    assert page.get_by_text("Failed", exact=True).first.is_visible()
    assert page.get_by_text("was begun otherwise (see MAU_BUDGET_TOTAL and DELTA)").first.is_visible()
    assert page.get_by_text("go on with 2025-03-30, the first day").first.is_visible()
