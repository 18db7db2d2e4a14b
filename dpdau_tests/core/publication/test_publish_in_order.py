"""A list of numbers: planned, sealed and read together, committed one by one, and as they would be one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.dates import days_between, month_end, month_of, window
from dpdau_assets.core.errors import BudgetRefused, Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication import release as main_path
from dpdau_assets.core.publication.completeness import complete_all, is_declared
from dpdau_assets.core.publication.release import Counted, commit, publish, publish_in_order, read_statistics, restate
from dpdau_assets.core.publication.runs import DAU, MAU, RESTATEMENT, Step, step_of
from dpdau_assets.core.settings import Settings
from dpdau_tests.conftest import SECRET, prepare, put, silent
from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.racing import race
from resources.store import open_store

START = date(2025, 1, 1)
LAST = date(2025, 2, 20)
FIRST_MAU = date(2025, 1, 30)
DAYS = days_between(START, LAST)
MAU_DAYS = days_between(FIRST_MAU, LAST)
JANUARY = START
EVERYTHING = [
    step
    for day in DAYS
    for step in [
        Step(DAU, day),
        *([Step(MAU, day)] if day >= FIRST_MAU else []),
        *([Step(RESTATEMENT, JANUARY)] if day == date(2025, 2, 5) else []),
    ]
]
PEOPLE = [(f"user {n % 13}", START + timedelta(days=(n * 7) % len(DAYS))) for n in range(200)]
Make = Callable[..., Store]


def people(store: Store) -> None:
    """Thirteen people come on one day or another."""
    put(store, PEOPLE)
    prepare(store, DAYS)


def nobody(store: Store) -> None:
    """Every day has its state, and nobody came."""
    prepare(store, DAYS)


@pytest.fixture
def store(make_store: Make) -> Store:
    return make_store(recipe=people)


def numbers(store: Store) -> dict[ReleaseKey, float]:
    return {release.key: release.noisy_value for release in store.accountant.releases()}


def came(day: date) -> set[str]:
    return {user for user, when in PEOPLE if when == day}


def came_in(days: Sequence[date]) -> set[str]:
    return set[str]().union(*map(came, days))


# --- The numbers of a list ---------------------------------------------------------------------------------------


def test_a_list_gives_each_number_in_order_and_as_it_would_have_come_by_itself(store: Store, make_store: Make) -> None:
    done = [step for step, _ in publish_in_order(EVERYTHING, silent(store))]
    assert done == EVERYTHING == list(dict.fromkeys(step_of(key) for key in numbers(store)))
    alone = make_store("one by one", recipe=people)
    for step in EVERYTHING:
        if step.kind == RESTATEMENT:
            restate(JANUARY, silent(alone))
        else:
            publish(step.metric, step.day, silent(alone))  # type: ignore[arg-type]
    assert numbers(store) == numbers(alone) and len(numbers(store)) == len(DAYS) + len(MAU_DAYS) + 31
    assert store.accountant.charges("mau", JANUARY) == alone.accountant.charges("mau", JANUARY)


def test_the_numbers_of_a_list_are_those_who_came(store: Store) -> None:
    list(publish_in_order(EVERYTHING, silent(store)))
    for key, number in numbers(store).items():
        assert number == len(came_in(window(key.day, key.window_days))), key


@pytest.mark.parametrize("at_once", [1, 2, 7])
def test_however_few_are_read_at_once_the_numbers_are_the_same(
    at_once: int, store: Store, make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = EVERYTHING[-20:]
    list(publish_in_order(steps, silent(store)))
    monkeypatch.setattr(main_path, "READ_AT_ONCE", at_once)
    other = make_store("a few at once", recipe=people)
    assert [step for step, _ in publish_in_order(steps, silent(other))] == steps
    assert numbers(other) == numbers(store)


def test_windows_of_a_list_are_read_in_one_pass_over_the_days(store: Store) -> None:
    """Each file once for all the windows that it is in, not once for each."""
    real, read = store.state.sketches.read, []

    def reading(day: date, epoch: int) -> object:
        read.append((day, epoch))
        return real(day, epoch)

    store.state.sketches.read = reading  # type: ignore[method-assign, assignment]
    list(publish_in_order([Step(MAU, day) for day in MAU_DAYS], store))
    assert len(read) == len(set(read)) and {day for day, _ in read} == set(DAYS)


def test_what_is_out_is_handed_over_as_it_is_and_the_rest_of_the_list_is_made(store: Store) -> None:
    first = publish("dau", DAYS[3], store)
    steps = [Step(DAU, day) for day in DAYS[2:6]]
    releases = [release for _, (release,) in publish_in_order(steps, store)]
    assert releases[1] == first and len(numbers(store)) == 4
    assert [release for _, (release,) in publish_in_order(steps, store)] == releases
    assert len(numbers(store)) == 4


def test_a_list_of_nothing_reads_and_seals_nothing(store: Store) -> None:
    assert list(publish_in_order([], store)) == []
    assert not store.accountant.sealed() and numbers(store) == {}


# --- What happens meanwhile --------------------------------------------------------------------------------------


def after_each(number: int, happen: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once so many numbers are committed, and before the next one is."""
    committed: list[object] = []

    def committing(*what: Any) -> object:
        if len(committed) == number:
            committed.append(None)
            happen()
        releases = commit(*what)
        committed.append(releases)
        return releases

    monkeypatch.setattr(main_path, "commit", committing)


