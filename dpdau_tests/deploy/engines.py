"""The image built and compose.yaml run, by Docker where its daemon answers, and else by buildah, podman and
podman-compose as root, on a base that debootstrap makes.

With podman the services have a network namespace of their own, in which `postgres` is this machine; so no port of the
machine is taken. What that changes in compose.yaml is in OVERRIDE and nowhere else.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import pytest

from dpdau_assets.core.version import VERSION
from dpdau_tests.api.serving import Answer
from dpdau_tests.support.project import PROJECT

IMAGE, POSTGRES = f"dpdau:{VERSION}", "docker.io/library/postgres:17-bookworm"
COMPOSE = Path("docker") / "compose.yaml"
TOOLS = ("podman", "buildah", "runc", "debootstrap", "catatonit", "nsenter", "ip")
SUITE = "trixie"
MIRROR = os.environ.get("DPDAU_DEBIAN_MIRROR", "http://deb.debian.org/debian")
CACHE = os.environ.get("DPDAU_CONTAINER_BASE")
"""A folder in which the base is kept from one run to the next."""

PATIENCE_SECONDS = 300
CLONE_NEWNET = 0x40000000
LIMITS = {"nofile": 1024, "nproc": 4096}

OVERRIDE = """
x-here: &here
  network_mode: host
  networks: !reset null
  ulimits: { nofile: 1024, nproc: 4096 }
  extra_hosts: ["postgres:127.0.0.1"]
x-in-our-order: &ordered  # podman asks no health by itself where systemd is not
  <<: *here
  depends_on: !reset null
services:
  postgres: { <<: *here, healthcheck: { start_interval: !reset null } }
  prepare: { <<: *ordered }
  api: { <<: *ordered, ports: !reset null, healthcheck: { start_interval: !reset null } }
  daemon: { <<: *ordered, healthcheck: { start_interval: !reset null } }
  webserver: { <<: *ordered, ports: !reset null, healthcheck: { start_interval: !reset null } }
"""


def called(command: list[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command, ended; its output is in the test's report if it failed and somebody shows it."""
    own = None if environment is None else {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=own, stdin=subprocess.DEVNULL)


def required(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """What a command prints that must not fail."""
    ran = called(command, environment)
    if ran.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stdout[-3000:]}\n{ran.stderr[-6000:]}")
    return ran.stdout


