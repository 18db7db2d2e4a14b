"""Liveness, readiness and who may read the metrics, on a real store."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from sqlalchemy import create_engine, make_url, text

from dpdau_assets.api import health
from dpdau_assets.api.health import READY_SECONDS, UNSEALED_SECONDS, ReadinessProbe
from dpdau_assets.api.problems import ProblemRaised
from dpdau_assets.api.problems import response as problem_response
from dpdau_assets.api.service import Service, opened
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.version import VERSION
from dpdau_tests.conftest import put
from dpdau_tests.support.connections import closed_at_the_end
from dpdau_tests.support.postgres import schema_url

TODAY = date(2025, 2, 3)
DAY = date(2025, 2, 1)
REMOTE, LOCAL = "203.0.113.7", "127.0.0.1"
KEY = "7b1e0d6a94c24f3fb5a8e2d9c0417f66a3d5"

MakeStore = Callable[..., Store]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """The routes of health alone, on a service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.app = FastAPI()
        self.app.include_router(health.router)
        self.app.state.service = service

        @self.app.exception_handler(ProblemRaised)
        async def _(request: Request, error: ProblemRaised) -> Response:
            return problem_response(error.problem, "0")

    def get(self, path: str, address: str = REMOTE, **headers: str) -> httpx.Response:
        """What a client at this address is answered; `_` in a header's name stands for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return asyncio.run(self._get(path, address, sent))

    async def _get(self, path: str, address: str, headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=(address, 50000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            return await client.get(path, headers=headers)


@pytest.fixture
def serve(make_store: MakeStore) -> Iterator[Callable[..., Server]]:
    with ExitStack() as services:

        def begin(**settings: object) -> Server:
            store = make_store(today=TODAY, service_api_key=KEY, **settings)
            return Server(services.enter_context(opened(store.settings, store)))

        yield begin


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


def asked(probe: ReadinessProbe) -> dict[str, Any]:
    return asyncio.run(probe.asked()).model_dump()


def failing(server: Server) -> list[str]:
    """The parts that /readyz finds not to work."""
    answer = server.get("/readyz")
    parts = answer.json()["checks"]
    failed = [name for name, part in parts.items() if not part["ok"]]
    assert (answer.status_code, answer.json()["status"]) == ((503, "not ready") if failed else (200, "ready"))
    assert list(parts) == ["ledger", "disk", "inbox", "log"]
    assert all(set(part) == {"ok", "sentence"} and part["sentence"].endswith(".") for part in parts.values())
    said = " ".join(part["sentence"] for part in parts.values())
    assert "/" not in said and not re.search(r"\d", said.replace("100 MB", ""))
    return failed


# --- Liveness ----------------------------------------------------------------------------------------------------


def test_a_process_that_serves_is_healthy_whatever_has_become_of_its_store(server: Server) -> None:
    server.service.writer.close()
    shutil.rmtree(server.service.settings.data_dir)
    answer = server.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "version": VERSION})
    assert not server.service.settings.data_dir.exists()


# --- Readiness ---------------------------------------------------------------------------------------------------


def test_a_store_in_order_is_ready_and_nothing_is_left_of_asking(server: Server) -> None:
    data_dir = server.service.settings.data_dir
    assert failing(server) == []
    assert [path for path in data_dir.rglob("*") if path.name == "probe" or path.suffix == ".tmp"] == []


def test_what_a_killed_worker_left_of_asking_goes(server: Server) -> None:
    left = server.service.settings.data_dir / "api" / ".0123456789abcdef.tmp"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"")
    assert failing(server) == [] and not left.exists()


def test_a_damaged_ledger_is_not_ready_and_the_log_names_it_by_its_type(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with closed_at_the_end():
        server.service.store.accountant.purged_through()
    (server.service.settings.data_dir / "ledger.sqlite").write_bytes(b"no ledger any more" * 1000)
    assert failing(server) == ["ledger"]
    assert "Not ready: ledger (DatabaseError)." in caplog.messages
    assert str(server.service.settings.data_dir) not in caplog.text


def test_a_disk_with_little_room_is_not_ready(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(server.service.settings.data_dir).free
    monkeypatch.setattr(health, "LEAST_FREE", 2 * free)
    assert "disk" in [name for name, part in server.get("/readyz").json()["checks"].items() if not part["ok"]]


def test_a_disk_that_takes_nothing_is_not_ready(server: Server) -> None:
    folder = server.service.settings.data_dir / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_bytes(b"no folder")
    assert failing(server) == ["disk"]


def test_a_segment_that_cannot_be_made_a_batch_is_not_ready_after_a_minute(server: Server) -> None:
    folder = server.service.settings.data_dir / "wal"
    folder.mkdir(exist_ok=True)
    left = folder / "0123456789abcdef.closed"
    left.touch()
    os.utime(left, times=(0, 1_000_000))
    for seconds in (0, UNSEALED_SECONDS - 1):
        now = 1_000_000.0 + seconds
        assert asked(ReadinessProbe(server.service, now=lambda now=now: now, patience=60))["status"] == "ready"
    assert failing(server) == ["log"]  # by the real clock it is of 1970


def test_a_store_that_was_replaced_is_not_ready(server: Server) -> None:
    ledger = server.service.settings.data_dir / "ledger.sqlite"
    ledger.rename(ledger.with_name("ledger.old"))
    shutil.copy(ledger.with_name("ledger.old"), ledger)
    assert failing(server) == ["ledger"]


def test_too_many_batches_are_not_ready(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MOST_BATCHES", 2)
    put(server.service.store, [("somebody", DAY)])
    assert failing(server) == []
    server.app.state.monitoring = None
    put(server.service.store, [("another", DAY)])
    assert failing(server) == ["inbox"]


def test_a_log_without_its_writer_is_not_ready(server: Server) -> None:
    server.service.writer.close()
    assert failing(server) == ["log"]


def test_an_answer_holds_for_a_second_and_no_longer(server: Server) -> None:
    clock = Clock()
    probe = ReadinessProbe(server.service, clock=clock, patience=60)

    async def ask() -> list[str]:
        said = [(await probe.asked()).status]
        server.service.writer.close()
        for seconds in (READY_SECONDS / 2, READY_SECONDS / 2):
            clock.now += seconds
            said.append((await probe.asked()).status)
        return said

    assert asyncio.run(ask()) == ["ready", "ready", "not ready"]


def test_who_asks_while_another_is_being_answered_gets_that_answer(server: Server) -> None:
    probe = ReadinessProbe(server.service, clock=Clock(), patience=60)
    answers = []

    async def ask() -> None:
        answers.append(await probe.asked())

    async def all_at_once() -> None:
        await asyncio.gather(*(ask() for _ in range(5)))

    asyncio.run(all_at_once())
    assert len(answers) == 5 and all(each is answers[0] for each in answers)


def test_when_it_changes_the_log_says_so_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    folder = server.service.settings.data_dir / "api"
    probe = ReadinessProbe(server.service, clock=clock, patience=60)

    async def ask() -> None:
        for is_broken in (False, True, True, False, False):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink(missing_ok=True)
            if is_broken:
                folder.write_bytes(b"no folder")
            await probe.asked()
            clock.now += READY_SECONDS

    asyncio.run(ask())
    assert [said for said in caplog.messages if "(" not in said] == ["Not ready: disk.", "Ready again."]


@contextmanager
def locked(url: str, table: str) -> Iterator[Callable[[], int]]:
    """Nobody can read the table meanwhile; how many wait to."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as holder, engine.connect() as watcher:
        holder.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))

        def waiting() -> int:
            count = f"SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted"
            return watcher.execute(text(count)).scalar_one()

        yield waiting
    engine.dispose()


