"""The port Alerts: a line of JSON in the log, and the same posted to ALERT_WEBHOOK if there is one."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request

from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.facts import Alert

_LOG = logging.getLogger("dpdau.alerts")
_PATIENCE_SECONDS = 10


def _without_redirects() -> urllib.request.OpenerDirector:
    """A redirected POST would arrive as a GET, without the alert, and count as delivered."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


class NotDelivered(DpdauError):
    """The receiver of alerts did not take one."""


class WebhookAlerts:
    """`text` is what chat services show of a posted message; the other fields are for machines."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    def send(self, alert: Alert) -> None:
        """Raises NotDelivered, which never quotes the address: whoever has it can post."""
        body = json.dumps({"alert": alert.name, "text": alert.text, **alert.fields})
        _LOG.error(body)
        if self._address is None:
            return
        request = urllib.request.Request(self._address, body.encode(), {"Content-Type": "application/json"})
        try:
            with _without_redirects().open(request, timeout=_PATIENCE_SECONDS):
                pass
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise NotDelivered(
                f"ALERT_WEBHOOK did not take the alert {alert.name} ({type(error).__name__}).", "It is sent again."
            ) from None
