"""What every kind of sketch must do; a new kind is finished when it passes.

Keys are drawn where a sketch could stumble: at thresholds, at the edges of registers, alike but for their last bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.errors import BadInput, Refused
from dpdau_assets.core.facts import Keys
from dpdau_assets.core.sketches import (
    ESTIMATORS,
    KINDS,
    build,
    estimator_from,
    from_bytes,
    keysets,
    parameters_of,
    unite,
)
from dpdau_assets.core.sketches.base import Estimator, Header, Sketch, to_bytes
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.core.sketches.hllpp import HllEstimator
from dpdau_assets.core.sketches.keysets import is_key_set
from dpdau_assets.core.sketches.kmv import KmvEstimator
from dpdau_assets.core.sketches.theta import ThetaEstimator, ThetaSketch, theta_hashes
from dpdau_tests.support.lengths import at_length

COUNTED = [
    ExactEstimator(),
    ThetaEstimator(Fraction(1)),
    ThetaEstimator(Fraction(1, 2)),
    ThetaEstimator(Fraction(1, 8)),
    KmvEstimator(8, Fraction(1)),
    KmvEstimator(8, Fraction(1, 2)),
    KmvEstimator(64, Fraction(1, 4)),
    HllEstimator(16, 1),
    HllEstimator(16, 3),
    HllEstimator(64, 2),
]
LAST_KEY = 2**64 - 1

edges = st.sampled_from([0, 2**60, 2**61, 2**62, 2**63, LAST_KEY])
near_an_edge = st.builds(lambda edge, off: (edge + off) % 2**64, edges, st.integers(-2, 2))
of_few_bits = st.builds(lambda bit, low: (1 << bit) | low, st.integers(0, 63), st.integers(0, 3))
keys_of_users = st.one_of(st.integers(0, LAST_KEY), near_an_edge, of_few_bits)
key_set = st.sets(keys_of_users, max_size=50)
examples = settings(max_examples=at_length(test=20, ci=60, soak=1_000))  # of each counting
every_counting = pytest.mark.parametrize(
    "estimator", COUNTED, ids=lambda counted_by: "-".join(parameters_of(counted_by).values())
)


def array(members: Iterable[int]) -> Keys:
    return np.array(sorted(members), dtype=np.uint64)


def sketch_of(estimator: Estimator, members: Iterable[int], epoch: int = 3) -> Sketch:
    return build(estimator.header(epoch, "source"), array(members))


def as_bytes(sketch: Sketch) -> bytes:
    return b"".join(to_bytes(sketch))


def counted(estimator: Estimator, *sets: Iterable[int]) -> int:
    return estimator.statistic(unite([sketch_of(estimator, members) for members in sets]))


def test_every_kind_has_its_counting_and_is_tested_here() -> None:
    assert set(KINDS) == set(ESTIMATORS) == {estimator.kind for estimator in COUNTED}


# --- The statistic -----------------------------------------------------------------------------------------------


@every_counting
@examples
@given(sets=st.lists(key_set, min_size=1, max_size=4))
def test_the_statistic_of_a_union_is_counted_from_the_words_of_its_days(
    estimator: Estimator, sets: list[set[int]]
) -> None:
    days = [estimator.words(sketch_of(estimator, members)) for members in sets]
    assert all(is_key_set(words) for words in days)
    assert estimator.counted(len(keysets.unite(days))) == counted(estimator, *sets)


@pytest.mark.also_long
@every_counting
@examples
@given(first=key_set, other=key_set, new=keys_of_users)
def test_one_more_user_changes_the_statistic_of_a_union_by_0_or_1(
    estimator: Estimator, first: set[int], other: set[int], new: int
) -> None:
    assert counted(estimator, first | {new}, other) - counted(estimator, first, other) in (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_in_adversarial_unions_one_more_user_changes_the_statistic_by_0_or_1(kind: str) -> None:
    """Some tested unions are all but full, so that a newcomer pushes somebody out."""
    estimators = [estimator for estimator in COUNTED if estimator.kind == kind]
    random, cases, changed = np.random.default_rng(20251125), 0, 0
    while cases < at_length(ci=50_000, soak=1_000_000):
        estimator = estimators[cases % len(estimators)]
        first, other = (_adversarial(random, int(random.integers(0, 80))) for _ in range(2))
        second = build(estimator.header(3, "b"), other)
        before = estimator.statistic(unite([build(estimator.header(3, "a"), first), second]))
        for new in _adversarial(random, 251):
            after = estimator.statistic(unite([build(estimator.header(3, "a"), np.union1d(first, [new])), second]))
            assert after - before in (0, 1), (estimator, first, other, new)
            changed += after - before
            cases += 1
    assert 0 < changed < cases


def _adversarial(random: np.random.Generator, users: int) -> Keys:
    """Uniform keys, keys with many leading zeros in their register, and keys beside powers of two."""
    uniform = random.integers(0, 2**64, users, dtype=np.uint64)
    ranks = random.integers(0, 60, users).astype(np.uint64)
    low = (uniform & np.uint64(0xFC00000000000000)) | ((uniform & np.uint64(2**58 - 1)) >> ranks)
    beside = (np.uint64(1) << (ranks % np.uint64(64))) + random.integers(-2, 3, users).astype(np.uint64)
    return np.unique(np.choose(random.integers(0, 3, users), [uniform, low, beside]))


def test_the_exact_set_counts_the_users_in_any_of_the_days() -> None:
    assert counted(ExactEstimator(), {1, 2, 3}, {3, 4}, ()) == 4


@pytest.mark.also_long
@every_counting
@examples
@given(sets=st.lists(key_set, min_size=1, max_size=4))
def test_a_statistic_is_what_its_definition_says_of_all_users(estimator: Estimator, sets: list[set[int]]) -> None:
    """Computed again in plain Python, from nothing but the users' keys."""
    users = set().union(*sets)
    match estimator:
        case ThetaEstimator(theta0):
            hashes = {int(hash_) for hash_ in theta_hashes(array(users))}
            expected = sum(0 < hash_ < theta0 * 2**63 for hash_ in hashes)
        case KmvEstimator(k, theta0):
            expected = min(k, sum(key < theta0 * 2**64 for key in users))
        case HllEstimator(registers, level):
            expected = len(
                {bits[: registers.bit_length() - 1] for key in users if rank(bits := f"{key:064b}", registers) >= level}
            )
        case _:
            expected = len(users)
    assert counted(estimator, *sets) == expected


