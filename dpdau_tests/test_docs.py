"""What the docs say is so: every constant of docs/privacy.md, and every link, name, test and command of all pages.

README and HANDOFF are pages too, and stay short. docs/architecture.md says which module owns which rule. A
constant stands in docs/privacy.md as `3.00<!--=name-->`, and `CONSTANTS` computes it from the code; a figure without
such a marker fails too. What the proofs count out, and nothing else tests, is counted out here.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from typer.main import get_command

from dpdau_assets.cli.main import app
from dpdau_assets.core.privacy.accounting import Budget, Cost, cost, fits, pure_rho
from dpdau_assets.core.privacy.compositions import joint_epsilon
from dpdau_assets.core.privacy.cost_so_far import shared_mu2_so_far
from dpdau_assets.core.privacy.mechanisms import (
    DISCRETE_MARGIN,
    Laplace,
    SharedNoise,
    Stream,
    delta_of,
    discrete_mu,
    eps_of,
    independent_gaussian,
    independent_mu,
    longest_interval,
    mu_of,
    noise_std,
    shared_noise,
)
from dpdau_assets.core.privacy.schedule import mechanism_for
from dpdau_assets.core.privacy.stream_filters import STREAM_FILTERS
from dpdau_assets.core.reporting.checks import CHECKS
from dpdau_assets.core.security_events import KINDS, OVERRIDDEN
from dpdau_assets.core.settings import Metric, Settings
from dpdau_tests.support.lengths import LENGTH
from dpdau_tests.support.project import PROJECT

Reals = npt.NDArray[np.floating]
Bits = Sequence[int]

README, HANDOFF = PROJECT / "README.md", PROJECT / "HANDOFF.md"
DOCS = sorted((PROJECT / "docs").glob("*.md"))
ARCHITECTURE = PROJECT / "docs" / "architecture.md"
PRIVACY = (PROJECT / "docs" / "privacy.md").read_text(encoding="utf-8")
parsed = cache(ast.parse)
"""A source's tree, made once."""

SOURCES = {
    path: path.read_text(encoding="utf-8")
    for folder in ("dpdau_assets", "resources", "sensors", "eval", "tools", "dpdau_tests")
    for path in sorted((PROJECT / folder).rglob("*.py"))
}

DEFAULTS = Settings()
DELTA = DEFAULTS.delta
LONG_MONTH = date(2025, 1, 1)
NORMAL = NormalDist()


def shared(restatements: int) -> SharedNoise:
    mechanism = mechanism_for(replace(DEFAULTS, restatements_per_month=restatements), "dau", LONG_MONTH)
    assert isinstance(mechanism, SharedNoise)
    return mechanism


def stream() -> Stream:
    mechanism = mechanism_for(DEFAULTS, "mau", LONG_MONTH)
    assert isinstance(mechanism, Stream)
    return mechanism


MONTH, MAU = shared(1), stream()
MU_DAU, MU_MAU = (mu_of(float(DEFAULTS.cap(metric)), DELTA) for metric in ("dau", "mau"))
MU_JOINT = math.hypot(MU_DAU, MU_MAU)
EPS_LARGE = 10.0
LARGE = shared_noise(MONTH.releases, EPS_LARGE, DELTA)
LEAST_SIGMA = math.sqrt(MAU.sensitivity2) / MU_MAU


# --- The discrete Gaussian, counted out ----------------------------------------------------------------------------


def probabilities(sigma: float) -> Reals:
    """On -n..n; what is missing is below 1e-40."""
    reach = math.ceil(14 * sigma) + 1
    weights = np.exp(-((np.arange(-reach, reach + 1) / sigma) ** 2) / 2)
    return weights / weights.sum()


def gdp(sigma: float, shift: int = 1) -> float:
    """Lemma 0: the least m whose Gaussian curve covers this noise, over thresholds up to eight standard deviations."""
    below = np.cumsum(probabilities(sigma))
    reach = len(below) // 2
    lowest = -math.floor(8 * sigma) - shift
    quantiles = [NORMAL.inv_cdf(below[reach + k]) for k in range(lowest, 0)]
    quantiles += [-quantile for quantile in reversed(quantiles)]  # P(X <= k) = 1 - P(X <= -k-1)
    return max(after - before for before, after in zip(quantiles, quantiles[shift:], strict=False))


