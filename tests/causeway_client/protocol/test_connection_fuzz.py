"""Whatever a hostile network or a hostile node sends, a player's machine raises nothing."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from causeway_client.edgegap import ClientMachine, HostMachine
from causeway_client.protocol import handshake, packets
from causeway_client.protocol.connection import RelayConnection, State
from causeway_client.protocol.packets import PacketType
from causeway_client.protocol.probing import Prober

NODE = ("198.51.100.1", 31001)
SEAT_KEY = bytes(range(32))


def joined(is_sequenced=False):
    """(machine, seal): a connection and a way to seal packets to it; if it is sequenced, with direct paths."""
    machine = RelayConnection(
        NODE,
        connect_token=bytes(120),
        seat_key=SEAT_KEY,
        wall_clock=lambda: 1_000_000,
        random=random.Random(1).randbytes,
        peer_keys=bytes(32 + 16) if is_sequenced else b"",
    )
    machine.connect(0.0)
    nonce = handshake.decode_connect(machine.datagrams_to_send(0.0)[0][0]).nonce
    mode = packets.DirectMode.DIRECT if is_sequenced else packets.DirectMode.RELAY_ONLY
    fields = nonce, b"n" * 16, 77, 1, False, "192.0.2.1", 1, 1000, 10_000, 0, 0, 1182, frozenset({0, 1})
    welcome = handshake.Welcome(*fields, is_sequenced=is_sequenced, direct_mode=mode, expires=2**40, second_port=31000)
    machine.receive_datagram(welcome.encode(SEAT_KEY), NODE, 0.0)
    down = packets.packet_keys(SEAT_KEY, nonce, b"n" * 16)[1]
    return machine, lambda sequence, kind, seat, body: packets.seal(down, kind, 77, sequence, seat, body)


def drain(machine, now):
    """As an adapter does after each call."""
    machine.datagrams_to_send(now)
    while machine.next_event() is not None:
        pass
    machine.next_timer()
    machine.handle_timer(now)


datagrams = st.binary(max_size=1300) | st.builds(
    lambda kind, rest: bytes([kind]) + rest, st.integers(0xC0, 0xDF), st.binary(max_size=200)
)


@given(st.booleans(), st.lists(st.tuples(datagrams, st.sampled_from((NODE, ("192.0.2.66", 666)))), max_size=20))
def test_any_bytes_are_dropped_by_name(is_sequenced, sent):
    machine, _ = joined(is_sequenced)
    for now, (data, address) in enumerate(sent, start=1):
        assert machine.receive_datagram(data, address, now / 100) is None
        drain(machine, now / 100)
    assert sum(machine.dropped.values()) == len(sent)
    assert machine.state is State.RELAYED


@given(
    st.booleans(),
    st.lists(
        st.tuples(st.sampled_from(PacketType), st.integers(0, 255), st.binary(max_size=300)), min_size=1, max_size=20
    ),
)
def test_a_node_with_the_right_keys_and_any_bodies_cannot_make_it_raise(is_sequenced, sent):
    machine, seal = joined(is_sequenced)
    for sequence, (kind, seat, body) in enumerate(sent, start=1):
        machine.receive_datagram(seal(sequence, kind, seat, body), NODE, sequence / 100)
        drain(machine, sequence / 100)
        machine.stats()


@given(
    st.fixed_dictionaries(
        {
            "keep_alive_ms": st.integers(0, 65_535),
            "timeout_ms": st.integers(0, 65_535),
            "max_payload": st.integers(0, 65_535),
            "seat": st.integers(0, 255),
            "roster": st.frozensets(st.integers(0, 254)),
            "is_sequenced": st.booleans(),
            "direct_mode": st.sampled_from(packets.DirectMode),
            "roster_generation": st.integers(0, 2**32 - 1),
            "expires": st.integers(0, 2**64 - 1),
            "direct_grace": st.integers(0, 65_535),
            "second_port": st.integers(0, 65_535),
        }
    )
)
def test_no_welcome_makes_it_spin_or_send_too_much(changes):
    machine = RelayConnection(
        NODE, connect_token=bytes(120), seat_key=SEAT_KEY, wall_clock=lambda: 1, random=random.Random(1).randbytes
    )
    machine.connect(0.0)
    nonce = handshake.decode_connect(machine.datagrams_to_send(0.0)[0][0]).nonce
    fields = {
        "player_nonce": nonce,
        "node_nonce": b"n" * 16,
        "connection": 77,
        "mesh": False,
        "ip": "::1",
        "port": 0,
        "packets_per_second": 0,
        "bytes_per_second": 0,
    }
    machine.receive_datagram(handshake.Welcome(**fields, **changes).encode(SEAT_KEY), NODE, 0.0)
    assert machine.max_payload <= packets.MAX_PAYLOAD
    machine.handle_timer(0.0)
    assert machine.next_timer() >= 0.1
    assert changes["seat"] not in machine.peers


@settings(max_examples=200)
@given(datagrams)
def test_the_other_machines_raise_nothing_either(data):
    prober = Prober(NODE, random=random.Random(1).randbytes)
    prober.start(0.0)
    for machine in (
        prober,
        ClientMachine(NODE, user_token=1, session_token=2),
        HostMachine(NODE, user_token=1, session_token=2),
    ):
        machine.receive_datagram(data, NODE, 0.1)
        drain(machine, 0.1)