def test_a_ledger_that_hangs_is_not_ready_and_takes_one_thread_however_often_it_is_asked(
    serve: Callable[..., Server],
) -> None:
    with schema_url() as url, closed_at_the_end():
        server = serve(ledger_url=url)
        clock = Clock()
        probe = ReadinessProbe(server.service, clock=clock, patience=0.5)

        async def ask() -> None:
            with locked(url, "restores") as waiting:
                for _ in range(3):
                    ledger = (await probe.asked()).checks.ledger
                    assert (ledger.ok, ledger.sentence) == (False, "It did not answer in time.")
                    assert waiting() == 1
                    clock.now += READY_SECONDS
            async with asyncio.timeout(60):
                while not (await probe.asked()).checks.ledger.ok:
                    clock.now += READY_SECONDS

        asyncio.run(ask())


# --- Metrics -----------------------------------------------------------------------------------------------------


def test_a_key_of_scope_admin_reads_the_metrics_from_anywhere(server: Server) -> None:
    for headers in ({"X_API_Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
        answer = server.get("/metrics", **headers)
        assert answer.status_code == 200 and "dpdau_event_posts_accepted_total 0.0" in answer.text
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    answer = server.get("/metrics", X_API_Key=KEY, Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text") and answer.text.endswith("# EOF\n")


def test_others_are_told_why_they_may_not(server: Server) -> None:
    _, reader = server.service.key_file.add("dashboards", frozenset({"read", "ingest", "erase"}), TODAY)
    for address in (REMOTE, LOCAL):  # a key that is sent is judged wherever it comes from
        assert server.get("/metrics", address, X_API_Key=reader).status_code == 403
        assert server.get("/metrics", address, X_API_Key="x" * 40).json()["code"] == "Unauthorized"
    answer = server.get("/metrics")
    assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    assert "dpdau_" not in answer.text


@pytest.mark.parametrize("address", [LOCAL, "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_on_the_machine_itself_metrics_need_no_key(server: Server, address: str) -> None:
    assert server.get("/metrics", address).status_code == 200


@pytest.mark.parametrize("address", [REMOTE, "10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0", "localhost", ""])
def test_every_other_address_needs_one(server: Server, address: str) -> None:
    assert server.get("/metrics", address).status_code == 401


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "x-forwarded-by"],
)
def test_what_a_proxy_forwards_is_not_local(server: Server, header: str) -> None:
    assert server.get("/metrics", LOCAL, **{header: ""}).status_code == 401


@pytest.mark.parametrize("address", [LOCAL, f"::ffff:{LOCAL}"])
@pytest.mark.parametrize("proxies", [(LOCAL,), ("10.0.0.1", "127.0.0.0/8"), ("*",), ("unix",)])
def test_an_address_that_a_trusted_proxy_may_have_is_not_local(
    serve: Callable[..., Server], address: str, proxies: tuple[str, ...]
) -> None:
    assert serve(trusted_proxies=proxies).get("/metrics", address).status_code == 401


@pytest.mark.parametrize("proxy", [f"::ffff:{LOCAL}", "::/0"])
def test_a_trusted_proxy_may_be_named_as_its_socket_shows_it(serve: Callable[..., Server], proxy: str) -> None:
    assert serve(trusted_proxies=(proxy,)).get("/metrics", f"::ffff:{LOCAL}").status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "10.0.0.1:8000"])
def test_a_request_that_names_another_host_is_no_local_one(host: str, server: Server) -> None:
    assert server.get("/metrics", LOCAL, Host=host).status_code == 401
    assert server.get("/metrics", LOCAL, Host="[::1]:8000").status_code == 200


def test_proxies_elsewhere_leave_the_machine_itself_what_it_may(serve: Callable[..., Server]) -> None:
    assert serve(trusted_proxies=("10.0.0.1", "192.168.0.0/16")).get("/metrics", LOCAL).status_code == 200


# --- Limits and the document -------------------------------------------------------------------------------------


def test_one_address_may_ask_so_often_and_is_always_told_of_health(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PROBES_PER_MINUTE", 2)
    assert [server.get("/readyz").status_code, server.get("/metrics", LOCAL).status_code] == [200, 200]
    assert [server.get("/metrics", X_API_Key=KEY).status_code for _ in range(2)] == [200, 429]
    answer = server.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (429, "TooManyRequests")
    assert int(answer.headers["retry-after"]) >= 1
    assert [server.get("/healthz").status_code for _ in range(5)] == [200] * 5
    assert server.get("/readyz", "203.0.113.8").status_code == 200


def test_clients_that_have_used_up_their_limit_do_not_stop_monitoring(serve: Callable[..., Server]) -> None:
    server = serve(rate_limit_per_minute=1)
    assert [server.get("/metrics", X_API_Key=KEY).status_code for _ in range(2)] == [200, 429]
    assert server.get("/readyz").status_code == 200


def test_the_document_declares_what_is_answered(server: Server) -> None:
    paths = server.app.openapi()["paths"]
    ready = paths["/readyz"]["get"]["responses"]
    shapes = [ready[code]["content"]["application/json"]["schema"] for code in ("200", "503")]
    assert shapes[0] == shapes[1] == {"$ref": "#/components/schemas/Readiness"}
    assert set(paths["/metrics"]["get"]["responses"]["200"]["content"]) == {
        "text/plain",
        "application/openmetrics-text",
    }
    assert {"401", "403", "429", "default"} <= set(paths["/metrics"]["get"]["responses"])
    assert {"429", "default"} <= set(ready) and "422" not in ready
    assert paths["/metrics"]["get"]["security"] == [{}, {"key": []}, {"bearer": []}]
    assert not {"security"} & {*paths["/healthz"]["get"], *paths["/readyz"]["get"]}


def test_an_app_that_is_given_another_service_asks_that_one(
    serve: Callable[..., Server], make_store: MakeStore
) -> None:
    server = serve()
    server.service.writer.close()
    assert failing(server) == ["log"]
    store = make_store("another", today=TODAY)
    with opened(replace(store.settings), store) as service:
        server.app.state.service = server.service = service
        assert failing(server) == []
