"""Thousands of players at once, who share one UDP port: they join a node, and become flows for native/load.c.

Player n has the address 127.16.0.1 + n, or `base` + n. The first of each session is its host.
"""

import os
import random
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from causeway_client.protocol.handshake import Connect, decode_cookie, decode_welcome
from causeway_client.protocol.packets import EVERYONE, PacketType, Ping, packet_keys, seal
from causeway_client.protocol.tokens import ConnectToken, seal_token
from tests.support.grants import grant_document
from tests.support.node_process import NodeProcess

PLAYER_PORT = 40_000
PLENTY = {"packets": 4_000_000_000, "bytes": 4_000_000_000}
"""Limits in force that are never reached: the relay has to keep count."""

_FLOW = struct.Struct("<4s4sHHBB44s12s16sQ")  # struct flow of native/load.c
_IN_PKTINFO = struct.Struct("=i4s4s")
_IP_PKTINFO = 8


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of one pair of players."""

    source: str
    destination: str  # of the relay
    port: int
    head: bytes
    key: bytes = b""  # of a native player; its packets are numbered and tagged
    sequence: int = 1
    mac: bytes = bytes(12)
    repeats: bool = False  # the same number again and again

    def packed(self) -> bytes:
        return _FLOW.pack(
            IPv4Address(self.source).packed,
            IPv4Address(self.destination).packed,
            PLAYER_PORT,
            self.port,
            (1 + self.repeats) if self.key else 0,
            len(self.head),
            self.head,
            self.mac,
            self.key,
            self.sequence,
        )


def write_flows(path: str, flows: list[Flow]) -> None:
    """In an order that no cache can guess, the same each time."""
    shuffled = sorted(flows, key=lambda flow: (flow.source, flow.head))
    random.Random(1).shuffle(shuffled)
    with open(path, "wb") as file:
        file.writelines(flow.packed() for flow in shuffled)


class Crowd:
    """`sessions` sessions with `seats` players each, on the node's first worker."""

    def __init__(
        self, sessions: int, seats: int = 4, base: str = "127.16.0.1", relay: str = "127.0.0.1", first: int = 0
    ) -> None:
        """`first`: the number of the first session, for a second crowd on the same node."""
        self.sessions = sessions
        self.seats = seats
        self.relay = relay
        self._first = first
        self._base = int(IPv4Address(base))
        self._session_tokens = [0x51000000 + first + number for number in range(sessions)]

    def ip(self, session: int, seat: int) -> str:
        return str(IPv4Address(self._base + session * self.seats + seat))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Each (session, seat) that is not a host."""
        return ((session, seat) for session in range(self.sessions) for seat in range(1, self.seats))

    # -- grants

    def grant_all(self, node: NodeProcess) -> None:
        for session in range(self.sessions):
            node.put_grant(self._grant(session))

    def _grant(self, session: int) -> dict[str, Any]:
        return grant_document(
            expires_at=time.time() + 7200,
            session=self._name(session),
            token=self._session_tokens[session],
            tokens=[_user_token(session, seat) for seat in range(self.seats)],
            idle_timeout=3600,
            limits=PLENTY,
        )

    def _name(self, session: int) -> str:
        return f"{self._first + session:012x}-S"

    # -- joining

    def join(self, node: NodeProcess, dialect: str) -> list[Flow]:
        return self.join_edgegap(node) if dialect == "edgegap" else self.join_native(node)

    def join_edgegap(self, node: NodeProcess) -> list[Flow]:
        """Every player speaks once; a host learns what its players are called from what it hears."""
        with Mouth() as mouth:
            heads = {}
            for session in range(self.sessions):
                mouth.say(self.ip(session, 0), self._host_head(session) + bytes(5), (self.relay, node.server_port))
            for session, seat in self.pairs():
                heads[session, seat] = self._player_head(session, seat)
            names: dict[tuple[int, int], bytes] = {}
            while missing := [pair for pair in self.pairs() if pair not in names]:
                for session, seat in missing[:64]:
                    body = heads[session, seat] + struct.pack("<IB", session, seat)
                    mouth.say(self.ip(session, seat), body, (self.relay, node.client_port))
                for _, data in mouth.hear():
                    if len(data) == 10 and data[0] == 2:
                        session, seat = struct.unpack_from("<IB", data, 5)
                        names[session, seat] = data[1:5]
        flows = []
        for session, seat in self.pairs():
            flows.append(Flow(self.ip(session, seat), self.relay, node.client_port, heads[session, seat]))
            head = self._host_head(session) + names[session, seat]
            flows.append(Flow(self.ip(session, 0), self.relay, node.server_port, head))
        return flows

    def _player_head(self, session: int, seat: int) -> bytes:
        return struct.pack("<IIB", _user_token(session, seat), self._session_tokens[session], 2)

    def _host_head(self, session: int) -> bytes:
        return self._player_head(session, 0)

    def join_native(self, node: NodeProcess, fan_out: bool = False) -> list[Flow]:
        """Every player connects. `fan_out`: only the hosts send, each to everyone who has shown with a PING that it
        read its WELCOME (PROTOCOL.md 6.2)."""
        seats = [(session, seat) for session in range(self.sessions) for seat in range(self.seats)]
        connections = {}
        with Mouth() as mouth:
            waiting = {self.ip(*pair): _Joining(self, node, *pair) for pair in seats}
            while waiting:
                for ip, joining in list(waiting.items())[:64]:
                    mouth.say(ip, joining.connect(), (self.relay, node.client_port))
                for ip, data in mouth.hear():
                    if ip in waiting and waiting[ip].hear(data):
                        joining = waiting.pop(ip)
                        connections[joining.session, joining.seat] = joining
            if fan_out:
                self._ping_all(mouth, node, connections.values())
        if fan_out:
            return [connections[session, 0].flow(EVERYONE) for session in range(self.sessions)]
        flows = []
        for session, seat in self.pairs():
            flows += [connections[session, seat].flow(0), connections[session, 0].flow(seat)]
        return _with_own_sequences(flows)

    def _ping_all(self, mouth: "Mouth", node: NodeProcess, players: Iterable["_Joining"]) -> None:
        """The hosts do not: their numbers begin with what load.c sends."""
        waiting = {player.ip: player for player in players if player.seat}
        while waiting:
            for ip, player in list(waiting.items())[:64]:
                mouth.say(ip, player.ping(), (self.relay, node.client_port))
            for ip, data in mouth.hear():
                if data[0] == PacketType.PONG:
                    waiting.pop(ip, None)


def _with_own_sequences(flows: list[Flow]) -> list[Flow]:
    """A host has one connection and a flow to each player: its sequence numbers are dealt out by load.c per flow, so
    a host sends to one of its players only."""
    seen: set[str] = set()
    kept = []
    for flow in flows:
        if flow.source not in seen:
            seen.add(flow.source)
            kept.append(flow)
    return kept


class _Joining:
    def __init__(self, crowd: Crowd, node: NodeProcess, session: int, seat: int) -> None:
        self.session, self.seat = session, seat
        self.ip, self._relay, self._port = crowd.ip(session, seat), crowd.relay, node.client_port
        self._key = os.urandom(32)
        now = int(time.time())
        token = ConnectToken(
            session=crowd._name(session),
            worker=0,
            seat=seat,
            mesh=False,
            seat_key=self._key,
            issued=now,
            expires=now + 7200,
            seat_packets=0,
            seat_bytes=0,
            session_packets=0,
            session_bytes=0,
            idle_timeout=3600,
            session_expires=now + 7200,
            admits_edgegap=True,
        )
        self._connect = Connect(time.time_ns() // 1000, os.urandom(16), seal_token(token, *node.token_key))
        self._head = self._up_key = b""
        self._connection = self._pings = self._generation = 0

    def connect(self) -> bytes:
        return self._connect.encode(self._key)

    def hear(self, data: bytes) -> bool:
        """True when this player is connected now."""
        if data[0] == PacketType.COOKIE:
            cookie = decode_cookie(data).cookie
            self._connect = Connect(self._connect.timestamp, self._connect.nonce, self._connect.token, cookie)
            return False
        if data[0] != PacketType.WELCOME:
            return False
        welcome = decode_welcome(data, self._key)
        self._connection, self._generation = welcome.connection, welcome.roster_generation
        self._up_key, _ = packet_keys(self._key, welcome.player_nonce, welcome.node_nonce)
        self._head = struct.pack("<BI", PacketType.DATA, welcome.connection) + bytes(4)
        return True

    def ping(self) -> bytes:
        """With the next sequence: one whose PONG was lost is not answered again."""
        self._pings += 1
        body = Ping(bytes(8), 0, self._generation).encode()
        return seal(self._up_key, PacketType.PING, self._connection, self._pings, 0, body)

    def flow(self, target: int) -> Flow:
        return Flow(self.ip, self._relay, self._port, self._head + bytes((target,)), self._up_key)


class Mouth:
    """One socket that speaks from, and hears for, every player."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._socket.bind(("0.0.0.0", PLAYER_PORT))

    def __enter__(self) -> "Mouth":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def say(self, ip: str, data: bytes, to: tuple[str, int]) -> None:
        source = _IN_PKTINFO.pack(0, socket.inet_aton(ip), bytes(4))
        self._socket.sendmsg([data], [(socket.IPPROTO_IP, _IP_PKTINFO, source)], 0, to)

    def hear(self) -> Iterator[tuple[str, bytes]]:
        """(which player, datagram), until nothing comes for a moment."""
        wait = 0.05
        while select.select([self._socket], [], [], wait)[0]:
            data, ancillary, _, _ = self._socket.recvmsg(2048, 64)
            yield socket.inet_ntoa(ancillary[0][2][8:12]), data
            wait = 0.005


def _user_token(session: int, seat: int) -> int:
    return (session * 256 + seat) << 8 | 1
