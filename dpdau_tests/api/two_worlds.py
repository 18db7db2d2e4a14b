"""One course of things over HTTP, in a world with her and in one without: what is answered, logged and measured.

The noise of the world without her makes up for her: its published numbers are those of the other world, to the last
digit. So noisy values hide nothing of what is compared here, nor do lengths and ETags of answers, which follow from
them.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi.testclient import TestClient

from dpdau_assets.api.request_log import JsonLines
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.mechanisms import SharedNoise, Stream
from dpdau_assets.core.privacy.schedule import mechanism_for
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.settings import Metric
from dpdau_assets.core.state.rebuilding import build_days, days_behind, mark_reported
from dpdau_assets.core.state.touched import days_to_rebuild
from dpdau_tests.api.asking import asking
from dpdau_tests.conftest import FixedClock, opened, prepare
from resources.storage.api_key_file import api_key_file

SHE, NOBODY = "she@planted.example", "nobody@planted.example"
START, FIRST_MAU, LAST = date(2025, 1, 1), date(2025, 1, 30), date(2025, 2, 6)
ERASED_THROUGH = "2025-01-28"
_QUIET = days_between(START, date(2025, 1, 23))  # without her
_FIRST = days_between(date(2025, 1, 24), FIRST_MAU)
_SECOND = days_between(date(2025, 1, 31), date(2025, 2, 2))
_THIRD = days_between(date(2025, 2, 3), LAST)
_OTHERS = 40


def _on(*days: str) -> tuple[date, ...]:
    return tuple(date.fromisoformat(f"2025-{day}") for day in days)


# When she comes; and which numbers count her: those of DAU when they come out first, MAU, and January restated.
ON_TIME, LATER, LATE = _on("01-25", "01-26", "01-28", "01-29"), _on("02-01", "02-05"), date(2025, 1, 30)
AGAIN = _on("01-25", "01-27", "01-28")  # once she is erased
IN_DAU = frozenset((*ON_TIME, *LATER))
IN_MAU = frozenset(_on("01-30", "02-01", "02-02", "02-03", "02-04", "02-05", "02-06"))
IN_RESTATED_DAU = frozenset(_on("01-29", "01-30"))


@dataclass(frozen=True)
class Course:
    """What is different between worlds.

    Attributes:
        her: "absent"; or whether her events are rows "among" others of a request, or come "alone" in their own.
        settings: of the store.
    """

    her: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """One answer and the lines of the log about it, field by field, in order.

    Attributes:
        of: method, path and route, where the path names no request of erasure.
        hers: whether it is there for her events alone.
    """

    of: str
    fields: dict[str, Any]
    hers: bool = False


class MakingUp:
    """Noise of 0, but for what the next draws of a parameter are told to be."""

    private = True  # or nothing would show its numbers

    def __init__(self) -> None:
        self.told: deque[tuple[float, int]] = deque()

    def gaussian(self, sigma: float, draws: int = 1) -> list[int]:
        return [self.told.popleft()[1] if self.told and self.told[0][0] == sigma else 0 for _ in range(draws)]

    def laplace(self, scale: float, draws: int = 1) -> list[int]:
        raise AssertionError("no number is Laplace's here")


class World:
    """A store, and everything that is said of it."""

    def __init__(self, folder: Path, course: Course) -> None:
        self.course, self.noise = course, MakingUp()
        self.store: Store = replace(opened(folder, START, **course.settings), noise=self.noise)
        self.said: list[Said] = []
        self.lines: list[str] = []
        self.asked: set[tuple[str, str]] = set()
        self.receipts: list[str] = []
        _, self.key_of_readers = api_key_file(self.store.settings).add("reader", frozenset({"read"}), START)
        self._client: TestClient

    @contextmanager
    def serving(self, today: str, **settings: Any) -> Iterator[None]:
        """A server that is started on this day, and ends: what it had in its log is sealed then."""
        self.store = replace(self.store, clock=FixedClock(date.fromisoformat(today)))
        with asking(self.store, **settings) as self._client:
            yield

    def ask(self, method: str, path: str, body: Any = None, *, hers: bool = False, **headers: str) -> httpx.Response:
        """One request; what is said of it is kept. Headers are named with `_` for `-`; a body is bytes, or JSON."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        before = len(self.lines)
        answer = self._client.request(method, path, content=content, headers=sent)
        logged = [json.loads(line) for line in self.lines[before:]]
        route = next(line["route"] for line in logged if line["message"] == "request")
        self.asked.add((method.lower(), route))
        of = f"{method} {'' if path.startswith('/erasure/') else path} {route}"
        log = {f"log{where}": value for where, value in fields_of(logged)}
        fields = {"status": answer.status_code, **_headers(answer), **_body(answer), **log}
        self.said.append(Said(of, fields, hers))
        return answer

    def publish(self, days: Sequence[date]) -> None:
        """DAU and MAU of these days; where she is absent, noise stands in for her."""
        prepare(self.store, list(days))
        for day in days:
            self._make_up("dau", day, day in IN_DAU)
            publish("dau", day, self.store)
            if day >= FIRST_MAU:
                self._make_up("mau", day, day in IN_MAU)
                publish("mau", day, self.store)
        assert not self.noise.told

    def restate(self) -> None:
        """January's DAU once more."""
        for day in days_between(START, date(2025, 1, 31)):
            self._make_up("dau", day, day in IN_RESTATED_DAU)
        restate(START, self.store)
        assert not self.noise.told

    def rebuild(self) -> None:
        """Every day that waits, as the erasure sensor's runs build it."""
        marks = dict(days_to_rebuild(self.store))
        built = build_days({day: marks.get(day, 0) for day in days_behind(self.store)}, self.store)
        mark_reported(built, self.store.state)

    def _make_up(self, metric: Metric, day: date, is_in: bool) -> None:
        if self.course.her != "absent":
            return
        mechanism = mechanism_for(self.store.settings, metric, day.replace(day=1))
        if isinstance(mechanism, SharedNoise):
            self.noise.told.append((mechanism.sigma_day, 2 * is_in))
            return
        assert isinstance(mechanism, Stream)
        bits = np.array([each in IN_MAU for each in days_between(FIRST_MAU, day)], dtype=int)
        self.noise.told.append((mechanism.sigma, int(np.convolve(bits, mechanism.filter)[len(bits) - 1])))


