"""The table of filters: exact sensitivities computed in other ways, and what the proofs ask of a filter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.privacy.stream_filters import (
    STREAM_FILTER,
    STREAM_FILTERS,
    interval_cost_so_far,
    interval_sensitivity2,
    response_norm,
    stream_filter,
)

TABLE = [(window_days, filter_, 31 + window_days - 1) for window_days, filter_ in STREAM_FILTERS.items()]
SENSITIVITY2 = {30: 4_431_150, 60: 4_619_948, 90: 4_826_768}


def by_dynamic_programming(filter_: tuple[int, ...], longest: int) -> int:
    """The largest ‖filter ∗ bits‖² over every 0/1 pattern of `longest` days with at most two changes, tail included."""
    best = {((0,) * (len(filter_) - 1), 0): 0}  # (the last bits, newest first; changes so far): largest sum so far
    for day in range(longest + len(filter_) - 1):
        step: dict[tuple[tuple[int, ...], int], int] = {}
        for (past, changes), so_far in best.items():
            for bit in (0, 1) if day < longest else (0,):
                now = changes + (bit != past[0])
                if now <= 2:
                    output = sum(weight * active for weight, active in zip(filter_, (bit, *past), strict=True))
                    state = ((bit, *past[:-1]), now)
                    step[state] = max(step.get(state, 0), so_far + output**2)
        best = step
    return max(best.values())


@pytest.mark.parametrize(("window_days", "filter_", "longest"), TABLE)
def test_the_sensitivity_is_that_of_every_pattern_with_two_changes(
    window_days: int, filter_: tuple[int, ...], longest: int
) -> None:
    exact = interval_sensitivity2(filter_, longest)
    assert exact == by_dynamic_programming(filter_, longest) == SENSITIVITY2[window_days]
    assert type(exact) is int


FILTERS = st.lists(st.integers(-2000, 2000), min_size=1, max_size=12)


@given(FILTERS, st.integers(1, 40))
@settings(derandomize=True, max_examples=200, deadline=None)
def test_the_sensitivity_of_any_filter_is_that_of_the_plain_convolutions(filter_: list[int], longest: int) -> None:
    plain = max(int((np.convolve(filter_, np.ones(days, dtype=int)) ** 2).sum()) for days in range(1, longest + 1))
    assert interval_sensitivity2(filter_, longest) == plain


@given(FILTERS, st.integers(1, 40))
@settings(derandomize=True, max_examples=100, deadline=None)
def test_with_every_output_seen_the_cost_so_far_is_the_sensitivity(filter_: list[int], days: int) -> None:
    whole = interval_sensitivity2(filter_, days)
    assert interval_cost_so_far(filter_, days, days + len(filter_) - 1) == whole
    assert interval_cost_so_far(filter_, days, days) <= whole


@pytest.mark.parametrize(("window_days", "filter_", "longest"), TABLE)
def test_no_filter_of_the_table_correlates_with_itself_on_a_later_day(
    window_days: int, filter_: tuple[int, ...], longest: int
) -> None:
    """Disjoint intervals have filtered products of 0 or less, and k months cost at most k times one."""
    correlation = np.correlate(filter_, filter_, "full")[len(filter_) :]
    assert correlation.max() < 0
    for months in (2, 3, 6, 12):
        assert interval_sensitivity2(filter_, 31 * months + window_days - 1) < months * SENSITIVITY2[window_days]


@pytest.mark.parametrize(("window_days", "filter_", "longest"), TABLE)
def test_the_noise_of_a_stream_forgets_its_beginning(window_days: int, filter_: tuple[int, ...], longest: int) -> None:
    assert np.abs(np.roots(filter_)).max() < 0.97
    assert response_norm(filter_, 4096) == pytest.approx(response_norm(filter_, 1500), rel=1e-14)
    assert response_norm(filter_, 1) == 1.0


@pytest.mark.parametrize(
    ("window_days", "tuned"),
    [(30, 30), (31, 30), (44, 30), (45, 60), (60, 60), (74, 60), (75, 90), (90, 90), (120, 90), (365, 90)],
)
def test_a_window_takes_the_filter_of_the_nearest_in_the_table_and_halfway_the_longer(
    window_days: int, tuned: int
) -> None:
    assert stream_filter(window_days) == STREAM_FILTERS[tuned]


def test_the_filter_of_thirty_days_is_the_one_of_the_contract() -> None:
    assert stream_filter(30) == STREAM_FILTER == (1024, -505, -126, -64, -41, -30, -24, -22, -32)  # PRIVACY 3
