"""The privacy label keeps to the registry's schema, and its numbers are the accountant's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from typing import Any

import pytest

from dpdau_assets.core.privacy.accounting import cost, epsilon_of, rho, total, zcdp_epsilon
from dpdau_assets.core.privacy.compositions import joint_epsilon
from dpdau_assets.core.privacy.mechanisms import mechanism_from_json
from dpdau_assets.core.privacy.schedule import mechanism_for, month_plan
from dpdau_assets.core.reporting.label import REGISTRY, label
from dpdau_assets.core.settings import Metric, Settings

DEFAULTS = Settings()
GAUSSIAN = replace(DEFAULTS, dau_mechanism="gaussian", mau_mechanism="gaussian", epsilon_mau=Fraction(3, 10))
PURE = replace(
    DEFAULTS, dau_mechanism="laplace", mau_mechanism="laplace", epsilon_dau=Fraction(1, 25), epsilon_mau=Fraction(1, 20)
)
MIXED = replace(DEFAULTS, dau_mechanism="laplace", epsilon_dau=Fraction(1, 25), restatements_per_month=0)
SKETCHED = replace(GAUSSIAN, sketch_impl="hllpp", dau_level=3)
ALL = pytest.mark.parametrize(
    "settings",
    [DEFAULTS, GAUSSIAN, PURE, MIXED, SKETCHED],
    ids=["default", "gaussian", "pure", "mix", "sketched"],
)
MONTH = date(2025, 1, 1)
PLACEHOLDER = re.compile(r"\{\{([A-Z_]+)\}\}")


# --- The registry's schema, as far as a record can break it ---------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A string; one of `allowed`, if there are any."""

    allowed: tuple[str, ...] = ()


NUMBER, TEXTS, DAY, TIER = "a number", "texts, one at least", "a day", "1, 2 or 3"

# opendp/deployments-registry-data, schemas/deployments-schema.yaml (MIT) at the commit that REGISTRY names: every field
# with what it takes; a star marks those that must be there. No other field is allowed anywhere. What the schema leaves
# open is taken as text.
SCHEMA: dict[str, Any] = {
    "url_slug*": Text(),
    "status*": Text(
        (
            "Converted",
            "Draft",
            "Pending",
            "Changes Required",
            "Approved",
            "Approved (Update Requested)",
            "Approved (Pending)",
        )
    ),
    "tier*": TIER,
    "deployment*": {
        "basic*": {
            "name*": Text(),
            "data_curators*": TEXTS,
            "intended_use*": Text(),
            "data_product_type*": Text(
                (
                    "Summary statistics",
                    "Machine learning model",
                    "Dataset",
                    "Synthetic data",
                    "Interactive API",
                    "SQL queries",
                )
            ),
            "data_product_region*": Text(),
            "description*": Text(),
            "publication_date*": DAY,
            "data_product_sector": Text(("Technology", "Healthcare", "Education", "Government", "Energy", "Finance")),
        },
        "dp_variant": {
            "variant_name": Text(("Pure DP", "Approximate DP", "Zero-concentrated DP", "Renyi DP", "Custom")),
            "data_domain": Text(),
            "unprotected_quantities": Text(),
        },
        "privacy_loss": {
            "privacy_unit": Text(),
            "privacy_unit_details": Text(),
            "privacy_parameters": {"epsilon": NUMBER, "delta": NUMBER, "rho": NUMBER},
            "privacy_parameters_details": Text(),
        },
        "deployment_model": {
            "model_name": Text(("Local", "Central", "Shuffle", "Federated", "Varies")),
            "model_name_details": Text(),
            "actors": Text(),
            "release_type": Text(("One release", "Many releases")),
            "release_type_details": Text(),
            "data_source_type": Text(("Static", "Dynamic")),
            "data_source_type_details": Text(),
            "access_type": Text(("Interactive", "Non-interactive")),
            "access_type_details": Text(),
        },
        "accounting": {"post_processing": Text(), "composition": Text()},
        "implementation": {
            "preprocessing_and_hyperparameter_tuning": Text(),
            "mechanisms": Text(),
            "justification": Text(),
        },
        "administrative": {"sources": Text(), "notes": Text(), "registry_authors*": TEXTS},
    },
}
OPERATORS_CHOICE = {"/deployment/basic/data_product_sector"}  # a fixed list that dpdau cannot choose from


