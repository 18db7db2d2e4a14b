"""The main path on real adapters: sealed, in order, charged once, drawn once."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from fractions import Fraction
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.budget import verification
from dpdau_assets.core.budget.planning import Plan, enter, new_run
from dpdau_assets.core.dates import days_between, epoch_of, month_end, month_of, window
from dpdau_assets.core.errors import BudgetRefused, Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.accounting import Budget, admits, charges_for_release
from dpdau_assets.core.privacy.mechanisms import SharedNoise, SharedNoiseByMargin, mu_of, shared_mu2
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answers import release_answer
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.activity import process_days
from dpdau_assets.core.state.day_sketch import refresh
from dpdau_tests.conftest import SECRET, prepare, put, silent
from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.racing import race
from resources.store import open_store

START = date(2025, 1, 1)
LAST = START + timedelta(days=74)
FIRST_MAU = date(2025, 1, 30)
ARCHIVE = [(f"user {n % 17}", START + timedelta(days=n % 75)) for n in range(400)]
Make = Callable[..., Store]
HISTORIES = count()


def after(day: date, days: int) -> date:
    return day + timedelta(days=days)


def days_without_anyone(store: Store) -> None:
    """Every day has its state and its sketch."""
    prepare(store, days_between(START, LAST))


def an_archive(store: Store) -> None:
    """Seventeen people come on one day or another."""
    put(store, ARCHIVE)
    prepare(store, days_between(START, LAST))


@pytest.fixture
def store(make_store: Make) -> Store:
    return make_store(recipe=an_archive)


def test_asking_two_hundred_times_gives_one_number_and_one_ledger_row(store: Store) -> None:
    answers = {publish("dau", START, store).noisy_value for _ in range(200)}
    assert len(answers) == 1
    assert len(store.accountant.releases()) == 1
    assert len(store.accountant.charges("dau", START)) == 1


def test_a_published_number_is_not_drawn_again_after_a_restart(store: Store, make_store: Make) -> None:
    first = publish("dau", START, store)
    assert publish("dau", START, make_store()) == first


def test_two_stores_with_the_same_events_publish_different_numbers(make_store: Make) -> None:
    days = days_between(START, after(START, 9))
    series = []
    for name in ("one", "two"):
        store = make_store(name)
        put(store, [("user", START)])
        prepare(store, days)
        series.append([publish("dau", day, store).noisy_value for day in days])
    assert series[0] != series[1]  # ten equal pairs of draws of std 6.9 by chance: below 1e-12


def test_days_of_mau_follow_one_another_and_none_is_skipped(store: Store) -> None:
    publish("mau", FIRST_MAU, store)
    with pytest.raises(Refused, match="2025-02-01 does not follow"):
        publish("mau", after(FIRST_MAU, 2), store)
    assert publish("mau", after(FIRST_MAU, 1), store).key.day == after(FIRST_MAU, 1)


def test_days_before_the_first_published_mau_are_refused(store: Store) -> None:
    publish("mau", after(FIRST_MAU, 5), store)
    with pytest.raises(Refused, match="does not follow"):
        publish("mau", FIRST_MAU, store)


def test_a_mau_whose_window_begins_before_start_date_is_refused(store: Store) -> None:
    with pytest.raises(Refused, match=f"from {FIRST_MAU} on"):
        publish("mau", after(FIRST_MAU, -1), store)


def test_a_day_that_has_not_ended_is_refused(make_store: Make) -> None:
    with pytest.raises(Refused, match="has not ended"):
        publish("dau", START, make_store(today=START))


def test_a_release_without_state_is_refused_and_leaves_nothing(make_store: Make) -> None:
    store = make_store()
    with pytest.raises(Refused, match="no state"):
        publish("dau", START, store)
    assert store.accountant.sealed() == frozenset()
    assert store.accountant.releases() == []


@pytest.mark.parametrize("she_was_active", [True, False])
def test_a_day_that_nobody_asked_for_is_refused_whether_or_not_someone_was_active(
    make_store: Make, she_was_active: bool
) -> None:
    store = make_store()
    put(store, [("bob", START), *([("her", after(START, 1))] if she_was_active else [])])
    prepare(store, [START])  # folds the whole inbox
    with pytest.raises(Refused, match="no state for 2025-01-02"):
        publish("dau", after(START, 1), store)
    assert store.accountant.sealed() == frozenset()


def test_what_was_acknowledged_before_a_release_is_in_it(store: Store) -> None:
    put(store, [("a newcomer", START)])
    assert publish("dau", START, silent(store)).noisy_value == 1 + len({u for u, day in ARCHIVE if day == START})
    assert store.events.inbox.batches() == []


def test_a_release_completes_a_fold_that_was_killed_between_two_epochs_of_a_day(make_store: Make) -> None:
    """Left half done, she would be in the windows of one salt epoch and not in those of the next."""
    day = date(2025, 3, 5)  # two epochs of 90 days read it
    store = make_store()
    prepare(store, days_between(date(2025, 2, 1), date(2025, 4, 2)))
    put(store, [("her", day)])
    (batch,) = store.events.inbox.batches()
    first, _ = sorted(store.events.inbox.read([batch]), key=lambda day_set: day_set.epoch)
    store.state.activity.replace([first])  # as if the process had died here
    publish("dau", day, store)
    assert [len(store.state.activity.read(day, epoch)) for epoch in (223, 224)] == [1, 1]  # type: ignore[arg-type]
    assert store.state.late.stored() == []


def test_a_release_out_of_order_seals_no_day_and_charges_nothing(store: Store) -> None:
    publish("mau", FIRST_MAU, store)
    sealed = store.accountant.sealed()
    with pytest.raises(Refused):
        publish("mau", after(FIRST_MAU, 9), store)
    assert store.accountant.sealed() == sealed == frozenset(window(FIRST_MAU, 30))
    assert store.accountant.charges("mau", date(2025, 2, 1)) == []


def test_what_comes_for_a_published_day_is_late_and_changes_no_later_number(store: Store) -> None:
    publish("dau", START, store)
    put(store, [("a latecomer", START)])
    prepare(store, [START])
    counted = publish("mau", FIRST_MAU, silent(store)).noisy_value
    assert counted == 17  # the latecomer is in the late set and never enters MAU
    assert [day for day, _ in store.state.late.stored()] == [START]


def test_what_comes_for_a_published_day_changes_its_state_under_none_of_its_salt_epochs(store: Store) -> None:
    """Anything else would be in the windows of the next epoch, which read the day too."""
    day = date(2025, 3, 5)
    places = [place for place in store.state.activity.stored() if place[0] == day]
    publish("dau", day, store)
    before = [store.state.activity.digest(*place) for place in places]
    put(store, [("a latecomer", day)])
    prepare(store, [day])
    assert [store.state.activity.digest(*place) for place in places] == before
    assert store.state.late.stored() == places and len(places) == 2


def test_who_comes_before_a_day_is_sealed_is_in_its_number_and_who_comes_after_it_is_late(store: Store) -> None:
    """Whatever comes in between: what is in the state of a sealed day is what its number has counted."""
    counted = len({user for user, day in ARCHIVE if day == START})
    real = store.accountant.seal

    def seal_while_people_come(days: set[date]) -> None:
        put(store, [("a newcomer", START)])
        process_days([START], store)
        real(days)
        put(store, [("a latecomer", START)])
        process_days([START], store)

    store.accountant.seal = seal_while_people_come  # type: ignore[method-assign, assignment]
    assert publish("dau", START, silent(store)).noisy_value == counted + 1
    assert [len(store.state.late.read(*place)) for place in store.state.late.stored()] == [1]  # type: ignore[arg-type]


def test_what_comes_for_an_open_day_counts(store: Store) -> None:
    put(store, [("a newcomer", START)])
    prepare(store, [START])
    assert publish("mau", FIRST_MAU, silent(store)).noisy_value == 18
    assert store.state.late.stored() == []


def test_a_replay_of_the_whole_archive_makes_nobody_late(store: Store) -> None:
    for day in days_between(START, LAST)[::8]:
        publish("dau", day, store)
    put(store, ARCHIVE)
    prepare(store, [START])
    assert store.state.late.stored() == []
    assert store.events.inbox.batches() == []


def test_the_state_of_a_sealed_day_is_never_rebuilt_from_nothing(store: Store) -> None:
    publish("dau", START, store)
    for path in store.settings.data_dir.glob(f"activity/day={START}/*"):
        path.unlink()
    with pytest.raises(Refused, match="processed day"):
        prepare(store, [START])


def test_state_keyed_by_another_store_is_refused(store: Store, make_store: Make) -> None:
    other = make_store("other")
    prepare(other, [START])
    (foreign,) = (other.settings.data_dir / "activity" / f"day={START}").iterdir()
    own = store.settings.data_dir / "activity" / f"day={START}" / foreign.name
    own.write_bytes(foreign.read_bytes())
    with pytest.raises(Refused, match="another key of salt epoch"):
        publish("dau", START, store)


@pytest.mark.parametrize("place", [8, -3])
def test_damaged_state_is_refused(store: Store, place: int) -> None:
    for path in store.settings.data_dir.glob("activity/day=2025-01-01/*"):
        damaged = bytearray(path.read_bytes())
        damaged[place] ^= 0xFF
        path.unlink()
        path.write_bytes(damaged)
    for path in store.settings.data_dir.glob("sketches/day=2025-01-01/*"):
        path.unlink()
    with pytest.raises(Refused, match="state of 2025-01-01 is damaged"):
        publish("dau", START, store)


def test_what_a_number_had_cost_when_it_came_out_follows_the_order_of_publication(store: Store) -> None:
    for day in (after(START, 2), after(START, 1), START):
        publish("dau", day, store)
    order = [
        release_answer(publish("dau", after(START, n), store), store.settings, store.accountant).budget.releases_made
        for n in range(3)
    ]
    assert order == [3, 2, 1]


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_damaged_sketch_is_rebuilt_before_it_is_read(store: Store, place: int) -> None:
    for path in store.settings.data_dir.glob("sketches/day=2025-01-01/*"):
        damaged = bytearray(path.read_bytes())
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
    assert publish("dau", START, silent(store)).noisy_value == len({u for u, day in ARCHIVE if day == START})


def test_after_a_removal_is_applied_only_its_tombstone_holds_the_key(store: Store) -> None:
    put(store, [("her", START), ("her", after(START, 40))])
    prepare(store, days_between(START, LAST))
    epochs = store.state.salts.epoch_keys([epoch_of(START, 90), epoch_of(after(START, 40), 90)])
    keys = [user_key(key.secret, "her").to_bytes(8, "little") for key in epochs.values()]
    data = store.settings.data_dir
    assert any(key in path.read_bytes() for key in keys for path in data.rglob("*") if path.is_file())
    put(store, [("her", LAST, "-")])
    publish("dau", START, store)  # any release first applies what was recorded
    holders = [path for path in data.rglob("*") if path.is_file() and any(key in path.read_bytes() for key in keys)]
    assert [path for path in holders if not path.name.startswith("ledger.sqlite")] == []


def test_a_published_number_stays_when_its_user_is_removed(store: Store) -> None:
    before = publish("dau", START, store)
    put(store, [("user 0", LAST, "-")])
    prepare(store, [START])
    assert publish("dau", START, store) == before


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_independent_noise_is_charged_for_every_number(make_store: Make, mechanism: str) -> None:
    small = Fraction(1, 100)
    store = make_store(dau_mechanism=mechanism, mau_mechanism=mechanism, epsilon_dau=small, epsilon_mau=small)
    prepare(store, days_between(START, after(FIRST_MAU, 2)))
    for day in days_between(FIRST_MAU, after(FIRST_MAU, 2)):
        publish("dau", day, store)
        publish("mau", day, store)
    assert [len(store.accountant.charges("dau", month)) for month in (START, date(2025, 2, 1))] == [2, 1]
    assert [len(store.accountant.charges("mau", month)) for month in (START, date(2025, 2, 1))] == [3, 1]
    assert publish("mau", FIRST_MAU, silent(store)).mechanism == mechanism


def test_a_release_that_the_cap_does_not_admit_leaves_no_charge_and_no_number(make_store: Make) -> None:
    store = make_store(dau_mechanism="laplace")  # 0.3 a day: settings that the start refuses, forced in here
    days = days_between(START, date(2025, 1, 11))
    prepare(store, days)
    for day in days[:10]:
        publish("dau", day, store)
    with pytest.raises(BudgetRefused, match="cap 3"):
        publish("dau", days[10], store)
    assert len(store.accountant.releases()) == len(store.accountant.charges("dau", START)) == 10
    assert days[10] not in store.accountant.sealed()


def publish_in_a_process(data_dir: Path) -> float:
    return publish("mau", FIRST_MAU, open_store(Settings(data_dir=data_dir, hash_salt_secret=SECRET))).noisy_value


def test_processes_that_publish_the_same_day_at_once_get_one_number(store: Store) -> None:
    numbers = race(publish_in_a_process, [(store.settings.data_dir,)] * 4)
    assert len(set(numbers)) == 1
    assert [release.noisy_value for release in store.accountant.releases()] == numbers[:1]
    assert len(store.accountant.mechanism_runs()) == 1


def test_a_later_restatement_day_leaves_the_stream_alone(store: Store) -> None:
    publish("mau", FIRST_MAU, store)
    changed = replace(store, settings=replace(store.settings, restatement_day=9, restatements_per_month=0))
    assert publish("mau", after(FIRST_MAU, 1), changed).run == publish("mau", FIRST_MAU, store).run


def test_a_stream_is_charged_once_to_every_month_that_it_reads(store: Store) -> None:
    for day in days_between(date(2025, 2, 27), date(2025, 3, 2)):
        publish("mau", day, store)
    for month in (date(2025, 1, 1), date(2025, 2, 1), date(2025, 3, 1)):
        assert len(store.accountant.charges("mau", month)) == 1
    assert store.accountant.charges("mau", date(2024, 12, 1)) == []


def test_a_mau_on_the_first_of_march_is_charged_to_three_months(store: Store) -> None:
    publish("mau", date(2025, 3, 1), store)
    months = [date(2024, 12, 1), START, date(2025, 2, 1), date(2025, 3, 1), date(2025, 4, 1)]
    assert [len(store.accountant.charges("mau", month)) for month in months] == [0, 1, 1, 1, 0]


def test_another_cap_begins_another_stream_once_its_windows_read_no_month_of_the_old_one(store: Store) -> None:
    publish("mau", FIRST_MAU, store)
    changed = replace(store, settings=replace(store.settings, mau_budget_total=Fraction(2)))
    with pytest.raises(BudgetRefused, match=r"see MAU_BUDGET_TOTAL and DELTA.* charged again") as refused:
        publish("mau", after(FIRST_MAU, 1), changed)
    free = date(2025, 3, 2)
    assert refused.value.fields["next_day"] == str(free)
    with pytest.raises(BudgetRefused):
        publish("mau", after(free, -1), changed)
    assert publish("mau", free, changed).run == "mau-30-gaussian_stream-from-2025-03-02"
    assert [len(store.accountant.charges("mau", date(2025, month, 1))) for month in (1, 2, 3)] == [1, 1, 1]
    with store.accountant.transaction() as transaction:
        assert transaction.frozen("mau-30-gaussian_stream-from-2025-01-30", 99) == [], (
            "no number to come is made of them"
        )
    publish("mau", after(free, 1), changed)
    with pytest.raises(Refused, match="does not follow it"):
        publish("mau", after(free, 3), changed)


def test_a_begun_month_of_shared_noise_keeps_its_terms(store: Store) -> None:
    publish("dau", START, store)
    changed = replace(store, settings=replace(store.settings, restatements_per_month=0))
    publish("dau", after(START, 1), changed)
    (run,) = store.accountant.mechanism_runs()
    assert run.mechanism.to_json()["releases"] == 62


def test_a_begun_month_that_was_charged_by_the_margin_goes_on_and_is_believed(make_store: Make) -> None:
    """The cap is so large that the noise's own price of the same parameters would not fit it any more."""
    store = make_store(recipe=an_archive, dau_budget_total=Fraction(10))
    key, kappa = ReleaseKey("dau", 1, START), (math.sqrt(62) + 1) / mu_of(10.0, 1e-6) ** 2 * (1 + 1e-11)
    sigmas = 1.001 * math.sqrt(math.sqrt(62) * kappa), 1.001 * math.sqrt(kappa)
    assert shared_mu2(SharedNoise(62, *sigmas)) > mu_of(10.0, 1e-6) ** 2
    with store.accountant.transaction() as transaction:
        begun = replace(new_run(key, transaction, store.settings), mechanism=SharedNoiseByMargin(62, *sigmas))
        (charge,) = charges_for_release("dau", START, 1, begun.mechanism, begun.name)
        admits([], charge, Budget(Fraction(10), 1e-6))
        enter(Plan(begun, True, (charge,)), transaction)
    for day in (START, after(START, 1)):
        publish("dau", day, store)
    assert [run.mechanism.to_json()["version"] for run in store.accountant.mechanism_runs()] == [1]
    assert len(store.accountant.charges("dau", START)) == 1
    assert verification.problems(store.settings, store.accountant) == []
    assert publish("dau", date(2025, 2, 1), store).run != begun.name
    assert [run.mechanism.to_json()["version"] for run in store.accountant.mechanism_runs()] == [1, 2]
    assert verification.problems(store.settings, store.accountant) == []


