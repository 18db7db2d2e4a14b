"""How users are counted, through the whole path: from settings, from the last number, fixed by a run, refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpdau_assets.core.budget.forecast import forecast
from dpdau_assets.core.budget.numbers import interval
from dpdau_assets.core.budget.planning import planned_estimator
from dpdau_assets.core.dates import days_between, epoch_of
from dpdau_assets.core.erasure.receipts import apply_and_verify, receipt
from dpdau_assets.core.erasure.requests import guard_limit, request
from dpdau_assets.core.errors import BadSetting, BudgetRefused, ParameterNotSet
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import DaySet, Release, ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication import release as main_path
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.publication.runs import plan_run
from dpdau_assets.core.reporting.answers import mart_rows, release_answer, series
from dpdau_assets.core.reporting.as_json import columns_of
from dpdau_assets.core.sketches import build
from dpdau_assets.core.sketches.base import to_bytes
from dpdau_assets.core.sketches.theta import ThetaSketch, theta_hashes
from dpdau_assets.core.state.activity import apply_pending, epochs_of, process_days
from dpdau_assets.core.state.day_sketch import build_sketch, read_without, sketch_version
from dpdau_tests.conftest import SKETCHES, prepare, put, silent
from resources.published.mart_duckdb import MartFiles

Make = Callable[..., Store]
START, FIRST_MAU = date(2025, 1, 1), date(2025, 1, 30)
JANUARY = days_between(START, date(2025, 1, 31))
PEOPLE = 40_000
SMALL = {"hll_registers": 1 << 10, "kmv_k": 1 << 11}
SAMPLERS = ("theta", "kmv", "hllpp")


def counted(store: Store, release: Release) -> dict[str, str]:
    """Kind and public parameters, as the ledger has them."""
    (run,) = (known for known in store.accountant.mechanism_runs() if known.name == release.run)
    return {name: value for name, value in run.parameters.items() if not name.startswith("restatement")}


def with_people(store: Store, days: list[date], people: int = 30) -> Store:
    put(store, [(f"user {n}", day) for day in days for n in range(people)])
    return store


def crowd(store: Store, days: list[date]) -> Store:
    """Put as many random keys a day as a release would sample straight into the state: events would take long."""
    process_days(days, store)
    random = np.random.default_rng(1)
    keys = np.unique(random.integers(0, 2**64, PEOPLE, dtype=np.uint64))
    store.state.activity.replace(DaySet(day, epoch, keys) for day in days for epoch in epochs_of(day, store.settings))
    return store


# --- Where parameters come from ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("theta", "DAU_THETA0"), ("kmv", "DAU_THETA0"), ("hllpp", "DAU_LEVEL")])
def test_a_first_number_without_a_parameter_is_refused_and_says_what_to_set(
    make_store: Make, kind: str, name: str
) -> None:
    unset = {setting: None for setting in ("dau_theta0", "mau_theta0", "dau_level", "mau_level")}
    store = make_store(**{**SKETCHES[kind], **unset})
    with_people(store, [START])
    with pytest.raises(BadSetting, match=f"{name} is not set, and no dau is published yet") as raised:
        prepare(store, [START])
    assert raised.value.fields["variables"][0] == name and "for 1,000,000" in raised.value.remedy
    with pytest.raises(BadSetting, match=name):
        publish("dau", START, store)
    assert not store.accountant.sealed() and not store.accountant.releases()


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_configured_parameter_is_recorded_with_the_release(make_store: Make, kind: str) -> None:
    store = with_people(make_store(**SKETCHES[kind]), [START])
    prepare(store, [START])
    release = publish("dau", START, store)
    recorded = counted(store, release)
    expected = {
        "theta": {"theta0": "1"},
        "kmv": {"k": "65536", "theta0": "1"},
        "hllpp": {"registers": "16384", "level": "1"},
    }[kind]
    assert recorded == {"sketch_impl": kind, **expected}
    answer = release_answer(release, store.settings, store.accountant)
    assert (answer.sketch_impl, release.sketch_impl) == (kind, kind)
    assert answer.sketch_parameters == {name: float(value) for name, value in expected.items()}
    (row,) = mart_rows(store.accountant)
    assert row.parameters == recorded
    assert columns_of(row)["sketch_parameters"] == answer.sketch_parameters
    assert series("dau", START, START, store.settings, store.accountant)[0].noisy_value == answer.noisy_value


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        ("theta", {"theta0": "1/2"}),
        ("kmv", {"k": "2048", "theta0": "1/64"}),
        ("hllpp", {"registers": "1024", "level": "6"}),
    ],
)
def test_without_one_the_next_instance_is_counted_as_suits_the_last_published_number(
    make_store: Make, kind: str, chosen: dict[str, str]
) -> None:
    """40,000 people: 16,384 to 32,768 of them, a quarter to half of k, a load of 1.1 to 2.3."""
    days = [*JANUARY[-1:], date(2025, 2, 1)]
    settings = {**SMALL, "mau_mechanism": "gaussian"}
    store = silent(crowd(make_store(**settings), days))
    publish("dau", days[0], store)
    later = silent(make_store(sketch_impl=kind, **settings))
    assert counted(later, publish("dau", days[0], later)) == {"sketch_impl": "set"}, "published is published"
    second = publish("dau", days[1], later)
    assert counted(later, second) == {"sketch_impl": kind, **chosen}
    assert release_answer(second, later.settings, later.accountant).noisy_value == pytest.approx(PEOPLE, rel=0.15)


def test_a_month_and_its_restatement_are_counted_as_it_was_begun(make_store: Make) -> None:
    """Whatever is configured by then: its two series compare."""
    through = date(2025, 2, 4)
    days = days_between(JANUARY[-2], through)
    exact = silent(make_store())
    with_people(exact, days)
    prepare(exact, days)
    publish("dau", days[0], exact)
    later = silent(make_store(**SKETCHES["theta"]))
    kinds = [counted(later, publish("dau", day, later))["sketch_impl"] for day in days[1:]]
    assert kinds == ["set", "theta", "theta", "theta", "theta"]
    assert [counted(later, release) for release in restate(START, later)] == [{"sketch_impl": "set"}] * 2


def test_a_stream_keeps_its_sample_when_later_numbers_would_suggest_another(make_store: Make) -> None:
    begun = {"sketch_impl": "theta", "dau_theta0": Fraction(1, 4), "mau_theta0": Fraction(1, 4)}
    store = silent(with_people(make_store(**begun), JANUARY))
    prepare(store, JANUARY)
    first = publish("mau", FIRST_MAU, store)
    unset = silent(make_store(sketch_impl="theta", dau_theta0=Fraction(1, 4)))
    second = publish("mau", JANUARY[-1], unset)
    assert counted(unset, second) == counted(unset, first) == {"sketch_impl": "theta", "theta0": "1/4"}
    assert first.run == second.run and len(unset.accountant.charges("mau", START)) == 1


@pytest.mark.parametrize(
    ("other", "named"),
    [({"mau_theta0": Fraction(1, 8)}, "MAU_THETA0"), ({"sketch_impl": "set"}, "SKETCH_IMPL")],
)
def test_another_sample_would_begin_another_stream_and_is_refused(
    make_store: Make, other: dict[str, object], named: str
) -> None:
    begun = {"sketch_impl": "theta", "dau_theta0": Fraction(1, 4), "mau_theta0": Fraction(1, 4)}
    store = silent(with_people(make_store(**begun), JANUARY))
    prepare(store, JANUARY)
    publish("mau", FIRST_MAU, store)
    with pytest.raises(BudgetRefused, match=f"was begun otherwise .*{named}.* would begin another"):
        publish("mau", JANUARY[-1], silent(make_store(**{**begun, **other})))


def test_a_number_read_with_other_parameters_than_are_on_the_books_by_then_is_read_again(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes begin a month: what the second one has read is of another sample than the first one's."""
    days = days_between(START, date(2025, 1, 2))
    fine, coarse = (
        {"sketch_impl": "theta", "dau_theta0": theta0, "mau_theta0": theta0}
        for theta0 in (Fraction(1), Fraction(1, 16))
    )
    store = silent(with_people(make_store(**coarse), days))
    prepare(store, days)
    real, reads = main_path.read_statistics, []

    def overtaken(*what: Any) -> tuple:
        statistics = real(*what)
        reads.append({statistic.estimator for statistic in statistics[0].values()})
        if len(reads) == 1:
            monkeypatch.setattr(main_path, "read_statistics", real)
            publish("dau", days[0], silent(make_store(**fine)))
            monkeypatch.setattr(main_path, "read_statistics", overtaken)
        return statistics

    monkeypatch.setattr(main_path, "read_statistics", overtaken)
    late = publish("dau", days[1], store)
    assert len(reads) == 2 and counted(store, late)["theta0"] == "1" and late.noisy_value == 30


