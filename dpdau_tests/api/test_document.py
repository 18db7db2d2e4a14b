"""The OpenAPI document is true: schemathesis sends what it allows and what it forbids, and follows its links, and every
answer is one that it declares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema
from schemathesis.python.asgi import shutdown_lifespans

from dpdau_assets.api.app import app_on
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_tests.api.asking import KEY
from dpdau_tests.support.lengths import at_length, seed
from dpdau_tests.support.stores import a_month_published

TODAY = date(2025, 2, 8)
NEAR = [day.isoformat() for day in days_between(date(2024, 12, 30), date(2025, 2, 10))]
"""Days from before START_DATE until after tomorrow: of all that there are, hardly one is a day of this store."""

CHOSEN: dict[str, Any] = {
    "checks": {
        # A day may be too early or too late, and two fields may exclude each other: no schema says so.
        "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "403", "404", "409", "413", "422", "429"]},
        "negative_data_rejection": {"expected-statuses": ["4xx"]},  # what breaks a rule may be too large, besides
        "use_after_free": {"enabled": False},  # what DELETE takes back is a declaration, which can be made again
    },
    "operations": [
        # Of a body that breaks the rules in one row the others are taken.
        {"include-operation-id": "postEvents", "checks": {"negative_data_rejection": {"enabled": False}}},
    ],
}
OF_HTTP = {404, 405, 414, 431}
"""What is answered before there is an operation."""

MakeStore = Callable[..., Store]


@dataclass
class Told:
    """What a run has found.

    Attributes:
        answered: how often each phase had this status of this operation.
        broken: the checks that failed, with a way to repeat them.
        phases: how each one ended.
    """

    answered: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    phases: dict[str, Status] = field(default_factory=dict)

    def operations(self, *statuses: int) -> set[str]:
        """Operations that had one of these statuses; any, if none is named."""
        return {operation for _, operation, status in self.answered if not statuses or status in statuses}


@contextmanager
def documented(store: Store, **config: Any) -> Iterator[Any]:
    """The document of a real application, which runs in this process for as long as the block does."""
    plenty = {"service_api_key": KEY, "rate_limit_per_minute": 10**9, "rate_limit_events_per_minute": 10**9}
    settings = replace(store.settings, **plenty)
    app = app_on(settings, replace(store, settings=settings))
    schemathesis.openapi.format("date", st.sampled_from(NEAR) | st.dates().map(str))
    chosen = SchemathesisConfig.from_dict({**CHOSEN, "seed": seed(), **config})
    try:
        yield schemathesis.openapi.from_asgi("/openapi.json", app, config=chosen)
    finally:
        shutdown_lifespans()


def told(schema: Any) -> Told:
    """Run every phase that is configured: examples, boundaries, random requests, and links."""
    found = Told()
    for event in from_schema(schema).execute():
        if isinstance(event, events.PhaseFinished):
            found.phases[event.phase.name.value] = event.status
        elif isinstance(event, events.NonFatalError | events.FatalError):
            found.broken.append(str(getattr(event, "info", event)))
        elif isinstance(event, events.ScenarioFinished):
            _note(event, found)
    return found


def _note(scenario: events.ScenarioFinished, found: Told) -> None:
    recorder = scenario.recorder
    for name, exchange in recorder.interactions.items():
        operation = recorder.cases[name].value.operation
        status = exchange.response.status_code if exchange.response else 0
        found.answered[scenario.phase.value, operation.label, status] += 1
        if str(status) not in operation.definition.raw["responses"] and status not in OF_HTTP:
            found.broken.append(f"{operation.label} answers {status}, and does not declare it.")
    for checks in recorder.checks.values():
        failed = [check.failure_info for check in checks if check.failure_info is not None]
        found.broken += [f"{each.failure.title}: {each.failure.message}\n{each.code_sample[:500]}" for each in failed]


def operations_of(schema: Any) -> set[str]:
    return {f"{method.upper()} {path}" for path, methods in schema.raw_schema["paths"].items() for method in methods}


@pytest.mark.also_long(weight=2)
def test_every_answer_is_one_that_the_document_declares(make_store: MakeStore) -> None:
    is_long = at_length(test=0, ci=1, soak=1) == 1
    config = {
        "headers": {"X-API-Key": KEY},
        "generation": {"max-examples": at_length(test=2, ci=8, soak=250), "no-shrink": True},
        "phases": {"coverage": {"enabled": is_long}, "stateful": {"enabled": is_long}},
    }
    with documented(make_store(today=TODAY, recipe=a_month_published), **config) as schema:
        found = told(schema)
        asked = operations_of(schema)
    assert not found.broken, "\n\n".join(found.broken)
    assert {found.phases[name] for name in ("examples", "fuzzing", "stateful")} <= {Status.SUCCESS, Status.SKIP}
    assert found.operations() == asked
    assert sum(found.answered.values()) >= at_length(test=40, ci=500, soak=4_000)


@pytest.mark.slow
def test_a_bearer_token_is_as_good_as_the_header_and_neither_is_passed_over(make_store: MakeStore) -> None:
    config = {
        "headers": {"Authorization": f"Bearer {KEY}"},
        "generation": {"max-examples": at_length(ci=3, soak=20), "with-security-parameters": False, "no-shrink": True},
        "phases": {"coverage": {"enabled": False}},
    }
    with documented(make_store(today=TODAY, recipe=a_month_published), **config) as schema:
        found = told(schema)
        asked = operations_of(schema)
    assert not found.broken, "\n\n".join(found.broken)
    assert found.operations(200, 202) > {"POST /erasure", "GET /status", "GET /label/{metric}"}
    assert found.operations(401) >= {"POST /erasure", "GET /status", "GET /label/{metric}"}, "asked without it, too"
    assert found.operations() == asked


@pytest.mark.also_long
def test_links_lead_from_a_request_to_what_is_done_with_its_receipt(make_store: MakeStore) -> None:
    config = {
        "headers": {"X-API-Key": KEY},
        "generation": {"max-examples": at_length(test=6, ci=20, soak=500), "mode": "positive", "no-shrink": True},
        "phases": {name: {"enabled": False} for name in ("examples", "coverage", "fuzzing")},
        "operations": [{"exclude-path-regex": "^/erasure", "enabled": False}],
    }
    with documented(make_store(today=TODAY, recipe=a_month_published), **config) as schema:
        found = told(schema)
    assert not found.broken, "\n\n".join(found.broken)
    receipts = {"GET /erasure/{receipt}", "POST /erasure/{receipt}/confirm", "POST /erasure/{receipt}/cancel"}
    led = receipts & found.operations(200)
    assert led if at_length(test=0, ci=1, soak=1) == 0 else led == receipts