def delta_counted(noises: Sequence[tuple[float, int]], eps: float) -> float:
    """Exact δ of independent releases that shift by one, as (sigma, how many): one lattice sum a sigma, two at most."""
    (first, second) = [*map(loss, noises), (np.zeros(1), np.ones(1))][:2]
    total = first[0][:, None] + second[0][None, :]
    return float((first[1][:, None] * second[1] * np.maximum(0, -np.expm1(eps - total))).sum())


@lru_cache(maxsize=4)
def loss(noise: tuple[float, int]) -> tuple[Reals, Reals]:
    """Privacy losses of so many releases together, and their probabilities."""
    sigma, releases = noise
    single = together = probabilities(sigma)
    for _ in range(releases - 1):
        together = np.convolve(together, single)
        spare = max(0, len(together) // 2 - math.ceil(14 * sigma * math.sqrt(releases)))
        together = together[spare : len(together) - spare]
    reach = len(together) // 2
    return (np.arange(-reach, reach + 1) + releases / 2) / sigma**2, together


# --- The stream, counted out -------------------------------------------------------------------------------------


def stream_cost(bits: Bits) -> int:
    """‖D ∗ bits‖², tail included."""
    return int((np.convolve(MAU.filter, bits) ** 2).sum())


def eps_of_stream(cost_: int) -> float:
    return eps_of(math.sqrt(cost_) / MAU.sigma, DELTA)


@cache
def two_intervals() -> int:
    """The dearest way to be up, down and up again inside the longest interval."""
    days = longest_interval(30)
    ways = ((up, again) for up in range(1, days - 1) for again in range(up + 1, days))
    return max(stream_cost([1] * up + [0] * (again - up) + [1] * (days - again)) for up, again in ways)


def four_visits_in_a_short_window() -> int:
    return stream_cost(([1] * 7 + [0] * 3) * 4)


def alternating() -> int:
    return stream_cost([1, 0] * (longest_interval(30) // 2))


# --- Admission ---------------------------------------------------------------------------------------------------


def how_many_fit(each: Cost, metric: Metric) -> int:
    budget, count = Budget(DEFAULTS.cap(metric), DELTA), 0
    while fits(each.times(count + 1), budget):
        count += 1
    return count


def gaussian_fit(metric: Metric) -> int:
    return how_many_fit(cost(independent_gaussian(float(DEFAULTS.epsilon_each(metric)), DELTA)), metric)


def laplace_fit(metric: Metric) -> int:
    return how_many_fit(cost(Laplace(DEFAULTS.epsilon_each(metric))), metric)


CONSTANTS: dict[str, Callable[[], object]] = {
    "delta": lambda: DELTA,
    "eps_dau": lambda: float(DEFAULTS.dau_budget_total),
    "eps_mau": lambda: float(DEFAULTS.mau_budget_total),
    "eps_sum": lambda: float(DEFAULTS.dau_budget_total + DEFAULTS.mau_budget_total),
    "eps_joint": lambda: joint_epsilon(DEFAULTS),
    "eps_joint_2": lambda: eps_of(MU_JOINT * math.sqrt(2), DELTA),
    "eps_joint_3": lambda: eps_of(MU_JOINT * math.sqrt(3), DELTA),
    "eps_joint_12": lambda: eps_of(MU_JOINT * math.sqrt(12), DELTA),
    "eps_each_dau": lambda: float(DEFAULTS.epsilon_dau),
    "eps_each_mau": lambda: float(DEFAULTS.epsilon_mau),
    "mu_dau": lambda: MU_DAU,
    "mu_mau": lambda: MU_MAU,
    "mu_joint": lambda: MU_JOINT,
    "mu2_dau": lambda: MU_DAU**2,
    "margin": lambda: DISCRETE_MARGIN,
    "releases": lambda: MONTH.releases,
    "shared_gdp": lambda: MONTH.releases * gdp(MONTH.sigma_day) ** 2 + gdp(MONTH.sigma_month) ** 2,
    "shared_delta_share": lambda: (
        delta_counted([(MONTH.sigma_day, MONTH.releases), (MONTH.sigma_month, 1)], 3.0) / DELTA
    ),
    "eps_charged": lambda: eps_of(math.sqrt(cost(MONTH).mu2), DELTA),
    "eps_large": lambda: EPS_LARGE,
    "margin_large": lambda: LARGE.sigma_month * mu_of(EPS_LARGE, DELTA) / math.sqrt(math.sqrt(LARGE.releases) + 1),
    "eps_xi_known": lambda: eps_of(math.sqrt(4 * MONTH.releases) / MONTH.sigma_day, DELTA),
    "sigma_day_31": lambda: shared(0).sigma_day,
    "sigma_month_31": lambda: shared(0).sigma_month,
    "std_31": lambda: noise_std(shared(0)),
    "sigma_day_62": lambda: MONTH.sigma_day,
    "sigma_month_62": lambda: MONTH.sigma_month,
    "std_62": lambda: noise_std(MONTH),
    "spent_1": lambda: eps_of(math.sqrt(shared_mu2_so_far(1, MONTH)), DELTA),
    "spent_31": lambda: eps_of(math.sqrt(shared_mu2_so_far(31, MONTH)), DELTA),
    "spent_62": lambda: eps_of(math.sqrt(shared_mu2_so_far(62, MONTH)), DELTA),
    "longest_interval": lambda: longest_interval(30),
    "sensitivity2": lambda: MAU.sensitivity2,
    "stream_filter": lambda: list(MAU.filter),
    "stream_sigma": lambda: MAU.sigma,
    "stream_sigma_least": lambda: LEAST_SIGMA,
    "stream_slack": lambda: MAU.sigma / LEAST_SIGMA - 1,
    "stream_discreteness": lambda: gdp(MAU.sigma, MAU.filter[0]) * MAU.sigma / MAU.filter[0] - 1,
    "stream_std_first": lambda: noise_std(MAU, 1),
    "stream_std_ever": lambda: noise_std(MAU, 1000),
    "two_intervals": two_intervals,
    "eps_two_intervals": lambda: eps_of_stream(two_intervals()),
    "alternating": alternating,
    "eps_alternating": lambda: eps_of_stream(alternating()),
    "eps_short_window": lambda: eps_of_stream(four_visits_in_a_short_window()),
    "collision": lambda: 10**9 / 2**64,
    "collision_theta": lambda: 10**9 / 2**63 + 10**9 / 2**64,
    "sigma_03": lambda: independent_gaussian(0.3, DELTA).sigma,
    "sigma_05": lambda: independent_gaussian(0.5, DELTA).sigma,
    "sigma_3": lambda: independent_gaussian(3.0, DELTA).sigma,
    "delta_one_large": lambda: delta_counted([(independent_gaussian(3.0, DELTA).sigma, 1)], 3.0),
    "discrete_from": lambda: discrete_from(),
    "fits_gaussian_dau": lambda: gaussian_fit("dau"),
    "fits_gaussian_mau": lambda: gaussian_fit("mau"),
    "fits_laplace_dau": lambda: laplace_fit("dau"),
    "fits_laplace_mau": lambda: laplace_fit("mau"),
}


def discrete_from() -> float:
    """The sigma, in tenths, from which on a number is priced by the margin."""
    tenths = next(n for n in range(1, 1000) if independent_mu(n / 10) == DISCRETE_MARGIN / (n / 10))
    return tenths / 10


# --- The page's constants ----------------------------------------------------------------------------------------

MARKED = re.compile(r"(?P<value>`[^`]+`|[−\d.,e-]+)(?:\*\*)?<!--=(?P<name>\w+)-->")
FIGURE = re.compile(r"(?<![\w.])(?:\d+\.\d+(?:e-\d+)?|\d+e-\d+|\d{1,3}(?:,\d{3})+|\d{4,})(?![\w])")


def quoted() -> list[tuple[str, str]]:
    """Every (name, text) of a marked constant, in order."""
    return [(marked["name"], marked["value"].strip("`")) for marked in MARKED.finditer(PRIVACY)]


def agrees(text: str, value: object) -> bool:
    """Whether a text is this value, rounded to the digits that the text has."""
    if isinstance(value, list):
        return json.loads(text) == value
    assert isinstance(value, int | float)
    plain = text.replace(",", "").replace("−", "-").rstrip(".")
    mantissa, _, exponent = plain.partition("e")
    step = Fraction(10) ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(Fraction(plain) - Fraction(value)) <= step / 2


@pytest.mark.parametrize(("name", "text"), sorted(set(quoted())))
def test_a_constant_of_the_page_is_what_the_code_computes(name: str, text: str) -> None:
    assert agrees(text, CONSTANTS[name]()), f"{name}: the page says {text}, the code {CONSTANTS[name]()}"


def test_every_constant_that_is_computed_stands_on_the_page() -> None:
    assert {name for name, _ in quoted()} == set(CONSTANTS)


def test_no_figure_stands_on_the_page_without_its_computation() -> None:
    rest = re.sub(r"\[[^]]*\]\([^)]*\)", "", MARKED.sub("", PRIVACY))
    assert FIGURE.findall(rest) == []


@pytest.mark.parametrize(
    ("text", "value", "same"),
    [
        ("4.811", 4.8106, True),
        ("4.811", 4.8116, False),
        ("1e-6", 1e-6, True),
        ("1e-6", 1.6e-6, False),
        ("4,431,150", 4431150, True),
        ("4,431,150", 4431151, False),
        ("62", 62, True),
        ("[1, -2]", [1, -3], False),
    ],
)
def test_a_changed_constant_is_noticed(text: str, value: object, same: bool) -> None:
    assert agrees(text, value) is same


# --- Links, names, tests and commands ------------------------------------------------------------------------------

LINK = re.compile(r"\[(?P<label>[^]]*)\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PAGES = pytest.mark.parametrize("page", [README, HANDOFF, *DOCS], ids=lambda page: page.name)
# Where a path in backticks may begin; what it is short for lies in one of the folders.
FILE = re.compile(
    r"(?:dpdau_\w+|resources|sensors|eval|docs|tools|core|cli|ledger_sql|conformance|properties|support)/[\w/.-]+"
)
OF_OTHERS = {"pg_dump"}  # PostgreSQL's
FOLDERS = [PROJECT / name for name in ("", "dpdau_assets", "resources", "dpdau_tests")]


def defines(source: str, name: str) -> bool:
    return re.search(rf"^\s*(?:def|class) {name}\b|^{name}\b[^=\n]*=", source, re.MULTILINE) is not None


def words(page: Path) -> Iterator[str]:
    """What stands in backticks, blocks of code left out."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return iter(CODE.findall(text))


@PAGES
def test_every_relative_link_leads_somewhere_and_names_what_is_there(page: Path) -> None:
    lost = []
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        path, _, anchor = link["target"].partition("#")
        if "://" in link["target"]:
            continue
        target = (page.parent / path).resolve() if path else page
        name = link["label"].strip("`")
        is_lost = not target.exists() or (anchor != "" and anchor not in anchors(target))
        is_code = target.suffix == ".py" and name.isidentifier()
        if is_lost or (is_code and not defines(SOURCES[target], name)):
            lost.append(link[0])
    assert lost == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them, and those that are set by hand."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    of_headings = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return of_headings | set(re.findall(r'<a id="([^"]+)">', text))


@PAGES
def test_every_name_in_backticks_is_one_of_the_projects(page: Path) -> None:
    configuration = (PROJECT / "dagster.yaml").read_text(encoding="utf-8")
    known = set(re.findall(r"\w+", "\n".join([*SOURCES.values(), configuration]))) | OF_OTHERS
    asked = {word for word in words(page) if re.fullmatch(r"[A-Za-z]\w*_\w+", word)}
    assert {word for word in asked if word not in known} == set()
    tests = {word for word in asked if word.startswith("test_")}
    assert {word for word in tests if not any(defines(source, word) for source in SOURCES.values())} == set()


@PAGES
def test_every_file_and_command_in_backticks_is_there(page: Path) -> None:
    commands = set(getattr(get_command(app), "commands", {}))
    for word in words(page):
        if command := re.fullmatch(r"dpdau ([a-z][a-z-]*)\b.*", word):
            assert command[1] in commands, word
        if FILE.fullmatch(word):
            assert any((folder / word).exists() for folder in FOLDERS), word


@pytest.mark.parametrize("lemma", range(8))
def test_every_lemma_names_its_code_and_its_tests(lemma: int) -> None:
    (section,) = re.findall(rf"^## Lemma {lemma}\..*?(?=^## )", PRIVACY, re.MULTILINE | re.DOTALL)
    linked = [link["label"].strip("`") for link in LINK.finditer(section) if ".py" in link["target"]]
    assert [name for name in linked if name.startswith("test_")]
    assert [name for name in linked if not name.startswith("test_")]


def test_what_the_code_says_of_the_docs_is_there() -> None:
    for path, source in SOURCES.items():
        if path != Path(__file__):
            for page, lemma in re.findall(r"\b(docs/\w+\.md)(?:,\s+(lemma \d))?", source):
                assert (PROJECT / page).exists(), path
                heading = f"## {lemma.capitalize()}" if lemma else "# "
                assert heading in (PROJECT / page).read_text(encoding="utf-8"), path


def test_a_name_that_is_not_there_is_noticed() -> None:
    source = SOURCES[PROJECT / "dpdau_assets" / "core" / "privacy" / "mechanisms.py"]
    assert defines(source, "shared_noise")
    assert defines(source, "DISCRETE_MARGIN")
    assert not defines(source, "shared_nois")


# --- The pages and the rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [README, HANDOFF], ids=lambda page: page.name)
def test_the_first_pages_are_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 120


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    to_read = [README]
    while to_read:
        page = to_read.pop()
        reached.add(page)
        to_read += sorted(pages_linked_from(page) - reached)
    assert {page.name for page in DOCS if page not in reached} == set()


def pages_linked_from(page: Path) -> set[Path]:
    links = LINK.finditer(page.read_text(encoding="utf-8"))
    paths = {link["target"].partition("#")[0] for link in links if "://" not in link["target"]}
    return {(page.parent / path).resolve() for path in paths if path.endswith(".md")}


@dataclass(frozen=True)
class Rule:
    """A row of the table of rules: what is kept, by which module, and all links of the row as (label, target)."""

    name: str
    sources: list[str]
    owner: Path
    functions: list[tuple[str, Path]]
    tests: list[tuple[str, Path]]


def rules() -> list[Rule]:
    (section,) = re.findall(r"^## Rules and their owners$.*?(?=^## )", TABLE, re.MULTILINE | re.DOTALL)
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [rule_of(row) for row in rows[1:]]


def rule_of(row: list[str]) -> Rule:
    name, source, owner, functions, tests = row
    ((_, module),) = code_linked_in(owner)
    sources = [link["target"] for link in LINK.finditer(source)]
    return Rule(name, sources, module, code_linked_in(functions), code_linked_in(tests))


def code_linked_in(cell: str) -> list[tuple[str, Path]]:
    links = LINK.finditer(cell)
    return [(link["label"].strip("`"), (ARCHITECTURE.parent / link["target"]).resolve()) for link in links]


TABLE = ARCHITECTURE.read_text(encoding="utf-8")
RULES = rules()
OWNS = re.compile(r"Owns the rule: ([^.]+)\.")


def owned_by(source: str) -> list[str]:
    """The rules that a module's docstring says it owns."""
    return OWNS.findall(" ".join((ast.get_docstring(parsed(source)) or "").split()))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_has_a_source_and_an_owner_that_says_so_and_functions_there_and_tests(rule: Rule) -> None:
    assert rule.sources
    assert all(source.startswith("privacy.md#") for source in rule.sources)
    assert owned_by(SOURCES[rule.owner]) == [rule.name]
    assert rule.functions
    assert all(where == rule.owner and defines(SOURCES[where], name) for name, where in rule.functions)
    assert rule.tests
    assert all(name.startswith("test_") and defines(SOURCES[where], name) for name, where in rule.tests)


def test_there_are_ten_rules_at_least_each_of_a_module_of_its_own() -> None:
    assert len(RULES) >= 10
    assert len({rule.name for rule in RULES}) == len({rule.owner for rule in RULES}) == len(RULES)


def test_no_module_owns_a_rule_that_is_not_in_the_table() -> None:
    claimed = {(rule, path) for path, source in SOURCES.items() if path != Path(__file__) for rule in owned_by(source)}
    assert claimed == {(rule.name, rule.owner) for rule in RULES}


def test_an_owner_that_does_not_say_so_is_noticed() -> None:
    assert owned_by('"""Sets.\n\nOwns the rule: Nobody\ncomes back.\n"""') == ["Nobody comes back"]
    assert owned_by('"""Sets."""\n\n# Owns the rule: Nobody comes back.\n') == []


# --- What the proofs count out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1, 1.54, 2.5, 4.6, 6.4, 6.5, 12.99, 50])
def test_the_price_of_one_discrete_number_covers_its_whole_curve(sigma: float) -> None:
    """Lemma 0 for a shift of one: the steepest place of the curve is in the middle."""
    assert gdp(sigma) == pytest.approx(discrete_mu(sigma), rel=1e-9)
    middle = 2 * NORMAL.inv_cdf((1 + probabilities(sigma).max()) / 2)
    assert gdp(sigma) == pytest.approx(middle, rel=1e-9)


def test_the_discrete_noise_of_the_defaults_is_covered_by_the_curve_that_prices_it() -> None:
    assert MONTH.releases * gdp(MONTH.sigma_day) ** 2 + gdp(MONTH.sigma_month) ** 2 < MU_DAU**2
    for shift in (1, 180, 519, MAU.filter[0]):
        assert gdp(MAU.sigma, shift) < shift / LEAST_SIGMA


@pytest.mark.parametrize(("eps", "releases"), [(1.0, 31), (3.0, 28), (5.0, 62), (10.0, 31), (30.0, 62), (100.0, 31)])
def test_a_shared_month_keeps_its_delta_counted_out_exactly(eps: float, releases: int) -> None:
    month = shared_noise(releases, eps, DELTA)
    assert delta_counted([(month.sigma_day, releases), (month.sigma_month, 1)], eps) <= 0.999 * DELTA


def months_and_caps() -> list[tuple[int, int]]:
    """All of R from 28 to 62 at each cap from 1 to 20 in a soak, and fewer of them before."""
    releases = {"test": (28, 62), "ci": (28, 29, 30, 31, 45, 56, 58, 60, 62), "soak": tuple(range(28, 63))}[LENGTH]
    caps = (1, 4, 20) if LENGTH == "test" else range(1, 21)
    return [(cap, count) for cap in caps for count in releases]


@pytest.mark.also_long
@pytest.mark.parametrize(("cap", "releases"), months_and_caps())
def test_at_any_cap_and_month_the_exact_delta_is_below_that_of_the_price_and_the_price_within_the_cap(
    cap: int, releases: int
) -> None:
    """Lemmas 0 and 1: at the cap's ε, and at others, the noises' own δ against that of the μ that is charged."""
    month = shared_noise(releases, cap, DELTA)
    mu = math.sqrt(cost(month).mu2)
    assert mu <= mu_of(cap, DELTA)
    for eps in (cap / 3, cap, 1.3 * cap):
        exact = delta_counted([(month.sigma_day, releases), (month.sigma_month, 1)], eps)
        assert exact <= delta_of(mu, eps)
        assert eps != cap or exact < DELTA


def test_the_price_by_the_margin_was_not_covered_by_lemma_0_at_large_caps() -> None:
    """What the sum of m² of lemma 0 came to, with both parameters of a month larger by the margin alone."""

    def of_cap(eps: float, releases: int) -> float:
        kappa = (math.sqrt(releases) + 1) / mu_of(eps, DELTA) ** 2
        day, month = (DISCRETE_MARGIN * math.sqrt(variance) for variance in (math.sqrt(releases) * kappa, kappa))
        return (releases * gdp(day) ** 2 + gdp(month) ** 2) / mu_of(eps, DELTA) ** 2

    for releases, covered, uncovered in ((31, 3.35, 3.4), (28, 3.2, 3.25), (62, 4.7, 4.75)):
        assert of_cap(covered, releases) < 1 < of_cap(uncovered, releases)


@pytest.mark.parametrize("cap", [0.5, 1.0, 3.0, 3.5, 8.0])
@pytest.mark.parametrize("releases", [1, 2, 4, 8, 10, 35])
def test_independent_numbers_that_fill_a_cap_keep_its_delta_counted_out_exactly(cap: float, releases: int) -> None:
    each = mu_of(cap, DELTA) / math.sqrt(releases)
    low, high = 0.1, 2 / each
    for _ in range(60):  # the sigma of which so many numbers cost the whole cap
        middle = (low + high) / 2
        low, high = (middle, high) if independent_mu(middle) > each else (low, middle)
    assert independent_mu(high) == pytest.approx(each, rel=2e-3)
    assert delta_counted([(high, releases)], cap) <= DELTA


@pytest.mark.parametrize("window_days", sorted(STREAM_FILTERS))
def test_two_disjoint_intervals_never_cost_more_than_the_one_and_the_other(window_days: int) -> None:
    """Lemma 5, several months of one user: no pair of lengths and no gap has a positive product."""
    filter_, longest = STREAM_FILTERS[window_days], longest_interval(window_days)
    reach = len(filter_) - 1  # the response to an interval ends so many days after it
    step = np.cumsum([*filter_, *[0] * (3 * longest)])

    def responses(start: int) -> npt.NDArray[np.int64]:
        """D ∗ 1 of the intervals from `start` on, one row a length, until the filter has forgotten the longest."""
        days = np.arange(2 * longest + 2 * reach)
        lengths = np.arange(1, longest + 1)[:, None]
        up, down = days - start, days - start - lengths
        return np.where(up >= 0, step[np.maximum(up, 0)], 0) - np.where(down >= 0, step[np.maximum(down, 0)], 0)

    first = responses(0)
    for length in range(1, longest + 1):
        for gap in range(reach):
            assert (responses(length + gap) @ first[length - 1]).max() <= 0


@pytest.mark.parametrize("eps", [0.01, 0.3, 0.5, 1.0, 3.0, 10.0])
def test_the_rho_of_a_pure_number_bounds_every_order(eps: float) -> None:
    """Lemma 4: losses of ε and -ε, as of randomised response, have a Rényi divergence of at most α·ρ."""
    for order in (1.0001, 1.5, 2.0, 4.0, 16.0, 200.0):
        log_moment = np.logaddexp(eps + (order - 1) * eps, -(order - 1) * eps) - np.logaddexp(0, eps)
        assert log_moment / (order - 1) <= order * pure_rho(eps) * (1 + 1e-9)


def test_every_alert_has_its_line_in_the_runbook_and_on_the_page_of_messages() -> None:
    runbook, messages = ((PROJECT / "docs" / name).read_text() for name in ("runbook.md", "messages.md"))
    watched = {check.name for check in CHECKS if check.watched}
    for name in {*KINDS, OVERRIDDEN, "run_failed"}:
        assert f"`{name}`" in runbook and f"`{name}`" in messages, name
    assert all(f"`{name}`" in runbook for name in watched)


# --- What stands in the code --------------------------------------------------------------------------------------


def test_no_docstring_begins_with_words_that_need_another_one() -> None:
    """Hover text shows one alone."""
    docstrings = [
        (f"{path.relative_to(PROJECT)}: {getattr(node, 'name', 'module')}", ast.get_docstring(node) or "")
        for path, source in SOURCES.items()
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module)
    ]
    assert len(docstrings) > 1000
    assert [
        where for where, text in docstrings if re.match(r"(The same|Of|Those|As|It)\b(?! (long|soon) as)", text)
    ] == []


MODULES = {".".join(path.relative_to(PROJECT).with_suffix("").parts): source for path, source in SOURCES.items()}
PACKAGES = {name.removesuffix(".__init__") for name in MODULES if name.endswith(".__init__")}
FIRST_NAMES = {part for name in MODULES for part in name.split(".")}
DOTTED = re.compile(r"`([a-z_]\w*(?:\.\w+)+)`")
OF_FILES = ("csv", "duckdb", "html", "json", "jsonl", "lock", "parquet", "sqlite", "svg", "toml", "yaml", "yml")


def is_there(dotted: str) -> bool:
    """Whether a file, a module, or a name in a module is called so, or has a longer path that ends so."""
    if dotted.endswith(".py"):
        return any(f"/{path.relative_to(PROJECT)}".endswith(f"/{dotted}") for path in SOURCES)
    if any(f".{module}".endswith(f".{dotted}") for module in {*MODULES, *PACKAGES}):
        return True
    module, _, name = dotted.rpartition(".")
    named = [source for path, source in MODULES.items() if f".{path.removesuffix('.__init__')}".endswith(f".{module}")]
    return any(re.search(rf"\b{name}\b", source) for source in named)


def test_every_module_and_name_in_it_that_a_docstring_or_comment_has_in_backticks_is_there() -> None:
    said = {
        (str(path.relative_to(PROJECT)), dotted)
        for path, source in SOURCES.items()
        for dotted in DOTTED.findall(source)
        if dotted.partition(".")[0] in FIRST_NAMES and dotted.rpartition(".")[2] not in OF_FILES
    }
    assert len(said) > 10
    assert sorted((where, dotted) for where, dotted in said if not is_there(dotted)) == []


def test_a_module_that_is_not_there_is_noticed() -> None:
    assert all(map(is_there, ("core.events", "identity.user_key", "plant_faults.py", "core.reporting.checks")))
    assert not any(map(is_there, ("core.checking", "core.inspection.HOLDS_USER_DATA", "identity.no_such", "none.py")))