def test_the_plan_of_the_coming_months_says_what_to_set_before_anything_is_published(make_store: Make) -> None:
    store = make_store(sketch_impl="theta")
    with pytest.raises(BadSetting, match="_THETA0 is not set"):
        forecast(store.accountant, store.settings, 2)
    configured = replace(store.settings, dau_theta0=Fraction(1, 4), mau_theta0=Fraction(1, 64))
    assert forecast(store.accountant, configured, 2).refused == ()


# --- What is kept ------------------------------------------------------------------------------------------------


def test_one_sketch_a_day_serves_both_metrics_and_is_not_built_twice(make_store: Make) -> None:
    begun = {"sketch_impl": "theta", "dau_theta0": Fraction(1, 2), "mau_theta0": Fraction(1, 16)}
    store = silent(with_people(make_store(**begun), JANUARY))
    prepare(store, JANUARY)
    folder = store.settings.data_dir / "sketches"
    files = {path: path.stat().st_ino for path in folder.rglob("*.sketch")}
    for day in JANUARY[-3:]:
        publish("dau", day, store)
    publish("mau", FIRST_MAU, store)
    assert {path: path.stat().st_ino for path in folder.rglob("*.sketch")} == files
    sketch = store.state.sketches.read(FIRST_MAU, 223)
    assert isinstance(sketch, ThetaSketch) and sketch.header.parameters == {"theta0": 0.5}


