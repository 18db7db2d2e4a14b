"""What an operator has to fill in is documented, and nothing else is: the placeholders and the example environment."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.settings import Settings
from dpdau_tests.support.project import PROJECT
from resources.settings_env import Environment, dagster_home, read_settings

HEAD = "| Placeholder | File | Meaning | Type | Constraint and example | Default |\n|---|---|---|---|---|---|\n"
ROW = "| `{{REGION}}` | `deploy.yaml` | Where it runs. | string | A region, `eu-1`. | none |\n"


def run_check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT / "tools" / "check_placeholders.py"), str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "deploy.yaml").write_text("region: {{REGION}}\n")
    (tmp_path / "Placeholders.md").write_text(HEAD + ROW)
    return tmp_path


def test_this_repository_has_a_row_for_every_placeholder() -> None:
    result = run_check(PROJECT)
    assert result.returncode == 0, result.stderr


def test_a_documented_placeholder_passes(repository: Path) -> None:
    assert run_check(repository).returncode == 0


def test_an_undocumented_placeholder_fails_and_is_named(repository: Path) -> None:
    (repository / "notes.md").write_text("Ask {{OWNER}}.\n")
    result = run_check(repository)
    assert result.returncode == 1
    assert "{{OWNER}} in notes.md has no row" in result.stderr


def test_a_documented_placeholder_in_another_file_needs_its_own_row(repository: Path) -> None:
    (repository / "notes.md").write_text("In {{REGION}}.\n")
    result = run_check(repository)
    assert result.returncode == 1
    assert "{{REGION}} in notes.md has no row" in result.stderr


def test_a_row_whose_placeholder_is_gone_fails_and_is_named(repository: Path) -> None:
    (repository / "deploy.yaml").write_text("region: eu-1\n")
    result = run_check(repository)
    assert result.returncode == 1
    assert "deploy.yaml holds {{REGION}}: it does not" in result.stderr


def test_a_row_with_an_empty_cell_fails(repository: Path) -> None:
    (repository / "Placeholders.md").write_text(HEAD + ROW.replace("Where it runs.", ""))
    result = run_check(repository)
    assert result.returncode == 1
    assert "line 3" in result.stderr


def test_a_tracked_file_counts_even_when_a_pattern_ignores_it(repository: Path) -> None:
    (repository / "secret.env").write_text("TOKEN={{OWNER}}\n")
    subprocess.run(["git", "-C", str(repository), "add", "secret.env"], check=True)
    (repository / ".gitignore").write_text("*.env\n")
    assert run_check(repository).returncode == 1


def test_ignored_and_binary_files_and_other_brace_syntax_do_not_count(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.log\n")
    (repository / "run.log").write_text("{{OWNER}}\n")
    (repository / "picture.bin").write_bytes(b"\0{{OWNER}}")
    (repository / "ci.yml").write_text("name: ${{ matrix.python }} ${{github.ref}} {{ spaced }}\n")
    result = run_check(repository)
    assert result.returncode == 0, result.stderr


def test_outside_a_git_repository_the_check_fails(tmp_path: Path) -> None:
    (tmp_path / "Placeholders.md").write_text(HEAD)
    result = run_check(tmp_path)
    assert result.returncode == 1
    assert "git cannot list" in result.stderr


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory without `.env`, and no variable of ours in the environment."""
    for field in dataclasses.fields(Settings):
        monkeypatch.delenv(field.name.upper(), raising=False)
    monkeypatch.setitem(Environment.model_config, "env_file", ".env")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_environment_names_every_setting() -> None:
    lines = (PROJECT / ".env.example").read_text().splitlines()
    named = {line.lstrip("# ").partition("=")[0] for line in lines if "=" in line}
    assert named == {field.name.upper() for field in dataclasses.fields(Settings)}


def test_the_example_environment_shows_the_defaults(no_settings: Path) -> None:
    defaults = read_settings()
    example = (PROJECT / ".env.example").read_text()
    (no_settings / ".env").write_text(example.replace("{{HASH_SALT_SECRET}}", "0123456789abcdef" * 4))
    assert dataclasses.replace(read_settings(), hash_salt_secret=None) == defaults


def test_a_secret_that_was_not_filled_in_stops_the_start(no_settings: Path) -> None:
    shutil.copy(PROJECT / ".env.example", no_settings / ".env")
    with pytest.raises(BadSetting, match="HASH_SALT_SECRET"):
        read_settings()


@pytest.mark.parametrize(
    ("variable", "wrong", "rule"),
    [
        ("RETENTION_DAYS", "soon", "Input should be a valid integer"),
        ("RETENTION_DAYS", "35", "windows and the restatement of a month need 36 days; set 36 or more"),
        ("ERASURE_MARK", "some", "must be one of touched, all"),
        ("ERASURE_GUARD_SHARE", "a fifth", "Input should be a valid decimal"),
        ("ERASURE_GUARD_SHARE", "0", "set a number above 0, at most 1"),
        ("ERASURE_GUARD_SHARE", "1.5", "set a number above 0, at most 1"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(
    variable: str, wrong: str, rule: str, no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, wrong)
    with pytest.raises(BadSetting) as raised:
        read_settings()
    assert f"{variable}={wrong}: " in raised.value.reason and rule in raised.value.reason


def test_retention_is_off_unless_it_is_set(no_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().retention_days is None
    monkeypatch.setenv("RETENTION_DAYS", "36")
    assert read_settings().retention_days == 36


def test_dagsters_home_may_be_set_in_the_file_and_is_a_folder_of_the_data_directory_else(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")  # what dagster_home sets is undone with this
    assert dagster_home(read_settings()) == no_settings / "data" / "dagster_home"
    monkeypatch.setenv("DAGSTER_HOME", "")
    (no_settings / ".env").write_text("DAGSTER_HOME=log\n")
    assert dagster_home(read_settings()) == no_settings / "log"
    assert os.environ["DAGSTER_HOME"] == str(no_settings / "log")


def test_the_page_of_settings_names_every_setting() -> None:
    named = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (PROJECT / "docs" / "settings.md").read_text()))
    assert {field.name.upper() for field in dataclasses.fields(Settings)} <= named