def rank(bits: str, registers: int) -> int:
    rest = bits[registers.bit_length() - 1 :]
    return len(rest) - len(rest.lstrip("0")) + 1


# --- Unions ------------------------------------------------------------------------------------------------------


@pytest.mark.also_long
@every_counting
@examples
@given(sets=st.lists(key_set, min_size=1, max_size=4))
def test_order_and_repeats_do_not_matter_in_a_union(estimator: Estimator, sets: list[set[int]]) -> None:
    sketches = [sketch_of(estimator, members) for members in sets]
    assert as_bytes(unite(sketches)) == as_bytes(unite([*reversed(sketches), sketches[0]]))


@pytest.mark.also_long
@every_counting
@examples
@given(sets=st.lists(key_set, min_size=1, max_size=4))
def test_a_union_is_the_sketch_of_the_users_in_any_of_the_days(estimator: Estimator, sets: list[set[int]]) -> None:
    united = unite([sketch_of(estimator, members) for members in sets])
    assert bytes(united.body()) == bytes(sketch_of(estimator, set().union(*sets)).body())
    assert bytes(unite([united, united]).body()) == bytes(united.body())


@given(members=key_set, larger=st.integers(0, 6), smaller=st.integers(0, 6))
def test_a_sketch_of_a_larger_sample_is_counted_as_one_of_a_smaller_sample(
    members: set[int], larger: int, smaller: int
) -> None:
    assume(smaller >= larger)
    wide, narrow = ThetaEstimator(Fraction(1, 2**larger)), ThetaEstimator(Fraction(1, 2**smaller))
    assert narrow.reads(wide.header(3, "source")) and (wide.reads(narrow.header(3, "source")) is (larger == smaller))
    assert as_bytes(narrow.narrowed(sketch_of(wide, members))) == as_bytes(sketch_of(narrow, members))


@pytest.mark.parametrize("other", COUNTED)
@every_counting
def test_a_mixed_union_is_refused_by_name(estimator: Estimator, other: Estimator) -> None:
    first, second = sketch_of(estimator, {1}), sketch_of(other, {2})
    if first.header == second.header:
        assert unite([first, second]).header.parameters == first.header.parameters
        return
    with pytest.raises(BadInput) as raised:
        unite([first, second])
    named = "parameters" if estimator.kind == other.kind else estimator.kind
    assert named in raised.value.reason and (named == "parameters" or other.kind in raised.value.reason)


@every_counting
def test_sketches_of_two_salt_epochs_are_not_united(estimator: Estimator) -> None:
    with pytest.raises(BadInput, match="different epoch cannot be united: 3, 4"):
        unite([sketch_of(estimator, {1}, epoch=3), sketch_of(estimator, {1}, epoch=4)])


@every_counting
def test_sketches_of_two_hash_seeds_are_not_united(estimator: Estimator) -> None:
    header = replace(estimator.header(3, "source"), hash_seed=42)
    with pytest.raises(BadInput, match="different hash_seed cannot be united"):
        unite([sketch_of(estimator, {1}), build(header, array({1}))])


def test_a_union_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput):
        unite([])


# --- Taking users out --------------------------------------------------------------------------------------------


