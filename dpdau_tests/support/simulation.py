"""A real `dagster-daemon` whose clock the test turns: weeks of schedules, sensors and runs in minutes.

The daemon, a code server beside it and its run workers are ordinary processes of their own. What they take for the
time of day is libfaketime's, by one offset in a file that all of them read; waits and timeouts stay real. Nothing in
the project or in Dagster knows of it. The test process keeps the real clock, and asks `Daemon.now` for the other one.

    with Daemon(home, scratch, environment) as daemon:
        daemon.start(datetime(2025, 12, 1, tzinfo=UTC))
        wait_until("the first day", lambda: daemon.is_idle())
        daemon.set_clock(datetime(2025, 12, 2, 1, tzinfo=UTC))
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorTick, TickStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._utils.schedules import schedule_execution_time_iterator

from dpdau_tests.support.project import PROJECT

PATIENCE_SECONDS = 900

IDLE_MINUTE, BUSY_MINUTE = 5.0, 12.0
"""The real seconds of a minute, while nothing runs and while something does; see `Daemon`."""

_NOTICED_AFTER = 2.5
"""So many real seconds after a jump every process knows of it: each looks at the clock's file after more than one, in
whole seconds. The clock skips the minute's end that long before it. Who wakes then and has not noticed would find
himself at the beginning of a minute, and sleep through all of it.
"""

# libfaketime 0.9.10, which Debian 12 and Ubuntu 24.04 have, breaks CPython's `time.sleep` when CLOCK_MONOTONIC is
# left alone: the deadline is moved by the offset of another clock, and the kernel refuses it.
_SITECUSTOMIZE = """
import select, time

def sleep(seconds, _select=select.select):
    _select([], [], [], seconds)

try:
    time.sleep(0.001)
except OSError:
    time.sleep = sleep
"""

_PROBE = """
import sys, threading, time

for line in sys.stdin:
    deadline = time.monotonic() + 10  # the file's content is kept for a while
    while abs(time.time() - float(line)) > 60 and time.monotonic() < deadline:
        time.sleep(0.1)
    before = time.monotonic()
    time.sleep(0.05)
    threading.Event().wait(0.05)
    print(time.time(), time.monotonic() - before, flush=True)
"""


# --- The clock ---------------------------------------------------------------------------------------------------


def find_libfaketime() -> Path | None:
    """What DPDAU_LIBFAKETIME names, or where Debian's package puts it."""
    named = os.environ.get("DPDAU_LIBFAKETIME")
    places = [Path(named)] if named else sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return next((place for place in places if place.is_file()), None)


def need_libfaketime() -> Path:
    """The library; without it the test is skipped, and fails in CI."""
    library = find_libfaketime()
    if library is None:
        assert not os.environ.get("DPDAU_CI"), "CI must have libfaketime"
        pytest.skip("no libfaketime here: apt-get install libfaketime, or set DPDAU_LIBFAKETIME")
    return library


class Clock:
    """The time of day of every process that has `environment()`: that of the machine, plus what the file says."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "offset"
        self._library = library
        self._sitecustomize = folder / "python"
        self._sitecustomize.mkdir(parents=True, exist_ok=True)
        (self._sitecustomize / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self._jumps: list[tuple[float, float]] = []
        self._offset = 0.0
        self._write(0.0)

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """A process environment with this clock. Python's path begins with what repairs `time.sleep`."""
        paths = [str(self._sitecustomize), given.get("PYTHONPATH", "")]
        return {
            **given,
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # a process may be two seconds behind: each look at the file costs
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # waits last as long as they do
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else threads that wait for Python's lock spin: 30 times the time
            "NO_FAKE_STAT": "1",  # else every compiled module looks out of date after a jump, and is compiled again
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        }

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self._offset, UTC)

    def set(self, moment: datetime) -> None:
        """From now on it is this moment, in every process at once."""
        before = self.now().timestamp()
        self._write(moment.timestamp() - time.time())
        self._jumps.append((before, moment.timestamp()))

    def real_seconds(self, begin: float, end: float) -> float:
        """How long it really took from one of its times to another: without what was skipped in between."""
        skipped = (min(to, end) - max(since, begin) for since, to in self._jumps if since < end and to > begin)
        return end - begin - sum(skipped)

    def _write(self, offset: float) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+.6f}\n")
        new.replace(self._file)
        self._offset = offset


