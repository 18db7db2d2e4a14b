"""Who may import whom, and what core may not touch: the design's table, checked on every module's source.

Python's standard library is always allowed, except what `NOT_IN_CORE` names. A new module or library needs its row.
"""

from __future__ import annotations

import ast
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpdau_tests.support.project import PROJECT

ROOMS = ("privacy", "sketches", "ports", "budget", "state", "erasure", "publication", "reporting")
"""The folders of core, lowest first: a module imports from its own, and from those before it."""
GROUND_FLOOR = (
    "api_keys",
    "dates",
    "errors",
    "event_shape",
    "events",
    "facts",
    "identity",
    "parallel",
    "restored",
    "secret_strength",
    "security_events",
    "settings",
    "telling",
    "tombstones",
    "user_ids",
    "version",
)
GROUND = frozenset({"numpy", *(f"dpdau_assets.core.{module}" for module in GROUND_FLOOR)})


def up_to(room: str) -> frozenset[str]:
    """What a room of core may import."""
    return GROUND | {f"dpdau_assets.core.{below}" for below in ROOMS[: ROOMS.index(room) + 1]}


ADAPTER = frozenset({"dpdau_assets.core", "resources", "numpy", "pyarrow"})  # ports speak arrays, files are Parquet
DAGSTER = frozenset(
    {
        "dagster",
        "dpdau_assets.core",
        *(
            f"dpdau_assets.orchestration.{part}"
            for part in (
                "metadata",
                "names",
                "partitions",
                "private",
                "project",
                "publishing",
                "recorder",
                "retries",
            )
        ),
    }
)
EDGE = frozenset({"dpdau_assets.core", "resources"})
TERMINAL = EDGE | {"typer", "rich"}

