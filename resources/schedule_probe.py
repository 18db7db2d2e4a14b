"""Whether Dagster publishes by schedule, asked of another process: who serves requests does not load Dagster."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Lock
from time import monotonic

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.settings import Settings

KEPT_SECONDS = 60.0
_WAIT_SECONDS = 120
_PROGRAM = """
import json, os, sys
from pathlib import Path
os.environ["DAGSTER_HOME"] = sys.argv[1]  # dagster.yaml names storage by it
from dpdau_assets.core.errors import DpdauError
from resources.dagster_instance import is_scheduled_in
try:
    said = {"scheduled": is_scheduled_in(Path(sys.argv[1]))}
except DpdauError as error:
    said = {"reason": error.reason, "remedy": error.remedy}
print(json.dumps(said))
"""


class ScheduleProbe:
    """Asks the Dagster instance of one home, at most once in KEPT_SECONDS: each time Dagster is loaded, for seconds.

    Threads that ask meanwhile wait for the one answer. `clock` is in seconds, from any beginning.
    """

    def __init__(self, home: Path, clock: Callable[[], float] = monotonic) -> None:
        self._home = home
        self._clock = clock
        self._lock = Lock()
        self._known: tuple[float, bool] | None = None

    def is_scheduled(self) -> bool:
        """Whether a schedule publishes there; no home is made for it.

        Raises BadSetting for a home that Dagster cannot open.
        """
        with self._lock:
            if self._known is None or self._clock() - self._known[0] >= KEPT_SECONDS:
                self._known = self._clock(), _asked(self._home)
            return self._known[1]


def schedule_probe(settings: Settings) -> ScheduleProbe:
    """The one probe in this process of the home that these settings name."""
    return _probe_of((settings.dagster_home or settings.data_dir / "dagster_home").resolve())


@cache
def _probe_of(home: Path) -> ScheduleProbe:
    return ScheduleProbe(home)


def _asked(home: Path) -> bool:
    if not home.is_dir() or not any(home.iterdir()):
        return False
    command = [sys.executable, "-c", _PROGRAM, str(home)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_WAIT_SECONDS, check=True)
        said = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        raise BadSetting(
            f"Dagster did not say whether it publishes by schedule: {type(error).__name__}.",
            "Ask `dpdau status` on the machine itself, which says more.",
        ) from None
    if "scheduled" not in said:
        raise BadSetting(said["reason"], said["remedy"])
    return said["scheduled"]
