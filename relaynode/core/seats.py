"""The table of sessions and seats: who may send, from where, to where, under which keys.

All of that is changed by the methods of SeatTable and by nothing else, and a Mirror is told of each change, so that
another packet path can forward by it. The table decides nothing; it keeps its indexes true.
"""

from collections import deque
from collections.abc import Callable
from ctypes import c_char_p

from causeway_client.protocol.leg import Leg as NativeLeg
from nodeapi.grants import DIALECTS, Grant, Limits, SeatGrant

from .addresses import CLIENT_PORT, SERVER_PORT, Address
from .limits import Quota, take
from .path_quality import Leg, PingSpacing

Random = Callable[[int], bytes]  # n -> n random bytes, as os.urandom

_INDEX_BITS = 20
_RESTING_INDEXES = 1024  # freed ones that wait before the oldest is used again


class Link(NativeLeg):
    """The node's end of a player's native connection."""

    __slots__ = (
        "challenged_at",
        "down_pointer",
        "leg",
        "missed",
        "path_key",
        "player_nonce",
        "seat",
        "told_over_quota_at",
        "up_pointer",
        "welcome",
    )

    def __init__(
        self, connection: int, seat: "Seat", up_key: bytes, down_key: bytes, player_nonce: bytes, path_key: bytes
    ) -> None:
        super().__init__(connection, send_key=down_key, receive_key=up_key)
        self.seat = seat
        self.up_pointer, self.down_pointer = c_char_p(up_key), c_char_p(down_key)  # for the fast lane
        self.player_nonce = player_nonce
        self.path_key = path_key  # makes the challenge for each address (PROTOCOL.md 9)
        self.welcome = b""  # repeated when the player repeats its CONNECT
        self.challenged_at = self.told_over_quota_at = 0.0
        self.leg = Leg()
        self.missed: set[int] = set()  # seats that joined or left before the player had shown that it reads us

    def totals(self) -> tuple[int, int]:
        """Packets (sent to the player, right and new ones received from it) so far."""
        return self.sent, self.received


class Seat:
    """A player's place in a session, connected while it has an address."""

    __slots__ = (
        "addr",
        "candidate",
        "candidate_packets",
        "check_at",
        "connection_id",
        "connects_at",
        "former_addr",
        "granted",
        "last_connect",
        "last_heard",
        "limits",
        "link",
        "moved_at",
        "number",
        "pair",
        "pings",
        "port",
        "prefix",
        "quota",
        "revoked",
        "role_port",
        "session",
        "token",
    )

    def __init__(self, session: "Session", number: int, limits: Limits) -> None:
        self.session = session
        self.number = number
        self.role_port = CLIENT_PORT if number else SERVER_PORT  # where the edgegap dialect has this seat
        self.granted = False  # else admitted by its connect token
        self.revoked = False
        self.limits = limits
        self.quota = Quota(limits.packets, limits.bytes)
        self.addr: Address | None = None
        self.port = self.role_port  # which of our ports it speaks to, and is answered from
        self.last_heard = 0.0  # 0: never
        self.check_at = 0.0
        self.moved_at = 0.0  # when it last went to another address
        # edgegap
        self.token: int | None = None
        self.pair: int | None = None  # both tokens as on the wire: first 8 bytes, little-endian
        self.former_addr: Address | None = None  # the last one, of a seat that fell silent
        self.candidate: Address | None = None  # asks to be the new address (admission.may_move)
        self.candidate_packets = 0
        self.connection_id = 0  # what an edgegap host calls this seat; 0: nothing yet
        self.prefix = b""  # what stands before its payload to an edgegap host; empty: the id is to be settled
        self.pings: PingSpacing | None = None  # None: no ping yet
        # native
        self.link: Link | None = None
        self.connects_at = 0.0  # its bucket of CONNECTs (limits.connect_at)
        self.last_connect = 0  # timestamp of the last CONNECT accepted


