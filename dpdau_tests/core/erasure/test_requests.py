"""Requests: answered alike, guarded, confirmed, cancelled, in force; and what they do to DAU and MAU."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from itertools import count as count_up
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.dates import day_number, days_between, epoch_of, month_of, window
from dpdau_assets.core.erasure.receipts import apply, apply_and_verify, receipt
from dpdau_assets.core.erasure.requests import cancel, confirm, deadline, overdue, request
from dpdau_assets.core.erasure.retention import purge
from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.events import Event, Limits, Row, validate
from dpdau_assets.core.facts import RejectedRow
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.state import activity
from dpdau_assets.core.state.activity import day_version, discard_batch, process_days
from dpdau_assets.core.state.day_sketch import build_sketch, sketch_version
from dpdau_assets.core.state.limits import last_day
from dpdau_assets.core.state.touched import mark_touched, touched_days
from dpdau_assets.core.tombstones import Tombstones, excluded_until
from dpdau_tests.conftest import FixedClock, prepare, put, silent
from dpdau_tests.support.lengths import at_length
from resources.storage.seen_requests import SeenRequests

pytestmark = pytest.mark.every_sketch(since="soak")
Make = Callable[..., Store]
START = date(2025, 1, 1)
FIRST_MAU = date(2025, 1, 30)
DAYS = days_between(START, date(2025, 2, 10))
NUMBERS = count_up()  # so that no example asks for whom another has asked


def minus(user: str, through: date, *days: date) -> Event:
    return Event(user, "-", through, days)


def ten_people(store: Store) -> None:
    put(store, [(f"user {n}", day) for day in DAYS for n in range(10)])
    prepare(store, DAYS)


@pytest.fixture
def store(make_store: Make) -> Store:
    """Ten people on every day, without noise."""
    return silent(make_store(today=date(2025, 2, 12), recipe=ten_people))


@pytest.fixture
def published_once(store: Store) -> Store:
    """A MAU of 10."""
    publish("mau", FIRST_MAU, store)
    return store


def count(store: Store, day: date) -> int:
    keys = store.state.activity.read(day, day_number(day) // 90)
    return -1 if keys is None else len(keys)


# --- Requests ----------------------------------------------------------------------------------------------------


def test_someone_unknown_is_accepted_and_answered_as_anyone_is(store: Store) -> None:
    known, unknown = (request([minus(user, START)], store) for user in ("user 1", "nobody"))
    assert not known.parked and not unknown.parked and len(known.receipts) == len(unknown.receipts) == 1
    assert apply_and_verify(store).verified == 2
    assert {erasure.state for erasure in store.erasures.ledger.erasures()} == {"verified"}


def test_asking_twice_is_answered_with_the_same_receipts_one_a_row(store: Store) -> None:
    asked = [minus("user 1", START), minus("user 2", START), minus("user 1", START)]
    asked += [replace(asked[0], reference="T-1"), replace(asked[0], reference="T-1")]
    first = request(asked, store)
    assert len(set(first.receipts)) == 5 and first.references == (None, None, None, "T-1", "T-1")
    apply_and_verify(store)
    assert request(asked, store) == first and len(store.erasures.ledger.erasures()) == 5
    assert request([asked[0], asked[3]], store).receipts == (first.receipts[0], first.receipts[3])


def test_days_that_can_hold_nothing_are_passed_over_and_named_and_the_others_erased(store: Store) -> None:
    before = date(2024, 12, 30)
    done = request([minus("user 1", START, before, START), minus("user 2", START), minus("user 3", before)], store)
    assert done.passed_over == ((before,), (), (before,))
    assert [erasure.days for erasure in store.erasures.ledger.find(done.receipts)] == [(before, START), (), ()]
    assert apply_and_verify(store).verified == 3 and count(store, START) == 8
    assert request([minus("user 1", START, before, START)], store).receipts == done.receipts[:1]


def test_a_request_without_a_day_that_can_hold_something_is_applied_at_once_and_verified_like_any_other(
    store: Store,
) -> None:
    (name,) = request([minus("user 1", date(2024, 12, 31))], store).receipts
    assert [erasure.state for erasure in store.erasures.ledger.find([name])] == [
        "applied"
    ] and store.erasures.ledger.keys_of([name]) == {}
    assert apply_and_verify(store).verified == 1 and count(store, START) == 10
    document = receipt(name, store)
    assert (
        document["verified"]
        and not document["survivors"]
        and document["scope"] == {"through": "2024-12-31", "days": []}
    )
    assert "tombstone" not in {row["what"] for row in document["remains"]}
    assert store.accountant.problems() == []


def test_an_erasure_without_a_day_reaches_the_events_that_tomorrow_may_have(make_store: Make) -> None:
    store = make_store(today=date(2025, 2, 12))
    tomorrow = date(2025, 2, 13)
    asked = validate(Row("user 1", "-"), Limits(START, tomorrow, ZoneInfo("UTC")))
    assert isinstance(asked, Event)
    put(store, [("user 1", tomorrow), ("user 2", tomorrow)])
    request([asked], store)
    put(store, [("user 1", tomorrow)])
    assert apply_and_verify(store).verified == 1
    later = replace(store, clock=FixedClock(date(2025, 2, 14)))
    process_days([tomorrow], later)
    assert count(later, tomorrow) == 1


def test_on_a_months_last_day_an_erasure_without_a_day_holds_out_until_the_next_months_end(make_store: Make) -> None:
    last = make_store(today=date(2025, 2, 28))
    asked = validate(Row("user 1", "-"), Limits(START, last_day(last.clock), ZoneInfo("UTC")))
    assert isinstance(asked, Event)
    request([asked], last)
    stones = last.erasures.ledger.tombstones(epoch_of(START, 90))
    assert stones.excluded_until.tolist() == [day_number(date(2025, 3, 31))]


def test_whom_a_request_names_is_gone_from_the_quarantine_also_while_it_is_parked(store: Store) -> None:
    rows = [RejectedRow(f"exports/{name}.csv", 1, "No.") for name in ("user 1", "user 2", "user 22", "all")]
    kept = store.events.quarantine.keep(rows)
    publish("mau", FIRST_MAU, store)
    assert kept and request([minus(f"user {n}", START) for n in range(5)], store).parked
    (left,) = kept.parent.glob("*.csv")
    assert [row.split(",")[0] for row in left.read_text().splitlines()[1:]] == [
        "exports/user 22.csv",
        "exports/all.csv",
    ]


def test_the_quarantine_expires_when_events_come_when_erasures_are_verified_and_when_days_are_purged(
    store: Store,
) -> None:
    store = replace(store, settings=replace(store.settings, retention_days=36, quarantine_days=7))

    def purge_it(store: Store) -> object:
        with suppress(Refused):
            return purge(store)

    for act in (lambda store: put(store, [("a", START)]), apply_and_verify, purge_it):
        for age in (7, 8):
            kept = store.events.quarantine.keep([RejectedRow("e.csv", age, "No.")])
            written = datetime.combine(store.clock.today() - timedelta(days=age), time(12), UTC).timestamp()
            assert kept
            os.utime(kept, (written, written))
            act(store)
            assert kept.exists() is (age == 7)


def test_what_the_api_remembers_of_requests_goes_a_day_later_when_events_come_when_verified_and_when_purged(
    store: Store,
) -> None:
    store = replace(store, settings=replace(store.settings, retention_days=36))
    today, folder = store.clock.today(), store.settings.data_dir / "api"

    def purge_it(store: Store) -> object:
        with suppress(Refused):
            return purge(store)

    for act in (lambda store: put(store, [("a", START)]), apply_and_verify, purge_it):
        for day in (today - timedelta(days=2), today - timedelta(days=1), today):
            seen = SeenRequests(folder)
            seen.people_asked(day, "key", ["user 1"])
            seen.close()
        act(store)
        assert sorted(path.name for path in folder.iterdir()) == ["2025-02-11.sqlite", "2025-02-12.sqlite"]


def test_a_minus_event_is_a_request_like_any_other(store: Store) -> None:
    put(store, [("user 1", date(2025, 1, 9), "-"), ("user 2", date(2025, 1, 9), "-", (START, date(2025, 1, 5)))])
    scopes = {(erasure.through, erasure.days) for erasure in store.erasures.ledger.erasures(["received"])}
    assert scopes == {(date(2025, 1, 9), ()), (date(2025, 1, 5), (START, date(2025, 1, 5)))}
    apply_and_verify(store)
    assert [count(store, day) for day in DAYS[:10]] == [8, 9, 9, 9, 8, 9, 9, 9, 9, 10]


def test_the_guard_parks_a_batch_of_more_people_than_its_share_of_the_last_published_mau(store: Store) -> None:
    for day in days_between(FIRST_MAU, DAYS[-1]):
        publish("mau", day, store)  # 10, of which the guard lets a fifth through
    three = [minus(f"nobody {n}", START) for n in range(3)]
    assert request([*three[:2], *three[:2]], store).parked is False, "two people, asked for twice"
    parked = request(three[2:] + [minus(f"other {n}", START) for n in range(2)], store)
    assert parked.parked is True
    apply_and_verify(store)
    assert [erasure.state for erasure in store.erasures.ledger.find(parked.receipts)] == ["parked"] * 3
    again = request([minus(f"other {n}", START) for n in range(2)] + three[2:], store, confirmed=True)
    assert again.parked is False and set(again.receipts) == set(parked.receipts)
    assert apply_and_verify(store).verified == 3


@settings(max_examples=at_length(test=5, ci=20, soak=200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    share=st.sampled_from([Fraction(1, 10), Fraction(3, 10), Fraction(1, 2)]),
)
def test_a_submission_in_parts_is_parked_from_the_person_on_who_takes_the_running_number_past_the_limit(
    published_once: Store, sizes: list[int], share: Fraction
) -> None:
    """Each part says how many people came before it; 10 is the last published MAU."""
    guarded = replace(published_once, settings=replace(published_once.settings, erasure_guard_share=share))
    already = 0
    for size in sizes:
        part = [minus(f"nobody {next(NUMBERS)}", START) for _ in range(size)]
        done = request(part + part[:1], guarded, already=already)
        already += size
        assert done.parked is (already > 10 * share)
    whole = [minus(f"nobody {next(NUMBERS)}", START) for _ in range(already)]
    assert request(whole, guarded).parked is (already > 10 * share), "as one submission of all would be"


def test_what_is_in_force_stays_so_when_it_is_asked_for_again_past_the_limit(store: Store) -> None:
    publish("mau", FIRST_MAU, store)
    first = request([minus("user 1", START)], store)
    assert not first.parked and request([minus("user 1", START)], store, already=50) == first
    assert request([minus("user 2", START)], store, already=50).parked
    assert not request([minus("user 3", START)], store, confirmed=True, already=50).parked


def test_without_a_published_mau_there_is_nothing_to_guard_by(store: Store) -> None:
    assert request([minus(f"user {n}", START) for n in range(10)], store).parked is False


def test_a_single_person_is_never_parked_however_small_the_mau(store: Store) -> None:
    tiny = replace(store, settings=replace(store.settings, erasure_guard_share=Fraction(1, 1000)))
    publish("mau", FIRST_MAU, store)
    assert request([minus("user 1", START)], tiny).parked is False
    assert request([minus("user 2", START), minus("user 3", START)], tiny).parked is True


def test_a_parked_batch_takes_nobody_out_until_it_is_confirmed(store: Store) -> None:
    publish("mau", FIRST_MAU, store)
    parked = request([minus(f"user {n}", DAYS[-1]) for n in range(5)], store)
    assert parked.parked
    apply_and_verify(store)
    assert count(store, START) == 10
    assert {erasure.state for erasure in confirm(parked.batches, store.erasures)} == {"received"}
    apply_and_verify(store)
    assert count(store, START) == 5


def test_a_request_can_be_cancelled_until_it_is_applied(store: Store) -> None:
    first, second = request([minus("user 1", START), minus("user 2", START)], store).receipts
    assert [erasure.state for erasure in cancel([first], store.state, store.erasures)] == ["cancelled"]
    apply_and_verify(store)
    assert count(store, START) == 9
    with pytest.raises(Refused, match="is being applied or has been"):
        cancel([second], store.state, store.erasures)
    with pytest.raises(BadInput, match="No erasure has the receipt or batch nonsense"):
        cancel(["nonsense"], store.state, store.erasures)


def test_a_request_whose_application_was_cut_short_can_no_longer_be_cancelled(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = request([minus("user 1", DAYS[-1])], store).receipts

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(activity, "_rewritten", dies)
    with pytest.raises(KeyboardInterrupt):
        apply_and_verify(store)
    monkeypatch.undo()
    with pytest.raises(Refused, match="is being applied"):
        cancel([name], store.state, store.erasures)
    assert apply_and_verify(store).verified == 1


def test_a_request_that_came_while_others_were_applied_destroys_nothing_before_it_can_no_longer_be_cancelled(
    store: Store,
) -> None:
    """An accepted cancel would leave her taken out in part, and her MAU bit could change on two intervals."""
    late: list[str] = []
    real = store.erasures.ledger.begin_applying

    def begin_while_another_asks(watermark: int) -> None:
        real(watermark)
        late.extend(request([minus("user 2", DAYS[-1])], store).receipts)

    request([minus("user 1", DAYS[-1])], store)
    put(store, [("user 2", date(2025, 2, 11))])
    store.erasures.ledger.begin_applying = begin_while_another_asks  # type: ignore[method-assign]
    process_days(DAYS, store)
    store.erasures.ledger.begin_applying = real  # type: ignore[method-assign]
    assert {count(store, day) for day in DAYS} == {9}, "one is out, and two is not"
    assert [erasure.state for erasure in cancel(late, store.state, store.erasures)] == ["cancelled"]
    process_days([*DAYS, date(2025, 2, 11)], store)
    assert {count(store, day) for day in DAYS} == {9} and count(store, date(2025, 2, 11)) == 1


def test_a_request_that_came_while_the_inbox_was_folded_loses_no_event_if_it_is_cancelled(store: Store) -> None:
    late: list[str] = []
    real = store.events.inbox.read

    def read_while_another_asks(batches: list[str]) -> object:
        late.extend(request([minus("someone new", DAYS[-1])], store).receipts)
        return real(batches)

    put(store, [("someone new", day) for day in DAYS])
    store.events.inbox.read = read_while_another_asks  # type: ignore[method-assign, assignment]
    process_days(DAYS, store)
    store.events.inbox.read = real  # type: ignore[method-assign]
    cancel(late, store.state, store.erasures)
    process_days(DAYS, store)
    assert {count(store, day) for day in DAYS} == {11}


def test_a_request_that_is_not_verified_within_a_month_is_overdue(store: Store) -> None:
    (name,) = request([minus("user 1", START)], store).receipts
    (late_request,) = store.erasures.ledger.find([name])
    assert deadline(late_request) == date(2025, 3, 14)
    assert overdue(FixedClock(date(2025, 3, 14)), store.erasures) == []
    late = replace(store, clock=FixedClock(date(2025, 3, 15)))
    assert overdue(late.clock, late.erasures) == [late_request]
    apply_and_verify(late)
    assert overdue(late.clock, late.erasures) == []


def test_a_batch_that_was_not_folded_can_be_taken_back(store: Store) -> None:
    put(store, [("mistake", day) for day in DAYS])
    (batch,) = store.events.inbox.batches()
    discard_batch(batch, store.events, store.state)
    process_days(DAYS, store)
    assert [count(store, day) for day in DAYS] == [10] * len(DAYS)
    with pytest.raises(Refused, match=f"No batch {batch} waits"):
        discard_batch(batch, store.events, store.state)


# --- Touched days ------------------------------------------------------------------------------------------------


def test_just_the_days_that_held_the_person_are_marked_once_a_batch(store: Store) -> None:
    put(store, [("her", day) for day in DAYS[3:6]] + [("him", DAYS[8])])
    process_days(DAYS, store)
    request([minus("her", DAYS[4]), minus("him", DAYS[9]), minus("nobody", DAYS[20])], store)
    assert touched_days(0, store.erasures.ledger.recorded(), store.state, store.erasures) == {DAYS[3], DAYS[4], DAYS[8]}
    store.state.rebuilds.mark_reported(store.state.rebuilds.changed())
    apply(store)
    assert store.state.rebuilds.behind() == [(DAYS[3], 1), (DAYS[4], 1), (DAYS[8], 1)]
    request([minus("her", DAYS[4]), minus("her", DAYS[5])], store)
    apply(store)
    assert store.state.rebuilds.behind() == [(DAYS[3], 1), (DAYS[4], 1), (DAYS[5], 2), (DAYS[8], 1)]


def test_days_that_wait_for_dagster_when_a_receipt_says_verified_tell_nothing(store: Store) -> None:
    """If Dagster could not be told before: then all days wait, those that held her and those that did not."""
    put(store, [("her", day) for day in DAYS[3:6]])
    process_days(DAYS, store)
    request([minus("her", DAYS[4])], store)
    apply_and_verify(store)
    assert [day for day, _ in store.state.rebuilds.behind()] == DAYS and store.state.rebuilds.changed() == {}


def test_a_change_by_arrivals_that_dagster_was_not_told_of_is_a_mark_once_removals_are_applied(store: Store) -> None:
    """The change may be of those alone who are erased: it must not outlive the receipt that says nothing is left."""
    store.state.rebuilds.mark_reported(store.state.rebuilds.changed())
    put(store, [("her", DAYS[3])])
    process_days(DAYS, store)
    assert store.state.rebuilds.changed().keys() == {DAYS[3]}
    request([minus("her", DAYS[4])], store)
    apply(store)
    assert store.state.rebuilds.changed() == {} and [day for day, _ in store.state.rebuilds.behind()] == [DAYS[3]]


def test_a_day_that_is_built_claims_no_mark_of_a_request_that_is_not_applied_yet(store: Store) -> None:
    """The request came between the day's state and its sketch."""
    store.state.rebuilds.mark_reported(store.state.rebuilds.changed())
    request([minus("user 1", START)], store)
    process_days([START], store)
    request([minus("user 2", START)], store)
    with store.state.activity.lock():
        mark_touched(store)
    build_sketch(START, store)
    assert store.state.rebuilds.behind() == [(START, 2)]
    process_days([START], store)
    build_sketch(START, store)
    assert (store.state.rebuilds.behind(), count(store, START)) == ([], 8)


