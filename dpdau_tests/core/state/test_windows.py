"""The statistics of many windows at once, against uniting the days of each: for every kind of sketch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from fractions import Fraction
from random import Random

import pytest

from dpdau_assets.core.dates import days_between, epoch_of, window
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, publish_in_order
from dpdau_assets.core.publication.runs import MAU, Step
from dpdau_assets.core.sketches import unite
from dpdau_assets.core.sketches.base import Estimator
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.sketches.hllpp import HllEstimator
from dpdau_assets.core.sketches.kmv import KmvEstimator
from dpdau_assets.core.sketches.theta import ThetaEstimator
from dpdau_assets.core.state.day_sketch import read_without, refresh
from dpdau_assets.core.state.windows import window_statistics
from dpdau_tests.conftest import prepare, put

FIRST, LAST, W = date(2025, 1, 1), date(2025, 3, 15), 30
DAYS = days_between(FIRST, LAST)
ENDS = DAYS[W - 1 :]
ROTATION = 60  # so that an epoch ends within
ESTIMATORS = [ExactEstimator(), ThetaEstimator(Fraction(1, 2)), KmvEstimator(40, Fraction(1, 2)), HllEstimator(64, 2)]
_choose = Random(7)
PEOPLE = [
    (f"user {_choose.randrange(150)}", DAYS[min(int(_choose.expovariate(0.03)), len(DAYS) - 1)]) for _ in range(300)
]
Make = Callable[..., Store]


def people(store: Store) -> None:
    """Some come again, fewer and fewer come; two are removed before any number is out, others after 20 of MAU."""
    put(store, PEOPLE)
    prepare(store, DAYS)
    put(store, [("user 1", date(2025, 2, 3), "-"), ("user 2", DAYS[-1], "-", (DAYS[3], DAYS[40]))])
    list(publish_in_order([Step(MAU, end) for end in ENDS[:20]], store))
    put(store, [("user 3", date(2025, 2, 25), "-"), ("user 1", date(2025, 3, 2), "-")])
    publish("mau", ENDS[20], store)  # which applies them


@pytest.fixture
def store(make_store: Make) -> Store:
    return make_store(today=LAST + timedelta(days=2), hash_salt_rotation_days=ROTATION, recipe=people)


def united(end: date, estimator: Estimator, store: Store) -> int:
    """One window by itself, day for day without those who are removed from it."""
    epoch = epoch_of(end, ROTATION)
    removed = store.erasures.ledger.tombstones(epoch)
    gone = {day: removed.excluded_from_windows(day, end) for day in window(end, W)}
    return estimator.statistic(unite([read_without(day, epoch, gone[day], estimator, store) for day in window(end, W)]))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.kind)
def test_windows_counted_together_are_each_counted_alone_across_epochs_and_removals(
    estimator: Estimator, store: Store
) -> None:
    assert len({epoch_of(end, ROTATION) for end in ENDS}) == 2
    with store.state.activity.lock():
        refresh(DAYS, store, estimator)
        together = window_statistics(ENDS, W, estimator, store)
        assert together == {end: united(end, estimator, store) for end in ENDS}
    assert len(set(together.values())) > 3


def test_ends_that_are_far_apart_are_counted_without_the_days_between_them(store: Store) -> None:
    ends, read = [ENDS[0], ENDS[2], ENDS[40]], set[date]()
    with store.state.activity.lock():
        refresh(DAYS, store, ExactEstimator())
        wanted = {end: united(end, ExactEstimator(), store) for end in ends}
        real = store.state.sketches.read

        def reading(day: date, epoch: int) -> object:
            read.add(day)
            return real(day, epoch)

        store.state.sketches.read = reading  # type: ignore[method-assign, assignment]
        assert window_statistics(ends, W, ExactEstimator(), store) == wanted
    assert read == {*window(ENDS[0], W), *window(ENDS[2], W), *window(ENDS[40], W)}


def test_one_new_day_costs_one_window(store: Store) -> None:
    read: list[date] = []
    real = store.state.sketches.read

    def reading(day: date, epoch: int) -> object:
        read.append(day)
        return real(day, epoch)

    store.state.sketches.read = reading  # type: ignore[method-assign, assignment]
    publish("mau", ENDS[21], store)
    assert sorted(read) == window(ENDS[21], W)
