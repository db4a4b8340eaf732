"""Both ways to read and write a UDP port: they must be the same to everyone but the clock."""

import ctypes
import errno
import socket
from collections.abc import Callable, Iterator

import pytest

from relaynode.core.addresses import ADDRESS_SIZE, Address, Outgoing, ip_and_port, source_bytes
from relaynode.datapath import sockets
from relaynode.datapath.buffers import BATCH, READ_SIZE
from relaynode.datapath.udp_port import BatchedUdpPort, UdpPort, udp_port
from tests.support.waiting import wait_until

LOOPBACKS = ["127.0.0.1", *(["::1"] if sockets.has_ipv6() else [])]
Opened = tuple[UdpPort, int]
Player = Callable[[str], socket.socket]


@pytest.fixture(params=["batched", "one by one", "batched, no IPv6"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """A port of ours on all addresses, and its number."""
    with sockets.open_udp_port("0.0.0.0" if "no IPv6" in request.param else "", 0) as udp:
        port = UdpPort(udp) if request.param == "one by one" else udp_port(udp)
        if request.param != "one by one" and not isinstance(port, BatchedUdpPort):
            pytest.skip("no recvmmsg here")
        yield port, udp.getsockname()[1]


@pytest.fixture
def player() -> Iterator[Player]:
    made = []

    def make(ip: str) -> socket.socket:
        udp = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((ip, 0))
        udp.settimeout(5)
        made.append(udp)
        return udp

    yield make
    for udp in made:
        udp.close()


def receive(port: UdpPort, count: int) -> list[tuple[bytes, Address]]:
    received: list[tuple[bytes, Address]] = []
    wait_until(lambda: received.extend(port.receive(BATCH)) or len(received) >= count)
    return received


def send_each(port: UdpPort, outgoing: list[Outgoing]) -> None:
    for _, data, addr in outgoing:
        port.add(data, addr)
    port.flush()


def asked(port: UdpPort, number: int, sender: socket.socket, ip: str = "127.0.0.1") -> Address:
    """The address of a player that wrote to us."""
    sender.sendto(b"ask", (ip, number))
    ((_, addr),) = receive(port, 1)
    return addr


@pytest.mark.parametrize("ip", LOOPBACKS)
def test_datagrams_come_whole_in_order_and_with_their_sender(opened: Opened, player: Player, ip: str) -> None:
    port, number = opened
    if ip == "::1" and port._socket.family == socket.AF_INET:
        pytest.skip("no IPv6 on this socket")
    sender = player(ip)
    sizes = [0, 1, 9, 150, 1232, READ_SIZE - 1]
    for size in sizes:
        sender.sendto(bytes((size % 251,)) * size, (ip, number))
    received = receive(port, len(sizes))
    assert [data for data, _ in received] == [bytes((size % 251,)) * size for size in sizes]
    assert {ip_and_port(addr) for _, addr in received} == {(ip, sender.getsockname()[1])}
    assert len({addr for _, addr in received}) == 1, "one sender is one address"


@pytest.mark.parametrize("ip", LOOPBACKS)
def test_an_answer_reaches_who_asked(opened: Opened, player: Player, ip: str) -> None:
    port, number = opened
    if ip == "::1" and port._socket.family == socket.AF_INET:
        pytest.skip("no IPv6 on this socket")
    sender = player(ip)
    send_each(port, [(0, b"answer", asked(port, number, sender, ip))])
    data, peer = sender.recvfrom(100)
    assert (data, peer[:2]) == (b"answer", (ip, number))


def test_answers_leave_from_the_address_that_was_asked(opened: Opened, player: Player) -> None:
    port, number = opened
    sender = player("127.0.0.1")
    for ip in ("127.0.0.2", "127.0.0.3"):
        send_each(port, [(0, b"answer", asked(port, number, sender, ip))])
        assert sender.recvfrom(100)[1] == (ip, number)


def test_what_is_longer_than_the_buffer_is_seen_to_be_too_long(opened: Opened, player: Player) -> None:
    port, number = opened
    player("127.0.0.1").sendto(bytes(9000), ("127.0.0.1", number))
    ((data, _),) = receive(port, 1)
    assert len(data) == READ_SIZE


def test_a_short_datagram_holds_nothing_of_the_one_before_it(opened: Opened, player: Player) -> None:
    port, number = opened
    sender = player("127.0.0.1")
    sender.sendto(b"a login with a token" * 10, ("127.0.0.1", number))
    receive(port, 1)
    sender.sendto(b"runt", ("127.0.0.1", number))
    assert receive(port, 1)[0][0] == b"runt"


def test_no_more_is_read_than_asked_for(opened: Opened, player: Player) -> None:
    port, number = opened
    sender = player("127.0.0.1")
    for index in range(BATCH + 6):
        sender.sendto(bytes((index,)), ("127.0.0.1", number))
    assert len(port.receive(4)) == 4
    assert len(port.receive(1000)) == BATCH
    assert len(port.receive(1000)) == 2


def test_nothing_there_is_no_failure(opened: Opened) -> None:
    port, _ = opened
    assert not port.receive(BATCH)
    assert port.receive_errors == 0


def test_one_bad_destination_does_not_take_the_others_with_it(opened: Opened, player: Player) -> None:
    port, number = opened
    sender = player("127.0.0.1")
    good = asked(port, number, sender)
    bad = good[:2] + bytes(2) + good[4:] if isinstance(good, bytes) else (good[0], 0, *good[2:])  # port 0
    send_each(port, [(0, bytes((index,)), bad if index in (0, 3, 4, 9) else good) for index in range(10)])
    assert [sender.recv(10)[0] for _ in range(6)] == [1, 2, 5, 6, 7, 8]
    assert (port.send_refused, port.send_full) == (4, 0)


def test_more_than_a_batch_is_sent_in_order(opened: Opened, player: Player) -> None:
    port, number = opened
    sender = player("127.0.0.1")
    addr = asked(port, number, sender)
    send_each(port, [(0, bytes((index,)), addr) for index in range(2 * BATCH + 5)])
    assert [sender.recv(10)[0] for _ in range(2 * BATCH + 5)] == list(range(2 * BATCH + 5))


def test_a_player_that_went_away_disturbs_nobody(opened: Opened, player: Player) -> None:
    """Its machine answers by ICMP that nobody listens; an unconnected socket is not told."""
    port, number = opened
    gone, here = player("127.0.0.1"), player("127.0.0.1")
    first, second = asked(port, number, gone), asked(port, number, here)
    gone.close()
    for _ in range(3):
        send_each(port, [(0, b"x", first), (0, b"y", second)])
        assert not port.receive(BATCH)
        assert here.recv(10) == b"y"
    assert (port.send_refused, port.receive_errors) == (0, 0)


def test_a_full_send_queue_loses_the_rest_of_the_batch_and_says_so() -> None:
    """No queue fills up on loopback: in place of the system call, one that finds it full after two datagrams."""
    answers = [2, -1]

    def send(fd: int, at: int, count: int, flags: int) -> int:
        ctypes.set_errno(errno.EAGAIN)
        return answers.pop(0)

    with sockets.open_udp_port("", 0) as udp:
        port = BatchedUdpPort(udp, (None, send))
        send_each(port, [(0, b"x", bytes(ADDRESS_SIZE))] * 5)
    assert (port.send_full, port.send_refused) == (3, 0)
    assert not answers


@pytest.mark.parametrize(("ip", "size"), [("127.0.0.1", 4), ("::1", 8)])
def test_a_source_is_an_ipv4_address_or_an_ipv6_network(opened: Opened, player: Player, ip: str, size: int) -> None:
    port, number = opened
    if ip not in LOOPBACKS or (ip == "::1" and port._socket.family == socket.AF_INET):
        pytest.skip("no IPv6 here")
    for _ in range(2):
        player(ip).sendto(b"x", (ip, number))
    sources = {source_bytes(addr) for _, addr in receive(port, 2)}
    assert len(sources) == 1
    assert len(sources.pop()) == size


def test_local_addresses_are_remembered_in_bounded_memory() -> None:
    with sockets.open_udp_port("", 0) as udp:
        port = UdpPort(udp)
        for number in range(5000):
            info = number.to_bytes(16, "little") + bytes(4)
            port._control([(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)])
        assert len(port._controls) <= 1024
