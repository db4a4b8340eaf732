"""A relay with two addresses, one of which leads nowhere: the adapters find the other one, with a real node."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from causeway_client import asyncio_udp, blocking_udp
from causeway_client.drivers.happy_eyeballs import interleaved, reachable_first, resolve
from causeway_client.edgegap import EdgegapClient
from tests.causeway_client.granted import GrantedSession
from tests.support.node_process import NodeProcess, node_process

pytestmark = pytest.mark.skipif(not socket.has_ipv6, reason="wants IPv6 on loopback")


@pytest.fixture(scope="module")
def ipv4_node() -> Iterator[NodeProcess]:
    """Serves IPv4 alone."""
    with node_process(BIND="127.0.0.1") as node:
        yield node


@pytest.fixture
def deaf() -> Iterator[Callable[[str, int], None]]:
    """Makes an address swallow what is sent to it: a path that leads nowhere."""
    held: list[socket.socket] = []

    def make(host: str, port: int) -> None:
        held.append(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM))
        held[-1].bind((host, port))

    yield make
    for each in held:
        each.close()


@pytest.mark.parametrize("hosts", [["::1", "127.0.0.1"], ["127.0.0.1", "::1"]])
async def test_both_families_work(node: NodeProcess, hosts: list[str]) -> None:
    session = GrantedSession(node)
    async with await asyncio_udp.connect(hosts, session.port(0), **session.native(0)) as connection:
        assert connection.seat == 0


async def test_native_connects_at_the_family_that_answers(ipv4_node: NodeProcess, deaf: Callable[..., None]) -> None:
    session = GrantedSession(ipv4_node)
    deaf("::1", session.port(1))
    started = time.monotonic()
    # Without the race the dead address takes its half of these 60 s.
    hosts = ["::1", "127.0.0.1"]
    async with await asyncio_udp.connect(hosts, session.port(1), connect_timeout=60, **session.native(1)) as connection:
        assert connection.get_extra_info("peername")[0] == "127.0.0.1"
    assert time.monotonic() - started < 15


def test_blocking_connects_at_the_family_that_answers(ipv4_node: NodeProcess, deaf: Callable[..., None]) -> None:
    session = GrantedSession(ipv4_node)
    deaf("::1", session.port(1))
    hosts = ["::1", "127.0.0.1"]
    with blocking_udp.connect(hosts, session.port(1), connect_timeout=60, **session.native(1)) as connection:
        assert connection.seat == 1


async def test_edgegap_takes_the_family_that_answers(ipv4_node: NodeProcess, deaf: Callable[..., None]) -> None:
    session = GrantedSession(ipv4_node)
    deaf("::1", session.port(1))
    async with EdgegapClient(["::1", "127.0.0.1"], session.port(1), **session.edgegap(1)) as client:
        await client.wait_valid()


async def test_beacon_is_measured_at_its_other_address_when_the_first_is_silent(
    ipv4_node: NodeProcess, deaf: Callable[..., None]
) -> None:
    deaf("::1", ipv4_node.client_port)
    beacon = {"node": "n", "udp_port": ipv4_node.client_port, "host": "::1", "ipv4": "127.0.0.1", "ipv6": "::1"}
    found = await asyncio_udp.measure_beacons([beacon], timeout=8)
    assert found["n"].rtt_ms is not None


def test_refused_family_costs_no_head_start(ipv4_node: NodeProcess) -> None:
    port = ipv4_node.client_port
    addresses = resolve(["::1", "127.0.0.1"], port)
    assert reachable_first(addresses, head_start=20, timeout=60)[0] == (
        "127.0.0.1",
        port,
    )  # ICMP says at once that ::1 is not


def test_where_nothing_answers_the_order_stays(deaf: Callable[..., None]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        deaf("::1", port)
        addresses = resolve(["::1", "127.0.0.1"], port)
        assert reachable_first(addresses, head_start=0.05, timeout=0.2) == addresses


def test_families_take_turns_and_names_that_do_not_resolve_are_left_out() -> None:
    four, six = ("192.0.2.1", 1), ("2001:db8::1", 1, 0, 0)
    assert interleaved([six, ("2001:db8::2", 1, 0, 0), four]) == [six, four, ("2001:db8::2", 1, 0, 0)]
    assert resolve(["no-such-host.invalid", "192.0.2.1"], 1) == [four]
    with pytest.raises(OSError, match=r".+"):
        resolve("no-such-host.invalid", 1)


def test_node_answers_probes_of_both_families_on_both_ports(node: NodeProcess) -> None:
    async def rtts() -> list[float | None]:
        measured = [
            asyncio_udp.measure(host, port, count=2)
            for host in ("127.0.0.1", "::1")
            for port in (node.server_port, node.client_port)
        ]
        return [found.rtt_ms for found in await asyncio.gather(*measured)]

    assert None not in asyncio.run(rtts())
