"""What a relay node and a game read from the network."""

import contextlib
import itertools
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from causeway_client.edgegap import ClientMachine, HostMachine
from causeway_client.fragments import MAX_DATAGRAM, MAX_PARTIAL_BYTES, Fragmenter, Reassembler
from causeway_client.protocol import handshake, offers, packets, tokens
from causeway_client.protocol.connection import RelayConnection
from causeway_client.protocol.errors import BadToken, DecodeError, UnknownKey
from causeway_client.protocol.packets import PacketType
from causeway_client.protocol.paths import rendezvous, reports
from causeway_client.protocol.paths.pair_secrets import unpack_peer_keys
from causeway_client.protocol.paths.stun import decode_response
from causeway_client.protocol.probing import Prober
from relaynode.core import stun
from relaynode.core.relay import SERVER_PORT, Outgoing, Relay, RelayConfig
from relaynode.supervision.peer_meter import Peer, PeerMeter
from tests.fuzz.inputs import script, steps_of
from tests.relaynode.players import KEY_ID, NOW, TOKEN_KEY, EdgegapPlayer, NativePlayer, grant_of

VECTORS = {
    name: json.loads((Path(__file__).parents[2] / "transports/protocol/vectors" / f"{name}.json").read_text())
    for name in ("native", "edgegap", "stun")
}
ATTACKERS = [("192.0.2.66", 666), ("2001:db8::66", 666, 0, 0), ("::ffff:192.0.2.67", 666, 0, 0)]
SEATS = 4
OTHER_SESSION, OTHER_TOKEN = "3960c873aafe-S", 3500589646
REASONS = {"too_short", "too_long", "unsupported_version", "malformed", "bad_mac", "bad_tag"}
PAIR_SECRET = bytes.fromhex("0adfd94b41c19ecd11394a79698e5642")  # of the vectors
OFFER = {"id": 1, "kind": "move", "ip": "192.0.2.9", "port": 31001, "token": "A" * 160, "deadline_ms": 5000}
MAX_STEP = 2.0  # seconds


class Table:
    """A relay with two sessions. Of the one, the players send what is fuzzed; those of the other just play, and must
    be able to whatever the input. `is_direct`: the session admits native players only, and direct paths."""

    def __init__(self, topology: str = "host", *, is_direct: bool = False) -> None:
        self.now = NOW
        self.relay = Relay(worker=0, config=RelayConfig(), random=random.Random(1).randbytes)
        self.relay.set_token_keys({KEY_ID: TOKEN_KEY})
        changes = {"dialects": ["native"], "direct_mode": "direct", "offers": {2: OFFER}} if is_direct else {}
        self.relay.apply_grant(grant_of(SEATS, topology=topology, **changes), NOW)
        self.relay.apply_grant(grant_of(2, session=OTHER_SESSION, token=OTHER_TOKEN), NOW)
        self.host, self.player = EdgegapPlayer(self.relay, 0), EdgegapPlayer(self.relay, 1)
        if topology == "host" and not is_direct:
            self.host.ping()
            self.host.hears(self.player.send(b"hello"))
        self.natives = [NativePlayer(self.relay, seat) for seat in (2, 3)]
        for native in self.natives:
            _connect(native, mesh=topology == "mesh")
        self.bystanders = [NativePlayer(self.relay, seat, (f"192.0.2.{seat}", 7000), SERVER_PORT) for seat in (0, 1)]
        for bystander in self.bystanders:
            _connect(bystander, session=OTHER_SESSION)
        self.relay.datagrams_to_send()

    def receive(self, data: bytes, addr: tuple[str, int], port: int, wait: float) -> list[Outgoing]:
        """Everything that the relay sends for it, after `wait` seconds more."""
        self.now += wait
        self.relay.handle_timer(self.now)
        self.relay.datagrams_to_send()
        first = self.relay.receive_datagram(data, addr, port, self.now)
        answers = ([first] if first else []) + self.relay.datagrams_to_send()
        assert all(len(answer) <= packets.MAX_DATAGRAM for _, answer, _ in answers)
        while self.relay.next_event() is not None:
            pass
        return answers

    def bystanders_play(self) -> None:
        for source, target in itertools.permutations(self.bystanders):
            heard = target.hears(source.send(b"still here", target.seat, self.now))
            assert heard == (PacketType.DATA, source.seat, b"still here"), "another session was harmed"
        self.relay.datagrams_to_send()

    def check_state(self) -> None:
        """What would be written down can be taken back, and is JSON."""
        self.relay.stats()
        self.relay.legs(100)
        json.dumps([msgspec.to_builtins(path) for path in self.relay.paths(100)], allow_nan=False)
        restored = Relay(worker=0, config=RelayConfig(), random=random.Random(2).randbytes)
        for session in self.relay.sessions():
            state = self.relay.session_state(session.session)
            restored.restore_session(json.loads(json.dumps(state, allow_nan=False)), self.now)


