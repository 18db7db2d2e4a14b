"""The resource page in a real browser: what is configured, what for, who uses it; and no secret anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from playwright.sync_api import Page

from dpdau_assets.orchestration.project import RESOURCES
from dpdau_tests.conftest import SECRET
from dpdau_tests.dagster.served import Ui, serve
from dpdau_tests.dagster.test_ui_first import a_fresh_machine
from dpdau_tests.support.browser import PICTURES, open_browser

pytestmark = pytest.mark.browser

TOKEN = "token-of-the-webhook"
SETTINGS = f"DATA_DIR=data\nHASH_SALT_SECRET={SECRET}\nALERT_WEBHOOK=https://hooks.example.org/{TOKEN}\n"
QUESTION = """{ allTopLevelResourceDetailsOrError(repositorySelector: {
    repositoryName: "__repository__", repositoryLocationName: "dpdau"}) { ... on ResourceDetailsList { results {
        name description resourceType configFields { name description configType { key } defaultValueAsJson }
        configuredValues { key value type } parentResources { name } nestedResources { name }
        assetKeysUsing { path } schedulesUsing sensorsUsing } } } }"""


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    folder = tmp_path_factory.mktemp("resources")
    with TemporaryDirectory(prefix="dpdau-") as started_in:  # a short path, since the pictures show it
        (Path(started_in) / ".env").write_text(SETTINGS)
        with serve(folder, Path(started_in), a_fresh_machine(folder)) as found:
            found.folder = Path(started_in)
            yield found


@pytest.fixture(scope="module")
def page(ui: Ui) -> Iterator[Page]:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        yield page


def test_the_list_of_resources_names_every_one(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/locations/dpdau/resources")
    for name in RESOURCES:
        page.get_by_text(name, exact=True).first.wait_for()
    page.screenshot(path=PICTURES / "ui-resources.png")


def test_the_page_of_the_accountant_says_what_is_configured_what_for_and_who_uses_it(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/locations/dpdau/resources/accountant", wait_until="networkidle")
    page.get_by_text("LEDGER_URL, the database with budgets").first.wait_for()
    page.get_by_text("DAU_BUDGET_TOTAL").first.wait_for()
    assert page.get_by_text("HASH_SALT_SECRET", exact=True).first.is_visible()
    assert SECRET not in page.content()
    page.screenshot(path=PICTURES / "ui-resource-accountant.png")
    page.goto(f"{ui.address}/locations/dpdau/resources/accountant/uses", wait_until="networkidle")
    for user in ("dau_release", "erasure_ledger", "inbox_sensor"):
        page.get_by_text(user, exact=True).first.wait_for()
    page.screenshot(path=PICTURES / "ui-resource-accountant-uses.png")


def test_what_the_server_answers_of_resources_holds_no_secret(ui: Ui) -> None:
    answer = ui.ask(QUESTION)["allTopLevelResourceDetailsOrError"]["results"]
    pages = {one["name"]: one for one in answer}
    assert pages.keys() == set(RESOURCES)
    text = json.dumps(answer)
    assert SECRET not in text and TOKEN not in text
    values = {one["key"]: (one["value"], one["type"]) for one in pages["accountant"]["configuredValues"]}
    assert values["hash_salt_secret"] == ("HASH_SALT_SECRET", "ENV_VAR")
    assert values["data_dir"][0] == json.dumps(str((ui.folder / "data").resolve()))
    assert {"path": ["dau_release"]} in pages["noise"]["assetKeysUsing"]
    assert [one["path"] for one in pages["mart"]["assetKeysUsing"]] == [["active_users"], ["report"]]


def test_a_step_of_the_served_project_opens_what_its_resources_name(ui: Ui) -> None:
    """The inbox sensor's tick, which the daemon evaluates by itself, has made the store."""
    ui.wait_for("the ledger", Path(ui.folder / "data" / "ledger.sqlite").exists)
