"""What monitoring asks: whether the process serves, whether it can keep what it is sent, and the metrics.

/healthz and /readyz need no key. They say nothing of paths, ids or how many people or events there are. Metrics are for
keys of scope `admin`, and for who asks on the machine itself without a key: not through a proxy, which is known by the
headers that proxies add, and by TRUSTED_PROXIES. A proxy on the same machine that adds none of them has to be named
there.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, BinaryIO, Literal

from fastapi import APIRouter, Depends, Request, Response

from dpdau_assets.api.access import Allowed, Serving, address_of, presented_in, too_many
from dpdau_assets.api.problems import ProblemRaised
from dpdau_assets.api.rate_limits import RateLimits
from dpdau_assets.api.request_log import LOGGER
from dpdau_assets.api.schemas import Schema, errors
from dpdau_assets.api.service import Service, service_of
from dpdau_assets.core.version import VERSION
from resources.loopback import is_loopback
from resources.storage.durable import sweep, unlink_durably, write_durably
from resources.storage.seen_requests import FOLDER

PROBES_PER_MINUTE = 600
"""From one address, to /readyz and /metrics together: apart from other routes, whose limit clients may have used up."""

READY_SECONDS = 1.0
"""How long an answer of /readyz holds, however often it is asked."""

PATIENCE_SECONDS = 2.0
"""Within which each part has to answer."""

LEAST_FREE = 100_000_000
"""Bytes on DATA_DIR's disk."""

UNSEALED_SECONDS = 60
"""Of a segment of the write-ahead log that no worker writes to any more: it is made a batch of within a second."""

MOST_BATCHES = 100_000
"""Of the inbox. Numbers fold it once a day, and a worker seals a batch every ten seconds: 8,640 a day."""

_PROXY_HEADERS = frozenset({"cf-connecting-ip", "forwarded", "true-client-ip", "via", "x-real-ip"})
_ANY = "x-forwarded-"

_log = logging.getLogger(LOGGER)
_administering = Allowed("admin")

router = APIRouter(tags=["health"])


# --- Answers -----------------------------------------------------------------------------------------------------


class Alive(Schema):
    """The process serves."""

    status: Literal["ok"]
    version: str


class Part(Schema):
    """Whether one part works, and a sentence about it."""

    ok: bool
    sentence: str


class Parts(Schema):
    """What a POST needs: the ledger answers, the disk keeps, the inbox is folded, the log's writer lives."""

    ledger: Part
    disk: Part
    inbox: Part
    log: Part


class Readiness(Schema):
    """Whether events and requests can be taken."""

    status: Literal["ready", "not ready"]
    checks: Parts


# --- Routes ------------------------------------------------------------------------------------------------------


async def _probing(request: Request) -> None:
    refusal = await _monitoring(request).limits.admit(None, address_of(request))
    if refusal is not None:
        raise ProblemRaised(too_many(refusal.retry_after))


async def _scraping(request: Request, service: Serving) -> None:
    """A key that is sent is judged, wherever it comes from."""
    if presented_in(request) is not None or not is_local(request, service.settings.trusted_proxies):
        await _administering(request)


@router.get("/healthz", operation_id="getHealth", summary="Whether the process serves", responses=errors())
async def get_health() -> Alive:
    """Answered as long as anything is; asks nothing of the store."""
    return Alive(status="ok", version=VERSION)


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Whether events and requests can be taken",
    dependencies=[Depends(_probing)],
    responses={**errors(429), 503: {"model": Readiness, "description": "One of the parts does not work."}},
)
async def get_readiness(request: Request, response: Response) -> Readiness:
    """Whether the ledger answers, the disk keeps what is written, the inbox is folded and the log is written.

    503 where one of them does not, in the same shape. An answer holds for a second.
    """
    readiness = await _monitoring(request).readiness.asked()
    response.status_code = 200 if readiness.status == "ready" else 503
    return readiness


_TEXT: dict[str, Any] = {"schema": {"type": "string"}}


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="What Prometheus scrapes",
    dependencies=[Depends(_probing), Depends(_scraping)],
    response_class=Response,
    responses={
        200: {
            "description": "The text format of Prometheus, or OpenMetrics where that is accepted.",
            "content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT},
        },
        **errors(401, 403, 429),
    },
    openapi_extra={"security": [{}, {"key": []}, {"bearer": []}]},
)
def get_metrics(request: Request, service: Serving) -> Response:
    """Counts of all workers, and how the store stands; what cannot be asked is left out and named in
    `dpdau_scrape_errors`. Without a key on the machine itself alone, where no proxy forwards.
    """
    text, media_type = service.metrics.exposition(service.store, request.headers.get("accept", ""))
    return Response(text, media_type=media_type)


def is_local(request: Request, trusted_proxies: Sequence[str]) -> bool:
    """Whether the request was made on this machine, and by nobody who forwards.

    Where the server trusts a proxy, the address is what that says of its client. So a proxy's header alone is enough
    to say no, and so is an address that proxies may have.
    """
    if any(name in _PROXY_HEADERS or name.startswith(_ANY) for name in request.headers):
        return False
    if not _names_this_machine(request.headers.get("host", "")):
        return False  # a page that had its own name lead here, or a proxy that says nothing of itself
    try:
        address = ip_address(address_of(request))
    except ValueError:  # a socket, which has no address, or none that is known
        return False
    plain = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
    if any(_may_be(each, proxy) for each in (address, plain) for proxy in trusted_proxies):
        return False
    return is_loopback(str(plain))


