"""The ports Alerts and Digests: a line of JSON in the log, and a message to whoever is configured to get it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.facts import Alert
from dpdau_assets.core.reporting.digest import Digest
from dpdau_assets.core.security_events import SecurityEvent, noted, told
from dpdau_assets.core.settings import Settings
from resources.messages.mail import Mail
from resources.messages.outbox import FOLDER, Outbox, Payloads
from resources.messages.slack import slack_message
from resources.messages.webhook import Webhook

ALERTS, MAIL, DIGEST = "alert_webhook", "admin_email", "digest_webhook"
_LOG = logging.getLogger("dpdau.alerts")


class Messages:
    """Everything that people are told of one store.

    Alerts go to the log, ALERT_WEBHOOK and ADMIN_EMAIL, the digest to DIGEST_WEBHOOK; each receiver gets each once, and
    what one of them does not take holds up no other.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._receivers = receivers(settings)
        self._outbox = Outbox(settings.data_dir / FOLDER, self._receivers)
        self._now = now

    @property
    def wants_digest(self) -> bool:
        """Whether anybody gets a digest."""
        return DIGEST in self._receivers

    def send(self, alert: Alert, once: str | None = None) -> None:
        """Log the alert, keep it, and deliver what waits; nothing of it for one that was sent before under this name.

        Raises OSError where it cannot be kept. What does not arrive now is sent again by `deliver`.
        """
        if self._outbox.put(self._payloads(alert), once):
            _log(alert)
            self._try_to_deliver()

    def note(self, events: Mapping[SecurityEvent, int]) -> None:
        """Count these security events, and tell those that are due."""
        if not events:
            return
        with self._outbox.changed() as kept:
            sums = kept.now.sums
            for event, count in events.items():
                sums = noted(sums, event, count, self._now())
            kept.now = kept.now.with_sums(sums)
        self._tell_sums()
        self._try_to_deliver()

    def digest(self, digest: Digest) -> None:
        """Send the digest, unless one of this day was sent before."""
        if self.wants_digest and self._outbox.put({DIGEST: slack_message(digest)}, f"digest {digest.as_of}"):
            self._try_to_deliver()

    def deliver(self) -> None:
        """Tell what has been summed and is due by now, and deliver what waits.

        Raises NotDelivered for a receiver that does not take it: it is kept, and sent again the next time.
        """
        if self._outbox.is_used:
            self._tell_sums()
            self._outbox.deliver()

    def _tell_sums(self) -> None:
        with self._outbox.changed() as kept:
            alerts, left = told(kept.now.sums, self._now())
            kept.now = kept.now.with_sums(left)
            for alert in alerts:
                _log(alert)
                kept.put(self._payloads(alert))

    def _try_to_deliver(self) -> None:
        try:
            self._outbox.deliver()
        except DpdauError as error:
            _LOG.warning("%s %s", error.reason, error.remedy)

    def _payloads(self, alert: Alert) -> Payloads:
        """`text` is what chat services show of a posted message; the other fields are for machines."""
        return {
            name: _as_mail(alert) if name == MAIL else _as_posted(alert)
            for name in (ALERTS, MAIL)
            if name in self._receivers
        }


def receivers(settings: Settings) -> dict[str, Callable[[Any], None]]:
    """Who is configured to be told, by name."""
    ways: dict[str, Callable[[Any], None]] = {}
    if settings.alert_webhook:
        ways[ALERTS] = Webhook("ALERT_WEBHOOK", settings.alert_webhook)
    if settings.digest_webhook:
        ways[DIGEST] = Webhook("DIGEST_WEBHOOK", settings.digest_webhook)
    if settings.smtp_url and settings.admin_email:
        ways[MAIL] = Mail(settings.smtp_url, settings.admin_email)
    return ways


def _as_posted(alert: Alert) -> dict[str, str]:
    return {"alert": alert.name, "text": alert.text, **alert.fields}


def _as_mail(alert: Alert) -> dict[str, str]:
    fields = "".join(f"{name}: {value}\n" for name, value in alert.fields.items())
    return {"subject": f"dpdau: {alert.name}", "text": f"{alert.text}\n\n{fields}"}


def _log(alert: Alert) -> None:
    _LOG.error("%s", json.dumps(_as_posted(alert)))
