"""What the quarantine must not keep: raw ids of people who are erased, and anything for longer than it has to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from dpdau_assets.core.ports.store import Store


class Named:
    """Whether one of these ids stands in a text as a whole: no letter, digit or underscore right before or after it.

    An id itself may hold anything. Part of a longer word is not the id: `anna` is not in `susanna.csv`.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = [one for one in dict.fromkeys(ids) if one]

    def is_in(self, text: str) -> bool:
        """For one text; cost goes with the number of ids."""
        return any(one in text and _stands_alone(one, text) for one in self._ids)


def expire(outside: Store) -> None:
    """Let go of what was put there more than QUARANTINE_DAYS ago."""
    outside.events.quarantine.expire(outside.clock.today() - timedelta(days=outside.settings.quarantine_days))


def _stands_alone(one: str, text: str) -> bool:
    at = text.find(one)
    while at >= 0:
        end = at + len(one)
        if not (_in_word(text[at - 1 : at]) or _in_word(text[end : end + 1])):
            return True
        at = text.find(one, at + 1)
    return False


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"