class Session:
    __slots__ = (
        "began",
        "by_connection_id",
        "check_at",
        "edgegap",
        "ended",
        "expires_at",
        "idle_timeout",
        "limits",
        "mesh",
        "name",
        "native",
        "quota",
        "revision",
        "seats",
        "since",
        "token",
    )

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.began = self.since = now  # since: when it was last granted
        self.seats: dict[int, Seat] = {}
        self.by_connection_id: dict[int, Seat] = {}
        self.quota = Quota(0, 0)
        self.ended = False
        self.check_at = 0.0

    def take_terms(self, grant: Grant) -> None:
        """Everything of the grant but its seats."""
        self.revision = grant.revision
        self.token = grant.token
        self.mesh = grant.topology == "mesh"
        self.edgegap = "edgegap" in grant.dialects
        self.native = "native" in grant.dialects
        self.idle_timeout = grant.idle_timeout
        self.expires_at = grant.expires_at
        self.limits = grant.limits
        self.quota.change(grant.limits.packets, grant.limits.bytes)

    def as_grant(self, worker: int) -> Grant:
        return Grant(
            session=self.name,
            revision=self.revision,
            worker=worker,
            token=self.token,
            topology="mesh" if self.mesh else "host",
            dialects=tuple(dialect for dialect in DIALECTS if getattr(self, dialect)),
            idle_timeout=self.idle_timeout,
            expires_at=self.expires_at,
            limits=self.limits,
            seats=tuple(SeatGrant(seat.number, seat.token, seat.revoked, seat.limits) for seat in self.seats.values()),
        )


class Mirror:
    """What another packet path keeps of the table. This one keeps nothing: there is no other path.

    A path forwards packets without the core's knowledge, so what both change is asked for here: quotas, the sequences
    and windows of links, and when a seat was heard.
    """

    def seat_changed(self, seat: Seat) -> None:
        """When it returns, nothing is forwarded any more by what held before."""

    def session_changed(self, session: Session) -> None:
        """Its terms, and those of its seats."""

    def session_removed(self, session: Session) -> None:
        """All of its seats are unbound."""

    def refresh(self, seat: Seat) -> None:
        """Make `last_heard` true, and forget a candidate address when the seat was heard at its own meanwhile."""

    def make_link(
        self, connection: int, seat: Seat, up_key: bytes, down_key: bytes, player_nonce: bytes, path_key: bytes
    ) -> Link:
        return Link(connection, seat, up_key, down_key, player_nonce, path_key)

    def take(self, seat: Seat, session: Session, size: int, now: float, copies: int = 1) -> bool:
        """Take one packet of `size` bytes out of the seat's quota and its `copies` out of the session's, or nothing."""
        return take(seat.quota, session.quota, size, now - session.began, copies)


