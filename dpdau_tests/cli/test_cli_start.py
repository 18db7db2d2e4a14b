"""What a command loads before it answers: looked up among the modules of a fresh interpreter, not on a clock."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_group

from dpdau_assets.cli.main import COMMANDS, app
from dpdau_tests.cli.conftest import SECRET, Dpdau
from dpdau_tests.cli.main_job import MAIN_JOB, the_main_job_is_done
from dpdau_tests.support.prepared import Prepared

FOR_WORK = {
    "alembic",
    "dagster",
    "datasketches",
    "duckdb",
    "filelock",
    "jinja2",
    "opendp",
    "pandas",
    "pyarrow",
}
"""What reads events, counts, draws, publishes or reports."""
FOR_ANSWERS = {"cryptography", "numpy", "pydantic_settings", "sqlalchemy"}
"""What opens the ledger."""

_CALLS = """
import sys
from dpdau_assets.cli.main import main

for call in sys.stdin.read().splitlines():
    sys.argv = ["dpdau", *call.split()]
    try:
        main()
    except SystemExit:
        pass
print("\\nLOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded_by(*calls: str, folder: Path) -> set[str]:
    """The packages that one interpreter has loaded after these commands, one after the other."""
    environment = {**os.environ, "DATA_DIR": str(folder / "data"), "HASH_SALT_SECRET": SECRET}
    done = subprocess.run(
        [sys.executable, "-c", _CALLS],
        input="\n".join(calls),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "LOADED" and "typer" in last
    return set(last)


def test_help_the_version_and_a_mistyped_word_load_nothing_but_the_command_line(tmp_path: Path) -> None:
    assert loaded_by("--help", "--version", "nonsense", folder=tmp_path) & (FOR_WORK | FOR_ANSWERS) == set()


def test_an_answer_from_the_ledger_loads_the_ledger_and_nothing_that_works_on_events(
    prepared: Prepared, tmp_path: Path
) -> None:
    folder = prepared.copy(MAIN_JOB, lambda empty: the_main_job_is_done(Dpdau(empty)), tmp_path / "store")
    numbers = ("dau 2025-01-30", "mau 2025-01-30", "series dau --from 2025-01-01 --to 2025-01-31")
    budgets = ("budget dau --month 2025-01", "plan --months 1", "label")
    loaded = loaded_by(*numbers, *budgets, "erasures", folder=folder)
    assert loaded & FOR_WORK == set()
    assert loaded >= FOR_ANSWERS


def test_the_list_of_commands_is_that_of_the_files_and_says_what_each_commands_own_help_begins_with() -> None:
    listed = get_group(app).commands
    for file, lines in COMMANDS.items():
        commands: dict[str, Any] = get_group(import_module(f"dpdau_assets.cli.{file}").app).commands
        assert list(commands) == list(lines)
        for name, line in lines.items():
            assert str(commands[name].help).startswith(line.removesuffix(".")), name
            assert inspect.cleandoc(str(listed[name].help)) == line
    assert set(listed) == {name for lines in COMMANDS.values() for name in lines}


@pytest.mark.parametrize("name", ["ingest", "dau", "restore"])
def test_a_commands_help_has_its_own_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        app([name, "--help"])
    said = capsys.readouterr().out
    assert {"ingest": "--from", "dau": "--revision", "restore": "--published-through"}[name] in said


def test_a_word_that_is_nearly_a_command_is_answered_with_that_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        app(["rebui"])
    assert "rebuild" in capsys.readouterr().err
