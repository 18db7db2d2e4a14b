"""Set operations on sorted, distinct arrays of 64-bit keys."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from dpdau_assets.core.facts import Keys

EMPTY: Keys = np.empty(0, dtype=np.uint64)
_SMALL = 1 << 18  # below this one sort is quicker than handing ranges to threads
_RANGES = 64


def unite(arrays: Sequence[Keys]) -> Keys:
    """The union: sorted and distinct. Memory: one copy of the input."""
    if not arrays:
        return EMPTY
    if sum(len(keys) for keys in arrays) <= _SMALL:
        return _merge(arrays)
    return np.concatenate(_by_range(arrays))


def sorted_distinct(words: Keys) -> Keys:
    """The words in order, each once."""
    ordered = np.sort(words)
    return ordered[_is_first(ordered)]


def subtract(keys: Keys, removed: Keys) -> Keys:
    """The keys that are not in `removed` (sorted, distinct too), still sorted; the same array when nothing goes."""
    gone = places(keys, removed)
    return np.delete(keys, gone) if len(gone) else keys


def places(keys: Keys, wanted: Keys) -> np.ndarray:
    """Where in `keys` those of `wanted` stand that are there; both sorted and distinct. Cost goes with `wanted`."""
    if not len(keys):
        return np.empty(0, dtype=np.intp)
    at = np.searchsorted(keys, wanted)
    at[at == len(keys)] = 0
    return at[keys[at] == wanted]


def members(keys: Keys, wanted: Keys) -> Keys:
    """Which of `wanted` are in `keys`; both sorted and distinct."""
    return keys[places(keys, wanted)]


def is_key_set(keys: Keys) -> bool:
    """Whether the array is strictly increasing."""
    return bool((keys[1:] > keys[:-1]).all())


def digest(keys: Keys) -> str:
    """SHA-256 of the keys as little-endian bytes, in hex: the same set gives the same digest."""
    return hashlib.sha256(little_endian(keys)).hexdigest()


def little_endian(keys: Keys) -> memoryview:
    """The keys as bytes, 8 a key, without a copy where the machine stores them so."""
    return memoryview(np.ascontiguousarray(keys, dtype="<u8").data).cast("B")


def _merge(arrays: Sequence[Keys]) -> Keys:
    merged = np.concatenate(arrays)
    merged.sort(kind="stable")  # timsort: sorted runs are merged, not sorted again
    return merged[_is_first(merged)]


def _is_first(ordered: Keys) -> np.ndarray:
    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first


def _by_range(arrays: Sequence[Keys]) -> list[Keys]:
    """The union in key ranges, in order. Keys are uniform hashes, so ranges are even; numpy sorts without the GIL."""
    edges = (np.arange(1, _RANGES, dtype=np.uint64)) * np.uint64(2**64 // _RANGES)
    cuts = [[0, *np.searchsorted(keys, edges), len(keys)] for keys in arrays]
    ranges = [
        [keys[a:b] for keys, (a, b) in zip(arrays, spans, strict=True)]
        for spans in zip(*(pairwise(cut) for cut in cuts), strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(_merge, ranges))
