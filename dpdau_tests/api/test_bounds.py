"""How big, slow and odd a request may be, and what each answer carries; without a server, around small apps."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import zlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpdau_assets.api.bounds import BadBody, Bounds, Limits, is_plain, unpacked

SMALL = Limits(body_bytes=1000, body_seconds=0.2, idle_seconds=0.05, linger_seconds=0.05)
PATIENT = Limits(body_bytes=1000, linger_seconds=0.05)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    is_complete: bool = False
    scope: Scope = field(default_factory=dict)

    @property
    def named(self) -> dict[str, str]:
        """The headers, of which none may be there twice."""
        names = [name for name, _ in self.headers]
        assert len(names) == len(set(names)), names
        return {name.decode(): value.decode() for name, value in self.headers}

    @property
    def problem(self) -> dict[str, Any]:
        """The body, which must be one of the one schema."""
        assert self.named["content-type"] == "application/problem+json"
        said = json.loads(self.body)
        assert {"type", "title", "status", "detail", "instance", "code", "remedy"} <= said.keys()
        assert said["status"] == self.status and said["instance"].endswith(self.named["x-request-id"])
        return said


def ask(
    app: ASGIApp,
    method: str = "POST",
    path: str = "/event",
    pieces: Iterable[bytes | None] = (b"",),
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    query: bytes = b"",
    raw_path: bytes | None = None,
    scheme: str = "http",
) -> Answer | None:
    """What the app answers to a body in these pieces, of which None is a client that says nothing more; None for no
    answer at all.
    """
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode() if raw_path is None else raw_path,
        "query_string": query,
        "headers": list(headers),
        "scheme": scheme,
        "client": ("203.0.113.7", 1),
    }
    waiting = list(pieces)
    answers: list[Answer] = []

    async def receive() -> Message:
        if not waiting or waiting[0] is None:
            await asyncio.Event().wait()
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answers.append(Answer(message["status"], message["headers"], scope=scope))
        else:
            assert not answers[0].is_complete
            answers[0].body += message.get("body", b"")
            answers[0].is_complete = not message.get("more_body", False)

    async def run() -> None:
        await app(scope, receive, send)

    asyncio.run(run())
    assert len(answers) <= 1
    return answers[0] if answers else None


def answered(*arguments: Any, **more: Any) -> Answer:
    """What the app answers, which it does to the end."""
    answer = ask(*arguments, **more)
    assert answer is not None and answer.is_complete
    return answer


class Counting:
    """An app that says how long the body is, and remembers what it read and how it ended."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.gone = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.bodies.append(await Request(scope, receive).body())
        except ClientDisconnect:
            self.gone += 1
            raise
        await PlainTextResponse(str(len(self.bodies[-1])))(scope, receive, send)


async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError(scope["path"])


# Bodies


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=6))
def test_a_body_is_passed_on_whole_or_refused_whole(pieces: list[bytes]) -> None:
    app = Counting()
    answer = answered(Bounds(app, PATIENT), pieces=pieces)
    if sum(map(len, pieces)) <= 1000:
        assert (answer.status, app.bodies) == (200, [b"".join(pieces)])
    else:
        assert (answer.status, answer.problem["code"], app.bodies) == (413, "BodyTooLarge", [])
        assert answer.named["connection"] == "close"


def test_a_length_over_the_bound_is_refused_before_anything_is_read() -> None:
    answer = answered(Bounds(unreachable, SMALL), headers=[(b"content-length", b"1001")], pieces=[b"x", None])
    assert answer.status == 413 and answer.problem["code"] == "BodyTooLarge" and answer.named["connection"] == "close"


@pytest.mark.parametrize("length", [b"9" * 5000, b"1" * 21])
def test_a_length_that_is_no_machine_number_is_refused(length: bytes) -> None:
    assert answered(Bounds(unreachable), headers=[(b"content-length", length)]).status == 413


