"""Real event logs: state equals exact references on every day, and the noise of what is published is what it should be.

Nobody is erased here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from dpdau_assets.core.dates import days_between, epoch_of, month_days, month_of
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.mechanisms import shared_noise
from dpdau_assets.core.privacy.schedule import METRICS
from dpdau_assets.core.privacy.stream_filters import STREAM_FILTER
from dpdau_assets.core.publication.release import publish, read_alike
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_tests.conftest import SECRET, FixedClock, prepare
from dpdau_tests.eval.logs import COLLEGE, OULAD, counted, ingest_days, ingest_log, reference_of
from dpdau_tests.support.fast_folder import fast_folder
from dpdau_tests.support.lengths import LENGTH
from resources.store import open_store

Make = Callable[..., Store]


@pytest.mark.parametrize(
    ("name", "rotation", "part"),
    [
        (OULAD, 30, slice(1110, 1200)),
        (OULAD, 90, slice(1040, 1230)),
        (COLLEGE, 30, slice(None)),
        pytest.param(COLLEGE, 90, slice(None), marks=pytest.mark.slow),
        pytest.param(OULAD, 30, slice(None), marks=pytest.mark.slow),
        *([pytest.param(OULAD, 90, slice(None), marks=pytest.mark.slow)] if LENGTH == "soak" else []),
    ],
    ids=lambda given: f"{given.start}-{given.stop}" if isinstance(given, slice) else None,
)
def test_state_equals_the_reference_on_every_day_and_in_every_window(
    make_store: Make, name: str, rotation: int, part: slice
) -> None:
    dau, mau = reference_of(name)
    days = sorted(dau)[part]
    store = make_store(start_date=days[0], hash_salt_rotation_days=rotation)
    ingest_days(name, days, store)
    prepare(store, days)
    assert counted(days, store) == ({day: dau[day] for day in days}, {day: mau[day] for day in days[29:]})
    assert len({epoch_of(day, rotation) for day in days}) > 2  # windows did cross from one salt epoch into the next


def in_a_soak(test: Callable) -> Callable:
    """Marks a test that runs neither in `make test` nor in CI, where the audit asks this of fewer numbers."""
    return test if LENGTH == "ci" else pytest.mark.slow(test)


@pytest.fixture(scope="module")
def residuals() -> dict[str, dict[date, float]]:
    """noisy_value - exact of 730 days of both metrics, published through the main path with real noise."""
    days = sorted(reference_of(OULAD)[0])
    with fast_folder() as folder:
        settings = Settings(data_dir=folder, hash_salt_secret=SECRET, start_date=days[0])
        store = replace(open_store(settings), clock=FixedClock(date(2030, 1, 1)))
        ingest_log(OULAD, store)
        prepare(store, days)
        found: dict[str, dict[date, float]] = {"dau": {}, "mau": {}}
        for day in days_between(date(2012, 6, 1), date(2014, 5, 31)):
            for metric in METRICS:
                noisy = publish(metric, day, store).noisy_value
                key = ReleaseKey(metric, settings.window_days(metric), day)
                found[metric][day] = noisy - dict(read_alike([key], ExactEstimator(), store))[key]
        open_store.cache_clear()
    return found


@in_a_soak
def test_the_filter_applied_to_the_noise_of_mau_is_white_of_std_2830(residuals: dict[str, dict[date, float]]) -> None:
    series = np.array([residuals["mau"][day] for day in sorted(residuals["mau"])])
    white = np.convolve(series, STREAM_FILTER)[: len(series)]
    assert white.std() == pytest.approx(2830, rel=0.15)  # the std of 730 draws is known to 2.6 %: 5.7 times that
    assert abs(white.mean()) < 5 * 2830 / math.sqrt(len(white))
    neighbours = np.corrcoef(white[1:], white[:-1])[0, 1]
    assert abs(neighbours) < 5 / math.sqrt(len(white))


@in_a_soak
def test_daus_deviations_from_their_months_mean_have_the_std_of_the_days_noise(
    residuals: dict[str, dict[date, float]],
) -> None:
    deviations, standardised = [], []
    for month, values in by_month(residuals["dau"]).items():
        free = (values - values.mean()) * math.sqrt(len(values) / (len(values) - 1))
        deviations.extend(free)
        standardised.extend(free / (planned(month).sigma_day / 2))
    assert np.std(deviations) == pytest.approx(6.45, rel=0.15)
    assert np.std(standardised) == pytest.approx(1, rel=0.15)


@in_a_soak
def test_daus_month_means_agree_with_the_months_noise(residuals: dict[str, dict[date, float]]) -> None:
    """Each month's mean is ξ_month/2 and what is left of the days' noise: 24 of them, by a chi-square of 24."""
    squares = []
    for month, values in by_month(residuals["dau"]).items():
        noise = planned(month)
        variance = noise.sigma_month**2 / 4 + noise.sigma_day**2 / 4 / len(values)
        squares.append(values.mean() ** 2 / variance)
    assert len(squares) == 24
    assert 3.6 < sum(squares) < 74.2  # one correct run in a million falls outside
    # Without a noise of the month they would be smaller by far: the mean square would be 0.2, not 1.


@in_a_soak
def test_neither_series_is_biased(residuals: dict[str, dict[date, float]]) -> None:
    months = by_month(residuals["dau"])
    means = [values.mean() for values in months.values()]
    assert abs(float(np.mean(means))) < 5 * 2.6 / math.sqrt(len(means))
    mau = np.array(list(residuals["mau"].values()))
    assert abs(mau.mean()) < 5 * 3.88  # strongly correlated from day to day: no better bound without a model
    assert 2 < mau.std() < 7


def by_month(series: dict[date, float]) -> dict[date, np.ndarray]:
    months = sorted({month_of(day) for day in series})
    return {month: np.array([series[month + timedelta(days=n)] for n in range(month_days(month))]) for month in months}


def planned(month: date):
    return shared_noise(2 * month_days(month), 3.0, 1e-6)