def _connect(player: NativePlayer, **token: object) -> None:
    nonce = bytes((player.seat, len(str(token)))) * 8
    player.connect(player.connect_packet(player.token(**token), nonce=nonce))
    player.shows_that_it_reads()


def wait(head: int) -> float:
    """Seconds, from three bits."""
    return (0.0, 0.0, 0.001, 0.01, 0.1, 0.3, 1.0, MAX_STEP)[head & 7]


def native(content: bytes) -> None:
    """Datagrams of sources that have no key. Head: port, two bits of address, three of time."""
    table = Table()
    forwarded = table.relay.counters.forwarded_packets
    addresses = [*ATTACKERS, table.natives[0].addr]
    for head, data in steps_of(content):
        if data.startswith((table.host.tokens, table.player.tokens)):
            continue  # that is the target edgegap's
        answers = table.receive(data, addresses[head >> 1 & 3], head & 1, wait(head >> 3))
        is_stun = data[4:8] == packets.STUN_COOKIE
        assert sum(len(answer) for _, answer, _ in answers) <= len(data) + 24 * is_stun, "it amplifies"
        assert table.relay.counters.forwarded_packets == forwarded, "forwarded without a key"
        table.bystanders_play()
        forwarded = table.relay.counters.forwarded_packets
    table.check_state()


def native_seeds() -> Iterator[bytes]:
    for vector in VECTORS["native"]["packets"]:
        yield script([(0, bytes.fromhex(vector["hex"]))])
    yield script([(0, bytes((first, 1)) + bytes(58)) for first in range(0xC0, 0xE0)])
    yield script([(8, packets.Probe(bytes(16)).encode()), (8, packets.Probe(bytes(16), 1000).encode())] * 3)


def native_authentic(content: bytes) -> None:
    """Packets with a right tag. Head: mesh (of the first step), which player, its address, three bits of time, port,
    whether the session permits direct paths (of the first step). Data: type, seat, body."""
    steps = steps_of(content)
    first = steps[0][0] if steps else 0
    table = Table("mesh" if first & 1 else "host", is_direct=bool(first & 128))
    for head, data in steps:
        if len(data) < 2:
            continue
        player = table.natives[head >> 1 & 1]
        addr = ATTACKERS[0] if head & 4 else player.addr
        packet = player.packet(data[0], data[2:1220], data[1])
        answers = table.receive(packet, addr, head >> 6 & 1, wait(head >> 3))
        assert len(answers) <= 2 * SEATS + 2
        table.bystanders_play()
    table.check_state()


def native_authentic_seeds() -> Iterator[bytes]:
    ping = packets.Ping(bytes(8), 0, 0).encode()
    for kind, body in [
        (PacketType.DATA, b"payload"),
        (PacketType.PING, ping),
        (PacketType.PONG, ping),
        (PacketType.NOTICE, packets.Notice(2, "x").encode()),
        (PacketType.SIGNAL, b"offer"),
        (PacketType.CLOSE, packets.Close(0, "bye").encode()),
        (PacketType.PATH_CHALLENGE, bytes(8)),
        (PacketType.PATH_RESPONSE, bytes(9)),
        (PacketType.RENDEZVOUS, rendezvous_body()),
        (PacketType.PEER, bytes(30)),
        (PacketType.PATH_REPORT, b"\1" + bytes(20)),
        (PacketType.OFFER_ACK, b"\1\0\0\0\0"),
        (PacketType.RELAY_CHANGED, b"\1\0\2" + bytes(4)),
    ]:
        yield script([(0, bytes((kind, 0)) + body), (10, bytes((kind, 2)) + body), (4, bytes((kind, 255)) + body)])
        yield script([(1, bytes((kind, 3)) + body), (44, bytes((PacketType.DATA, 255)) + b"all")])
        yield script([(129, bytes((kind, 3)) + body), (131, bytes((kind, 2)) + body), (4, bytes((kind, 2)) + body)])


