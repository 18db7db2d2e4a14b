"""How a metric's users are counted: which public parameters, from the settings or from the last published number."""

from __future__ import annotations

from collections.abc import Iterable

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.facts import Instance, Release
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import counting_of_terms
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
        case _:
            return ExactCounting()


def suited_to(users: float, settings: Settings) -> Counting:
    """The parameters with the least error for about so many users, of the configured kind and size."""
    match settings.sketch_impl:
        case ThetaCounting.kind:
            return ThetaCounting.for_users(users)
        case KmvCounting.kind:
            return KmvCounting.for_users(users, settings.kmv_k)
        case HllCounting.kind:
            return HllCounting.for_users(users, settings.hll_registers)
        case _:
            return ExactCounting()


def not_set(metric: Metric, settings: Settings) -> BadSetting:
    """The error for a first number of which nothing says how it is counted."""
    example = suited_to(_FOR_EXAMPLE, settings)
    of_level = isinstance(example, HllCounting)
    name = f"{metric.upper()}_{'LEVEL' if of_level else 'THETA0'}"
    value = example.level if of_level else getattr(example, "theta0", "")
    return BadSetting(
        f"{name} is not set, and no {metric} is published yet to choose it by: SKETCH_IMPL={settings.sketch_impl} "
        "needs it.",
        f"Set it for the users that you expect; for {_FOR_EXAMPLE:,} it is {value}, and "
        + ("1 more for twice as many." if of_level else "half of it for twice as many."),
        variables=[name],
    )


def counting_of(instance: Instance) -> Counting:
    """How all numbers of this instance are counted. It is fixed when the instance is opened."""
    return counting_of_terms(instance.terms)


def users_of(release: Release, instances: Iterable[Instance]) -> float:
    """The published number in users."""
    (instance,) = (one for one in instances if one.name == release.instance)
    return counting_of(instance).users(release.noisy_value)
