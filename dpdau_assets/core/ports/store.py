"""A store: everything that the main path is handed, in a few parts; and where people read and are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from dpdau_assets.core.facts import (
    Alert,
    MartPaths,
)
from dpdau_assets.core.ports.erasure import ErasureLedger, ReceiptChain
from dpdau_assets.core.ports.events import Completions, Engine, Inbox, Landing, Quarantine, WriteAheadLog
from dpdau_assets.core.ports.ledger import Ledger, LedgerView
from dpdau_assets.core.ports.state import Builds, FileInventory, Rebuilds, Salts, SketchStore, StateStore

if TYPE_CHECKING:
    from dpdau_assets.core.restored import MartRow
    from dpdau_assets.core.security_events import SecurityEvent
    from dpdau_assets.core.settings import Settings


class Noise(Protocol):
    """Draws from discrete distributions on the integers, by operating-system randomness."""

    private: bool
    """False for any source that can be predicted; nothing drawn from it may be published."""

    def gaussian(self, sigma: float, draws: int = 1) -> list[int]:
        """Independent discrete Gaussians of this parameter."""
        ...

    def laplace(self, scale: float, draws: int = 1) -> list[int]:
        """Independent discrete Laplace (two-sided geometric) draws of this scale."""
        ...


class Clock(Protocol):
    """Today, in the project's time zone."""

    def today(self) -> date: ...


class Alerts(Protocol):
    """Where people are told what needs them. Whatever is told is kept at once, and delivered by `deliver`."""

    def send(self, alert: Alert, once: str | None = None) -> None:
        """Keep the alert for everybody who is to have it, unless one of this name was kept before.

        Raises DpdauError where it cannot be kept.
        """
        ...

    def note(self, events: Mapping[SecurityEvent, int]) -> None:
        """Count these security events; the first of a kind is told at once, and what follows in sum.

        Raises DpdauError where they cannot be kept; then none is counted.
        """
        ...

    def deliver(self) -> None:
        """Deliver what waits, for as long as a step may take. Raises DpdauError for what did not arrive; it is kept."""
        ...


class Mart(Protocol):
    """The published series for BI."""

    def read(self) -> list[MartRow]:
        """Every number that it shows, as `replace` was given it. Raises BadInput for a mart that cannot be read."""
        ...

    def replace(self, rows: Sequence[MartRow], connect: Callable[[], AbstractContextManager[Any]]) -> MartPaths:
        """Write all of it anew; each file is replaced by rename, so that no reader ever sees half of one.

        `connect` opens a database in memory that the files are made in, and closes it before they are renamed.
        """
        ...


def by_hand() -> bool:
    """No schedule publishes, or none that anybody knows of."""
    return False


@dataclass(frozen=True)
class Events:
    """What comes in, and what upstream has said of it."""

    engine: Engine[Any]
    log: WriteAheadLog
    inbox: Inbox
    quarantine: Quarantine
    landing: Landing
    completions: Completions


@dataclass(frozen=True)
class State:
    """What is kept of people: keyed state, the keys that it is kept under, and the sketches built from it.

    `late` holds what came for a day after it was sealed, `files` is everything that lies on disk, whatever put it
    there.
    """

    activity: StateStore
    late: StateStore
    sketches: SketchStore
    builds: Builds
    rebuilds: Rebuilds
    salts: Salts
    files: FileInventory


@dataclass(frozen=True)
class Erasures:
    """Who asked to be erased, and what was proven about it."""

    ledger: ErasureLedger
    receipts: ReceiptChain


@dataclass(frozen=True)
class StoreView:
    """A store as answers ask it: its ledger is only read.

    `is_scheduled` says whether a schedule publishes what is due: nothing in the store knows that, so who opens it says
    so. It is asked where nothing else tells whether days are waited for.
    """

    settings: Settings
    clock: Clock
    events: Events
    state: State
    erasures: Erasures
    accountant: LedgerView
    noise: Noise
    is_scheduled: Callable[[], bool] = by_hand

    @contextmanager
    def snapshot(self) -> Iterator[StoreView]:
        """The store with its ledger as it is now, in one transaction that waits for nobody; of a snapshot the same one.

        Whatever is no part of the ledger is asked when it is asked.
        """
        with self.accountant.snapshot() as ledger:
            yield StoreView(
                self.settings,
                self.clock,
                self.events,
                self.state,
                self.erasures,
                ledger,
                self.noise,
                self.is_scheduled,
            )


@dataclass(frozen=True)
class Store(StoreView):
    """Everything that the main path is handed."""

    accountant: Ledger
