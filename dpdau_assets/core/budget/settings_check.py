"""Whether a Settings can be run at all: every rule that a value breaks, and then the budget calendar's verdict.

Owns the rule: No configuration runs that breaks a condition or its caps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.privacy.accounting import largest_independent_epsilon
from dpdau_assets.core.privacy.mechanisms import (
    SHORTEST_STREAM_WINDOW,
    Gaussian,
    Laplace,
    SharedNoise,
    Stream,
    longest_interval,
)
from dpdau_assets.core.privacy.schedule import Refusal, first_refusal, shortest_retention
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches import ESTIMATORS
from dpdau_assets.core.sketches.hllpp import LEAST_REGISTERS, MOST_REGISTERS, highest_level
from dpdau_assets.core.sketches.sampling import is_threshold
from dpdau_assets.core.user_ids import NORMALIZATIONS

SKETCHES = tuple(ESTIMATORS)
DAU_MECHANISMS = (SharedNoise.name, Gaussian.name, Laplace.name)
MAU_MECHANISMS = (Stream.name, Gaussian.name, Laplace.name)
LARGEST_DELTA = 1e-3
LATEST_RESTATEMENT_DAY = 28  # a day that every month has
LONGEST_GRACE = LATEST_RESTATEMENT_DAY - 2  # a month is restated after all of it is published
LEAST_EPSILON, LARGEST_EPSILON = Fraction(1, 10_000), 1000
LEAST_K, MOST_K = 16, 1 << 26
_HOST = r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?"
_ENCODED = r"[\w.~!$&'()*+,;=%-]+"
LEDGER_FILE = re.compile(r"sqlite:///[^:?#]+")
# Nowhere but before the host is an @, so that no part of a password is taken for a host, a port or a database.
LEDGER_DATABASE = re.compile(
    rf"postgres(ql)?://({_ENCODED}(:{_ENCODED})?@({_HOST})?|{_HOST})/[^/?#@\s]+(\?[^?#@\s]*)?", re.ASCII
)
SMTP = re.compile(rf"smtps?://({_ENCODED}(:{_ENCODED})?@)?{_HOST}/?", re.ASCII)
MAILBOX = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(\.[\w-]+)*", re.ASCII)
WEBHOOK = re.compile(rf"https?://{_HOST}([/?][!-~]*)?", re.ASCII)
ORIGIN = re.compile(r"https?://[^\s/,*]+")
DOCS = re.compile(r"https?://[^\s#?]+")
REDIS = re.compile(r"rediss?://\S+")
COUNTS = ("off", "exact")
SHORTEST_SECRET = 32
ERASURE_MARKS = ("touched", "all")


@dataclass(frozen=True)
class Problem:
    """A rule that a variable breaks, and what to set; `shown` is its value, or what stands for a secret one."""

    variable: str
    shown: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.variable}={self.shown}: {self.rule}; {self.remedy}"

    @property
    def without_value(self) -> str:
        return f"{self.rule}; {self.remedy}"


HIDDEN = "..."
"""Shown for a value that may be secret."""


def check(settings: Settings) -> None:
    """Raise one BadSetting that lists every problem as "VARIABLE=value: rule; what to set"; else return.

    The calendar is asked only when each value is right by itself. The error's `variables` names those at fault, and
    `rules` says for each of them the rule and what to set, without the value that breaks it.
    """
    problems = list(_problems(settings)) or list(_verdict(settings))
    if problems:
        raise BadSetting(
            "\n".join(f"{problem}." for problem in problems),
            "Correct what is named, in the environment or in .env.",
            variables=[problem.variable for problem in problems],
            rules=[problem.without_value for problem in problems],
        )


def _problems(settings: Settings) -> Iterator[Problem]:
    yield from _names(settings)
    yield from _sketch(settings)
    yield from _window(settings)
    yield from _budgets(settings)
    yield from _rows(settings)
    yield from _publication(settings)
    yield from _store(settings)
    yield from _messages(settings)
    yield from _erasure(settings)
    yield from _api(settings)


def _names(settings: Settings) -> Iterator[Problem]:
    if settings.dau_mechanism not in DAU_MECHANISMS:
        yield _problem(settings, "dau_mechanism", "no such mechanism for DAU", f"set one of {_listed(DAU_MECHANISMS)}")
    if settings.mau_mechanism not in MAU_MECHANISMS:
        yield _problem(settings, "mau_mechanism", "no such mechanism for MAU", f"set one of {_listed(MAU_MECHANISMS)}")
    if settings.sketch_impl not in SKETCHES:
        yield _problem(settings, "sketch_impl", f"must be one of {_listed(SKETCHES)}", "set SKETCH_IMPL=set")


def _sketch(settings: Settings) -> Iterator[Problem]:
    for name in ("dau_theta0", "mau_theta0"):
        theta0 = getattr(settings, name)
        if theta0 is not None and not is_threshold(theta0):
            rule = "a sampling threshold is a power of two from 2**-32 to 1, the same number in every implementation"
            yield _problem(settings, name, rule, "set one such as 1/64, or 1 to sample everybody")
    registers = settings.hll_registers
    if not LEAST_REGISTERS <= registers <= MOST_REGISTERS or registers.bit_count() != 1:
        rule = f"registers are a power of two from {LEAST_REGISTERS} to {MOST_REGISTERS}"
        yield _problem(settings, "hll_registers", rule, "set HLL_REGISTERS=16384")
    else:
        for name in ("dau_level", "mau_level"):
            level, highest = getattr(settings, name), highest_level(registers)
            if level is not None and not 1 <= level <= highest:
                yield _problem(settings, name, f"registers have ranks from 1 to {highest}", "set 1 for few users")
    if not LEAST_K <= settings.kmv_k <= MOST_K:
        yield _problem(settings, "kmv_k", f"a KMV sketch keeps {LEAST_K} to {MOST_K} keys", "set KMV_K=65536")
    yield from _sketch_in_stream(settings)


def _sketch_in_stream(settings: Settings) -> Iterator[Problem]:
    """Conditions 3 and 4 of docs/privacy.md, lemma 2."""
    kind = ESTIMATORS.get(settings.sketch_impl)
    if kind is None or settings.mau_mechanism != Stream.name:
        return
    if not kind.linear:
        rule = (
            "its statistic changes with other users' data, so that one user's bit may change every day; a stream's "
            "noise is calibrated for a linear one (set, theta)"
        )
        yield _problem(settings, "sketch_impl", rule, f"set SKETCH_IMPL=theta, or {_independent_mau(settings)}")
    elif kind.samples and settings.hash_salt_rotation_days < (needed := longest_interval(settings.mau_window_days)):
        rule = (
            f"{settings.sketch_impl} samples users by their salted keys, and a sample that changed twice on one "
            f"user-month's interval of {needed} days would cost a stream more than it states"
        )
        yield _problem(settings, "hash_salt_rotation_days", rule, f"set {needed} or more, or SKETCH_IMPL=set")


def _independent_mau(settings: Settings) -> str:
    """The settings under which independent noise fits: as many charges a month as windows read it."""
    if not LEAST_EPSILON <= settings.mau_budget_total <= LARGEST_EPSILON or not 0 < settings.delta <= LARGEST_DELTA:
        return "MAU_MECHANISM=gaussian"
    fitting = largest_independent_epsilon(
        settings.mau_budget_total, settings.delta, longest_interval(settings.mau_window_days)
    )
    if not fitting:
        return "MAU_MECHANISM=gaussian with a larger MAU_BUDGET_TOTAL"
    return f"MAU_MECHANISM=gaussian with EPSILON_MAU={fitting:.3f} or less, which fits MAU_BUDGET_TOTAL"


def _window(settings: Settings) -> Iterator[Problem]:
    if settings.w_bound != 2:
        rule = (
            "the noise is calibrated for a user's published bit that changes twice, on one interval; removals that end "
            "with their month make that a theorem for 2 and for nothing else"
        )
        yield _problem(settings, "w_bound", rule, "set W_BOUND=2")
    days = settings.mau_window_days
    if days < 1:
        yield _problem(settings, "mau_window_days", "a window has at least one day", "set MAU_WINDOW_DAYS=30")
    elif settings.mau_mechanism == Stream.name and days < SHORTEST_STREAM_WINDOW:
        rule = "gaps inside a month would change a user's bit on several intervals, and the stream would cost more"
        remedy = f"set MAU_WINDOW_DAYS={SHORTEST_STREAM_WINDOW} or more, or MAU_MECHANISM=gaussian"
        yield _problem(settings, "mau_window_days", rule, remedy)


def _budgets(settings: Settings) -> Iterator[Problem]:
    for name in ("dau_budget_total", "mau_budget_total", "epsilon_dau", "epsilon_mau"):
        if not LEAST_EPSILON <= getattr(settings, name) <= LARGEST_EPSILON:
            rule = f"an epsilon is {float(LEAST_EPSILON):g} to {LARGEST_EPSILON}; more protects nobody"
            yield _problem(settings, name, rule, "set one such as 0.3 or 3.0")
    if not 0 < settings.delta <= LARGEST_DELTA:
        yield _problem(settings, "delta", f"must be above 0 and at most {LARGEST_DELTA:g}", "set DELTA=1e-6")
    if not 0 < settings.advanced_delta < 1:
        yield _problem(settings, "advanced_delta", "must lie between 0 and 1", "set ADVANCED_DELTA=1e-7")
    if not settings.rdp_orders or min(settings.rdp_orders) <= 1:
        yield _problem(settings, "rdp_orders", "orders are above 1", "set RDP_ORDERS=2,4,8,16,32")


def _rows(settings: Settings) -> Iterator[Problem]:
    """What decides who a row is about and which day it is of."""
    for name in ("timezone", "naive_zone"):
        if not is_zone(getattr(settings, name)):
            yield _problem(settings, name, "not a time zone of the tz database", "set one such as Europe/Berlin")
    if set(settings.user_id_normalize) - set(NORMALIZATIONS):
        rule = f"ids are normalised by any of {_listed(NORMALIZATIONS)}, with commas between"
        yield _problem(settings, "user_id_normalize", rule, "set such as nfc,trim, or leave it out")


def is_zone(name: str) -> bool:
    """Whether the tz database has a time zone of this name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # unknown, malformed, or a folder of zones such as America
        return False
    return True


