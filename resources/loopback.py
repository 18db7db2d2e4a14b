"""Whether a host is the machine itself: for what only it may ask, and for what is only safe there."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def is_loopback(host: str) -> bool:
    """Whether a host's name or address, with or without the brackets of IPv6, leads to this machine and nowhere else.

    No name is looked up: of names only `localhost` does.
    """
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return host.lower() == "localhost"
    plain = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
    return plain.is_loopback
