"""All direct paths of a player, and the end-to-end sequence of what it sends (PROTOCOL.md 12).

`RelayConnection` owns one `Peers`, and passes it what concerns other players. `now` is in seconds of any clock that
never goes back.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping

from .. import events, packets
from ..errors import DecodeError
from ..handshake import Welcome
from ..packets import EVERYONE, HEADER, OVERHEAD, SEQUENCE_SIZE, DirectMode, PacketType
from .candidates import IpPort, offered
from .end_to_end import EndToEnd
from .nat import Observation, classify
from .pair_secrets import PeerKeys, unpack_peer_keys
from .path_selection import Choice
from .peer import IN_PLAY_FOR, Peer
from .permissions import Permissions, Restriction
from .rendezvous import Candidate, NatClass
from .reports import PathInfo, PathReason, Reporting
from .stun import StunClient
from .wire import DirectSettings

Address = Hashable

EXTRA_SOCKETS, EXTRA_SOCKETS_FOR = 256, 15.0  # how many, and for how many seconds
EXTRA_LENGTH = 3  # of an address that names an extra socket
MAX_PEERS = 64  # with direct paths; further ones are relayed


class Peers:
    """`relay(kind, seat, body)` sends a packet of the connection to the node, and returns False if there is none."""

    def __init__(
        self,
        *,
        peer_keys: bytes,
        settings: DirectSettings,
        node: Address,
        microseconds: int,
        random: Callable[[int], bytes],
        relay: Callable[[int, int, bytes], bool],
        outgoing: list[tuple[bytes, Address]],
        emitted: deque[events.Event],
        dropped: Counter[str],
    ) -> None:
        """Raises ValueError if `peer_keys` are not those of a seat; empty: there are no direct paths."""
        self.seat = 0
        self.numbers = EndToEnd(microseconds)
        self.random = random
        self.dropped = dropped
        self.relay = relay
        self.node = node  # where it is reached
        self.settings = settings
        self._keys: PeerKeys | None = unpack_peer_keys(peer_keys) if peer_keys else None
        self._outgoing = outgoing
        self._emitted = emitted
        self._permissions = Permissions(emitted)
        self._welcome: Welcome | None = None
        self._peers: dict[int, Peer] = {}
        self._by_id: dict[int, Peer] = {}
        self._hosts: list[IpPort] = []
        self._mapped: list[IpPort] = []
        self._stun = StunClient(None, (), random, 0.0)
        self._reporting = Reporting()
        self._timer = math.inf
        self.is_suspended = False
        self.awaits_second_address = False  # the node will know it soon (PROTOCOL.md 9)
        self._extra_until: float | None = None  # when the extra sockets are closed (PROTOCOL.md 12.8)

    # -- the connection to the node

    def welcomed(self, welcome: Welcome, now: float) -> None:
        """A new connection to the node, the first one or after a loss."""
        self.seat, self._welcome, own = welcome.seat, welcome, welcome.direct_mode
        self.is_suspended = False
        if self._keys is not None and self._keys.seat != welcome.seat:
            self.dropped["wrong_peer_keys"] += 1
            self._keys, own = None, DirectMode.RELAY_ONLY
        self._restrict(self._permissions.set_own(own), now)
        self._observe_nat(welcome, now)
        for peer in self._peers.values():
            peer.rendezvous(now)
        self._timer = now

    def set_modes(self, modes: Mapping[int, DirectMode], now: float) -> None:
        """The direct modes of the seats, as the node reports them. Where one became stricter, the pair ends at once;
        where it became less strict, a pair begins with the next DATA."""
        if self._welcome is not None:
            was_possible = self.is_possible
            self._restrict(self._permissions.replace(modes.get(self.seat, self._permissions.own), modes), now)
            if not was_possible:
                self._observe_nat(self._welcome, now)
            self._timer = now

    def _restrict(self, restriction: Restriction, now: float) -> None:
        for peer in [it for it in self._peers.values() if restriction.ends(it.seat)]:
            peer.end(PathReason.NOT_PERMITTED, now)
            self._reporting.ended(peer.report(), now)
            del self._peers[peer.seat], self._by_id[peer.id]
            self.numbers.unpair(peer.seat)

    def set_addresses(self, hosts: Iterable[IpPort], mapped: Iterable[IpPort] | None, now: float) -> None:
        """The addresses of the sockets, and those that a router maps to them (None: unchanged)."""
        self._hosts = list(hosts)
        if mapped is not None:
            self._mapped = list(mapped)
        for peer in self._peers.values():
            peer.rendezvous(now)
        self._timer = now

    @property
    def hosts(self) -> list[IpPort]:
        """The addresses of the sockets."""
        return self._hosts

    def rebind(self, now: float) -> None:
        """The sockets are new ones."""
        if self._welcome is not None:
            self._observe_nat(self._welcome, now)
        for peer in self._peers.values():
            peer.restart(now)
        self._timer = now

    def remove(self, seat: int) -> None:
        """The seat was revoked, or its player has closed: nothing is sent to it or accepted from it directly."""
        if (peer := self._peers.pop(seat, None)) is not None:
            del self._by_id[peer.id]
        self.numbers.forget(seat)
        self._permissions.forget(seat)

    def has_left_node(self, seat: int) -> bool:
        """The node has lost the seat. Whether its player is still reached directly; if not, it is forgotten."""
        peer = self._peers.get(seat)
        if peer is not None and peer.is_direct:
            peer.has_left_node = True
            return True
        self.remove(seat)
        return False

    def joined(self, seat: int) -> bool:
        """The seat has joined. Whether it was reached directly all the time."""
        if (peer := self._peers.get(seat)) is None:
            return False
        was_direct, peer.has_left_node = peer.has_left_node, False
        return was_direct

    def report(self, now: float) -> None:
        """Reports to the node on the paths to all peers."""
        for body in self._reporting.take([peer.report() for peer in self._peers.values()], now):
            self.relay(PacketType.PATH_REPORT, 0, body)

    def close(self, code: int = 0, text: str = "") -> None:
        """This player leaves, or may not go on: no direct path is used any more."""
        body = packets.Close(code, text).encode()
        for peer in self._peers.values():
            peer.close(body)
        self._peers.clear()
        self._by_id.clear()
        self._reporting.stop()

    def leave_direct(self, now: float) -> None:
        """The node has been silent for longer than the direct grace, or the session has expired."""
        self.is_suspended = True
        for peer in self._peers.values():
            peer.leave_direct(PathReason.NOT_PERMITTED, now)

    def permit(self, now: float) -> None:
        """Direct paths may be used again after `leave_direct`."""
        self.is_suspended = False
        for peer in self._peers.values():
            peer.start_over(now)
        self._timer = now

    def may_begin(self, welcome: Welcome) -> bool:
        """Whether direct paths are possible on the connection of this WELCOME."""
        return self._keys is not None and welcome.is_sequenced and welcome.direct_mode is not DirectMode.RELAY_ONLY

    @property
    def is_possible(self) -> bool:
        """Whether this player may have direct paths at all."""
        return self._keys is not None and self._permissions.own is not DirectMode.RELAY_ONLY

    @property
    def direct_seats(self) -> frozenset[int]:
        """The seats to which DATA goes on a direct path."""
        return frozenset(seat for seat, peer in self._peers.items() if peer.is_direct)

    # -- DATA

    def send(self, target: int, roster: Iterable[int], payload: bytes, now: float) -> bool:
        """Whether the packet was sent on at least one path. `roster`: the other seats that are connected."""
        if target != EVERYONE:
            peer = self._peers.get(target) or self._begin(target, now)
            number = self.numbers.next()
            body = number.to_bytes(8, "little")[:SEQUENCE_SIZE] + payload
            if peer is not None:
                self._probe_again(peer, now)
            if peer is None or peer.send_data(number, payload, now):
                return self.relay(PacketType.DATA, target, body) or (peer is not None and peer.is_direct)
            return True
        return self._send_to_everyone(frozenset(roster), payload, now)

    def _send_to_everyone(self, roster: frozenset[int], payload: bytes, now: float) -> bool:
        is_host_only = self._welcome is not None and not self._welcome.mesh and self.seat != 0
        receivers = frozenset({0}) if is_host_only else roster | self.direct_seats
        peers = {seat: self._peers.get(seat) or self._begin(seat, now) for seat in receivers}
        number = self.numbers.next()
        body = number.to_bytes(8, "little")[:SEQUENCE_SIZE] + payload
        relayed = []
        for seat, peer in peers.items():
            if peer is not None:
                self._probe_again(peer, now)
            if peer is None or peer.send_data(number, payload, now):
                relayed.append(seat)
        # A single DATA to everyone costs the player less than one to each of several seats.
        if len(relayed) == len(receivers) or len(relayed) > 1:
            return self.relay(PacketType.DATA, EVERYONE, body) or len(relayed) < len(receivers)
        return all(self.relay(PacketType.DATA, seat, body) for seat in relayed)

    def _probe_again(self, peer: Peer, now: float) -> None:
        """DATA goes to or comes from the peer: while it was idle, its probes were far apart."""
        if now - peer.traffic_at > IN_PLAY_FOR / 2:
            self._timer = now

    def receive_data(self, source: int, body: bytes, now: float) -> bytes | None:
        """The payload of DATA over the node; None: a duplicate. Raises DecodeError."""
        if len(body) < SEQUENCE_SIZE:
            raise DecodeError("malformed")
        peer = self._peers.get(source) or self._begin(source, now)
        if peer is not None:
            self._probe_again(peer, now)
            peer.relay.packet_received(now)
            peer.traffic_at = now
        if not self.numbers.accept_relayed(source, int.from_bytes(body[:SEQUENCE_SIZE], "little")):
            self.dropped["duplicate"] += 1
            return None
        return body[SEQUENCE_SIZE:]

    # -- other packets

    def receive_rendezvous(self, source: int, body: bytes, now: float) -> None:
        """Raises DecodeError."""
        peer = self._peers.get(source) or self._begin(source, now)
        if peer is None:
            raise DecodeError("not_allowed")
        peer.receive_rendezvous(body, now)
        self._timer = now

    def receive_peer(self, source: int, body: bytes, now: float) -> None:
        """A packet of a pair that came over the node. Raises DecodeError."""
        if len(body) >= OVERHEAD and body[9] != source:
            raise DecodeError("unknown_pair")
        self._receive_of_pair(body, None, now)

    def receive_direct(self, data: bytes, address: Address, now: float) -> tuple[int, bytes] | None:
        """(seat, payload) of a DATA from any address. Raises DecodeError."""
        return self._receive_of_pair(data, address, now)

    def _receive_of_pair(self, data: bytes, address: Address | None, now: float) -> tuple[int, bytes] | None:
        if len(data) < OVERHEAD:
            raise DecodeError("too_short")
        kind, pair, low, seat = HEADER.unpack_from(data)
        peer = self._by_id.get(pair)
        if peer is None or peer.seat != seat or not peer.receive_key:
            raise DecodeError("unknown_pair")
        number = self.numbers.complete(seat, low)
        if not packets.is_tag_valid(peer.receive_key, data, number):
            raise DecodeError("bad_tag")
        body = data[HEADER.size : -packets.TAG_SIZE]
        if kind == PacketType.DIRECT_CLOSE:
            self._closed(peer, packets.decode_close(body))
            return None
        if kind not in packets.OF_A_PAIR or (kind == PacketType.DIRECT_DATA and address is None):
            raise DecodeError("unknown_type")
        if kind == PacketType.DIRECT_DATA and self.is_suspended:
            raise DecodeError("not_permitted")
        was_direct = peer.is_direct
        payload = peer.receive(kind, body, self.numbers.accept(seat, number), address, now)
        if payload is None or not was_direct:
            self._timer = now
        return None if payload is None else (seat, payload)

    def _closed(self, peer: Peer, close: packets.Close) -> None:
        self.remove(peer.seat)
        if peer.has_left_node:  # otherwise the node reports it
            self._emitted.append(events.Left(peer.seat, close.text))

    # -- the game's permission

    def allow(self, seat: int, now: float) -> None:
        """The game permits a direct path to the player of `seat` (direct mode "ask")."""
        self._permissions.allow(seat)
        if seat not in self._peers:
            self._begin(seat, now)

    def _begin(self, seat: int, now: float) -> Peer | None:
        """The peer, if a direct path to it is permitted; None: it is relayed only."""
        keys, welcome = self._keys, self._welcome
        if keys is None or welcome is None or seat == self.seat or len(self._peers) >= MAX_PEERS:
            return None
        if not (welcome.mesh or 0 in (seat, self.seat)) or not self._permissions.permits(seat):
            return None
        peer = self._peers[seat] = Peer(seat, keys.secret(seat), self, self.settings, now)
        self._by_id[peer.id] = peer
        peer.rendezvous(now)
        self._timer = now
        return peer

    # -- what a peer needs (peer.Wire)

    def direct(self, datagram: bytes, address: Address) -> None:
        self._outgoing.append((datagram, address))

    def candidates(self) -> tuple[Candidate, ...]:
        return offered(self._hosts, self._mapped)

    def nat(self) -> tuple[NatClass, int]:
        return classify(self._stun.observations)

    def nat_expected_until(self, now: float) -> float | None:
        return self._stun.expected_until(now, or_more=self.awaits_second_address)

    def own_observed(self) -> list[IpPort]:
        return [(it.ip, it.port) for it in self._stun.observations]

    def path_changed(self, peer: Peer, choice: Choice) -> None:
        if peer.has_left_node and choice.path.address is None:
            self._emitted.append(events.Left(peer.seat, "timeout"))
            peer.has_left_node = False
        self._emitted.append(events.PathChanged(peer.seat, choice.path.kind.name.lower(), choice.reason.name.lower()))
        self._reporting.changed(choice.since)

    def extra_sockets(self) -> int:
        self._extra_until = math.inf
        self._emitted.append(events.ExtraSockets(range(EXTRA_SOCKETS)))
        return EXTRA_SOCKETS

    def _close_extra_sockets(self, now: float) -> None:
        """All but those that a direct path uses."""
        addresses = (peer.choice.path.address for peer in self._peers.values())
        used = frozenset(int(it[2]) for it in addresses if isinstance(it, tuple) and len(it) == EXTRA_LENGTH)
        self._emitted.append(events.ExtraSockets(used))
        self._extra_until = None

    def _observe_nat(self, welcome: Welcome, now: float) -> None:
        """Asks the node's other port which address it sees; the WELCOME is the answer of the first one."""
        if not self.is_possible:
            return
        assert isinstance(self.node, tuple)  # noqa: S101 - the address of a socket
        ip, port = self.node[:2]
        servers = [(ip, welcome.second_port)] if welcome.second_port else []
        self._stun = StunClient(Observation(ip, port, welcome.ip, welcome.port), servers, self.random, now)

    def second_address_verified(self, now: float) -> None:
        """From now on, the node adds it to RENDEZVOUS."""
        self.awaits_second_address = False
        self._candidates_changed(now)

    def receive_stun(self, data: bytes, now: float) -> None:
        """Raises DecodeError."""
        self._stun.receive(data)
        self._candidates_changed(now)

    def _candidates_changed(self, now: float) -> None:
        for peer in self._peers.values():
            if not peer.is_direct:
                peer.rendezvous(now)
        self._timer = now

    # -- time

    def next_timer(self) -> float:
        return self._timer

    def handle_timer(self, now: float) -> None:
        if now < self._timer:
            return
        self._outgoing += self._stun.requests_to_send(now)
        for peer in list(self._peers.values()):
            peer.handle_timer(now)
        if self._reporting.due is not None and now >= self._reporting.due:
            self.report(now)
        due = [math.inf, *(peer.next_timer(now) for peer in self._peers.values())]
        due += [at for at in (self._reporting.due, self._stun.next_timer()) if at is not None]
        if self._extra_until is not None:
            self._extra_until = min(self._extra_until, now + EXTRA_SOCKETS_FOR)
            if now >= self._extra_until:
                self._close_extra_sockets(now)
            else:
                due.append(self._extra_until)
        self._timer = max(min(due), now + 0.001)

    def paths(self) -> list[PathInfo]:
        """The path to each peer with which a direct path was permitted."""
        return [peer.info() for peer in self._peers.values()]
