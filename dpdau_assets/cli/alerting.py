"""What commands tell whoever gets alerts. It never fails a command: what was asked for is done by then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dpdau_assets.cli.terminal import tell
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.security_events import SecurityEvent, override_alerts
from resources.messages.messages import Messages


def tell_of_overrides(store: Store) -> None:
    """Tell of the ledger's newest override; the alert sensor tells of one that this was not kept for."""
    overrides = store.accountant.overrides()
    messages = Messages(store.settings)
    with _going_on():
        for name, alert in override_alerts(overrides, len(overrides) - 1):
            messages.send(alert, once=name)
        messages.deliver()


def tell_of_tampering(events: Mapping[SecurityEvent, int], store: Store) -> None:
    """Tell of what checks have found that somebody may have done."""
    if events:
        messages = Messages(store.settings)
        with _going_on():
            messages.note(events)
            messages.deliver()


@contextmanager
def _going_on() -> Iterator[None]:
    try:
        yield
    except DpdauError as error:
        tell(f"{error.reason} {error.remedy}")
