"""How a metric's users are counted: which public parameters, from the settings or from the last published number."""

from __future__ import annotations

from collections.abc import Sequence

from dpdau_assets.core.errors import BadSetting, ParameterNotSet
from dpdau_assets.core.ports.ledger import LedgerView
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import ESTIMATORS, estimator_from, public_parameters
from dpdau_assets.core.sketches.base import Estimator
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.sketches.hllpp import HllEstimator
from dpdau_assets.core.sketches.kmv import KmvEstimator
from dpdau_assets.core.sketches.theta import ThetaEstimator

_FOR_EXAMPLE = 1_000_000


def configured(metric: Metric, settings: Settings) -> Estimator | None:
    """The estimator that the settings name; None if they leave θ0, or the level, to the last published number.

    Raises BadSetting for a SKETCH_IMPL that is not there.
    """
    theta0, level = settings.theta0(metric), settings.level(metric)
    match settings.sketch_impl:
        case ThetaEstimator.kind:
            return None if theta0 is None else ThetaEstimator(theta0)
        case KmvEstimator.kind:
            return None if theta0 is None else KmvEstimator(settings.kmv_k, theta0)
        case HllEstimator.kind:
            return None if level is None else HllEstimator(settings.hll_registers, level)
        case ExactEstimator.kind:
            return ExactEstimator()
    raise _unknown(settings)


def suited_to(users: float, settings: Settings) -> Estimator:
    """The parameters with the least error for about so many users, of the configured kind and size."""
    match settings.sketch_impl:
        case ThetaEstimator.kind:
            return ThetaEstimator.for_users(users)
        case KmvEstimator.kind:
            return KmvEstimator.for_users(users, settings.kmv_k)
        case HllEstimator.kind:
            return HllEstimator.for_users(users, settings.hll_registers)
        case ExactEstimator.kind:
            return ExactEstimator()
    raise _unknown(settings)


def _unknown(settings: Settings) -> BadSetting:
    return BadSetting(f"SKETCH_IMPL={settings.sketch_impl}: no such sketch.", f"Set one of {', '.join(ESTIMATORS)}.")


def not_set(metrics: Sequence[Metric], settings: Settings) -> ParameterNotSet:
    """The error for first numbers of these metrics, of which nothing says how they are counted."""
    example = suited_to(_FOR_EXAMPLE, settings)
    if isinstance(example, HllEstimator):
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


def estimator_of(run: MechanismRun) -> Estimator:
    """How all numbers of this mechanism run are counted. It is fixed when the run is opened."""
    return estimator_from(run.parameters)


def estimators(ledger: LedgerView) -> dict[str, Estimator]:
    """How the numbers of each mechanism run are counted, by the run's name."""
    return {run.name: estimator_of(run) for run in ledger.mechanism_runs()}