def problems(value: object, wanted: Any, path: str = "") -> Iterator[str]:
    """What of a record the schema does not allow, and what it misses."""
    if isinstance(wanted, dict):
        names = {name.rstrip("*") for name in wanted}
        assert isinstance(value, dict)
        yield from (f"{path}/{name}: not a field" for name in value.keys() - names)
        yield from (f"{path}/{name[:-1]}: missing" for name in wanted if name.endswith("*") and name[:-1] not in value)
        for name, inner in wanted.items():
            if (plain := name.rstrip("*")) in value:
                yield from problems(value[plain], inner, f"{path}/{plain}")
    elif not is_allowed(value, wanted):
        yield f"{path}: {value!r}"


def is_allowed(value: object, wanted: Any) -> bool:
    if isinstance(wanted, Text):
        return isinstance(value, str) and value != "" and (not wanted.allowed or value in wanted.allowed)
    if wanted == TEXTS:
        return isinstance(value, list) and value != [] and all(isinstance(text, str) for text in value)
    if wanted == DAY:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    if wanted == TIER:
        return value in (1, 2, 3)
    return isinstance(value, int | float) and not isinstance(value, bool)


def leaves(wanted: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, inner in wanted.items():
        here = f"{path}/{name.rstrip('*')}"
        if isinstance(inner, dict) and name != "privacy_parameters":
            yield from leaves(inner, here)
        else:
            yield here


def at(record: dict[str, Any], path: str) -> object:
    for name in path.strip("/").split("/"):
        record = record.get(name, {})
    return record


def texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


# --- Shape -------------------------------------------------------------------------------------------------------


@ALL
def test_every_record_keeps_to_the_registrys_schema(settings: Settings) -> None:
    for record in label(settings)["records"].values():
        assert list(problems(record, SCHEMA)) == []


def test_the_check_of_the_schema_finds_what_is_wrong() -> None:
    record = json.loads(json.dumps(label(DEFAULTS)["records"]["dau"]))
    record["surprise"] = 1
    record["deployment"]["basic"]["data_product_type"] = "A song"
    record["deployment"]["administrative"].pop("registry_authors")
    assert sorted(problem.partition(":")[0] for problem in problems(record, SCHEMA)) == [
        "/deployment/administrative/registry_authors",
        "/deployment/basic/data_product_type",
        "/surprise",
    ]


@ALL
def test_every_field_of_every_tier_is_filled_but_the_operators_choice(settings: Settings) -> None:
    for record in label(settings)["records"].values():
        empty = {path for path in leaves(SCHEMA) if at(record, path) in ({}, "", [])}
        assert empty == OPERATORS_CHOICE


def test_what_only_the_operator_knows_is_a_placeholder_with_its_row() -> None:
    placeholders = set(PLACEHOLDER.findall(json.dumps(label(DEFAULTS)["records"])))
    assert placeholders == {"DATA_CURATOR", "DATA_PRODUCT_REGION", "REGISTRY_AUTHOR"}


def test_a_slug_is_made_as_the_registry_makes_it() -> None:
    slugs = {name: record["url_slug"] for name, record in label(DEFAULTS)["records"].items()}
    assert slugs["dau"] == "daily-active-users--data-curator--2025"
    assert len(set(slugs.values())) == 3


def test_the_label_is_plain_json_and_says_which_schema_it_follows() -> None:
    labels = label(DEFAULTS)
    assert json.loads(json.dumps(labels)) == labels
    assert labels["registry"] == dict(REGISTRY)


def test_no_text_has_what_the_registrys_checks_refuse() -> None:
    """A backslash is taken for LaTeX there, and a URL is read up to the next space or comma."""
    for text in texts(label(DEFAULTS)["records"]):
        assert "\\" not in text
        for url in re.findall(r'https?://[^ \t\n,;)"]+', text):
            assert re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5}", url)


def test_the_publication_date_is_the_slot_of_the_first_number() -> None:
    planned = label(DEFAULTS)["records"]
    assert planned["dau"]["deployment"]["basic"]["publication_date"] == "2025-01-03"  # 1 January, and a day of grace
    assert planned["mau"]["deployment"]["basic"]["publication_date"] == "2025-02-01"  # the first whole window
    published = label(DEFAULTS, {"dau": date(2025, 5, 1), "mau": date(2025, 4, 20)})["records"]
    assert published["dau"]["deployment"]["basic"]["publication_date"] == "2025-05-03"
    assert published["dau_and_mau"]["deployment"]["basic"]["publication_date"] == "2025-04-22"


# --- Numbers -----------------------------------------------------------------------------------------------------


def parameters(settings: Settings, name: str) -> dict[str, float]:
    labels = label(settings)
    inside = labels["records"][name]["deployment"]["privacy_loss"]["privacy_parameters"]
    assert inside.items() <= labels["facts"][name].items()
    return inside


