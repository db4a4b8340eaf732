import socket
import time
from collections.abc import Iterator

import pytest

from natlab.lab import Host, Lab
from natlab.wire import Line
from tests.natlab.conftest import Udp
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow


@pytest.fixture
def hosts(internet: Lab) -> Iterator[tuple[Host, Host]]:
    with internet.scene():
        yield internet.server("one"), internet.server("two")


def sent(internet: Lab, hosts: tuple[Host, Host], packets: list[bytes]) -> list[bytes]:
    """Those that arrive."""
    one, two = Udp(hosts[0]), Udp(hosts[1], 7000)
    for packet in packets:
        one.send(packet, (hosts[1].address, 7000))
    wait_until(lambda: internet.wire.carried["one", "two"] == len(packets))
    internet.wire.set_line("one", "two", Line(delay_ms=200))  # longer than any before
    one.send(b"last", (hosts[1].address, 7000))
    arrived = two.received_before(b"last")
    one.close()
    two.close()
    return arrived


def test_packets_take_as_long_as_the_line_says(internet: Lab, hosts: tuple[Host, Host]) -> None:
    taken: list[float] = []
    internet.wire.taps.append(lambda source, target, packet, now: taken.append(now))
    internet.wire.set_line("one", "two", Line(delay_ms=80, jitter_ms=20))
    started = time.monotonic()
    assert sent(internet, hosts, [b"a"]) == [b"a"]
    internet.wire.taps.clear()
    assert taken[0] - started >= 0.08


def test_each_packet_of_a_number_and_all_long_ones_are_lost(internet: Lab, hosts: tuple[Host, Host]) -> None:
    internet.wire.set_direction("one", "two", Line(delay_ms=1, every=3, longest=500))
    packets = [b"1", b"2", b"3", b"4", b"5" * 600, b"6", b"7"]
    assert sent(internet, hosts, packets) == [b"1", b"2", b"4", b"7"]


def test_a_share_of_all_packets_is_lost(internet: Lab, hosts: tuple[Host, Host]) -> None:
    internet.wire.set_line("one", "two", Line(delay_ms=1, loss=0.3))
    arrived = sent(internet, hosts, [b"%d" % number for number in range(150)])
    assert len(arrived) == pytest.approx(105, abs=35)


def test_ipv6_is_carried_and_a_site_that_was_removed_is_gone(internet: Lab, hosts: tuple[Host, Host]) -> None:
    one, two = Udp(hosts[0], family=socket.AF_INET6), Udp(hosts[1], 7001, socket.AF_INET6)
    one.send(b"ipv6", (hosts[1].addresses[1], 7001))
    assert two.receive()[0] == b"ipv6"
    assert internet.wire.carried["one", "two"] == 1
    internet.remove("two")
    assert internet.wire.carried["one", "two"] == 0
    other = internet.server("two")  # with other addresses
    one.send(b"to nowhere", (hosts[1].addresses[1], 7001))
    one.send(b"to the new one", (other.addresses[1], 7001))
    wait_until(lambda: internet.wire.carried["one", "two"])
    assert internet.wire.carried["one", "two"] == 1
    one.close()
    two.close()
