"""Adapters that are made when something is first asked of them, so that nobody loads a library he does not use."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar, cast

_Adapter = TypeVar("_Adapter")


def lazy(make: Callable[[], _Adapter]) -> _Adapter:
    """What `make` returns, made at its first use, and once for all threads.

    An error in `make` comes as late as that, so arguments are checked before. Special methods are not forwarded.
    """
    return cast(_Adapter, _Lazy(make))


class _Lazy:
    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._making = Lock()

    def __getattr__(self, name: str) -> Any:
        """Called for what is not here, which is all that the adapter has."""
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "_made":  # not yet
            with self._making:
                if "_made" not in self.__dict__:
                    self._made = self._make()
                return self.__dict__["_made"]
        return getattr(self._made, name)