def _publication(settings: Settings) -> Iterator[Problem]:
    if settings.grace_days < 0:
        yield _problem(settings, "grace_days", "a day is published after it has ended", "set 0 or more")
    if settings.restatements_per_month not in (0, 1):
        yield _problem(settings, "restatements_per_month", "a month is restated once or never", "set 0 or 1")
    elif (
        settings.restatements_per_month
        and not 1 + settings.grace_days < settings.restatement_day <= LATEST_RESTATEMENT_DAY
    ):
        rule = "a month is restated once all of it is published (after day 1 + GRACE_DAYS), on a day every month has"
        yield _problem(
            settings, "restatement_day", rule, f"set {2 + max(0, settings.grace_days)} to {LATEST_RESTATEMENT_DAY}"
        )


def _store(settings: Settings) -> Iterator[Problem]:
    if settings.hash_salt_rotation_days < settings.mau_window_days:
        rule = f"a salt must last for a whole window of {settings.mau_window_days} days"
        remedy = f"set {settings.mau_window_days} or more"
        yield _problem(settings, "hash_salt_rotation_days", rule, remedy)
    if settings.ledger_url is not None and not is_ledger(settings.ledger_url):
        rule = "neither a file of SQLite nor a database of PostgreSQL"
        remedy = (
            "set sqlite:////absolute/path/to/ledger.sqlite or postgresql://user:password@host:5432/database, user and "
            "password percent-encoded, or leave it out"
        )
        yield Problem("LEDGER_URL", HIDDEN, rule, remedy)
    if settings.hash_salt_secret is not None and len(settings.hash_salt_secret) < SHORTEST_SECRET:
        rule = f"shorter than {SHORTEST_SECRET} characters"
        yield Problem("HASH_SALT_SECRET", HIDDEN, rule, "set a random one, for example from: openssl rand -hex 32")


