"""Which packets the fast path forwards, and which it leaves to the core. That it forwards as the core does is shown in
xdp/test_twins.py and xdp/test_differential.py."""

import ctypes
import socket
import sys

import pytest

from causeway_client.protocol.packets import EVERYONE, OVERHEAD, PacketType
from relaynode.core.addresses import Address, Outgoing
from relaynode.core.relay import CLIENT_PORT, Relay
from relaynode.datapath.buffers import ReceiveBatch, SendBatch
from relaynode.datapath.fast_path import FastPath
from tests.relaynode.datapath.xdp.frames import Endpoint
from tests.relaynode.datapath.xdp.twins import address
from tests.relaynode.players import NOW, EdgegapPlayer, NativePlayer, drops, relay_with

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="addresses in bytes are those of Linux")

LOCAL = "192.0.2.1"


class Path:
    """The fast path in front of a relay. `to_core` are the datagrams that it left to the core."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.to_core: list[bytes] = []
        self._batch = ReceiveBatch(socket.AF_INET6)
        self._send = SendBatch(socket.AF_INET6, lambda: None), SendBatch(socket.AF_INET6, lambda: None)
        self._fast_path = FastPath(relay.forwarder, self._receive, self._send)

    def _receive(self, data: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        self.to_core.append(data)
        return self.relay.receive_datagram(data, addr, port, now)

    def run(self, *datagrams: tuple[bytes, Address], port: int = CLIENT_PORT) -> list[Outgoing]:
        for index, (data, addr) in enumerate(datagrams):
            self._batch.put(index, data, addr)
        self._fast_path.run(self._batch, [len(data) for data, _ in datagrams], port, NOW)
        sent: list[Outgoing] = []
        for number, batch in enumerate(self._send):
            for place, size, addr in zip(batch.pieces[::2], batch.pieces[1::2], batch.names, strict=True):
                sent.append((number, ctypes.string_at(place, size), addr))
            batch.clear()
        return sent


def at(seat: int) -> bytes:
    return address(Endpoint(f"198.51.100.{seat + 1}", 4000 + seat), LOCAL)


@pytest.fixture
def path() -> Path:
    return Path(relay_with(seats=3))


def native(path: Path, seat: int) -> NativePlayer:
    player = NativePlayer(path.relay, seat)
    player.addr = at(seat)  # type: ignore[assignment]
    player.connect()
    return player


def test_native_data_to_a_known_seat_is_forwarded_without_the_core(path: Path) -> None:
    host, player = native(path, 0), native(path, 1)
    (outgoing,) = path.run((player.data(b"up"), player.addr))
    assert path.to_core == []
    assert host.hears(outgoing) == (PacketType.DATA, 1, b"up")
    assert path.relay.counters.forwarded_packets == 1


def test_edgegap_data_needs_the_core_only_for_the_first_packet(path: Path) -> None:
    host, player = EdgegapPlayer(path.relay, 0), EdgegapPlayer(path.relay, 1)
    host.addr, player.addr = at(0), at(1)  # type: ignore[assignment]
    host.ping()
    packets = [(player.data(payload), player.addr) for payload in (b"first", b"second", b"third")]
    sent = path.run(*packets)
    assert path.to_core == [packets[0][0]]
    assert [host.hears(outgoing) for outgoing in sent] == [b"first", b"second", b"third"]


def test_what_needs_a_decision_is_left_to_the_core(path: Path) -> None:
    host, player = native(path, 0), native(path, 1)
    left = [
        (host.data(b"fan-out", EVERYONE), host.addr),
        (host.data(b"absent", 2), host.addr),
        (player.data(b"moved"), at(9)),
        (player.packet(PacketType.SIGNAL, b"not DATA"), player.addr),
        (b"short", at(9)),
    ]
    path.run(*left)
    assert path.to_core == [data for data, _ in left]


def test_datagrams_above_1200_bytes_are_left_to_the_core_where_edgegap_is_admitted(path: Path) -> None:
    native(path, 0)
    player, edgegap = native(path, 1), EdgegapPlayer(path.relay, 2)
    edgegap.addr = at(2)  # type: ignore[assignment]
    longest, too_long = (player.data(bytes(size - OVERHEAD)) for size in (1200, 1201))
    other = edgegap.data(bytes(1192))
    assert len(path.run((longest, player.addr), (too_long, player.addr), (other, edgegap.addr))) == 1
    assert path.to_core == [too_long, other]
    assert drops(path.relay) == {"too_long": 2}


def test_datagrams_of_1232_bytes_are_forwarded_where_it_is_not() -> None:
    path = Path(relay_with(seats=3, dialects=["native"]))
    host, player = native(path, 0), native(path, 1)
    longest = player.data(bytes(1232 - OVERHEAD))
    (outgoing,) = path.run((longest, player.addr))
    assert host.hears(outgoing) == (PacketType.DATA, 1, bytes(1214))
    assert path.run((player.data(bytes(1233 - OVERHEAD)), player.addr)) == []
    assert len(path.to_core) == 1
    assert drops(path.relay) == {"too_long": 1}


def test_forged_and_replayed_packets_are_dropped_under_their_names(path: Path) -> None:
    native(path, 0)
    player = native(path, 1)
    data = player.data(b"up")
    forged = data[:-1] + bytes((data[-1] ^ 1,))
    sent = path.run((forged, player.addr), (data, player.addr), (data, player.addr))
    assert len(sent) == 1
    assert drops(path.relay) == {"bad_tag": 1, "replayed": 1}
