"""What is due: the calendar's numbers in order, up to the first day that upstream has not declared complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete_all
from dpdau_assets.core.publication.due import due, overdue_days
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.publication.runs import DAU, MAU, RESTATEMENT, Step
from dpdau_tests.conftest import FixedClock, prepare, put
from dpdau_tests.support.lengths import at_length

START = date(2025, 1, 1)
FIRST_MAU = date(2025, 1, 30)

MakeStore = Callable[..., Store]


def at(day: date, store: Store) -> Store:
    return replace(store, clock=FixedClock(day))


def declared(store: Store, first: date, last: date) -> Store:
    complete_all(days_between(first, last), at(last + timedelta(days=1), store))
    return store


def test_a_day_is_due_when_its_whole_grace_has_passed_and_not_before(make_store: MakeStore) -> None:
    store = declared(make_store(today=date(2025, 1, 2)), START, START)
    assert due(store).numbers == ()
    assert due(at(date(2025, 1, 3), store)).numbers == (Step(DAU, START),)
    without = declared(make_store("hasty", today=date(2025, 1, 2), grace_days=0), START, START)
    assert due(without).numbers == (Step(DAU, START),)


def test_days_come_in_order_each_with_its_dau_and_mau_and_a_month_is_restated_on_its_day(
    make_store: MakeStore,
) -> None:
    store = declared(make_store(today=date(2025, 2, 8)), START, date(2025, 2, 6))
    numbers = due(store).numbers
    days = [step.day for step in numbers if step.kind == DAU]
    assert days == days_between(START, date(2025, 2, 6))
    assert [step.day for step in numbers if step.kind == MAU] == days_between(FIRST_MAU, date(2025, 2, 6))
    third = numbers.index(Step(DAU, date(2025, 2, 3)))
    assert set(numbers[third : third + 3]) == {
        Step(DAU, date(2025, 2, 3)),
        Step(MAU, date(2025, 2, 3)),
        Step(RESTATEMENT, START),
    }
    assert [step for step in numbers if step.kind == RESTATEMENT] == [Step(RESTATEMENT, START)]


def test_an_undeclared_day_is_waited_for_and_those_after_it_with_it(make_store: MakeStore) -> None:
    store = declared(make_store(today=date(2025, 1, 10)), START, date(2025, 1, 2))
    complete_all(days_between(date(2025, 1, 4), date(2025, 1, 8)), store)
    waiting = due(store)
    assert [step.day for step in waiting.numbers] == days_between(START, date(2025, 1, 2))
    assert waiting.unmarked == (date(2025, 1, 3),)
    assert overdue_days(waiting, store.settings, store.clock) == days_between(START, date(2025, 1, 2))


def test_only_what_was_never_built_is_missing(make_store: MakeStore) -> None:
    store = declared(make_store(today=date(2025, 1, 5)), START, date(2025, 1, 3))
    prepare(store, [date(2025, 1, 2)])
    assert due(store).missing == (START, date(2025, 1, 3))
    assert due(store).built == ()
    prepare(store, [START])
    assert due(store).built == (Step(DAU, START), Step(DAU, date(2025, 1, 2)))


def test_what_is_published_is_not_due_again(make_store: MakeStore) -> None:
    store = declared(make_store(today=date(2025, 1, 5)), START, date(2025, 1, 3))
    prepare(store, days_between(START, date(2025, 1, 3)))
    publish("dau", START, store)
    assert [step.day for step in due(store).numbers] == days_between(date(2025, 1, 2), date(2025, 1, 3))


def test_a_number_that_will_be_refused_is_named_and_holds_up_none_of_those_that_fit(make_store: MakeStore) -> None:
    store = make_store(today=date(2025, 1, 20))
    declared(store, START, date(2025, 1, 18))
    small = replace(store, settings=replace(store.settings, dau_mechanism="laplace"))
    waiting = due(small)
    assert [step.day for step in waiting.numbers] == days_between(START, date(2025, 1, 10))
    assert waiting.refused.startswith("dau of 2025-01-11 is refused")


def begun(store: Store) -> None:
    """A week is declared, and nothing is built."""
    declared(store, START, date(2025, 1, 7))
    put(store, [("somebody", START)])


HISTORIES = st.lists(st.tuples(st.sampled_from(days_between(START, date(2025, 1, 8))), st.booleans()), max_size=6)


numbers = count()


@pytest.mark.also_long
@settings(
    max_examples=at_length(test=6, ci=40, soak=200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=HISTORIES, published=st.integers(0, 6))
def test_what_is_due_is_the_same_with_and_without_any_one_user(
    make_store: MakeStore, history: list[tuple[date, bool]], published: int
) -> None:
    """`history` is hers: days on which she was active, before the days were built or after it."""
    both = []
    for name in ("without", "with"):
        store = make_store(f"{name} {next(numbers)}", today=date(2025, 1, 10), recipe=begun)
        hers = history if name == "with" else []
        put(store, [("she", day) for day, early in hers if early])
        prepare(store, days_between(START, date(2025, 1, 3)))
        put(store, [("she", day) for day, early in hers if not early])
        for day in days_between(START, date(2025, 1, 3))[:published]:
            publish("dau", day, store)
        both.append(due(store))
    assert both[0] == both[1]


def test_a_month_that_waits_for_its_day_is_due_even_if_nothing_else_is(make_store: MakeStore) -> None:
    days = days_between(date(2025, 1, 30), date(2025, 2, 3))
    store = make_store(today=date(2025, 2, 5), start_date=days[0], mau_mechanism="gaussian")
    complete_all(days, store)
    prepare(store, days)
    for day in days:
        publish("dau", day, store)
    assert Step(RESTATEMENT, START) in due(store).numbers
    restate(START, store)
    assert Step(RESTATEMENT, START) not in due(store).numbers


@pytest.mark.parametrize("days_down", [1, 5, 40])
def test_after_downtime_everything_that_is_due_comes_in_order(make_store: MakeStore, days_down: int) -> None:
    last = START + timedelta(days=days_down)
    store = declared(make_store(today=last + timedelta(days=2)), START, last)
    days = [step.day for step in due(store).numbers if step.kind == DAU]
    assert days == days_between(START, last)