@cache
def check_clock(library: Path, folder: Path) -> None:
    """A running Python follows the file, and its waits last as long as they should."""
    clock = Clock(folder, library)
    process = subprocess.Popen(
        [sys.executable, "-c", _PROBE],
        env=clock.environment(os.environ),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdin and process.stdout
        for moment in (datetime(2025, 12, 1, tzinfo=UTC), datetime(2029, 12, 1, tzinfo=UTC)):
            clock.set(moment)
            process.stdin.write(f"{moment.timestamp()}\n")
            process.stdin.flush()
            told, waited = map(float, process.stdout.readline().split())
            assert abs(told - clock.now().timestamp()) < 1, f"{library} does not move the clock of a running Python"
            assert 0.1 <= waited < 5, f"under {library} waits of 0.1 seconds take {waited}"


# --- The daemon --------------------------------------------------------------------------------------------------


class Daemon:
    """`dagster-daemon run` on a home of its own, with a clock that the test sets.

    Dagster's scheduler sleeps until the next full minute, in real seconds, and sees no jump before that. So the clock
    runs in the last seconds of a minute only, and skips to those of the next minute when they are over: nobody who
    sleeps until the next one sleeps for longer. They are more while a run is under way, which has better use for the
    cores than sensors that look every half a minute, and is given up if it has not started after three minutes. Once
    the last one has ended, the clock skips whole minutes in between. It never goes back, since sensors would sleep
    for as long.

    The code server is a process of its own, as in a deployment: one that the daemon starts by itself is started anew
    every minute. `home` becomes DAGSTER_HOME, with the project's dagster.yaml. `scratch` has the clock and the log.
    """

    def __init__(self, home: Path, scratch: Path, environment: Mapping[str, str]) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / "dagster.yaml", home)
        library = need_libfaketime()
        check_clock(library, scratch / "probe")
        self.clock = Clock(scratch / "clock", library)
        self.log = scratch / "daemon.log"
        self._environment = self.clock.environment({**environment, "DAGSTER_HOME": str(home)})
        self._workspace = scratch / "workspace.yaml"
        self._port = _free_port()
        server = {"host": "127.0.0.1", "port": self._port, "location_name": "dpdau"}
        self._workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))  # which is YAML too
        self._process: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._pace = threading.Thread(target=self._skip_minutes, daemon=True)
        self._jumped = self._turned = time.monotonic()
        self.changed = self.now()
        with pytest.MonkeyPatch.context() as patch:  # dagster.yaml names this variable
            patch.setenv("DAGSTER_HOME", str(home))
            self.instance = dg.DagsterInstance.from_config(str(home))

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        if self._pace.is_alive():
            self._pace.join()
        self.crash()
        self.instance.dispose()

    def start(self, begin: datetime | None = None) -> None:
        """At this time, or where the clock stands."""
        assert not self.is_running(), "it runs already"
        if begin is not None:
            self.set_clock(begin)
        self._start_server()
        self._process = self._launch("dagster-daemon", "run", "-w", str(self._workspace))
        if not self._pace.ident:
            self._pace.start()

    def _start_server(self) -> None:
        if self._server is None or self._server.poll() is not None:
            module = ["-m", "dpdau_assets.definitions", "-d", str(PROJECT)]
            self._server = self._launch("dagster", "api", "grpc", "-h", "127.0.0.1", "-p", str(self._port), *module)
            wait_until("the code server", lambda: _answers(self._port))

    def _launch(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name(name)), *arguments]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, cwd=PROJECT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._groups.append(process.pid)
        return process

    def command(self, *arguments: str) -> None:
        """What an operator types: one of `dagster`, at its time."""
        command = [str(Path(sys.executable).with_name("dagster")), *arguments]
        done = subprocess.run(command, cwd=PROJECT, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def start_schedules(self) -> None:
        """All of them, as an operator does."""
        self._start_server()
        self.command("schedule", "start", "--start-all", "-w", str(self._workspace))

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop it as an operator does; the code server goes on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """The daemon alone, at once; runs go on."""
        self._end(signal.SIGKILL)

    def crash(self) -> None:
        """All of it at once, code server and run workers too, as when the machine goes down."""
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._groups.clear()
        self._end(signal.SIGKILL)
        if self._server:
            self._server.wait(PATIENCE_SECONDS)

    def restart(self) -> None:
        """After SIGKILL."""
        self.kill()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(PATIENCE_SECONDS)
        self._process = None

    # --- Its time ---

    def now(self) -> datetime:
        return self.clock.now()

    def set_clock(self, moment: datetime) -> None:
        """Jump to this moment's minute, into its last seconds. Only when nothing is under way: a run that is starting
        is given up after three minutes by the clock. And only once the scheduler has woken after a skip: it sleeps
        until the next one then, and the code server, which it asks, has noticed by that time.
        """
        while not self._set_clock(moment):
            time.sleep(0.1)

    def _set_clock(self, moment: datetime) -> bool:
        """Whether it could be done now."""
        with self._changing:
            if self.is_running() and time.monotonic() - self._turned < _NOTICED_AFTER + 0.3:
                return False
            second = self.now().timestamp() % 60 if self.is_running() else 60 - IDLE_MINUTE
            self._jump(moment.replace(second=0, microsecond=0) + timedelta(seconds=second))
            self.changed = self.now()
            return True

    def _jump(self, moment: datetime) -> None:
        assert moment >= self.now() or not self._process, "the clock of a running daemon never goes back"
        self.clock.set(moment)
        self._jumped = time.monotonic()

    def _skip_minutes(self) -> None:
        while not self._over.is_set():
            with self._changing:
                left = 60 - _NOTICED_AFTER - self.now().timestamp() % 60
                if left <= 0:
                    lasts = BUSY_MINUTE if self.unfinished() else IDLE_MINUTE
                    self._jump(self.now() + timedelta(seconds=60 - lasts))
                    self._turned = time.monotonic()
                elif time.monotonic() - self._jumped > IDLE_MINUTE and not self.unfinished():
                    self._jump(self.now() + timedelta(minutes=1))
            self._over.wait(min(max(left, 0.05), 0.2))

    # --- What it has done ---

    def runs(self, **chosen: object) -> list[dg.DagsterRun]:
        """All runs, oldest first; `chosen` as in `RunsFilter`."""
        return list(reversed(self.instance.get_runs(dg.RunsFilter(**chosen))))  # type: ignore[arg-type]

    def unfinished(self) -> list[dg.DagsterRun]:
        return self.runs(statuses=NOT_FINISHED_STATUSES)

    def ticks(self, name: str | None = None, since: datetime | None = None) -> list[Tick]:
        """The ticks of a schedule or sensor, or of all of them, oldest first."""
        ticks = [
            _tick_of(tick, self.clock)
            for state in self._instigators()
            if name in (None, state.name)
            for tick in self.instance.get_ticks(
                state.instigator_origin_id, state.selector_id, after=since.timestamp() if since else None
            )
        ]
        return sorted(ticks, key=lambda tick: tick.began)

    def is_idle(self) -> bool:
        """No run is queued or under way, every schedule that came due was evaluated, and every sensor has ticked since
        the clock was set and since the last run ended, and wanted nothing.
        """
        if not self.is_running() or self.unfinished():
            return False
        states, since = self._instigators(), self._quiet_since()
        is_quiet = bool(states) and all(self._has_nothing_to_do(state, since) for state in states)
        return is_quiet and not self.unfinished() and self._quiet_since() == since  # no tick began a run meanwhile

    def _instigators(self) -> list[InstigatorState]:
        return [state for state in self.instance.all_instigator_state() if state.status != InstigatorStatus.STOPPED]

    def _quiet_since(self) -> datetime:
        ends = [
            datetime.fromtimestamp(record.end_time, UTC)
            for record in self.instance.get_run_records(limit=20)
            if record.end_time
        ]
        return max([self.changed, *ends])

    def _has_nothing_to_do(self, state: InstigatorState, since: datetime) -> bool:
        last = next(iter(self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)), None)
        if state.instigator_type.value == "SENSOR":
            return last is not None and last.timestamp >= since.timestamp() and last.status == TickStatus.SKIPPED
        due = self._last_due(state)
        began = state.instigator_data.start_timestamp or 0  # type: ignore[union-attr]
        return due <= began or (last is not None and last.timestamp >= due and last.status in FINISHED_TICKS)

    def _last_due(self, state: InstigatorState) -> float:
        cron = state.instigator_data.cron_schedule  # type: ignore[union-attr]
        return next(schedule_execution_time_iterator(self.now().timestamp(), cron, "UTC", ascending=False)).timestamp()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


FINISHED_TICKS = (TickStatus.SUCCESS, TickStatus.SKIPPED)


@dataclass(frozen=True)
class Tick:
    """One evaluation. Of a schedule, `began` is the time that it was due, and `seconds` is None."""

    name: str
    status: str
    began: datetime
    seconds: float | None
    runs: tuple[str, ...]
    reason: str | None


def _tick_of(tick: InstigatorTick, clock: Clock) -> Tick:
    is_sensor = tick.tick_data.instigator_type.value == "SENSOR"
    seconds = clock.real_seconds(tick.timestamp, tick.end_timestamp) if is_sensor and tick.end_timestamp else None
    reason = tick.skip_reason or (tick.error.message if tick.error else None)
    return Tick(
        tick.instigator_name,
        tick.status.value,
        datetime.fromtimestamp(tick.timestamp, UTC),
        seconds,
        tuple(tick.run_ids),
        reason,
    )


def wait_until(what: str, ready: Callable[[], bool], patience: float = PATIENCE_SECONDS) -> float:
    """Poll what other processes do; only a hang makes the patience end. The real seconds that it took."""
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > patience:
            pytest.fail(f"{what} did not come in {patience:.0f} seconds")
        time.sleep(0.2)
    return time.monotonic() - began
