"""How a metric's users are counted: which public parameters, from the settings or from the last published number."""

from __future__ import annotations

from collections.abc import Sequence

from dpdau_assets.core.errors import BadSetting, ParameterNotSet
from dpdau_assets.core.facts import Instance
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import COUNTINGS, counting_of_terms, public_parameters
from dpdau_assets.core.sketches.base import Counting
from dpdau_assets.core.sketches.exact import ExactCounting
from dpdau_assets.core.sketches.hllpp import HllCounting
from dpdau_assets.core.sketches.kmv import KmvCounting
from dpdau_assets.core.sketches.theta import ThetaCounting

_FOR_EXAMPLE = 1_000_000


def configured(metric: Metric, settings: Settings) -> Counting | None:
    """As the settings say; None if they leave θ0, or the level, to the last published number."""
    theta0, level = settings.theta0(metric), settings.level(metric)
    match settings.sketch_impl:
        case ThetaCounting.kind:
            return None if theta0 is None else ThetaCounting(theta0)
        case KmvCounting.kind:
            return None if theta0 is None else KmvCounting(settings.kmv_k, theta0)
        case HllCounting.kind:
            return None if level is None else HllCounting(settings.hll_registers, level)
        case ExactCounting.kind:
            return ExactCounting()
    raise _unknown(settings)


def suited_to(users: float, settings: Settings) -> Counting:
    """The parameters with the least error for about so many users, of the configured kind and size."""
    match settings.sketch_impl:
        case ThetaCounting.kind:
            return ThetaCounting.for_users(users)
        case KmvCounting.kind:
            return KmvCounting.for_users(users, settings.kmv_k)
        case HllCounting.kind:
            return HllCounting.for_users(users, settings.hll_registers)
        case ExactCounting.kind:
            return ExactCounting()
    raise _unknown(settings)


def _unknown(settings: Settings) -> BadSetting:
    return BadSetting(f"SKETCH_IMPL={settings.sketch_impl}: no such sketch.", f"Set one of {', '.join(COUNTINGS)}.")


def not_set(metrics: Sequence[Metric], settings: Settings) -> ParameterNotSet:
    """The error for first numbers of these metrics, of which nothing says how they are counted."""
    example = suited_to(_FOR_EXAMPLE, settings)
    if isinstance(example, HllCounting):
        parameter, value, twice = "LEVEL", str(example.level), "1 more"
    else:
        parameter, value, twice = "THETA0", str(public_parameters(example)["theta0"]), "half of it"
    names = [f"{metric.upper()}_{parameter}" for metric in metrics]
    return ParameterNotSet(
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not set, and no {' and no '.join(metrics)} is "
        f"published yet to choose by: SKETCH_IMPL={settings.sketch_impl} needs it.",
        f"Set it for the users that you expect: {value} for {_FOR_EXAMPLE:,}, {twice} for twice as many.",
        variables=names,
    )


def counting_of(instance: Instance) -> Counting:
    """How all numbers of this instance are counted. It is fixed when the instance is opened."""
    return counting_of_terms(instance.terms)


def countings(ledger: Ledger) -> dict[str, Counting]:
    """How the numbers of each instance are counted, by the instance's name."""
    return {instance.name: counting_of(instance) for instance in ledger.instances()}
