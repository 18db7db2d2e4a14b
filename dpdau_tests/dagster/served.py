"""`dpdau ui` in a process of its own, as a user starts it, and what its GraphQL says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from dpdau_tests.support.simulation import Clock

PATIENCE_SECONDS = 300
SKIPPED_AT_ONCE = timedelta(seconds=5)
"""What Dagster's clock skips at each look of a test that waits. A run has three minutes of it to start."""


def wait_for(what: str, ready: Callable[[], bool], each_time: Callable[[], None] = lambda: None) -> None:
    """Poll what another process does; only a hang makes the patience end."""
    for _ in range(2 * PATIENCE_SECONDS):
        if ready():
            return
        time.sleep(0.5)
        each_time()
    pytest.fail(f"{what} did not come")


class Ui:
    """A running `dpdau ui` and its GraphQL; and its clock, if it can be turned."""

    def __init__(self, port: int, folder: Path, clock: Clock | None) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.folder = folder
        self._clock = clock

    def wait_for(self, what: str, ready: Callable[[], bool]) -> None:
        """Wait while time goes by quickly: sensors and backfills look every half a minute."""
        wait_for(what, ready, self.skip_time)

    def skip_time(self) -> None:
        if self._clock and not self.is_starting():
            self._clock.set(self._clock.now() + SKIPPED_AT_ONCE)

    def is_starting(self) -> bool:
        """Whether a run is, whose time to do so is limited."""
        query = "{ runsOrError(filter: {statuses: [STARTING]}) { ... on Runs { count } } }"
        return bool(self.ask(query)["runsOrError"]["count"])

    def is_up(self) -> bool:
        try:
            return bool(self.ask("{ version }"))
        except (urllib.error.URLError, ConnectionError):
            return False

    def ask(self, query: str) -> dict:
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["data"]

    def node(self, asset: str, asked: str) -> dict:
        """What is asked of an asset. While Dagster loads the code anew there is none, which is waited for."""
        query, found = f'{{ assetNodes(assetKeys: [{{path: ["{asset}"]}}]) {{ {asked} }} }}', list[dict]()
        wait_for(asset, lambda: bool(found.extend(self.ask(query)["assetNodes"]) or found))
        return found[0]

    def materialised(self, asset: str) -> int:
        """How many partitions of the asset are there."""
        return self.node(asset, "partitionStats { numMaterialized }")["partitionStats"]["numMaterialized"]

    def stale(self, asset: str, day: str) -> bool:
        """Whether the partition is shown as out of date."""
        return self.node(asset, f'staleStatus(partition: "{day}")')["staleStatus"] == "STALE"

    def check_passed(self, asset: str, name: str) -> bool | None:
        """What the graph shows of a check: its result on the newest materialisation; None without one."""
        asked = "checks { name executionForLatestMaterialization { status } }"
        answer = self.node(asset, f"assetChecksOrError {{ ... on AssetChecks {{ {asked} }} }}")
        checks = answer["assetChecksOrError"]["checks"]
        (execution,) = (check["executionForLatestMaterialization"] for check in checks if check["name"] == name)
        return {"SUCCEEDED": True, "FAILED": False}.get(execution["status"]) if execution else None

    def backfills(self) -> list[str]:
        """How every backfill stands."""
        query = "{ partitionBackfillsOrError { ... on PartitionBackfills { results { status } } } }"
        return [backfill["status"] for backfill in self.ask(query)["partitionBackfillsOrError"]["results"]]

    def runs_of(self, job: str) -> int:
        """How many runs of the job there are, whatever became of them."""
        query = f'{{ runsOrError(filter: {{pipelineName: "{job}"}}) {{ ... on Runs {{ results {{ runId }} }} }} }}'
        return len(self.ask(query)["runsOrError"]["results"])

    def has_run(self, asset: str) -> bool:
        """Whether an asset without partitions is there."""
        return bool(self.node(asset, "assetMaterializations(limit: 1) { runId }")["assetMaterializations"])


@contextmanager
def serve(
    folder: Path, started_in: Path, environment: Mapping[str, str], clock: Clock | None = None, *arguments: str
) -> Iterator[Ui]:
    """`dpdau ui` on a free port, until the end of the block. What it prints is in `folder`: `printed` and `said`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dpdau_assets.cli", "ui", "--port", str(port), *arguments]
    with (folder / "printed").open("wb") as printed, (folder / "said").open("wb") as said:
        server = subprocess.Popen(
            command,
            cwd=started_in,
            stdout=printed,
            stderr=said,
            start_new_session=True,
            env=clock.environment(dict(environment)) if clock else environment,
        )
    try:
        ui = Ui(port, folder, clock)
        wait_for("the UI", ui.is_up)
        yield ui
    finally:
        server.send_signal(signal.SIGTERM)  # to the one process that was started: the others end with it
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            raise
