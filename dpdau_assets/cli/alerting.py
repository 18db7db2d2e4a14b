"""What commands tell whoever gets alerts. It never fails a command: what was asked for is done by then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dpdau_assets.cli.terminal import tell
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.security_events import SecurityEvent, override_alerts
from resources.messages.messages import Messages
from resources.store import CANNOT_KEEP


def tell_of_overrides(store: Store) -> None:
    """Tell of the ledger's newest override; the alert sensor tells of one that this was not kept for."""
    overrides = store.accountant.overrides()
    with _going_on():
        for name, alert in override_alerts(overrides, len(overrides) - 1):
            Messages(store.settings).send(alert, once=name)


def tell_of_tampering(events: Mapping[SecurityEvent, int], store: Store) -> None:
    """Tell of what checks have found that somebody may have done."""
    if events:
        with _going_on():
            Messages(store.settings).note(events)


@contextmanager
def _going_on() -> Iterator[None]:
    try:
        yield
    except (DpdauError, *CANNOT_KEEP) as error:
        tell(f"The alert could not be kept ({type(error).__name__}): whoever gets alerts has to be told by hand.")
