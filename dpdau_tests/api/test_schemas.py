"""The OpenAPI document holds what is answered: every real answer has the fields of its schema, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from fractions import Fraction
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError

from dpdau_assets.api import answer_schemas, schemas
from dpdau_assets.api.app import routes
from dpdau_assets.api.schemas import documented
from dpdau_assets.core.budget.overrides import reset_budget
from dpdau_assets.core.erasure import receipts, requests
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.arrivals import Keying, sorted_out
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answers import erasure_rows
from dpdau_assets.core.reporting.as_json import as_json
from dpdau_assets.core.reporting.taken import requests_taken, rows_taken
from dpdau_assets.core.settings import Settings
from dpdau_tests.api.asking import asking
from dpdau_tests.conftest import prepare, put
from dpdau_tests.support.stores import a_month_published, a_month_restated

JANUARY = date(2025, 1, 1)
TODAY = date(2025, 2, 8)
PROBLEM = "application/problem+json"
THETA = {"sketch_impl": "theta", "dau_theta0": Fraction(1, 2), "mau_theta0": Fraction(1, 2)}
PURE = {"dau_mechanism": "laplace", "mau_mechanism": "laplace", "epsilon_dau": Fraction(1, 100)}
PURE |= {"epsilon_mau": Fraction(1, 100), "restatements_per_month": 0}

ASKED = {
    "/dau/2025-01-05": answer_schemas.Number,
    "/dau/2025-01-05?revision=0": answer_schemas.Number,
    "/mau?end=2025-01-31": answer_schemas.Number,
    "/series/dau?from=2025-01-01&to=2025-02-28": list[answer_schemas.Row],
    "/series/mau?from=2025-01-01&to=2025-02-28": list[answer_schemas.Row],
    "/budget/dau": answer_schemas.Budget,
    "/budget/mau?day=2025-01-01": answer_schemas.Budget,
    "/budget/mau?day=2026-01-01": answer_schemas.Budget,
    "/label/dau": answer_schemas.Label,
    "/label/mau": answer_schemas.Label,
    "/label/joint": answer_schemas.Label,
    "/plan?months=2": answer_schemas.Plan,
    "/plan?months=1&from=2025-05-01": answer_schemas.Plan,
    "/status": answer_schemas.Status,
}
UNKNOWN = (
    "/dau/2025-02-07",
    "/dau/2024-12-31",
    "/mau",
    "/series/dau?from=2025-01-02&to=2025-01-01",
    "/no",
    "/plan?months=0",
)

MakeStore = Callable[..., Store]


def hold(kind: Any, said: str | bytes) -> None:
    """The answer has just the fields of the schema, each of its type: read by it and written again, it is the same."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    read = adapter.validate_json(said, strict=True)
    assert plain(adapter.dump_python(read, mode="json", exclude_unset=True, by_alias=True)) == plain(json.loads(said))