@pytest.mark.also_long
@every_counting
@examples
@given(members=key_set, gone=key_set)
def test_a_removed_user_leaves_the_bytes_of_a_sketch_that_never_had_her(
    estimator: Estimator, members: set[int], gone: set[int]
) -> None:
    """Or the sketch says that only one built anew can tell, which the linear ones never do."""
    left = sketch_of(estimator, members | gone).without(array(gone))
    if left is None:
        assert not estimator.linear
    else:
        assert as_bytes(left) == as_bytes(sketch_of(estimator, members - gone))


@given(members=key_set, gone=key_set)
def test_a_kmv_sketch_with_room_loses_a_user_exactly_and_a_full_one_only_users_it_does_not_hold(
    members: set[int], gone: set[int]
) -> None:
    roomy, full = KmvEstimator(200, Fraction(1)), KmvEstimator(4, Fraction(1))
    left = sketch_of(roomy, members).without(array(gone))
    assert left is not None and as_bytes(left) == as_bytes(sketch_of(roomy, members - gone))
    held = set(sorted(members)[:4])
    assert (sketch_of(full, members).without(array(gone)) is None) == (len(held) == 4 and bool(held & gone))


def test_a_register_keeps_no_trace_of_a_user_below_its_rank() -> None:
    estimator, high, low = HllEstimator(16, 1), 1 << 40, 1 << 50  # of one register, with ranks 20 and 10
    sketch = sketch_of(estimator, {high, low})
    assert sketch.traces(array({low, high})).tolist() == [high]
    assert sketch.without(array({low})) is sketch and sketch.without(array({high})) is None
    assert len(sketch.traces(array({1 << 63}))) == 0, "nobody was offered to that register"


@pytest.mark.parametrize(
    ("estimator", "other"),
    [
        (KmvEstimator(8, Fraction(1)), KmvEstimator(16, Fraction(1))),
        (HllEstimator(16, 1), HllEstimator(64, 1)),
        (ThetaEstimator(Fraction(1, 2)), KmvEstimator(8, Fraction(1, 2))),
        (ExactEstimator(), ThetaEstimator(Fraction(1))),
    ],
)
def test_a_counting_reads_no_sketch_of_another_size_or_kind(estimator: Estimator, other: Estimator) -> None:
    assert estimator.reads(estimator.header(3, "source")) and other.reads(other.header(3, "source"))
    assert not estimator.reads(other.header(3, "source")) and not other.reads(estimator.header(3, "source"))


@pytest.mark.also_long
@every_counting
@examples
@given(members=key_set, her=keys_of_users)
def test_without_a_trace_of_her_the_sketch_is_as_if_she_had_never_been(
    estimator: Estimator, members: set[int], her: int
) -> None:
    sketch = sketch_of(estimator, members | {her})
    never = sketch_of(estimator, members - {her})
    assert len(never.traces(array({her}))) == 0 or not estimator.linear
    if not len(sketch.traces(array({her}))):
        assert as_bytes(sketch) == as_bytes(never)


# --- Bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.also_long
@every_counting
@examples
@given(members=key_set)
def test_a_sketch_survives_its_bytes(estimator: Estimator, members: set[int]) -> None:
    sketch = sketch_of(estimator, members)
    back = from_bytes(as_bytes(sketch))
    assert back.header == sketch.header and estimator.reads(back.header)
    assert as_bytes(back) == as_bytes(sketch)
    assert estimator.statistic(back) == estimator.statistic(sketch)


@pytest.mark.also_long
@every_counting
@examples
@given(members=st.sets(keys_of_users, min_size=1, max_size=20), data=st.data())
def test_any_changed_byte_is_refused(estimator: Estimator, members: set[int], data: st.DataObject) -> None:
    good = bytearray(as_bytes(sketch_of(estimator, members)))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadInput):
        from_bytes(bytes(good))


@pytest.mark.also_long
@every_counting
@examples
@given(members=key_set, data=st.data())
def test_cut_off_bytes_are_refused(estimator: Estimator, members: set[int], data: st.DataObject) -> None:
    good = as_bytes(sketch_of(estimator, members))
    with pytest.raises(BadInput):
        from_bytes(good[: data.draw(st.integers(0, len(good) - 1))])


@every_counting
def test_another_format_and_an_unknown_kind_are_refused_by_name(estimator: Estimator) -> None:
    sketch = sketch_of(estimator, {1, 2, 3})
    for changed, says in (
        ({"version": 2}, "version 2, this program reads 1"),
        ({"kind": "bloom"}, "'bloom' is unknown"),
    ):
        with pytest.raises(BadInput, match=says):
            from_bytes(as_bytes(_Told(replace(sketch.header, **changed), sketch.body())))


