"""Every error that dpdau raises on purpose: what happened, with which value, and what to do about it."""

from __future__ import annotations

from typing import Self


class DpdauError(Exception):
    """Root of all of them. `fields` are for machines; `reason` and `remedy` are one sentence each, for people."""

    exit_code = 1

    def __init__(self, reason: str, remedy: str, **fields: object) -> None:
        super().__init__(f"{reason} {remedy}")
        self.reason = reason
        self.remedy = remedy
        self.fields = fields

    def saying(self, **fields: object) -> Self:
        """The error again, with these fields besides its own."""
        return type(self)(self.reason, self.remedy, **{**self.fields, **fields})

    def __reduce__(self) -> tuple[object, ...]:
        """How pickle makes it anew, so that it crosses from one process to another whole."""
        return _same_error, (type(self), self.reason, self.remedy, self.fields)


class BadSetting(DpdauError):
    """One or more configuration values are wrong, or do not fit together or with the living store."""

    exit_code = 2


class ParameterNotSet(BadSetting):
    """Nothing says yet how users are to be counted: neither a setting nor a published number."""


class NotPublished(DpdauError):
    """The number asked for does not exist (yet)."""

    exit_code = 3


class Refused(DpdauError):
    """The privacy contract forbids it: order of days, sealed state, a changed mechanism run, a missing input."""

    exit_code = 4


class Damaged(Refused):
    """What is kept is damaged, or of another store: an operator has to put it right, and nobody else can."""


class BudgetRefused(Refused):
    """The month's cap does not admit the charge.

    Fields: `metric`, `month` (YYYY-MM) and `delta`; in epsilon what the month is `charged`, `asked`, `together` and
    `cap`; and `next_day` (YYYY-MM-DD), the next day whose number fits, where a release was refused and there is one.
    """


class BadInput(DpdauError):
    """What was handed in cannot be taken; nothing of it was."""

    exit_code = 5


def _same_error(kind: type[DpdauError], reason: str, remedy: str, fields: dict[str, object]) -> DpdauError:
    return kind(reason, remedy, **fields)
