"""Which hosts are the machine itself."""

from __future__ import annotations

import pytest

from resources.loopback import is_loopback


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LocalHost", "::ffff:127.0.0.1"]
)
def test_an_address_or_a_name_that_leads_to_this_machine_alone_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "[::2]", "localhost.example.org", "127.0.0.1.example.org"],
)
def test_what_may_lead_elsewhere_is_not(host: str) -> None:
    assert not is_loopback(host)
