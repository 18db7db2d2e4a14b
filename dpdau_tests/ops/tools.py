"""Prometheus's own programs, and what a scrape is made into for them.

`prometheus` and `promtool` are looked for in the folder that DPDAU_PROMETHEUS names, or else in the path: Debian's
package `prometheus` has both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dpdau_tests.api.serving import KEY, Served
from dpdau_tests.support.project import PROJECT

RULES = PROJECT / "ops" / "prometheus" / "alerts.yaml"
CONFIG = PROJECT / "ops" / "prometheus" / "prometheus.yaml"
DASHBOARD = PROJECT / "ops" / "grafana" / "dpdau.json"

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]

TARGET: Mapping[str, str] = {"job": "dpdau", "instance": "127.0.0.1:8000"}
"""What Prometheus itself says of whom it scrapes."""


def program(name: str) -> str:
    """Where `prometheus` or `promtool` is. Skips where there is none; fails instead in CI."""
    folder = os.environ.get("DPDAU_PROMETHEUS")
    found = shutil.which(name, path=folder) if folder else shutil.which(name)
    if found:
        return found
    reason = f"There is no {name} (apt-get install prometheus, or set DPDAU_PROMETHEUS to the folder that has it)."
    if os.environ.get("DPDAU_CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def promtool(*arguments: str | Path, cwd: Path | None = None) -> tuple[int, str]:
    """Its exit code, and all that it printed."""
    command = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    return done.returncode, done.stdout + done.stderr


# --- A running Prometheus ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prometheus:
    """A running one, with an empty database."""

    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API. Raises HTTPError for a query that it refuses."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=60) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[float]:
        """The values of an expression now."""
        result = self.ask("query", query=expression)
        return [float(series["value"][1]) for series in result["result"]]


@contextmanager
def prometheus(folder: Path, served: Served) -> Iterator[Prometheus]:
    """On the project's own configuration and rules, but for the addresses and intervals: it scrapes this server twice,
    once by each of the two jobs, each second.
    """
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    with_key, local = config["scrape_configs"]
    with_key["scheme"] = "http"
    with_key["static_configs"][0]["targets"] = [f"localhost:{served.port}"]
    local["static_configs"][0]["targets"] = [f"127.0.0.1:{served.port}"]
    (folder / CONFIG.name).write_text(yaml.safe_dump(config))
    (folder / with_key["authorization"]["credentials_file"]).write_text(KEY)
    shutil.copy(RULES, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program("prometheus"), f"--config.file={folder / CONFIG.name}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            running = Prometheus(port)
            until(lambda: process.poll() is None and answers(running), lambda: (folder / "prometheus.log").read_text())
            yield running
        finally:
            process.terminate()


def answers(running: Prometheus) -> bool:
    """Whether it answers by now."""
    try:
        return bool(running.ask("status/buildinfo"))
    except OSError:
        return False


def until(holds: Callable[[], bool], otherwise: Callable[[], object]) -> None:
    """Wait for this, for a minute at most; then fail with what `otherwise` says."""
    for _ in range(300):
        if holds():
            return
        time.sleep(0.2)
    pytest.fail(str(otherwise()))


# --- Scrapes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scrape:
    """What Prometheus has after one scrape: every sample with the target's labels, and whether it was answered.

    Attributes:
        samples: by name and labels.
        cumulative: names of samples that only grow: counters, and all of a histogram.
    """

    samples: Mapping[Series, float] = field(default_factory=dict)
    cumulative: frozenset[str] = frozenset()


def scraped(text: str) -> Scrape:
    """An answered scrape."""
    samples: dict[Series, float] = {("up", _sorted(TARGET)): 1.0}
    cumulative: set[str] = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name, _sorted({**sample.labels, **TARGET})] = sample.value
            if family.type in ("counter", "histogram"):
                cumulative.add(sample.name)
    return Scrape(samples, frozenset(cumulative))


UNANSWERED = Scrape({("up", tuple(sorted(TARGET.items()))): 0.0})
"""The server was asked and did not answer."""

NOBODY = Scrape()
"""Nobody was asked."""


def _sorted(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def going_on(before: Scrape, after: Scrape, steps: int) -> Scrape:
    """After as many steps more, each of which has brought what came between the two: only what is counted grows."""
    return Scrape(
        {
            series: value + steps * (value - before.samples.get(series, 0.0) if series[0] in after.cumulative else 0.0)
            for series, value in after.samples.items()
        },
        after.cumulative,
    )


# --- promtool test rules -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alert:
    """A rule that alerts, as the file has it."""

    name: str
    expr: str
    wait: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    def fired(self, labels: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """How promtool is told that it fires with these labels of its expression."""
        annotations = {name: _filled_in(text, labels) for name, text in self.annotations.items()}
        return {"exp_labels": {**labels, **self.labels}, "exp_annotations": annotations}


def _filled_in(text: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)


def rules() -> list[dict[str, Any]]:
    """Every rule of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, Alert]:
    """Every rule that alerts, by name; `wait` is its `for`, in minutes."""
    return {
        rule["alert"]: Alert(
            rule["alert"], rule["expr"], _minutes(rule.get("for", "0m")), rule["labels"], rule["annotations"]
        )
        for rule in rules()
        if "alert" in rule
    }


def _minutes(duration: str) -> int:
    return int(duration[:-1]) * {"m": 1, "h": 60, "d": 1440}[duration[-1]]


Fires = Mapping[str, Sequence[Mapping[str, str]]]
"""By alert, the labels of each of its instances, without those of the rule; none: it does not fire."""


def judged(folder: Path, timeline: Sequence[Scrape], moments: Mapping[int, Fires], step: int = 1) -> tuple[int, str]:
    """What promtool says of the rules on these scrapes, one every `step` minutes, and of what fires at which minute.

    Nothing is asked of an alert at a minute that does not name it.
    """
    told = alerts()
    expected = [
        {
            "eval_time": f"{minute}m",
            "alertname": name,
            "exp_alerts": [told[name].fired(labels) for labels in instances],
        }
        for minute, fires in moments.items()
        for name, instances in fires.items()
    ]
    content = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {"interval": f"{step}m", "input_series": list(_input(timeline)), "alert_rule_test": expected},
        ],
    }
    file = folder / "rules_test.yaml"
    file.write_text(yaml.safe_dump(content, width=1_000_000))
    return promtool("test", "rules", file)


def _input(timeline: Sequence[Scrape]) -> Iterable[dict[str, str]]:
    for name, labels in dict.fromkeys(series for scrape in timeline for series in scrape.samples):
        values = [scrape.samples.get((name, labels)) for scrape in timeline]
        shown = ",".join(f'{label}="{value}"' for label, value in labels)
        yield {"series": f"{name}{{{shown}}}", "values": " ".join(_values(values))}


def _values(values: Sequence[float | None]) -> Iterable[str]:
    """A series that is gone is marked stale once, as Prometheus does, and then has no samples."""
    before: float | None = None
    for value in values:
        yield repr(value) if value is not None else "_" if before is None else "stale"
        before = value
