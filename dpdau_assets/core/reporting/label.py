"""The privacy label: what each published data set promises, for machines, in the shape of OpenDP's registry.

A record follows the registry's schema (`REGISTRY`), which allows no fields of its own; `facts` says the same as bare
numbers. What only the operator knows stands as a placeholder, which Placeholders.md explains.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from dpdau_assets.core.budget.sketch_choice import configured
from dpdau_assets.core.dates import first_window_end, months_read
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.privacy.mechanisms import (
    LONGEST_MONTH,
    Gaussian,
    Laplace,
    Mechanism,
    SharedNoise,
    Stream,
    longest_interval,
)
from dpdau_assets.core.privacy.schedule import METRICS, due_on, numbers_of_month
from dpdau_assets.core.reporting.promise import (
    LONG_MONTH,
    configured_mechanism,
    due_after_days,
    user_month_bound,
    widest_noise,
    with_largest,
)
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import public_parameters
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.version import VERSION

Record = dict[str, Any]

REGISTRY: Mapping[str, str] = MappingProxyType(
    {
        "repository": "https://github.com/opendp/deployments-registry-data",
        "commit": "3e9c812a924cf01d228f26f6c462c59c391c3f2a",
        "schema": "schemas/deployments-schema.yaml",
    }
)
NAMES: Mapping[Metric, str] = MappingProxyType({"dau": "Daily active users", "mau": "Monthly active users"})


def settings_on_record(ledger: LedgerView, settings: Settings) -> Settings:
    """The settings with the largest cap and δ that any published month has on record: what the label has to state.

    Raises Refused where numbers were published by another mechanism than is configured: one label cannot state both.
    """
    with ledger.snapshot() as snapshot:
        releases = snapshot.releases()
        for release in releases:
            if release.mechanism != settings.mechanism(release.key.metric):
                raise Refused(
                    f"{release.key.metric} of {release.key.day} was published by {release.mechanism}; "
                    f"{settings.mechanism(release.key.metric)} is configured.",
                    "Print the label with the settings that were in force, and state since when others are.",
                )
        caps: dict[Metric, list[Fraction]] = {metric: [] for metric in METRICS}
        deltas: list[float] = []
        for metric in METRICS:
            keys = [release.key for release in releases if release.key.metric == metric]
            for month in {month for key in keys for month in months_read(key.day, key.window_days)}:
                caps[metric].append(snapshot.cap(metric, month) or settings.cap(metric))
                deltas.append(snapshot.delta(metric, month) or settings.delta)
        return with_largest(settings, caps, deltas)


def label_on_record(ledger: LedgerView, settings: Settings) -> Record:
    """The label of what is published, and of what will be: under the settings, caps and δ that are on record.

    Raises Refused as `settings_on_record` does.
    """
    with ledger.snapshot() as snapshot:
        first: dict[Metric, date] = {
            metric: min(release.key.day for release in releases)
            for metric in METRICS
            if (releases := snapshot.releases(metric))
        }
        return label(settings_on_record(snapshot, settings), first)


def label_of(metric: Metric, whole: Record) -> Record:
    """What a label says of one metric, in the shape of the whole."""
    return {**whole, **{part: {metric: whole[part][metric]} for part in ("records", "facts")}}


def label(settings: Settings, first_published: Mapping[Metric, date] = MappingProxyType({})) -> Record:
    """The labels of DAU, of MAU and of both together, as plain values for JSON.

    `first_published` is the first day that each metric has a number of; for one that is not published yet, the first
    that it can have. Epsilon, delta and rho bound one user-month over all numbers ever published.
    """
    first = {metric: _first_due_on(metric, settings, first_published) for metric in METRICS}
    return {
        "registry": dict(REGISTRY),
        "records": {
            **{metric: _record((metric,), settings, first[metric]) for metric in METRICS},
            "dau_and_mau": _record(METRICS, settings, min(first.values())),
        },
        "facts": {
            **{metric: _facts(metric, settings) for metric in METRICS},
            "dau_and_mau": {"privacy_unit": "user-month", **_parameters(METRICS, settings)},
        },
    }


# --- Numbers -----------------------------------------------------------------------------------------------------


def _parameters(metrics: tuple[Metric, ...], settings: Settings) -> dict[str, float]:
    """Epsilon, delta and rho of a user-month with the caps used up; no delta where all noise is pure."""
    bound = user_month_bound(metrics, settings)
    delta = {} if bound.is_pure else {"delta": bound.delta}
    return {"epsilon": bound.epsilon, **delta, "rho": bound.rho}


def _is_pure(metrics: tuple[Metric, ...], settings: Settings) -> bool:
    return user_month_bound(metrics, settings).is_pure


def _facts(metric: Metric, settings: Settings) -> Record:
    """The facts of a month of 31 days, which has most numbers. Noise is in users, or units of a sketch's statistic."""
    mechanism = configured_mechanism(metric, settings)
    noise = widest_noise([mechanism])
    return {
        "privacy_unit": "user-month",
        **_parameters((metric,), settings),
        "mechanism": mechanism.to_json(),
        "window_days": settings.window_days(metric),
        "numbers_that_read_a_month": _numbers(metric, settings),
        "largest_change_of_a_count": 1,
        "largest_number_of_bit_flips": settings.w_bound if isinstance(mechanism, Stream) else None,
        "noise_std": noise.std,
        "half_width_95": noise.half_width_95,
        "sketch": settings.sketch_impl,
        "sketch_parameters": _parameters_of_sketch(metric, settings),
    }


