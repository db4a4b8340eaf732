"""What a game reads from another player, who has the secret of the pair and sends what it likes."""

import ipaddress
import random
from collections.abc import Iterator

from causeway_client.protocol import handshake, packets
from causeway_client.protocol.connection import RelayConnection
from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.packets import EVERYONE, DirectMode, PacketType
from causeway_client.protocol.paths import rendezvous as codec
from causeway_client.protocol.paths.candidates import is_local
from causeway_client.protocol.paths.pair_secrets import direct_key, unpack_peer_keys
from causeway_client.protocol.paths.peers import MAX_PEERS
from causeway_client.protocol.paths.punching import GUESSES_PER_SECOND
from tests.fuzz.inputs import script, steps_of
from tests.fuzz.packet_targets import MAX_STEP, VECTORS, has_body, wait

PAIR = VECTORS["native"]["pair"]
OWN, PEER = PAIR["seat"], PAIR["peer"]
SECRET = bytes.fromhex(PAIR["pair_secret"])
NODE = ("198.51.100.1", 31001)
SECOND_PORT = 31000
OWN_ADDRESS = ("203.0.113.9", 40001)
# Where the node sees the peer, by the step's two bits of address.
OBSERVED = [
    [("198.51.100.7", 41001)],
    [],
    [("203.0.113.9", 41002), ("2001:db8:1::7", 41003)],
    [("192.0.2.7", 0), ("2001:db8:1::7", 41003)],
]
PLACES = [("198.51.100.7", 41001), ("192.0.2.66", 666), ("2001:db8:66::6", 666), ("10.0.0.66", 666)]


def rendezvous(content: bytes) -> None:
    """The size of what the node has added, that itself, and a body without its tag."""
    size = content[0] % 64 if content else 0
    added, body = content[1 : 1 + size], content[1 + size :]
    sealed = body + codec._tag(SECRET, PEER, OWN, body)
    try:
        end = codec.end_of(sealed)
        read, observed = codec.decode_rendezvous(sealed + added, SECRET, PEER, OWN)
    except DecodeError as error:
        assert error.reason in {"malformed", "unsupported_version", "bad_tag"}
        return
    assert end == len(sealed)
    assert len(read.candidates) <= codec.MAX_CANDIDATES
    for ip, _ in [*observed, *((it.ip, it.port) for it in read.candidates)]:
        ipaddress.ip_address(ip)
    again = read.encode(SECRET, PEER, OWN) + codec.pack_observed(observed)
    assert codec.decode_rendezvous(again, SECRET, PEER, OWN) == (read, observed)


def rendezvous_seeds() -> Iterator[bytes]:
    for vector in VECTORS["native"]["packets"]:
        if vector["type"] == "RENDEZVOUS":
            body = bytes.fromhex(vector["fields"]["body"])
            end = codec.end_of(body)
            added = body[end:] or codec.pack_observed(OBSERVED[0])
            yield bytes((len(added),)) + added + body[: end - 8]


