"""Limits by key and by address, in memory and in a real Redis."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits.aio.storage import memory

from dpdau_assets.api.rate_limits import RateLimits, Refusal, network, seconds_until_fits
from dpdau_assets.core.errors import BadSetting

ADDRESS = "203.0.113.7"
Run = Callable[[RateLimits], Awaitable[object]]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_020.0  # a third of a minute after one began

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that counts in memory are kept by, which the library offers no other way to set."""
    clock = Clock()
    monkeypatch.setattr(memory, "time", SimpleNamespace(time=clock))
    monkeypatch.setattr("dpdau_assets.api.rate_limits.time", SimpleNamespace(time=clock, monotonic=clock))
    return clock


class Redis:
    """A real server on a port of its own, which can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self._folder],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert any("Ready to accept connections" in line for line in self._process.stdout)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        assert not os.environ.get("DPDAU_CI"), "CI must have redis-server"
        pytest.skip("no Redis here: apt-get install redis-server")
    server = Redis(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Where counts are kept."""
    if request.param == "redis":
        return request.getfixturevalue("redis").url
    request.getfixturevalue("clock")
    return None


def run(limits: RateLimits, what: Run) -> None:
    async def all_of_it() -> None:
        try:
            await what(limits)
        finally:
            await limits.close()

    asyncio.run(all_of_it())


async def admitted(limits: RateLimits, key: str | None, address: str, times: int) -> list[bool]:
    return [await limits.admit(key, address) is None for _ in range(times)]


def test_a_minute_takes_as_many_requests_as_it_says_and_no_more(url: str | None) -> None:
    async def what(limits: RateLimits) -> None:
        assert await admitted(limits, "team", ADDRESS, 7) == [True] * 5 + [False] * 2
        refusal = await limits.admit("team", ADDRESS)
        assert refusal is not None and refusal.limit == "requests" and refusal.fits
        assert isinstance(refusal.retry_after, int) and 1 <= refusal.retry_after <= 120

    run(RateLimits(5, 1000, url), what)


def test_one_key_from_many_addresses_and_many_keys_from_one_address_are_both_counted(url: str | None) -> None:
    async def what(limits: RateLimits) -> None:
        spread = [await limits.admit("team", f"203.0.113.{number}") for number in range(6)]
        assert [each and each.by for each in spread] == [None] * 5 + ["key"]
        many = [await limits.admit(f"key-{number}", "198.51.100.1") for number in range(6)]
        assert [each and each.by for each in many] == [None] * 5 + ["address"]

    run(RateLimits(5, 1000, url), what)


def test_events_are_counted_apart_from_requests(url: str | None) -> None:
    async def what(limits: RateLimits) -> None:
        assert await limits.admit_events("team", ADDRESS, 600) is None
        refusal = await limits.admit_events("team", ADDRESS, 600)
        assert refusal is not None and refusal.limit == "events" and refusal.fits
        assert await limits.admit_events("team", ADDRESS, 400) is None  # what is refused was not counted
        assert await admitted(limits, "team", ADDRESS, 6) == [*[True] * 5, False]

    run(RateLimits(5, 1000, url), what)


def test_who_reads_does_not_learn_how_much_comes_in_from_the_same_address(url: str | None) -> None:
    async def what(limits: RateLimits) -> None:
        for number in range(5):
            assert await limits.admit(f"product {number}", ADDRESS, purpose="ingest") is None
        assert await limits.admit("product", ADDRESS, purpose="ingest") is not None
        assert await limits.admit("dashboard", ADDRESS, purpose="read") is None

    run(RateLimits(5, 1000, url), what)


def test_without_a_key_the_address_alone_is_counted(url: str | None) -> None:
    async def what(limits: RateLimits) -> None:
        assert await admitted(limits, None, ADDRESS, 3) == [True, True, False]
        assert await admitted(limits, None, "198.51.100.1", 1) == [True]

    run(RateLimits(2, 1000, url), what)


def test_the_addresses_of_one_ipv6_network_are_one(url: str | None) -> None:
    async def what(limits: RateLimits) -> None:
        assert await admitted(limits, None, "2001:db8:0:1::1", 1) == [True]
        assert await admitted(limits, None, "2001:db8:0:1:ffff::2", 1) == [False]
        assert await admitted(limits, None, "2001:db8:0:2::1", 1) == [True]

    run(RateLimits(1, 1000, url), what)


def test_a_batch_of_more_than_a_minutes_events_never_fits(url: str | None) -> None:
    async def what(limits: RateLimits) -> None:
        refusal = await limits.admit_events("team", ADDRESS, 1001)
        assert refusal == Refusal("events", "address", 60, fits=False)
        assert await limits.admit_events("team", ADDRESS, 1000) is None

    run(RateLimits(5, 1000, url), what)


