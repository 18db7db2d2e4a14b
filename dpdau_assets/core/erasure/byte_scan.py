"""Which of many 64-bit keys stand in a stream of bytes, in whatever form they were written.

A needle is a key in one form, as bytes. Words are the stream's 4-byte words at every fourth offset: eight bytes at any
offset hold at least one whole word, so a filter on words misses nothing and reads a quarter of the offsets. What
passes is looked up by its head, the first 8 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpdau_assets.core.facts import Keys

Index = npt.NDArray[np.intp]

# A key whose text is shorter is found only in its other forms: a number of nine digits in a file says little about
# anybody. A uniform key has a hex text so short with probability 2**-28, a decimal one with 2**-34.
_SHORTEST_TEXT = 10
_LONGEST = 20  # digits of 2**64 - 1
_OVERLAP = _LONGEST - 1

_WORD = 4
_HEAD = 8
_PHASES = np.arange(_WORD)  # where in a needle its first whole word may begin
_BLOCK = 1 << 17  # words; smaller ones make threads wait for each other, larger ones leave the cache
_BITS = 22  # 4 MB a table: larger ones leave the cache, smaller ones let too much pass
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd; Knuth's multiplicative hashing

_NO_ASCII = np.uint32(0x80808080)
_LOWER = np.uint64(0x2020202020202020)  # lower-cases letters, leaves digits; verified exactly later on
_HEX = np.isin(np.arange(256), np.frombuffer(b"0123456789abcdefABCDEF", np.uint8))
_HEX_PAIR = (_HEX[:, None] & _HEX[None, :]).ravel()


class Needles:
    """Keys to look for in raw bytes, in every form in which one may have been written.

    The forms: 8 bytes in either order; decimal text, of the number or of the absolute value of the signed one; hex
    text in any case, of either order of bytes, with or without leading zeros. At any offset, and inside longer runs
    of digits. `keys` is sorted and distinct.
    """

    def __init__(self, keys: Keys) -> None:
        keys = np.asarray(keys, dtype=np.uint64)
        self._count = len(keys)
        self._texts, text_owners = _texts(keys)
        binary = np.concatenate([keys, keys.byteswap()])
        self._binary = _heads(binary, np.tile(np.arange(len(keys)), 2))
        self._text = _heads(_first_eight(self._texts), np.arange(len(self._texts)))
        self._text_owners = text_owners
        self._high, self._low = _word_tables(binary)

    def found_in(self, chunks: Iterable[bytes | memoryview]) -> Index:
        """Sorted indices (into `keys`) of those found in the stream; a key that lies across chunks is found too.

        May be called from many threads at once. Memory: some tens of MB, besides one chunk.
        """
        is_found = np.zeros(self._count, dtype=bool)
        if not self._count:
            return np.flatnonzero(is_found)
        tail = b""
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            self._mark(memoryview(tail + view[:_OVERLAP]), is_found)
            self._mark(view, is_found)
            tail = (tail + view[-_OVERLAP:])[-_OVERLAP:]
        return np.flatnonzero(is_found)

    def _mark(self, data: memoryview, is_found: npt.NDArray[np.bool_]) -> None:
        if len(data) < _HEAD:
            return
        words = np.frombuffer(data, "<u4", len(data) // _WORD)
        heads = np.ndarray(len(data) - _HEAD + 1, "<u8", data, strides=(1,))  # the 8 bytes at every offset
        for first in range(0, len(words), _BLOCK):
            block = words[first : first + _BLOCK]
            starts = _starts(first + self._likely_words(block), len(heads))
            is_found[self._binary.equal_to(heads[starts])[1]] = True
            starts = _starts(first + _hex_words(block), len(heads))
            is_found[list(self._texts_at(starts, heads, data))] = True

    def _likely_words(self, words: npt.NDArray[np.uint32]) -> Index:
        """Where a word stands that is part of some key's eight bytes, and few others."""
        likely = np.flatnonzero(np.take(self._high, words >> (32 - _BITS), mode="clip"))
        return likely[self._low[words[likely] & ((1 << _BITS) - 1)]]

    def _texts_at(self, starts: Index, heads: Keys, data: memoryview) -> Iterator[int]:
        """Owners of the texts that begin at one of these places."""
        places, numbers = self._text.equal_to(heads[starts] | _LOWER)
        for start, number in zip(starts[places].tolist(), numbers.tolist(), strict=True):
            text = self._texts[number]
            if bytes(data[start : start + len(text)]).lower() == text:
                yield self._text_owners[number]


