"""What may become of a message on its way to a receiver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self, TypeAlias

from dpdau_assets.core.errors import DpdauError

Payload: TypeAlias = Mapping[str, Any]
Receiver: TypeAlias = Callable[[Any], None]
"""Takes a payload, or raises NotDelivered or Unwanted."""


class NotDelivered(DpdauError):
    """A receiver did not take a message; it is kept, and sent again."""

    exit_code = 4

    @classmethod
    def by(cls, setting: str, error: BaseException) -> Self:
        """What the error's text says is not passed on: it may quote an address, or a password."""
        return cls(f"{setting} did not take a message ({type(error).__name__}).", "It is kept, and sent again.")


class Unwanted(DpdauError):
    """A receiver will never take this message, however often it is sent; it is let go of, and the log has it."""

    @classmethod
    def by(cls, setting: str, answer: int) -> Self:
        """The receiver's answer is a status of HTTP or a code of SMTP."""
        return cls(f"{setting} refuses a message for good ({answer}).", "It is let go of; alerts are in the log.")


class NotKept(DpdauError):
    """A message could be written nowhere, so nobody is told but the log."""

    @classmethod
    def by(cls, error: BaseException) -> Self:
        """The error's text may name a path."""
        return cls(
            f"A message to operators cannot be kept ({type(error).__name__}).",
            "Is DATA_DIR's disk full, or messages/ in it no folder of ours? The log has the alert.",
        )
