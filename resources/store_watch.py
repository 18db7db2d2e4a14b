"""Whether the store that a process has open is still the one that its settings name.

A process that lives long outlives a restore: what it has open then is a ledger that is gone, or one that knows nothing
of what this process knows. What it would acknowledge is lost, so it has to stop taking anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dpdau_assets.core.errors import Damaged
from dpdau_assets.core.ports.store import Store
from resources.store import ledger_file

_Identity = tuple[object, ...]


class StoreWatch:
    """Remembers which folder, ledger and restore a store was opened with."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places = self._identity_of_places()
        self._restores = store.accountant.restores()

    def require_same(self) -> None:
        """Raise Damaged if another folder or ledger is there by now, or the ledger was restored. Asks the ledger."""
        if self._identity_of_places() != self._places or self._store.accountant.restores() != self._restores:
            raise Damaged(
                "The store was moved, replaced or restored since this process opened it; nothing is taken any more.",
                "Restart the process: it opens the store that is there now.",
            )

    def _identity_of_places(self) -> _Identity:
        return tuple(self._identities())

    def _identities(self) -> Iterator[tuple[int, int] | None]:
        for path in (self._store.settings.data_dir, ledger_file(self._store.settings)):
            yield _identity(path) if path else None


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(FileNotFoundError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None
