"""Counting the distinct words of many windows in one pass, against uniting the days of each."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.facts import Keys
from dpdau_assets.core.sketches import sliding
from dpdau_assets.core.sketches.keysets import unite
from dpdau_assets.core.sketches.sliding import distinct_in_windows
from dpdau_tests.support.lengths import at_length

LAST = 2**64 - 1
# Alike in what makes room for the day, in what is left of them, at the edges of ranges, and as small as registers.
words = st.one_of(
    st.sampled_from([0, 1, 2**63, 2**63 - 1, LAST, LAST - 1]),
    st.integers(0, 40),
    st.builds(lambda high, low: (high << 56) | low, st.integers(0, 255), st.integers(0, 2)),
    st.integers(0, LAST),
)
days_of_words = st.lists(st.sets(words, max_size=12), max_size=40)


def arrays(days: Sequence[set[int]]) -> list[Keys]:
    return [np.array(sorted(day), dtype=np.uint64) for day in days]


def united(days: Sequence[Keys], window_days: int) -> list[int]:
    """The distinct words of each window, by uniting its days."""
    return [len(unite(days[max(0, end - window_days) : end])) for end in range(1, len(days) + 1)]


@settings(max_examples=at_length(test=100, ci=400, soak=5_000), deadline=None)
@given(days=days_of_words, window_days=st.integers(1, 12), at_once=st.integers(1, 60))
def test_each_window_has_as_many_words_as_the_union_of_its_days_however_few_are_held_at_once(
    days: list[set[int]], window_days: int, at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliding, "WORDS_AT_ONCE", at_once)
        assert distinct_in_windows(arrays(days), window_days) == united(arrays(days), window_days)


@pytest.mark.parametrize("window_days", [1, 7, 28, 30, 60, 90, 365])
def test_windows_of_every_length_are_counted_over_more_days_than_one_block_has(window_days: int) -> None:
    random = np.random.default_rng(window_days)
    everyone = np.unique(random.integers(0, LAST, 60, dtype=np.uint64))
    days = [np.unique(random.choice(everyone, random.integers(0, 6))) for _ in range(4 * window_days + 3)]
    assert distinct_in_windows(days, window_days) == united(days, window_days)


def test_no_day_has_no_window_and_days_without_anyone_have_windows_of_nobody() -> None:
    assert distinct_in_windows([], 30) == []
    assert distinct_in_windows(arrays([set()] * 5), 3) == [0] * 5


def test_days_are_asked_for_as_they_are_needed_and_let_go_of_when_their_block_is_done() -> None:
    """No more days are there at once than one block has, and the next."""
    given_out: list[weakref.ref[Keys]] = []
    alive: list[int] = []

    def days() -> Iterator[Keys]:
        for number in range(400):
            words = np.full(1, number, dtype=np.uint64)
            given_out.append(weakref.ref(words))
            alive.append(sum(day() is not None for day in given_out))
            yield words

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliding, "WORDS_AT_ONCE", 10)
        assert distinct_in_windows(days(), 30) == [min(day + 1, 30) for day in range(400)]
    assert max(alive) <= 12
