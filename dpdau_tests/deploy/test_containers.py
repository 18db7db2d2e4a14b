"""The image as it is built, and all services as compose.yaml runs them: from the first event to a number, an erasure,
and the day after everything was stopped.

Sizes and times are printed and kept in .artifacts/containers.json; none is asserted.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.version import VERSION
from dpdau_tests.deploy import engines, page
from dpdau_tests.deploy.engines import Docker, Podman, wait_for
from dpdau_tests.support.project import PROJECT

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

MEASURES = PROJECT / ".artifacts" / "containers.json"
SHE = "she@planted.example"
PEOPLE = [f"person-{n}@planted.example" for n in range(20)]
NEWCOMERS = [f"newcomer-{n}@planted.example" for n in range(5)]
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cargo", "rustc", "go", "git")
INSTALLERS = ("pip", "pip3", "uv", "hatch", "pip-compile")

OVER = ("SUCCESS", "FAILURE", "CANCELED")

COUNTED = """
from resources.settings_env import read_settings
from resources.store import open_store
store = open_store(read_settings())
with store.accountant.transaction() as ledger:
    print(ledger.frozen(ledger.last_run("mau", 30).name, 1)[0])
"""
"""Prints the exact count on which the newest MAU's noise went: for operators who may read the store, as a test may."""

TYPED = ("The tools inside the image", "Event files", "Numbers for readers", "Backup", "After a loss")
"""The headings of docs/deploy.md whose commands are typed here as they stand, in this order."""

RESIDENT = """
import pathlib, re
found = [re.search(r"VmRSS:\\s+(\\d+)", p.read_text()) for p in pathlib.Path("/proc").glob("[0-9]*/status")]
print(sum(int(each[1]) for each in found if each) // 1024)
"""