# The row with the longest name that a module begins with is its row.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "dpdau_assets.core": GROUND,
    **{f"dpdau_assets.core.{room}": up_to(room) for room in ROOMS},
    "dpdau_assets.core.sketches": up_to("sketches") | {"datasketches"},
    "resources": ADAPTER,
    "resources.store": ADAPTER | {"sqlalchemy.exc"},  # what a ledger raises that does not answer
    "resources.dagster_instance": ADAPTER
    | {"dagster", "dagster_shared", "yaml"}
    | {f"dpdau_assets.orchestration.{part}" for part in ("names", "private")},  # whether a schedule is on, by name
    "resources.dagster_event_log": frozenset({"sqlalchemy", "dpdau_assets.orchestration.private"}),
    "resources.storage.file_lock": ADAPTER | {"filelock"},
    "resources.storage.seen_requests": ADAPTER | {"cryptography"},
    "resources.arrow_arrays": ADAPTER | {"duckdb"},
    "resources.databases.adbc": ADAPTER | {"adbc_driver_manager"},
    "resources.databases.duckdb_file": ADAPTER | {"duckdb"},
    "resources.reading.engine_duckdb": ADAPTER | {"duckdb"},
    "resources.reading.event_query": ADAPTER | {"duckdb"},
    "resources.reading.event_reading": ADAPTER | {"duckdb"},
    "resources.reading.event_sql": ADAPTER | {"duckdb"},
    "resources.reading.explaining": ADAPTER | {"duckdb"},
    "resources.reading.field_sql": ADAPTER | {"duckdb"},
    "resources.reading.id_sql": ADAPTER | {"duckdb"},
    "resources.reading.input_file": ADAPTER | {"duckdb"},
    "resources.reading.json_layout": ADAPTER | {"duckdb"},
    "resources.reading.json_sources": ADAPTER | {"duckdb"},
    "resources.reading.reading_progress": ADAPTER | {"duckdb"},
    "resources.reading.row_source": ADAPTER | {"duckdb"},
    "resources.reading.sql_text": ADAPTER | {"duckdb"},
    "resources.reading.remote_files": ADAPTER | {"fsspec"},
    "resources.ledger_sql": ADAPTER | {"sqlalchemy", "alembic", "cryptography"},
    "resources.published.mart_duckdb": ADAPTER | {"duckdb"},
    "resources.published.frames": ADAPTER | {"pandas"},
    "resources.noise_opendp": ADAPTER | {"opendp"},
    "resources.published.templates": ADAPTER | {"jinja2"},
    "resources.settings_env": ADAPTER | {"pydantic", "pydantic_settings"},
    "resources.wiring": ADAPTER | {"dagster", "dagster_duckdb", "pydantic"},
    "dpdau_assets.orchestration": frozenset(),
    "dpdau_assets.orchestration.names": frozenset({"dpdau_assets.core"}),
    "dpdau_assets.orchestration.partitions": frozenset({"dagster", "dpdau_assets.core"}),
    "dpdau_assets.orchestration.metadata": frozenset({"dagster", "dpdau_assets.core"}),
    "dpdau_assets.orchestration.project": frozenset(
        {"dagster", "dpdau_assets.core", "dpdau_assets.orchestration.names"}
    ),
    "dpdau_assets.orchestration.tables": frozenset({"dagster", "dpdau_assets.core", "pandas"}),
    "dpdau_assets.orchestration.recorder": frozenset(
        {
            "dagster",
            "dpdau_assets.core",
            *(f"dpdau_assets.orchestration.{part}" for part in ("metadata", "private", "project")),
        }
    ),
    "dpdau_assets.orchestration.private": frozenset({"dagster"}),
    "dpdau_assets.orchestration.publishing": frozenset(
        {
            "dagster",
            "dpdau_assets.core",
            *(f"dpdau_assets.orchestration.{part}" for part in ("private", "project", "recorder")),
        }
    ),
    "dpdau_assets.orchestration.retries": frozenset({"dagster", "dpdau_assets.core"}),
    "dpdau_assets.assets": DAGSTER | {"dpdau_assets.assets"},
    "dpdau_assets.assets.mart": DAGSTER
    | {"dpdau_assets.assets", "dpdau_assets.orchestration.tables", "dagster_duckdb"},
    "dpdau_assets.orchestration.checks": DAGSTER,
    "dpdau_assets.orchestration.bulk": DAGSTER | {"dpdau_assets.assets", "dagster_duckdb", "pydantic"},
    "dpdau_assets.orchestration.jobs": DAGSTER | {"dpdau_assets.orchestration.bulk"},
    "dpdau_assets.orchestration.running": DAGSTER | {"dpdau_assets.orchestration.bulk"},
    "dpdau_assets.orchestration.schedules": DAGSTER | {"dpdau_assets.orchestration.jobs"},
    "sensors": DAGSTER | {"sensors", "dpdau_assets.orchestration.jobs", "dagster_shared"},
    "dpdau_assets.definitions": DAGSTER
    | {"dpdau_assets.assets", *(f"dpdau_assets.orchestration.{part}" for part in ("checks", "jobs", "schedules"))}
    | {"sensors", "resources.dagster_instance", "resources.settings_env", "resources.wiring"},
    "dpdau_assets.api": EDGE
    | {"dpdau_assets.api", "fastapi", "starlette", "pydantic", "msgspec", "limits", "prometheus_client", "anyio"},
    "dpdau_assets.api.protocol": EDGE | {"dpdau_assets.api", "starlette", "uvicorn", "httptools"},
    "dpdau_assets.cli": TERMINAL | {"dpdau_assets.cli"},
    "dpdau_assets.cli.events": TERMINAL | {"dpdau_assets.cli", "eval.simulate"},
    "dpdau_assets.cli.serve": TERMINAL
    | {"dpdau_assets.cli", "dpdau_assets.api.protocol", "dpdau_assets.api.request_log", "uvicorn"},
    "dpdau_assets.cli.terminal": TERMINAL
    | {"dagster", "dpdau_assets.definitions", "dpdau_assets.orchestration.running"},
    "dpdau_assets.serving": frozenset(
        {"dagster", "dpdau_assets.orchestration.private", "resources.dagster_instance", "resources.settings_env"}
    ),
}

# A row that allows a whole folder does not allow these to anyone else.
ONLY_FROM = {"resources.wiring": "dpdau_assets.definitions"}

READS_THE_ENVIRONMENT = ("os.environ", "os.getenv")

