"""A leg: a player's connection to one node, sans-I/O (PROTOCOL.md 6 to 10).

`RelayConnection` owns one or two of them. A leg joins, keeps itself alive, and moves to other addresses on its own;
what arrives on it for the game or about the session is returned to the owner.
"""

import math
from collections.abc import Callable, Hashable
from enum import Enum

from .. import handshake, packets
from ..errors import DecodeError
from ..joining import Joining
from ..leg import PlayerLeg
from ..packets import PacketType
from ..paths.candidates import IpPort, reachable_first
from ..roster import Roster

Address = Hashable
Packet = tuple[int, int, bytes]  # type, source seat, body

SILENT_KEEP_ALIVES = 3
CLOSE_COPIES = 3
STANDBY_INTERVAL = 3.0  # seconds between two PINGs on a standby leg, at most


class Lost(Enum):
    """What a timer found."""

    SILENT = "silent"  # three PINGs in a row were not answered
    NO_ANSWER = "no answer"  # to a CONNECT, for as long as the leg may try


class RelayLeg:
    """`outgoing` receives (datagram, address). `wall_clock` returns microseconds since 1970, `random(n)` n bytes of a
    cryptographic generator."""

    def __init__(
        self,
        node: Address,
        second_node: Address | None,
        *,
        token: bytes,
        seat_key: bytes,
        wall_clock: Callable[[], int],
        random: Callable[[int], bytes],
        outgoing: list[tuple[bytes, Address]],
        roster: Roster,
    ) -> None:
        self.node, self.second_node = node, second_node
        self.roster = roster
        self.connection: PlayerLeg | None = None  # of the last WELCOME
        self.is_connected = False
        self.is_ready = False  # a PING was answered
        self.is_standby = False  # PINGs are further apart
        self.is_second_due = False  # a PING from the second address, to be challenged there
        self.refused: handshake.Refused | None = None
        self.arrived_at = -math.inf  # the last packet with a valid tag
        self.unanswered_since: float | None = None  # when the first PING since then was sent
        self.give_up_at: float | None = None  # while it joins
        self._seat_key = seat_key
        self._wall_clock, self._random = wall_clock, random
        self._joining = Joining(token, seat_key, wall_clock, random)
        self._outgoing = outgoing
        self._next_ping = math.inf

    # -- joining

    def join(self, timeout: float, now: float) -> None:
        """Sends a CONNECT, and repeats it for `timeout` seconds."""
        self.is_connected = self.is_ready = False
        self.give_up_at = now + timeout
        self._transmit(self._joining.start(now))

    @property
    def is_joining(self) -> bool:
        return self.give_up_at is not None

    def renew(self, token: bytes, seat_key: bytes, now: float) -> None:
        """Another token, for the next CONNECT. The timestamps go on, because the seat is the same."""
        self._joining.renew(token, seat_key)
        self._seat_key = seat_key
        if self.is_joining:
            self._transmit(self._joining.start(now))

    def stop(self) -> None:
        """Nothing is sent any more."""
        self._joining.stop()
        self.give_up_at = None
        self.is_connected = self.is_ready = False

    def close(self, code: int = 0, reason: str = "") -> None:
        """Leaves the node."""
        if self.is_connected and self.connection is not None:
            body = packets.Close(code, reason).encode()
            for _ in range(CLOSE_COPIES):
                self._transmit(self.connection.seal(PacketType.CLOSE, 0, body))
        self.stop()

    # -- receiving

    def is_from(self, addr: Address) -> bool:
        return addr in (self.node, self.second_node) or (isinstance(self.node, tuple) and addr == self.node[:2])

    def receive(self, data: bytes, addr: Address, now: float) -> Packet | None:
        """What the owner has to handle; None: the leg has handled it. The body of PATH_CHALLENGE is its purpose.
        Raises DecodeError."""
        match data[0] if data else None:
            case kind if kind in packets.OF_A_CONNECTION:
                if self.connection is None or not self.is_connected:
                    raise DecodeError("not_connected")
                return self._receive_in_connection(self.connection, data, addr, now)
            # If no CONNECT is outstanding, each of these three is dropped as "unknown_nonce".
            case PacketType.WELCOME:
                self._receive_welcome(data, now)
                return PacketType.WELCOME, 0, b""
            case PacketType.COOKIE:
                again = self._joining.receive_cookie(data, now)
                if again is not None:
                    self._transmit(again)
            case PacketType.REFUSED:
                answer = self._joining.receive_refused(data, now)
                if not isinstance(answer, bytes):
                    self.stop()
                    self.refused = answer
                    return PacketType.REFUSED, 0, b""
                self._transmit(answer)
            case None:
                raise DecodeError("too_short")
            case _:
                raise DecodeError("unknown_type")
        return None

    def _receive_welcome(self, data: bytes, now: float) -> None:
        welcome = self._joining.receive_welcome(data)
        self._joining.stop()
        self.give_up_at = self.unanswered_since = None
        self.connection = PlayerLeg(welcome, self._seat_key, self._random)
        self.is_connected, self.is_ready, self.refused = True, False, None
        self.arrived_at = now

    def _receive_in_connection(self, connection: PlayerLeg, data: bytes, addr: Address, now: float) -> Packet | None:
        kind, seat, body = connection.open(data)
        if kind != PacketType.PATH_CHALLENGE:
            # A challenge shows that packets reach the node; other packets may still go to the old address (section 9).
            self.unanswered_since = None
            self.arrived_at = now
        match kind:
            case PacketType.PING:
                self._transmit(connection.receive_ping(body, self.roster.generation))
            case PacketType.PONG:
                connection.receive_pong(body, now)
                self.is_ready = True
            case PacketType.PATH_CHALLENGE:
                if len(body) != packets.CHALLENGE_SIZE:
                    raise DecodeError("malformed")
                purpose = packets.PATH_IS_SECOND if addr == self.second_node else packets.PATH_MOVES
                self._outgoing.append((connection.seal(PacketType.PATH_RESPONSE, 0, body + purpose), addr))
                if purpose == packets.PATH_IS_SECOND:
                    self.is_second_due = False
                return kind, seat, purpose
            case _:
                return kind, seat, body
        return None

    # -- sending

    def send(self, kind: int, seat: int, body: bytes) -> bool:
        """False: there is no connection now."""
        if self.connection is None or not self.is_connected:
            return False
        self._outgoing.append((self.connection.seal(kind, seat, body), self.node))
        return True

    def ping(self, now: float) -> None:
        """Must be connected."""
        connection = self.connection
        if connection is None:
            return
        self._transmit(connection.ping(self.roster.generation, now))
        if self.is_second_due:
            self._outgoing.append((connection.ping(self.roster.generation, now), self.second_node))
        self._next_ping = now + self._interval
        if self.unanswered_since is None:
            self.unanswered_since = now

    def rebind(self, hosts: list[IpPort], now: float) -> None:
        """The sockets have other addresses: sends a packet at once, so that the node verifies it."""
        self.node, self.second_node = reachable_first(hosts, self.node, self.second_node)
        if self.is_connected:
            self.is_second_due = self.second_node is not None and not self.is_standby
            self.ping(now)
        elif self.is_joining:
            self._transmit(self._joining.start(now))

    def _transmit(self, datagram: bytes) -> None:
        self._outgoing.append((datagram, self.node))

    # -- time

    @property
    def round_trip(self) -> tuple[float | None, float]:
        """(smoothed, jitter) in seconds; None before the first measurement."""
        if self.connection is None:
            return None, 0.0
        return self.connection.round_trip.smoothed, self.connection.round_trip.jitter

    @property
    def _interval(self) -> float:
        if self.connection is None:
            return math.inf
        welcome = self.connection.welcome
        if not self.is_standby:
            return welcome.keep_alive
        return max(welcome.keep_alive, min(STANDBY_INTERVAL, welcome.timeout_ms / 3000))

    def set_standby(self, is_standby: bool, now: float) -> None:
        self.is_standby = is_standby
        self._next_ping = min(self._next_ping, now + self._interval)

    def next_timer(self) -> float:
        if self.is_connected:
            return min(self._next_ping, self._silent_at())
        if self.give_up_at is not None and self._joining.repeat_at is not None:
            return min(self.give_up_at, self._joining.repeat_at)
        return math.inf

    def handle_timer(self, now: float) -> Lost | None:
        if self.is_connected:
            if now >= self._silent_at():
                return Lost.SILENT
            if now >= self._next_ping:
                self.ping(now)
        elif self.give_up_at is not None:
            if now >= self.give_up_at:
                return Lost.NO_ANSWER
            if self._joining.repeat_at is not None and now >= self._joining.repeat_at:
                self._transmit(self._joining.repeat(now))
        return None

    def _silent_at(self) -> float:
        if self.unanswered_since is None:
            return math.inf
        return self.unanswered_since + SILENT_KEEP_ALIVES * self._interval