@dataclass
class Product:
    """A deployment, and the days of the product that it serves."""

    engine: Docker | Podman
    key: str
    secrets: tuple[str, ...]
    today: date = field(default_factory=lambda: datetime.now(UTC).date())
    measures: dict[str, Any] = field(default_factory=dict)

    @property
    def start(self) -> date:
        return self.today - timedelta(days=42)

    @property
    def first_days(self) -> list[date]:
        """The days that are published before everything is stopped; the next one is published after."""
        return days_between(self.start, self.today - timedelta(days=3))

    @property
    def next_day(self) -> date:
        return self.today - timedelta(days=2)

    def ask(self, method: str, path: str, body: object = None) -> engines.Answer:
        return self.engine.ask(f"{self.engine.api}{path}", method, body, X_API_Key=self.key)

    def post(self, users: list[str], day: date) -> None:
        rows = [{"user_id": user, "op": "+", "day": str(day)} for user in users]
        taken = self.ask("POST", "/event", {"events": rows})
        assert (taken.status, taken.said["ingested"]) == (202, len(rows)), taken

    def complete(self, day: date) -> None:
        assert self.ask("POST", f"/complete/{day}").status == 200

    def graphql(self, query: str) -> Any:
        return self.engine.ask(f"{self.engine.ui}/graphql", "POST", {"query": query}).said["data"]

    def launch(self, job: str) -> str:
        """Ask the web server for a run, which the daemon takes from its queue."""
        selector = f'{{jobName: "{job}", repositoryLocationName: "dpdau", repositoryName: "__repository__"}}'
        said = self.graphql(
            f"mutation {{ launchRun(executionParams: {{selector: {selector}, runConfigData: {{}}}}) "
            "{ __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"
        )["launchRun"]
        assert said["__typename"] == "LaunchRunSuccess", said
        return said["run"]["runId"]

    def status(self, run: str) -> str:
        return self.graphql(f'{{ runOrError(runId: "{run}") {{ ... on Run {{ status }} }} }}')["runOrError"]["status"]

    def end(self, run: str) -> str:
        """Ask the web server to end a run; how it answers."""
        return self.graphql(f'mutation {{ terminateRun(runId: "{run}") {{ __typename }} }}')["terminateRun"][
            "__typename"
        ]

    def events(self, run: str) -> str:
        """What Dagster has noted of a run, and the errors behind it, as JSON."""
        behind = "... on ErrorEvent { error { className cause { className } } }"
        asked = f"... on Run {{ eventConnection {{ events {{ __typename {behind} }} }} }}"
        return json.dumps(self.graphql(f'{{ runOrError(runId: "{run}") {{ {asked} }} }}'))

    def publish_due(self) -> None:
        """Publish what is due, as the schedule does every hour."""
        run = self.launch("publish_due")
        wait_for("publication", lambda: self.status(run) in OVER)
        assert self.status(run) == "SUCCESS"

    def counted(self) -> int:
        ran = self.engine.exec("daemon", "python3", "-c", COUNTED)
        assert ran.returncode == 0, ran.stderr
        return int(ran.stdout.split()[-1])

    def read(self) -> dict[str, bytes]:
        """What readers of numbers get."""
        span = f"from={self.start}&to={self.first_days[-1]}"
        answers = {path: self.ask("GET", f"/series/{path}?{span}") for path in ("dau", "mau")}
        assert {answer.status for answer in answers.values()} == {200}
        return {path: answer.body for path, answer in answers.items()}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The image built, and every service up, on a copy of docker/ with its settings filled in."""
    folder = tmp_path_factory.mktemp("deployed")
    shutil.copytree(PROJECT / "docker", folder / "docker", ignore=shutil.ignore_patterns(".env", "settings.env"))
    drawn = {name: secrets.token_hex(32) for name in ("HASH_SALT_SECRET", "SERVICE_API_KEY", "POSTGRES_PASSWORD")}
    (folder / "docker" / "settings.env").write_text("ERASURE_GUARD_SHARE=0.3\n")
    variables = folder / "docker" / ".env"
    with engines.deployment(folder, variables) as engine:
        made = Product(engine, drawn["SERVICE_API_KEY"], tuple(drawn.values()))
        text = (PROJECT / "docker" / "env.example").read_text()
        for name, value in {**drawn, "START_DATE": str(made.start), "RATE_LIMIT_PER_MINUTE": "100000"}.items():
            text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        variables.write_text(text.replace("GRACE_DAYS=1\n", "GRACE_DAYS=0\n"))
        with _timed(made, "build_seconds"):
            engine.build()
        made.measures |= {"engine": engine.name, "image_megabytes": int(str(engine.image()["Size"])) // 1_000_000}
        with _timed(made, "first_start_seconds"):
            engine.up()
        made.measures["resident_megabytes_at_first"] = _resident(engine)
        yield made
        MEASURES.parent.mkdir(exist_ok=True)
        MEASURES.write_text(json.dumps(made.measures, indent=2) + "\n")
        print(json.dumps(made.measures))


class _timed:
    def __init__(self, product: Product, name: str) -> None:
        self._product, self._name = product, name

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._product.measures[self._name] = round(time.monotonic() - self._began, 1)


def _resident(engine: Docker | Podman) -> dict[str, int]:
    """Megabytes of each service's processes; what they share is counted for each."""
    services = ("api", "daemon", "webserver")
    return {name: int(engine.exec(name, "python3", "-c", RESIDENT).stdout or 0) for name in services}


def test_the_image_has_no_compiler_and_no_installer_in_it(product: Product) -> None:
    for tool in (*COMPILERS, *INSTALLERS):
        assert product.engine.run("sh", "-c", f"command -v {tool}").stdout.strip() == "", tool
    for module in ("pip", "hatchling", "pytest"):
        ran = product.engine.run("python3", "-c", f"import {module}")
        assert ran.returncode != 0 and "ModuleNotFoundError" in ran.stdout + ran.stderr, module
    assert product.engine.run("dpdau", "--version").stdout.strip().endswith(f"dpdau {VERSION}")