# The clock, the environment, randomness and files come to core through its ports.
NOT_IN_CORE = (
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "importlib",
    "numpy.random",
    "open",
    *READS_THE_ENVIRONMENT,
    "os.urandom",
    "random",
    "secrets",
    "sqlite3",
    "time",
)

OUTSIDE = (
    "dagster",
    "datasketches",
    "sqlalchemy",
    "duckdb",
    "opendp",
    "fastapi",
    "pyarrow",
    "resources",
    "sensors",
    "eval",
)


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """One sentence for each rule that the module's source breaks."""
    row = max((name for name in MAY_IMPORT if within(module, name)), key=len, default=None)
    if row is None:
        return [f"{module} has no row in MAY_IMPORT."]
    tree = ast.parse(source)
    imports_there = list(imports(tree, module if is_package else module.rpartition(".")[0]))
    imported = {name for name, _, _ in imports_there}
    broken = [f"{module} may not import {name}." for name in imported if not may_import(module, row, name)]
    touched = imported | set(uses(tree, {local: meaning for _, local, meaning in imports_there}))
    if within(module, "dpdau_assets.core"):
        broken += [f"{module} may not touch {name}." for name in touched if within_any(name, NOT_IN_CORE)]
    elif module != "resources.settings_env":
        broken += [f"{module} may not read {name}." for name in touched if within_any(name, READS_THE_ENVIRONMENT)]
    return sorted(broken)


def may_import(module: str, row: str, name: str) -> bool:
    """Whether the module, whose row this is, may import this dotted name."""
    if any(within(name, guarded) and module != only for guarded, only in ONLY_FROM.items()):
        return False
    return name.partition(".")[0] in sys.stdlib_module_names or within_any(name, MAY_IMPORT[row])


def within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def within_any(name: str, parents: tuple[str, ...] | frozenset[str]) -> bool:
    return any(within(name, parent) for parent in parents)


def imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str, str]]:
    """Every import, wherever it stands: what is imported, the local name, and what that name stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head = alias.name.partition(".")[0]
                yield alias.name, alias.asname or head, alias.name if alias.asname else head
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = origin(node, package) if alias.name == "*" else f"{origin(node, package)}.{alias.name}"
                yield name, alias.asname or alias.name, name


def origin(node: ast.ImportFrom, package: str) -> str:
    """The absolute module of a from-import: `from ..errors import X` in package a.b is from a.errors."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def uses(tree: ast.Module, names: dict[str, str]) -> Iterator[str]:
    """The absolute name of every attribute chain that begins with an import, and the built-ins that reach outside.

    Setting a variable for a child process is not reading one: the target `os.environ[...]` is left out.
    """
    written = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in written:
            head, _, rest = chain(node).partition(".")
            if head in names:
                yield f"{names[head]}.{rest}"
        elif isinstance(node, ast.Name) and node.id not in names:
            yield from {"open": ["open"], "__import__": ["importlib"]}.get(node.id, [])


def chain(node: ast.expr) -> str:
    """`a.b.c` of nested attributes; what does not begin with a plain name gives a text that begins with a dot."""
    if isinstance(node, ast.Attribute):
        return f"{chain(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of ours that the table speaks of. `eval` may import anything, and no row allows importing it."""
    for folder in ("dpdau_assets", "resources", "sensors"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())
GRAPH = runpy.run_path(str(PROJECT / "tools" / "import_graph.py"))


@pytest.mark.parametrize("module", [name for name in MODULES if name != "dpdau_assets"])
def test_every_module_keeps_to_its_layer(module: str) -> None:
    path = MODULES[module]
    assert violations(module, path.read_text(), is_package=path.name == "__init__.py") == []


def test_names_of_dagster_that_are_not_public_are_imported_in_one_module() -> None:
    private = {
        (module, name)
        for module, path in MODULES.items()
        for name, _, _ in imports(ast.parse(path.read_text()), module.rpartition(".")[0])
        if any(part.startswith("_") for part in name.split(".")) and name.startswith("dagster")
    }
    assert {module for module, _ in private} == {"dpdau_assets.orchestration.private"} and len(private) > 5


