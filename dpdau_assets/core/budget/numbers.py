"""What is shown of a published number: the users that it stands for, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

from dpdau_assets.core.budget.sketch_choice import estimator_of
from dpdau_assets.core.facts import Release
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import NoiseWidth, noise_width
from dpdau_assets.core.sketches.base import Estimator


@dataclass(frozen=True)
class ShownNumber:
    """A published number in users: as drawn, and for display the same and its 95 % bounds, none below 0.

    The bounds hold the noise's error and the sketch's. `upper_95` is None where the sketch is full and nothing bounds
    the number from above. `noisy_statistic` is what the noise was added to; it is the number itself with the exact set.
    """

    noisy_value: float
    estimate: float
    lower_95: float
    upper_95: float | None
    noisy_statistic: float


def interval(release: Release, run: MechanismRun) -> ShownNumber:
    """What is shown of a release of this mechanism run."""
    return shown_in(estimator_of(run), release.noisy_value, noise_width(run.mechanism, release.half_width))


def shown_in(estimator: Estimator, noisy: float, noise: NoiseWidth) -> ShownNumber:
    """What is shown of a noisy statistic that was counted so and whose noise is so wide."""
    users = estimator.users(noisy)
    lower, upper = estimator.interval(noisy, noise)
    return ShownNumber(
        noisy_value=users,
        estimate=_for_display(users),
        lower_95=_for_display(lower),
        upper_95=None if upper is None else _for_display(upper),
        noisy_statistic=noisy,
    )


def _for_display(value: float) -> float:
    return round(max(0.0, value), 3)
