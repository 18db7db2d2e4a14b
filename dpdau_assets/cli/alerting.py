"""What commands tell whoever gets alerts. It never fails a command: what was asked for is done by then."""

from __future__ import annotations

from collections.abc import Mapping

from dpdau_assets.cli.terminal import tell
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.security_events import SecurityEvent, override_alerts
from dpdau_assets.core.telling import telling
from resources.messages.messages import Messages


def tell_of_overrides(store: Store) -> None:
    """Tell of the ledger's newest override; the alert sensor tells of one that this was not kept for."""
    overrides = store.accountant.overrides()
    messages = Messages(store.settings)
    with telling(tell):
        for name, alert in override_alerts(overrides, len(overrides) - 1):
            messages.send(alert, once=name)
        messages.deliver()


def tell_of_tampering(events: Mapping[SecurityEvent, int], store: Store) -> None:
    """Tell of what checks have found that somebody may have done."""
    if events:
        messages = Messages(store.settings)
        with telling(tell):
            messages.note(events)
            messages.deliver()