def test_the_shared_noise_is_destroyed_with_the_months_last_number(make_store: Make) -> None:
    store = make_store(restatements_per_month=0)
    days = days_between(START, date(2025, 1, 31))
    prepare(store, days)
    kept = []
    for day in days:
        publish("dau", day, store)
        with store.accountant.transaction() as transaction:
            kept.append(transaction.shared_noise(store.accountant.mechanism_runs()[0].name) is not None)
    assert kept == [True] * 30 + [False]


def test_destroyed_noise_is_in_no_byte_of_the_ledger(make_store: Make) -> None:
    """The month's days before START_DATE will never have a number, so its noise goes with the others' last one."""
    store = make_store(start_date=date(2025, 1, 30), restatements_per_month=0)
    prepare(store, [date(2025, 1, 30), date(2025, 1, 31)])
    publish("dau", date(2025, 1, 30), store)
    files = list(store.settings.data_dir.glob("ledger.sqlite*"))
    with sqlite3.connect(store.settings.data_dir / "ledger.sqlite") as ledger:
        ((secret,),) = ledger.execute("SELECT encrypted FROM shared_noise").fetchall()
    assert any(secret in path.read_bytes() for path in files)
    ledger.close()
    publish("dau", date(2025, 1, 31), store)
    assert not any(secret in path.read_bytes() for path in files if path.exists())


