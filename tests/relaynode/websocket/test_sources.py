"""Whose limits a WebSocket counts against, behind trusted proxies and without them."""

import ipaddress

import pytest

from relaynode.websocket.sources import loopback_of, source_of

TRUSTED = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("::ffff:203.0.113.9", "", "203.0.113.9"),
        ("2001:db8:1:2:3::4", "", "2001:db8:1:2::"),
        ("fe80::1%eth0", "", "fe80::"),
        ("203.0.113.9", "198.51.100.7", "203.0.113.9"),  # not a trusted proxy
        ("10.1.1.1", "198.51.100.7", "198.51.100.7"),
        ("fd00::5", "198.51.100.7:51234", "198.51.100.7"),
        ("10.1.1.1", "192.0.2.1, 198.51.100.7", "198.51.100.7"),  # the player wrote the first one
        ("10.1.1.1", "192.0.2.1, 198.51.100.7, 10.2.2.2", "198.51.100.7"),
        ("10.1.1.1", '"[2001:db8:1:2:3::4]:443"', "2001:db8:1:2::"),
        ("10.1.1.1", "10.2.2.2, 10.3.3.3", "10.2.2.2"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "unknown", "10.1.1.1"),
        ("10.1.1.1", "198.51.100.7, unknown, 10.2.2.2", "10.1.1.1"),
        ("10.1.1.1", "198.51.100.7,", "10.1.1.1"),
        ("10.1.1.1", "198.51.100.7, " + "10.2.2.2, " * 20 + "10.2.2.2", "10.2.2.2"),  # further ones are not read
    ],
)
def test_source_is_the_last_address_that_is_no_trusted_proxy(peer, forwarded, source):
    assert source_of(peer, forwarded, TRUSTED) == source


def test_each_source_has_an_address_of_its_own_for_the_worker():
    addresses = {loopback_of(f"198.51.100.{number}") for number in range(256)}
    assert len(addresses) == 256
    assert all(address.startswith("127.") and address != "127.0.0.1" for address in addresses)
    assert loopback_of("2001:db8::") == loopback_of("2001:db8::")