def test_no_row_names_a_module_that_does_not_exist() -> None:
    assert [row for row in MAY_IMPORT if row not in MODULES] == []
    assert [room for room in ROOMS if f"dpdau_assets.core.{room}" not in MODULES] == []
    flat = {path.stem for path in (PROJECT / "dpdau_assets" / "core").glob("*.py")} - {"__init__"}
    assert flat == set(GROUND_FLOOR)


def test_the_graph_of_core_has_no_import_upwards_and_no_circle_and_few_files_lie_flat() -> None:
    assert GRAPH["problems"](GRAPH["graph_of"](PROJECT)) == []
    assert GRAPH["ORDER"] == (GRAPH["GROUND"], *ROOMS)


@pytest.mark.parametrize(
    ("file", "line", "problem"),
    [
        ("facts.py", "from dpdau_assets.core.privacy.mechanisms import Stream", "facts imports privacy.mechanisms"),
        ("dates.py", "def late():\n    from dpdau_assets.core import events", "These import one another"),
        (
            "version.py",
            "if TYPE_CHECKING:\n    import dpdau_assets.core.state.activity",
            "version imports state.activity",
        ),
        ("", "", "files lie flat"),
    ],
)
def test_a_graph_that_breaks_the_order_is_told(file: str, line: str, problem: str, tmp_path: Path) -> None:
    core = tmp_path / "dpdau_assets" / "core"
    shutil.copytree(PROJECT / "dpdau_assets" / "core", core, ignore=shutil.ignore_patterns("__pycache__"))
    for name in [file] if line else [f"flat{number}.py" for number in range(6)]:
        with (core / name).open("a") as module:
            module.write(f"\n{line}\n")
    assert any(problem in sentence for sentence in GRAPH["problems"](GRAPH["graph_of"](tmp_path)))