def test_a_sketch_of_a_day_that_nobody_asked_for_is_refused_whoever_was_active(make_store: Make) -> None:
    store = make_store()
    put(store, [("her", after(START, 1))])
    process_days([START], store)
    with pytest.raises(Refused, match="no state for 2025-01-02"):
        refresh([after(START, 1)], store)


def test_a_removal_recorded_while_the_statistic_is_read_is_in_the_number(store: Store) -> None:
    counted = len({user for user, day in ARCHIVE if day == START})
    real_read, reads = store.state.sketches.read, []

    def read_while_a_removal_comes(day: date, epoch: int) -> object:
        if not reads:
            put(store, [("user 0", START, "-")])
        reads.append(day)
        return real_read(day, epoch)

    store.state.sketches.read = read_while_a_removal_comes  # type: ignore[method-assign, assignment]
    assert publish("dau", START, silent(store)).noisy_value == counted - 1
    assert len(reads) == 2  # read once with her, and again without


def test_a_removed_user_is_out_of_mau_until_the_next_month(make_store: Make) -> None:
    store = make_store(recipe=days_without_anyone)
    put(store, [("her", date(2025, 1, 17)), ("her", date(2025, 2, 20)), ("her", date(2025, 3, 5))])
    quiet = silent(store)
    before = [publish("mau", day, quiet).noisy_value for day in days_between(date(2025, 2, 15), date(2025, 2, 21))]
    put(store, [("her", date(2025, 2, 12), "-")])  # her 20 February is not removed, and yet held out
    then = [publish("mau", day, quiet).noisy_value for day in days_between(date(2025, 2, 22), date(2025, 3, 6))]
    assert before == [1] + [0] * 4 + [1] * 2
    assert then == [0] * 11 + [1] * 2


