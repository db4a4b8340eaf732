"""The table of sessions and seats: who may send, from where, to where, and under which keys.

Only the methods of SeatTable and ConnectionIds change any of it, and they report each change to a Mirror, so that
another packet path can forward by it. The table makes no decisions; it keeps its indexes consistent.
"""

from collections import deque

from causeway_client.protocol.packets import DirectMode
from nodeapi.grants import DIRECT_MODES, Grant, Limits, SeatGrant

from .addresses import Address
from .dialects.connection_ids import ConnectionIds
from .dialects.edgegap_binding import EdgegapBinding
from .dialects.native_binding import NativeBinding
from .seats import Mirror, Random, Seat, Session

_INDEX_BITS = 20
INDEX_MASK = (1 << _INDEX_BITS) - 1
_RESTING_INDEXES = 1024  # freed indexes that wait before the oldest is used again


class SeatTable:
    def __init__(self, random: Random, mirror: Mirror | None = None) -> None:
        self.mirror = mirror or Mirror()
        self.connection_ids = ConnectionIds(random, self.mirror)
        self.sessions: dict[str, Session] = {}
        self.by_pair: dict[int, EdgegapBinding] = {}
        self.by_connection: dict[int, NativeBinding] = {}
        self.resumed: dict[int, NativeBinding] = {}  # by connection, until their players confirm them
        self.seat_count = 0
        self.connected = 0
        self._random = random
        self._free_indexes: deque[int] = deque()  # oldest first
        self._used_indexes = 0
        self._resumed_indexes: set[int] = set()

    # -- sessions and seats

    def put_session(self, grant: Grant, now: float) -> Session:
        """Add or change a session and its seats. Seats that the grant does not list stay as they are."""
        session = self.sessions.get(grant.session)
        if session is None:
            generation = int.from_bytes(self._random(4), "little")
            session = self.sessions[grant.session] = Session(grant.session, generation, now)
        session.since = now
        session.take_terms(grant)
        for seat_grant in grant.seats:
            mode = direct_mode(seat_grant)
            seat = session.seats.get(seat_grant.seat) or self.add_seat(
                session, seat_grant.seat, seat_grant.limits, mode
            )
            seat.direct_mode = mode
            if seat.edgegap.token != seat_grant.token:
                self._set_token(seat, None)  # before another seat may be given it
        for seat_grant in grant.seats:
            seat = session.seats[seat_grant.seat]
            seat.granted = grant.revision > 0
            seat.revoked = seat.revoked or seat_grant.revoked
            seat.limits = seat_grant.limits
            seat.quota.change(seat.limits.packets, seat.limits.bytes)
            self._set_token(seat, seat_grant.token)
        self.mirror.session_changed(session)
        return session

    def add_seat(self, session: Session, number: int, limits: Limits, mode: DirectMode) -> Seat:
        seat = session.seats[number] = Seat(session, number, limits, mode, self.connection_ids)
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
        # A timer may refer to the session for another minute, and its seats take most of the memory.
        session.seats, session.by_connection_id = {}, {}

    def extend_silence(self, gap: float, now: float) -> None:
        """Subtract `gap` seconds from the silence of each seat and of each session."""
        for session in self.sessions.values():
            session.since = min(session.since + gap, now)
            for seat in session.seats.values():
                if seat.last_received:
                    seat.last_received = min(seat.last_received + gap, now)

    def revoke(self, seat: Seat) -> None:
        """Its token pair stays in the table, so that further packets of the player do not count as guesses."""
        seat.revoked = True
        self.mirror.seat_changed(seat)

    def _set_token(self, seat: Seat, token: int | None) -> None:
        state = seat.edgegap
        if state.pair is not None:
            del self.by_pair[state.pair]
            state.pair = None
        state.token = token
        if token is not None and seat.session.token is not None:
            state.pair = token_pair(token, seat.session.token)
            self.by_pair[state.pair] = state

    # -- addresses and keys

    def bind(self, seat: Seat, addr: Address, port: int, now: float) -> None:
        """The player of the seat uses the edgegap dialect, from `addr` to our `port`."""
        self._connect(seat, addr, port, now)
        self.mirror.seat_changed(seat)

    def bind_native(self, seat: Seat, binding: NativeBinding, addr: Address, port: int, now: float) -> None:
        """The player of the seat uses the native dialect. The binding replaces the one that the seat had."""
        self._drop_native(seat)
        seat.binding = self.by_connection[binding.id] = binding
        self._connect(seat, addr, port, now)
        self.mirror.seat_changed(seat)

    def resume_native(self, seat: Seat, binding: NativeBinding, addr: Address, port: int, now: float) -> None:
        """The binding that the seat had in an earlier process. Nothing is accepted on it until it is confirmed."""
        self._drop_native(seat)
        binding.is_resumed = True
        seat.binding = self.resumed[binding.id] = binding
        self._resumed_indexes.add(binding.id & INDEX_MASK)
        self._connect(seat, addr, port, now)
        self.mirror.seat_changed(seat)

    def confirm(self, binding: NativeBinding, number: int) -> None:
        """The player of a resumed binding uses it. `number`: a sequence number that it has just used; everything up to
        it may have been received by the earlier process."""
        binding.window.close(number)
        self.go_on(binding)

    def go_on(self, binding: NativeBinding) -> None:
        """A resumed binding is used as any other one."""
        binding.is_resumed = False
        self.by_connection[binding.id] = self.resumed.pop(binding.id)
        self.mirror.seat_changed(binding.seat)

    def move(self, seat: Seat, addr: Address, port: int) -> None:
        seat.addr, seat.port, seat.edgegap.candidate = addr, port, None
        self.mirror.seat_changed(seat)

    def unbind(self, seat: Seat) -> None:
        """Nothing is forwarded from or to the seat until it is bound again."""
        if seat.addr is not None:
            self.connected -= 1
        self.mirror.refresh(seat)
        seat.edgegap.previous_addr, seat.addr, seat.edgegap.candidate = seat.addr, None, None
        self._drop_native(seat)
        self.mirror.seat_changed(seat)

    def _connect(self, seat: Seat, addr: Address, port: int, now: float) -> None:
        if seat.addr is None:
            self.connected += 1
        seat.addr, seat.port, seat.edgegap.candidate, seat.last_received = addr, port, None, now

    def _drop_native(self, seat: Seat) -> None:
        binding = seat.binding
        if isinstance(binding, NativeBinding):
            del (self.resumed if binding.is_resumed else self.by_connection)[binding.id]
            self._free_indexes.append(binding.id & INDEX_MASK)
            seat.binding = seat.edgegap

    def new_connection(self) -> int:
        """A connection id: random, except for a free table index in its low 20 bits."""
        if len(self._free_indexes) > _RESTING_INDEXES:
            index = self._free_indexes.popleft()
        else:
            self._used_indexes += 1
            while self._used_indexes in self._resumed_indexes:
                self._used_indexes += 1
            index = self._used_indexes
        return int.from_bytes(self._random(4), "little") >> _INDEX_BITS << _INDEX_BITS | index


def direct_mode(grant: SeatGrant) -> DirectMode:
    return DirectMode(DIRECT_MODES.index(grant.direct_mode))


def token_pair(user: int, session: int) -> int:
    """Both tokens as the 64-bit number at the start of each edgegap datagram."""
    return session << 32 | user
