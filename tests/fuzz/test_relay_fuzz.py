"""Hostile bytes against the whole core: it never raises, never answers with more than it got, never forwards what is
not authentic; and the packet codec accepts or raises the documented error."""

import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relaynode.players import NOW, EdgegapPlayer, NativePlayer, relay_with
from transports.protocol import packets
from transports.protocol.errors import DecodeError
from transports.protocol.packets import STUN_COOKIE, PacketType

ATTACKER = ("192.0.2.66", 666)
ADDRESSES = [ATTACKER, ("2001:db8::66", 666, 0, 0), ("::ffff:192.0.2.66", 666, 0, 0)]
STUN_SUCCESS = b"\x01\x01"


class Table:
    """A session with a host and a player in edgegap and one in native, and packets that are right."""

    def __init__(self) -> None:
        self.relay = relay_with(seats=4)
        self.host, self.player = EdgegapPlayer(self.relay, 0), EdgegapPlayer(self.relay, 1)
        self.native = NativePlayer(self.relay, 2)
        self.host.ping()
        self.host.hears(self.player.send(b"hello"))
        self.native.connect()
        self.relay.datagrams_to_send()

    def right_packets(self) -> list[bytes]:
        return [
            self.player.data(b"payload"),
            self.host.data(b"payload", self.host.last_connection_id),
            self.player.tokens + b"\x01",
            self.native.connect_packet().encode(self.native.seat_key),
            packets.Probe(bytes(16)).encode(),
            b"\x00\x01\x00\x00" + STUN_COOKIE + bytes(12),
            *(self.native.packet(kind, bytes(16)) for kind in range(0xC4, 0xCC)),
        ]


starts = st.sampled_from([b"", STUN_COOKIE, *(bytes((kind, 1)) for kind in PacketType)])
noise = st.builds(lambda start, rest: start + rest, starts, st.binary(max_size=1300))
stun = st.builds(
    lambda body: b"\x00\x01" + len(body).to_bytes(2, "big") + STUN_COOKIE + bytes(12) + body, st.binary(max_size=80)
)


@settings(max_examples=400, deadline=None)
@given(noise | stun, st.sampled_from(ADDRESSES), st.integers(0, 1), st.floats(0, 100))
def test_noise_never_makes_it_raise_or_answer_with_more_than_it_got(
    data: bytes, addr: tuple[str, int], port: int, after: float
) -> None:
    check(Table(), data, addr, port, NOW + after, may_forward=False)


@settings(max_examples=600, deadline=None)
@given(
    st.data(), st.integers(0, 8), st.binary(max_size=12), st.sampled_from(ADDRESSES), st.integers(0, 1), st.floats(0, 9)
)
def test_neither_do_packets_that_were_right(
    data: st.DataObject, cut: int, insert: bytes, addr: tuple[str, int], port: int, after: float
) -> None:
    """A piece cut out, changed or added; or nothing at all, from elsewhere."""
    table = Table()
    right = data.draw(st.sampled_from(table.right_packets()))
    at = data.draw(st.integers(0, len(right)))
    packet = right[:at] + insert + right[at + cut :]
    intact_tokens = packet.startswith((table.player.tokens, table.host.tokens))
    check(table, packet, addr, port, NOW + after, may_forward=packet == right or intact_tokens)


def check(table: Table, data: bytes, addr: tuple[str, int], port: int, now: float, may_forward: bool) -> None:
    relay = table.relay
    before = relay.counters.forwarded_packets
    outgoing = relay.receive_datagram(data, addr, port, now)
    answers = ([outgoing] if outgoing else []) + relay.datagrams_to_send()
    back = [answer for _, answer, to in answers if to == addr]
    if not back or not back[0].startswith(STUN_SUCCESS):
        assert sum(map(len, back)) <= len(data)
    if not may_forward:
        assert relay.counters.forwarded_packets == before
        assert [to for _, _, to in answers if to != addr] == []
    relay.handle_timer(now)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 200), st.integers(1, 255), st.sampled_from(range(0xC4, 0xCC)), st.binary(max_size=40))
def test_a_changed_native_packet_is_never_obeyed(index: int, change: int, kind: int, body: bytes) -> None:
    table = Table()
    data = bytearray(table.native.packet(kind, body))
    data[index % len(data)] ^= change
    assert table.relay.receive_datagram(bytes(data), table.native.addr, table.native.port, NOW) is None
    assert table.relay.datagrams_to_send() == []
    assert table.relay.stats()["connected"] == 3


DECODERS: list[Callable[[bytes], object]] = [
    packets.decode_connect,
    lambda data: packets.decode_welcome(data, bytes(32)),
    packets.decode_cookie,
    packets.decode_refused,
    packets.decode_ping,
    packets.decode_notice,
    packets.decode_close,
    packets.decode_probe,
    packets.decode_probe_reply,
]
REASONS = {"too_short", "too_long", "unsupported_version", "malformed", "bad_mac"}


@pytest.mark.parametrize("decode", DECODERS)
@settings(max_examples=200, deadline=None)
@given(noise | st.binary(max_size=40))
def test_decoders_accept_or_raise_the_documented_error(decode: Callable[[bytes], object], data: bytes) -> None:
    try:
        decode(data)
    except DecodeError as error:
        assert error.reason in REASONS


@pytest.mark.parametrize("size", range(1, 60))
def test_runts_of_every_length(size: int) -> None:
    relay = Table().relay
    for first in (*range(0xC0, 0xD0), 0, 1, 0x40, 0xFF):
        data = bytes((first,)) + os.urandom(size - 1)
        outgoing = relay.receive_datagram(data, ATTACKER, size & 1, NOW)
        assert outgoing is None or len(outgoing[1]) <= size
