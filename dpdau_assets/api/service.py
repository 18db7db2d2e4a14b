"""What the routes work with: one store, its write-ahead log, keys, limits, and what is remembered of a day's requests.

One a worker process. It is opened when the worker starts, and closed when the last request is answered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from time import monotonic

from fastapi import Request

from dpdau_assets.api.metrics import Metrics, forget
from dpdau_assets.api.rate_limits import RateLimits
from dpdau_assets.core.api_keys import ApiKey, service_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.arrivals import Keying
from dpdau_assets.core.settings import Settings
from resources.storage import seen_requests
from resources.storage.api_key_file import ApiKeyFile, api_key_file
from resources.storage.log_writer import LogWriter
from resources.storage.seen_requests import SeenRequests
from resources.storage.write_ahead_log import FOLDER
from resources.store import open_log, open_store

_KEYING_SECONDS = 1.0


@dataclass
class Service:
    """Everything that one worker has open."""

    store: Store
    writer: LogWriter
    key_file: ApiKeyFile
    limits: RateLimits
    seen: SeenRequests
    metrics: Metrics
    _keying: tuple[float, Keying] | None = field(default=None, repr=False)
    _today: date | None = None

    @property
    def settings(self) -> Settings:
        """The settings that the worker was started with."""
        return self.store.settings

    def keys(self) -> list[ApiKey]:
        """Every key that is on file by now, and the environment's."""
        own = self.settings.service_api_key
        return [*self.key_file.read(), *([service_key(own)] if own else [])]

    def keying(self) -> Keying:
        """Which days events may have, and their users' keys; looked up anew each second. Asks the ledger then."""
        now, before = monotonic(), self._keying
        if before is None or now - before[0] >= _KEYING_SECONDS:
            self._let_go_of_the_day_before()
            self._keying = before = now, Keying(self.store, before[1] if before else None)
        return before[1]

    def _let_go_of_the_day_before(self) -> None:
        """What is remembered of a day's requests goes with its file, which each worker that has it open closes."""
        today = self.store.clock.today()
        if today != self._today:
            self._today = today
            self.seen.expire(today)


@contextmanager
def opened(settings: Settings, store: Store | None = None) -> Iterator[Service]:
    """A service on the store of these settings, which is sealed first: what a dead worker has left waits for nobody."""
    store = store or open_store(settings)
    events = store.events
    log = open_log(settings, events.inbox, events.quarantine, store.state.salts)
    log.seal()
    writer = LogWriter(settings.data_dir / FOLDER, log.seal_one)
    limits = RateLimits(
        settings.rate_limit_per_minute, settings.rate_limit_events_per_minute, url=settings.rate_limit_url
    )
    seen = SeenRequests(settings.data_dir / seen_requests.FOLDER)
    try:
        yield Service(
            store, writer, api_key_file(settings), limits, seen, Metrics(exact=settings.metrics_counts == "exact")
        )
    finally:
        writer.close()
        seen.close()
        forget(os.getpid())


def service_of(request: Request) -> Service:
    """The worker's service."""
    service: Service = request.app.state.service
    return service
