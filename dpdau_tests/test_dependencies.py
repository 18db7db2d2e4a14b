"""What the project asks to have installed is what it uses."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from dpdau_tests.support.project import PROJECT

SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())
SHIPPED = SETTINGS["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

USED_WITHOUT_AN_IMPORT = {
    "async-timeout": "redis imports it below Python 3.11.3, where the lock, made by a newer one, would not have it",
    "dagster-webserver": "`dagster dev`, which `dpdau ui` becomes, starts it by its name",
    "fastapi-offline": "dpdau_assets/api/docs_page.py serves files that it ships",
    "psycopg": "SQLAlchemy loads it for a LEDGER_URL of PostgreSQL",
    "tzdata": "zoneinfo reads it where the system has no time zones",
}


def dependencies(extra: str | None = None) -> set[str]:
    """Names as indexes compare them, without versions and extras: what is always needed, or an extra's."""
    asked = SETTINGS["project"]["optional-dependencies"][extra] if extra else SETTINGS["project"]["dependencies"]
    return {plain(re.split(r"[^\w.-]", each)[0]) for each in asked}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """The distributions whose modules the shipped packages import, wherever in a file."""
    owners = packages_distributions()
    files = [path for package in SHIPPED for path in (PROJECT / package).rglob("*.py")]
    return {plain(owner) for path in files for module in modules(path) for owner in owners.get(module, ())}


def modules(path: Path) -> Iterator[str]:
    """The first part of each name that the file imports from elsewhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def test_what_is_not_used_is_not_a_dependency() -> None:
    assert (dependencies() | dependencies("api")) - imported() == set(USED_WITHOUT_AN_IMPORT)


def test_what_an_install_without_extras_imports_needs_none_of_the_api() -> None:
    assert not {"fastapi", "limits", "prometheus-client"} & dependencies()


def test_the_locks_hold_every_dependency_and_say_nothing_of_where_they_were_made() -> None:
    api = dependencies("api")
    extras = {"requirements.lock": set(), "requirements-api.lock": api, "requirements-dev.lock": api}
    for lock, of_extra in extras.items():
        text = (PROJECT / lock).read_text()
        pinned = {plain(name) for name in re.findall(r"^([\w.-]+)(?:\[.*\])?==", text, re.MULTILINE)}
        assert dependencies() | of_extra <= pinned
        assert not re.search(r"://|^-|file:/|@ ", text, re.MULTILINE), "options and addresses are whoever installs'"