def test_a_body_that_stops_midway_is_cut_off_and_the_app_sees_a_client_that_has_gone() -> None:
    app = Counting()
    answer = answered(Bounds(app, SMALL), pieces=[b"half", None])
    assert (answer.status, answer.problem["code"]) == (408, "BodyTooSlow")
    assert answer.named["connection"] == "close"
    assert (app.bodies, app.gone) == ([], 1)


def test_a_body_that_trickles_is_cut_off_when_its_whole_time_is_over() -> None:
    seconds = iter(range(100))
    limits = Limits(body_seconds=5, idle_seconds=5)
    app = Counting()
    answer = answered(Bounds(app, limits, clock=lambda: next(seconds)), pieces=[b"x"] * 50)
    assert (answer.status, app.bodies) == (408, [])


def test_a_complete_body_that_the_app_reads_late_is_not_too_slow() -> None:
    seconds = iter([0, 100, 200, 300])
    assert answered(Bounds(Counting(), clock=lambda: next(seconds)), pieces=[b"whole"]).body == b"5"


def test_an_answer_that_the_app_gives_after_a_refusal_is_not_sent() -> None:
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await PlainTextResponse("accepted", 202)(scope, receive, send)

    answer = answered(Bounds(stubborn, SMALL), pieces=[b"x" * 600, b"x" * 600, b"x"])
    assert answer.status == 413 and b"accepted" not in answer.body


def test_waiting_for_the_client_to_go_after_the_body_has_no_end() -> None:
    async def slow() -> AsyncIterator[str]:
        yield "first"
        await asyncio.sleep(0.15)  # longer than a body may be silent
        yield "second"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(slow())(scope, receive, send)

    assert answered(Bounds(app, SMALL), "GET", pieces=[b""]).body == b"firstsecond"


# URLs and headers


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"query": b"q" * 4091}, 414, "UrlTooLong"),
        ({"path": "/" + "p" * 5000}, 414, "UrlTooLong"),
        ({"headers": [(b"x-%d" % number, b"1") for number in range(65)]}, 431, "HeadersTooLarge"),
        ({"headers": [(b"x", b"1" * 17_000)]}, 431, "HeadersTooLarge"),
        ({"headers": [(b"1" * 17_000, b"x")]}, 431, "HeadersTooLarge"),
    ],
)
def test_an_url_or_headers_over_the_bound_never_reach_the_app(more: dict[str, Any], status: int, code: str) -> None:
    answer = answered(Bounds(unreachable), **more)
    assert (answer.status, answer.problem["code"]) == (status, code)


def test_an_url_and_headers_within_the_bounds_do() -> None:
    headers = [(b"x-%02d" % number, b"1" * 200) for number in range(64)]
    assert answered(Bounds(Counting()), query=b"q" * 4000, headers=headers).status == 200


@pytest.mark.parametrize(
    ("path", "raw_path"),
    [
        ("/a\x00", b"/a%00"),
        ("/a\r\nSet-Cookie: x", b"/a%0d%0aSet-Cookie:%20x"),
        ("/../a", b"/%2e%2e/a"),
        ("/dau/..", b"/dau/.."),
        ("/./a", b"/./a"),
        ("//a", b"//a"),
        ("/dau//a", b"/dau//a"),
        ("/a\\b", b"/a%5Cb"),
        ("/é", b"/%C3%A9"),
        ("/\ufffd", b"/%ff"),
        ("/dau/2025-10-01", b"/dau%2F2025-10-01"),
        ("/%2e%2e/a", b"/%252e%252e/a"),
        ("*", b"*"),
        ("", b""),
    ],
)
def test_a_path_that_can_be_read_in_two_ways_is_nowhere_and_not_repeated(path: str, raw_path: bytes) -> None:
    answer = answered(Bounds(unreachable), path=path, raw_path=raw_path)
    assert (answer.status, answer.problem["code"]) == (404, "NotFound")
    assert len(path) < 3 or path.encode() not in answer.body


