"""`dpdau ui` on a fresh machine, before anything else was run: from another folder, with a relative DATA_DIR."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dpdau_tests.conftest import SECRET
from dpdau_tests.dagster.served import Ui, serve
from dpdau_tests.support.browser import PICTURES, open_browser

pytestmark = pytest.mark.browser

SETTINGS = f"DATA_DIR=our data\nLEDGER_URL=sqlite:///books.sqlite\nSTART_DATE=2025-03-01\nHASH_SALT_SECRET={SECRET}\n"


def a_fresh_machine(folder: Path) -> dict[str, str]:
    """Nothing of ours, of Dagster's or of a terminal's in the environment, and nothing in the home."""
    (folder / "home").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(folder / "home")}


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    folder = tmp_path_factory.mktemp("first")
    started_in = folder / "else where"
    (started_in / "dagster").mkdir(parents=True)  # a folder that is called as a module is in nobody's way
    (started_in / ".env").write_text(SETTINGS)
    with serve(folder, started_in, a_fresh_machine(folder)) as found:
        yield found


def page_settings(ui: Ui) -> Mapping[str, object]:
    """What the page was told when it was loaded."""
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 800})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{ui.address}/locations/dpdau/asset-groups/state", wait_until="networkidle")
        page.get_by_text("day_sketch", exact=True).first.wait_for()
        page.screenshot(path=PICTURES / "ui-first.png")
        told = page.locator("#initialization-data").text_content()
        assert {url for url in asked if not url.startswith((ui.address, "data:", "blob:"))} == set()
    return json.loads(str(told))


def test_the_page_is_reached_and_asks_nobody_else(ui: Ui) -> None:
    assert page_settings(ui)["telemetryEnabled"] is False


def test_pools_are_limited_and_telemetry_is_off(ui: Ui) -> None:
    info = ui.ask("{ instance { info } }")["instance"]["info"]
    assert "pools:\n    default_limit: 1\n" in info
    assert "telemetry:\n  enabled: false\n" in info


def test_every_daemon_is_healthy(ui: Ui) -> None:
    def statuses() -> list[dict]:
        query = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
        return ui.ask(query)["instance"]["daemonHealth"]["allDaemonStatuses"]

    ui.wait_for("the daemons", lambda: all(one["healthy"] for one in statuses() if one["required"]))
    assert {"SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR"} <= {
        one["daemonType"] for one in statuses() if one["required"]
    }


def test_its_processes_have_the_settings_that_the_command_read(ui: Ui) -> None:
    started_in = ui.folder / "else where"
    ui.wait_for("the ledger", (started_in / "books.sqlite").exists)  # a sensor has opened the store
    assert stat.S_IMODE((started_in / "our data" / "dagster_home").stat().st_mode) == 0o700
    query = '{ partitionSetsOrError: assetNodes(assetKeys: [{path: ["activity"]}]) { partitionKeys } }'
    assert ui.ask(query)["partitionSetsOrError"][0]["partitionKeys"][0] == "2025-03-01"
    assert {path.name for path in started_in.iterdir()} - {"books.sqlite-wal", "books.sqlite-shm"} == {
        ".env",
        "dagster",
        "our data",
        "books.sqlite",
    }


def test_nothing_is_kept_in_the_users_home_and_what_is_printed_is_whole_lines(ui: Ui) -> None:
    assert list((ui.folder / "home").iterdir()) == []
    assert json.loads((ui.folder / "printed").read_text())["url"] == ui.address
    said = (ui.folder / "said").read_text()
    assert "superseded" not in said and "\x1b" not in said
    assert all(json.loads(line)["event"] for line in said.splitlines()[1:])


def test_a_dagster_yaml_of_ones_own_stays_and_turns_no_telemetry_on(tmp_path: Path) -> None:
    """In a folder whose name is a pattern, which Dagster alone would not find."""
    home = tmp_path / "[home]"
    home.mkdir()
    own = "telemetry:\n  enabled: true\nconcurrency:\n  pools:\n    default_limit: 3\n"
    (home / "dagster.yaml").write_text(own)
    values = {"DATA_DIR": "data", "HASH_SALT_SECRET": SECRET, "DAGSTER_HOME": str(home)}
    with serve(tmp_path, tmp_path, {**a_fresh_machine(tmp_path), **values}) as ui:
        info = ui.ask("{ instance { info } }")["instance"]["info"]
        assert "default_limit: 3\n" in info and "telemetry:\n  enabled: false\n" in info
    assert (home / "dagster.yaml").read_text() == own
    assert list((tmp_path / "home").iterdir()) == []
    assert "Telemetry" not in (tmp_path / "said").read_text()
