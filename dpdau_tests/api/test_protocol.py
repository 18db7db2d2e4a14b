"""What uvicorn itself is held to: a real server in a thread, and raw sockets."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from dpdau_assets.api.bounds import Bounds, Limits
from dpdau_assets.api.protocol import BoundedHttpToolsProtocol
from dpdau_assets.api.request_log import RequestLog

GET = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: server\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class Patient(BoundedHttpToolsProtocol):
    """The bounds as they are, but for what a test waits for."""


class Hasty(BoundedHttpToolsProtocol):
    """Cuts off at once what is late, within a test's patience."""

    HEADER_SECONDS = 1.0
    SEND_SECONDS = 1.0


class Few(BoundedHttpToolsProtocol):
    """Takes five connections."""

    MAX_CONNECTIONS = 5


class App:
    """Answers at each path in its own way, and keeps which paths it was asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.slow_reader_has_gone = threading.Event()
        self.one_waits = threading.Event()
        self._may_go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.paths.append(scope["path"])
        request = Request(scope, receive)
        match scope["path"]:
            case "/body":
                body = await request.body()
                answer = PlainTextResponse(f"{len(body)} {request.headers.get('x-api-key')}")
            case "/waits":
                self.one_waits.set()
                await self._may_go.wait()
                answer = PlainTextResponse("waited")
            case "/go":
                self._may_go.set()
                self._may_go = asyncio.Event()
                answer = PlainTextResponse("gone")
            case "/much":
                await StreamingResponse(bytes(65_536) for _ in range(500))(scope, receive, send)
                self.slow_reader_has_gone.set()
                return
            case _:
                answer = PlainTextResponse("hello")
        await answer(scope, receive, send)


class Server:
    """A running server, and how to speak to it."""

    def __init__(self, port: int, app: App) -> None:
        self.port = port
        self.app = app

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def exchange(self, sent: bytes) -> Exchange:
        """Everything that the server says to these bytes until it closes, or has answered the question behind them."""
        with self.connect() as client:
            with suppress(ConnectionError):
                client.sendall(sent)
            return Exchange(everything(client))

    def let_go(self) -> None:
        """Have /waits answered, once somebody waits there."""
        assert self.app.one_waits.wait(60)
        self.app.one_waits.clear()
        assert self.exchange(b"GET /go HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").statuses == [200]

    def answers(self) -> bool:
        """Whether an ordinary request is answered."""
        return self.exchange(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).statuses == [200]


class Exchange:
    """What came back on one connection until it was closed."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.raw.split(b"HTTP/1.1 ")[1:]]

    @property
    def problem(self) -> dict[str, object]:
        """The one answer, which must be an error of the one schema, after which the connection is closed."""
        assert len(self.statuses) == 1, self.raw
        head, _, body = self.raw.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        assert headers[b"content-type"] == b"application/problem+json" and headers[b"connection"] == b"close"
        assert headers[b"x-content-type-options"] == b"nosniff" and int(headers[b"content-length"]) == len(body)
        said = json.loads(body)
        assert {"type", "title", "status", "detail", "instance", "code", "remedy"} <= said.keys()
        assert said["status"] == self.statuses[0]
        assert said["instance"].endswith(headers[b"x-request-id"].decode())
        return said


def everything(client: socket.socket) -> bytes:
    """What comes until the other side closes; a test that waits in vain for that fails."""
    said = bytearray()
    with suppress(ConnectionError):
        while piece := client.recv(65_536):
            said += piece
    return bytes(said)


