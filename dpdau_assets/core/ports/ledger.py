"""The ledger as core needs it: what months were charged, what was published, and what was decided about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import date
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from dpdau_assets.core.facts import Override, Release, ReleaseKey
from dpdau_assets.core.privacy.mechanism_run import MechanismRun

if TYPE_CHECKING:
    from dpdau_assets.core.privacy.accounting import Charge
    from dpdau_assets.core.restored import Restore
    from dpdau_assets.core.settings import Metric


class LedgerReader(Protocol):
    """What months were charged, and what is decided about them: read alike in a transaction and outside of one."""

    def restated(self) -> frozenset[date]:
        """The months of which DAU was restated: no number of theirs is made any more."""
        ...

    def charges(self, metric: Metric, month: date) -> list[Charge]:
        """Everything charged to this month of this metric."""
        ...

    def cap(self, metric: Metric, month: date) -> Fraction | None:
        """The month's cap on record: of its last override, else of its first charge; None while it has neither."""
        ...

    def delta(self, metric: Metric, month: date) -> float | None:
        """The δ at which the month's cap holds: that of its first charge."""
        ...

    def closures(self, metric: Metric, month: date | None = None) -> int:
        """How often restores have closed this month of the metric, or all its months together."""
        ...

    def is_closed(self, metric: Metric, month: date) -> bool:
        """Whether a restored ledger may have lost numbers that read this month, and no override has opened it since."""
        ...

    def awaits_erasures(self) -> bool:
        """Whether the ledger was restored, and nobody has declared since that later erasures are submitted again."""
        ...


class BudgetReader(LedgerReader, Protocol):
    """What planning a release asks."""

    def last_day(self, metric: Metric, window_days: int) -> date | None:
        """The last day that was published, in whatever revision."""
        ...

    def last_release(self, metric: Metric) -> Release | None:
        """The number of the last published day, in its last revision."""
        ...

    def mechanism_run(self, name: str) -> MechanismRun | None: ...

    def last_run(self, metric: Metric, window_days: int) -> MechanismRun | None:
        """The one of this series that was opened last."""
        ...


class BudgetLedger(BudgetReader, Protocol):
    """What entering a release writes, besides; a draft of the ledger has it too."""

    def open_run(self, run: MechanismRun) -> None: ...

    def charge(self, charge: Charge) -> None: ...


class LedgerTransaction(BudgetLedger, Protocol):
    """The ledger inside one transaction: nothing of it is visible before the transaction ends well."""

    def release(self, key: ReleaseKey) -> Release | None: ...

    def releases(self, metric: Metric | None = None) -> list[Release]: ...

    def removals_recorded(self) -> int:
        """The watermark of removals in force, to tell whether any came since a statistic was read."""
        ...

    def mechanism_runs(self) -> list[MechanismRun]:
        """All of them, in the order in which they were opened."""
        ...

    def shared_noise(self, run: str) -> int | None:
        """The secret noise that the run's numbers share."""
        ...

    def keep_shared_noise(self, run: str, value: int) -> None: ...

    def destroy_shared_noise(self, run: str) -> None: ...

    def frozen(self, run: str, days: int) -> list[int]:
        """The statistics of a stream's last so many published days, oldest first."""
        ...

    def freeze(self, run: str, day: date, statistic: int) -> None: ...

    def destroy_frozen(self, run: str, keep_last: int) -> None:
        """Destroy the stream's frozen statistics but for so many of the last days."""
        ...

    def numbers(self, run: str, last: int | None = None) -> list[float]:
        """`noisy_value` of every release of the run, or of so many of the last, in order of days and revisions."""
        ...

    def store(self, release: Release) -> None: ...


class RestoreTransaction(LedgerTransaction, Protocol):
    """The transaction in which a ledger is restored from a backup."""

    def close(self, metric: Metric, month: date, closed_on: date) -> None:
        """No number that reads this month is made any more, unless an override opens it."""
        ...

    def seal(self, days: Iterable[date]) -> None:
        """From now on, events that arrive for these days are late; committed with the transaction."""
        ...

    def lose_epochs(self, epochs: Iterable[int]) -> list[int]:
        """Give up those of these epochs that have no key: they never get one. Returns them."""
        ...

    def note_restore(self, restore: Restore) -> None:
        """Put it on record. From now on the ledger awaits erasures."""
        ...


class LedgerView(LedgerReader, Protocol):
    """Everything that an answer is made of."""

    def snapshot(self) -> AbstractContextManager[LedgerSnapshot]:
        """The ledger as it is now, in one transaction that waits for nobody; of a snapshot that is itself."""
        ...

    def release(self, key: ReleaseKey) -> Release | None: ...

    def releases(self, metric: Metric | None = None) -> list[Release]:
        """Every release, in the order in which they were published."""
        ...

    def mechanism_runs(self) -> list[MechanismRun]:
        """All of them, in the order in which they were opened."""
        ...

    def overrides(self) -> list[Override]:
        """All of them, in order."""
        ...

    def sealed(self) -> frozenset[date]:
        """Days of which arrivals are late."""
        ...

    def processed(self) -> frozenset[date]:
        """Days whose state was asked for and is there."""
        ...

    def purged_through(self) -> date | None:
        """The last day past retention."""
        ...

    def edition(self) -> str:
        """Another text after every number, restatement, override, restore and purge, for who keeps answers: while it
        is the same, all that follows from these is. Events and erasure requests leave it as it is.
        """
        ...


class LedgerSnapshot(LedgerView, BudgetReader, Protocol):
    """The ledger as it is at one moment, for answers and plans."""


class Ledger(LedgerView, Protocol):
    """What was charged and published. Its transactions are serial: one at a time, whole or not at all.

    Asked for itself it answers each question in a transaction of its own; several that have to fit together are asked
    of one `snapshot`.
    """

    def transaction(self) -> AbstractContextManager[LedgerTransaction]: ...

    def override(self, override: Override) -> None:
        """Put it on record, for ever."""
        ...

    def seal(self, days: Iterable[date]) -> None:
        """From now on, events that arrive for these days are late. Committed when this returns."""
        ...

    def mark_processed(self, days: Iterable[date]) -> None:
        """The state of these days was asked for and is there. Committed when this returns."""
        ...

    def purge_through(self, day: date) -> None:
        """From now on this day and all before it are past retention. Committed when this returns."""
        ...

    def problems(self) -> list[str]:
        """A sentence for everything that is not what was once written; empty for a ledger that is whole."""
        ...

    def head(self) -> str:
        """The hash of all that was appended by now, "" for nothing."""
        ...

    def holds(self, head: str) -> bool:
        """Whether this was the head at some time, so that nothing which stood before it has gone."""
        ...

    def store_id(self) -> str | None:
        """The random name of the store that this is the ledger of; None until it is begun."""
        ...

    def restores(self) -> int:
        """How often it was restored from a backup."""
        ...

    def has_folder(self) -> bool:
        """Whether it is on record that a data directory was named after this store: no empty one takes its place."""
        ...

    def naming_folder(self) -> AbstractContextManager[bool]:
        """One transaction in which a data directory is named: whether one is on record, and at the end that one is."""
        ...

    def fix_settings(self, fixed_settings: Mapping[str, str]) -> None:
        """Remember these settings for ever at the first call; BadSetting, naming each that differs, at any later one.

        The first call begins a store: BadSetting for a master secret that can be guessed.
        """
        ...
