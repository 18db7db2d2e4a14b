"""What the commands that serve share: addresses, and whether one is free."""

from __future__ import annotations

import socket

from dpdau_assets.core.errors import BadSetting

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def require_free(host: str, port: int, what: str, command: str) -> None:
    """Raises BadSetting, in the words of who wants to, if nobody could listen on this address."""
    try:
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            socket.create_server(address[:2], family=family).close()
    except OSError as error:
        raise BadSetting(
            f"{what} cannot listen on port {port} of {host}: {str(error.strerror).partition(' (')[0]}.",
            f"End what uses the port, or name another: `{command} --port N`.",
        ) from None
