"""How many distinct words each window has, of many windows that slide over consecutive days: one pass over the days.

A window has as many distinct words as its days have together, less one for each return inside of it: for a word of one
of its days that came before on another of them. Words are sorted with their days, a block of days at a time, so that
the days of one word stand side by side; from block to block the last day of each word is carried on.

Memory: 16 bytes a word of one block, which has at most `WORDS_AT_ONCE` words, or one day; and about 45 bytes a word of
one window, of which 12 are carried from block to block.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from dpdau_assets.core.facts import Keys
from dpdau_assets.core.sketches.keysets import EMPTY

WORDS_AT_ONCE = 1 << 23
"""In smaller blocks more of the work is on words that are carried on: at most as many as one window has."""


def distinct_in_windows(days: Iterable[Keys], window_days: int) -> list[int]:
    """How many distinct words each window has, by the day on which it ends; the days are consecutive.

    A day is its words (uint64, sorted, distinct). The first windows are cut where the days begin.
    """
    sizes: list[int] = []
    returns: Counter[int] = Counter()  # by day: how many more are inside the window than on the day before
    last = _LastDays(EMPTY, np.empty(0, np.uint32))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for block in _blocks(days, window_days):
            last, change = _fold(block, last, window_days, threads)
            returns.update(dict(enumerate(change.tolist(), len(sizes) - window_days)))
            sizes += map(len, block)
            del block  # or it would be there while the next one is gathered
    together = [0, *accumulate(sizes)]
    inside = accumulate(returns[day] for day in range(len(sizes)))
    return [
        together[end] - together[max(0, end - window_days)] - repeated for end, repeated in enumerate(inside, start=1)
    ]


def _blocks(days: Iterable[Keys], window_days: int) -> Iterator[list[Keys]]:
    """Days until they have enough words; not too many, or more bits of a word would have to make room for its day."""
    block: list[Keys] = []
    for words in days:
        if block and (len(block) == 3 * window_days or sum(map(len, block)) + len(words) > WORDS_AT_ONCE):
            yield block
            block = []
        block.append(words)
    if block:
        yield block


@dataclass(frozen=True)
class _LastDays:
    """Words, in order, with the last day of each that a window which is still to come can have, counted like this: the
    last day is that of a window's length, the one before it one less, and so on.
    """

    words: Keys
    days: npt.NDArray[np.uint32]


def _fold(
    block: Sequence[Keys], carried: _LastDays, window_days: int, threads: Executor
) -> tuple[_LastDays, npt.NDArray[np.int64]]:
    """The last days after the block, and by how much the number of returns inside the window changes on each day.

    The first of those is a window's length before the block; so are the days counted by here.
    """
    bits = (window_days + len(block)).bit_length()
    dated = [(carried.words << np.uint64(bits)) | carried.days]
    dated += [(words << np.uint64(bits)) | np.uint64(window_days + at) for at, words in enumerate(block)]
    edges = np.arange(1, 1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
    cuts = [[0, *np.searchsorted(words, edges), len(words)] for words in (carried.words, *block)]
    ranges = (
        [words[start:end] for words, (start, end) in zip(dated, bounds, strict=True)]
        for bounds in zip(*(pairwise(cut) for cut in cuts), strict=True)
    )
    folded = list(threads.map(lambda dated: _fold_range(dated, bits, len(block), window_days), ranges))
    # The bits that the day has displaced are the same for all words of a range: its number.
    words = [last.words | (np.uint64(number) << np.uint64(64 - bits)) for number, (last, _) in enumerate(folded)]
    last = _LastDays(np.concatenate(words), np.concatenate([last.days for last, _ in folded]))
    return last, np.sum([change for _, change in folded], axis=0)


def _fold_range(
    parts: Sequence[Keys], bits: int, block_days: int, window_days: int
) -> tuple[_LastDays, npt.NDArray[np.int64]]:
    """`_fold` for words that share their upper `bits` bits, which are shifted out to make room for the day."""
    dated = np.concatenate(parts)
    dated.sort()
    mask = (1 << bits) - 1
    days = dated.astype(np.uint32) & np.uint32(mask)
    again = (dated[1:] ^ dated[:-1]) <= np.uint64(mask)
    returns = np.flatnonzero(again)
    before, after = days[returns], days[returns + 1]
    inside = after - before < window_days
    length = block_days + 2 * window_days
    change = np.bincount(after[inside], minlength=length) - np.bincount(
        before[inside] + np.uint32(window_days), minlength=length
    )
    is_last = days > block_days
    is_last[:-1] &= ~again
    return _LastDays(dated[is_last] >> np.uint64(bits), days[is_last] - np.uint32(block_days)), change