@pytest.mark.parametrize("number", [0, 1, 11, 21])
@pytest.mark.parametrize("through", [date(2025, 1, 12), date(2025, 2, 1)])
def test_a_removal_that_is_recorded_within_a_list_is_in_every_number_that_comes_after_it(
    through: date, number: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The windows were counted with her, in one pass: those that are not out yet are counted again."""
    gone = "user 0"
    after_each(number, lambda: put(store, [(gone, through, "-")]), monkeypatch)
    list(publish_in_order([Step(MAU, day) for day in MAU_DAYS], silent(store)))
    held = month_end(month_of(through))
    for place, (key, count) in enumerate(numbers(store).items()):
        days = window(key.day, 30)
        without = {user for day in days for user in came(day) if user != gone or (day > held or place < number)}
        assert count == len(without), key


def test_removals_that_come_faster_than_a_list_is_read_hold_up_no_number(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One comes whenever more than four numbers are read together."""
    sizes: list[int] = []

    def reading(wanted: Mapping[ReleaseKey, object], *rest: Any) -> object:
        found = read_statistics(wanted, *rest)  # type: ignore[arg-type]
        sizes.append(len(wanted))
        assert len(sizes) < 60, "it reads again and again, and publishes nothing"
        if len(wanted) > 4:
            put(store, [(f"user {len(sizes)}", DAYS[0], "-")])
        return found

    monkeypatch.setattr(main_path, "read_statistics", reading)
    steps = [Step(DAU, day) for day in DAYS[1:31]]
    assert [step for step, _ in publish_in_order(steps, store)] == steps
    assert max(sizes) == 30


def test_a_restatement_within_a_list_has_the_removal_that_came_while_it_was_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []

    def reading(*what: Any) -> object:
        found = read_statistics(*what)
        if not reads and any(key.revision for key in what[0]):
            put(store, [("user 0", date(2025, 1, 31), "-")])
            reads.append(found)
        return found

    monkeypatch.setattr(main_path, "read_statistics", reading)
    list(publish_in_order(EVERYTHING, silent(store)))
    again = {key.day: number for key, number in numbers(store).items() if key.revision}
    assert reads and again == {day: len(came(day) - {"user 0"}) for day in days_between(START, date(2025, 1, 31))}


def test_a_number_that_another_process_makes_meanwhile_is_taken_and_made_by_nobody_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other: list[Any] = []

    def another() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(main_path, "commit", commit)
            other.extend(publish("mau", day, store) for day in MAU_DAYS[3:6])

    after_each(3, another, monkeypatch)
    made = [release for _, (release,) in publish_in_order([Step(MAU, day) for day in MAU_DAYS[:9]], store)]
    assert made[3:6] == other and len(numbers(store)) == 9
    assert [release.key.day for release in made] == MAU_DAYS[:9]


def publish_in_a_process(data_dir: Path) -> list[float]:
    store = open_store(Settings(data_dir=data_dir, hash_salt_secret=SECRET))
    return [release.noisy_value for _, (release,) in publish_in_order([Step(DAU, day) for day in DAYS[:4]], store)]


def test_processes_that_publish_one_list_at_once_get_the_same_numbers(store: Store) -> None:
    lists = race(publish_in_a_process, [(store.settings.data_dir,)] * 3)
    assert all(found == lists[0] for found in lists)
    assert list(numbers(store).values()) == lists[0]


def test_what_fails_within_a_list_leaves_what_is_out_and_a_second_list_goes_on_from_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [Step(MAU, day) for day in MAU_DAYS[:9]]

    def failing(statistics: Mapping[ReleaseKey, Counted], *rest: Any) -> object:
        if any(key.day == MAU_DAYS[5] for key in statistics):
            raise OSError("no space left on device")
        return commit(statistics, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(main_path, "commit", failing)
        with pytest.raises(OSError, match="no space left"):
            list(publish_in_order(steps, store))
    out = numbers(store)
    assert [key.day for key in out] == MAU_DAYS[:5]
    assert [step for step, _ in publish_in_order(steps, store)] == steps
    assert list(numbers(store).items())[:5] == list(out.items()) and len(numbers(store)) == 9


# --- What upstream has not declared, and what cannot be read -----------------------------------------------------


def test_a_list_ends_before_a_day_whose_declaration_is_taken_back_before_it_is_sealed(store: Store) -> None:
    """Also when that happens while the days before it are published: those after a restatement are read after it."""
    declared = set(DAYS)
    out: list[Step] = []
    for step, _ in publish_in_order(EVERYTHING, store, lambda: declared):
        out.append(step)
        declared.discard(date(2025, 2, 8))
    assert out == EVERYTHING[: EVERYTHING.index(Step(DAU, date(2025, 2, 8)))]
    assert date(2025, 2, 8) not in store.accountant.sealed()


def test_what_a_stopped_list_has_sealed_and_not_published_still_waits_for_upstream(store: Store) -> None:
    steps = publish_in_order([Step(DAU, day) for day in DAYS[:20]], store)
    assert next(steps)[0] == Step(DAU, DAYS[0])
    steps.close()  # type: ignore[attr-defined]
    assert store.accountant.sealed() == set(DAYS[:20]), "they are read, and what comes for them is late"
    assert is_declared(store.events, store.accountant) == {DAYS[0]}
    complete_all(DAYS[1:3], store)
    assert is_declared(store.events, store.accountant) == set(DAYS[:3])


def test_a_file_that_cannot_be_read_holds_up_the_numbers_that_read_it_and_no_other(store: Store) -> None:
    (broken,) = {path for path in (store.settings.data_dir / "activity").glob(f"day={DAYS[9]}/*")}
    broken.unlink()
    steps = [Step(DAU, day) for day in DAYS[:12]]
    with pytest.raises(Refused, match=f"The state of {DAYS[9]} is gone"):
        list(publish_in_order(steps, store))
    assert [key.day for key in numbers(store)] == DAYS[:9]
    with pytest.raises(Refused, match=f"The state of {DAYS[9]} is gone"):
        list(publish_in_order([Step(DAU, DAYS[29]), Step(MAU, DAYS[29])], store))
    assert [key.day for key in numbers(store)] == [*DAYS[:9], DAYS[29]]


# --- What is refused ---------------------------------------------------------------------------------------------


def test_what_comes_before_a_refusal_is_out_and_no_day_that_only_the_refused_reads_is_sealed(make_store: Make) -> None:
    store = make_store(dau_mechanism="gaussian", epsilon_dau=Fraction(1), restatements_per_month=0, recipe=people)
    done: list[Step] = []
    steps = [Step(DAU, day) for day in DAYS[:12]]
    with pytest.raises(BudgetRefused) as refused:
        done.extend(step for step, _ in publish_in_order(steps, store))
    fitting = [key.day for key in numbers(store)]
    assert 1 < len(fitting) < 12 and fitting == DAYS[: len(fitting)]
    assert store.accountant.sealed() == set(fitting) and refused.value.fields["month"] == "2025-01"
    with pytest.raises(BudgetRefused) as alone:
        publish("dau", DAYS[len(fitting)], store)
    assert alone.value.fields == refused.value.fields and alone.value.reason == refused.value.reason


def test_of_a_list_that_skips_a_day_of_mau_the_days_before_the_gap_are_out(store: Store) -> None:
    with pytest.raises(Refused, match=f"{MAU_DAYS[4]} does not follow"):
        list(publish_in_order([Step(MAU, day) for day in [*MAU_DAYS[:3], *MAU_DAYS[4:7]]], store))
    assert [key.day for key in numbers(store)] == MAU_DAYS[:3]


def test_a_month_is_not_restated_within_a_list_before_publication_has_come_to_its_day(store: Store) -> None:
    steps = [Step(DAU, day) for day in DAYS[:33]]
    with pytest.raises(Refused, match="2025-01 is restated on 2025-02-05"):
        list(publish_in_order([*steps, Step(RESTATEMENT, JANUARY), Step(DAU, DAYS[33])], store))
    assert [key.day for key in numbers(store)] == DAYS[:33]


# --- The rule of the contract ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Person:
    """Her days, as numbers; and removals, each through a day, before so many of the MAU days are out."""

    active: tuple[int, ...]
    removals: tuple[tuple[int, int], ...]

    def counts(self, place: int) -> bool:
        """By brute force, whether the MAU of this place in the list has her."""
        held = [month_end(month_of(DAYS[through])) for through, since in self.removals if since <= place]
        read = window(MAU_DAYS[place], 30)
        return any(DAYS[n] in read and all(DAYS[n] > last for last in held) for n in self.active)


of_days = st.integers(0, len(DAYS) - 1)
persons = st.builds(
    Person,
    st.lists(of_days, min_size=1, max_size=12).map(tuple),
    st.lists(st.tuples(of_days, st.integers(0, len(MAU_DAYS) - 1)), max_size=2).map(tuple),
)


@settings(
    max_examples=at_length(test=3, ci=10, soak=100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(everyone=st.lists(persons, min_size=5, max_size=5), data=st.data())
def test_without_noise_a_list_of_mau_is_the_rule_of_the_contract_with_removals_recorded_at_any_time(
    make_store: Make, everyone: list[Person], data: st.DataObject
) -> None:
    store = make_store(f"history {data.draw(st.integers(0, 2**60))}", recipe=nobody)
    put(store, [(f"user {n}", DAYS[day]) for n, person in enumerate(everyone) for day in person.active])
    made: list[float] = []
    for _, (release,) in publish_in_order([Step(MAU, day) for day in MAU_DAYS], silent(store)):
        made.append(release.noisy_value)
        for n, person in enumerate(everyone):
            for through, since in person.removals:
                if since == len(made):
                    put(store, [(f"user {n}", DAYS[through], "-")])
    early = [Person(one.active, tuple(r for r in one.removals if r[1] > 0)) for one in everyone]
    assert made == [sum(person.counts(place) for person in early) for place in range(len(MAU_DAYS))]