def _parameters_of_sketch(metric: Metric, settings: Settings) -> dict[str, float]:
    """The parameters that are configured; none where they follow the last published number."""
    estimator = configured(metric, settings)
    return {} if estimator is None else {name: float(value) for name, value in public_parameters(estimator).items()}


def _numbers(metric: Metric, settings: Settings) -> int:
    return numbers_of_month(settings, LONG_MONTH) if metric == "dau" else longest_interval(settings.mau_window_days)


def _first_due_on(metric: Metric, settings: Settings, first_published: Mapping[Metric, date]) -> date:
    earliest = first_window_end(settings.start_date, settings.window_days(metric))
    return due_on(settings, first_published.get(metric, earliest))


# --- The record --------------------------------------------------------------------------------------------------


def _record(metrics: tuple[Metric, ...], settings: Settings, published: date) -> Record:
    basic = _basic(metrics, settings, published)
    return {
        "url_slug": _slug(basic),
        "status": "Draft",
        "tier": 3,
        "deployment": {
            "basic": basic,
            "dp_variant": {
                "variant_name": "Pure DP" if _is_pure(metrics, settings) else "Approximate DP",
                "data_domain": _DATA_DOMAIN,
                "unprotected_quantities": _UNPROTECTED,
            },
            "privacy_loss": _privacy_loss(metrics, settings),
            "deployment_model": {**_DEPLOYMENT_MODEL, "release_type_details": _schedule(metrics, settings)},
            "accounting": {
                "post_processing": " ".join([*(_POST_PROCESSING[metric] for metric in metrics), _SHOWN]),
                "composition": _composition(metrics, settings),
            },
            "implementation": {
                "preprocessing_and_hyperparameter_tuning": _TUNING,
                "mechanisms": "\n".join([*(_mechanism(metric, settings) for metric in metrics), _IMPLEMENTATION]),
                "justification": _JUSTIFICATION,
            },
            "administrative": {
                "sources": "\n".join(_SOURCES),
                "notes": f"Written by dpdau {VERSION} from its configuration.",
                "registry_authors": ["{{REGISTRY_AUTHOR}}"],
            },
        },
    }