def edgegap(content: bytes) -> None:
    """Head: two bits of tokens (none, or those of a seat), port, two bits of address, three of time. Data: what follows
    the tokens."""
    table = Table()
    tokens_of = [b"", table.player.tokens, table.host.tokens, EdgegapPlayer(table.relay, 2).tokens]
    addresses = [table.player.addr, table.host.addr, ATTACKERS[0], ATTACKERS[1]]
    for head, data in steps_of(content):
        datagram = tokens_of[head & 3] + data
        answers = table.receive(datagram, addresses[head >> 3 & 3], head >> 2 & 1, wait(head >> 5))
        # Five bytes stand before a host's payload, for the nine that came before it; a tag makes it longer for natives.
        data_out = [len(answer) for _, answer, _ in answers if answer and answer[0] != PacketType.NOTICE]
        assert sum(data_out) <= len(datagram) + packets.OVERHEAD + 24
        table.bystanders_play()
    table.check_state()


def edgegap_seeds() -> Iterator[bytes]:
    for vector in VECTORS["edgegap"]["packets"]:
        yield script([(0, bytes.fromhex(vector["hex"]))])
        yield script([(head, bytes.fromhex(vector["hex"])[8:]) for head in (1, 6 | 1 << 3, 3, 1 | 2 << 3 | 7 << 5)])


def stun_binding(content: bytes) -> None:
    """A STUN message, cookie and length set right where the first byte is odd."""
    data = content[1:]
    if content[:1] and content[0] & 1 and len(data) >= 8:
        data = data[:2] + (max(len(data) - 20, 0) & 0xFFFF).to_bytes(2, "big") + packets.STUN_COOKIE + data[8:]
    for addr in ATTACKERS:
        if not stun.looks_like_stun(data):
            continue
        answer = stun.answer(data, addr)
        if answer is None:
            continue
        assert answer[4:20] == data[4:20], "it names another transaction"
        assert int.from_bytes(answer[2:4], "big") == len(answer) - 20
        assert len(answer) <= len(data) + (24 + 8 if answer[:2] == b"\x01\x01" else 0)


def stun_seeds() -> Iterator[bytes]:
    for vector in VECTORS["stun"]["answers"]:
        yield b"\0" + bytes.fromhex(vector["request"])
        yield b"\1" + bytes.fromhex(vector["request"])
    for vector in VECTORS["stun"]["rfc5769"]:
        yield b"\0" + bytes.fromhex(vector.get("request") or vector["response"])


# What the game reads


def client_decoders(content: bytes) -> None:
    """Each decoder accepts, and then the value can be written as it was read; or it raises the documented error."""
    for decode in (
        handshake.decode_connect,
        lambda data: handshake.decode_welcome(data, bytes(32)),
        handshake.decode_cookie,
        handshake.decode_refused,
        packets.decode_ping,
        packets.decode_notice,
        packets.decode_close,
        packets.decode_probe,
        packets.decode_probe_reply,
        packets.decode_probe_refused,
        reports.decode_reports,
        offers.decode_offer,
        offers.decode_offer_ack,
        offers.decode_relay_changed,
        decode_response,
        rendezvous.end_of,
        lambda data: rendezvous.decode_rendezvous(data, PAIR_SECRET, 5, 9),
    ):
        try:
            value = decode(content)
        except DecodeError as error:
            assert error.reason in REASONS
            continue
        repr(value)
        if isinstance(value, handshake.Cookie | packets.Ping | packets.Notice | packets.Close | packets.ProbeRefused):
            again = type(value)
            assert isinstance(again, type)
            assert decode(_with_kind(content, value.encode())) == value
    with contextlib.suppress(ValueError):
        unpack_peer_keys(content)
    for size in (1, 7, 1182):
        signed = content[: max(0, len(content) - handshake.MAC_SIZE)]
        try:  # a node that has the key, and writes what it likes
            handshake.decode_welcome(signed[: size * 200] + packets.mac(bytes(32), signed[: size * 200]), bytes(32))
        except DecodeError as error:
            assert error.reason in REASONS


