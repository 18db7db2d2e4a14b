"""A load test of the HTTP API in the mix in which clients use it, by Locust: events, reads, an erasure now and then.

`python -m eval.load_test` makes a store of its own with published numbers, serves it, and ends with 1 if any answer was
not as expected. Locust's report and its figures are left in .artifacts/load. What it does is set by variables:

    LOAD_USERS      clients side by side (20)
    LOAD_SPAWN      how many of them begin in a second (5)
    LOAD_RUNTIME    how long, such as 90s or 5m (60s)
    LOAD_SEED       all ids, days and choices follow from it (1)
    LOAD_HOST       a server that runs already, such as http://127.0.0.1:8000; it is written to
    LOAD_CONFIRM    LOAD_HOST once more: its store is changed
    SERVICE_API_KEY the key for LOAD_HOST, with the scopes ingest, erase and read
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from dpdau_assets.core.errors import BadInput, BadSetting, DpdauError
from eval.api_load import KEY, served

REPORTS, FIGURES = Path(".artifacts/load"), "load.json"
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
BATCH = 100
PEOPLE = 100_000
LONGEST_WAIT = 0.5
"""Seconds, between two requests of a client."""

NAMES = {
    "batch": f"POST /event, {BATCH} events",
    "single": "POST /event, one event",
    "dau": "GET /dau/{day}",
    "mau": "GET /mau",
    "series": "GET /series/{metric}",
    "budget": "GET /budget/{metric}",
    "erasure": "POST /erasure",
}
"""How each kind of request is called in the reports."""

MIX = {"batch": 6, "single": 3, "dau": 4, "mau": 4, "series": 2, "budget": 2, "erasure": 1}
"""How often each kind comes in a round. Every client goes through rounds, each in an order by chance."""

_WORKERS = 2
_YEARS_BACK = timedelta(days=3_650)
_METRICS = ("dau", "mau")


@dataclass(frozen=True)
class Load:
    """How much, for how long, and where; without a host on a store of its own."""

    users: int = 20
    spawn: float = 5.0
    runtime: str = "60s"
    seed: int = 1
    host: str | None = None
    key: str = field(default=KEY, repr=False)


@dataclass(frozen=True)
class Published:
    """What there is to read, and the days that events may have."""

    numbers: Mapping[str, Sequence[date]]
    event_days: Sequence[date]


@dataclass(frozen=True)
class Request:
    """One request of a client, and how long it waits after the answer; `events` is how many it hands in."""

    kind: str
    method: str
    path: str
    body: str | None
    events: int
    wait: float

    @property
    def name(self) -> str:
        return NAMES[self.kind]


# --- What is asked -----------------------------------------------------------------------------------------------


def load_from(environment: Mapping[str, str]) -> Load:
    """The load that these variables ask for. Raises BadSetting for a value that is none."""
    set_values = {name: value for name, value in environment.items() if value}
    host = set_values.get("LOAD_HOST")
    if host is not None:
        _require_allowed(host, set_values)
    runtime = set_values.get("LOAD_RUNTIME", Load.runtime)
    if not re.fullmatch(r"(?=.*[1-9])(\d{1,4}h)?(\d{1,4}m)?(\d{1,5}s)?", runtime):
        raise BadSetting(f"LOAD_RUNTIME={runtime[:20]} is no time.", "Give one such as 90s, 5m or 1h30m.")
    return Load(
        users=_number("LOAD_USERS", set_values, Load.users, 1, 10_000),
        spawn=_number("LOAD_SPAWN", set_values, int(Load.spawn), 1, 1_000),
        runtime=runtime,
        seed=_number("LOAD_SEED", set_values, Load.seed, 0, 2**63),
        host=host and host.rstrip("/"),
        key=KEY if host is None else set_values["SERVICE_API_KEY"],
    )


def _number(name: str, environment: Mapping[str, str], default: int, least: int, most: int) -> int:
    text = environment.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise BadSetting(f"{name}={text[:20]} is no number of its kind.", f"Give a whole one from {least} to {most}.")
    return int(text)


def _require_allowed(host: str, environment: Mapping[str, str]) -> None:
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise BadSetting(f"LOAD_HOST={host[:60]} is no address.", "Give one such as http://127.0.0.1:8000.")
    if environment.get("LOAD_CONFIRM") != host:
        raise BadSetting(
            f"LOAD_HOST={host[:60]}: the load test hands events and erasure requests of invented people in there.",
            "If its store may be changed so, set LOAD_CONFIRM to that address too.",
        )
    if "SERVICE_API_KEY" not in environment:
        raise BadSetting(
            "SERVICE_API_KEY is not set, and LOAD_HOST needs a key.", "Set one with the scopes ingest, erase and read."
        )


def requests_of(seed: int, client: int, published: Published) -> Iterator[Request]:
    """What the client of this number asks, without end: it follows from the seed, and is another for each client."""
    chance = random.Random(f"{seed} {client}")
    while True:
        round_of_kinds = [kind for kind, times in MIX.items() for _ in range(times)]
        chance.shuffle(round_of_kinds)
        for kind in round_of_kinds:
            yield _request(kind, chance, published)


def _request(kind: str, chance: random.Random, published: Published) -> Request:
    method, path, body, events = "GET", "", None, 0
    if kind in ("batch", "single"):
        events = BATCH if kind == "batch" else 1
        rows = [_event(chance, published) for _ in range(events)]
        method, path, body = "POST", "/event", {"events": rows} if kind == "batch" else {"event": rows[0]}
    elif kind == "erasure":
        method, path, body = "POST", "/erasure", {"user_id": _person(chance)}
    elif kind == "dau":
        path = f"/dau/{chance.choice(published.numbers['dau'])}"
    elif kind == "mau":
        path = f"/mau?end={chance.choice(published.numbers['mau'])}"
    else:
        metric = chance.choice(_METRICS)
        days = sorted(chance.choices(published.numbers[metric], k=2))
        path = (
            f"/series/{metric}?from={days[0]}&to={days[1]}" if kind == "series" else f"/budget/{metric}?day={days[0]}"
        )
    sent = None if body is None else json.dumps(body)
    return Request(kind, method, path, sent, events, chance.uniform(0, LONGEST_WAIT))


def _event(chance: random.Random, published: Published) -> dict[str, str]:
    return {"user_id": _person(chance), "op": "+", "day": str(chance.choice(published.event_days))}


def _person(chance: random.Random) -> str:
    return f"load-test-{chance.randrange(PEOPLE)}"


def published_at(host: str, key: str, today: date) -> Published:
    """What the server has published. Raises BadInput if it does not say, or there is nothing."""
    numbers = {metric: _published_days(host, key, metric, today) for metric in _METRICS}
    if empty := [metric for metric, days in numbers.items() if not days]:
        raise BadInput(f"{host} has no number of {' and '.join(empty)} to read.", "Publish some first, by `dpdau run`.")
    return Published(numbers, [today - timedelta(days=back) for back in (1, 2, 3)])


def _published_days(host: str, key: str, metric: str, today: date) -> list[date]:
    address = f"{host}/series/{metric}?from={today - _YEARS_BACK}&to={today}"
    try:
        answer = httpx.get(address, headers={"X-API-Key": key}, timeout=60, follow_redirects=False)
        if answer.status_code != 200:
            raise BadInput(
                f"{host} answers {answer.status_code} to a reader.",
                "Does SERVICE_API_KEY have the scopes ingest, erase and read?",
            )
        return [date.fromisoformat(row["day"]) for row in answer.json()]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{host} does not answer as dpdau does ({type(error).__name__}).", "Is `dpdau serve` running there?"
        ) from error


# --- What is expected --------------------------------------------------------------------------------------------


def problem(request: Request, status: int, etag: str | None, known: str | None, said: Any) -> str | None:
    """What is wrong with an answer; None if it is as expected.

    Args:
        etag: that of the answer; `known` is the one that was sent with the request.
        said: its JSON, None for another body.
    """
    if request.method == "POST":
        if status != 202:
            return f"{status} instead of 202"
        told = (said or {}).get("ingested"), (said or {}).get("rejected")
        if request.kind != "erasure" and told != (request.events, 0):
            return "not all of the events were taken"
        if request.kind == "erasure" and len((said or {}).get("receipts", ())) != 1:
            return "no receipt for the erasure request"
        return None
    if status == 304:
        return None if known else "304 to somebody who had no answer"
    if status != 200:
        return f"{status} instead of 200"
    if not etag:
        return "an answer without an ETag"
    if etag == known:
        return "200 instead of 304: the answer was known"
    return None if said else "no JSON"


# --- The run -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the load, and end with 0 if every answer was as expected and every kind of request was made."""
    try:
        load = load_from(os.environ)
        with _host(load) as host:
            code = run(load, host, published_at(host, load.key, datetime.now(UTC).date()))
    except DpdauError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    counted = counts(REPORTS / FIGURES)
    if never := [name for name in NAMES.values() if not counted.get(name)]:
        print(f"Never made: {'; '.join(never)}. Raise LOAD_RUNTIME or LOAD_USERS.", file=sys.stderr)
        code = code or 1
    print(f"{sum(counted.values()):,} requests. The report is in {REPORTS / 'report.html'}.", file=sys.stderr)
    sys.exit(code)


