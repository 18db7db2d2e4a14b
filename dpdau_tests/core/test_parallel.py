"""Work ahead: in order, bounded, and with errors where they belong."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, current_thread, main_thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.parallel import made_ahead


@given(st.lists(st.integers(1, 5)), st.integers(1, 9))
def test_what_is_made_ahead_comes_in_order_and_waits_within_the_bound(sizes: list[int], most: int) -> None:
    made: list[int] = []

    def making() -> Iterator[int]:
        for size in sizes:
            made.append(size)
            yield size

    taken: list[int] = []
    for size in made_ahead(making(), lambda size: size, most):
        waiting = made[len(taken) + 1 : -1]  # the last may be in the making
        assert sum(waiting) <= most or len(waiting) <= 1
        taken.append(size)
    assert taken == sizes


def test_an_error_in_the_making_is_raised_where_it_is_waited_for() -> None:
    def making() -> Iterator[int]:
        yield 1
        raise ValueError("what happened")

    taken = []
    with pytest.raises(ValueError, match="what happened"):
        taken.extend(made_ahead(making(), lambda _: 1, 10))


def test_who_stops_early_leaves_no_thread_behind() -> None:
    ended = Event()

    def making() -> Iterator[int]:
        try:
            for number in range(1000):
                assert current_thread() is not main_thread()
                yield number
        finally:
            ended.set()

    items = made_ahead(making(), lambda _: 1, 3)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert ended.is_set()