def _with_kind(content: bytes, encoded: bytes) -> bytes:
    """With the type that came: decoders do not look at it."""
    return content[:1] + encoded[1:]


def client_decoders_seeds() -> Iterator[bytes]:
    for vector in VECTORS["native"]["packets"]:
        yield (data := bytes.fromhex(vector["hex"]))
        if has_body(data[0]):
            yield data[packets.HEADER.size : -packets.TAG_SIZE]
    yield packets.Notice(3, address=("192.0.2.1", 5)).encode()
    for vector in VECTORS["stun"]["answers"]:
        yield bytes.fromhex(vector["answer"])
    yield bytes.fromhex(VECTORS["native"]["pair"]["peer_keys"])


def has_body(kind: int) -> bool:
    """Whether it is a packet of a connection or of a pair."""
    return kind >= PacketType.DATA and not PacketType.PROBE <= kind <= PacketType.PROBE_REFUSED


def rendezvous_body() -> bytes:
    vector = next(it for it in VECTORS["native"]["packets"] if it["type"] == "RENDEZVOUS")
    return bytes.fromhex(vector["fields"]["body"])


def client_connection(content: bytes) -> None:
    """A node that has the keys, and sends what it likes. Head: raw, WELCOME or with a right tag; time."""
    node, seat_key = ("198.51.100.1", 31001), bytes(range(32))
    machine = RelayConnection(
        node,
        connect_token=bytes(120),
        seat_key=seat_key,
        wall_clock=lambda: 1_000_000,
        random=random.Random(1).randbytes,
    )
    now = 0.0
    machine.connect(now)
    nonce = handshake.decode_connect(machine.datagrams_to_send(now)[0][0]).nonce
    down, connection = b"", 0
    for sequence, (head, data) in enumerate(steps_of(content), start=1):
        now += wait(head >> 2)
        match head & 3:
            case 1:  # all its fields; ours is the nonce
                fields = data[:122].ljust(122, b"\0")
                signed = bytes((PacketType.WELCOME, 1)) + nonce + fields[18:]
                datagram = signed + packets.mac(seat_key, signed)
                down = packets.packet_keys(seat_key, nonce, signed[18:34])[1]
                connection = int.from_bytes(signed[34:38], "little")
            case 2 | 3 if down and len(data) >= 2:
                datagram = packets.seal(down, data[0], connection, sequence, data[1], data[2:])
            case _:
                datagram = data
        machine.receive_datagram(datagram, node, now)
        machine.handle_timer(now)
        assert len(machine.datagrams_to_send(now)) <= 8
        while machine.next_event() is not None:
            pass
        machine.stats()
        timer = machine.next_timer()
        assert timer is None or timer > now, "it spins"


def client_connection_seeds() -> Iterator[bytes]:
    named = {vector["type"]: bytes.fromhex(vector["hex"]) for vector in VECTORS["native"]["packets"]}
    welcome = named["WELCOME"]
    yield script([(1, welcome)])
    for kind, data in named.items():
        yield script([(0, data)])
        if has_body(data[0]):
            body = bytes(data[:1]) + b"\0" + data[packets.HEADER.size : -packets.TAG_SIZE]
            yield script([(1, welcome), (2, body), (2 | 6 << 2, body)])
        assert kind


