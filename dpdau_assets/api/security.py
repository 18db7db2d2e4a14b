"""What a worker has seen of possible attacks: counted while it answers, and told from time to time.

Names of keys are told and no addresses, which are people's: a proxy's log has them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from threading import Lock

from starlette.concurrency import run_in_threadpool

from dpdau_assets.api.rate_limits import Refusal
from dpdau_assets.api.request_log import LOGGER
from dpdau_assets.core.api_keys import Scope
from dpdau_assets.core.ports.store import Alerts
from dpdau_assets.core.security_events import Kind, SecurityEvent
from dpdau_assets.core.telling import telling

TELLING_SECONDS = 5.0
_log = logging.getLogger(LOGGER)


class SecurityWatch:
    """Counts security events in memory, so that no request waits for a receiver, and hands them on.

    What a worker that is killed has counted and not handed on is in its request log alone, for TELLING_SECONDS at most.
    """

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._counted: Counter[SecurityEvent] = Counter()
        self._lock = Lock()

    def note(self, kind: Kind, scope: Scope, about: str = "") -> None:
        """Note one, of a request to a route of this scope. How many there are of `erase` is how many people: untold."""
        with self._lock:
            self._counted[SecurityEvent(kind, about, is_counted=scope != "erase")] += 1

    def note_limit(self, refusal: Refusal, key_name: str | None, scope: Scope) -> None:
        """Note a request that was one too many; one that is larger than a minute's limit is a mistake, and none."""
        if refusal.fits:
            self.note("limit_reached", scope, f"The key {key_name}" if key_name else "Somebody without a valid key")

    def keep(self) -> None:
        """Hand on what was counted. What cannot be kept is logged, and tried the next time."""
        with self._lock:
            counted, self._counted = self._counted, Counter()
        try:
            self._alerts.note(counted)
        except Exception as error:  # whatever it is, what was counted is not lost
            with self._lock:
                self._counted.update(counted)
            _log.error("Security events cannot be kept (%s): they are counted on.", type(error).__name__)

    def deliver(self) -> None:
        """Deliver what waits for receivers; what does not arrive is logged, and kept."""
        with telling(_log.warning):
            self._alerts.deliver()

    async def keep_telling(self, each: float = TELLING_SECONDS) -> None:
        """Do both each so many seconds, until this is cancelled."""
        while True:
            await asyncio.sleep(each)
            await run_in_threadpool(self.keep)
            await run_in_threadpool(self.deliver)
