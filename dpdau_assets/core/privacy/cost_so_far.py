"""What the numbers of a mechanism run have cost a user-month once some of them are out, and not all. Display only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import assert_never

import numpy as np

from dpdau_assets.core.dates import month_end
from dpdau_assets.core.privacy.accounting import Cost, cost, total
from dpdau_assets.core.privacy.mechanisms import (
    Gaussian,
    Laplace,
    Mechanism,
    SharedNoise,
    Stream,
    shared_mu2,
    shared_mus,
)
from dpdau_assets.core.privacy.stream_filters import interval_cost_so_far


@dataclass(frozen=True)
class Published:
    """How much of one mechanism run is public, as seen from one month.

    `releases` counts its published numbers that read the month; `first_day` and `last_day` are those of the run.
    """

    mechanism: Mechanism
    releases: int
    first_day: date
    last_day: date


def cost_so_far(published: Iterable[Published], month: date) -> Cost:
    """What the published numbers have cost this user-month; at most what was charged for them."""
    return total(_cost_so_far(run, month) for run in published)


def _cost_so_far(run: Published, month: date) -> Cost:
    match run.mechanism:
        case SharedNoise():
            return Cost(mu2=shared_mu2_so_far(run.releases, run.mechanism))
        case Stream():
            return Cost(mu2=stream_mu2_so_far(run.mechanism, month, run.first_day, run.last_day))
        case Gaussian() | Laplace():
            return cost(run.mechanism).times(run.releases)
        case _:
            assert_never(run.mechanism)


def shared_mu2_so_far(published: int, mechanism: SharedNoise) -> float:
    """μ² of the first `published` numbers: the worst user, who is in j of them. Never more than the run's price.

    The numerators 2c + ξ_day + ξ_month have covariance σ_day² I + σ_month² 11ᵀ, and a user moves j of them by 2.
    Each sigma counts as that of the continuous noise which has the price of the discrete one.
    """
    if published == 0:
        return 0.0
    day2, month2 = (1 / mu**2 for mu in shared_mus(mechanism))
    j = np.arange(published + 1)
    worst = float((4 * (j / day2 - month2 * j**2 / (day2 * (day2 + published * month2)))).max())
    return min(worst, shared_mu2(mechanism))  # of all numbers it is the price itself, but for the last digit


def stream_mu2_so_far(mechanism: Stream, month: date, first_day: date, last_published: date) -> float:
    """μ² that a stream's outputs from `first_day` to `last_published` have cost one user-month; exact.

    The worst interval of days on which the user's month can change M: not before the month or the stream begins, and
    not after the last window that reads the month. 0 before any such day; the whole price from the filter's reach after
    it on, eight days for a 30-day window.
    """
    outputs = stream_outputs(mechanism, month, first_day, last_published)
    if outputs == 0:
        return 0.0
    return interval_cost_so_far(mechanism.filter, _reach(mechanism, month, first_day), outputs) / mechanism.sigma**2


def stream_outputs(mechanism: Stream, month: date, first_day: date, last_published: date) -> int:
    """How many of the outputs from `first_day` to `last_published` one user-month can have changed, tail included."""
    reach = _reach(mechanism, month, first_day)
    published = (last_published - max(month, first_day)).days + 1
    return max(0, min(published, reach + len(mechanism.filter) - 1)) if reach > 0 else 0


def output_sensitivity(mechanism: Stream) -> int:
    """The most by which one user-month changes a single u_t."""
    sums = np.cumsum([0, *mechanism.filter])
    return int(sums.max() - sums.min())


def _reach(mechanism: Stream, month: date, first_day: date) -> int:
    """Days from the first on which the month can change M to the last window that reads the month."""
    return (month_end(month) - max(month, first_day)).days + mechanism.window_days
