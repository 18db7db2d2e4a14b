"""The ports Alerts and Digests: a line of JSON in the log, and a message to whoever is configured to get it.

What is told is only kept here, and takes a moment; `deliver` sends it, and is for those whom a slow receiver may hold
up: the alert sensor, the API's upkeep, and commands that are done with their work.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping

from dpdau_assets.core.facts import Alert
from dpdau_assets.core.reporting.digest import Digest
from dpdau_assets.core.security_events import SecurityEvent, Sum, alert_of, noted, told
from dpdau_assets.core.settings import Settings
from resources.messages.delivery import NotKept, Receiver
from resources.messages.mail import Mail
from resources.messages.outbox import FOLDER, Outbox, Payloads
from resources.messages.slack import escaped, slack_message
from resources.messages.webhook import Webhook

PATIENCE_SECONDS = 20.0
"""How long all receivers together are waited for. A tick of Dagster's sensors has 60 seconds."""

LONGEST_TEXT = 10_000
"""Characters of an alert that are sent; the log has all of it."""

_WEBHOOK, _MAIL, _DIGEST = "alert_webhook", "admin_email", "digest_webhook"
_LOG = logging.getLogger("dpdau.alerts")


class Messages:
    """Everything that people are told of one store.

    Alerts go to the log, ALERT_WEBHOOK and each ADMIN_EMAIL, the digest to DIGEST_WEBHOOK; each receiver gets each
    once, and what one of them does not take holds up no other.

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
        return _DIGEST in self._receivers

    def send(self, alert: Alert, once: str | None = None) -> None:
        """Log the alert, and keep it; nothing of it for one that was sent before under this name.

        Raises NotKept where it cannot be written; it is logged all the same.
        """
        try:
            is_new = self._outbox.put(self._payloads(alert), once)
        except NotKept:
            _log(alert)
            raise
        if is_new:
            _log(alert)

    def note(self, events: Mapping[SecurityEvent, int]) -> None:
        """Count these security events, and keep alerts of those that are due. Raises NotKept; then none is counted."""
        if events:
            self._tell_sums(events)

    def digest(self, digest: Digest) -> bool:
        """Keep the digest; False if one of exactly these days was kept before, or nobody gets any. Raises NotKept."""
        return self.wants_digest and self._outbox.put({_DIGEST: slack_message(digest)}, f"digest {digest.key}")

    def deliver(self) -> None:
        """Keep alerts of what was summed and is due by now, and deliver what waits, in PATIENCE_SECONDS at most.

        Raises NotDelivered for a receiver that does not take it, which is sent it again the next time, and NotKept.
        """
        if self._outbox.is_used:
            self._tell_sums({})
            self._outbox.deliver(PATIENCE_SECONDS)

    def _tell_sums(self, events: Mapping[SecurityEvent, int]) -> None:
        """Without a receiver of alerts the log is told at once, and the sums stay for a process that has one."""
        with self._outbox.changed() as kept:
            sums = kept.now.sums
            for event, count in events.items():
                sums = noted(sums, event, count, self._now())
            alerts, left = told(sums, self._now()) if self._has_alert_receivers else ([], sums)
            kept.now = kept.now.with_sums(left)
            for alert in alerts:
                kept.now = kept.now.having(self._payloads(alert))
        if not self._has_alert_receivers:
            alerts = [alert_of(event, Sum(count, self._now())) for event, count in events.items()]
        for alert in alerts:
            _log(alert)

    @property
    def _has_alert_receivers(self) -> bool:
        return any(name != _DIGEST for name in self._receivers)

    def _payloads(self, alert: Alert) -> Payloads:
        return {
            name: _as_mail(alert) if name.startswith(_MAIL) else _as_posted(alert)
            for name in self._receivers
            if name != _DIGEST
        }


def receivers(settings: Settings) -> dict[str, Receiver]:
    """Who is configured to be told, by name."""
    ways: dict[str, Receiver] = {}
    if settings.alert_webhook:
        ways[_WEBHOOK] = Webhook("ALERT_WEBHOOK", settings.alert_webhook)
    if settings.digest_webhook:
        ways[_DIGEST] = Webhook("DIGEST_WEBHOOK", settings.digest_webhook)
    if settings.smtp_url:
        ways |= {f"{_MAIL} {address}": Mail(settings.smtp_url, address) for address in settings.admin_email}
    return ways


def _as_posted(alert: Alert) -> dict[str, str]:
    """`text` is what chat services show of a posted message; the other fields are for machines."""
    return {**_fields(alert), "alert": alert.name, "text": escaped(_shortened(alert.text))}


def _as_mail(alert: Alert) -> dict[str, str]:
    fields = "".join(f"{name}: {' '.join(value.split())}\n" for name, value in _fields(alert).items())
    return {"subject": f"dpdau: {alert.name}", "text": f"{_shortened(alert.text)}\n\n{fields}"}


def _fields(alert: Alert) -> dict[str, str]:
    return {name: _shortened(value) for name, value in alert.fields.items()}


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _log(alert: Alert) -> None:
    _LOG.error("%s", json.dumps({"alert": alert.name, "text": alert.text, **alert.fields}))