@given(st.from_regex(r"\A(/[A-Za-z0-9_~:,;@=+$&!*'()-]{1,9}){1,4}/?\Z"))
def test_a_path_of_ordinary_segments_is_plain(path: str) -> None:
    assert is_plain(path, path.encode())


@given(st.text(max_size=30))
def test_a_plain_path_only_goes_down_and_prints_as_it_is(path: str) -> None:
    if is_plain(path, b""):
        assert re.fullmatch(r"/|(/(?!\.{1,2}(/|$))[ -.0-\[\]-~]+)+/?", path)


# What answers carry


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello", headers={"Server": "secret/1.0", "X-Request-ID": "mine"})(scope, receive, send)


@pytest.mark.parametrize("path", ["/", "/../"])
def test_every_answer_carries_an_id_of_our_own_and_the_security_headers(path: str) -> None:
    answer = answered(Bounds(hello), "GET", path, headers=[(b"x-request-id", b"chosen")])
    assert answer.named["x-request-id"] == answer.scope["state"]["request_id"]
    assert re.fullmatch("[0-9a-f]{16}", answer.named["x-request-id"])
    assert answer.named["x-content-type-options"] == "nosniff"
    assert answer.named["referrer-policy"] == "no-referrer"
    assert answer.named["cross-origin-resource-policy"] == "same-origin"
    assert answer.named["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.named["cache-control"] == "no-store"
    assert "server" not in answer.named and "strict-transport-security" not in answer.named


def test_two_requests_have_two_ids() -> None:
    app = Bounds(hello)
    assert answered(app).named["x-request-id"] != answered(app).named["x-request-id"]


def test_over_tls_browsers_are_told_to_stay_there() -> None:
    assert answered(Bounds(hello), scheme="https").named["strict-transport-security"] == "max-age=31536000"


def test_a_policy_that_the_app_has_set_itself_stays() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        own = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "no-cache"}
        await PlainTextResponse("docs", headers=own)(scope, receive, send)

    named = answered(Bounds(app)).named
    assert named["content-security-policy"] == "default-src 'self'" and named["cache-control"] == "no-cache"


# HEAD, errors, clients that go


def routes() -> FastAPI:
    app = FastAPI()

    @app.get("/dau/{day}")
    async def _(day: str) -> dict[str, str]:
        return {"day": day}

    @app.get("/fails/{day}")
    async def _(day: str) -> None:
        raise ValueError(day)

    return app


def test_head_is_answered_as_get_is_without_the_body() -> None:
    head = answered(Bounds(routes()), "HEAD", "/dau/today")
    get = answered(Bounds(routes()), "GET", "/dau/today")
    assert (head.status, head.body, get.body) == (200, b"", b'{"day":"today"}')
    assert head.named | {"x-request-id": ""} == get.named | {"x-request-id": ""}
    assert head.scope["method"] == "HEAD" and head.scope["route"].path == "/dau/{day}"


def test_an_exception_that_escapes_the_app_is_500_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("person-4711")

    answer = answered(Bounds(fails))
    assert (answer.status, answer.problem["code"]) == (500, "Unexpected")
    assert b"person-4711" not in answer.body
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.ERROR, "dpdau.api")
    fields = record.fields  # type: ignore[attr-defined]
    assert fields["request_id"] == answer.named["x-request-id"]
    assert fields["errors"][0]["type"] == "builtins.ValueError" and "person-4711" not in caplog.text + repr(fields)


def test_an_exception_that_starlette_has_answered_is_logged_and_not_answered_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert answered(Bounds(routes()), "GET", "/fails/person-4711").status == 500
    assert [record.message for record in caplog.records] == ["unexpected"]
    assert "person-4711" not in caplog.text


def test_an_answer_that_breaks_off_stays_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise OSError

    answer = ask(Bounds(breaks))
    assert answer is not None and not answer.is_complete and answer.body == b"half"
    assert len(caplog.records) == 1


def test_an_app_that_answers_nothing_is_answered_for() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return

    assert answered(Bounds(silent)).problem["code"] == "Unexpected"