def test_the_image_is_of_a_user_without_rights_and_holds_no_secret(product: Product) -> None:
    config: Any = product.engine.image()["Config"]
    assert config["User"] == "10001:10001" and config["Entrypoint"] == ["dpdau"]
    assert config["Labels"]["org.opencontainers.image.version"] == VERSION
    told = json.dumps(product.engine.image())
    assert not [secret for secret in product.secrets if secret in told]
    assert product.engine.run("id", "-u").stdout.strip() == "10001"
    owned = product.engine.run("sh", "-c", "find / -xdev -user 10001 -not -path '/data*' -not -path '/proc*'; true")
    assert owned.stdout.strip() == "", "the services own nothing of the image but /data"
    inside = product.engine.run("find", "/opt/dpdau", "-name", ".env*", user="0").stdout
    assert inside.strip() == ""


@pytest.mark.parametrize("service", ["api", "daemon", "webserver"])
def test_a_service_can_write_to_its_volume_and_to_memory_and_to_nothing_else(product: Product, service: str) -> None:
    for place in ("/", "/opt/dpdau", "/etc", "/usr/local", "/home"):
        ran = product.engine.exec(service, "sh", "-c", f"touch {place}/written")
        assert ran.returncode != 0 and "Read-only file system" in ran.stdout + ran.stderr, (place, ran)
    for place in ("/data", "/tmp", "/dev/shm"):
        assert product.engine.exec(service, "sh", "-c", f"touch {place}/w && rm {place}/w").returncode == 0, place


@pytest.mark.parametrize("service", ["postgres", "api", "daemon", "webserver"])
def test_no_process_of_a_service_is_root_has_a_capability_or_can_gain_one(product: Product, service: str) -> None:
    fields = "Uid|CapInh|CapPrm|CapEff|CapBnd|NoNewPrivs"
    told = product.engine.exec(service, "sh", "-c", f"grep -hE '^({fields}):' /proc/[0-9]*/status").stdout
    rows = [line.split(":", 1) for line in told.splitlines() if ":" in line]
    uid = "999" if service == "postgres" else "10001"
    wanted = {"Uid": {uid}, "NoNewPrivs": {"1"}}
    seen: dict[str, set[str]] = {}
    for name, values in rows:
        seen.setdefault(name, set()).update(values.split())
    assert {name: seen[name] for name in wanted} == wanted
    assert {value for name in seen if name.startswith("Cap") for value in seen[name]} == {"0" * 16}