class HostilePeer:
    """It has the pair's secret. The node between the two is honest."""

    def __init__(self) -> None:
        self.nonce = bytes.fromhex(PAIR["peer_nonce"])
        self.number = 1 << 40
        self.seat_key = bytes(range(32))
        self.machine = RelayConnection(
            NODE,
            connect_token=bytes(120),
            seat_key=self.seat_key,
            wall_clock=lambda: 1_795_257_600_000_000,
            random=random.Random(1).randbytes,
            peer_keys=bytes.fromhex(PAIR["peer_keys"]),
        )
        assert unpack_peer_keys(bytes.fromhex(PAIR["peer_keys"])).secret(PEER) == SECRET
        self.machine.direct.set_addresses([("10.0.0.5", 5000), ("2001:db8::5", 5000)], [], 0.0)
        self.machine.connect(0.0)
        nonce = handshake.decode_connect(self.machine.datagrams_to_send(0.0)[0][0]).nonce
        welcome = handshake.Welcome(
            player_nonce=nonce,
            node_nonce=bytes(16),
            connection=77,
            seat=OWN,
            mesh=True,
            ip=OWN_ADDRESS[0],
            port=OWN_ADDRESS[1],
            keep_alive_ms=1000,
            timeout_ms=10_000,
            packets_per_second=0,
            bytes_per_second=0,
            max_payload=packets.MAX_PAYLOAD,
            roster=frozenset((OWN, PEER)),
            is_sequenced=True,
            direct_mode=DirectMode.DIRECT,
            expires=1_795_300_000,
            direct_grace=60,
            second_port=SECOND_PORT,
        )
        self.machine.receive_datagram(welcome.encode(self.seat_key), NODE, 0.0)
        self.up, self.down = packets.packet_keys(self.seat_key, nonce, bytes(16))
        self.sequence = 0
        self.their_nonce = b""  # that of the machine, once it has sent a RENDEZVOUS
        self.permitted = {NODE, (NODE[0], SECOND_PORT)}  # where the machine may send
        self.permitted_ips: set[str] = set()  # at any port (PROTOCOL.md 12.8)
        self.permitted_sites: set[bytes] = set()
        self.is_local_permitted = False

    def over_the_node(self, kind: int, body: bytes, now: float) -> None:
        self.sequence += 1
        datagram = packets.seal(self.down, kind, 77, self.sequence, PEER, body[: 1232 - packets.OVERHEAD])
        self.machine.receive_datagram(datagram, NODE, now)

    def rendezvous(self, body: bytes, observed: list[tuple[str, int]], now: float) -> None:
        """A body of any content, with a right tag. The node would drop one of another layout."""
        if len(body) >= 30:
            self.nonce = body[14:30]
        for ip, port in observed:
            self.permitted.add((ip, port))
            if ":" in ip:
                self.permitted_sites.add(ipaddress.ip_address(ip).packed[:8])
            else:
                self.permitted_ips.add(ip)
            self.is_local_permitted |= ip == OWN_ADDRESS[0]
        added = codec.pack_observed(observed)
        self.over_the_node(PacketType.RENDEZVOUS, body + codec._tag(SECRET, PEER, OWN, body) + added, now)

    def of_pair(self, kind: int, body: bytes) -> bytes:
        self.number += 1
        key = direct_key(SECRET, PEER, OWN, self.nonce, self.their_nonce or bytes(16))
        pair = int.from_bytes((self.their_nonce or bytes(16))[:4], "little")
        return packets.seal(key, kind, pair, self.number, PEER, body[: 1232 - packets.OVERHEAD])

    def check(self, now: float) -> None:
        """Where the machine sends, and how much, once it has done what is due."""
        self.machine.handle_timer(now)
        sent = self.machine.datagrams_to_send(now)
        assert len(sent) <= MAX_STEP * GUESSES_PER_SECOND + 150, "one packet caused too many"
        for data, address in sent:
            if address == NODE and data[0] == PacketType.RENDEZVOUS and data[9] == PEER:
                self.their_nonce = data[packets.HEADER.size :][14:30]
            assert self.is_permitted(address), f"sent to {address}"
        while self.machine.next_event() is not None:
            pass
        assert len(self.machine.direct.paths()) <= MAX_PEERS
        timer = self.machine.next_timer()
        assert timer is None or timer > now, "it spins"

    def is_permitted(self, address: object) -> bool:
        assert isinstance(address, tuple)
        ip = address[0]
        if address[:2] in self.permitted or ip in self.permitted_ips:
            return True
        if is_local(ip):
            return self.is_local_permitted
        return ":" in ip and ipaddress.ip_address(ip).packed[:8] in self.permitted_sites


def direct_paths(content: bytes) -> None:
    """Head: what is sent (3 bits), three bits of time, two of address. Data: a body, or a type and a body."""
    peer, now = HostilePeer(), 0.0
    machine = peer.machine
    machine.send(EVERYONE, b"hello", now)
    for head, data in steps_of(content):
        now += wait(head >> 3)
        peer.check(now)
        place = PLACES[head >> 6]
        match head & 7:
            case 0:
                peer.rendezvous(data, OBSERVED[head >> 6], now)
            case 1 if data:
                peer.over_the_node(PacketType.PEER, peer.of_pair(data[0], data[1:]), now)
            case 2 | 3 if data:
                peer.permitted.add(place)
                machine.receive_datagram(peer.of_pair(data[0], data[1:]), place, now)
            case 4:
                peer.over_the_node(PacketType.DATA, data, now)
            case 5 if data and data[0] != PacketType.RENDEZVOUS:
                peer.over_the_node(data[0], data[1:], now)
            case 6 if machine.error is None:
                machine.send(EVERYONE, data[:1000], now)
            case _:
                machine.receive_datagram(data, (NODE[0], SECOND_PORT) if head & 64 else place, now)
        peer.check(now)


def direct_paths_seeds() -> Iterator[bytes]:
    named = {vector["name"]: bytes.fromhex(vector["hex"]) for vector in VECTORS["native"]["packets"]}
    body = named["rendezvous with observed addresses"][packets.HEADER.size : -packets.TAG_SIZE]
    body = body[: codec.end_of(body) - 8]
    ping = bytes((PacketType.DIRECT_PING,)) + bytes(12)
    play = [(6, b"state"), (4, bytes(4) + b"state"), (6 | 5 << 3, b"state")]
    for place in range(4):
        at = place << 6
        yield script([(at, body), (1, ping), (2 | at, ping), *play, (2 | at | 5 << 3, ping), (6 | 6 << 3, b"more")])
    kinds = (PacketType.DIRECT_DATA, PacketType.DIRECT_PONG, PacketType.DIRECT_CLOSE)
    yield script([(0, body), *((2, bytes((kind,)) + bytes(12)) for kind in kinds), *play])
    hard = body[:30] + b"\3\2" + body[32:]  # the NAT class: a port for each destination
    yield script([(0, hard), (6 | 7 << 3, b"state"), (0, body[:30] + b"\4\0" + body[32:]), (6 | 7 << 3, b"state")])
    for name, data in named.items():
        if has_body(data[0]):
            yield script([(0, body), (7, data), (5, bytes(data[:1]) + data[packets.HEADER.size : -packets.TAG_SIZE])])
        assert name
    for vector in VECTORS["stun"]["answers"]:
        yield script([(7 | 64, bytes.fromhex(vector["answer"])), (6, b"x")])