def test_with_every_day_marked_every_day_gets_another_version(store: Store) -> None:
    """Or those that keep theirs would tell which days held nobody of the batch."""
    everything = replace(store, settings=replace(store.settings, erasure_mark="all"))
    before = [version(day, everything) for version in (day_version, sketch_version) for day in DAYS]
    put(store, [("her", DAYS[3])])
    process_days(DAYS, everything)
    request([minus("her", DAYS[3])], everything)
    apply_and_verify(everything)
    after = [version(day, everything) for version in (day_version, sketch_version) for day in DAYS]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_with_every_day_marked_the_marks_tell_nothing(store: Store) -> None:
    everything = replace(store, settings=replace(store.settings, erasure_mark="all"))
    request([minus("nobody", START)], everything)
    apply_and_verify(everything)
    assert [day for day, _ in store.state.rebuilds.behind()] == DAYS


# --- DAU and MAU -------------------------------------------------------------------------------------------------


def test_activity_after_the_erasure_day_counts_in_dau_again(store: Store) -> None:
    request([minus("user 1", DAYS[5])], store)
    assert [publish("dau", day, store).noisy_value for day in DAYS[4:8]] == [9, 9, 10, 10]


def test_a_replayed_archive_does_not_bring_an_erased_user_back(store: Store) -> None:
    request([minus("user 1", DAYS[5])], store)
    apply_and_verify(store)
    put(store, [(f"user {n}", day) for day in DAYS for n in range(10)])
    process_days(DAYS, store)
    assert [count(store, day) for day in DAYS[4:8]] == [9, 9, 10, 10]