def test_a_client_that_goes_is_no_error_and_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    app = Counting()
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b"", "scheme": "http"}
    asyncio.run(Bounds(app)(scope, gone, send))
    assert app.gone == 1 and not caplog.records


def test_what_is_not_http_passes_untouched() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    asyncio.run(Bounds(app)({"type": "lifespan"}, receive, send))
    assert seen == [{"type": "lifespan"}]


# Unpacking


def problem_of(body: bytes, encoding: str | None = "gzip", most: int = 1000) -> tuple[int, str]:
    with pytest.raises(BadBody) as refused:
        unpacked(body, encoding, most)
    return refused.value.problem.status, refused.value.problem.code


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.sampled_from(["gzip", " GZip ", "x-gzip"]))
def test_gzip_of_one_or_more_members_unpacks_to_what_was_packed(parts: list[bytes], encoding: str) -> None:
    assert unpacked(b"".join(map(gzip.compress, parts)), encoding) == b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_048_576, 3_000_000])
def test_a_long_body_unpacks_whole(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"\0" * (size % 256)
    assert unpacked(gzip.compress(body), "gzip") == body
    assert unpacked(gzip.compress(body, 0), "gzip", size) == body


@pytest.mark.parametrize("encoding", [None, "identity", ""])
def test_a_body_without_an_encoding_stays_as_it_is(encoding: str | None) -> None:
    assert unpacked(b"\x1f\x8b", encoding) == b"\x1f\x8b"


@given(st.binary(min_size=1, max_size=200), st.data())
def test_gzip_that_is_cut_short_is_refused(body: bytes, data: st.DataObject) -> None:
    packed = gzip.compress(body)
    assert problem_of(packed[: data.draw(st.integers(0, len(packed) - 1))]) == (400, "BodyNotGzip")


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_unpack_or_are_refused_and_nothing_else(body: bytes) -> None:
    try:
        unpacked(body, "gzip", 1000)
    except BadBody as refused:
        assert refused.problem.status in (400, 413)
    else:
        assert gzip.decompress(body) is not None


@pytest.mark.parametrize("tail", [b"\0", b"garbage", b"\x1f\x8b"])
def test_gzip_with_something_behind_it_is_refused(tail: bytes) -> None:
    assert problem_of(gzip.compress(b"events") + tail) == (400, "BodyNotGzip")


def test_a_damaged_checksum_is_refused() -> None:
    packed = bytearray(gzip.compress(b"events"))
    packed[-6] ^= 1
    assert problem_of(bytes(packed)) == (400, "BodyNotGzip")


@pytest.mark.parametrize("size", [1001, 2_000_000, 80_000_000])
def test_a_bomb_is_refused_before_it_goes_off(size: int) -> None:
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1_000_000)
    packed = b"".join(packer.compress(zeros[: min(size - at, len(zeros))]) for at in range(0, size, len(zeros)))
    assert problem_of(packed + packer.flush()) == (413, "BodyTooLarge")


def test_members_that_are_small_alone_are_a_bomb_together() -> None:
    assert problem_of(gzip.compress(bytes(600)) * 2) == (413, "BodyTooLarge")


def test_a_body_of_very_many_members_is_refused() -> None:
    assert problem_of(gzip.compress(b"") * 3000) == (400, "BodyNotGzip")
    assert unpacked(gzip.compress(b"x") * 2000, "gzip") == b"x" * 2000


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd", "\x00"])
def test_another_encoding_is_refused_with_the_one_that_is_known(encoding: str) -> None:
    assert problem_of(b"", encoding) == (415, "EncodingUnknown")
    with pytest.raises(BadBody) as refused:
        unpacked(b"", encoding)
    assert refused.value.problem.headers["Accept-Encoding"] == "gzip"


def test_a_plain_body_over_the_bound_is_refused_too() -> None:
    assert problem_of(bytes(1001), None) == (413, "BodyTooLarge")