def _names_this_machine(host: str) -> bool:
    return is_loopback(host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host)


def _may_be(address: IPv4Address | IPv6Address, proxy: str) -> bool:
    """Whether this address is one of those that the setting names; what is no address, such as `*`, names any."""
    try:
        return address in ip_network(proxy, strict=False)
    except ValueError:
        return True


# --- Readiness ---------------------------------------------------------------------------------------------------


class ReadinessProbe:
    """Asks the parts of a service, at most once in READY_SECONDS, whoever asks it meanwhile.

    Each part is asked in a thread. One that does not answer in time is not asked again until it has: so never more than
    one thread waits for it.

    Args:
        clock: seconds, from any beginning.
        now: seconds since 1970.
        patience: seconds.
    """

    def __init__(
        self,
        service: Service,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._clock = clock
        self._patience = patience
        self._parts: dict[str, Callable[[], Part]] = {
            "ledger": partial(_ledger, service),
            "disk": partial(_disk, service.settings.data_dir),
            "inbox": partial(_inbox, service),
            "log": partial(_writer, service, now),
        }
        self._running: dict[str, asyncio.Task[Part]] = {}
        self._asking = asyncio.Lock()
        self._asked_at = 0.0
        self._last: Readiness | None = None

    async def asked(self) -> Readiness:
        """How it is now, or was a moment ago."""
        async with self._asking:
            if self._last is None or self._clock() - self._asked_at >= READY_SECONDS:
                self._last = await self._ask(self._last)
                self._asked_at = self._clock()
            return self._last

    async def _ask(self, before: Readiness | None) -> Readiness:
        answers = await asyncio.gather(*map(self._answer_in_time, self._parts))
        parts = dict(zip(self._parts, answers, strict=True))
        now = Readiness(
            status="ready" if all(part.ok for part in parts.values()) else "not ready",
            checks=Parts(**parts),
        )
        if now.status != (before.status if before else "ready"):
            failed = [name for name, part in parts.items() if not part.ok]
            _log.warning("%s", f"Not ready: {', '.join(failed)}." if failed else "Ready again.")
        return now

    async def _answer_in_time(self, name: str) -> Part:
        running = self._running.get(name)
        if running is None or running.done():
            asking = asyncio.to_thread(_answer, name, self._parts[name])
            self._running[name] = running = asyncio.create_task(asking)
        try:
            return await asyncio.wait_for(asyncio.shield(running), self._patience)
        except TimeoutError:
            return _SILENT


_SILENT = Part(ok=False, sentence="It did not answer in time.")
_BROKEN = Part(ok=False, sentence="It does not work: the server's log says why.")


def _answer(name: str, ask: Callable[[], Part]) -> Part:
    try:
        return ask()
    except Exception as error:  # whatever it is, this part does not work; its text may name a path or a server
        _log.warning("Not ready: %s (%s).", name, type(error).__name__)
        return _BROKEN


def _ledger(service: Service) -> Part:
    service.watch.require_same()
    return Part(ok=True, sentence="The ledger answers.")


def _disk(data_dir: Path) -> Part:
    if shutil.disk_usage(data_dir).free < LEAST_FREE:
        return Part(ok=False, sentence=f"Less than {LEAST_FREE // 1_000_000} MB are free.")
    folder = data_dir / FOLDER
    sweep(folder)  # what a worker that was killed in between has left
    write_durably(folder / "probe", _write_little)
    unlink_durably(folder / "probe")
    return Part(ok=True, sentence="There is room, and what is written stays.")


def _write_little(file: BinaryIO) -> None:
    file.write(bytes(4096))


def _inbox(service: Service) -> Part:
    inbox = service.store.events.inbox
    if len(inbox.batches()) >= MOST_BATCHES:
        return Part(ok=False, sentence="Too many batches wait: no number has folded them.")
    return Part(ok=True, sentence="What waits is folded in time.")


def _writer(service: Service, now: Callable[[], float]) -> Part:
    if not service.writer.is_alive:
        return Part(ok=False, sentence="The writer of the write-ahead log has ended: restart the worker.")
    oldest = service.store.events.log.oldest()
    if oldest is not None and now() - oldest >= UNSEALED_SECONDS:
        return Part(ok=False, sentence="What was acknowledged cannot be made a batch: the server's log says why.")
    return Part(ok=True, sentence="The write-ahead log is being written.")


class _Monitoring:
    """What these routes keep between requests, of one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.limits = RateLimits(PROBES_PER_MINUTE, 1)
        self.readiness = ReadinessProbe(service)


def _monitoring(request: Request) -> _Monitoring:
    """Made at the first request, and anew when the app has another service."""
    state, service = request.app.state, service_of(request)
    kept: _Monitoring | None = getattr(state, "monitoring", None)
    if kept is None or kept.service is not service:
        state.monitoring = kept = _Monitoring(service)
    return kept
