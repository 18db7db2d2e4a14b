"""What is shown of a published number: the users that it stands for, with its interval."""

from __future__ import annotations

from dpdau_assets.core.budget.sketch_choice import estimator_of
from dpdau_assets.core.facts import Release
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import NoiseWidth, noise_width
from dpdau_assets.core.sketches.base import Estimator


def interval(release: Release, run: MechanismRun) -> dict[str, float | None]:
    """The number as drawn, in users, and for display the same and its 95 % bounds, none below 0.

    The bounds hold the noise's error and the sketch's. `noisy_statistic` is what the noise was added to; it is the
    number itself with the exact set.
    """
    return shown_in(estimator_of(run), release.noisy_value, noise_width(run.mechanism, release.half_width))


def shown_in(estimator: Estimator, noisy: float, noise: NoiseWidth) -> dict[str, float | None]:
    """What is shown of a noisy statistic that was counted so and whose noise is so wide, as of `interval`."""
    users = estimator.users(noisy)
    lower, upper = estimator.interval(noisy, noise)
    shown = {"estimate": users, "lower_95": lower, "upper_95": upper}
    rounded = {name: None if value is None else round(max(0.0, value), 3) for name, value in shown.items()}
    return {"noisy_value": users, **rounded, "noisy_statistic": noisy}