@every_counting
def test_a_body_that_is_not_of_its_header_is_refused(estimator: Estimator) -> None:
    """The checksum of the bytes holds: so a writer that errs is noticed as well as a damaged disk."""
    sketch = sketch_of(estimator, {2**n for n in range(8)})
    shorter = bytes(sketch.body())[:-3]
    with pytest.raises(BadInput, match="cannot be read"):
        from_bytes(as_bytes(_Told(sketch.header, shorter)))


def _with_hashes(estimator: ThetaEstimator, *hashes: int) -> bytes:
    return bytes(ThetaSketch.of_hashes(estimator.header(3, ""), array(hashes)).body())


@pytest.mark.parametrize(
    ("header", "body", "says"),
    [
        (
            ThetaEstimator(Fraction(1, 2)).header(3, ""),
            sketch_of(ThetaEstimator(Fraction(1, 4)), {1}).body(),
            "preamble",
        ),
        (ThetaEstimator(Fraction(1, 2)).header(3, ""), b"", "preamble"),
        (
            ThetaEstimator(Fraction(1, 2)).header(3, ""),
            sketch_of(ThetaEstimator(Fraction(1)), range(9)).body(),
            "preamble",
        ),
        (
            ThetaEstimator(Fraction(1, 8)).header(3, ""),
            _with_hashes(ThetaEstimator(Fraction(1, 8)), 2**60),
            "not in the",
        ),
        (
            ThetaEstimator(Fraction(1, 8)).header(3, ""),
            _with_hashes(ThetaEstimator(Fraction(1, 8)), 0),
            "not in the sample",
        ),
        (replace(ThetaEstimator(Fraction(1, 2)).header(3, ""), hash_seed=42), b"", "hash seed 42"),
        (Header("theta", 3, "", {"theta0": 0.3}, 9001), b"", "no Theta sketch of this program"),
        (Header("theta", 3, "", {}, 9001), b"", "no number for theta0"),
        (Header("theta", 3, "", {"theta0": float("nan")}, 9001), b"", "no number for theta0"),
        (Header("kmv", 3, "", {"k": float("inf")}), b"", "no number for k"),
        (Header("kmv", 3, "", {"k": "8"}), b"", "no number for k"),  # type: ignore[dict-item]
        (Header("hllpp", 3, "", []), b"", "no number for registers"),  # type: ignore[arg-type]
        (Header("hllpp", 3, "", {"registers": 0}), b"", "0 registers and not 0, a power of two"),
        (Header("hllpp", 3, "", {"registers": 3}), bytes(3), "a power of two"),
        (
            KmvEstimator(8, Fraction(1)).header(3, ""),
            sketch_of(KmvEstimator(64, Fraction(1)), range(9)).body(),
            "k of 8",
        ),
        (HllEstimator(16, 1).header(3, ""), bytes([0] * 15), "15 registers and not 16"),
        (HllEstimator(16, 1).header(3, ""), bytes([0] * 15 + [62]), "no rank 62"),
        (ExactEstimator().header(3, ""), array({1, 2})[::-1].tobytes(), "not in order"),
    ],
)
def test_what_contradicts_its_parameters_is_refused(header: Header, body: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        from_bytes(as_bytes(_Told(header, body)))


class _Told:
    """A sketch that says what it is told to."""

    def __init__(self, header: Header, body: bytes | memoryview) -> None:
        self.header = header
        self._body = body

    def body(self) -> bytes | memoryview:
        return self._body


# --- Public parameters -------------------------------------------------------------------------------------------


@every_counting
def test_kind_and_public_parameters_survive_the_terms_of_an_instance(estimator: Estimator) -> None:
    assert estimator_from({**parameters_of(estimator), "restatement_day": "5"}) == estimator
    assert estimator.header(3, "") == Header(**asdict(estimator.header(3, "")))


def test_terms_that_are_not_known_are_refused() -> None:
    for parameters in ({"sketch_impl": "bloom"}, {"sketch_impl": "theta"}):
        with pytest.raises(Refused, match="not known here"):
            estimator_from(parameters)


@pytest.mark.parametrize("users", [0.0, -3.0, 1.0, 1e3, 16_384.0, 32_768.0, 5e4, 1e6, 1e9, 1e20])
def test_parameters_are_chosen_for_the_users_that_were_published_last(users: float) -> None:
    theta = ThetaEstimator.for_users(users).theta0
    kmv = KmvEstimator.for_users(users, 1 << 16)
    hll = HllEstimator.for_users(users, 1 << 14)
    assert theta == 1 if users < 32_768 else (16_384 <= users * theta < 32_768 or theta == Fraction(1, 2**32))
    assert kmv == KmvEstimator(1 << 16, theta)
    load = users * 2.0 ** (1 - hll.level) / (1 << 14)
    assert hll.level == 1 if users < 1.13 * 16_384 * 2 else (1.13 <= load <= 2.27 or hll.level == 51)