@dataclass(frozen=True)
class _Heads:
    """The heads of needles, sorted, each with a number; `likely` rules out most others without a search."""

    heads: Keys
    numbers: Index
    likely: npt.NDArray[np.bool_]

    def equal_to(self, heads: Keys) -> tuple[Index, Index]:
        """Pairs of equal heads: the place of the one in `heads`, the number of the other."""
        places = np.flatnonzero(self.likely[_slot(heads)])
        begin = np.searchsorted(self.heads, heads[places], "left")
        equal = np.searchsorted(self.heads, heads[places], "right") - begin
        before = np.cumsum(equal) - equal
        members = np.arange(equal.sum()) + np.repeat(begin - before, equal)
        return np.repeat(places, equal), self.numbers[members]


def _heads(heads: Keys, numbers: Index) -> _Heads:
    order = np.argsort(heads, kind="stable")
    likely = np.zeros(1 << _BITS, dtype=bool)
    likely[_slot(heads)] = True
    return _Heads(heads[order], numbers[order], likely)


def _slot(heads: Keys) -> Keys:
    return (heads * _SPREAD) >> np.uint64(64 - _BITS)


def _word_tables(binary: Keys) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which high, and which low bits the words have that may be the first whole one in these eight bytes."""
    words = np.concatenate([(binary >> np.uint64(8 * phase)).astype(np.uint32) for phase in _PHASES.tolist()])
    high, low = np.zeros((2, 1 << _BITS), dtype=bool)
    high[words >> (32 - _BITS)] = True
    low[words & ((1 << _BITS) - 1)] = True
    return high, low


def _hex_words(words: npt.NDArray[np.uint32]) -> Index:
    """Where a word is four hex digits."""
    ascii_only = np.flatnonzero((words & _NO_ASCII) == 0)
    half = ascii_only[_HEX_PAIR[words[ascii_only] & 0xFFFF]]
    return half[_HEX_PAIR[words[half] >> 16]]


def _starts(words: Index, places: int) -> Index:
    """The offsets, below `places`, of needles whose first whole word may be one of these."""
    starts = (_WORD * words[:, None] - _PHASES).ravel()
    return starts[(starts >= 0) & (starts < places)]


def _texts(keys: Keys) -> tuple[list[bytes], list[int]]:
    """Every key's texts in lower case, and for each the index of its key."""
    texts = [(text, owner) for owner, key in enumerate(keys.tolist()) for text in _texts_of(key)]
    return [text for text, _ in texts], [owner for _, owner in texts]


def _texts_of(key: int) -> set[bytes]:
    decimals = {b"%d" % key, b"%d" % min(key, 2**64 - key)}
    hexes = {b"%016x" % key, key.to_bytes(8, "little").hex().encode()}
    return {text for text in decimals if len(text) >= _SHORTEST_TEXT} | {_without_zeros(text) for text in hexes}


def _without_zeros(text: bytes) -> bytes:
    """Without leading zeros, which a search for the rest does not need; with them where the rest would be too short."""
    rest = text.lstrip(b"0")
    return rest if len(rest) >= _SHORTEST_TEXT else text


def _first_eight(texts: list[bytes]) -> Keys:
    return np.array([int.from_bytes(text[:_HEAD], "little") for text in texts], dtype=np.uint64)
