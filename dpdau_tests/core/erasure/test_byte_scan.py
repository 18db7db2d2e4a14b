"""Keys in raw bytes, against a search for one form at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.erasure.byte_scan import Needles
from dpdau_assets.core.facts import Keys

KEY = 0x9ABCDEF012345678
edges = st.sampled_from([0, 1, 10**9 - 1, 10**9, 2**36 - 1, 2**36, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1])
any_key = st.integers(2**40, 2**64 - 1) | st.integers(0, 2**64 - 1) | edges
key_set = st.sets(any_key, min_size=1, max_size=6)
filler = st.binary(max_size=40) | st.text("0123456789abcdefABCDEFghij \x10\x19", max_size=40).map(str.encode)


def array(keys: set[int]) -> Keys:
    return np.array(sorted(keys), dtype=np.uint64)


def binary_forms(key: int) -> set[bytes]:
    return {key.to_bytes(8, "little"), key.to_bytes(8, "big")}


def text_forms(key: int) -> set[bytes]:
    signed = key if key < 2**63 else key - 2**64
    hexes = {key.to_bytes(8, "big").hex(), key.to_bytes(8, "little").hex()}
    forms = {str(key), str(abs(signed)), *hexes, *(text.lstrip("0") for text in hexes)}
    return {text.encode() for text in forms if len(text) >= 10}


def by_one_form_at_a_time(keys: Keys, data: bytes) -> list[int]:
    lower = data.lower()
    return [
        index
        for index, key in enumerate(keys.tolist())
        if any(form in data for form in binary_forms(key)) or any(form in lower for form in text_forms(key))
    ]


def cut(data: bytes, places: list[int]) -> Iterator[bytes | memoryview]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    for number, (first, end) in enumerate(pairwise(bounds)):
        yield memoryview(data)[first:end] if number % 2 else data[first:end]


def found(keys: set[int], *chunks: bytes) -> list[int]:
    return Needles(array(keys)).found_in(chunks).tolist()


@st.composite
def stream_with_some(draw: st.DrawFn, keys: set[int]) -> bytes:
    """Filler and forms of some of the keys, whole or damaged, in any order."""
    pieces = []
    for key in draw(st.lists(st.sampled_from(sorted(keys)), max_size=5)):
        form = draw(st.sampled_from(sorted(binary_forms(key) | text_forms(key))))
        damage = draw(st.sampled_from([bytes, bytes, bytes.upper, bytes.title, lambda form: form[1:]]))
        pieces += [draw(filler), damage(form)]
    return b"".join([*pieces, draw(filler)])


@given(st.data())
def test_what_is_found_is_what_a_search_for_one_form_at_a_time_finds(data: st.DataObject) -> None:
    keys = data.draw(key_set)
    stream = data.draw(stream_with_some(keys))
    places = data.draw(st.lists(st.integers(0, 200), max_size=8))
    expected = by_one_form_at_a_time(array(keys), stream)
    assert Needles(array(keys)).found_in(cut(stream, places)).tolist() == expected


@given(key_set, st.binary(max_size=300))
def test_nothing_is_found_in_bytes_that_hold_none(keys: set[int], stream: bytes) -> None:
    keys = {key for key in keys if not by_one_form_at_a_time(array({key}), stream)}
    assert found(keys, stream) == []


@pytest.mark.parametrize("form", sorted(binary_forms(KEY) | text_forms(KEY)), ids=bytes.hex)
@pytest.mark.parametrize("offset", range(9))
def test_every_form_is_found_at_every_offset_and_cut_anywhere(form: bytes, offset: int) -> None:
    stream = bytes(offset) + form
    assert found({5**20, KEY}, stream + b"\0") == [1]
    assert found({5**20, KEY}, *(bytes([byte]) for byte in stream)) == [1]
    for place in range(1, len(stream)):
        assert found({5**20, KEY}, stream[:place], stream[place:]) == [1]


@pytest.mark.parametrize("key", [0x000000A123456789, 0x0A00000000000000, 0x8000000000000000, 7])
def test_hex_text_is_found_with_its_leading_zeros_in_either_order_of_bytes_and_any_case(key: int) -> None:
    for order in ("big", "little"):
        text = key.to_bytes(8, order).hex()
        assert found({key}, text.encode()) == [0]
        assert found({key}, f"0x{text.upper()}".encode()) == [0]
        assert found({key}, text.title().encode()) == [0]


def test_hex_text_is_found_without_its_leading_zeros() -> None:
    assert found({0x000000A123456789}, b"key=a123456789;") == [0]


def test_a_number_is_found_inside_a_longer_run_of_digits() -> None:
    assert found({12345678901234567890}, b"00123456789012345678907") == [0]
    assert found({KEY}, b"ab%016xcd" % KEY) == [0]


def test_a_negative_number_is_found() -> None:
    assert found({2**64 - 1234567890123}, b"[-1234567890123]") == [0]


def test_a_text_of_nine_digits_is_not_evidence_but_its_bytes_are() -> None:
    assert found({123456789}, b"at 123456789.0") == []
    assert found({123456789}, (123456789).to_bytes(8, "big")) == [0]


def test_bytes_that_only_look_like_digits_when_lower_cased_are_not_a_text() -> None:
    assert found({KEY}, bytes(byte & ~0x20 for byte in str(KEY).encode())) == []


def test_a_key_that_is_another_one_backwards_is_found_too() -> None:
    backwards = int.from_bytes(KEY.to_bytes(8, "big"), "little")
    assert found({KEY, backwards}, KEY.to_bytes(8, "big")) == [0, 1]


def test_no_keys_are_nowhere() -> None:
    assert found(set(), b"anything", b"at all") == []


def test_many_keys_are_found_in_more_than_one_block_from_many_threads() -> None:
    random = np.random.default_rng(3)
    keys = np.unique(random.integers(0, 2**64, 5000, dtype=np.uint64))
    needles = Needles(keys)

    def planted(seed: int) -> tuple[list[int], bytes]:
        own = np.random.default_rng(seed)
        stream = bytearray(own.bytes(1_300_000))
        indices = np.unique(own.integers(0, len(keys), 40))
        for slot, index in enumerate(indices.tolist()):
            forms = sorted(binary_forms(int(keys[index])) | text_forms(int(keys[index])))
            form = forms[slot % len(forms)]
            place = slot * 30_000 + int(own.integers(0, 29_000))
            stream[place : place + len(form)] = form
        return indices.tolist(), bytes(stream)

    streams = [planted(seed) for seed in range(10, 16)]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda stream: needles.found_in([stream]).tolist(), [each for _, each in streams]))
    assert results == [indices for indices, _ in streams]


def test_a_text_full_of_digits_holds_the_keys_that_are_planted_in_it() -> None:
    random = np.random.default_rng(4)
    keys = np.unique(random.integers(0, 2**64, 2000, dtype=np.uint64))
    numbers = [str(number) for number in random.integers(0, 2**63, 30_000).tolist()]
    numbers[7_000], numbers[20_000] = str(keys[3]), f"{keys[1500]:x}".upper()
    assert Needles(keys).found_in([",".join(numbers).encode()]).tolist() == [3, 1500]