def request(url: str, method: str, body: object, headers: Mapping[str, str]) -> Answer:
    address, _, path = url.removeprefix("http://").partition("/")
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    content = None if body is None else json.dumps(body).encode()
    if content is not None:
        sent["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, f"/{path}", content, sent)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def wait_for(what: str, ready: object, seconds: int = PATIENCE_SECONDS) -> None:
    """Poll what others do; only a hang makes the patience end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ready():  # type: ignore[operator]
            return
        time.sleep(0.5)
    pytest.fail(f"{what} did not come within {seconds} s.")


# --- Docker ---------------------------------------------------------------------------------------------------------


def docker_answers() -> bool:
    """Whether a daemon does, and compose is there."""
    if shutil.which("docker") is None:
        return False
    return all(called(["docker", *words]).returncode == 0 for words in (("info",), ("compose", "version")))


@dataclass
class Docker:
    """Docker compose on the files as they are."""

    folder: Path
    variables: Path
    name: str = "docker compose"
    project: str = field(default_factory=lambda: f"dpdau-test-{os.getpid()}")
    ports: tuple[int, int] = field(default_factory=lambda: (_free_port(), _free_port()))

    def __post_init__(self) -> None:
        self.api, self.ui = (f"http://127.0.0.1:{port}" for port in self.ports)
        self._environment = {"API_PORT": str(self.ports[0]), "UI_PORT": str(self.ports[1])}

    def build(self) -> None:
        required(["docker", "build", "--file", str(PROJECT / "docker" / "Dockerfile"), "--tag", IMAGE, str(PROJECT)])

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return called(self._compose(*arguments), self._environment)

    def _compose(self, *arguments: str) -> list[str]:
        files = ["--file", str(self.folder / COMPOSE), "--env-file", str(self.variables)]
        return ["docker", "compose", "--project-name", self.project, *files, *arguments]

    def description(self) -> dict[str, object]:
        """What another process needs to have this deployment before it."""
        named = {"folder": str(self.folder), "variables": str(self.variables)}
        return {"engine": "docker", **named, "project": self.project, "ports": self.ports}

    def typed(self, verb: str, *rest: str) -> int:
        """What somebody types after `docker compose -f docker/compose.yaml`, who has no terminal; its exit code."""
        without = ["-T"] if verb in ("exec", "run") and "-T" not in rest else []
        environment = {**os.environ, **self._environment}
        return subprocess.run(self._compose(verb, *without, *rest), env=environment, check=False).returncode

    def typed_run(self, *rest: str) -> int:
        """What somebody types after `docker run`; its exit code."""
        return subprocess.run(["docker", "run", *rest], check=False).returncode

    def _require(self, *arguments: str) -> None:
        ran = self.compose(*arguments)
        assert ran.returncode == 0, ran.stderr[-6000:]

    def up(self) -> None:
        self._require("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(PATIENCE_SECONDS))

    def down(self) -> None:
        self._require("down")

    def up_database(self) -> None:
        self._require("up", "--detach", "--wait", "postgres")

    def lose(self, volume: str) -> None:
        required(["docker", "volume", "rm", f"{self.project}_{volume}"])

    def remove(self) -> None:
        self._require("down", "--volumes")

    def kill(self, service: str) -> None:
        self._require("kill", "--signal", "KILL", service)

    def run(self, *command: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        as_user = ["--user", user] if user else []
        return called(["docker", "run", "--rm", *as_user, "--entrypoint", command[0], IMAGE, *command[1:]])

    def exec(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self.compose("exec", "-T", service, *command)

    def image(self) -> dict[str, object]:
        (found,) = json.loads(required(["docker", "image", "inspect", IMAGE]))
        return found

    def here(self, *command: str) -> list[str]:
        return [*command]

    def ask(self, url: str, method: str = "GET", body: object = None, **headers: str) -> Answer:
        return request(url, method, body, headers)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# --- podman ---------------------------------------------------------------------------------------------------------


def missing_for_podman() -> list[str]:
    """What is not there of the tools, or of the rights, that it takes."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if not Path(sys.executable).with_name("podman-compose").exists():
        missing.append("podman-compose")
    return [*missing, *(["root"] if os.geteuid() != 0 else [])]


@dataclass
class Podman:
    """podman-compose on the files and OVERRIDE, with storage and a network of its own."""

    folder: Path
    variables: Path
    storage: Path
    name: str = "podman-compose"
    project: str = "dpdautest"
    api: str = "http://127.0.0.1:8000"
    ui: str = "http://127.0.0.1:3000"

    namespace: str = field(default_factory=lambda: f"dpdau-{os.getpid()}")

    def __post_init__(self) -> None:
        self._environment = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
        self._places = ["--root", str(self.storage / "root"), "--runroot", str(self.storage / "runroot")]
        self._wrapper = self.storage / "podman"
        self._override = self.storage / "override.yaml"

    def begin(self) -> None:
        """Make what everything else needs: the command with its options, and the network."""
        options = " ".join([*self._places, "--runtime", "runc", "--cgroup-manager=cgroupfs"])
        self._wrapper.write_text(f'#!/bin/sh\nexport STORAGE_DRIVER=vfs\nexec podman {options} "$@"\n')
        self._wrapper.chmod(0o755)
        self._override.write_text(OVERRIDE)
        required(["ip", "netns", "add", self.namespace])
        required(["ip", "netns", "exec", self.namespace, "ip", "link", "set", "lo", "up"])
        self._inside = ThreadPoolExecutor(1, initializer=_enter, initargs=(f"/run/netns/{self.namespace}",))

    def here(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *command]

    def ask(self, url: str, method: str = "GET", body: object = None, **headers: str) -> Answer:
        return self._inside.submit(request, url, method, body, headers).result()

    # The image, and PostgreSQL's stand-in.

    def build(self) -> None:
        self._import_base()
        self._bud(PROJECT / "docker" / "Dockerfile", f"localhost/{IMAGE}", PROJECT)
        postgres = PROJECT / "dpdau_tests" / "deploy" / "postgres"
        self._bud(postgres / "Dockerfile", POSTGRES, postgres)

    def _bud(self, file: Path, tag: str, context: Path) -> None:
        options = ["--pull-never", "--network", "host", "--format", "docker", *self._trusted()]
        named = ["--build-arg", f"BASE=localhost/dpdau-base:{SUITE}", "--tag", tag, "--file", str(file), str(context)]
        required(["buildah", *self._places, "bud", *options, *named], self._environment)

    def _trusted(self) -> list[str]:
        """Where this machine's pip trusts certificates of its own, the build does as well."""
        bundle = os.environ.get("PIP_CERT")
        if not bundle:
            return []
        configuration = self.storage / "pip.conf"
        configuration.write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
        mounts = {bundle: "/etc/ssl/certs/ca-certificates.crt", str(configuration): "/etc/pip.conf"}
        return [word for ours, theirs in mounts.items() for word in ("--volume", f"{ours}:{theirs}:ro")]

    def _import_base(self) -> None:
        archive = Path(CACHE or self.storage) / f"base-{SUITE}.tar"
        if not archive.exists():
            archive.parent.mkdir(parents=True, exist_ok=True)
            tree = self.storage / "base"
            packages = "--include=python3,python3-venv,ca-certificates"
            required(["debootstrap", "--variant=minbase", packages, SUITE, str(tree), MIRROR])
            partial = archive.with_suffix(".part")
            required(["tar", "--directory", str(tree), "--create", "--file", str(partial), "."])
            partial.rename(archive)
            shutil.rmtree(tree)
        required([str(self._wrapper), "import", str(archive), f"localhost/dpdau-base:{SUITE}"])

    # Services.

    def description(self) -> dict[str, object]:
        """What another process needs to have this deployment before it."""
        named = {"folder": str(self.folder), "variables": str(self.variables), "storage": str(self.storage)}
        return {"engine": "podman", **named, "namespace": self.namespace}

    def typed(self, verb: str, *rest: str) -> int:
        """What somebody types after `docker compose -f docker/compose.yaml`, who has no terminal; its exit code."""
        words = [word for word in rest if word != "-T"]
        if (verb, *rest) == ("down",):
            self.down()
        elif (verb, *rest) == ("up", "--detach", "--wait"):
            self.up()
        elif (verb, *rest) == ("up", "--detach", "--wait", "postgres"):
            self.up_database()
        elif verb == "run":
            self.up_database()
            return subprocess.run(self._compose(verb, *rest), check=False).returncode
        elif verb == "exec":
            inside = [str(self._wrapper), "exec", "--interactive", self._container(words[0]), *words[1:]]
            return subprocess.run(self.here(*inside), check=False).returncode
        elif verb == "cp":
            service, _, path = rest[0].partition(":")
            required([str(self._wrapper), "cp", f"{self._container(service)}:{path}", rest[1]])
        else:
            pytest.fail(f"{verb}: nobody knows how it is tried here")
        return 0

    def typed_run(self, *rest: str) -> int:
        """What somebody types after `docker run`; its exit code."""
        limits = [f"--ulimit={name}={most}:{most}" for name, most in LIMITS.items()]
        options = ["--pull=never", *limits, *([] if "--network" in rest else ["--network=host"])]
        named = [f"localhost/{word}" if word == IMAGE else word for word in rest]
        return subprocess.run(self.here(str(self._wrapper), "run", *options, *named), check=False).returncode

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return called(self._compose(*arguments))

    def _compose(self, *arguments: str) -> list[str]:
        program = [str(Path(sys.executable).with_name("podman-compose")), "--in-pod", "false", "--no-ansi"]
        options = ["--podman-path", str(self._wrapper), "--env-file", str(self.variables), "-p", self.project]
        files = ["-f", str(self.folder / COMPOSE), "-f", str(self._override)]
        return self.here(*program, *options, *files, *arguments)

    def _up(self, *services: str, detached: bool = True) -> None:
        ran = self.compose("up", "--no-build", "--no-deps", *(["--detach"] if detached else []), *services)
        assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-6000:]}"

    def up(self) -> None:
        """In the order that compose.yaml names, each asked for its health as compose.yaml says."""
        self.up_database()
        self._up("prepare")
        wait_for("prepare", lambda: self._state("prepare")["Status"] == "exited")
        assert self._state("prepare")["ExitCode"] == 0, self.podman("logs", self._container("prepare")).stderr
        self._up("api", "daemon", "webserver")
        for service in ("api", "webserver", "daemon"):
            wait_for(service, lambda service=service: self._is_healthy(service))

    def down(self) -> None:
        ran = self.compose("down")
        assert ran.returncode == 0, ran.stderr[-6000:]
        assert self.podman("ps", "--all", "--quiet").stdout.strip() == ""

    def up_database(self) -> None:
        self._up("postgres")
        wait_for("postgres", lambda: self._is_healthy("postgres"))

    def lose(self, volume: str) -> None:
        assert self.podman("volume", "rm", f"{self.project}_{volume}").returncode == 0

    def remove(self) -> None:
        self.compose("down", "--volumes")
        self._inside.shutdown()
        called(["ip", "netns", "delete", self.namespace])
        shutil.rmtree(self.storage, ignore_errors=True)

    def kill(self, service: str) -> None:
        assert self.podman("kill", "--signal", "KILL", self._container(service)).returncode == 0

    def podman(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return called(self.here(str(self._wrapper), *arguments))

    def _container(self, service: str) -> str:
        return f"{self.project}_{service}_1"

    def _state(self, service: str) -> dict[str, object]:
        (found,) = json.loads(self.podman("inspect", self._container(service)).stdout)
        return found["State"]

    def _is_healthy(self, service: str) -> bool:
        if self._state(service)["Status"] not in ("running", "created", "initialized"):
            pytest.fail(f"{service} has ended: {self.podman('logs', self._container(service)).stderr[-6000:]}")
        return self.podman("healthcheck", "run", self._container(service)).returncode == 0

    def run(self, *command: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        limits = [f"--ulimit={name}={most}:{most}" for name, most in LIMITS.items()]
        as_user = ["--user", user] if user else []
        options = ["--rm", "--pull=never", "--network=host", *limits, *as_user, "--entrypoint", command[0]]
        return self.podman("run", *options, f"localhost/{IMAGE}", *command[1:])

    def exec(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self.podman("exec", self._container(service), *command)

    def image(self) -> dict[str, object]:
        (found,) = json.loads(self.podman("image", "inspect", f"localhost/{IMAGE}").stdout)
        return found


def _enter(namespace: str) -> None:
    """This thread's connections are made in the network namespace from now on."""
    with Path(namespace).open() as opened:
        if ctypes.CDLL(None, use_errno=True).setns(opened.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


# --- As a command ---------------------------------------------------------------------------------------------------


DESCRIPTION = "DPDAU_TEST_DEPLOYMENT"
"""The variable that names a deployment to the command that stands in for Docker's."""


def stand_in(engine: Docker | Podman, folder: Path) -> dict[str, str]:
    """The environment of a shell in which `docker` is this deployment's, whatever project the typed words name."""
    program = folder / "bin" / "docker"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexport PATH="$REAL_PATH"\nexec {sys.executable} -m {__name__} "$@"\n')
    program.chmod(0o755)
    paths = {"PATH": f"{program.parent}:{os.environ['PATH']}", "REAL_PATH": os.environ["PATH"]}
    return {**os.environ, **paths, "PYTHONPATH": str(PROJECT), DESCRIPTION: json.dumps(engine.description())}


def described(text: str) -> Docker | Podman:
    """The deployment that another process has begun."""
    told = json.loads(text)
    folder, variables = Path(told["folder"]), Path(told["variables"])
    if told["engine"] == "docker":
        return Docker(folder, variables, project=told["project"], ports=tuple(told["ports"]))
    return Podman(folder, variables, Path(told["storage"]), namespace=told["namespace"])


def main(words: list[str]) -> int:
    """Do what somebody types after `docker`."""
    engine = described(os.environ[DESCRIPTION])
    if words[:3] == ["compose", "-f", str(COMPOSE)]:
        return engine.typed(*words[3:])
    if words[:2] == ["volume", "rm"]:
        engine.lose(words[2].removeprefix("dpdau_"))
        return 0
    if words[0] == "run":
        return engine.typed_run(*words[1:])
    pytest.fail(f"docker {' '.join(words)}: nobody knows how it is tried here")


# --- Which one ------------------------------------------------------------------------------------------------------


@contextmanager
def deployment(folder: Path, variables: Path) -> Iterator[Docker | Podman]:
    """What can build and run here, removed with all that it kept at the end; a test is skipped where nothing can."""
    if docker_answers():
        found: Docker | Podman = Docker(folder, variables)
    else:
        missing = missing_for_podman()
        if missing:
            why = f"No Docker daemon answers, and for podman these are missing: {', '.join(missing)}."
            pytest.fail(why) if os.environ.get("DPDAU_CI") else pytest.skip(why)
        found = Podman(folder, variables, Path(mkdtemp(prefix="dpdau-containers-", dir="/var/tmp")))
        found.begin()
    try:
        yield found
    finally:
        found.remove()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
