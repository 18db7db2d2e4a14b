"""Set operations on arrays of keys, against Python's sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.facts import Keys
from dpdau_assets.core.sketches import keysets

key_set = st.sets(st.integers(0, 2**64 - 1) | st.integers(0, 40), max_size=60)


def array(found: set[int]) -> Keys:
    return np.array(sorted(found), dtype=np.uint64)


@given(st.lists(key_set, max_size=6))
def test_a_union_is_the_union(sets: list[set[int]]) -> None:
    assert keysets.unite([array(found) for found in sets]).tolist() == sorted(set().union(*sets))


@given(key_set, key_set)
def test_a_difference_is_the_difference(one: set[int], other: set[int]) -> None:
    assert keysets.subtract(array(one), array(other)).tolist() == sorted(one - other)


@pytest.mark.parametrize("size", [1 << 17, pytest.param(1 << 19, marks=pytest.mark.slow)])
def test_a_large_union_in_ranges_equals_the_one_sort(size: int) -> None:
    random = np.random.default_rng(7)
    universe = np.unique(random.integers(0, 2**64, size, dtype=np.uint64))
    edges = np.array([0, 2**58 - 1, 2**58, 2**63, 2**64 - 1], dtype=np.uint64)
    days = [np.unique(np.concatenate([universe[random.random(len(universe)) < 0.5], edges])) for _ in range(5)]
    assert np.array_equal(keysets.unite(days), np.unique(np.concatenate(days)))


@given(key_set, key_set)
def test_a_digest_tells_sets_apart_and_nothing_else(one: set[int], other: set[int]) -> None:
    assert (keysets.digest(array(one)) == keysets.digest(array(other))) == (one == other)
