"""`dpdau ui` as far as its last step, in which it becomes Dagster: test_ui_first.py takes that one."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.telemetry_upload import upload_logs

from dpdau_tests.cli.conftest import SECRET, Dpdau
from resources.dagster_files import CONFIGURATION, NOTHING_IS_SENT, WORKSPACE, prepare_home, shipped
from resources.dagster_instance import open_run
from resources.settings_env import Environment, dagster_home, environment_for, read_settings

DOTENV = """\
DATA_DIR=our data
LANDING_DIR=../landing
LEDGER_URL=sqlite:///books/ledger.sqlite
START_DATE=2025-03-01
DAU_BUDGET_TOTAL=2.75
DELTA=1e-7
MAU_THETA0=1/64
SKETCH_IMPL=theta
RETENTION_DAYS=400
ALERT_WEBHOOK=https://alerts.example/T0KEN
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any setting, of which nothing is left behind; .env is read."""
    monkeypatch.setitem(Environment.model_config, "env_file", ".env")
    for name in Environment.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DAGSTER_HOME", "")  # empty is as if it were not there
    return monkeypatch


# --- Dagster's home ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o177])
def test_a_home_that_is_not_there_is_made_for_its_owner_alone_under_any_umask(umask: int, tmp_path: Path) -> None:
    home = tmp_path / "data" / "home"
    before = os.umask(umask)
    try:
        prepare_home(home)
    finally:
        os.umask(before)
    assert [mode(path) for path in (home.parent, home, home / CONFIGURATION)] == [0o700, 0o700, 0o600]


@pytest.mark.parametrize("name", ["home", "[home]"])
def test_a_prepared_home_has_its_pools_limited_and_telemetry_off(
    name: str, tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    clean.setenv("DAGSTER_HOME", str(tmp_path / name))
    with open_run(tmp_path / name) as instance:
        assert not instance.telemetry_enabled
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1


def test_a_dagster_yaml_of_ones_own_is_kept_to_the_byte_and_only_its_telemetry_does_not_count(tmp_path: Path) -> None:
    own = "telemetry:\n  enabled: true\nconcurrency:\n  pools:\n    default_limit: 3\n"
    (tmp_path / CONFIGURATION).write_text(own)
    with dg.DagsterInstance.from_config(str(tmp_path)) as alone:
        assert alone.telemetry_enabled
    with open_run(tmp_path) as instance:
        assert not instance.telemetry_enabled
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 3
    assert (tmp_path / CONFIGURATION).read_text() == own


@contextmanager
def a_receiver() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and what was posted there."""
    posted: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/posted", posted
        server.shutdown()
        thread.join()


class OneRound(threading.Event):
    """Set as soon as somebody waits for it."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


def test_what_was_noted_for_dagsters_makers_is_not_sent_by_what_the_command_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "event.log").write_text('{"action": "noted"}\n')
    for name in ("BUILDKITE", "TF_BUILD", *NOTHING_IS_SENT):
        monkeypatch.delenv(name, raising=False)
    with a_receiver() as (address, posted):
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
        monkeypatch.setenv("DAGSTER_TELEMETRY_URL", address)
        with monkeypatch.context() as inside:
            for name, value in NOTHING_IS_SENT.items():
                inside.setenv(name, value)
            upload_logs(OneRound(), raise_errors=True)
            assert posted == []
        upload_logs(OneRound(), raise_errors=True)
        assert posted == ["/posted"]  # so it would have been


# --- What its processes are handed ---------------------------------------------------------------------------------


def test_a_process_in_another_folder_has_the_settings_that_the_command_read_here(
    tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / ".env").write_text(DOTENV)
    clean.chdir(here)
    clean.setenv("hash_salt_secret", SECRET)  # also in lower case, which is read as well
    clean.setenv("KMV_K", "1024")
    clean.setenv("PYTHONPATH", f"modules{os.pathsep}/absolute")
    read, settings = Environment().model_dump(), read_settings()
    environment = environment_for(settings)
    for name in os.environ:
        clean.delenv(name)
    for name, value in environment.items():
        clean.setenv(name, value)
    clean.chdir(there)
    assert Environment().model_dump() | {"dagster_home": None} == read | {
        "data_dir": here / "our data",
        "landing_dir": tmp_path / "landing",
        "ledger_url": type(read["ledger_url"])(f"sqlite:///{here}/books/ledger.sqlite"),
    }
    assert dagster_home(read_settings()) == here / "our data" / "dagster_home"
    assert environment["PYTHONPATH"] == f"{here}/modules{os.pathsep}/absolute"


@pytest.mark.parametrize("name", [CONFIGURATION, WORKSPACE])
def test_what_dagster_is_started_with_is_found(name: str) -> None:
    assert shipped(name).is_file()


# --- What is refused before anything starts ------------------------------------------------------------------------


@pytest.fixture
def listened_on() -> Iterator[Callable[[str], int]]:
    """A port of an address on which somebody listens."""
    taken: list[socket.socket] = []

    def listen(host: str) -> int:
        taken.append(socket.create_server((host, 0)))
        return taken[-1].getsockname()[1]

    yield listen
    for socket_taken in taken:
        socket_taken.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_that_is_taken_is_told_with_what_to_do_and_nothing_is_made(
    host: str, listened_on: Callable[[str], int], tmp_path: Path
) -> None:
    port = listened_on("127.0.0.1")
    done = Dpdau(tmp_path)("ui", "--host", host, "--port", str(port))
    assert done.code == 2
    assert f"port {port} of {host}" in done.said and "Address already in use." in done.said and "--port N" in done.said
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_none_of_this_machine_is_told(tmp_path: Path) -> None:
    done = Dpdau(tmp_path)("ui", "--host", "192.0.2.1")
    assert done.code == 2 and "of 192.0.2.1" in done.said


def test_a_wrong_setting_stops_it_by_its_name(tmp_path: Path) -> None:
    done = Dpdau(tmp_path)("ui", GRACE_DAYS="soon")
    assert done.code == 2 and "GRACE_DAYS=soon" in done.said
    assert list(tmp_path.iterdir()) == []