def _privacy_loss(metrics: tuple[Metric, ...], settings: Settings) -> Record:
    adjacent = (
        f"Two data sets are adjacent if one user has events in one calendar month ({settings.timezone}) in one of them "
        "and none of these in the other, and everything else is equal, requests for removal included. The bound holds "
        "for each month, over all numbers ever published."
    )
    return {
        "privacy_unit": "User-month",
        "privacy_unit_details": " ".join([adjacent, *(_contribution(metric, settings) for metric in metrics)]),
        "privacy_parameters": _parameters(metrics, settings),
        "privacy_parameters_details": _parameters_in_words(metrics, settings),
    }


def _basic(metrics: tuple[Metric, ...], settings: Settings, published: date) -> Record:
    name = " and ".join(NAMES[metric] if metric == metrics[0] else NAMES[metric].lower() for metric in metrics)
    windows = {"dau": "on each day", "mau": f"in the {settings.mau_window_days} days that end on each day"}
    counted = " and ".join(windows[metric] for metric in metrics)
    return {
        "name": name,
        "data_curators": ["{{DATA_CURATOR}}"],
        "intended_use": "To follow how many people use a service, for planning and reporting.",
        "data_product_type": "Summary statistics",
        "data_product_region": "{{DATA_PRODUCT_REGION}}",
        "description": f"The number of distinct users who were active {counted}, each with a 95 % interval.",
        "publication_date": published.isoformat(),
    }


def _slug(basic: Record) -> str:
    """The record's name in URLs, as the registry's `scripts/update_slug.py` makes it."""
    parts = (basic["name"], "-".join(basic["data_curators"]), basic["publication_date"][:4])
    return "_".join(re.sub(r"\W+", "_", part.lower()) for part in parts).replace("_", "-")


def _contribution(metric: Metric, settings: Settings) -> str:
    if metric == "dau":
        return (
            f"DAU: the month changes each of at most {_numbers('dau', settings)} numbers by 0 or 1, always in the "
            "same direction; nobody's activity is cut off."
        )
    longest = longest_interval(settings.mau_window_days)
    if settings.mechanism("mau") == Stream.name:
        return f"MAU: the month changes the count by 1 on one interval of at most {longest} days, and nowhere else."
    return f"MAU: the month changes each of at most {longest} numbers by 0 or 1."


def _parameters_in_words(metrics: tuple[Metric, ...], settings: Settings) -> str:
    several = (
        "k months of one user cost at most k times epsilon: this is not user-level protection."
        if _is_pure(metrics, settings)
        else "k months of one user cost at most k times rho: this is not user-level protection."
    )
    return (
        "An upper bound, reached when the month's budget is used up. Epsilon is what all numbers together cost one "
        f"user-month; rho is the same cost as zero-concentrated DP. {several}"
    )


def _schedule(metrics: tuple[Metric, ...], settings: Settings) -> str:
    again = (
        ""
        if settings.restatements_per_month == 0 or "dau" not in metrics
        else (f" On day {settings.restatement_day} of the next month every DAU of a month is released once more.")
    )
    return (
        f"One number a day, {due_after_days(settings)} day(s) after the day that it is of.{again} The budget is one "
        "user-month's, for all that is ever published about it, and is never given back; a number is charged to each "
        "month that it reads, and refused if it does not fit."
    )


def _composition(metrics: tuple[Metric, ...], settings: Settings) -> str:
    if _is_pure(metrics, settings):
        return "Sequential composition: the epsilons of all numbers that read a month are added."
    pure = [metric for metric in metrics if settings.mechanism(metric) == Laplace.name]
    if pure:
        return "Rho of all numbers that read a month is added and converted as zero-concentrated DP, or epsilon is."
    return (
        "Fully adaptive composition of Gaussian noise: (sensitivity / standard deviation)² of all that reads a month "
        "is added and converted by the exact curve of the Gaussian mechanism (Balle and Wang 2018)."
    )