def is_ledger(url: str) -> bool:
    """Whether this is where a ledger can be: a file of SQLite, or a database of PostgreSQL at a host and port."""
    return bool(LEDGER_FILE.fullmatch(url)) or _is_address(url, LEDGER_DATABASE)


def _messages(settings: Settings) -> Iterator[Problem]:
    for name in ("alert_webhook", "digest_webhook"):
        address = getattr(settings, name)
        if address is not None and not _is_address(address, WEBHOOK):
            rule = "not an address that can be posted to, or one with a user and password, or a wrong port"
            yield Problem(name.upper(), HIDDEN, rule, "set https://host/path, or leave it out")
    if settings.smtp_url is not None and not _is_address(settings.smtp_url, SMTP):
        remedy = (
            "set smtp://user:password@host:587 or smtps://host:465, user and password percent-encoded, or leave it out"
        )
        yield Problem("SMTP_URL", HIDDEN, "not the address of a mail server", remedy)
    for address in settings.admin_email:
        if not MAILBOX.fullmatch(address):
            remedy = "set such as privacy@example.org, several with commas"
            yield Problem("ADMIN_EMAIL", address, "not an e-mail address", remedy)
    if settings.admin_email and settings.smtp_url is None:
        rule = "not set, and ADMIN_EMAIL is, so no mail could be sent"
        yield Problem("SMTP_URL", "", rule, "set it, or leave both out")
    if settings.smtp_url is not None and not settings.admin_email:
        rule = "not set, and SMTP_URL is, so mail would go to nobody"
        yield Problem("ADMIN_EMAIL", "", rule, "set it, or leave both out")


