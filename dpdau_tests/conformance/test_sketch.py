"""What every kind of sketch must do; a new kind is finished when it passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.facts import Keys
from dpdau_assets.core.sketches import KINDS, from_bytes, unite
from dpdau_assets.core.sketches.base import Sketch, to_bytes

key_set = st.sets(st.integers(0, 2**64 - 1), max_size=50)
every_kind = pytest.mark.parametrize("kind", sorted(KINDS))


def array(found: set[int]) -> Keys:
    return np.array(sorted(found), dtype=np.uint64)


def build(kind: str, found: set[int], epoch: int = 3) -> Sketch:
    return KINDS[kind].build(array(found), epoch, "source")


def as_bytes(sketch: Sketch) -> bytes:
    return b"".join(to_bytes(sketch))


@every_kind
@given(one=key_set, other=key_set, new=st.integers(0, 2**64 - 1))
def test_one_more_user_changes_the_statistic_of_a_union_by_0_or_1(kind: str, one: set, other: set, new: int) -> None:
    before = unite([build(kind, one), build(kind, other)]).statistic()
    after = unite([build(kind, one | {new}), build(kind, other)]).statistic()
    assert after - before in (0, 1)


@every_kind
@given(sets=st.lists(key_set, min_size=1, max_size=4))
def test_order_and_repeats_do_not_matter_in_a_union(kind: str, sets: list[set[int]]) -> None:
    sketches = [build(kind, found) for found in sets]
    assert unite(sketches).statistic() == unite([*reversed(sketches), sketches[0]]).statistic()


@given(sets=st.lists(key_set, min_size=1, max_size=4))
def test_the_exact_set_counts_the_users_in_any_of_the_days(sets: list[set[int]]) -> None:
    assert unite([build("set", found) for found in sets]).statistic() == len(set().union(*sets))


@every_kind
@given(found=key_set, gone=key_set)
def test_a_removed_user_leaves_the_bytes_of_a_sketch_that_never_had_her(kind: str, found: set, gone: set) -> None:
    assert as_bytes(build(kind, found | gone).without(array(gone))) == as_bytes(build(kind, found - gone))


@every_kind
@given(found=key_set)
def test_a_sketch_survives_its_bytes(kind: str, found: set[int]) -> None:
    sketch = build(kind, found)
    back = from_bytes(as_bytes(sketch))
    assert back.header == sketch.header
    assert as_bytes(back) == as_bytes(sketch)


@every_kind
@given(found=st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=20), data=st.data())
def test_any_changed_byte_is_refused(kind: str, found: set[int], data: st.DataObject) -> None:
    good = bytearray(as_bytes(build(kind, found)))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadInput):
        from_bytes(bytes(good))


@every_kind
@given(found=key_set, data=st.data())
def test_cut_off_bytes_are_refused(kind: str, found: set[int], data: st.DataObject) -> None:
    good = as_bytes(build(kind, found))
    with pytest.raises(BadInput):
        from_bytes(good[: data.draw(st.integers(0, len(good) - 1))])


@every_kind
def test_sketches_of_two_salt_epochs_are_not_united(kind: str) -> None:
    with pytest.raises(BadInput, match="cannot be united"):
        unite([build(kind, {1}, epoch=3), build(kind, {1}, epoch=4)])


def test_a_union_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput):
        unite([])