@ALL
@pytest.mark.parametrize("metric", ["dau", "mau"])
def test_epsilon_and_delta_are_the_caps(settings: Settings, metric: Metric) -> None:
    bound = parameters(settings, metric)
    assert bound["epsilon"] == float(settings.cap(metric))
    assert bound.get("delta") == (None if settings.mechanism(metric) == "laplace" else settings.delta)


@ALL
@pytest.mark.parametrize("metric", ["dau", "mau"])
def test_no_month_costs_more_than_its_label_says(settings: Settings, metric: Metric) -> None:
    """All numbers that the schedule has for a month, priced by the accountant."""
    releases = month_plan(settings, metric, date(2025, 3, 1), settings.start_date).releases
    mechanism = mechanism_for(settings, metric, date(2025, 3, 1))
    whole = mechanism.name in ("gaussian_shared", "gaussian_stream")
    price = total([cost(mechanism)] if whole else [cost(mechanism)] * len(releases))
    bound = parameters(settings, metric)
    assert epsilon_of(price, settings.delta) <= bound["epsilon"] * (1 + 1e-12)
    assert rho(price) <= bound["rho"] * (1 + 1e-12)
    assert len(releases) == label(settings)["facts"][metric]["numbers_that_read_a_month"]


@ALL
def test_both_metrics_together_cost_what_the_accountant_says(settings: Settings) -> None:
    bound = parameters(settings, "dau_and_mau")
    assert bound["epsilon"] == joint_epsilon(settings)
    assert bound["rho"] == parameters(settings, "dau")["rho"] + parameters(settings, "mau")["rho"]
    assert bound["epsilon"] <= zcdp_epsilon(bound["rho"], settings.delta)


def test_the_defaults_are_those_of_the_contract() -> None:
    assert [round(parameters(DEFAULTS, name)["epsilon"], 3) for name in ("dau", "mau", "dau_and_mau")] == [
        3,
        3.5,
        4.811,
    ]


def test_all_pure_noise_is_labelled_pure_and_has_no_delta() -> None:
    for record in label(PURE)["records"].values():
        assert record["deployment"]["dp_variant"]["variant_name"] == "Pure DP"
        assert "delta" not in record["deployment"]["privacy_loss"]["privacy_parameters"]
    assert label(MIXED)["records"]["dau_and_mau"]["deployment"]["dp_variant"]["variant_name"] == "Approximate DP"


@ALL
@pytest.mark.parametrize("metric", ["dau", "mau"])
def test_the_mechanism_of_the_facts_is_the_one_that_is_charged(settings: Settings, metric: Metric) -> None:
    facts = label(settings)["facts"][metric]
    assert mechanism_from_json(facts["mechanism"]) == mechanism_for(settings, metric, MONTH)


def test_the_numbers_in_the_texts_are_those_of_the_settings() -> None:
    changed = replace(DEFAULTS, timezone="Europe/Berlin", restatement_day=9, grace_days=3, mau_mechanism="gaussian")
    both = label(changed)["records"]["dau_and_mau"]["deployment"]
    assert "(Europe/Berlin)" in both["privacy_loss"]["privacy_unit_details"]
    assert "at most 62 numbers" in both["privacy_loss"]["privacy_unit_details"]
    assert "at most 60 numbers" in both["privacy_loss"]["privacy_unit_details"]
    assert "day 9 of the next month" in both["deployment_model"]["release_type_details"]
    assert "4 day(s) after" in both["deployment_model"]["release_type_details"]
    once = label(replace(changed, restatements_per_month=0))["records"]["dau"]["deployment"]
    assert "at most 31 numbers" in once["privacy_loss"]["privacy_unit_details"]
    assert "next month" not in once["deployment_model"]["release_type_details"]


def test_a_label_says_which_sketch_counts_and_that_its_noise_is_on_a_statistic() -> None:
    sketched, exact = label(SKETCHED), label(GAUSSIAN)
    assert sketched["facts"]["dau"]["sketch_parameters"] == {"registers": 16384.0, "level": 3.0}
    assert sketched["facts"]["mau"]["sketch_parameters"] == exact["facts"]["dau"]["sketch_parameters"] == {}
    said, plain = (
        labels["records"]["dau"]["deployment"]["implementation"]["mechanisms"] for labels in (sketched, exact)
    )
    assert "counted by a sketch (hllpp)" in said and "its noise: standard deviation 12.99." in said
    assert "standard deviation 12.99 users" in plain and "sketch" not in plain