def _is_address(text: str, form: re.Pattern[str]) -> bool:
    """Whether it has this form, and a port and a host that are some."""
    try:
        return bool(form.fullmatch(text)) and urlsplit(text).port != 0
    except ValueError:
        return False


def _erasure(settings: Settings) -> Iterator[Problem]:
    if settings.erasure_mark not in ERASURE_MARKS:
        rule = f"must be one of {_listed(ERASURE_MARKS)}"
        yield _problem(settings, "erasure_mark", rule, "set ERASURE_MARK=touched")
    if not 0 < settings.erasure_guard_share <= 1:
        yield _problem(settings, "erasure_guard_share", "a share of the MAU", "set a number above 0, at most 1")
    if not 0 <= settings.max_rejected_share < 1:
        rule = "the share of an ingest's rows that may be bad, from 0 to below 1"
        yield _problem(settings, "max_rejected_share", rule, "set MAX_REJECTED_SHARE=0.01")
    if settings.quarantine_days < 1:
        yield _problem(settings, "quarantine_days", "a bad row is kept for a day at least", "set 1 or more")
    needed = shortest_retention(settings)
    if settings.retention_days is not None and settings.retention_days < needed:
        rule = f"windows and the restatement of a month need {needed} days"
        yield _problem(settings, "retention_days", rule, f"set {needed} or more, or leave it out to keep everything")


def _api(settings: Settings) -> Iterator[Problem]:
    for name in ("rate_limit_per_minute", "rate_limit_events_per_minute"):
        if getattr(settings, name) < 1:
            yield _problem(settings, name, "one a minute is the least", f"set {getattr(Settings, name)}")
    if settings.metrics_counts not in COUNTS:
        yield _problem(settings, "metrics_counts", f"must be one of {_listed(COUNTS)}", "set METRICS_COUNTS=off")
    if settings.rate_limit_url is not None and not REDIS.fullmatch(settings.rate_limit_url):
        remedy = "set redis://host:6379/0, or leave it out"
        yield Problem("RATE_LIMIT_URL", HIDDEN, "not an address of Redis", remedy)
    if settings.docs_url is not None and not DOCS.fullmatch(settings.docs_url):
        yield _problem(settings, "docs_url", "not an address of pages", "set https://host/docs, or leave it out")
    for origin in settings.cors_origins:
        if not ORIGIN.fullmatch(origin):
            rule = "an origin is http or https, a host and perhaps a port, and none stands for all"
            yield Problem("CORS_ORIGINS", origin, rule, "set such as https://dashboard.example.org, or leave it out")
    for proxy in settings.trusted_proxies:
        if not _is_network(proxy):
            yield Problem(
                "TRUSTED_PROXIES", proxy, "names every address, or none", "set such as 10.0.0.5 or 10.0.0.0/24"
            )


def _is_network(text: str) -> bool:
    try:
        return ip_network(text).prefixlen > 0
    except ValueError:
        return False


def _verdict(settings: Settings) -> Iterator[Problem]:
    refusal = first_refusal(settings)
    if refusal is not None:
        name = f"epsilon_{refusal.metric}"
        yield _problem(settings, name, f"the budget runs out on {refusal.day}: {refusal}", _way_out(refusal, settings))


def _way_out(refusal: Refusal, settings: Settings) -> str:
    metric = refusal.metric.upper()
    if refusal.metric == "mau" and not ESTIMATORS[settings.sketch_impl].linear:
        return f"set {_independent_mau(settings)}, or a larger MAU_BUDGET_TOTAL"
    default = SharedNoise.name if refusal.metric == "dau" else Stream.name
    return f"set {metric}_MECHANISM={default}, a smaller EPSILON_{metric} or a larger {metric}_BUDGET_TOTAL"


def _problem(settings: Settings, name: str, rule: str, remedy: str) -> Problem:
    value = getattr(settings, name)
    return Problem(name.upper(), str(value) if name.endswith("theta0") else _shown(value), rule, remedy)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, str | int) else f"{float(value):g}"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