def answer_of(client: socket.socket) -> bytes:
    """The next answer with a length, on a connection that stays open."""
    said = b""
    while b"\r\n\r\n" not in said:
        piece = client.recv(1)
        assert piece, said
        said += piece
    length = int(said.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while length:
        length -= len(client.recv(length))
    return said


@contextmanager
def serving(protocol: type[BoundedHttpToolsProtocol], loop: str, limits: Limits | None = None) -> Iterator[Server]:
    """A server with this protocol and an app of its own, in a thread."""
    app = App()
    config = uvicorn.Config(
        RequestLog(Bounds(app, limits)),
        http=protocol,
        ws="none",
        loop=loop,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=1_000) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Server(listening.getsockname()[1], app)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module", params=[pytest.param("asyncio", marks=pytest.mark.slow(weight=0.3)), "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """Which event loop serves."""
    return request.param


@pytest.fixture(scope="module")
def patient(loop: str) -> Iterator[Server]:
    with serving(Patient, loop) as server:
        yield server


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    with serving(Hasty, "uvloop") as server:
        yield server


# What is a request


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", id="two lengths"),
        pytest.param(POST + b"Content-Length: 3, 3\r\n\r\nabc", id="a list of lengths"),
        pytest.param(POST + b"Content-Length: -3\r\n\r\nabc", id="a negative length"),
        pytest.param(POST + b"Content-Length: 0x3\r\n\r\nabc", id="a hexadecimal length"),
        pytest.param(POST + b"Content-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n", id="length and chunks"),
        pytest.param(POST + CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n0\r\n\r\n", id="chunks and length"),
        pytest.param(POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="an unknown coding"),
        pytest.param(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="two codings"),
        pytest.param(POST + CHUNKED[:-2] + CHUNKED + b"0\r\n\r\n", id="chunked twice"),
        pytest.param(POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", id="a space before the colon"),
        pytest.param(b"POST / HTTP/1.0\r\nHost: server\r\n" + CHUNKED + b"0\r\n\r\n", id="chunks in HTTP/1.0"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: server\r\nHost: other\r\n\r\n", id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\nHost: server\n\n", id="bare LF"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: server\nX: y\r\n\r\n", id="bare LF in a value"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: server\rX: y\r\n\r\n", id="bare CR in a value"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: server\r\nX: a\x00b\r\n\r\n", id="NUL in a value"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: server\r\nX: a\r\n b\r\n\r\n", id="a folded header"),
        pytest.param(b"GET /\r\nHost: server\r\n\r\n", id="HTTP/0.9"),
        pytest.param(b"GET /\xc3\xa9 HTTP/1.1\r\nHost: server\r\n\r\n", id="an URL that is not ASCII"),
        pytest.param(b"GET /a b HTTP/1.1\r\nHost: server\r\n\r\n", id="a space in the URL"),
        pytest.param(b"GET http://[ HTTP/1.1\r\nHost: server\r\n\r\n", id="an URL that is none"),
        pytest.param(b"CONNECT server:80 HTTP/1.1\r\nHost: server\r\n\r\n", id="CONNECT"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"\x00" * 100, id="zeros"),
        pytest.param(
            POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 9\r\n\r\nGET / HTT", id="upgraded body"
        ),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(patient: Server, sent: bytes) -> None:
    before = len(patient.app.paths)
    assert patient.exchange(sent + GET).problem["code"] == "MalformedRequest"
    assert len(patient.app.paths) == before and patient.answers()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"//", 404),
        (b"//evil/dau", 404),
        (b"/../dau", 404),
        (b"/%2e%2e/dau", 404),
        (b"/dau/%2E%2e/%2e./x", 404),
        (b"/%252e%252e/dau", 404),
        (b"/dau%2f2025-10-01", 404),
        (b"/dau%5c2025-10-01", 404),
        (b"/dau\\2025-10-01", 404),
        (b"/dau%00", 404),
        (b"/dau%0d%0aX:%20y", 404),
        (b"/%ff", 404),
        (b"*", 404),
        (b"/" + b"a" * 5_000, 414),
        (b"/?" + b"a" * 5_000, 414),
    ],
)
def test_a_path_trick_reaches_no_route_and_is_not_repeated(patient: Server, target: bytes, status: int) -> None:
    before = len(patient.app.paths)
    said = patient.exchange(b"GET %s HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n" % target)
    assert said.problem["status"] == status and (len(target) < 3 or target not in said.raw)
    assert len(patient.app.paths) == before and patient.answers()


def test_a_url_with_a_host_is_the_path_alone(patient: Server) -> None:
    said = patient.exchange(b"GET http://evil/dau?x HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")
    assert said.statuses == [200] and patient.app.paths[-1] == "/dau"