def test_the_running_deployment_passes_the_smoke_test(product: Product) -> None:
    command = [sys.executable, str(PROJECT / "tools" / "verify_deploy.py"), product.engine.api]
    environment = {**os.environ, "DPDAU_API_KEY": product.key}
    ran = subprocess.run(product.engine.here(*command), env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("\nok ") == 9


@pytest.mark.parametrize("missing", ["HASH_SALT_SECRET", "SERVICE_API_KEY", "POSTGRES_PASSWORD", "START_DATE"])
def test_compose_refuses_to_begin_without_a_secret_and_names_it(
    product: Product, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = product.engine.variables.read_text()
    less = product.engine.variables.with_name(f"without-{missing}")
    less.write_text(re.sub(rf"^{missing}=.*$", "", text, flags=re.MULTILINE))
    monkeypatch.setattr(product.engine, "variables", less)
    hidden = product.engine.variables.with_name(".env")
    hidden.rename(hidden.with_name("hidden"))  # compose reads one beside its file, too
    try:
        ran = product.engine.compose("config")
    finally:
        hidden.with_name("hidden").rename(hidden)
    assert ran.returncode != 0
    assert missing in ran.stdout + ran.stderr or "Set it in docker/.env" in ran.stdout + ran.stderr


def test_events_become_numbers_an_erasure_is_verified_and_nothing_is_lost_when_everything_is_stopped(
    product: Product,
) -> None:
    # Events of 40 days, and their numbers: web server to daemon to run.
    for day in product.first_days:
        product.post([*PEOPLE, SHE], day)
        product.complete(day)
    last = product.first_days[-1]
    with _timed(product, "publication_seconds"):
        product.publish_due()
    assert product.counted() == len(PEOPLE) + 1
    number = product.ask("GET", f"/mau?end={last}&window=30")
    assert (number.status, number.said["private"]) == (200, True)
    assert product.ask("GET", f"/dau/{last}").status == 200

    # She asks to be erased; the daemon's sensor does the rest.
    asked = product.ask("POST", "/erasure", {"user_id": SHE, "through": str(last), "reference": "ticket-1"})
    assert asked.status == 202
    (receipt,) = asked.said["receipts"]
    with _timed(product, "erasure_seconds"):
        wait_for("the receipt", lambda: product.ask("GET", f"/erasure/{receipt}").said["verified"], seconds=900)
    shown = product.ask("GET", f"/erasure/{receipt}?verify=1").said
    assert (shown["state"], shown["verified"], shown["survivors"]) == ("verified", True, [])

    # What is acknowledged now waits in the log; the server is killed, and everything else stopped.
    product.post([*PEOPLE, *NEWCOMERS], product.next_day)
    before = product.read()
    product.measures["resident_megabytes"] = _resident(product.engine)
    product.engine.kill("api")
    product.engine.down()
    with _timed(product, "start_seconds"):
        product.engine.up()

    assert product.read() == before
    again = product.ask("GET", f"/erasure/{receipt}?verify=1").said
    assert (again["verified"], again["survivors"], again["signature"] != "") == (True, [], True)
    product.complete(product.next_day)
    product.publish_due()
    assert product.ask("GET", f"/dau/{product.next_day}").status == 200
    assert product.counted() == len(PEOPLE) + len(NEWCOMERS), "the newcomers were in the log alone, and she is gone"
    checked = product.engine.exec("daemon", "dpdau", "verify-ledger")
    assert checked.returncode == 0, checked.stderr


class Shell:
    """Where the commands of the page are typed: in a checkout, with a `docker` that is this deployment's."""

    def __init__(self, product: Product, folder: Path) -> None:
        self.checkout, self.elsewhere = product.engine.folder, folder / "elsewhere"
        self.elsewhere.mkdir()
        self._environment = engines.stand_in(product.engine, folder)
        self._real = {"/elsewhere/": f"{self.elsewhere}/", "http://127.0.0.1:8000": product.engine.api}

    def type(self, heading: str, **real: str) -> list[str]:
        """What each block below this heading prints; every command of it has to end well."""
        return [self._run(block, real) for block in page.blocks("sh")[heading]]

    def _run(self, block: str, real: dict[str, str]) -> str:
        for name, instead in {**self._real, **real}.items():
            block = block.replace(name, instead)
        script = f"shopt -s expand_aliases\nset -ex -o pipefail\n{page.alias('dpdau')}\n{block}"
        ran = subprocess.run(
            ["bash", "-c", script],
            cwd=self.checkout,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-6000:]}"
        return ran.stdout


@pytest.fixture(scope="module")
def shell(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(product, tmp_path_factory.mktemp("shell"))


def test_guard_and_smoke_test_run_inside_the_image_by_the_commands_of_the_page(shell: Shell) -> None:
    shutil.copytree(PROJECT / "tools", shell.checkout / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (said,) = shell.type("The tools inside the image")
    assert said.count("Secrets and settings: usable.") == 1 and said.count("\nok ") == 9, said


def events(product: Product, folder: Path) -> None:
    """A folder `events` with a file of yesterday."""
    rows = [{"user_id": user, "day": str(product.today - timedelta(days=1))} for user in PEOPLE]
    (folder / "events").mkdir()
    (folder / "events" / "yesterday.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_event_files_are_taken_in_by_the_commands_of_the_page_and_none_of_them_stays(
    product: Product, shell: Shell
) -> None:
    events(product, shell.checkout)
    (said,) = shell.type("Event files")
    assert f'"{product.today - timedelta(days=1)}"' in said, said
    left = product.engine.exec("daemon", "sh", "-c", "ls /tmp; grep -rlF planted.example /data /tmp; true")
    assert "events" not in left.stdout.split() and "/data" not in left.stdout, left.stdout


def test_the_mart_is_handed_on_by_the_command_of_the_page(product: Product, shell: Shell) -> None:
    shell.type("Numbers for readers")
    assert str(product.first_days[-1]) in (shell.checkout / "mart" / "latest.csv").read_text()


def test_after_the_loss_of_everything_the_commands_of_the_page_bring_numbers_receipts_and_keys_back(
    product: Product, shell: Shell
) -> None:
    made = json.loads(product.engine.exec("daemon", "dpdau", "api-key", "new", "reader", "--scope", "read").stdout)
    before, requests = product.read(), product.ask("GET", "/erasure").said
    said, _ = shell.type("Backup")
    head = json.JSONDecoder().raw_decode(said[said.index("{") :])[0]["head"]
    assert {path.name for path in shell.elsewhere.iterdir()} == {"2026-02-02.tar", "api_keys.json"}
    assert {path.stat().st_mode & 0o777 for path in shell.elsewhere.iterdir()} == {0o600}

    # Somebody asks to be erased afterwards, which the backup does not know of; then all is lost.
    asked = {"user_id": NEWCOMERS[0], "through": str(product.next_day)}
    assert product.ask("POST", "/erasure", asked).status == 202
    (shell.checkout / "requests-since-2026-02-02.csv").write_text(f"user_id,through\n{','.join(asked.values())}\n")
    required = ["tar", "-C", str(shell.checkout), "-cf", str(shell.checkout / "events-since-2026-02-02.tar"), "events"]
    engines.required(required)
    lost = product.engine.exec("daemon", "sh", "-c", "rm -rf /data/mart /data/backups")
    assert lost.returncode == 0, lost.stderr

    shell.type("After a loss", HEAD=head)
    assert product.read() == before
    answer = product.engine.ask(f"{product.engine.api}/dau/{product.next_day}", X_API_Key=made["key"])
    assert answer.status == 200
    now = product.ask("GET", "/erasure").said
    assert [each for each in now if each in requests] == requests
    (again,) = [each["receipt"] for each in now if each not in requests]
    shown = product.ask("GET", f"/erasure/{again}?verify=1").said
    assert (shown["verified"], shown["survivors"]) == (True, []), shown
    checked = product.engine.exec("daemon", "dpdau", "verify-ledger")
    assert checked.returncode == 0, checked.stderr


def test_the_web_server_reaches_a_run_that_the_daemon_has_begun_and_interrupts_it(product: Product) -> None:
    """The run waits for the lock of the state, which another container holds."""
    hold = (
        "from resources.settings_env import read_settings\nfrom resources.store import open_store\nimport time\n"
        "store = open_store(read_settings())\n"
        "with store.state.activity.lock():\n    print('held', flush=True)\n    time.sleep(900)\n"
    )
    yesterday = product.today - timedelta(days=1)
    product.post(PEOPLE[:1], yesterday)
    product.complete(yesterday)
    with _holding(product, hold):
        run = product.launch("publish_due")
        wait_for("the run", lambda: "ExecutionStepStartEvent" in product.events(run))
        assert product.end(run) == "TerminateRunSuccess"
        wait_for("the interruption", lambda: "DagsterExecutionInterruptedError" in product.events(run))
    wait_for("its end", lambda: product.status(run) in OVER)


class _holding:
    """A command in the API's container, from when it has said that it began until the end of the block."""

    def __init__(self, product: Product, code: str) -> None:
        self._product, self._code = product, code

    def __enter__(self) -> None:
        started = ["sh", "-c", 'python3 -c "$1" >/tmp/held 2>&1 & echo $!', "sh", self._code]
        self._pid = self._product.engine.exec("api", *started).stdout.split()[-1]
        said = ["cat", "/tmp/held"]
        wait_for("the lock", lambda: "held" in self._product.engine.exec("api", *said).stdout)

    def __exit__(self, *_: object) -> None:
        ended = self._product.engine.exec("api", "sh", "-c", f"kill {self._pid}")
        assert ended.returncode == 0, ended.stderr