def test_the_package_itself_holds_only_a_docstring() -> None:
    body = ast.parse((PROJECT / "dpdau_assets" / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)
    assert isinstance(body[0].value.value, str)


def test_a_fresh_interpreter_that_imports_all_of_core_has_loaded_nothing_from_outside() -> None:
    core = [name for name in MODULES if within(name, "dpdau_assets.core")]
    assert len(core) > 5
    lines = [f"import {name}" for name in core]
    lines += ["import sys", f"print(*[name for name in {OUTSIDE} if name in sys.modules])"]
    command = [sys.executable, "-c", "\n".join(lines)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


@pytest.mark.parametrize(
    ("module", "source", "culprit"),
    [
        ("dpdau_assets.core.publication.release", "import dagster as dg", "dagster"),
        ("dpdau_assets.core.publication.release", "def late():\n    from duckdb import connect", "duckdb.connect"),
        (
            "dpdau_assets.core.publication.release",
            "if TYPE_CHECKING:\n    import pyarrow.parquet as pq",
            "pyarrow.parquet",
        ),
        (
            "dpdau_assets.core.publication.release",
            "from resources.store import open_store",
            "resources.store.open_store",
        ),
        ("dpdau_assets.core.publication.release", "from dpdau_assets import definitions", "dpdau_assets.definitions"),
        ("dpdau_assets.core.publication.release", "from ...assets import activity", "dpdau_assets.assets.activity"),
        ("dpdau_assets.core.publication.release", "from dagster import *", "dagster"),
        ("dpdau_assets.core.publication.release", "import eval.simulate", "eval.simulate"),
        ("dpdau_assets.core.budget.sketch_choice", "import datasketches", "datasketches"),
        ("dpdau_assets.core.settings", "import os\nos.environ['DATA_DIR']", "os.environ"),
        ("dpdau_assets.core.settings", "import os\nos.environ['DATA_DIR'] = 'x'.strip(os.environ['A'])", "os.environ"),
        ("dpdau_assets.core.settings", "from os import environ", "os.environ"),
        ("dpdau_assets.core.settings", "import os.path\nos.getenv('DATA_DIR')", "os.getenv"),
        ("dpdau_assets.core.dates", "from datetime import date\ndate.today()", "datetime.date.today"),
        ("dpdau_assets.core.dates", "import datetime as dt\ndt.datetime.now(dt.UTC)", "datetime.datetime.now"),
        ("dpdau_assets.core.dates", "from time import time", "time.time"),
        ("dpdau_assets.core.dates", "import numpy as np\nnp.random.default_rng(1)", "numpy.random.default_rng"),
        ("dpdau_assets.core.dates", "open('events.csv')", "open"),
        ("dpdau_assets.core.dates", "__import__('dagster')", "importlib"),
        ("resources.storage.state_files", "import dagster", "dagster"),
        ("resources.storage.state_files", "import sqlalchemy", "sqlalchemy"),
        (
            "resources.storage.state_files",
            "from dpdau_assets.orchestration.jobs import steps",
            "dpdau_assets.orchestration.jobs.steps",
        ),
        ("resources.storage.state_files", "import os\nos.environ.get('DATA_DIR')", "os.environ.get"),
        ("resources.store", "from resources import wiring", "resources.wiring"),
        ("resources.ledger_sql", "from .. import eval\nimport eval", "eval"),
        ("dpdau_assets.assets.mart", "import duckdb", "duckdb"),
        ("dpdau_assets.assets.mart", "from resources.store import open_store", "resources.store.open_store"),
        ("dpdau_assets.orchestration.checks", "from dpdau_assets.cli.main import main", "dpdau_assets.cli.main.main"),
        ("sensors.erasure", "import sqlalchemy as sa", "sqlalchemy"),
        ("dpdau_assets.definitions", "import resources.store", "resources.store"),
        (
            "dpdau_assets.cli",
            "from dpdau_assets.orchestration.bulk import Days",
            "dpdau_assets.orchestration.bulk.Days",
        ),
        ("dpdau_assets.core.facts", "from dpdau_assets.core.privacy.mechanisms import Stream", "privacy.mechanisms"),
        (
            "dpdau_assets.core.ports.ledger",
            "from dpdau_assets.core.budget.planning import Plan",
            "budget.planning.Plan",
        ),
        (
            "dpdau_assets.core.state.activity",
            "if TYPE_CHECKING:\n    from dpdau_assets.core.erasure.requests import Requested",
            "erasure.requests.Requested",
        ),
        ("dpdau_assets.core.erasure.receipts", "from ..reporting.checks import CHECKS", "reporting.checks.CHECKS"),
        ("dpdau_assets.cli.events", "from eval.evaluate import run", "eval.evaluate.run"),
        (
            "dpdau_assets.cli.numbers",
            "from eval.simulate import generate_synthetic",
            "eval.simulate.generate_synthetic",
        ),
        ("dpdau_assets.cli.numbers", "from dpdau_assets.definitions import defs", "dpdau_assets.definitions.defs"),
        ("dpdau_assets.helpers", "import json", "no row"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str, culprit: str) -> None:
    assert any(culprit in sentence for sentence in violations(module, source)), violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dpdau_assets.core.dates", "from datetime import date, time\ndate(2025, 1, 1)\ntime(0)"),
        ("dpdau_assets.core.dates", "import os\nos.cpu_count()\noutside.clock.today()"),
        ("dpdau_assets.core.sketches.theta", "import numpy as np\nimport datasketches\nnp.uint64(1)"),
        ("dpdau_assets.core.sketches.exact", "from .base import Sketch\nfrom ..errors import BadInput"),
        ("resources.wiring", "import dagster as dg\nfrom resources.settings_env import read_settings"),
        ("resources.settings_env", "import os\nos.environ.get('DAGSTER_HOME')"),
        ("dpdau_assets.orchestration.jobs", "import os\nos.environ['DAGSTER_HOME'] = 'home'"),
        ("dpdau_assets.assets.mart", "import dagster as dg\nfrom dpdau_assets.orchestration.partitions import DAYS"),
        ("dpdau_assets.definitions", "from resources import wiring\nfrom sensors.erasure import erasure_sensor"),
        (
            "dpdau_assets.cli.events",
            "from eval.simulate import generate_synthetic\nfrom dpdau_assets.cli.terminal import tell",
        ),
        ("dpdau_assets.cli.terminal", "from dpdau_assets.orchestration.running import run_steps"),
    ],
)
def test_what_the_table_allows_passes(module: str, source: str) -> None:
    assert violations(module, source) == []
