"""The machine of a player's connection, sans-I/O (PROTOCOL.md 6 to 10).

An adapter owns the socket and the clock. After each call it sends what `datagrams_to_send` returns, reads the events of
`next_event`, and sets one timer for `next_timer`. `now` is in seconds of any clock that never goes back.

    IDLE --connect()--> JOINING --WELCOME--> RELAYED --timeout--> RECONNECTING
                           |                   |  ^                  |  |
                           |                   |  +-----WELCOME------+  |
                           +------refused, revoked, ended, timed out, closed------> CLOSED

With credentials for a standby relay, there are two legs (relays/legs.py): the states are those of the active one.
JOINING and RECONNECTING differ only in their timeouts. A packet of the old connection that arrives while reconnecting
is dropped, because the node may already use new keys. Packets that the game sends meanwhile are dropped and counted
("not_connected"), except to players that are reached directly (`paths`).
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable

from . import events, handshake, packets
from .errors import (
    ClosedByNode,
    ConnectionClosed,
    ConnectionFailed,
    ConnectTimeout,
    DecodeError,
    InvalidTarget,
    PayloadTooLarge,
    SeatRevoked,
    SessionEnded,
    refusal_error,
)
from .leg import Stats, stats_of
from .offers import OFFER_KEY_SIZE, ChangeReason
from .packets import EVERYONE, NoticeCode, PacketType
from .paths.peers import Peers
from .paths.stun import is_stun
from .paths.wire import DirectSettings
from .relays.leg_factory import LegFactory
from .relays.legs import Legs
from .relays.relay_leg import Lost, RelayLeg
from .relays.standby_relay import StandbyRelay
from .states import TRANSITIONS, State

Address = Hashable

SEAT_KEY_SIZE = 32
MAX_TOKEN = packets.MAX_DATAGRAM - handshake.MIN_CONNECT


class RelayConnection:
    """A player's connection to the seat in its connect token.

    `wall_clock` returns microseconds since 1970, for the timestamp of the CONNECT; `random(n)` returns n bytes of a
    cryptographic generator. `connect_timeout` and `reconnect_timeout` are in seconds. Without `peer_keys` there are no
    direct paths, without `offer_key` no second relay. `second_node` is an address of the node in the other address
    family. Raises ValueError if the token or a key has an impossible length."""

    def __init__(
        self,
        node: Address,
        *,
        connect_token: bytes,
        seat_key: bytes,
        wall_clock: Callable[[], int],
        random: Callable[[int], bytes],
        connect_timeout: float = 10.0,
        reconnect_timeout: float = 30.0,
        peer_keys: bytes = b"",
        direct: DirectSettings = DirectSettings(),  # noqa: B008 - it is frozen
        second_node: Address | None = None,
        offer_key: bytes = b"",
        standby: StandbyRelay | None = None,
    ) -> None:
        if not 0 < len(connect_token) <= MAX_TOKEN or len(seat_key) != SEAT_KEY_SIZE:
            raise ValueError(f"expected a connect token, and a seat key of {SEAT_KEY_SIZE} bytes")
        if len(offer_key) not in (0, OFFER_KEY_SIZE):
            raise ValueError(f"expected an offer key of {OFFER_KEY_SIZE} bytes")
        self.state = State.IDLE
        self.error: ConnectionFailed | None = None  # set when the state is CLOSED; `send` raises it
        self.dropped: Counter[str] = Counter()
        self._wall_clock = wall_clock
        self._timeouts = {State.JOINING: connect_timeout, State.RECONNECTING: reconnect_timeout}
        self._sent = self._received = self._reconnects = 0
        self._outgoing: list[tuple[bytes, Address]] = []
        self._events: deque[events.Event] = deque()
        self._is_sequenced = False
        self._direct_until = self._expires_at = math.inf  # when direct paths end: now, and at the latest
        self.direct = Peers(
            peer_keys=peer_keys,
            settings=direct,
            node=node,
            microseconds=wall_clock(),
            random=random,
            relay=self._relay,
            outgoing=self._outgoing,
            emitted=self._events,
            dropped=self.dropped,
        )
        legs = LegFactory(self.direct, self._events, self._outgoing, wall_clock, random)
        self._legs = Legs(
            legs.new(node, second_node, connect_token, seat_key),
            legs,
            offer_key=offer_key,
            standby=standby,
            reconnect_timeout=reconnect_timeout,
            hosts=lambda: self.direct.hosts,
            changed=self._relay_changed,
            emitted=self._events,
        )

    # -- called by the game -------------------------------------------------------------------------

    def connect(self, now: float) -> None:
        self._enter(events.ConnectStarted())
        self._legs.connect(now)
        self._join(now)

    def send(self, target: int, payload: bytes, now: float) -> bool:
        """Sends DATA to a seat or to EVERYONE. Returns False if it was dropped because there is no connection now.

        Raises InvalidTarget, PayloadTooLarge, or the ConnectionFailed that ended the connection."""
        return self._send_payload(PacketType.DATA, target, payload, now)

    def signal(self, target: int, payload: bytes, now: float) -> bool:
        """Like `send`, but a SIGNAL, to one seat in any topology."""
        return self._send_payload(PacketType.SIGNAL, target, payload, now)

    def rebind(self, now: float) -> None:
        """The adapter's sockets have other addresses: sends a packet at once, so that the node verifies it."""
        self._legs.rebind(now)
        self.direct.node = self._legs.active.node
        self.direct.rebind(now)

    def close(self, now: float, code: int = 0, reason: str = "") -> None:
        """Ends the connection and notifies the node. A game may use `code` 128 to 255."""
        if self.state is State.CLOSED:
            return
        self.direct.report(now)
        self._legs.close(code, reason)
        self.direct.close(code, reason)
        self._end(None)

    @property
    def node(self) -> Address:
        """The address of the active relay."""
        return self._legs.active.node

    @property
    def standby(self) -> Address | None:
        """The address of the standby relay to which there is a leg, if this player can change to it."""
        return self._legs.standby.node if self._legs.standby and self._legs.is_standby_usable else None

    @property
    def peers(self) -> frozenset[int]:
        """The other connected seats, as far as this player was notified, and those that are reached directly."""
        return frozenset(self._legs.seats) | self.direct.direct_seats

    @property
    def max_payload(self) -> int:
        """The maximum payload of a packet, in bytes."""
        return min(packets.MAX_PAYLOAD, self.welcome.max_payload) if self.welcome else packets.MAX_PAYLOAD

    @property
    def welcome(self) -> handshake.Welcome | None:
        """The last WELCOME of the active relay."""
        connection = self._legs.active.connection
        return connection.welcome if connection else None

    def stats(self) -> Stats:
        return stats_of(self._legs.active.connection, self._sent, self._received, self._reconnects, self.dropped)

    # -- called by the adapter ---------------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> tuple[int, bytes] | None:
        """(source seat, payload) of a DATA packet; None for other packets. Never raises."""
        try:
            return self._receive(data, addr, now)
        except DecodeError as error:
            self.dropped[error.reason] += 1
            return None

    def refused(self, addr: Address, now: float) -> None:
        """An ICMP message reports that nothing receives packets at the address."""
        self._legs.refused(addr)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        outgoing = self._outgoing.copy()
        self._outgoing.clear()
        return outgoing

    def next_event(self) -> events.Event | None:
        return self._events.popleft() if self._events else None

    def next_timer(self) -> float | None:
        due = self._legs.next_timer()
        if self.state in (State.IDLE, State.CLOSED) or math.isinf(due):
            return None
        return min(due, self.direct.next_timer())

    def handle_timer(self, now: float) -> None:
        """Does what is due; does nothing if it is called early."""
        if self.state in (State.IDLE, State.CLOSED):
            return
        self.direct.handle_timer(now)
        if now >= self._direct_until:
            self._direct_until = math.inf
            self.direct.leave_direct(now)
        match self._legs.handle_timer(now):
            case Lost.SILENT:
                self._reconnect(now)
            case Lost.NO_ANSWER if self.direct.direct_seats:
                # The players that are reached directly are not lost.
                self._legs.active.give_up_at = self._direct_until
            case Lost.NO_ANSWER:
                self._end(ConnectTimeout(self._timeouts[self.state]))

    # -- joining -------------------------------------------------------------------------------------

    def _join(self, now: float) -> None:
        self._legs.active.join(self._timeouts[self.state], now)

    def _reconnect(self, now: float) -> None:
        welcome = self.welcome
        self._reconnects += 1
        if welcome is not None:
            self._direct_until = min(now + welcome.direct_grace, self._expires_at)
        self._enter(events.ReconnectStarted())
        self._join(now)

    def _receive_welcome(self, leg: RelayLeg, now: float) -> None:
        welcome = leg.connection.welcome if leg.connection else None
        if welcome is None:
            return
        leg.roster.welcomed(welcome)
        leg.ping(now)  # measures the round trip early
        if leg is self._legs.active:
            self._welcomed(welcome, leg, now)
        elif self.state is State.JOINING:
            self._legs.change(ChangeReason.SILENT, now)

    def _welcomed(self, welcome: handshake.Welcome, leg: RelayLeg, now: float) -> None:
        """The leg is the active one."""
        self._is_sequenced = welcome.is_sequenced
        self._expires_at = now + welcome.expires - self._wall_clock() / 1e6
        self._direct_until = self._expires_at
        if self.state is not State.RELAYED:
            self._enter(
                events.Welcomed(
                    seat=welcome.seat,
                    mesh=welcome.mesh,
                    address=(welcome.ip, welcome.port),
                    peers=self.peers,
                    max_payload=self.max_payload,
                    packets_per_second=welcome.packets_per_second,
                    bytes_per_second=welcome.bytes_per_second,
                )
            )
        is_second = bool(leg.second_node and welcome.direct_mode)
        leg.is_second_due = self.direct.awaits_second_address = is_second
        if is_second:
            leg.ping(now)
        if welcome.is_sequenced:
            self.direct.welcomed(welcome, now)
            self._legs.join_standby(now)

    def _relay_changed(self, now: float) -> None:
        active = self._legs.active
        self.direct.node = active.node
        if active.connection is not None:
            self._welcomed(active.connection.welcome, active, now)
            if active.roster.modes is not None:
                self.direct.set_modes(active.roster.modes, now)

    # -- receiving -----------------------------------------------------------------------------------

    def _receive(self, data: bytes, addr: Address, now: float) -> tuple[int, bytes] | None:
        if len(data) > packets.MAX_DATAGRAM:
            raise DecodeError("too_long")
        leg = self._legs.leg_from(addr)
        if leg is None:
            return self._receive_from_elsewhere(data, addr, now)
        packet = leg.receive(data, addr, now)
        if leg is self._legs.standby:
            self._legs.standby_answers(now)
        return None if packet is None else self._receive_packet(leg, *packet, now)

    def _receive_from_elsewhere(self, data: bytes, addr: Address, now: float) -> tuple[int, bytes] | None:
        if data and data[0] in packets.OF_A_PAIR and self._is_sequenced and self.state is not State.CLOSED:
            arrived = self.direct.receive_direct(data, addr, now)
            self._received += arrived is not None
            return arrived
        if is_stun(data):
            self.direct.receive_stun(data, now)
            return None
        raise DecodeError("wrong_address")

    def _receive_packet(self, leg: RelayLeg, kind: int, seat: int, body: bytes, now: float) -> tuple[int, bytes] | None:
        match kind:
            case PacketType.DATA:
                payload = self.direct.receive_data(seat, body, now) if self._is_sequenced else body
                if payload is None:
                    return None
                self._received += 1
                if self._is_sequenced:
                    self._legs.arrived(seat, leg, int.from_bytes(body[: packets.SEQUENCE_SIZE], "little"), now)
                return seat, payload
            case PacketType.SIGNAL:
                self._events.append(events.Signaled(seat, body))
            case PacketType.NOTICE:
                self._receive_notice(leg, seat, packets.decode_notice(body), now)
            case PacketType.CLOSE:
                close = packets.decode_close(body)
                self._end(ClosedByNode(close.code, close.text))
            case PacketType.PATH_CHALLENGE if leg is self._legs.active and body == packets.PATH_IS_SECOND:
                self.direct.second_address_verified(now)
            case PacketType.RENDEZVOUS:
                self.direct.receive_rendezvous(seat, body, now)
            case PacketType.PEER:
                self.direct.receive_peer(seat, body, now)
            case PacketType.OFFER if self._is_sequenced:
                self._legs.receive_offer(leg, body, now)
            case PacketType.WELCOME:
                self._receive_welcome(leg, now)
            case PacketType.REFUSED if leg.refused is not None:
                self._leg_ended(leg, refusal_error(leg.refused.code, leg.refused.name), now)
        return None

    def _receive_notice(self, leg: RelayLeg, seat: int, notice: packets.Notice, now: float) -> None:
        match notice.code:
            case NoticeCode.MOVED if notice.address is not None:
                if leg is self._legs.active:
                    self._events.append(events.Moved(notice.address))
            case NoticeCode.OVER_QUOTA:
                self._events.append(events.OverQuota(notice.text))
            case NoticeCode.REVOKED:
                self._end(SeatRevoked(notice.text))
            case NoticeCode.ENDED:
                self._leg_ended(leg, SessionEnded(notice.text), now)
            case NoticeCode.DRAINING:
                if leg is self._legs.active:
                    self._events.append(events.Draining(notice.text))
            case NoticeCode.CHANGED_RELAY:
                self._legs.changed_relay(seat, leg)
            case _:
                number = leg.connection.opened if leg.connection else 0
                leg.roster.receive(seat, notice, number, now)
                self._legs.move_if_possible(now)

    def _leg_ended(self, leg: RelayLeg, error: ConnectionFailed, now: float) -> None:
        reason = "ended" if isinstance(error, SessionEnded) else str(error.code)
        if not self._legs.ended(leg, reason, now):
            self._end(error)
        elif self.state is State.RELAYED and not self._legs.active.is_connected:
            self._enter(events.ReconnectStarted())

    # -- sending -------------------------------------------------------------------------------------

    def _send_payload(self, kind: int, target: int, payload: bytes, now: float) -> bool:
        if self.error is not None:
            raise self.error
        if not 0 <= target <= EVERYONE or (kind == PacketType.SIGNAL and target == EVERYONE):
            raise InvalidTarget(f"{target} is not a seat")
        if len(payload) > self.max_payload:
            raise PayloadTooLarge(f"{len(payload)} bytes; the maximum is {self.max_payload}")
        if self.welcome is None:
            self.dropped["not_connected"] += 1
            return False
        if kind == PacketType.DATA and not self.welcome.may_reach(target):
            raise InvalidTarget(f"seat {target}: in this session, players can send to the host only")
        if kind == PacketType.DATA and self._is_sequenced:
            self._legs.sent(now)
            was_sent = self.direct.send(target, self._legs.seats, payload, now)
        else:
            was_sent = self._relay(kind, target, payload)
        if was_sent:
            self._sent += 1
        else:
            self.dropped["not_connected"] += 1
        return was_sent

    def _relay(self, kind: int, seat: int, body: bytes) -> bool:
        """Sends a packet of the connection. False: there is no connection now."""
        return self._legs.send(kind, seat, body)

    # -- states --------------------------------------------------------------------------------------

    def _end(self, error: ConnectionFailed | None) -> None:
        self._legs.stop()
        self.direct.close()
        self.error = error or ConnectionClosed()
        self._enter(events.Closed(error))

    def _enter(self, event: events.Event) -> None:
        self.state = TRANSITIONS[self.state, type(event)]
        self._events.append(event)
