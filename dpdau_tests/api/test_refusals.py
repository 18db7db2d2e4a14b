"""What is refused: with the right status and code, in the one shape, with nothing written, by a server that goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from dpdau_assets.api.access import scopes_asked
from dpdau_assets.api.app import routes
from dpdau_assets.core.api_keys import SCOPES, Scope
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_tests.api.asking import KEY, asking
from dpdau_tests.conftest import everything_in
from dpdau_tests.support.master_secret import SECRET
from dpdau_tests.support.stores import a_month_published
from resources.ledger_sql.database import Database
from resources.storage.api_key_file import api_key_file
from resources.store import ledger_url

TODAY = date(2025, 2, 8)
YESTERDAY = date(2025, 2, 7)
UNKNOWN = "3f9a7c1e5b2d8f604a6c9e1b7d3f5a80c2e4"

APP = routes(Settings())
ROUTES = sorted({(route.path, method) for route in iter_route_contexts(APP.routes) for method in route.methods or ()})
NEEDED = scopes_asked(APP)
WITHOUT_A_KEY = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/errors", "/docs/static/{name}"}
LOCAL = {"/metrics"}
"""For `admin`, or without a key from the machine itself."""

QUERIES = {"/mau": "?end=2025-01-31", "/series/{metric}": "?from=2025-01-01&to=2025-01-31"}
BODIES = {
    "/event": {"events": [{"user_id": "u1", "day": "2025-02-01"}, {"user_id": "u2", "op": "-", "day": "2025-02-01"}]},
    "/erasure": {"user_id": "u1", "through": "2025-02-01", "reference": "ticket-1"},
}

MakeStore = Callable[..., Store]


@dataclass(frozen=True)
class Asked:
    """A store, its server, and what there was before."""

    store: Store
    client: TestClient

    def kept(self) -> tuple[Mapping[str, str], bytes]:
        """Every file of the data directory by its digest, but for the ledger's; and every row of that."""
        folder = self.store.settings.data_dir
        files = {
            str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith("ledger.sqlite")
        }
        return files, everything_in(Database(ledger_url(self.store.settings), SECRET))

    def send(self, path: str, method: str, headers: Mapping[str, str] | None = None) -> Any:
        """One request that would be done if its key were good; only what `headers` says is sent of one."""
        here = path.format(receipt="0123456789abcdef", day=YESTERDAY, metric="dau", name="pages.css")
        body = None if path not in BODIES or method != "POST" else json.dumps(BODIES[path])
        sent = {**({"Content-Type": "application/json"} if body else {}), **(headers or {})}
        self.client.headers.pop("X-API-Key", None)
        return self.client.request(method, here + QUERIES.get(path, ""), content=body, headers=sent)

    def key(self, name: str, *scopes: Scope, expires_on: date | None = None, made_on: date = TODAY) -> str:
        return api_key_file(self.store.settings).add(name, frozenset(scopes), made_on, expires_on)[1]


@pytest.fixture
def asked(make_store: MakeStore) -> Iterator[Asked]:
    store = make_store(today=TODAY, recipe=a_month_published)
    with asking(store) as client:
        client.get("/healthz")
        yield Asked(store, client)
        assert client.get("/healthz").status_code == 200


def require_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    said = answer.json()
    assert (answer.status_code, said["code"], said["status"]) == (status, code, status), said
    assert answer.headers["content-type"] == "application/problem+json"
    assert said["type"] == f"/docs/errors#{code}" and said["detail"] and said["remedy"] and said["title"]
    assert said["instance"] == f"urn:dpdau:request:{answer.headers['x-request-id']}"
    return said


# --- Keys --------------------------------------------------------------------------------------------------------


def test_every_route_asks_for_a_scope_but_those_that_are_named_here() -> None:
    without = {path for path, method in ROUTES if (path, method) not in NEEDED}
    assert without == WITHOUT_A_KEY | LOCAL
    assert {path for path, _ in NEEDED} & without == set()
    assert set(NEEDED.values()) == set(SCOPES)


def test_a_key_may_do_what_its_scope_says_and_nothing_else(asked: Asked) -> None:
    keys = {scope: asked.key(scope, scope) for scope in SCOPES}
    asked.client.get("/readyz")
    before = asked.kept()
    for (path, method), needed in sorted(NEEDED.items()):
        for scope in SCOPES:
            if scope == needed:
                continue
            said = require_problem(asked.send(path, method, {"X-API-Key": keys[scope]}), 403, "Forbidden")
            assert said["scope"] == needed, (path, method, scope)
    assert asked.kept() == before
    for (path, method), needed in sorted(NEEDED.items()):
        assert asked.send(path, method, {"X-API-Key": keys[needed]}).status_code in (200, 202, 404), (path, method)
    for path in WITHOUT_A_KEY:
        assert asked.send(path, "GET").status_code == 200