@contextmanager
def _host(load: Load) -> Iterator[str]:
    if load.host is not None:
        yield load.host
        return
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), _WORKERS) as port:
        yield f"http://127.0.0.1:{port}"


def run(load: Load, host: str, published: Published) -> int:
    """Locust's exit code: 1 if an answer was not as expected. It runs in a process of its own, which it patches."""
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    told = json.dumps({**published.numbers, "events": published.event_days}, default=str)
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--users", str(load.users), "--spawn-rate", str(load.spawn), "--run-time", load.runtime]
    command += ["--host", host, "--stop-timeout", "10", "--exit-code-on-error", "1", "--loglevel", "WARNING"]
    command += ["--html", str(REPORTS / "report.html"), "--csv", str(REPORTS / "load")]
    environment = {**os.environ, "SERVICE_API_KEY": load.key, "LOAD_SEED": str(load.seed)}
    environment["LOAD_FIGURES"] = str(REPORTS / FIGURES)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(told)
        file.flush()
        return subprocess.run(command, env={**environment, "LOAD_PUBLISHED": file.name}, check=False).returncode


def published_in(file: Path) -> Published:
    """What `run` has left for the process of Locust."""
    told = {name: [date.fromisoformat(day) for day in days] for name, days in json.loads(file.read_text()).items()}
    return Published({metric: told[metric] for metric in _METRICS}, told["events"])


def counts(stats: Path) -> dict[str, int]:
    """How many requests of each name were made, by Locust's last figures; none where it has left none.

    Its CSV files are of up to a second before.
    """
    return {each["name"]: each["num_requests"] for each in json.loads(stats.read_text())} if stats.exists() else {}


if __name__ == "__main__":
    main()
