"""What Prometheus is told: requests, bytes and batches as they are counted, and how the store stands at each scrape.

Operators keep what they scrape for ever, and the difference between two scrapes is what happened between them. So:

- How many events, late rows, tombstones or erasure requests there were is told by nothing here, unless METRICS_COUNTS
  is `exact`: with one person more or less each of these is another number. Told instead are requests, batches, bytes,
  ages and shares.
- Requests below /erasure are not counted at all then, nor are their bytes and seconds: where a client asks for one
  person at a time, and reads each receipt back, the route's count is that of the people. Only which of them failed by
  our fault (5xx) is told, which is no matter of people.
- What waits to be erased is an age and a flag: they follow from days, whether one waits or many.
- The share of bad rows is in whole per cent, upwards: an exact one is a count for whoever knows the batch's size.
- No `_created` stands beside a counter: it would tell when the first of a kind came.

With `exact`, whoever reads metrics learns of a single event or request more, and at which minute.

With several workers each counts in files of its own, in the folder that PROMETHEUS_MULTIPROC_DIR names, and whichever
of them is asked answers for all. prometheus_client reads that variable when it is imported: it is to be set, and the
folder to be there, empty, before a process that serves imports this module. Gauges of the store are made by who
answers, since a function cannot be kept in a file. The files are mapped into memory: where their disk is full, the
first write to a new page kills the process. So the folder belongs elsewhere than on DATA_DIR's disk, or into memory.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.values import MutexValue, ValueClass

from dpdau_assets.api.request_log import LOGGER
from dpdau_assets.core.erasure.requests import waiting_days
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.reporting.checks import CHECKS, answer
from dpdau_assets.core.reporting.status import spent_months
from dpdau_assets.core.version import VERSION
from resources.lazy import lazy
from resources.store import open_mart

REMEMBERED_SECONDS = 60.0
"""How long a worker goes by what takes it long to ask: budgets and checks."""

_BLOCK = 4096
"""Bytes; what is written to the log is told in whole blocks, and one at least: a row has as many bytes as any other."""
_DEPTH = 65_536
"""Bytes; how much waits is told in whole pieces of so many."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds."""

_SHARE, _MINUTE = "dpdau_rejected_share", "dpdau_rejected_share_minute"
_ERASURE = "/erasure"
_log = logging.getLogger(LOGGER)
_Families = list[Metric]