def test_metrics_are_for_a_key_of_scope_admin_and_a_wrong_one_is_never_passed_over(asked: Asked) -> None:
    keys = {scope: asked.key(scope, scope) for scope in SCOPES}
    here, elsewhere = (
        TestClient(asked.client.app, base_url=f"http://{host}", client=(host, 5)) for host in ("127.0.0.1", "192.0.2.1")
    )
    for client in (here, elsewhere):
        for scope, key in keys.items():
            assert client.get("/metrics", headers={"X-API-Key": key}).status_code == (200 if scope == "admin" else 403)
        require_problem(client.get("/metrics", headers={"X-API-Key": UNKNOWN}), 401, "Unauthorized")
    assert (here.get("/metrics").status_code, elsewhere.get("/metrics").status_code) == (200, 401)
    for forwarded in ({"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"Host": "metrics.example"}):
        assert here.get("/metrics", headers=forwarded).status_code == 401


NO_KEYS: dict[str, dict[str, str]] = {
    "none": {},
    "unknown": {"X-API-Key": UNKNOWN},
    "empty": {"X-API-Key": ""},
    "another one's beginning": {"X-API-Key": KEY[:-1]},
    "with more behind it": {"X-API-Key": f"{KEY}0"},
    "in capitals": {"X-API-Key": KEY.upper()},
    "with a space in it": {"X-API-Key": f"{KEY[:20]} {KEY[20:]}"},
    "as its digest": {"X-API-Key": sha256(KEY.encode()).hexdigest()},
    "very long": {"X-API-Key": KEY * 200},
    "not ASCII": {"X-API-Key": f"{KEY}é"},
    "an empty bearer token": {"Authorization": "Bearer"},
    "another scheme": {"Authorization": f"Basic {KEY}"},
    "no scheme": {"Authorization": KEY},
    "two tokens": {"Authorization": f"Bearer {KEY} {KEY}"},
    "a cookie": {"Cookie": f"X-API-Key={KEY}"},
    "a wrong header beside a good token": {"X-API-Key": UNKNOWN, "Authorization": f"Bearer {KEY}"},
}


@pytest.mark.parametrize("headers", NO_KEYS.values(), ids=list(NO_KEYS))
def test_without_a_key_that_is_valid_nothing_is_done(asked: Asked, headers: dict[str, str]) -> None:
    before = asked.kept()
    latin = {name: value.encode("latin-1") for name, value in headers.items()}
    for path, method in (("/event", "POST"), ("/erasure", "POST"), ("/dau/{day}", "GET"), ("/complete/{day}", "POST")):
        answer = asked.send(path, method, latin)  # type: ignore[arg-type]
        require_problem(answer, 401, "Unauthorized")
        assert answer.headers["www-authenticate"] == 'Bearer realm="dpdau"'
        assert KEY not in answer.text and UNKNOWN not in answer.text
    assert asked.kept() == before


def test_a_key_in_the_url_is_none(asked: Asked) -> None:
    del asked.client.headers["X-API-Key"]
    for name in ("X-API-Key", "api_key", "key", "access_token"):
        require_problem(asked.client.get(f"/status?{name}={KEY}"), 401, "Unauthorized")


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {} ", "Bearer   {}"])
def test_a_bearer_token_is_a_key_however_its_scheme_is_written(asked: Asked, form: str) -> None:
    assert asked.send("/status", "GET", {"Authorization": form.format(KEY)}).status_code == 200


def test_of_a_key_that_is_sent_in_both_ways_the_header_counts(asked: Asked) -> None:
    both = {"X-API-Key": KEY, "Authorization": f"Bearer {UNKNOWN}"}
    assert asked.send("/status", "GET", both).status_code == 200
    require_problem(
        asked.send("/status", "GET", {"X-API-Key": "", "Authorization": f"Bearer {KEY}"}), 401, "Unauthorized"
    )


def test_a_key_is_good_through_its_last_day_and_then_expired(asked: Asked) -> None:
    last = asked.key("last", *SCOPES, expires_on=TODAY)
    over = asked.key("over", *SCOPES, expires_on=YESTERDAY, made_on=date(2025, 1, 1))
    before = asked.kept()
    for path, method in NEEDED:
        answer = asked.send(path, method, {"X-API-Key": over})
        require_problem(answer, 401, "KeyExpired")
        assert "www-authenticate" in answer.headers
    assert asked.kept() == before
    assert asked.send("/event", "POST", {"X-API-Key": last}).status_code == 202


def test_a_key_that_is_revoked_is_unknown_with_the_next_request_and_the_other_of_its_name_is_not(asked: Asked) -> None:
    older, newer = asked.key("product", "ingest"), asked.key("product", "ingest")
    file = api_key_file(asked.store.settings)
    assert [asked.send("/event", "POST", {"X-API-Key": key}).status_code for key in (older, newer)] == [202, 202]
    file.revoke(file.read()[0].id, TODAY)
    before = asked.kept()
    require_problem(asked.send("/event", "POST", {"X-API-Key": older}), 401, "Unauthorized")
    assert asked.kept() == before
    assert asked.send("/event", "POST", {"X-API-Key": newer}).status_code == 202


# --- Too much ----------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_whole(asked: Asked) -> None:
    before = asked.kept()
    row = {"user_id": "u1", "day": "2025-02-01"}
    large = json.dumps({"events": [row], "x": "x" * (8 << 20)}).encode()
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    require_problem(asked.client.post("/event", content=large, headers=headers), 413, "BodyTooLarge")
    many = json.dumps({"events": [row] * 10_001}).encode()
    said = require_problem(asked.client.post("/event", content=many, headers=headers), 422, "InvalidRequest")
    assert said["errors"] == [{"field": "events", "rule": "one request has at most 10000"}]
    assert asked.kept() == before


def post(client: TestClient, number: int, path: str = "/event", **headers: str) -> Any:
    one = {"user_id": "u1", "day": "2025-02-01"} if path == "/event" else {"user_id": "u1"}
    return client.post(path, json={f"{path[1:]}s": [one] * number}, headers=headers)


def require_too_many(answer: Any) -> None:
    said = require_problem(answer, 429, "TooManyRequests")
    assert 1 <= int(answer.headers["retry-after"]) == said["retry_after"] <= 120


def test_too_many_requests_of_a_key_are_refused_from_whatever_address(make_store: MakeStore) -> None:
    store = make_store(today=TODAY)
    with asking(store, rate_limit_per_minute=2) as client:
        asked = Asked(store, client)
        other = asked.key("other", "ingest")
        clients = [TestClient(client.app, client=(f"192.0.2.{n}", 5), headers={"X-API-Key": KEY}) for n in range(4)]
        assert [post(each, 1).status_code for each in clients[:2]] == [202, 202]
        before = asked.kept()
        require_too_many(post(clients[2], 1))
        assert asked.kept() == before
        assert post(clients[3], 1, **{"X-API-Key": other}).status_code == 202
        assert client.get("/healthz").status_code == 200


def test_too_many_requests_of_an_address_are_refused_under_whatever_key(make_store: MakeStore) -> None:
    store = make_store(today=TODAY)
    with asking(store, rate_limit_per_minute=2) as client:
        asked = Asked(store, client)
        keys = [asked.key(f"k{number}", "ingest") for number in range(3)]
        assert [post(client, 1, **{"X-API-Key": key}).status_code for key in keys[:2]] == [202, 202]
        before = asked.kept()
        require_too_many(post(client, 1, **{"X-API-Key": keys[2]}))
        assert asked.kept() == before
        elsewhere = TestClient(client.app, client=("192.0.2.1", 5), headers={"X-API-Key": keys[2]})
        assert post(elsewhere, 1).status_code == 202


def test_who_guesses_keys_is_counted_and_keeps_nobody_out_who_has_one(make_store: MakeStore) -> None:
    with asking(make_store(today=TODAY), rate_limit_per_minute=2) as client:
        answers = [client.get("/status", headers={"X-API-Key": f"{UNKNOWN}{number}"}) for number in range(4)]
        assert [answer.status_code for answer in answers] == [401, 401, 429, 429]
        require_too_many(answers[3])
        assert client.get("/status", headers={"X-API-Key": KEY}).status_code == 200
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/event", "/erasure"])
def test_too_many_events_or_erasures_are_refused_and_more_than_ever_fit_are_never_let_in(
    make_store: MakeStore, path: str
) -> None:
    store = make_store(today=TODAY)
    with asking(store, rate_limit_events_per_minute=4) as client:
        asked = Asked(store, client)
        before = asked.kept()
        require_problem(post(client, 5, path), 413, "TooManyAtOnce")
        assert asked.kept() == before
        assert post(client, 4, path).status_code == 202
        before = asked.kept()
        require_too_many(post(client, 3, path))
        require_too_many(post(client, 3, "/event"))
        assert asked.kept() == before
        assert client.get("/status").status_code == 200, "reads are counted apart"
