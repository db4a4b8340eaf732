"""The machine of a player's connection, sans-I/O (PROTOCOL.md 6 to 10).

An adapter owns the socket and the clock. After each call it sends what `datagrams_to_send` returns, reads the events of
`next_event`, and sets one timer for `next_timer`. `now` is in seconds of any clock that never goes back.

    IDLE --connect()--> JOINING --WELCOME--> RELAYED --timeout--> RECONNECTING
                           |                   |  ^                  |  |
                           |                   |  +-----WELCOME------+  |
                           +------refused, revoked, ended, timed out, closed------> CLOSED

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
from .joining import Joining
from .leg import PlayerLeg, Stats, stats_of
from .packets import EVERYONE, NoticeCode, PacketType
from .paths.peers import Peers
from .paths.stun import is_stun
from .paths.wire import DirectSettings
from .roster import Roster
from .states import TRANSITIONS, State

Address = Hashable

SILENT_KEEP_ALIVES = 3
CLOSE_COPIES = 3
SEAT_KEY_SIZE = 32
MAX_TOKEN = packets.MAX_DATAGRAM - handshake.MIN_CONNECT


class RelayConnection:
    """A player's connection to the seat in its connect token.

    `wall_clock` returns microseconds since 1970, for the timestamp of the CONNECT; `random(n)` returns n bytes of a
    cryptographic generator. `connect_timeout` and `reconnect_timeout` are in seconds. Without `peer_keys` there are no
    direct paths. `second_node` is an address of the node in the other address family. Raises ValueError if the token or
    a key has an impossible length."""

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
    ) -> None:
        if not 0 < len(connect_token) <= MAX_TOKEN or len(seat_key) != SEAT_KEY_SIZE:
            raise ValueError(f"expected a connect token, and a seat key of {SEAT_KEY_SIZE} bytes")
        self.node = node
        self._second_node, self._is_second_due = second_node, False  # due: a PING from the second address
        self.state = State.IDLE
        self.error: ConnectionFailed | None = None  # set when the state is CLOSED; `send` raises it
        self.dropped: Counter[str] = Counter()
        self._seat_key = seat_key
        self._random = random
        self._joining = Joining(connect_token, seat_key, wall_clock, random)
        self._timeouts = {State.JOINING: connect_timeout, State.RECONNECTING: reconnect_timeout}
        self._leg: PlayerLeg | None = None
        self._give_up_at: float | None = None  # while joining or reconnecting
        self._next_ping = 0.0
        self._unanswered_since: float | None = None  # when the first PING since the last received packet was sent
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
        self._roster = Roster(self.direct, self._events)
        self._wall_clock = wall_clock

    # -- called by the game -------------------------------------------------------------------------

    def connect(self, now: float) -> None:
        self._enter(events.ConnectStarted())
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
        self.node, self._second_node = self.direct.choose_node(self._second_node)
        if self._leg is not None and self.state is State.RELAYED:
            self._is_second_due = self._second_node is not None
            self._ping(now, self._leg)
        elif self._give_up_at is not None:
            self._transmit(self._joining.start(now))
        self.direct.rebind(now)

    def close(self, now: float, code: int = 0, reason: str = "") -> None:
        """Ends the connection and notifies the node. A game may use `code` 128 to 255."""
        if self.state is State.CLOSED:
            return
        if self._leg is not None and self.state is State.RELAYED:
            self.direct.report(now)
            body = packets.Close(code, reason).encode()
            for _ in range(CLOSE_COPIES):
                self._transmit(self._leg.seal(PacketType.CLOSE, 0, body))
        self.direct.close(code, reason)
        self._end(None)

    @property
    def peers(self) -> frozenset[int]:
        """The other connected seats, as far as this player was notified, and those that are reached directly."""
        return frozenset(self._roster.seats) | self.direct.direct_seats

    @property
    def max_payload(self) -> int:
        """The maximum payload of a packet, in bytes."""
        return min(packets.MAX_PAYLOAD, self._leg.welcome.max_payload) if self._leg else packets.MAX_PAYLOAD

    @property
    def welcome(self) -> handshake.Welcome | None:
        """The last WELCOME of the node."""
        return self._leg.welcome if self._leg else None

    def stats(self) -> Stats:
        return stats_of(self._leg, self._sent, self._received, self._reconnects, self.dropped)

    # -- called by the adapter ---------------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> tuple[int, bytes] | None:
        """(source seat, payload) of a DATA packet; None for other packets. Never raises."""
        try:
            return self._receive(data, addr, now)
        except DecodeError as error:
            self.dropped[error.reason] += 1
            return None

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        outgoing = self._outgoing.copy()
        self._outgoing.clear()
        return outgoing

    def next_event(self) -> events.Event | None:
        return self._events.popleft() if self._events else None

    def next_timer(self) -> float | None:
        if self._leg is not None and self.state is State.RELAYED:
            return min(self._next_ping, self._timeout_at(self._leg), self.direct.next_timer())
        if self._give_up_at is None or self._joining.repeat_at is None:
            return None
        return min(self._give_up_at, self._joining.repeat_at, self.direct.next_timer())

    def handle_timer(self, now: float) -> None:
        """Does what is due; does nothing if it is called early."""
        if self.state is not State.CLOSED:
            self.direct.handle_timer(now)
            if now >= self._direct_until:
                self._direct_until = math.inf
                self.direct.leave_direct(now)
        if self._leg is not None and self.state is State.RELAYED:
            if now >= self._timeout_at(self._leg):
                self._reconnects += 1
                self._direct_until = min(now + self._leg.welcome.direct_grace, self._expires_at)
                self._enter(events.ReconnectStarted())
                self._join(now)
            elif now >= self._next_ping:
                self._ping(now, self._leg)
        elif self._give_up_at is not None and now >= self._give_up_at:
            if self.direct.direct_seats:
                self._give_up_at = self._direct_until  # the players that are reached directly are not lost
            else:
                self._end(ConnectTimeout(self._timeouts[self.state]))
        elif self._joining.repeat_at is not None and now >= self._joining.repeat_at:
            self._transmit(self._joining.repeat(now))

    # -- joining -------------------------------------------------------------------------------------

    def _join(self, now: float) -> None:
        self._give_up_at = now + self._timeouts[self.state]
        self._transmit(self._joining.start(now))

    def _receive_cookie(self, data: bytes, now: float) -> None:
        again = self._joining.receive_cookie(data, now)
        if again is not None:
            self._transmit(again)

    def _receive_refused(self, data: bytes, now: float) -> None:
        answer = self._joining.receive_refused(data, now)
        if isinstance(answer, bytes):
            self._transmit(answer)
        else:
            self._end(refusal_error(answer.code, answer.name))

    def _receive_welcome(self, data: bytes, now: float) -> None:
        welcome = self._joining.receive_welcome(data)
        self._joining.stop()
        self._give_up_at = None
        self._leg = leg = PlayerLeg(welcome, self._seat_key, self._random)
        self._unanswered_since = None
        self._is_sequenced = welcome.is_sequenced
        self._expires_at = now + welcome.expires - self._wall_clock() / 1e6
        self._direct_until = self._expires_at
        self._roster.welcomed(welcome)
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
        self._is_second_due = self.direct.awaits_second_address = bool(self._second_node and welcome.direct_mode)
        self._ping(now, leg)  # measures the round trip early
        if welcome.is_sequenced:
            self.direct.welcomed(welcome, now)

    # -- receiving -----------------------------------------------------------------------------------

    def _receive(self, data: bytes, addr: Address, now: float) -> tuple[int, bytes] | None:
        if len(data) > packets.MAX_DATAGRAM:
            raise DecodeError("too_long")
        if addr not in (self.node, self._second_node):
            return self._receive_from_elsewhere(data, addr, now)
        match data[0] if data else None:
            case kind if kind in packets.OF_A_CONNECTION:
                if self._leg is None or self.state is not State.RELAYED:
                    raise DecodeError("not_connected")
                return self._receive_in_connection(self._leg, data, addr, now)
            # If no CONNECT is outstanding, each of these three is dropped as "unknown_nonce".
            case PacketType.WELCOME:
                self._receive_welcome(data, now)
            case PacketType.COOKIE:
                self._receive_cookie(data, now)
            case PacketType.REFUSED:
                self._receive_refused(data, now)
            case None:
                raise DecodeError("too_short")
            case _:
                raise DecodeError("unknown_type")
        return None

    def _receive_from_elsewhere(self, data: bytes, addr: Address, now: float) -> tuple[int, bytes] | None:
        if data and data[0] in packets.OF_A_PAIR and self._is_sequenced and self.state is not State.CLOSED:
            arrived = self.direct.receive_direct(data, addr, now)
            self._received += arrived is not None
            return arrived
        if is_stun(data):
            self.direct.receive_stun(data, now)
            return None
        raise DecodeError("wrong_address")

    def _receive_in_connection(
        self, leg: PlayerLeg, data: bytes, addr: Address, now: float
    ) -> tuple[int, bytes] | None:
        kind, seat, body = leg.open(data)
        if kind != PacketType.PATH_CHALLENGE:
            # A challenge shows that packets reach the node; other packets may still go to the old address (section 9).
            self._unanswered_since = None
        match kind:
            case PacketType.DATA:
                payload = self.direct.receive_data(seat, body, now) if self._is_sequenced else body
                if payload is None:
                    return None
                self._received += 1
                return seat, payload
            case PacketType.PING:
                self._transmit(leg.receive_ping(body, self._roster.generation))
            case PacketType.PONG:
                leg.receive_pong(body, now)
            case PacketType.SIGNAL:
                self._events.append(events.Signaled(seat, body))
            case PacketType.NOTICE:
                self._receive_notice(seat, packets.decode_notice(body), leg.opened, now)
            case PacketType.CLOSE:
                close = packets.decode_close(body)
                self._end(ClosedByNode(close.code, close.text))
            case PacketType.PATH_CHALLENGE:
                if len(body) != packets.CHALLENGE_SIZE:
                    raise DecodeError("malformed")
                purpose = packets.PATH_MOVES if addr == self.node else packets.PATH_IS_SECOND
                self._outgoing.append((leg.seal(PacketType.PATH_RESPONSE, 0, body + purpose), addr))
                if purpose == packets.PATH_IS_SECOND:
                    self._is_second_due = False
                    self.direct.second_address_verified(now)
            case PacketType.RENDEZVOUS:
                self.direct.receive_rendezvous(seat, body, now)
            case PacketType.PEER:
                self.direct.receive_peer(seat, body, now)
        return None

    def _receive_notice(self, seat: int, notice: packets.Notice, number: int, now: float) -> None:
        match notice.code:
            case NoticeCode.MOVED if notice.address is not None:
                self._events.append(events.Moved(notice.address))
            case NoticeCode.OVER_QUOTA:
                self._events.append(events.OverQuota(notice.text))
            case NoticeCode.REVOKED:
                self._end(SeatRevoked(notice.text))
            case NoticeCode.ENDED:
                self._end(SessionEnded(notice.text))
            case NoticeCode.DRAINING:
                self._events.append(events.Draining(notice.text))
            case _:
                self._roster.receive(seat, notice, number, now)

    # -- sending -------------------------------------------------------------------------------------

    def _send_payload(self, kind: int, target: int, payload: bytes, now: float) -> bool:
        if self.error is not None:
            raise self.error
        if not 0 <= target <= EVERYONE or (kind == PacketType.SIGNAL and target == EVERYONE):
            raise InvalidTarget(f"{target} is not a seat")
        if len(payload) > self.max_payload:
            raise PayloadTooLarge(f"{len(payload)} bytes; the maximum is {self.max_payload}")
        if self._leg is None:
            self.dropped["not_connected"] += 1
            return False
        if kind == PacketType.DATA and not self._leg.welcome.may_reach(target):
            raise InvalidTarget(f"seat {target}: in this session, players can send to the host only")
        if kind == PacketType.DATA and self._is_sequenced:
            was_sent = self.direct.send(target, self._roster.seats, payload, now)
        else:
            was_sent = self._relay(kind, target, payload)
        if was_sent:
            self._sent += 1
        else:
            self.dropped["not_connected"] += 1
        return was_sent

    def _relay(self, kind: int, seat: int, body: bytes) -> bool:
        """Sends a packet of the connection. False: there is no connection now."""
        if self._leg is None or self.state is not State.RELAYED:
            return False
        self._outgoing.append((self._leg.seal(kind, seat, body), self.node))
        return True

    def _ping(self, now: float, leg: PlayerLeg) -> None:
        self._transmit(leg.ping(self._roster.generation, now))
        if self._is_second_due:
            self._outgoing.append((leg.ping(self._roster.generation, now), self._second_node))
        self._next_ping = now + leg.welcome.keep_alive
        if self._unanswered_since is None:
            self._unanswered_since = now

    def _transmit(self, datagram: bytes) -> None:
        self._outgoing.append((datagram, self.node))

    # -- states --------------------------------------------------------------------------------------

    def _timeout_at(self, leg: PlayerLeg) -> float:
        if self._unanswered_since is None:
            return math.inf
        return self._unanswered_since + SILENT_KEEP_ALIVES * leg.welcome.keep_alive

    def _end(self, error: ConnectionFailed | None) -> None:
        self._joining.stop()
        self._give_up_at = None
        self.direct.close()
        self.error = error or ConnectionClosed()
        self._enter(events.Closed(error))

    def _enter(self, event: events.Event) -> None:
        self.state = TRANSITIONS[self.state, type(event)]
        self._events.append(event)