class SeatTable:
    def __init__(self, random: Random, mirror: Mirror | None = None) -> None:
        self.mirror = mirror or Mirror()
        self.sessions: dict[str, Session] = {}
        self.by_pair: dict[int, Seat] = {}
        self.by_connection: dict[int, Link] = {}
        self.seat_count = 0
        self.connected = 0
        self._random = random
        self._free_indexes: deque[int] = deque()  # oldest first
        self._used_indexes = 0

    # -- sessions and seats

    def put_session(self, grant: Grant, now: float) -> Session:
        """Add or change a session and its seats as the grant says. Seats it does not name are left as they are."""
        session = self.sessions.get(grant.session)
        if session is None:
            session = self.sessions[grant.session] = Session(grant.session, now)
        session.since = now
        session.take_terms(grant)
        for seat_grant in grant.seats:
            seat = session.seats.get(seat_grant.seat) or self.add_seat(session, seat_grant.seat, seat_grant.limits)
            if seat.token != seat_grant.token:
                self._set_token(seat, None)  # before any other seat may be given it
        for seat_grant in grant.seats:
            seat = session.seats[seat_grant.seat]
            seat.granted = grant.revision > 0
            seat.revoked = seat.revoked or seat_grant.revoked
            seat.limits = seat_grant.limits
            seat.quota.change(seat.limits.packets, seat.limits.bytes)
            self._set_token(seat, seat_grant.token)
        self.mirror.session_changed(session)
        return session

    def add_seat(self, session: Session, number: int, limits: Limits) -> Seat:
        seat = session.seats[number] = Seat(session, number, limits)
        self.seat_count += 1
        return seat

    def remove_session(self, session: Session) -> None:
        """All of its seats must be unbound."""
        session.ended = True
        del self.sessions[session.name]
        self.seat_count -= len(session.seats)
        for seat in session.seats.values():
            self._set_token(seat, None)
        self.mirror.session_removed(session)
        # A deadline may hold the session for another minute, and its seats are what takes room.
        session.seats, session.by_connection_id = {}, {}

    def extend_silence(self, gap: float, now: float) -> None:
        """Count `gap` seconds less of each seat's silence, and of each session's."""
        for session in self.sessions.values():
            session.since = min(session.since + gap, now)
            for seat in session.seats.values():
                if seat.last_heard:
                    seat.last_heard = min(seat.last_heard + gap, now)

    def revoke(self, seat: Seat) -> None:
        """Its pair stays known, so that what it goes on to send is not taken for guessing."""
        seat.revoked = True
        self.mirror.seat_changed(seat)

    def _set_token(self, seat: Seat, token: int | None) -> None:
        if seat.pair is not None:
            del self.by_pair[seat.pair]
            seat.pair = None
        seat.token = token
        if token is not None and seat.session.token is not None:
            seat.pair = token_pair(token, seat.session.token)
            self.by_pair[seat.pair] = seat

    # -- addresses and keys

    def bind(self, seat: Seat, addr: Address, port: int, now: float) -> None:
        """The seat speaks edgegap, from `addr` to our `port`."""
        self._connect(seat, addr, port, now)
        self.mirror.seat_changed(seat)

    def bind_link(self, seat: Seat, link: Link, addr: Address, port: int, now: float) -> None:
        """The seat speaks native over `link`, which replaces what it had."""
        self._drop_link(seat)
        seat.link = self.by_connection[link.id] = link
        self._connect(seat, addr, port, now)
        self.mirror.seat_changed(seat)

    def move(self, seat: Seat, addr: Address, port: int) -> None:
        seat.addr, seat.port, seat.candidate = addr, port, None
        self.mirror.seat_changed(seat)

    def unbind(self, seat: Seat) -> None:
        """Nothing is forwarded from or to the seat until it is bound again."""
        if seat.addr is not None:
            self.connected -= 1
        self.mirror.refresh(seat)
        seat.former_addr, seat.addr, seat.candidate = seat.addr, None, None
        self._drop_link(seat)
        self.mirror.seat_changed(seat)

    def _connect(self, seat: Seat, addr: Address, port: int, now: float) -> None:
        if seat.addr is None:
            self.connected += 1
        seat.addr, seat.port, seat.candidate, seat.last_heard = addr, port, None, now

    def _drop_link(self, seat: Seat) -> None:
        if seat.link is not None:
            del self.by_connection[seat.link.id]
            self._free_indexes.append(seat.link.id & ((1 << _INDEX_BITS) - 1))
            seat.link = None

    def new_connection(self) -> int:
        """A connection id: random, with a free table index in its low 20 bits."""
        if len(self._free_indexes) > _RESTING_INDEXES:
            index = self._free_indexes.popleft()
        else:
            self._used_indexes += 1
            index = self._used_indexes
        return int.from_bytes(self._random(4), "little") >> _INDEX_BITS << _INDEX_BITS | index

    # -- what an edgegap host calls the seats

    def set_connection_id(self, seat: Seat, connection_id: int, prefix: bytes) -> None:
        seat.connection_id, seat.prefix = connection_id, prefix
        seat.session.by_connection_id[connection_id] = seat
        self.mirror.seat_changed(seat)

    def unsettle_connection_id(self, seat: Seat) -> None:
        """It is the seat's until its next payload shows whether the same game still runs (connection_ids)."""
        seat.prefix = b""
        self.mirror.seat_changed(seat)

    def retire_connection_id(self, seat: Seat) -> None:
        """The host's packets for it go nowhere from now on."""
        seat.session.by_connection_id.pop(seat.connection_id, None)
        seat.connection_id, seat.prefix = 0, b""
        self.mirror.seat_changed(seat)


def token_pair(user: int, session: int) -> int:
    """Both tokens as the one 64-bit number that stands first in each edgegap datagram."""
    return session << 32 | user
