"""The error of a message that has not arrived."""

from __future__ import annotations

from typing import Self

from dpdau_assets.core.errors import DpdauError


class NotDelivered(DpdauError):
    """A receiver did not take a message; it is kept, and sent again."""

    @classmethod
    def by(cls, setting: str, error: Exception) -> Self:
        """What the error's text says is not passed on: it may quote an address, or a password."""
        return cls(f"{setting} did not take a message ({type(error).__name__}).", "It is kept, and sent again.")