def test_after_retry_after_as_much_is_let_through_whatever_came_before(clock: Clock) -> None:
    async def what(limits: RateLimits) -> None:
        for step, cost in [(0, 7), (41, 6), (13, 10), (3, 1), (59, 9), (30, 10), (61, 5), (20, 5), (1, 10)]:
            clock.now += step
            refusal = await limits.admit_events("team", ADDRESS, cost)
            if refusal is not None:
                assert refusal.retry_after <= 120
                clock.now += refusal.retry_after
                assert await limits.admit_events("team", ADDRESS, cost) is None

    run(RateLimits(5, 10, None), what)


@given(
    before=st.integers(0, 1000),
    before_left=st.floats(0, 60),
    current=st.integers(0, 1000),
    elapsed=st.floats(0, 60),
    room=st.integers(0, 1000),
)
def test_what_was_counted_has_faded_to_the_room_at_that_time_and_not_long_before(
    before: int, before_left: float, current: int, elapsed: float, room: int
) -> None:
    counts = (before, before_left, current, 120 - elapsed)

    def left_after(seconds: float) -> float:
        shift = 60 - elapsed
        if seconds < shift:
            return current + before * max(0.0, before_left - seconds) / 60
        return current * max(0.0, 60 - (seconds - shift)) / 60

    wait = seconds_until_fits(counts, room, 60)
    assert left_after(max(0.0, wait) + 1e-6) <= room + 1e-3 or before * before_left == 0
    if wait > 1e-3:
        assert left_after(wait - 1e-3) >= room - 1e-3 or current <= room


def test_many_addresses_are_forgotten_after_their_time(clock: Clock) -> None:
    async def what(limits: RateLimits) -> None:
        counters = limits._memory.storage.storage  # type: ignore[attr-defined]
        for number in range(300):
            assert await limits.admit(None, f"203.0.{number // 256}.{number % 256}") is None
        assert len(counters) == 300
        clock.now += 121
        assert await limits.admit(None, ADDRESS) is None
        assert len(counters) == 1

    run(RateLimits(5, 1000), what)


def test_while_redis_is_down_this_worker_counts_for_itself_and_says_so_once_a_minute(
    redis: Redis, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def what(limits: RateLimits) -> None:
        assert await admitted(limits, "team", ADDRESS, 6) == [True] * 5 + [False]
        redis.stop()
        assert await admitted(limits, "team", ADDRESS, 7) == [True] * 5 + [False] * 2
        clock.now += 6
        await limits.admit("team", ADDRESS)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        clock.now += 60
        await limits.admit("team", ADDRESS)
        assert len(caplog.records) == 2
        redis.start()
        clock.now += 6
        assert await admitted(limits, "team", ADDRESS, 6) == [True] * 5 + [False]
        assert len(caplog.records) == 2

    caplog.set_level(logging.WARNING, "dpdau")
    run(RateLimits(5, 1000, redis.url, clock), what)
    assert str(redis.port) not in caplog.text


def test_a_redis_that_never_answers_holds_no_more_than_one_request_at_a_time(clock: Clock) -> None:
    async def what(limits: RateLimits) -> None:
        assert await admitted(limits, "team", ADDRESS, 1) == [True]
        many = await asyncio.gather(*(limits.admit("team", ADDRESS) for _ in range(100)))
        assert sum(each is None for each in many) == 4
        assert len(accepted) == 1

    accepted: list[object] = []

    async def silent(reader: object, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await asyncio.Event().wait()

    async def all_of_it() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        limits = RateLimits(5, 1000, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", clock)
        await what(limits)
        await limits.close()
        server.close()

    asyncio.run(all_of_it())


def test_two_workers_count_together_in_redis(redis: Redis) -> None:
    async def what(limits: RateLimits) -> None:
        other = RateLimits(5, 1000, redis.url)
        assert await admitted(limits, "team", ADDRESS, 3) == [True] * 3
        assert await admitted(other, "team", ADDRESS, 3) == [True, True, False]
        await other.close()

    run(RateLimits(5, 1000, redis.url), what)


def test_requests_at_once_are_all_counted_in_redis(redis: Redis) -> None:
    async def what(limits: RateLimits) -> None:
        many = await asyncio.gather(*(limits.admit("team", ADDRESS) for _ in range(40)))
        assert sum(each is None for each in many) == 20

    run(RateLimits(20, 1000, redis.url), what)


def test_an_url_of_something_else_is_refused_without_being_repeated() -> None:
    with pytest.raises(BadSetting) as refused:
        RateLimits(5, 5, "memcached://:password@host")
    assert "password" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_an_address_counts_for_its_network(address: str, counted: str) -> None:
    assert network(address) == counted
