"""What the routes work with: one store, its write-ahead log, keys, limits, Idempotency-Keys and people asked for.

One a worker process. It is opened when the worker starts, and closed when the last request is answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic

from anyio import CapacityLimiter
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from dpdau_assets.api.metrics import Metrics, forget
from dpdau_assets.api.rate_limits import RateLimits
from dpdau_assets.api.request_log import LOGGER
from dpdau_assets.api.security import SecurityWatch
from dpdau_assets.core.api_keys import ApiKey, service_key
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.arrivals import Keying
from dpdau_assets.core.settings import Settings
from resources.messages.messages import Messages
from resources.storage import seen_requests
from resources.storage.api_key_file import ApiKeyFile, api_key_file
from resources.storage.log_writer import LogWriter
from resources.storage.seen_requests import SeenRequests
from resources.storage.write_ahead_log import FOLDER
from resources.store import CANNOT_KEEP, open_log, open_store
from resources.store_watch import StoreWatch

_KEYING_SECONDS = 1.0
_UPKEEP_SECONDS = 60.0
_THREADS_THAT_WAIT = 4  # for the state's lock, which a fold may hold for long; the others answer meanwhile
_log = logging.getLogger(LOGGER)


@dataclass
class Service:
    """Everything that one worker has open."""

    store: Store
    writer: LogWriter
    key_file: ApiKeyFile
    limits: RateLimits
    seen: SeenRequests
    metrics: Metrics
    watch: StoreWatch
    security: SecurityWatch
    waiting: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_THREADS_THAT_WAIT), repr=False)
    _keying: tuple[float, Keying] | None = field(default=None, repr=False)

    @property
    def settings(self) -> Settings:
        """The settings that the worker was started with."""
        return self.store.settings

    def keys(self) -> list[ApiKey]:
        """Every key that is on file by now, and the environment's."""
        own = self.settings.service_api_key
        return [*self.key_file.read(), *([service_key(own)] if own else [])]

    async def keying(self) -> Keying:
        """Which days events may have, and their users' keys; looked up anew each second, in a thread."""
        known = self._keying
        if known is not None and monotonic() - known[0] < _KEYING_SECONDS:
            return known[1]
        return await run_in_threadpool(self._keying_anew)

    def _keying_anew(self) -> Keying:
        self.watch.require_same()
        now, before = monotonic(), self._keying
        keying = Keying(self.store, before[1] if before else None)
        self._keying = now, keying
        return keying

    async def keep_up(self) -> None:
        """Each minute let go of what is kept for a day alone, until this is cancelled: who has it open closes it."""
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            try:
                await run_in_threadpool(self.seen.expire, self.store.clock.today())
            except OSError as error:
                _log.error("What is kept of requests for a day cannot be unlinked: %s.", error.strerror)


@contextmanager
def opened(settings: Settings, store: Store | None = None) -> Iterator[Service]:
    """A service on the store of these settings, which is sealed first: what a dead worker has left waits for nobody.

    What cannot be sealed, on a full disk, say, is logged, and keeps nobody from reading.
    """
    store = store or open_store(settings)
    events = store.events
    log = open_log(settings, events.inbox, events.quarantine, store.state.salts)
    try_to_seal(store)
    writer = LogWriter(settings.data_dir / FOLDER, log.seal_one)
    limits = RateLimits(
        settings.rate_limit_per_minute, settings.rate_limit_events_per_minute, url=settings.rate_limit_url
    )
    seen = SeenRequests(settings.data_dir / seen_requests.FOLDER)
    with suppress(OSError):  # tried again each minute
        seen.expire(store.clock.today())
    security = SecurityWatch(Messages(settings))
    metrics = Metrics(exact=settings.metrics_counts == "exact")
    try:
        yield Service(store, writer, api_key_file(settings), limits, seen, metrics, StoreWatch(store), security)
    finally:
        writer.close()
        security.keep()
        seen.close()
        forget(os.getpid())


def try_to_seal(store: Store) -> None:
    """Make batches of all that was acknowledged; what is in the way of that is logged, and for /readyz to tell."""
    try:
        store.events.log.seal()
    except DpdauError as error:
        _log.error("The write-ahead log: %s %s", error.reason, error.remedy)
    except CANNOT_KEEP as error:
        _log.error("The write-ahead log cannot be sealed: %s.", type(error).__name__)


def service_of(request: Request) -> Service:
    """The worker's service."""
    service: Service = request.app.state.service
    return service
