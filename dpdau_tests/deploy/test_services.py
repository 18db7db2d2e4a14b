"""The two scripts of the image, run as they are in a container: what starts Dagster's services, and what asks whether
a service answers.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dpdau_assets.core.errors import BadSetting
from dpdau_tests.api.serving import KEY, serve
from dpdau_tests.deploy.proxying import Passed, Spoiling, proxy
from dpdau_tests.support.master_secret import SECRET
from dpdau_tests.support.project import PROJECT, loaded
from resources.dagster_files import WORKSPACE, environment_of_dagster, shipped
from resources.settings_env import read_settings
from resources.store import open_store

SERVICES, HEALTH = PROJECT / "docker" / "services.py", PROJECT / "docker" / "health.py"

Ran = subprocess.CompletedProcess[str]


def run(script: Path, *arguments: str, **environment: str) -> Ran:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    command = [sys.executable, str(script), *arguments]
    own = {**kept, **environment}
    return subprocess.run(command, env=own, cwd="/", capture_output=True, text=True, check=False, timeout=300)


def settings(folder: Path, **changed: str) -> dict[str, str]:
    own = {
        "DATA_DIR": str(folder / "store"),
        "DAGSTER_HOME": str(folder / "dagster_home"),
        "HASH_SALT_SECRET": SECRET,
        "SERVICE_API_KEY": KEY,
        "START_DATE": "2026-01-01",
    }
    return {**own, **changed}


def test_prepare_makes_store_ledger_and_dagsters_home_and_the_second_time_changes_nothing(tmp_path: Path) -> None:
    first = run(SERVICES, "prepare", **settings(tmp_path))
    assert first.returncode == 0, first.stderr
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if not path.name.endswith(("-shm", "-wal"))}
    named = {"store/ledger.sqlite", "dagster_home/dagster.yaml", "dagster_home/event_log.db"}
    assert named | {"dagster_home/history/runs.db", "dagster_home/schedules/schedules.db"} <= set(map(str, made))
    ledger = (tmp_path / "store" / "ledger.sqlite").read_bytes()
    second = run(SERVICES, "prepare", **settings(tmp_path))
    assert (second.returncode, second.stderr) == (0, "")
    assert (tmp_path / "store" / "ledger.sqlite").read_bytes() == ledger


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HASH_SALT_SECRET", ""),
        ("HASH_SALT_SECRET", "short"),
        ("HASH_SALT_SECRET", "a" * 40),
        ("SERVICE_API_KEY", ""),
        ("SERVICE_API_KEY", "changeme"),
        ("START_DATE", ""),
        ("GRACE_DAYS", "-1"),
    ],
)
def test_prepare_refuses_what_no_service_could_work_with_and_names_it(
    tmp_path: Path, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, text in settings(tmp_path, **{name: value}).items():
        monkeypatch.setenv(variable, text)
    monkeypatch.chdir(tmp_path)
    open_store.cache_clear()
    with pytest.raises(BadSetting, match=name):
        loaded(SERVICES).prepare()
    assert not (tmp_path / "dagster_home").exists()


@pytest.mark.slow(weight=0.1)
@pytest.mark.parametrize("password", ["horse/battery", "horse@battery", "horse@battery:staple/7", "horse:7/@#battery"])
def test_a_password_that_breaks_the_ledgers_address_is_refused_and_no_output_has_a_part_of_it(
    tmp_path: Path, password: str
) -> None:
    url = f"postgresql://dpdau:{password}@127.0.0.1:9/dpdau"
    ran = run(SERVICES, "prepare", **settings(tmp_path, LEDGER_URL=url))
    assert ran.returncode == 2 and ran.stderr.startswith("BadSetting: LEDGER_URL=...: neither a file"), ran.stderr
    assert "percent-encoded" in ran.stderr and "Traceback" not in ran.stderr
    assert not [part for part in re.findall(r"\w+", password) if re.search(rf"\b{part}\b", ran.stdout + ran.stderr)]


@pytest.mark.slow(weight=0.1)
def test_what_prepare_refuses_ends_it_with_the_code_of_settings(tmp_path: Path) -> None:
    ran = run(SERVICES, "prepare", **settings(tmp_path, START_DATE=""))
    assert ran.returncode == 2 and ran.stderr.startswith("BadSetting: START_DATE is not set"), ran.stderr


@pytest.mark.slow(weight=0.1)
def test_a_word_that_is_no_service_is_told_with_those_that_are() -> None:
    for arguments in ((), ("api",)):
        ran = run(SERVICES, *arguments)
        assert ran.returncode == 1 and "prepare, webserver or daemon" in ran.stderr


def test_the_services_of_dagster_are_started_on_the_shipped_workspace() -> None:
    services = loaded(SERVICES)
    for service, program in (("webserver", "dagster-webserver"), ("daemon", "dagster-daemon")):
        command = services.command(service, ["--port", "3000"])
        assert Path(command[0]).name == program and os.access(command[0], os.X_OK)
        assert command[command.index("--workspace") + 1] == str(shipped(WORKSPACE))
        assert command[-2:] == ["--port", "3000"]


def test_they_are_told_what_dpdau_ui_tells_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    begun: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda program, arguments, environment: begun.append(environment))
    loaded(SERVICES).become("webserver", [])
    (told,) = begun
    assert told == environment_of_dagster(read_settings(), "json")
    assert (told["DAGSTER_DISABLE_TELEMETRY"], told["PYTHONSAFEPATH"]) == ("1", "1")
    assert told["DAGSTER_CLI_CODE_SERVER_START_LOG_FORMAT"] == "json" and "dev_command" in told["PYTHONWARNINGS"]
    assert told["HASH_SALT_SECRET"] == SECRET and told["DATA_DIR"] == str(tmp_path / "store")


@pytest.mark.slow(weight=0.1)
def test_health_is_good_where_200_is_answered_and_bad_where_anything_else_is_or_nobody(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        here = f"http://127.0.0.1:{served.port}"
        assert run(HEALTH, f"{here}/healthz").returncode == 0
        assert run(HEALTH, f"{here}/readyz").returncode == 0
        assert run(HEALTH, f"{here}/status").returncode == 1
        for status in (302, 503):
            with proxy(
                served.port, Spoiling(answers={"/readyz": Passed(status, {"Location": "/healthz"}, b"")})
            ) as port:
                assert run(HEALTH, f"http://127.0.0.1:{port}/readyz").returncode == 1
    assert run(HEALTH, f"{here}/healthz").returncode == 1
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert run(HEALTH, f"http://127.0.0.1:{silent.getsockname()[1]}/").returncode == 1
