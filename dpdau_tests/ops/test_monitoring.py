"""What the rules and the dashboard name is what a real server tells, and what docs/monitoring.md explains.

A server on a store with published numbers is asked, refused and broken, so that every metric has samples. Names are
read out of each expression by a parser of PromQL; what no sample has is found.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Expr,
    LabelModifierType,
    Matcher,
    MatchOp,
    VectorSelector,
    parse,
    walk,
)

from dpdau_assets.core.ports.store import Store
from dpdau_tests.api.serving import Served, serve
from dpdau_tests.ops.tools import DASHBOARD, Scrape, alerts, prometheus, rules, scraped, until
from dpdau_tests.support.project import PROJECT
from dpdau_tests.support.stores import a_month_published
from dpdau_tests.test_docs import anchors

MakeStore = Callable[..., Store]
Samples = Mapping[str, list[Mapping[str, str]]]
"""By metric, the labels of each sample."""

VARIABLES = {"$__rate_interval": "1m", "$instance": ".*"}


@pytest.fixture
def served(make_store: MakeStore, tmp_path: Path) -> Iterator[Served]:
    """A server on a store with a month of numbers, as it is by default."""
    make_store(recipe=a_month_published)
    with serve(tmp_path, RATE_LIMIT_EVENTS_PER_MINUTE="5", METRICS_COUNTS="off") as served:
        yield served


def use(served: Served) -> None:
    """Ask what clients ask: well, badly, with a wrong key, and too often."""
    good = {"user_id": "somebody", "op": "+", "day": str(datetime.now(UTC).date())}
    statuses = [served.ask("POST", "/event", {"events": [good, {**good, "user_id": ""}]}).status for _ in range(3)]
    assert statuses[0] in (202, 429) and statuses[-1] == 429
    paths = ("/dau/2025-01-31", "/mau?end=2025-01-31", "/series/dau?from=2025-01-01&to=2025-01-31", "/budget/mau")
    assert {served.ask("GET", path).status for path in (*paths, "/label/joint")} == {200}
    assert served.ask("GET", "/label/dau", key="x" * 40).status == 401


def break_the_disk(served: Served, folder: Path) -> None:
    """What is kept of requests for a day can be kept no more: /readyz answers 503."""
    kept = folder / "store" / "api"
    if kept.is_dir():
        kept.rename(folder / "api.away")
    kept.write_bytes(b"no folder")
    until(lambda: served.ask("GET", "/readyz", key=None).status == 503, lambda: "The server is still ready.")


@pytest.fixture
def samples(served: Served, tmp_path: Path) -> Samples:
    """Everything that is told of a server that was used, and then broken; and what is recorded of it."""
    use(served)
    break_the_disk(served, tmp_path)
    return with_recorded(by_metric(scraped(served.ask("GET", "/metrics", key=None).body.decode())))


def by_metric(scrape: Scrape) -> dict[str, list[Mapping[str, str]]]:
    found: dict[str, list[Mapping[str, str]]] = {}
    for name, labels in scrape.samples:
        found.setdefault(name, []).append(dict(labels))
    return found


def with_recorded(told: Samples) -> Samples:
    recorded = {rule["record"]: selectors(parse(rule["expr"]))[0].name or "" for rule in rules() if "record" in rule}
    return {**told, **{name: told[of] for name, of in recorded.items()}}


# --- Expressions -------------------------------------------------------------------------------------------------


def nodes(expr: Expr) -> list[Any]:
    """All parts of an expression, itself among them."""
    found: list[Any] = []
    walk(expr, lambda node: found.append(node))
    return found


def selectors(expr: Expr) -> list[VectorSelector]:
    return [node for node in nodes(expr) if isinstance(node, VectorSelector)]


def problems(expression: str, shown: str, told: Samples) -> list[str]:
    """What the expression, or a text that shows labels of its result, names and no sample has."""
    expr = parse(expression)
    found = [problem for selector in selectors(expr) for problem in problems_of(selector, told)]
    if found:
        return found
    for node in nodes(expr):
        if isinstance(node, AggregateExpr) and node.modifier and node.modifier.type == AggModifierType.By:
            found += missing(node.modifier.labels, node.expr, told)
        if isinstance(node, BinaryExpr) and node.modifier and node.modifier.matching:
            assert node.modifier.matching.type == LabelModifierType.Include, "say which labels are matched"
            found += [
                problem
                for side in (node.lhs, node.rhs)
                for problem in missing(node.modifier.matching.labels, side, told)
            ]
    known = {label for selector in selectors(expr) for sample in told[selector.name or ""] for label in sample}
    shown_labels = re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", shown)
    return found + [f"No metric of {expression} has the label {label}." for label in shown_labels if label not in known]


def problems_of(selector: VectorSelector, told: Samples) -> list[str]:
    samples = told.get(selector.name or "", [])
    if not samples:
        return [f"There is no metric {selector.name}."]
    asked = selector.matchers.matchers
    lacking = [
        f"{selector.name} has no label {each.name}." for each in asked if not any(each.name in s for s in samples)
    ]
    if lacking or any(all(admits(each, sample) for each in asked) for sample in samples):
        return lacking
    return [f"No sample is {selector}."]


def admits(matcher: Matcher, sample: Mapping[str, str]) -> bool:
    value = sample.get(matcher.name, "")
    if matcher.op in (MatchOp.Equal, MatchOp.NotEqual):
        return (value == matcher.value) is (matcher.op == MatchOp.Equal)
    return bool(re.fullmatch(matcher.value, value)) is (matcher.op == MatchOp.Re)


def missing(labels: list[str], expr: Expr, told: Samples) -> list[str]:
    return [
        f"{selector.name} has no label {label}."
        for selector in selectors(expr)
        for label in labels
        if not all(label in sample for sample in told[selector.name or ""])
    ]


def in_dashboard() -> list[tuple[str, str, str]]:
    """Title, expression and legend of every query, with the variables filled in."""
    content = dashboard()
    found = [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in content["panels"]
        for target in panel.get("targets", ())
    ]
    for variable in content["templating"]["list"]:
        (inner,) = re.findall(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        found.append((variable["name"], inner[0], f"{{{{{inner[1]}}}}}"))
    for name, value in VARIABLES.items():
        found = [(title, expression.replace(name, value), legend) for title, expression, legend in found]
    return found


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return content


def test_every_metric_label_and_value_that_rules_and_dashboard_name_is_told_by_a_live_server(samples: Samples) -> None:
    named = [(rule["expr"], " ".join(rule.get("annotations", {}).values())) for rule in rules()]
    named += [(expression, legend) for _, expression, legend in in_dashboard()]
    assert [problem for expression, shown in named for problem in problems(expression, shown, samples)] == []
    planted = {
        "dpdau_wal_byte > 1": "There is no metric dpdau_wal_byte.",
        "rate(dpdau_events_accepted_total[5m])": "There is no metric dpdau_events_accepted_total.",
        "sum by (rout) (rate(dpdau_http_requests_total[5m]))": "dpdau_http_requests_total has no label rout.",
        'dpdau_scrape_errors{sources="log"} == 1': "dpdau_scrape_errors has no label sources.",
        'dpdau_scrape_errors{source="wal"} == 1': 'No sample is dpdau_scrape_errors{source="wal"}.',
        'dpdau_http_requests_total{status=~"43."}': 'No sample is dpdau_http_requests_total{status=~"43."}.',
        "dpdau_wal_bytes > on (job, route) dpdau_inbox_bytes": "dpdau_wal_bytes has no label route.",
    }
    for expression, problem in planted.items():
        assert problem in problems(expression, "", samples)
    (lost,) = problems("dpdau_check_passed == 0", "The check {{ $labels.chek }} fails.", samples)
    assert lost == "No metric of dpdau_check_passed == 0 has the label chek."


def test_every_metric_of_a_server_is_on_the_dashboard(samples: Samples) -> None:
    shown = {selector.name for _, expression, _ in in_dashboard() for selector in selectors(parse(expression))}
    plain = {re.sub(r"_seconds_(sum|count)$", "_seconds_bucket", name) for name in samples if ":" not in name}
    assert plain == shown


# --- The rules ---------------------------------------------------------------------------------------------------


def test_every_alert_has_a_severity_words_and_a_place_in_the_docs_that_is_there() -> None:
    for alert in alerts().values():
        assert set(alert.labels) == {"severity"} and alert.labels["severity"] in ("critical", "warning", "info")
        assert set(alert.annotations) == {"summary", "description", "runbook_url"}
        assert all(text.strip().endswith(".") for name, text in alert.annotations.items() if name != "runbook_url")
        page, _, anchor = alert.annotations["runbook_url"].partition("#")
        assert anchor == alert.name.lower() and anchor in anchors(PROJECT / page)


def test_the_page_explains_every_alert_with_its_severity_and_no_other() -> None:
    text = (PROJECT / "docs" / "monitoring.md").read_text()
    explained = re.findall(r"^\| <a id=\"\w+\"></a>`(\w+)` \| (\w+) \|", text, re.MULTILINE)
    assert explained == [(alert.name, alert.labels["severity"]) for alert in alerts().values()]


# --- The dashboard -----------------------------------------------------------------------------------------------


def test_the_dashboard_has_unique_ids_and_no_address_and_asks_the_data_source_that_is_chosen_on_import() -> None:
    content = dashboard()
    assert not re.search(r"\w+://|localhost|\d+\.\d+\.\d+\.\d+", DASHBOARD.read_text())
    ids = Counter(panel["id"] for panel in content["panels"])
    assert content["id"] is None and max(ids.values()) == 1
    (asked,) = content["__inputs"]
    chosen = {"type": "prometheus", "uid": f"${{{asked['name']}}}"}
    assert (asked["type"], asked["pluginId"]) == ("datasource", "prometheus")
    sources = [panel["datasource"] for panel in content["panels"] if panel["type"] != "row"]
    sources += [target["datasource"] for panel in content["panels"] for target in panel.get("targets", ())]
    sources += [variable["datasource"] for variable in content["templating"]["list"]]
    assert all(source == chosen for source in sources)
    required = {each["id"] for each in content["__requires"] if each["type"] == "panel"}
    assert required == {panel["type"] for panel in content["panels"]} - {"row"}


def test_every_panel_has_a_title_a_description_a_unit_and_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        squares = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not squares & taken
        taken |= squares
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"]
            references = [target["refId"] for target in panel["targets"]]
            assert references and len(set(references)) == len(references)


# --- A real Prometheus -------------------------------------------------------------------------------------------


@pytest.mark.slow(weight=0.2)
def test_a_real_prometheus_takes_configuration_and_rules_and_answers_every_panel(
    served: Served, tmp_path: Path
) -> None:
    break_the_disk(served, tmp_path)
    empty: list[str] = []

    def all_answer() -> bool:
        use(served)
        assert served.ask("GET", "/readyz", key=None).status == 503
        empty[:] = [title for title, expression, _ in in_dashboard() if not finite(running.query(expression))]
        return not empty

    with prometheus(tmp_path, served) as running:
        until(lambda: {each["health"] for each in targets(running)} == {"up"}, lambda: targets(running))
        assert {each["labels"]["job"] for each in targets(running)} == {"dpdau"} and len(targets(running)) == 2
        until(all_answer, lambda: f"Without data: {empty}")
        until(lambda: {rule["health"] for rule in rules_of(running)} == {"ok"}, lambda: rules_of(running))
        names = sorted(rule["alert"] if "alert" in rule else rule["record"] for rule in rules())
        assert sorted(rule["name"] for rule in rules_of(running)) == names


def finite(values: list[float]) -> bool:
    return any(math.isfinite(value) for value in values)


def targets(running: Any) -> list[dict[str, Any]]:
    return list(running.ask("targets")["activeTargets"])


def rules_of(running: Any) -> list[dict[str, Any]]:
    return [rule for group in running.ask("rules")["groups"] for rule in group["rules"]]
