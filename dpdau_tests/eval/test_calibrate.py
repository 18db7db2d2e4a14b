"""The tuning of the stream's filters: what is shipped, how far it is from the proven limit, and that this is one."""

from __future__ import annotations

import importlib.util
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.privacy.mechanisms import mu_of, noise_std, stream
from dpdau_assets.core.privacy.stream_filters import STREAM_FILTERS, interval_sensitivity2, response_norm
from dpdau_tests.support.lengths import LENGTH, at_length
from dpdau_tests.support.project import PROJECT
from eval.calibrate import FOR_EVER, FREQUENCIES, main, optimum, report, std, tuned_filter

MU = mu_of(3.5, 1e-6)
REFERENCE = PROJECT.parent / "shared" / "reference" / "privacy_reference.py"

best = cache(optimum)


def interval_costs(spectrum: np.ndarray, longest: int) -> np.ndarray:
    """mean_w f_ℓ / S for each ℓ, as Σ over all pairs of days of the autocovariance of 1/S."""
    lags = np.arange(longest)
    covariance = np.array([(np.cos(lag * FREQUENCIES) / spectrum).mean() for lag in lags])
    pairs = covariance[np.abs(lags[:, None] - lags)]
    return np.cumsum(np.cumsum(pairs, axis=0), axis=1).diagonal()


# --- The limit ---------------------------------------------------------------------------------------------------


def test_the_limit_of_thirty_days_is_the_one_of_the_contract() -> None:
    assert best(60).limit / MU == pytest.approx(3.717, abs=5e-4)  # PRIVACY 3


@pytest.mark.parametrize("longest", [1, 30, 60, 90, 120])
def test_a_noise_reaches_the_limit_so_it_cannot_be_better(longest: int) -> None:
    found = best(longest)
    sensitivity2 = interval_costs(found.spectrum, longest).max()
    assert math.sqrt(sensitivity2 * found.spectrum.mean()) == pytest.approx(found.limit, rel=1e-7)
    assert 0 <= found.gap < 1e-8


@given(st.lists(st.floats(-0.3, 0.1), min_size=1, max_size=6), st.sampled_from([60, 90, 120]))
@settings(derandomize=LENGTH != "soak", max_examples=at_length(test=25, ci=100, soak=1_000), deadline=None)
@pytest.mark.also_long
def test_no_stationary_noise_passes_the_limit(weights: list[float], longest: int) -> None:
    spectrum = np.abs(np.polyval([*reversed(weights), 1.0], np.exp(-1j * FREQUENCIES))) ** -2 + 1e-3
    reached = math.sqrt(interval_costs(spectrum, longest).max() * spectrum.mean())
    assert reached >= best(longest).limit


@pytest.mark.parametrize("window_days", [30, 60, 90])
def test_the_limit_does_not_hang_on_the_grid(window_days: int) -> None:
    """A filter's spectrum on the grid gives its exact sensitivity and the norm of its response."""
    filter_ = STREAM_FILTERS[window_days]
    longest = 30 + window_days
    spectrum = np.abs(np.polyval(filter_[::-1], np.exp(-1j * FREQUENCIES))) ** -2.0
    exact = interval_sensitivity2(filter_, longest)
    assert interval_costs(spectrum, longest).max() == pytest.approx(exact, rel=1e-9)
    assert math.sqrt(spectrum.mean()) * filter_[0] == pytest.approx(response_norm(filter_, FOR_EVER), rel=1e-9)


# --- The filters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window_days", sorted(STREAM_FILTERS))
def test_the_filters_that_are_shipped_are_the_tuned_ones(window_days: int) -> None:
    assert tuned_filter(window_days, best(30 + window_days)) == STREAM_FILTERS[window_days]


@pytest.mark.parametrize(("window_days", "above"), [(30, 0.045), (60, 0.034), (90, 0.031)])
def test_a_tuned_filter_is_a_few_per_cent_above_the_limit_and_far_below_independent_noise(
    window_days: int, above: float
) -> None:
    longest = 30 + window_days
    for_ever = std(STREAM_FILTERS[window_days], longest, MU, FOR_EVER)
    assert 1 < for_ever / (best(longest).limit / MU) < 1 + above
    assert for_ever < 0.38 * math.sqrt(longest) / MU


@pytest.mark.parametrize(
    ("window_days", "more"),
    [
        (44, 0.0066),
        (45, -0.0015),
        (75, -0.0003),
        (120, 0.0124),
        pytest.param(180, 0.0405, marks=pytest.mark.slow),
        pytest.param(365, 0.148, marks=pytest.mark.slow),
    ],
)
def test_another_window_pays_this_much_for_a_filter_that_was_not_tuned_for_it(window_days: int, more: float) -> None:
    longest = 30 + window_days
    own = std(tuned_filter(window_days, best(longest)), longest, MU, FOR_EVER)
    assert noise_std(stream(window_days, 3.5, 1e-6), FOR_EVER) / own - 1 == pytest.approx(more, abs=1e-3)


@pytest.mark.slow
def test_up_to_a_hundred_and_twenty_days_the_shipped_filters_stay_close_to_the_limit() -> None:
    above = {
        window_days: noise_std(stream(window_days, 3.5, 1e-6), FOR_EVER) / (best(30 + window_days).limit / MU) - 1
        for window_days in (30, 37, 44, 45, 52, 60, 67, 74, 75, 90, 105, 120)
    }
    assert max(above, key=lambda days: above[days]) == 44
    assert above[44] == pytest.approx(0.061, abs=5e-4)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference calculation is not part of this repository")
@pytest.mark.parametrize("window_days", [60, pytest.param(90, marks=pytest.mark.slow)])
def test_the_shipped_filters_are_not_noisier_than_those_of_the_reference_calculation(window_days: int) -> None:
    spec = importlib.util.spec_from_file_location("privacy_reference", REFERENCE)
    assert spec and spec.loader
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    theirs, longest = reference.calibrate_stream(window_days), 30 + window_days
    sigma = math.sqrt(reference.stream_sensitivity2(theirs, longest)) / MU
    ours = noise_std(stream(window_days, 3.5, 1e-6), 20_000)
    assert ours <= 1.001 * reference.stream_std(theirs, sigma)


# --- The command -------------------------------------------------------------------------------------------------


def test_the_report_names_filter_sensitivity_stds_limit_and_independent_noise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["30"])
    said = capsys.readouterr().out
    for figure in ("(1024, -505, -126", "4,431,150", "2.764 on the first day", "3.884 for ever", "3.7169", "10.414"):
        assert figure in said
    assert "this filter" in said


def test_the_report_of_a_window_between_the_table_says_what_is_in_use() -> None:
    said = report(45)
    assert f"in use          {STREAM_FILTERS[60]}" in said
    assert "-0.15%" in said


def test_a_window_below_thirty_days_is_refused_with_the_reason() -> None:
    with pytest.raises(SystemExit, match="gaps inside a month"):
        main(["7"])