def test_sketches_of_months_with_other_samples_are_united_in_one_window(make_store: Make) -> None:
    """January is kept with the larger sample that its DAU needs; February's windows read it with their own."""
    days = days_between(START, date(2025, 3, 1))
    fine = {"sketch_impl": "theta", "dau_theta0": Fraction(1), "mau_theta0": Fraction(1, 4)}
    store = silent(with_people(make_store(**fine), days))
    prepare(store, JANUARY)
    publish("dau", JANUARY[-1], store)
    coarse = silent(make_store(**{**fine, "dau_theta0": Fraction(1, 8)}))
    prepare(coarse, days)
    thetas = {sketch.header.parameters["theta0"] for day in days if (sketch := coarse.state.sketches.read(day, 223))}
    assert thetas == {1.0, 0.25}
    first = publish("mau", date(2025, 2, 10), coarse)
    keys = coarse.state.activity.read(JANUARY[-1], 223)
    assert keys is not None and len(keys) == 30
    assert first.noisy_value == (theta_hashes(keys) < 2**61).sum(), "θ0 = 1/4 of hashes of 63 bits"


def test_a_sketch_of_what_state_was_is_gone_before_the_state_is_another(make_store: Make) -> None:
    store = with_people(make_store(), [START])
    prepare(store, [START])
    assert {day for day, _ in store.state.sketches.stored()} == {START}
    put(store, [("someone new", START)])
    with store.state.activity.lock():
        apply_pending(store)
    assert store.state.sketches.stored() == []
    apply_and_verify(store)
    assert {day for day, _ in store.state.sketches.stored()} == {START}


@pytest.mark.parametrize("kind", SKETCHES)
def test_who_is_held_out_of_a_window_is_in_no_sketch_of_it_also_in_a_kind_that_cannot_lose_her(
    make_store: Make, kind: str
) -> None:
    store, day = make_store(**SKETCHES[kind]), date(2025, 1, 1)
    put(store, [(f"user {n}", day) for n in range(10)])
    prepare(store, [day])
    epoch = epoch_of(day, store.settings.hash_salt_rotation_days)
    with store.accountant.transaction() as transaction:
        estimator = planned_estimator(ReleaseKey("mau", 30, date(2025, 1, 30)), transaction, store.settings)
    with store.state.activity.lock():
        keys = store.state.activity.read(day, epoch)
        assert keys is not None and len(keys) == 10
        left = read_without(day, epoch, keys[:1], estimator, store)
    never = build(estimator.header(epoch, left.header.source), keys[1:])
    assert b"".join(to_bytes(left)) == b"".join(to_bytes(never))


def test_another_sample_is_another_version_of_the_sketch(make_store: Make) -> None:
    store = with_people(make_store(**SKETCHES["theta"]), [START])
    prepare(store, [START])
    first = sketch_version(START, store)
    other = make_store(sketch_impl="theta", dau_theta0=Fraction(1, 4), mau_theta0=Fraction(1, 4))
    for _, epoch in other.state.sketches.stored():
        other.state.sketches.discard(START, epoch)
    build_sketch(START, other)
    assert sketch_version(START, other) != first


