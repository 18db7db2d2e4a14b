"""Who a row is about: the text of an id, whatever type it comes in, and the one spelling that a store may want of it.

People are keyed by this text, byte by byte: where it is made out differently, somebody is two people.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from decimal import Decimal
from typing import Literal
from uuid import UUID

Normalization = Literal["nfc", "trim", "casefold"]
NORMALIZATIONS: tuple[Normalization, ...] = ("nfc", "trim", "casefold")
"""What USER_ID_NORMALIZE may name: Unicode's form NFC, no white space around an id, no difference of case."""

WHITE_SPACE = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What `trim` takes away: the characters that `str.strip` does."""

EXACT_BELOW, EXACT_BELOW_SINGLE = 2**53, 2**24
"""Magnitudes from which a float, of double and of single precision, may stand for more than one whole number."""


def id_text(value: object) -> str | None:
    """The id that a value is, of JSON or of a typed column; None for a value that is none.

    Text is itself, and bytes are the UTF-8 text that they hold. Whole numbers are their decimal digits, of floats only
    those that can have been no other number. A UUID is written in lower case.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return _utf8(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    return _digits(value)


def _digits(number: int | float | Decimal) -> str | None:
    if isinstance(number, float) and not abs(number) < EXACT_BELOW:
        return None
    if isinstance(number, Decimal) and not number.is_finite():
        return None
    return str(int(number)) if number == int(number) else None


def _utf8(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def normalize(user_id: str, how: Collection[Normalization]) -> str:
    """The one spelling of an id; it may be empty. Doing it again changes nothing.

    Always in this order, whatever that of `how`: trim, casefold, nfc. Where both are wanted, case is folded in the
    decomposed form, as Unicode's canonical caseless matching does (The Unicode Standard, D145).
    """
    if not how:
        return user_id
    if "trim" in how:
        user_id = user_id.strip()
    if user_id.isascii():
        return user_id.lower() if "casefold" in how else user_id
    if "casefold" in how:
        user_id = (unicodedata.normalize("NFD", user_id) if "nfc" in how else user_id).casefold()
    return unicodedata.normalize("NFC", user_id) if "nfc" in how else user_id
