"""Posting JSON to an address that takes messages, such as a chat service's incoming webhook."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping

from resources.messages.delivery import NotDelivered

PATIENCE_SECONDS = 10


class Webhook:
    """One address. It may hold a token, so no error quotes it: whoever has it can post.

    Args:
        setting: the variable that holds the address, for errors.
    """

    def __init__(self, setting: str, address: str) -> None:
        self._setting = setting
        self._address = address

    def __call__(self, payload: Mapping[str, object]) -> None:
        """Post it. Raises NotDelivered for any answer but a 2xx, and for none."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address, json.dumps(payload).encode(), headers)
        try:
            with _without_redirects().open(request, timeout=PATIENCE_SECONDS):
                pass
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise NotDelivered.by(self._setting, error) from None


def _without_redirects() -> urllib.request.OpenerDirector:
    """A redirected POST would arrive as a GET, without the message, and count as delivered."""
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