# --- Deletion ----------------------------------------------------------------------------------------------------


def test_an_erasure_is_verified_where_nothing_says_yet_how_users_are_counted(make_store: Make) -> None:
    store = make_store(sketch_impl="theta")
    with_people(store, [START])
    with pytest.raises(BadSetting):
        prepare(store, [START])
    (name,) = request([Event("user 1", "-", START)], store).receipts
    assert apply_and_verify(store).verified == 1 and receipt(name, store)["verified"] is True


def test_the_hash_of_an_erased_user_in_a_stray_theta_sketch_is_found(make_store: Make) -> None:
    """In a copy that nobody's reader reads, her hash stands where her key does not."""
    store = with_people(make_store(**SKETCHES["theta"]), [START])
    prepare(store, [START])
    ((day, epoch), *_) = store.state.sketches.stored()
    sketch = store.state.sketches.read(day, epoch)
    assert sketch is not None
    (store.settings.data_dir / "handed-on.bin").write_bytes(sketch.body())
    (name,) = request([Event("user 1", "-", START)], store).receipts
    apply_and_verify(store)
    document = receipt(name, store)
    assert document["verified"] is False and {survivor["file"] for survivor in document["survivors"]} == {
        "handed-on.bin"
    }


def test_the_guard_compares_people_with_people_and_not_with_a_sample(make_store: Make) -> None:
    begun = {"sketch_impl": "theta", "dau_theta0": Fraction(1, 4), "mau_theta0": Fraction(1, 4)}
    store = silent(with_people(make_store(**begun), JANUARY, people=100))
    prepare(store, JANUARY)
    release = publish("mau", FIRST_MAU, store)
    assert (
        guard_limit(store.settings, store.accountant) == pytest.approx(0.2 * 4 * release.noisy_value)
        and release.noisy_value < 60
    )


@pytest.mark.parametrize("kind", list(SKETCHES))
def test_a_sketch_of_what_state_was_is_a_survivor_of_everyone_who_was_erased_from_it(
    make_store: Make, kind: str
) -> None:
    """Put back from a copy, it names its state in its header, whatever its sample or registers still show."""
    small = {**SKETCHES[kind], "kmv_k": 16, "hll_registers": 16}
    small |= {"dau_theta0": Fraction(1, 4)} if kind == "theta" else {}
    store = with_people(make_store(**small), [START], people=60)
    prepare(store, [START])
    ((_, epoch), *_) = store.state.sketches.stored()
    path = store.settings.data_dir / "sketches" / f"day={START}" / f"epoch={epoch}.sketch"
    copy = path.read_bytes()
    receipts = request([Event(f"user {n}", "-", START) for n in range(5)], store).receipts
    assert apply_and_verify(store).verified == 5
    path.write_bytes(copy)
    assert [receipt(name, store)["verified"] for name in receipts] == [False] * 5
    apply_and_verify(store)  # brings it up to its state
    assert [receipt(name, store)["verified"] for name in receipts] == [True] * 5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            {"sketch_impl": "theta", "dau_theta0": Fraction(1), "mau_theta0": Fraction(1, 4)},
            {"sketch_impl": "theta", "dau_theta0": Fraction(1, 2), "mau_theta0": Fraction(1, 4)},
        ),
        ({}, {"sketch_impl": "theta", "dau_theta0": Fraction(1, 2), "mau_theta0": Fraction(1, 2)}),
    ],
    ids=["a smaller sample", "another kind"],
)
def test_after_a_change_of_settings_no_file_tells_from_which_days_somebody_was_erased(
    make_store: Make, before: dict[str, object], after: dict[str, object]
) -> None:
    days = JANUARY[:4]
    store = with_people(make_store(**before), days)
    put(store, [("her", days[1])])
    prepare(store, days)
    request([Event("her", "-", days[1])], store)
    later = make_store(**after)
    apply_and_verify(later)
    shapes = {
        (header.kind, str(header.parameters))
        for place in later.state.sketches.stored()
        if (header := later.state.sketches.header(*place))
    }
    assert len(shapes) == 1 and {day for day, _ in later.state.sketches.stored()} == set(days)


