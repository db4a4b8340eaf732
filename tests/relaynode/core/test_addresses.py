import pytest

from relaynode.core.addresses import ADDRESS_SIZE, address_bytes, ip_and_port, source_bytes


@pytest.mark.parametrize(
    ("addr", "expected"),
    [
        (("192.0.2.1", 80), ("192.0.2.1", 80)),
        (("::ffff:192.0.2.1", 80, 0, 0), ("192.0.2.1", 80)),
        (("2001:db8::1", 80, 0, 0), ("2001:db8::1", 80)),
        (("fe80::1%eth0", 80, 0, 2), ("fe80::1", 80)),
        (("::ffff:0:1", 80, 0, 0), ("::ffff:0:1", 80)),
    ],
)
def test_ip_and_port_are_as_the_player_knows_them(addr: tuple[str, int], expected: tuple[str, int]) -> None:
    assert ip_and_port(addr) == expected


def test_address_bytes_tell_ips_and_ports_apart() -> None:
    one = address_bytes(("192.0.2.1", 0x1234))
    assert one == bytes(10) + b"\xff\xff\xc0\x00\x02\x01\x34\x12"
    assert one == address_bytes(("::ffff:192.0.2.1", 0x1234, 0, 0))
    assert len({one, address_bytes(("192.0.2.1", 1)), address_bytes(("192.0.2.2", 0x1234))}) == 3


def test_address_bytes_are_the_same_of_an_address_in_bytes() -> None:
    in_bytes = bytes([2, 0]) + b"\x12\x34" + bytes([192, 0, 2, 1]) + bytes(ADDRESS_SIZE - 8)
    assert address_bytes(in_bytes) == address_bytes(("192.0.2.1", 0x1234))


def test_a_source_is_an_ipv4_address_or_an_ipv6_64() -> None:
    assert source_bytes(("192.0.2.1", 1)) == source_bytes(("::ffff:192.0.2.1", 2, 0, 0))
    assert source_bytes(("2001:db8::1", 1)) == source_bytes(("2001:db8::2", 1))
    assert source_bytes(("2001:db8::1", 1)) != source_bytes(("2001:db8:0:1::1", 1))