def test_a_connection_is_kept_for_the_next_request(patient: Server) -> None:
    with patient.connect() as client:
        for _ in range(3):
            client.sendall(GET)
            assert answer_of(client).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_request_for_websockets_is_answered_as_any_other_and_nothing_behind_it_is_read(patient: Server) -> None:
    before = len(patient.app.paths)
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"
    assert patient.exchange(GET[:-2] + upgrade + GET).statuses == [200]
    with patient.connect() as client:
        client.sendall(b"GET /waits HTTP/1.1\r\nHost: server\r\n" + upgrade)
        client.sendall(GET)
        patient.let_go()
        assert Exchange(everything(client)).statuses == [200]
    assert len(patient.app.paths) == before + 3


def test_a_trailer_does_not_become_a_header(patient: Server) -> None:
    sent = b"POST /body HTTP/1.1\r\nHost: server\r\nConnection: close\r\n"
    said = patient.exchange(sent + CHUNKED + b"3\r\nabc\r\n0\r\nX-API-Key: stolen\r\n\r\n")
    assert said.raw.endswith(b"\r\n\r\n3 None")


def test_an_error_behind_a_request_is_not_taken_for_its_answer(patient: Server) -> None:
    with patient.connect() as client:
        client.sendall(b"GET /waits HTTP/1.1\r\nHost: server\r\n\r\ngarbage\r\n\r\n")
        patient.let_go()
        said = everything(client)
    assert Exchange(said).statuses == [200] and said.endswith(b"waited")


def test_a_broken_chunk_ends_the_request_that_it_belongs_to(patient: Server) -> None:
    said = patient.exchange(b"POST /body HTTP/1.1\r\nHost: server\r\n" + CHUNKED + b"3\r\nabc\r\nzz\r\n")
    assert said.problem["code"] == "MalformedRequest" and patient.answers()


# How much


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: server\r\nX: " + b"a" * 1_000_000, id="one header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: server\r\n" + b"X: a\r\n" * 200_000, id="many headers"),
        pytest.param(b"GET /" + b"a" * 1_000_000, id="an URL"),
        pytest.param(
            b"POST /body HTTP/1.1\r\nHost: server\r\n" + CHUNKED + b"0\r\nX: " + b"a" * 1_000_000, id="trailer"
        ),
    ],
)
def test_headers_without_an_end_are_cut_off(patient: Server, sent: bytes) -> None:
    said = patient.exchange(sent)
    assert said.raw == b"" or said.problem["code"] == "HeadersTooLarge"  # or the connection was reset meanwhile
    assert patient.answers()


def test_headers_over_the_bound_of_a_request_are_refused_by_it(patient: Server) -> None:
    said = patient.exchange(GET[:-2] + b"Connection: close\r\nX: " + b"a" * 20_000 + b"\r\n\r\n")
    assert said.problem["code"] == "HeadersTooLarge"


@pytest.mark.parametrize("framing", [b"Content-Length: 3000000\r\n\r\n", CHUNKED + b"2DC6C0\r\n"])
def test_who_is_still_sending_a_body_that_is_too_large_reads_why_it_was_refused(loop: str, framing: bytes) -> None:
    with serving(Patient, loop, Limits(body_bytes=1_000_000, linger_seconds=0.5)) as server, server.connect() as client:
        client.sendall(b"POST /body HTTP/1.1\r\nHost: server\r\n" + framing + b"a" * 1_500_000)
        assert Exchange(everything(client)).problem["code"] == "BodyTooLarge"


def test_a_body_that_stops_midway_is_answered_and_closed(loop: str) -> None:
    with serving(Patient, loop, Limits(idle_seconds=0.1)) as server:
        said = server.exchange(b"POST /body HTTP/1.1\r\nHost: server\r\nContent-Length: 9\r\n\r\nhalf")
        assert said.problem["code"] == "BodyTooSlow" and server.answers()


def test_a_connection_too_many_is_turned_away_and_another_is_taken_once_one_has_gone(loop: str) -> None:
    with serving(Few, loop) as server, ExitStack() as kept:
        for _ in range(5):
            client = kept.enter_context(server.connect())
            client.sendall(GET)
            answer_of(client)
        with server.connect() as sixth:
            assert Exchange(everything(sixth)).problem["code"] == "TooManyConnections"
        kept.close()
        while not server.answers():  # the server hears of it when it gets round to it
            pass
        assert server.app.paths == ["/"] * 6


