"""`dpdau serve` in a process of its own, as a user starts it, and plain requests to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dpdau_tests.support.master_secret import SECRET

KEY = "0f6d1c9b8a7e4f32b5d16a90c3e8f7d2415b6a09"
KEPT = ("PATH", "HOME", "LANG", "PYTHONPATH", "TMPDIR")
PATIENCE = 600  # tenths of a second; only a hang makes it end


@dataclass(frozen=True)
class Answer:
    """What came back. `said` is its JSON, None for another body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True)
class Served:
    """A running server, its process group, and what it prints."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, method: str, path: str, body: bytes | object = None, key: str | None = KEY, **headers: str) -> Answer:
        """One request on a connection of its own. A body that is no bytes is sent as JSON."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["X-API-Key"] = key
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def workers(self) -> list[int]:
        """Process ids of the workers; of the only process, where there is one."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        python = [int(child) for child in children if "spawn_main" in _command(int(child))]
        return python or [self.process.pid]

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the whole group; the exit code of its first process."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)
        return self.process.wait()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


@contextmanager
def serve(folder: Path, workers: int = 1, arguments: tuple[str, ...] = (), **environment: str) -> Iterator[Served]:
    """A server on the store in `folder`/store, until the end of the block. What it prints is in `folder`/log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dpdau_assets.cli", "serve", "--port", str(port), "--workers", str(workers)]
    kept = {
        name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "PYTHONPATH", "TMPDIR")
    }
    own = {"DATA_DIR": str(folder / "store"), "HASH_SALT_SECRET": SECRET, "SERVICE_API_KEY": KEY}
    log = folder / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env={**kept, **own, "RATE_LIMIT_PER_MINUTE": "1000000", **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        served = Served(port, process, log)
        try:
            _wait_until_it_answers(served)
            yield served
        finally:
            served.end()


def _wait_until_it_answers(served: Served) -> None:
    for _ in range(PATIENCE):
        if served.process.poll() is not None:
            pytest.fail(f"The server has ended: {served.log.read_text()}")
        try:
            if served.ask("GET", "/healthz", key=None).status == 200:
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"The server does not answer: {served.log.read_text()}")
