"""Adapters that are made when something is first asked of them, so that nobody loads a library he does not use."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar, cast

_Adapter = TypeVar("_Adapter")


def late(make: Callable[[], _Adapter]) -> _Adapter:
    """What `make` returns, made at its first use; `make` imports what it needs, and must not fail for its arguments."""
    return cast(_Adapter, _Late(make))


class _Late:
    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._making = Lock()

    def __getattr__(self, name: str) -> Any:
        """Called for what is not here yet; what was asked for once is kept here."""
        with self._making:  # one for all threads
            if "_made" not in self.__dict__:
                self._made = self._make()
        return getattr(self._made, name)