def test_there_are_never_more_connections_than_open_files_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    def allowed(files: int) -> int:
        monkeypatch.setattr(resource, "getrlimit", lambda which: (files, files))
        return BoundedHttpToolsProtocol.most_connections()

    assert [allowed(files) for files in (1024, 20_000, -1, 64)] == [896, 2000, 2000, 1]


# How slow


def trickled(client: socket.socket, drop: bytes) -> bytes:
    """What the server says while it gets this again and again, until it closes. Ends only if it does."""
    client.settimeout(0.02)
    said = b""
    with suppress(ConnectionError):
        while True:
            with suppress(TimeoutError):
                piece = client.recv(65_536)
                said += piece
                if not piece:
                    break
            client.sendall(drop)
    return said


def test_500_connections_that_trickle_headers_are_cut_off_and_others_are_answered(loop: str) -> None:
    with serving(Hasty, loop) as server, ExitStack() as kept:
        clients = [kept.enter_context(server.connect()) for _ in range(500)]
        for client in clients:
            with suppress(ConnectionError):
                client.sendall(b"GET / HTTP/1.1\r\nHost: ser")
        assert server.answers()
        for client in clients:
            with suppress(ConnectionError):
                client.sendall(b"v")
        assert server.answers()
        ends = [everything(client) for client in clients]
        assert set(map(len, ends)) <= {0, len(max(ends))} and any(ends)
        assert {Exchange(end).problem["code"] for end in ends if end} == {"HeadersTooSlow"}
        assert server.answers() and set(server.app.paths) == {"/"} and len(server.app.paths) == 3


@pytest.mark.parametrize("drop", [b"a", b"\r\n"])
def test_a_connection_that_never_completes_its_headers_is_cut_off_while_it_sends(hasty: Server, drop: bytes) -> None:
    with hasty.connect() as client:
        said = trickled(client, drop)
    assert said == b"" or Exchange(said).problem["status"] in (400, 408)
    assert hasty.answers()


def test_a_connection_that_says_nothing_is_closed_without_a_word(hasty: Server) -> None:
    with hasty.connect() as client:
        assert everything(client) == b""


@pytest.mark.parametrize("drop", [b"a", b"\r\n"])
def test_a_kept_connection_whose_next_request_trickles_in_is_cut_off(hasty: Server, drop: bytes) -> None:
    with hasty.connect() as client:
        client.sendall(GET)
        answer_of(client)
        client.sendall(drop if drop == b"\r\n" else b"GET / HTTP/1.1\r\nX: ")
        said = trickled(client, drop)
    assert said == b"" or Exchange(said).problem["code"] == "HeadersTooSlow"


@pytest.mark.parametrize(
    ("framing", "drop"),
    [(b"Content-Length: 100000\r\n\r\n", b"a"), (CHUNKED + b"186A0\r\n", b"a"), (CHUNKED + b"0\r\nX: ", b"a")],
)
def test_a_body_that_nobody_reads_may_not_trickle_for_ever(hasty: Server, framing: bytes, drop: bytes) -> None:
    with hasty.connect() as client:
        client.sendall(POST + framing)
        answer_of(client)
        assert trickled(client, drop) == b""
    assert hasty.answers()


def test_a_request_that_takes_long_is_not_cut_off_by_the_time_of_the_next_ones_headers(hasty: Server) -> None:
    with hasty.connect() as client, hasty.connect() as other:
        client.sendall(b"GET /waits HTTP/1.1\r\nHost: server\r\n\r\nGET / HT")
        assert everything(other) == b""  # which is closed no earlier than the headers of the first are late
        hasty.let_go()
        said = everything(client)
    assert Exchange(said).statuses == [200] and said.endswith(b"waited")


def test_who_does_not_read_the_answer_is_cut_off(loop: str) -> None:
    with serving(Hasty, loop) as server, server.connect() as client:
        client.sendall(b"GET /much HTTP/1.1\r\nHost: server\r\n\r\n")
        assert server.app.slow_reader_has_gone.wait(60)
        assert len(everything(client)) < 65_536 * 500


def test_who_reads_a_long_answer_gets_all_of_it(patient: Server) -> None:
    said = patient.exchange(b"GET /much HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")
    assert said.raw.endswith(b"\r\n0\r\n\r\n") and len(said.raw) > 65_536 * 500