def probing(content: bytes) -> None:
    """Answers to probes. Head: which of the nonces that were sent stands in the answer; three bits of time."""
    node = ("198.51.100.1", 31001)
    prober = Prober(node, random=random.Random(1).randbytes)
    meter = PeerMeter(random.Random(2).randbytes)
    machines = ClientMachine(node, user_token=1, session_token=2), HostMachine(node, user_token=1, session_token=2)
    peer = Peer("other", "192.0.2.9", 31001)
    meter.set_peers([peer])
    now, sent = 0.0, []
    prober.start(now)
    sent += [data for data, _ in prober.datagrams_to_send(now)] + meter.probe(peer, now)
    for head, data in steps_of(content):
        now += wait(head >> 5)
        if head & 31:
            nonce = packets.decode_probe(sent[head % len(sent)]).nonce
            data = data[:2] + nonce + data[18:]
        prober.receive_datagram(data, node, now)
        meter.receive_datagram(data, now)
        for machine in machines:
            machine.receive_datagram(data, node, now)
            machine.datagrams_to_send(now)
            while machine.next_event() is not None:
                pass
        prober.handle_timer(now)
        answers = [datagram for datagram, _ in prober.datagrams_to_send(now)]
        assert len(answers) <= 2
        sent += answers + meter.probe(peer, now)
        meter.give_up(now)
        while (event := prober.next_event()) is not None:
            assert 0.0 <= event.loss <= 1.0  # type: ignore[attr-defined]
        json.dumps(msgspec.to_builtins(meter.figures(now)), allow_nan=False)


def probing_seeds() -> Iterator[bytes]:
    reply = packets.ProbeReply(bytes(16), 5, proof=b"p" * 8).encode()
    refused = packets.ProbeRefused(bytes(16), 100).encode()
    for first in (0, 1, 2):
        yield script([(first, reply), (first + 1, reply), (first | 4 << 5, refused), (first + 2, reply)])
    yield script([(n | 6 << 5, refused) for n in range(8)])
    for vector in VECTORS["edgegap"]["packets"]:
        yield script([(0, bytes.fromhex(vector["hex"]))])


def fragments(content: bytes) -> None:
    """Payloads from several sources. Head: four bits of source, and of time."""
    reassembler, now = Reassembler(), 0.0
    for head, data in steps_of(content):
        now += wait(head >> 4)
        datagram = reassembler.receive(head & 15, data, now)
        assert datagram is None or len(datagram) <= MAX_DATAGRAM
        assert 0 <= reassembler.partial_bytes <= MAX_PARTIAL_BYTES
    whole = b"".join(data for _, data in steps_of(content))
    if len(whole) <= MAX_DATAGRAM:
        parts = Fragmenter().split(whole, 1182)
        assert [Reassembler().receive("x", part, now) for part in parts] == [whole] or len(parts) > 1
        once = Reassembler()
        assert [once.receive("x", part, now) for part in reversed(parts)][-1] == whole


def fragments_seeds() -> Iterator[bytes]:
    long = bytes(range(256)) * 12
    yield script([(0, part) for part in Fragmenter().split(long, 1182)])
    yield script([(1, part) for part in reversed(Fragmenter().split(long, 400))])
    yield script([(0, Fragmenter().split(long, 1182)[0])] * 3 + [(15 << 4, b"whole")])
    yield script([(number, part) for number, part in enumerate(Fragmenter().split(long[:40], 30))])


# Tokens


def connect_token(content: bytes) -> None:
    """First raw; then as the manager's own, sealed, with any fields, from a player who has the key in it."""
    keys = {KEY_ID: AESGCM(TOKEN_KEY)}
    with contextlib.suppress(BadToken, UnknownKey):
        tokens.open_token(content, keys)
    body_size = tokens.TOKEN_SIZE - 17 - 16
    body = content[:body_size].ljust(body_size, b"\0")
    head = struct.pack("<BI", tokens.TOKEN_VERSION, KEY_ID)
    token = head + bytes(12) + AESGCM(TOKEN_KEY).encrypt(bytes(12), body, head)
    opened = tokens.open_token(token, keys)
    table = Table()
    connect = handshake.Connect(int(NOW * 1e6) + 5, b"n" * 16, token)
    for addr in (table.natives[0].addr, ATTACKERS[0]):
        table.receive(connect.encode(opened.seat_key), addr, 0, 0.0)
        # A token may end the other session's players, whose seat it names: it is the manager's.
        if opened.session != OTHER_SESSION:
            table.bystanders_play()
    table.check_state()


def connect_token_seeds() -> Iterator[bytes]:
    vector = VECTORS["native"]["token"]
    yield bytes.fromhex(vector["hex"])
    yield bytes.fromhex(vector["plaintext"])
    yield bytes.fromhex(vector["plaintext"])[:6] + bytes(1) + bytes.fromhex(vector["plaintext"])[7:]