# --- Field by field ----------------------------------------------------------------------------------------------


def fields_of(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in JSON by its path, and of each object the order of its names. Partitions go by their names."""
    if isinstance(value, dict):
        yield f"{where}{{}}", tuple(value)
        for name, inner in value.items():
            yield from fields_of(inner, f"{where}.{name}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            is_partition = isinstance(inner, dict) and "content_hash" in inner
            name = f"{inner['store']} {inner['day']} {inner['epoch']}" if is_partition else place
            yield from fields_of(inner, f"{where}[{name}]")
    else:
        yield where, value


def _headers(answer: httpx.Response) -> dict[str, Any]:
    return {"headers": tuple(answer.headers), **{f"header {name}": value for name, value in answer.headers.items()}}


def _body(answer: httpx.Response) -> dict[str, Any]:
    if "json" in answer.headers.get("content-type", ""):
        return {f"body{where}": value for where, value in fields_of(answer.json())}
    if answer.request.url.path != "/metrics":
        return {"body": answer.content}
    lines = answer.text.splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {"comments": tuple(line for line in lines if line.startswith("#")), **{name: x for name, _, x in samples}}


class _Lines(logging.Handler):
    """Keeps what the server would write: its own loggers' from `info` on, all others' from `warning` on."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or record.name.startswith("dpdau"):
            self._lines.append(self.format(record))


@contextmanager
def _logging(lines: list[str]) -> Iterator[None]:
    handler, ours = _Lines(lines), logging.getLogger("dpdau")
    before = ours.level
    logging.getLogger().addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        ours.setLevel(before)


# --- The course of things ----------------------------------------------------------------------------------------


def lived(folder: Path, course: Course, chapters: Sequence[Callable[[World], None]]) -> World:
    """A world in which these things have happened."""
    world = World(folder, course)
    with _logging(world.lines):
        for chapter in chapters:
            chapter(world)
    return world


def events_come(world: World) -> None:
    """Before anything is published; and everything that can be asked wrongly."""
    with world.serving("2025-01-31"):
        _ask_wrongly(world)
        world.ask("POST", "/event", {"events": _rows(_QUIET)})
        _post(world, _FIRST, ON_TIME)
        _declare(world, [*_QUIET[:2], *_FIRST])
        _look(world)


def people_ask_to_be_erased(world: World) -> None:
    """Numbers are out, and more events come, of hers a late one; she is among those who want to be erased."""
    world.publish([*_QUIET, *_FIRST])
    world.rebuild()
    with world.serving("2025-02-03"):
        _post(world, _SECOND, (LATE, *LATER[:1]))
        _declare(world, _SECOND)
        world.receipts = _erase(world)
        _look(world)


def they_are_erased(world: World) -> None:
    """The next numbers apply it, days are rebuilt, and receipts are written."""
    world.publish(_SECOND)
    with world.serving("2025-02-04"):
        _look(world)
    world.rebuild()
    with world.serving("2025-02-04"):
        world.ask("GET", "/status")
    apply_and_verify(world.store)


def their_events_come_again(world: World) -> None:
    """What was erased is handed in once more, with days to come: it waits in the log first, and then in the inbox."""
    with world.serving("2025-02-08"):
        _post(world, AGAIN, AGAIN)
        _post(world, _THIRD, LATER[1:])
        _declare(world, _THIRD)
        _look(world)
    with world.serving("2025-02-08"):
        _look(world)


def the_month_is_restated(world: World) -> None:
    """And what comes then comes too late, or is refused."""
    world.publish(_THIRD)
    world.restate()
    with world.serving("2025-02-08"):
        _post(world, [LATE], [LATE])
        _ask_in_vain(world)
        _look(world)
    with world.serving("2025-02-09", dau_mechanism="laplace"):
        assert world.ask("GET", "/dau/2025-02-07").status_code == 429, "February is spent by its shared noise"
    with world.serving("2025-02-09", rate_limit_per_minute=2):
        assert [world.ask("GET", "/label/dau").status_code for _ in range(4)] == [200, 200, 429, 429]


CHAPTERS = (
    events_come,
    people_ask_to_be_erased,
    they_are_erased,
    their_events_come_again,
    the_month_is_restated,
)


# --- Requests ----------------------------------------------------------------------------------------------------


def _rows(days: Sequence[date]) -> list[dict[str, Any]]:
    return [
        {"user_id": f"other-{n}", "op": "+", "day": str(day)}
        for day in days
        for n in range(_OTHERS)
        if (7 * n + 3 * day.toordinal()) % 5 < 2
    ]


def _post(world: World, days: Sequence[date], hers: Sequence[date]) -> None:
    """The events of these days, a day a request, with a bad row each, in all forms in turn; and hers."""
    for number, day in enumerate(days):
        rows = _rows([day])
        if world.course.her == "among":  # each request has about as many of hers
            rows[3:3] = [_hers(own) for place, own in enumerate(hers) if place % len(days) == number]
        rows.append({"user_id": "", "op": "+", "day": str(day)})
        if number % 3 == 0:
            world.ask("POST", "/event?explain=1", {"events": rows}, Idempotency_Key=f"rows-of-{day}-{len(world.said)}")
        elif number % 3 == 1:
            world.ask("POST", "/event", "\n".join(map(json.dumps, rows)).encode(), Content_Type="application/x-ndjson")
        else:
            packed = gzip.compress(json.dumps({"events": rows}).encode(), mtime=0)
            world.ask("POST", "/event", packed, Content_Encoding="gzip")
    if world.course.her == "alone":
        for own in hers:
            world.ask("POST", "/event", {"event": _hers(own)}, hers=True)


def _hers(day: date) -> dict[str, Any]:
    return {"user_id": SHE, "op": "+", "day": str(day)}


def _declare(world: World, days: Sequence[date]) -> None:
    for day in days:
        world.ask("POST", f"/complete/{day}")
    world.ask("DELETE", f"/complete/{days[-1]}")
    world.ask("POST", f"/complete/{days[-1]}")


def _erase(world: World) -> list[str]:
    """Her, somebody nobody knows, others on some days, and more at once than the guard lets through; some receipts."""
    hers = {"user_id": SHE, "through": ERASED_THROUGH, "reference": "ticket-1"}
    unknown = {"user_id": NOBODY, "through": ERASED_THROUGH}
    asked = [
        world.ask("POST", "/erasure", hers),
        world.ask("POST", "/erasure", unknown, Idempotency_Key="once"),
        world.ask("POST", "/erasure", {"erasures": [{"user_id": "other-2", "days": ["2025-01-26", "2024-12-02"]}]}),
    ]
    again = world.ask("POST", "/erasure", unknown, Idempotency_Key="once")
    assert again.headers["idempotency-replayed"] == "true" and again.json() == asked[1].json()
    removal = {"user_id": "other-4", "op": "-", "day": "2025-01-27", "metadata": {"days": ["2025-01-27"]}}
    world.ask("POST", "/event", {"events": [removal, {"user_id": "other-5", "day": "2025-01-31"}]})
    many = world.ask("POST", "/erasure", [{"user_id": f"other-{n}", "through": "2025-01-25"} for n in range(20, 40)])
    assert many.json()["parked"] and not any(answer.json()["parked"] for answer in asked)
    cancelled, confirmed, parked = many.json()["receipts"][:3]
    assert world.ask("POST", f"/erasure/{cancelled}/cancel").status_code == 200
    for _ in range(2):
        world.ask("POST", f"/erasure/{confirmed}/confirm", Idempotency_Key="twice")
    return [*(answer.json()["receipts"][0] for answer in asked), confirmed, parked, cancelled]


def _look(world: World) -> None:
    """Everything that can be read, and what is answered of what is not there."""
    for path in ("/healthz", "/readyz", "/status", "/plan?months=2", "/erasure", "/erasure?state=verified"):
        world.ask("GET", path)
    for day in ("2024-12-31", "2025-01-25", "2025-01-27", "2025-01-30", "2025-02-01", "2025-02-05", "2025-02-07"):
        world.ask("GET", f"/dau/{day}")
        world.ask("GET", f"/mau?end={day}&window=30")
    world.ask("GET", "/dau/2025-01-29?revision=0")
    for metric in ("dau", "mau", "joint"):
        world.ask("GET", f"/label/{metric}")
    for metric in ("dau", "mau"):
        series = f"/series/{metric}?from=2025-01-01&to=2025-02-10"
        tag = world.ask("GET", series).headers["etag"]
        assert world.ask("GET", series, If_None_Match=tag).status_code == 304
        for accepted in ("text/csv", "application/vnd.apache.arrow.stream", "image/png"):
            world.ask("GET", f"{series}&as_published=true", Accept=accepted)
        for query in ("", "?day=2025-01-31"):
            world.ask("GET", f"/budget/{metric}{query}")
    for receipt in world.receipts:
        world.ask("GET", f"/erasure/{receipt}")
    for receipt in (*world.receipts[:1], *world.receipts[-3:]):
        world.ask("GET", f"/erasure/{receipt}?verify=1")
    world.ask("GET", "/metrics")
    world.ask("GET", "/metrics", Accept="application/openmetrics-text")


def _ask_wrongly(world: World) -> None:
    for path in ("/docs", "/docs/errors", "/docs/static/pages.css", "/openapi.json", "/x", "/erasure/0123456789abcdef"):
        world.ask("GET", path)
    world.ask("GET", "/dau/2025-01-25", X_API_Key="none-of-ours-but-as-long-as-one-is-x")
    assert world.ask("GET", "/status", X_API_Key=world.key_of_readers).status_code == 403
    world.ask("PUT", "/status")
    world.ask("GET", "/dau/2025-02-30")
    world.ask("POST", "/event", b"{", Content_Encoding="gzip")
    world.ask("POST", "/event", {"events": [{"user_id": ""}]})
    world.ask("POST", "/event", b"<event/>", Content_Type="application/xml")
    world.ask("POST", "/erasure", {"user_id": SHE, "reference": SHE})
    world.ask("POST", "/complete/2031-01-01")


def _ask_in_vain(world: World) -> None:
    """What is answered 409 or 422 for what was done before, or the same as before."""
    assert world.ask("DELETE", "/complete/2025-01-25").status_code == 409
    assert world.ask("POST", f"/erasure/{world.receipts[0]}/cancel").status_code == 409
    world.ask("POST", f"/erasure/{world.receipts[0]}/confirm")
    world.ask("POST", "/erasure", {"user_id": SHE, "through": ERASED_THROUGH, "reference": "ticket-1"})
    for n in (1, 2):
        world.ask("POST", "/event", {"event": {"user_id": f"other-{n}", "day": str(LAST)}}, Idempotency_Key="one")
