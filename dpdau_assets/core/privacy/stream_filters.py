"""The integer filters of the rolling window's stream, and what they make of a user's interval and of the noise.

A filter is private at its own exact sensitivity, whatever it was tuned for: only the error depends on the tuning.
`python -m eval.calibrate WINDOW` tunes one and says how far its error is from the proven limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np

STREAM_FILTER = (1024, -505, -126, -64, -41, -30, -24, -22, -32)
"""The filter of a 30-day window, the default: the one that the privacy contract names."""

STREAM_FILTERS: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {
        30: STREAM_FILTER,
        60: (1024, -506, -126, -63, -39, -27, -21, -16, -13, -11, -10, -9, -8, -8, -7, -8, -14),
        90: (
            *(1024, -507, -126, -63, -39, -27, -20, -16, -13, -11, -9, -8, -7),
            *(-6, -6, -5, -5, -4, -4, -4, -4, -4, -4, -5, -9),
        ),
    }
)
"""Window in days to the filter tuned for it."""


def stream_filter(window_days: int) -> tuple[int, ...]:
    """The filter of the nearest window that has one; halfway, of the longer.

    Against a filter tuned for the very window by the same rule, the std in the long run is 0.2 % less at 45 days, the
    same at 75, 1.2 % more at 120, which is the most from 30 to 120; then 4.0 % at 180 and 15 % at 365. Up to 120 days
    it is at most 6.1 % (at 44) above the limit that no stationary Gaussian noise passes.
    """
    return STREAM_FILTERS[min(STREAM_FILTERS, key=lambda tuned: (abs(tuned - window_days), -tuned))]


def interval_sensitivity2(filter_: Sequence[int], longest: int) -> int:
    """The largest ‖filter ∗ 1_I‖² over intervals I of at most `longest` days, tail included; an exact integer."""
    lags = range(1, len(filter_))
    shared = [sum(a * b for a, b in zip(filter_, filter_[lag:], strict=False)) for lag in lags]
    own = sum(weight * weight for weight in filter_)

    def cost(days: int) -> int:
        return days * own + 2 * sum(max(0, days - lag) * shared[lag - 1] for lag in lags)

    return max(cost(days) for days in range(1, longest + 1))


def interval_cost_so_far(filter_: Sequence[int], days: int, outputs: int) -> int:
    """The largest ‖filter ∗ 1_I‖² over intervals I inside `days` days, seen in the first `outputs` days only."""
    step = np.cumsum(np.asarray(filter_, dtype=np.int64))
    lag = np.arange(outputs) - np.arange(days + 1)[:, None]
    since = np.where(lag >= 0, step[np.clip(lag, 0, len(step) - 1)], 0)  # row i: a bit that is 1 from day i on
    product = since @ since.T
    own = np.diag(product)
    return int((own[:, None] + own - 2 * product).max())  # an interval is one row minus a later one


@lru_cache(maxsize=64)
def impulse_response(filter_: tuple[int, ...]) -> tuple[float, ...]:
    """What one draw adds to the numbers from its own on, in shares of what it adds to its own.

    As many values as matter: the slowest response in the table is below 1e-50 long before they end.
    """
    response: list[float] = []
    for n in range(4096):
        past = zip(filter_[1:], reversed(response), strict=False)
        response.append(((n == 0) * filter_[0] - sum(weight * value for weight, value in past)) / filter_[0])
    return tuple(response)


@lru_cache(maxsize=4096)
def response_overlap(filter_: tuple[int, ...], day: int, later: int) -> float:
    """How much noise the number of `day`, counted from 1, has in common with the one `later` days after it.

    Times σ² / filter[0]² it is their covariance: Σ r_j r_(j+later) over the draws that the earlier one has, r being the
    impulse response.
    """
    response = impulse_response(filter_)
    return math.fsum(a * b for a, b in zip(response[:day], response[later:], strict=False))


def response_norm(filter_: tuple[int, ...], day: int) -> float:
    """‖first `day` values of the impulse response‖: what the noise so far adds up to."""
    return math.sqrt(response_overlap(filter_, day, 0))