def test_where_nothing_says_any_more_how_to_count_no_day_keeps_a_sketch(make_store: Make) -> None:
    """Or those that are missing would be the days from which she was erased."""
    store = with_people(make_store(), JANUARY[:3])
    prepare(store, JANUARY[:3])
    request([Event("user 1", "-", JANUARY[1], (JANUARY[1],))], store)
    unset = make_store(sketch_impl="theta")
    assert apply_and_verify(unset).verified == 1 and unset.state.sketches.stored() == []


def test_the_damaged_state_of_another_day_is_named_and_holds_up_no_erasure(make_store: Make) -> None:
    days = JANUARY[:2]
    store = with_people(make_store(), days)
    prepare(store, days)
    (path,) = (store.settings.data_dir / "activity" / f"day={days[1]}").iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    (name,) = request([Event("user 1", "-", days[0], (days[0],))], store).receipts
    assert apply_and_verify(store).unverified == (name,)
    named = {survivor["file"] for survivor in receipt(name, store)["survivors"]}
    assert named == {f"activity/day={days[1]}/{path.name}"}
    keys = store.state.activity.read(days[0], 223)
    assert keys is not None and len(keys) == 29


# --- Refused, and shown --------------------------------------------------------------------------------------------


def test_a_run_names_all_that_is_not_set_before_it_publishes_anything(make_store: Make) -> None:
    store = with_people(make_store(sketch_impl="theta"), JANUARY)
    with pytest.raises(ParameterNotSet, match="DAU_THETA0 and MAU_THETA0 are not set") as raised:
        plan_run(JANUARY[0], JANUARY[-1], store)
    assert raised.value.fields["variables"] == ["DAU_THETA0", "MAU_THETA0"]
    half = with_people(make_store("half", sketch_impl="theta", dau_theta0=Fraction(1)), JANUARY)
    with pytest.raises(ParameterNotSet, match="MAU_THETA0 is not set"):
        plan_run(JANUARY[0], JANUARY[-1], half)
    assert plan_run(JANUARY[0], JANUARY[5], half), "no MAU is due in the first days"


@pytest.mark.parametrize(
    "unchecked",
    [
        {**SKETCHES["kmv"], "mau_mechanism": "gaussian_stream"},
        {**SKETCHES["hllpp"], "mau_mechanism": "gaussian_stream"},
        {**SKETCHES["theta"], "hash_salt_rotation_days": 59},
    ],
    ids=["kmv", "hllpp", "short epochs"],
)
def test_no_stream_begins_with_a_sketch_that_it_may_not_have_even_if_settings_were_not_checked(
    make_store: Make, unchecked: dict[str, object]
) -> None:
    store = with_people(make_store(**unchecked), JANUARY)
    process_days(JANUARY, store)
    with pytest.raises(BadSetting, match=r"not for a stream|too few for a sample"):
        publish("mau", FIRST_MAU, store)
    assert not store.accountant.mechanism_runs()


def test_a_full_sketch_is_published_without_an_upper_bound_and_the_mart_shows_it(
    make_store: Make, tmp_path: Path
) -> None:
    store = with_people(make_store(**{**SKETCHES["kmv"], "kmv_k": 16}), [START], people=60)
    prepare(store, [START])
    answer = release_answer(publish("dau", START, store), store.settings, store.accountant)
    wide = with_people(make_store("wide", **{**SKETCHES["hllpp"], "hll_registers": 16}), [START], people=900)
    prepare(wide, [START])
    release = replace(publish("dau", START, wide), noisy_value=16.0)  # all registers, whatever was drawn
    (run,) = wide.accountant.mechanism_runs()
    assert interval(release, run).upper_95 is None
    row = replace(mart_rows(store.accountant)[0], upper_95=None)
    files = MartFiles(tmp_path / "mart").replace([row])
    assert files.chart.read_text().startswith("<svg")
    assert MartFiles(tmp_path / "mart").read() == [row]
    assert row.noisy_value == answer.noisy_value


def test_a_living_store_with_another_size_builds_its_sketches_anew(make_store: Make) -> None:
    days = [*JANUARY[-1:], date(2025, 2, 1)]
    for kind, size in (("kmv", {"kmv_k": 128}), ("hllpp", {"hll_registers": 1 << 11})):
        store = silent(with_people(make_store(kind, **SKETCHES[kind]), days))
        prepare(store, days)
        publish("dau", days[0], store)
        other = silent(make_store(kind, **{**SKETCHES[kind], **size}))
        assert publish("dau", days[1], other).noisy_value == pytest.approx(30, abs=2)
        (value,) = size.values()
        assert str(value) in counted(other, other.accountant.releases()[-1]).values()