class Metrics:
    """What one worker counts, and the text that any of them answers with.

    Args:
        exact: whether events and erasure requests are counted too, METRICS_COUNTS=exact.
        clock: seconds, from any beginning.
        now: seconds since 1970; the same for all workers.
    """

    def __init__(
        self, exact: bool, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(name, says, labels, registry=registry)

        self._requests = counter("dpdau_http_requests", "Requests that were answered.", "method", "route", "status")
        self._errors = counter("dpdau_http_errors", "Requests that were answered with 5xx.", "route")
        self._seconds = Histogram(
            "dpdau_http_request_duration_seconds",
            "Until a request was answered.",
            ["route"],
            registry=registry,
            buckets=BUCKETS,
        )
        self._bytes_in = counter("dpdau_http_request_bytes", "Bodies of requests, as sent.", "route")
        self._bytes_out = counter("dpdau_http_response_bytes", "Bodies of answers, as sent.", "route")
        self._posts = counter("dpdau_event_posts_accepted", "POST /event that were acknowledged.")
        self._log_bytes = counter("dpdau_wal_written_bytes", "Written to the write-ahead log.")
        self._share = _RejectedShare(registry, now)
        self._is_exact = exact
        if exact:
            self._accepted = counter("dpdau_events_accepted", "Rows of acknowledged batches that were valid.")
            self._rejected = counter("dpdau_events_rejected", "Rows of acknowledged batches that were not.")
            self._erasures = counter("dpdau_erasure_requests", "Erasure requests that were acknowledged.")
        self._budget = _Remembered(_budget_left, clock)
        self._checks = _Remembered(_watched_checks, clock)

    # What happens

    def answered(
        self, method: str, route: str, status: int | None, seconds: float, bytes_in: int, bytes_out: int
    ) -> None:
        """A request was answered; its words are those of `request_log.Answered`, of which there are few."""
        if status is not None and status >= 500:
            self._errors.labels(route).inc()
        if not self._is_exact and (route == _ERASURE or route.startswith(f"{_ERASURE}/")):
            return
        self._requests.labels(method, route, "none" if status is None else str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._bytes_in.labels(route).inc(bytes_in)
        self._bytes_out.labels(route).inc(bytes_out)

    def took(self, *, log_bytes: int = 0, rows: int = 0, rejected: int = 0, removals: int = 0) -> None:
        """A POST /event was acknowledged: so many rows, bad ones and removals (distinct people) among them."""
        self._posts.inc()
        self._log_bytes.inc(_BLOCK * max(1, math.ceil(log_bytes / _BLOCK)))
        self._share.add(rows, rejected)
        if self._is_exact:
            self._accepted.inc(rows - rejected)
            self._rejected.inc(rejected)
            self._erasures.inc(removals)

    def asked(self, requests: int) -> None:
        """So many erasure requests were acknowledged by /erasure."""
        if self._is_exact:
            self._erasures.inc(requests)

    # What is told of it

    def exposition(self, store: Store, accept: str = "") -> tuple[bytes, str]:
        """Everything as text, and its media type: OpenMetrics where the Accept header names it, else Prometheus's own.

        Asks the store, for a while. What cannot be asked is left out, and `dpdau_scrape_errors` says so.
        """
        registry = CollectorRegistry()
        registry.register(_Told(self._families(store)))
        if any(part.partition(";")[0].strip() == "application/openmetrics-text" for part in accept.lower().split(",")):
            return openmetrics.generate_latest(registry), openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4

    def _families(self, store: Store) -> _Families:
        sources: dict[str, Callable[[], Iterable[Metric]]] = {
            "requests": self._counted,
            "log": lambda: _log_depth(store),
            "inbox": lambda: _inbox_depth(store),
            "erasures": lambda: _erasures_waiting(store),
            "budget": lambda: self._budget.of(store),
            "numbers": lambda: _newest_numbers(store),
            "checks": lambda: self._checks.of(store),
        }
        errors = GaugeMetricFamily("dpdau_scrape_errors", "Whether it could not be asked just now.", labels=["source"])
        families: _Families = [InfoMetricFamily("dpdau", "What is running.", {"version": VERSION}), errors]
        for source, ask in sources.items():
            told = _told(source, ask)
            errors.add_metric([source], float(told is None))
            families += told or []
        return sorted(families, key=lambda family: family.name)

    def _counted(self) -> Iterator[Metric]:
        source = MultiProcessCollector(None) if is_shared() else self._registry
        families = list(source.collect())
        for family in families:
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            if family.name not in (_SHARE, _MINUTE):
                yield family
        yield self._share.of(families)


def _told(source: str, ask: Callable[[], Iterable[Metric]]) -> _Families | None:
    """What the source tells; None if it could not be asked."""
    try:
        return list(ask())
    except Exception as error:  # whatever it is, the others are told, and of this one that it failed
        _log.warning("Not in the metrics: %s (%s).", source, type(error).__name__)
        return None


class _Told(Collector):
    """Families that were made already."""

    def __init__(self, families: _Families) -> None:
        self._families = families

    def collect(self) -> _Families:
        return self._families


# --- The share of bad rows ---------------------------------------------------------------------------------------


class _RejectedShare:
    """Which share of the rows was bad, in this minute and the one before; 0 where none came in that time.

    One worker's is kept with its minute, so that one who tells can leave out another's that is of long ago.
    """

    def __init__(self, registry: CollectorRegistry, now: Callable[[], float]) -> None:
        self._share = Gauge(_SHARE, "One worker's.", registry=registry, multiprocess_mode="liveall")
        self._minute = Gauge(_MINUTE, "Minutes since 1970.", registry=registry, multiprocess_mode="liveall")
        self._now = now
        self._lock = Lock()
        self._at = 0
        self._counts, self._before = (0, 0), (0, 0)

    def add(self, rows: int, rejected: int) -> None:
        """So many rows have come, so many of them bad."""
        with self._lock:
            minute = self._this_minute()
            if minute != self._at:
                self._before = self._counts if minute == self._at + 1 else (0, 0)
                self._at, self._counts = minute, (0, 0)
            self._counts = self._counts[0] + rows, self._counts[1] + rejected
            all_rows, all_rejected = (sum(pair) for pair in zip(self._counts, self._before, strict=True))
            self._share.set(math.ceil(100 * all_rejected / all_rows) / 100 if all_rows else 0.0)
            self._minute.set(minute)

    def of(self, families: _Families) -> Metric:
        """The greatest that is recent, of all workers; `families` holds what each has kept."""
        kept = {
            family.name: {sample.labels.get("pid"): sample.value for sample in family.samples}
            for family in families
            if family.name in (_SHARE, _MINUTE)
        }
        minutes, since = kept.get(_MINUTE, {}), self._this_minute() - 1
        recent = [share for worker, share in kept.get(_SHARE, {}).items() if minutes.get(worker, 0) >= since]
        return GaugeMetricFamily(
            _SHARE,
            "Share of bad rows in the batches acknowledged in the last one to two minutes, in whole per cent, upwards.",
            max(recent, default=0.0),
        )

    def _this_minute(self) -> int:
        return int(self._now() // 60)


# --- How the store stands ----------------------------------------------------------------------------------------


def _gauge(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(name, says, value)


def _log_depth(store: Store) -> Iterator[Metric]:
    yield _gauge("dpdau_wal_bytes", "In the write-ahead log, and in no batch yet.", _whole(store.events.log.size()))


def _whole(size: int) -> int:
    return _DEPTH * math.ceil(size / _DEPTH)


def _inbox_depth(store: Store) -> Iterator[Metric]:
    inbox = store.events.inbox
    yield _gauge("dpdau_inbox_bytes", "In batches that wait to be folded.", _whole(inbox.size()))
    yield _gauge("dpdau_inbox_batches", "Batches that wait to be folded.", len(inbox.batches()))


def _erasures_waiting(store: Store) -> Iterator[Metric]:
    days = waiting_days(store.clock, store.erasures)
    oldest = max((day.age_days for day in days), default=0)
    overdue = any(day.is_overdue for day in days)
    yield _gauge("dpdau_erasure_oldest_waiting_days", "Age of the oldest one that is not verified.", oldest)
    yield _gauge("dpdau_erasure_overdue", "Whether a request is past its deadline.", float(overdue))


def _budget_left(store: Store) -> Iterator[Metric]:
    labels = ["metric", "month"]
    left = GaugeMetricFamily("dpdau_budget_epsilon_remaining", "Left of a month's budget.", labels=labels)
    cap = GaugeMetricFamily("dpdau_budget_epsilon_cap", "A month's whole budget.", labels=labels)
    with store.snapshot() as snapshot:
        for spent in spent_months(snapshot.settings, snapshot.accountant):
            of_month = [spent.metric, f"{spent.month:%Y-%m}"]
            left.add_metric(of_month, max(0.0, spent.cap - spent.spent))
            cap.add_metric(of_month, spent.cap)
    yield from (left, cap)


def _newest_numbers(store: Store) -> Iterator[Metric]:
    ages = GaugeMetricFamily(
        "dpdau_newest_number_age_days", "From the last published day until today; none: nothing yet.", labels=["metric"]
    )
    for metric in METRICS:
        days = [release.key.day for release in store.accountant.releases(metric)]
        if days:
            ages.add_metric([metric], (store.clock.today() - max(days)).days)
    yield ages


def _watched_checks(store: Store) -> Iterator[Metric]:
    """The cheap ones, which are watched for alerts: all of them would read every file at each scrape."""
    told = GaugeMetricFamily("dpdau_check_passed", "Whether a watched check of the store passes.", labels=["check"])
    mart = lazy(lambda: open_mart(store.settings))
    for check in CHECKS:
        if check.watched:
            told.add_metric([check.name], float(answer(check, store, mart).passed))
    yield told


class _Remembered:
    """What `ask` tells of the store, asked at most once in REMEMBERED_SECONDS; an error is not remembered."""

    def __init__(self, ask: Callable[[Store], Iterable[Metric]], clock: Callable[[], float]) -> None:
        self._ask, self._clock = ask, clock
        self._lock = Lock()
        self._asked_at = -math.inf
        self._families: _Families = []

    def of(self, store: Store) -> _Families:
        with self._lock:
            now = self._clock()
            if now - self._asked_at >= REMEMBERED_SECONDS:
                self._families = list(self._ask(store))
                self._asked_at = now
            return self._families


# --- Several workers ---------------------------------------------------------------------------------------------


def is_shared() -> bool:
    """Whether this process counts in files beside others."""
    return ValueClass is not MutexValue


def forget(pid: int) -> None:
    """A worker has ended: what it counted stays, since counters never fall, and what it said of now goes."""
    if is_shared():
        mark_process_dead(pid)