@dataclass(frozen=True)
class Person:
    """Her days, as numbers; and a removal through a day or of listed days, before the MAU of so many days later."""

    active: tuple[int, ...]
    removal: tuple[int, tuple[int, ...], int] | None

    @property
    def reached(self) -> list[date] | None:
        """The listed days of her removal, if it has any."""
        return [after(START, n) for n in sorted(set(self.removal[1]))] if self.removal and self.removal[1] else None

    def counts(self, day: date) -> bool:
        """By brute force, the rule of the contract."""
        held = date.min
        if self.removal and day >= after(FIRST_MAU, self.removal[2]):
            held = month_end(month_of(max(self.reached or [after(START, self.removal[0])])))
        active = {after(START, n) for n in self.active}
        return any(read in active and read > held for read in window(day, 30))


ago = st.integers(0, 74)
people = st.builds(
    Person,
    st.lists(ago, min_size=1, max_size=40).map(tuple),
    st.none() | st.tuples(ago, st.lists(ago, max_size=3).map(tuple), st.integers(0, 44)),
)


@pytest.mark.also_long
@settings(
    max_examples=at_length(test=2, ci=6, soak=60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(everyone=st.lists(people, min_size=6, max_size=6))
def test_without_noise_mau_is_the_rule_of_the_contract_computed_another_way(
    make_store: Make, everyone: list[Person]
) -> None:
    """M(t) as the sum of each one's bits, with every removal recorded before the MAU of its day."""
    store = make_store(f"history {next(HISTORIES)}", recipe=days_without_anyone)
    put(store, [(f"user {n}", after(START, day)) for n, person in enumerate(everyone) for day in person.active])
    quiet = silent(store)
    for day in days_between(FIRST_MAU, LAST):
        for n, person in enumerate(everyone):
            if person.removal and day == after(FIRST_MAU, person.removal[2]):
                listed = None if person.reached is None else tuple(person.reached)
                put(store, [(f"user {n}", after(START, person.removal[0]), "-", listed)])
        assert publish("mau", day, quiet).noisy_value == sum(person.counts(day) for person in everyone)
