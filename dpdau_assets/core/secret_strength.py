"""Whether a master secret can be guessed: rules on its text alone, since nobody can see how it was drawn."""

from __future__ import annotations

import string
from itertools import pairwise
from math import log2

from dpdau_assets.core.errors import BadSetting

LEAST_BITS = 128  # length times the bits of a character of its alphabet
LEAST_DISTINCT_BITS = 96  # the same of an alphabet of the characters that stand there: it does not believe "aaaa...b"
_LEAST_REPEATED = 8  # characters that a random text repeats by chance once in 16 ** 8 times, at most

VARIABLE = "HASH_SALT_SECRET"

_HEX = ("0123456789abcdef", "0123456789ABCDEF")
_CLASSES = (string.digits, string.ascii_lowercase, string.ascii_uppercase, string.punctuation + " ")
_ANY_OTHER = 100


class WeakSecret(UserWarning):
    """A living store was begun with a secret that would be refused today. The text says which rule it breaks."""


def weakness(secret: str) -> str | None:
    """The rule that the secret breaks, in words that say nothing of the secret; None for one that breaks none."""
    if len(secret) * log2(alphabet_size(secret)) < LEAST_BITS:
        return f"below {LEAST_BITS} bits, counted as length times the bits of a character of its alphabet"
    if len(secret) * log2(len(set(secret))) < LEAST_DISTINCT_BITS:
        return "of too few different characters for its length"
    if _is_repeated(secret):
        return "one piece, written again and again"
    if _is_in_order(secret):
        return "mostly characters in their order"
    return None


def require_strong(secret: str) -> None:
    """Raise BadSetting, which names the variable and the rule, for a secret that must not become a store's."""
    broken = weakness(secret)
    if broken:
        raise BadSetting(
            f"{VARIABLE}=...: {broken}, so it can be guessed.", "Take a random one: `openssl rand -hex 32` makes one."
        )


def require_set(secret: str | None) -> None:
    """Raise BadSetting where there is none: told before work begins that would end without it."""
    if secret is None:
        raise BadSetting(
            f"{VARIABLE} is not set, and nothing can be taken in without it.",
            "Set the secret of this store; for a new one `openssl rand -hex 32` makes one.",
        )


def warning(secret: str | None) -> str | None:
    """What operators of a store with this secret are told; None where there is nothing to tell."""
    broken = None if secret is None else weakness(secret)
    return broken and f"{VARIABLE} is {broken}, so it can be guessed: take a random one by `dpdau rotate-salt`."


def alphabet_size(text: str) -> int:
    """How many characters there are of the kinds that stand in the text: 10 digits, 16 of hex in one case, 26 letters
    of a case, 33 other printable ones, 100 of anything else.
    """
    there = set(text)
    if there <= set(string.digits):
        return len(string.digits)
    if any(there <= set(digits) for digits in _HEX):
        return len(_HEX[0])
    sizes = [len(kind) for kind in _CLASSES if there & set(kind)]
    return sum(sizes) + (_ANY_OTHER if there - set().union(*_CLASSES) else 0)


def _is_in_order(text: str) -> bool:
    """Whether three of four neighbours are the same character or the next one, up or down: 0123, aabbcc.

    Of random digits, the worst alphabet, three of ten are so; as many as this never in practice.
    """
    steps = [abs(ord(first) - ord(second)) for first, second in pairwise(text)]
    return 4 * sum(step <= 1 for step in steps) >= 3 * len(steps)


def _is_repeated(text: str) -> bool:
    """Whether a shorter piece gives all of it, once and again; the last time it may be cut short."""
    for length in range(1, len(text)):
        again = len(text) - length
        if again >= min(length, _LEAST_REPEATED) and text[length:] == text[:again]:
            return True
    return False
