"""Posting JSON to an address that takes messages, such as a chat service's incoming webhook."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request

from resources.messages.delivery import NotDelivered, Payload, Unwanted

PATIENCE_SECONDS = 10
"""For each thing that is waited for: the connection, a piece of the answer."""

_FOR_GOOD = frozenset({400, 413, 422})


class Webhook:
    """One address. It may hold a token, so no error quotes it: whoever has it can post.

    Args:
        setting: the variable that holds the address, for errors.
    """

    def __init__(self, setting: str, address: str) -> None:
        self._setting = setting
        self._address = address

    def __call__(self, payload: Payload) -> None:
        """Post it. Raises Unwanted for an answer of 400, 413 or 422, and NotDelivered for any other but a 2xx."""
        headers = {"Content-Type": "application/json"}
        try:
            request = urllib.request.Request(self._address, json.dumps(payload).encode(), headers)
            with _without_redirects().open(request, timeout=PATIENCE_SECONDS):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _FOR_GOOD:
                raise Unwanted.by(self._setting, error.code) from None
            raise NotDelivered.by(self._setting, error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
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