def test_an_erasure_takes_late_events_out_too(store: Store) -> None:
    publish("dau", START, store)
    put(store, [("late", START), ("her", START)])
    process_days([START], store)
    request([minus("her", START)], store)
    apply_and_verify(store)
    late = store.state.late.read(START, day_number(START) // 90)
    assert late is not None and len(late) == 1


SPAN = days_between(date(2025, 1, 1), date(2025, 6, 30))
WINDOWS = SPAN[29:]
Asked = list[tuple[int, set[int], int]]

# Few days, one removal, all around one month: here one thing can matter to another.
FEBRUARY = [(date(2025, 2, 1) - SPAN[0]).days + n for n in (-1, 0, 4, 9, 13, 19, 24, 27, 28)]
close = st.sampled_from(FEBRUARY)
small = st.tuples(
    st.sets(close, min_size=2, max_size=3),
    st.tuples(close, st.just(set()), close.map(lambda day: max(0, day - 29))).map(lambda removal: [removal]),
)
anywhere = st.integers(0, len(SPAN) - 1)
large = st.tuples(
    st.sets(anywhere, max_size=40),
    st.lists(st.tuples(anywhere, st.sets(anywhere, max_size=4), st.integers(0, len(WINDOWS) - 1)), max_size=4),
)
histories = st.one_of(small, large)
"""The days that she was there, and what she asked: through-day, listed days, and the window it came with."""


@pytest.mark.also_long
@settings(max_examples=at_length(test=60, ci=300, soak=3_000), deadline=None)
@given(history=histories, month=st.sampled_from([2, 1, 3, 4, 5, 6]))
def test_without_any_one_month_mau_changes_on_one_interval_of_at_most_60_days(
    history: tuple[set[int], Asked], month: int
) -> None:
    """The lemma behind the noise: one user, any history, any removals at any time, any month taken away."""
    active, asked = history
    whole = {SPAN[n] for n in active}
    rest = {day for day in whole if day.month != month}
    assume(whole != rest)
    stones = tombstones(asked)
    with_it, without_it = bits(whole, stones), bits(rest, stones)
    changes = [number for number, pair in enumerate(zip(with_it, without_it, strict=True)) if pair[0] != pair[1]]
    assert all(with_it[number] for number in changes), "always in the same direction"
    if changes:
        assert changes == list(range(changes[0], changes[-1] + 1)), "one interval"
        assert len(changes) <= 60


@pytest.mark.also_long
@settings(max_examples=at_length(test=60, ci=300, soak=3_000), deadline=None)
@given(
    history=histories,
    month=st.sampled_from([2, 1, 3, 4, 5, 6]),
    rotation=st.integers(60, 120),
    sampled=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_a_user_month_changes_a_sampled_stream_on_one_interval_whatever_the_salts(
    history: tuple[set[int], Asked], month: int, rotation: int, sampled: list[bool]
) -> None:
    """The sketch has her in its sample under some salt epochs, of 60 days or more, and not under others."""
    changes = sampled_changes(*history, month, rotation, sampled)
    if changes:
        assert changes == list(range(changes[0], changes[-1] + 1)) and len(changes) <= 60


def test_salts_of_less_than_60_days_would_change_a_sampled_stream_on_two_intervals() -> None:
    """Epochs of 30 days, of which every other one samples her."""
    first_and_last = {(day - SPAN[0]).days for day in (date(2025, 3, 1), date(2025, 3, 31))}
    changes = sampled_changes(first_and_last, [], 3, 30, [False, True] * 4)
    assert changes != list(range(changes[0], changes[-1] + 1))


def sampled_changes(active: set[int], asked: Asked, month: int, rotation: int, sampled: list[bool]) -> list[int]:
    """The windows in which her month shows; `sampled` by salt epoch, counted from the first one."""
    whole = {SPAN[n] for n in active}
    stones = tombstones(asked)
    pairs = zip(bits(whole, stones), bits({day for day in whole if day.month != month}, stones), strict=True)
    first = epoch_of(WINDOWS[0], rotation)
    return [
        number
        for number, (without_her, with_her) in enumerate(pairs)
        if without_her != with_her and sampled[epoch_of(WINDOWS[number], rotation) - first]
    ]


def tombstones(asked: Asked) -> Tombstones:
    """One row a through-day or listed day; each request is recorded when the window of its last number comes out."""
    rows = []
    for through, listed, when in asked:
        last = SPAN[max(listed)] if listed else SPAN[through]
        held, effective = day_number(excluded_until(last)), day_number(WINDOWS[when])
        rows += [(day_number(SPAN[day]), bool(listed), held, effective) for day in (listed or {through})]
    days, listed_days, held_days, effective_days = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Tombstones(
        np.full(len(rows), 7, dtype=np.uint64),
        np.array(days, dtype=np.int32),
        np.array(listed_days, dtype=bool),
        np.array(held_days, dtype=np.int32),
        np.array(effective_days, dtype=np.int32),
    )


def bits(active: set[date], stones: Tombstones) -> list[bool]:
    """Whether she is in M(t), for each window in order; a removal is in the state from its first window on."""
    counted = []
    for end in WINDOWS:
        known = in_force(end, stones)
        counted.append(any(counts(day, end, known, stones) for day in sorted(active.intersection(window(end, 30)))))
    return counted


def in_force(end: date, stones: Tombstones) -> Tombstones:
    by_then = stones.effective_from <= day_number(end)
    return Tombstones(
        stones.keys[by_then],
        stones.days[by_then],
        stones.listed[by_then],
        stones.excluded_until[by_then],
        stones.effective_from[by_then],
    )


def counts(day: date, end: date, known: Tombstones, stones: Tombstones) -> bool:
    return not len(known.removed_on(day)) and not len(stones.excluded_from_windows(day, end))


def test_held_out_to_the_day_alone_mau_would_change_on_two_intervals() -> None:
    """The rule is needed: ending the hold-out with the removal's own day lets her bit come back inside the month."""
    active = {date(2025, 2, 1), date(2025, 2, 25)}
    stones = tombstones([((date(2025, 2, 10) - SPAN[0]).days, set(), (date(2025, 2, 14) - WINDOWS[0]).days)])
    short = replace(stones, excluded_until=stones.days)
    rest = {day for day in active if month_of(day) != date(2025, 2, 1)}
    pairs = zip(bits(active, short), bits(rest, short), strict=True)
    changed = [number for number, (without_her, with_her) in enumerate(pairs) if without_her != with_her]
    assert changed != list(range(changed[0], changed[-1] + 1))
    pairs = zip(bits(active, stones), bits(rest, stones), strict=True)
    changed = [number for number, (without_her, with_her) in enumerate(pairs) if without_her != with_her]
    assert changed == list(range(changed[0], changed[-1] + 1))


@pytest.mark.every_sketch
def test_the_mau_of_an_erased_user_comes_back_with_the_next_month(store: Store) -> None:
    more = days_between(date(2025, 2, 11), date(2025, 3, 5))
    later = replace(store, clock=FixedClock(date(2025, 4, 1)))
    put(later, [("user 1", day) for day in more])
    prepare(later, more)
    request([minus("user 1", DAYS[-1])], later)
    numbers = [round(publish("mau", day, later).noisy_value) for day in days_between(FIRST_MAU, more[-1])]
    by_day = dict(zip(days_between(FIRST_MAU, more[-1]), numbers, strict=True))
    assert by_day[date(2025, 2, 11)] == by_day[date(2025, 2, 28)] == 9
    assert by_day[date(2025, 3, 1)] == 10
    assert publish("dau", date(2025, 2, 11), later).noisy_value == 1
    assert apply_and_verify(later).verified == 1
