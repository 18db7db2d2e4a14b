"""How many requests and events each key and each address may send in a minute.

A sliding window of two counters (library `limits`), in this worker's memory, or in Redis for all workers together.
Redis sees key names and addresses, for two minutes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Any, Literal

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from dpdau_assets.api.request_log import LOGGER
from dpdau_assets.core.errors import BadSetting

REDIS_SECONDS = 0.5
"""How long one request waits for Redis."""
_AGAIN_SECONDS = 5.0  # after Redis has failed, memory counts for so long before one request asks it again
_TOLD_SECONDS = 60.0
_SWEEP_SECONDS = 10.0
_NETWORK_BITS = 64  # of an IPv6 address: one customer has so many addresses that counting them alone limits nobody
_SCHEMES = ("redis://", "rediss://", "redis+unix://")

Kind = Literal["requests", "events"]
By = Literal["key", "address"]


@dataclass(frozen=True)
class Refusal:
    """Too many.

    Attributes:
        limit: which of the two was reached.
        by: whose count it was.
        retry_after: whole seconds, 1 or more, after which as much would be let through if nothing else came.
        fits: False where so many events at once are more than a minute's limit, so that they never get through.
    """

    limit: Kind
    by: By
    retry_after: int
    fits: bool = True


class RateLimits:
    """Counts what comes, by address and, where there is one, by key; requests and events apart.

    What one of the counts refuses was counted by those that were asked before it: the address's first. While Redis
    does not answer, this worker counts in memory from zero, and says so in the log once a minute: the limits are then
    each worker's own, and neither open nor closed.

    Args:
        url: of Redis, or None for memory.
        clock: seconds, from any beginning; for when to ask Redis again.

    Raises:
        BadSetting: the URL is not one of Redis.
    """

    def __init__(
        self,
        requests_per_minute: int,
        events_per_minute: int,
        url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._items: dict[Kind, RateLimitItem] = {
            "requests": RateLimitItemPerMinute(requests_per_minute, namespace="dpdau/requests"),
            "events": RateLimitItemPerMinute(events_per_minute, namespace="dpdau/events"),
        }
        self._memory = SlidingWindowCounterRateLimiter(_Memory())
        self._redis_storage = None if url is None else _redis(url)
        self._redis = self._redis_storage and SlidingWindowCounterRateLimiter(self._redis_storage)
        self._clock = clock
        self._is_down = False
        self._ask_again_at = self._tell_at = clock()

    async def admit(self, key_name: str | None, address: str, purpose: str = "") -> Refusal | None:
        """Count one request; None, or why it is too many. Of an address each purpose is counted by itself."""
        return await self._admitted(key_name, address, purpose, "requests", 1)

    async def admit_events(self, key_name: str | None, address: str, events: int, purpose: str = "") -> Refusal | None:
        """Count the events of a request that was admitted before its body was read; None, or why they are too many."""
        return await self._admitted(key_name, address, purpose, "events", events) if events else None

    async def close(self) -> None:
        """Let go of the connections to Redis."""
        if self._redis_storage is not None:
            await self._redis_storage.bridge.get_connection().aclose()  # type: ignore[attr-defined]

    async def _admitted(
        self, key_name: str | None, address: str, purpose: str, limit: Kind, cost: int
    ) -> Refusal | None:
        whose: list[tuple[By, str]] = [("address", f"{network(address)} {purpose}".rstrip())]
        if key_name is not None:
            whose.append(("key", key_name))
        if self._redis is not None and self._may_ask_redis():
            try:
                async with asyncio.timeout(REDIS_SECONDS):
                    refusal = await _refusal(self._redis, limit, self._items[limit], whose, cost)
            except (StorageError, OSError, TimeoutError) as error:
                self._note_failure(error)
            else:
                self._is_down = False
                return refusal
        return await _refusal(self._memory, limit, self._items[limit], whose, cost)

    def _may_ask_redis(self) -> bool:
        """While it is down, one request each few seconds waits to see whether it still is."""
        now = self._clock()
        if self._is_down and now < self._ask_again_at:
            return False
        self._ask_again_at = now + _AGAIN_SECONDS
        return True

    def _note_failure(self, error: Exception) -> None:
        self._is_down = True
        now = self._clock()
        if now >= self._tell_at:
            self._tell_at = now + _TOLD_SECONDS
            cause = type(error.__cause__ or error).__name__  # its text may name the server, and with it a password
            logging.getLogger(LOGGER).warning("Redis does not answer: limits count in memory (%s).", cause)


def network(address: str) -> str:
    """Whom an address counts for: an IPv4 address for itself, an IPv6 address for its /64; other text for itself."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if not isinstance(known, IPv6Address):
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(IPv6Address(int(known) >> _NETWORK_BITS << _NETWORK_BITS))


async def _refusal(
    limiter: SlidingWindowCounterRateLimiter, limit: Kind, item: RateLimitItem, whose: list[tuple[By, str]], cost: int
) -> Refusal | None:
    for by, name in whose:
        if cost > item.amount:
            return Refusal(limit, by, item.get_expiry(), fits=False)
        if not await limiter.hit(item, by, name, cost=cost):
            return Refusal(limit, by, await _retry_after(limiter, item, (by, name), cost))
    return None


async def _retry_after(
    limiter: SlidingWindowCounterRateLimiter, item: RateLimitItem, whose: tuple[By, str], cost: int
) -> int:
    minute = item.get_expiry()
    counts: tuple[int, float, int, float] = await limiter.storage.get_sliding_window(  # type: ignore[attr-defined]
        item.key_for(*whose), minute
    )
    return max(1, ceil(seconds_until_fits(counts, item.amount - cost, minute)))


def seconds_until_fits(counts: tuple[int, float, int, float], room: int, minute: int) -> float:
    """When no more than `room` is left of what was counted, if nothing is added: the counts fade, each in its turn.

    Args:
        counts: of the minute before and the seconds until it is forgotten; of this minute and the seconds until that
            is forgotten, which is one minute more than until it becomes the one before.
        minute: in seconds.
    """
    before, before_left, current, current_left = counts
    if current <= room:
        return before_left - (room - current) * minute / before if before else 0.0
    return max(0.0, current_left - minute) + minute - room * minute / current


def _redis(url: str) -> RedisStorage:
    if not url.startswith(_SCHEMES):
        raise BadSetting(
            "RATE_LIMIT_URL is not the URL of a Redis server.", f"It begins with one of {', '.join(_SCHEMES)}."
        )
    return RedisStorage(
        f"async+{url}",
        wrap_exceptions=True,
        implementation="redispy",
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
    )


class _Memory(MemoryStorage):
    """The library's, which looks through all of its counters at each hit: many addresses would make each one slow."""

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any) -> None:
        super().__init__(uri, wrap_exceptions, **options)
        self._sweep_at = 0.0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a counter, which is forgotten `expiry` seconds after it was begun. No other task runs meanwhile."""
        now = time.time()
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_SECONDS
            for old in [old for old, ends in self.expirations.items() if ends <= now]:
                del self.expirations[old], self.storage[old]
        self.storage[key] += amount
        self.expirations.setdefault(key, now + expiry)
        return self.storage[key]
