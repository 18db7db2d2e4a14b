"""State is a two-phase set: whatever the order of events, removals, replays and restarts, the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.dates import days_between, epoch_of
from dpdau_assets.core.facts import DaySet
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.sketches.keysets import EMPTY
from dpdau_assets.core.state.activity import is_clean, process_days
from dpdau_tests.conftest import prepare, put
from dpdau_tests.support.lengths import at_length

START = date(2025, 3, 20)  # epoch 223 of 90 days ends on 27 March: days here have one epoch or two
DAYS = days_between(START, START + timedelta(days=9))
NAMES = count()
Make = Callable[..., Store]

day = st.sampled_from(DAYS)
arrival = st.tuples(st.sampled_from("abc"), day)
through = st.tuples(st.sampled_from("abc"), day, st.just("-"))
listed = st.tuples(st.sampled_from("abc"), day, st.just("-"), st.lists(day, min_size=1, max_size=3).map(tuple))
events = st.lists(st.one_of(arrival, arrival, arrival, through, listed), max_size=25)


def expected(history: list[tuple], name: date) -> set[str]:
    """The rule in words: a '+' on the day and no removal of it, ever."""
    here = {event[0] for event in history if len(event) == 2 and event[1] == name}
    gone = {event[0] for event in history if len(event) == 3 and event[1] >= name}
    gone |= {event[0] for event in history if len(event) == 4 and name in event[3]}
    return here - gone


def state_bytes(store: Store) -> dict[tuple[date, int], bytes]:
    folder = store.settings.data_dir / "activity"
    return {
        place: (folder / f"day={place[0]}" / f"epoch={place[1]}.parquet").read_bytes()
        for place in store.state.activity.stored()
    }


@pytest.mark.also_long
@settings(
    max_examples=at_length(test=8, ci=20, soak=200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=events, cuts=st.sets(st.integers(0, 24)))
def test_state_follows_the_rule_of_the_two_phase_set_in_any_batches(make_store: Make, history: list, cuts: set) -> None:
    store = make_store(f"store {next(NAMES)}", start_date=DAYS[0])
    for number, event in enumerate(history):
        put(store, [event])
        if number in cuts:
            prepare(store, DAYS)
    prepare(store, DAYS)
    for name, epoch in store.state.activity.stored():
        users = store.state.activity.read(name, epoch)
        assert users is not None and len(users) == len(expected(history, name))
    assert {name for name, _ in store.state.activity.stored()} == set(DAYS)
    assert store.events.inbox.batches() == []


@pytest.mark.also_long
@settings(
    max_examples=at_length(test=6, ci=12, soak=200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=events, order=st.randoms(use_true_random=False))
def test_order_and_replay_change_no_byte_of_the_state(make_store: Make, history: list, order) -> None:
    store = make_store(f"store {next(NAMES)}", start_date=DAYS[0])
    put(store, history)
    prepare(store, DAYS)
    before = state_bytes(store)
    shuffled = [*history]
    order.shuffle(shuffled)
    put(store, shuffled)
    prepare(store, DAYS)
    assert state_bytes(store) == before


def test_a_removal_that_came_first_stops_what_arrives_later(make_store: Make) -> None:
    store = make_store(start_date=START)
    put(store, [("her", DAYS[5], "-")])
    prepare(store, DAYS)
    put(store, [("her", day) for day in DAYS])
    prepare(store, DAYS)
    active = {day for day, epoch in store.state.activity.stored() if len(store.state.activity.read(day, epoch))}  # type: ignore[arg-type]
    assert active == set(DAYS[6:])


def test_a_batch_that_comes_while_the_inbox_is_folded_waits_for_the_next_fold(make_store: Make) -> None:
    store = make_store(start_date=START)
    real = store.events.inbox.read

    def read_while_another_comes(batches: list[str]) -> object:
        put(store, [("him", DAYS[0])])
        return real(batches)

    put(store, [("her", DAYS[0])])
    store.events.inbox.read = read_while_another_comes  # type: ignore[method-assign, assignment]
    process_days(DAYS[:1], store)
    store.events.inbox.read = real  # type: ignore[method-assign]
    assert len(store.events.inbox.batches()) == 1
    process_days(DAYS[:1], store)
    users = [store.state.activity.read(*place) for place in store.state.activity.stored()]
    assert [0 if keys is None else len(keys) for keys in users] == [2]
    assert store.events.inbox.batches() == []


def test_who_is_left_in_a_day_is_seen_in_its_state_and_among_its_late_events(make_store: Make) -> None:
    """She is brought back as by a copy from a backup."""
    last = DAYS[-1]
    store = make_store(start_date=START)
    put(store, [("her", last), ("her", last + timedelta(days=1))])
    process_days([last], store)
    hers = [
        DaySet(*place, keys)
        for place in store.state.activity.stored()
        if place[0] == last and (keys := store.state.activity.read(*place)) is not None
    ]
    put(store, [("her", last, "-")])
    process_days([last], store)
    assert hers and is_clean(last, store)
    for files in (store.state.activity, store.state.late):
        for brought_back in hers:
            files.replace([brought_back])
            assert not is_clean(last, store), files
            files.replace([DaySet(last, brought_back.epoch, EMPTY)])
            assert is_clean(last, store)


def test_every_processed_day_has_its_files_empty_ones_too(make_store: Make) -> None:
    store = make_store(start_date=START)
    prepare(store, DAYS)
    assert {day for day, _ in store.state.activity.stored()} == set(DAYS)


def test_a_day_without_anyone_is_keyed_under_each_epoch_whose_windows_reach_it(make_store: Make) -> None:
    store = make_store(start_date=START, hash_salt_rotation_days=30)
    days = days_between(START, START + timedelta(days=29))  # each place that a day can have in an epoch
    process_days(days, store)
    reached = {(day, epoch_of(day + timedelta(days=ahead), 30)) for day in days for ahead in range(30)}
    assert set(store.state.activity.stored()) == reached


def test_a_day_is_keyed_under_each_epoch_whose_windows_reach_it(make_store: Make) -> None:
    store = make_store(start_date=START, hash_salt_rotation_days=30)
    put(store, [("her", day) for day in DAYS])
    prepare(store, DAYS)
    for asked_day in DAYS:
        epochs = [epoch for day, epoch in store.state.activity.stored() if day == asked_day]
        keys = [store.state.activity.read(asked_day, epoch) for epoch in epochs]
        assert len(epochs) in (1, 2)
        assert len({int(day[0]) for day in keys if day is not None}) == len(epochs)  # another key under each
