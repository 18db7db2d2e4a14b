"""What the log says of a request, and what it never says."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.api.bounds import Bounds
from dpdau_assets.api.request_log import LOGGER, Answered, JsonLines, RequestLog, described, log_config
from dpdau_assets.core.errors import BadSetting

SECRET = "person-4711"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the server's loggers write, under its own configuration."""
    written = io.StringIO()
    config = log_config()
    config["handlers"]["stderr"]["stream"] = written
    loggers = [logging.getLogger(name) for name in ("", "dpdau", "uvicorn", "uvicorn.access", "asyncio")]
    before = [(each, each.handlers[:], each.level, each.propagate) for each in loggers]
    logging.config.dictConfig(config)
    yield written
    for each, handlers, level, propagate in before:
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)


def routes() -> FastAPI:
    app = FastAPI()

    @app.post("/erasure/{receipt}")
    async def _(receipt: str, request: Request) -> dict[str, int]:
        request.state.client = "dashboards"
        return {"size": len(await request.body())}

    @app.get("/fails/{day}")
    async def _(day: str) -> None:
        raise ValueError(day)

    return app


def ask(method: str, url: str, also: Any = None, **more: Any) -> None:
    async def asked() -> None:
        transport = httpx.ASGITransport(RequestLog(Bounds(routes()), also), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            await client.request(method, url, **more)

    asyncio.run(asked())


def read(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_request_is_one_line_of_its_route_and_sizes_and_key_name(lines: io.StringIO) -> None:
    ask("POST", f"/erasure/{SECRET}", content=b"12345")
    (line,) = read(lines)
    assert set(line) == {
        *("time", "level", "logger", "message", "request_id", "method", "route", "status"),
        *("bytes_out", "client", "milliseconds"),
    }
    assert line["method"] == "POST" and line["route"] == "/erasure/{receipt}" and line["status"] == 200
    assert (line["bytes_out"], line["client"]) == (len('{"size":5}'), "dashboards")
    assert line["time"].endswith("+00:00") and line["milliseconds"] >= 0


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", f"X{SECRET}"])
@pytest.mark.parametrize("path", ["/erasure/", "/fails/", "/nowhere/", "/a\\b/", "/../"])
def test_nothing_that_a_client_sends_reaches_the_log(method: str, path: str, lines: io.StringIO) -> None:
    ask(
        method,
        f"{path}{SECRET}",
        params={SECRET: SECRET},
        headers={"User-Agent": SECRET, "X-Request-ID": SECRET, "X-API-Key": SECRET, "Referer": SECRET},
        content=SECRET.encode(),
    )
    assert SECRET not in lines.getvalue()
    assert "127.0.0.1" not in lines.getvalue()
    assert read(lines)[-1]["message"] == "request"


def test_a_path_without_a_route_is_unmatched(lines: io.StringIO) -> None:
    ask("GET", "/nowhere")
    (line,) = read(lines)
    assert (line["route"], line["bytes_in"]) == ("unmatched", 0)


def test_how_long_an_id_is_that_somebody_asks_to_erase_is_not_told(lines: io.StringIO) -> None:
    ask("POST", "/erasure/1", content=b'{"user_id": "somebody"}')
    assert "bytes_in" not in read(lines)[0]


def test_an_error_is_told_by_its_type_and_place_under_the_id_of_the_request(lines: io.StringIO) -> None:
    ask("GET", f"/fails/{SECRET}")
    error, request = read(lines)
    assert error["request_id"] == request["request_id"] and request["status"] == 500
    assert error["errors"][0]["type"] == "builtins.ValueError"
    assert any("test_request_log.py" in frame for frame in error["errors"][0]["frames"])


def test_whoever_else_is_told_gets_what_the_line_says(lines: io.StringIO) -> None:
    told: list[Answered] = []
    ask("HEAD", "/fails/x", told.append)
    assert [(each.method, each.route, each.status) for each in told] == [("HEAD", "/fails/{day}", 500)]
    assert told[0].request_id == read(lines)[-1]["request_id"]


@given(st.text())
def test_a_line_is_one_line_of_json_whatever_stands_in_it(text: str) -> None:
    record = logging.LogRecord(LOGGER, logging.INFO, "", 0, "%s", (text,), None)
    record.fields = {"client": text}
    line = JsonLines().format(record)
    assert line.isascii() and line.isprintable()
    assert json.loads(line)["client"] == text


def test_the_text_of_an_exception_is_in_no_line_of_any_logger(lines: io.StringIO) -> None:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise ExceptionGroup(SECRET, [ValueError(SECRET)]) from error
    except ExceptionGroup as error:
        for name in ("uvicorn.error", "asyncio", LOGGER, "sqlalchemy"):
            logging.getLogger(name).error("failed\nfuture: exception=%r", error, exc_info=error)
    assert SECRET not in lines.getvalue()
    for line in read(lines):
        assert line["message"] == "failed"
        assert [each["type"] for each in line["errors"]] == [
            "builtins.ExceptionGroup",
            "builtins.ValueError",
            "builtins.KeyError",
        ]


def test_causes_that_go_in_circles_are_told_once() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert [each["type"] for each in described(first)] == ["builtins.ValueError", "builtins.KeyError"]


def test_uvicorns_access_log_is_off_and_its_own_messages_are_json(lines: io.StringIO) -> None:
    logging.getLogger("uvicorn.access").info("%s", SECRET)
    access = logging.getLogger("uvicorn.access")
    assert not access.propagate and not access.isEnabledFor(logging.ERROR)
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 1)
    assert [line["message"] for line in read(lines)] == ["Started server process [1]"]


def test_a_level_that_would_log_addresses_is_refused() -> None:
    with pytest.raises(BadSetting, match="One of debug, info, warning, error"):
        log_config("trace")