def plain(value: Any) -> Any:
    """Moments are written with Z or +00:00, and 1 as 1.0; which is the same."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.replace("Z", "+00:00") if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value) else value


def published(make_store: MakeStore, **settings: object) -> Store:
    return make_store(today=TODAY, recipe=a_month_published, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="set"),
        pytest.param(THETA, id="theta"),
        pytest.param(PURE, id="pure", marks=pytest.mark.slow(weight=0.1)),
        pytest.param({"timezone": "Asia/Kolkata"}, id="zone", marks=pytest.mark.slow(weight=0.1)),
    ],
)
def test_every_answer_of_a_month_has_the_fields_of_its_schema_and_no_others(
    make_store: MakeStore, settings: dict[str, object]
) -> None:
    with asking(published(make_store, **settings)) as client:
        for path, kind in ASKED.items():
            answer = client.get(path)
            assert answer.status_code == 200, path
            hold(kind, answer.content)


def test_every_answer_of_a_restated_month_with_an_override_has_them_too(make_store: MakeStore) -> None:
    store = make_store(today=TODAY, recipe=a_month_restated)
    for metric in ("dau", "mau"):
        reset_budget(metric, JANUARY, Fraction(5), "Ada", "a test", store)
    with asking(store) as client:
        for path, kind in ASKED.items():
            hold(kind, client.get(path).content)
        assert client.get("/dau/2025-01-05").json()["overrides"]


def test_every_answer_of_a_store_without_a_number_has_them_too(make_store: MakeStore) -> None:
    store = make_store(today=TODAY, retention_days=100)
    put(store, [("somebody", JANUARY)])
    requests.request([Event("somebody", "-", JANUARY)], store)
    with asking(store) as client:
        for path, kind in ASKED.items():
            if not path.startswith(("/dau", "/mau")) and path != "/budget/dau":
                hold(kind, client.get(path).content)
        assert client.get("/status").json()["erasures"]
        hold(answer_schemas.DeclaredDays, client.post("/complete/2025-01-01").content)
        hold(answer_schemas.WithdrawnDays, client.delete("/complete/2025-01-01").content)


def test_every_answer_to_what_comes_in_has_them_too(make_store: MakeStore) -> None:
    store = make_store(today=TODAY)
    put(store, [(f"user {n}", JANUARY) for n in range(5)])
    prepare(store, [JANUARY])
    rows = sorted_out([{"user_id": "u1", "day": "2025-02-01"}, {"user_id": ""}, 7], Keying(store).limits)
    for explain in (True, False):
        hold(schemas.EventsTaken, json.dumps(rows_taken(rows, explain=explain)))
    asked = [Event("user 1", "-", JANUARY), Event("user 2", "-", TODAY, (date(2024, 1, 1), JANUARY), "ticket-1")]
    taken = requests.request(asked, store)
    hold(schemas.RequestsTaken, json.dumps(requests_taken(taken, [1])))
    for _ in range(2):
        for erasure in store.erasures.ledger.erasures():
            hold(schemas.Receipt, json.dumps(receipts.last_receipt(erasure, store)))
            hold(schemas.Receipt, json.dumps(receipts.receipt(erasure.receipt, store)))
        hold(
            schemas.ErasureRequests,
            json.dumps(as_json(erasure_rows(store.erasures.ledger.erasures(), store.clock, store.erasures))),
        )
        receipts.apply_and_verify(store)
    publish("dau", JANUARY, store)
    put(store, [("user 9", date(2025, 1, 2))])
    prepare(store, [date(2025, 1, 2)])
    for erasure in store.erasures.ledger.erasures():
        hold(schemas.Receipt, json.dumps(receipts.last_receipt(erasure, store)))


def test_an_answer_with_a_field_more_or_less_or_of_another_type_is_noticed(make_store: MakeStore) -> None:
    with asking(published(make_store)) as client:
        said = client.get("/dau/2025-01-05").json()
    for other in ({**said, "exact_value": 3}, {**said, "estimate": "3"}, {**said, "lower_95": None}):
        with pytest.raises(ValidationError):
            hold(answer_schemas.Number, json.dumps(other))
    del said["version"]
    with pytest.raises(ValidationError):
        hold(answer_schemas.Number, json.dumps(said))


def test_every_error_has_the_one_schema(make_store: MakeStore) -> None:
    with asking(published(make_store)) as client:
        for path in UNKNOWN:
            answer = client.get(path)
            assert answer.status_code >= 400 and answer.headers["content-type"] == PROBLEM
            hold(schemas.Problem, answer.content)
        for answer in (client.get("/status", headers={"X-API-Key": "x"}), client.post("/status")):
            assert answer.headers["content-type"] == PROBLEM
            hold(schemas.Problem, answer.content)


# --- The document ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return documented(routes(Settings())).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_every_schema_that_is_named_is_there(document: dict[str, Any]) -> None:
    named = {name.removeprefix("#/components/schemas/") for name in references(document)}
    assert named - {"Problem"} and named <= document["components"]["schemas"].keys()
    assert "HTTPValidationError" not in named


def test_every_operation_is_described_with_its_answers_and_its_errors(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names) and all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names)
    for name, operation in operations(document):
        if operation["tags"] == ["health"]:
            continue
        responses = operation["responses"]
        assert operation["summary"] and operation["description"] and operation["security"], name
        assert {"default", "401", "403", "422", "429", "503"} <= responses.keys(), name
        for status, response in responses.items():
            kinds = set(response.get("content", {}))
            assert kinds == {PROBLEM} if status == "default" or int(status) >= 400 else PROBLEM not in kinds, name
        for parameter in operation.get("parameters", ()):
            assert parameter["description"] and "anyOf" not in parameter["schema"], (name, parameter["name"])


def test_the_media_types_of_numbers_and_their_etag_are_declared(document: dict[str, Any]) -> None:
    for path in ("/dau/{day}", "/mau", "/series/{metric}"):
        answer = document["paths"][path]["get"]["responses"]["200"]
        assert set(answer["content"]) == {"application/json", "text/csv", "application/vnd.apache.arrow.stream"}
        assert "ETag" in answer["headers"] and "304" in document["paths"][path]["get"]["responses"]


def test_days_are_dates_and_numbers_have_their_bounds(document: dict[str, Any]) -> None:
    parameters = {
        (operation["operationId"], parameter["name"]): parameter["schema"]
        for _, operation in operations(document)
        for parameter in operation.get("parameters", ())
    }
    for day in (("getDau", "day"), ("getMau", "end"), ("getSeries", "from"), ("getPlan", "from"), ("getBudget", "day")):
        assert (parameters[day]["type"], parameters[day]["format"]) == ("string", "date")
    months, revision = parameters["getPlan", "months"], parameters["getDau", "revision"]
    assert (months["minimum"], months["maximum"], revision["minimum"], revision["maximum"]) == (1, 120, 0, 9)


def test_every_link_leads_to_an_operation_with_such_parameters(document: dict[str, Any]) -> None:
    parameters = {
        operation["operationId"]: {parameter["name"] for parameter in operation.get("parameters", ())}
        for _, operation in operations(document)
    }
    links = [
        link
        for _, operation in operations(document)
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert {link["operationId"] for link in links} >= {"withdrawDay", "getErasure"}
    assert all(set(link["parameters"]) <= parameters[link["operationId"]] for link in links)


def test_the_document_is_made_once_and_the_same_again(document: dict[str, Any]) -> None:
    app = documented(routes(Settings()))
    assert isinstance(app, FastAPI) and app.openapi() is app.openapi() and app.openapi() == document