def _mechanism(metric: Metric, settings: Settings) -> str:
    mechanism = configured_mechanism(metric, settings)
    std = f"standard deviation {widest_noise([mechanism]).std:.2f}"
    noise = f"- {NAMES[metric]}: {_noise_in_words(mechanism)}"
    if settings.sketch_impl == ExactEstimator.kind:
        return f"{noise} Noise of a published number: {std} users."
    return (
        f"{noise} Users are counted by a sketch ({settings.sketch_impl}), one integer of which changes by at most 1 "
        f"with one user; its noise: {std}. The number of users is estimated from that noisy integer."
    )


def _noise_in_words(mechanism: Mechanism) -> str:
    match mechanism:
        case SharedNoise(releases, sigma_day, sigma_month):
            return (
                f"discrete Gaussian noise for each of a month's {releases} numbers (sigma {sigma_day:.4f}) and one "
                f"that they share (sigma {sigma_month:.4f}), on twice the count; for a month of {LONGEST_MONTH} days."
            )
        case Stream():
            return (
                f"discrete Gaussian noise (sigma {mechanism.sigma:.2f}) on an integer filter "
                f"{list(mechanism.filter)} of the counts, squared sensitivity {mechanism.sensitivity2}; "
                "the filter is inverted afterwards."
            )
        case Gaussian(sigma):
            return f"discrete Gaussian noise for each number (sigma {sigma:.4f})."
        case Laplace(epsilon):
            return f"discrete Laplace noise for each number (epsilon {float(epsilon):g})."


_DEPLOYMENT_MODEL: Mapping[str, str] = {
    "model_name": "Central",
    "model_name_details": "The curator keeps, for each day, the set of its users under keyed hashes.",
    "actors": "The curator and its operators, who hold the data and the noise and are trusted with them; readers of "
    "the published series, who are not trusted.",
    "release_type": "Many releases",
    "data_source_type": "Dynamic",
    "data_source_type_details": "New events arrive every day, and people can be erased from days that are published.",
    "access_type": "Non-interactive",
    "access_type_details": "A number is drawn once and stored; asking for it again returns the same one.",
}
_DATA_DOMAIN = (
    "Event logs of (user id, day), from which a set of users is kept for each day; and requests that take users out of "
    "days."
)
_UNPROTECTED = (
    "The configuration, and what follows from it alone: which numbers exist, when each is published, what it is "
    "charged, what is refused, the width of its interval but for a sketch's own error, which follows the published "
    "number. None of these is computed from people's data."
)
_SHOWN = (
    "Estimates and interval bounds below 0 are shown as 0. With a sketch, the estimate and its interval are computed "
    "from the noisy statistic and public parameters."
)
_TUNING = (
    "Budgets, schedule and noise are configured before the first number and computed from public constants; parameters "
    "of sketches are configured, or follow published numbers; none is tuned on data."
)
_JUSTIFICATION = (
    "Each mechanism has a written proof with its conditions, docs/privacy.md of dpdau, and tests that hold its "
    "constants to two independent computations."
)
_POST_PROCESSING: Mapping[Metric, str] = {
    "dau": "DAU: none.",
    "mau": "MAU: with stream noise, the filter is inverted from published numbers alone; else none.",
}
_IMPLEMENTATION = (
    "- OpenDP's exact samplers on integers, with the operating system's randomness; no floating point before the noise "
    "is added. Check, charge, draw and store are one transaction; the time of publication is a scheduled day. Raw "
    f"user ids are not stored. dpdau {VERSION}."
)
_SOURCES = (
    "- Noise with a shared part: https://arxiv.org/abs/2408.06853",
    "- The exact Gaussian curve: https://arxiv.org/abs/1805.06530",
    "- The discrete Gaussian: https://arxiv.org/abs/2004.00010",
    "- Fully adaptive composition: https://arxiv.org/abs/2210.17520",
    "- Zero-concentrated DP: https://arxiv.org/abs/1605.02065",
)
